/*
 * What the kernel itself needs for one container, by bare rtnetlink: a namespace bound to a path; a veth whose peer is born
 * in it, the near end a port of the bridge and up (one message); inside: address, up, default route (one batch).
 * Tear-down: unbind the namespace, which takes the pair along.
 *
 *   bare BRIDGE DIRECTORY COUNT FIRST-ADDRESS GATEWAY     (in the host's namespace, as root)
 * prints: {"setup":[milliseconds...],"teardown":[...]}
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[8192];
static size_t used;

static void die(const char *what) { perror(what); exit(1); }

static void *put(const void *data, size_t length) {
  void *at = buffer + used;
  if (data) memcpy(at, data, length); else memset(at, 0, length);
  used += NLMSG_ALIGN(length);
  return at;
}

static struct nlmsghdr *message(int type, int flags) {
  struct nlmsghdr *h = put(NULL, sizeof *h);
  h->nlmsg_type = type;
  h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
  return h;
}

static void finish(struct nlmsghdr *h) { h->nlmsg_len = buffer + used - (char *)h; }

static struct rtattr *attribute(int type, const void *data, size_t length) {
  struct rtattr *a = put(NULL, sizeof *a);
  a->rta_type = type;
  if (data) put(data, length);
  a->rta_len = RTA_LENGTH(length);
  return a;
}

static void end(struct rtattr *a) { a->rta_len = buffer + used - (char *)a; }

static int route_socket(void) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) die("socket");
  return fd;
}

static void exchange(int fd, int count) {
  char reply[8192];
  if (send(fd, buffer, used, 0) < 0) die("send");
  used = 0;
  while (count > 0) {
    ssize_t n = recv(fd, reply, sizeof reply, 0);
    if (n < 0) die("recv");
    for (struct nlmsghdr *h = (void *)reply; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
      struct nlmsgerr *e = NLMSG_DATA(h);
      if (h->nlmsg_type == NLMSG_ERROR) {
        if (e->error) { errno = -e->error; die("netlink"); }
        count--;
      }
    }
  }
}

struct made { const char *path; int ns, route; };

static void *make(void *argument) {
  struct made *m = argument;
  if (unshare(CLONE_NEWNET) != 0) die("unshare");
  m->route = route_socket();
  struct nlmsghdr *h = message(RTM_NEWLINK, 0);
  struct ifinfomsg i = { .ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
  put(&i, sizeof i);
  finish(h);
  exchange(m->route, 1);
  m->ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  close(open(m->path, O_CREAT | O_EXCL | O_CLOEXEC, 0444));
  if (mount("/proc/thread-self/ns/net", m->path, NULL, MS_BIND, NULL) != 0) die("mount");
  return NULL;
}

static void veth(int host, const char *name, int bridge, int ns) {
  struct nlmsghdr *h = message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  struct ifinfomsg i = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
  put(&i, sizeof i);
  attribute(IFLA_IFNAME, name, strlen(name) + 1);
  attribute(IFLA_MASTER, &bridge, 4);
  struct rtattr *info = attribute(IFLA_LINKINFO, NULL, 0);
  attribute(IFLA_INFO_KIND, "veth", 4);
  struct rtattr *data = attribute(IFLA_INFO_DATA, NULL, 0);
  struct rtattr *peer = attribute(VETH_INFO_PEER, NULL, 0);
  struct ifinfomsg p = { .ifi_index = 2 };
  put(&p, sizeof p);
  attribute(IFLA_IFNAME, "eth0", 5);
  attribute(IFLA_NET_NS_FD, &ns, 4);
  end(peer);
  end(data);
  end(info);
  finish(h);
  exchange(host, 1);
}

static void inside(int route, in_addr_t address, in_addr_t gateway) {
  struct nlmsghdr *h = message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
  struct ifaddrmsg a = { .ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = 2 };
  put(&a, sizeof a);
  attribute(IFA_LOCAL, &address, 4);
  attribute(IFA_ADDRESS, &address, 4);
  finish(h);
  h = message(RTM_NEWLINK, 0);
  struct ifinfomsg i = { .ifi_index = 2, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
  put(&i, sizeof i);
  finish(h);
  h = message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  struct rtmsg r = { .rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST };
  put(&r, sizeof r);
  attribute(RTA_GATEWAY, &gateway, 4);
  finish(h);
  exchange(route, 3);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv) {
  if (argc != 6) { fprintf(stderr, "usage: bare BRIDGE DIRECTORY COUNT FIRST-ADDRESS GATEWAY\n"); return 2; }
  int bridge = if_nametoindex(argv[1]), count = atoi(argv[3]), host = route_socket();
  in_addr_t first = ntohl(inet_addr(argv[4])), gateway = inet_addr(argv[5]);
  double *setup = calloc(count, sizeof *setup), *teardown = calloc(count, sizeof *teardown);
  if (!bridge) die(argv[1]);
  for (int n = 0; n < count; n++) {
    char path[256], name[IFNAMSIZ];
    snprintf(path, sizeof path, "%s/bare%d", argv[2], n);
    snprintf(name, sizeof name, "bare%d", n);
    struct made m = { .path = path };
    double start = now();
    pthread_t thread;
    if (pthread_create(&thread, NULL, make, &m) != 0) die("thread");
    pthread_join(thread, NULL);
    veth(host, name, bridge, m.ns);
    inside(m.route, htonl(first + n), gateway);
    setup[n] = now() - start;
    start = now();
    close(m.route);
    close(m.ns);
    umount2(path, MNT_DETACH);
    unlink(path);
    teardown[n] = now() - start;
  }
  printf("{\"setup\":[");
  for (int n = 0; n < count; n++) printf("%s%.4f", n ? "," : "", setup[n]);
  printf("],\"teardown\":[");
  for (int n = 0; n < count; n++) printf("%s%.4f", n ? "," : "", teardown[n]);
  printf("]}\n");
  return 0;
}
