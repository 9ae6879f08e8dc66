/* Sockets: opened inside a namespace, then used from anywhere. */
#include "cnm.h"

#include <linux/netlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef NETLINK_GET_STRICT_CHK
#define NETLINK_GET_STRICT_CHK 12 /* linux/netlink.h since 4.20 */
#endif

/*
 * Bytes (the kernel doubles it). It queues the answers to all messages of one send before the first can be read, and
 * drops those that do not fit. FORCE needs CAP_NET_ADMIN over the namespace; else as much as rmem_max allows.
 */
static const int RECEIVE_BUFFER = 1024 * 1024;

static void set_int(int fd, int level, int name, int value) { (void)setsockopt(fd, level, name, &value, sizeof value); }

int cnm_socket(int domain, int type, int protocol) {
  int fd = socket(domain, type | SOCK_CLOEXEC, protocol);
  if (fd < 0) return -errno;
  if (domain == AF_NETLINK) { /* what an old kernel does not know, it goes without */
    set_int(fd, SOL_NETLINK, NETLINK_EXT_ACK, 1);
    set_int(fd, SOL_NETLINK, NETLINK_CAP_ACK, 1);
    if (protocol == NETLINK_ROUTE) set_int(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1);
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &RECEIVE_BUFFER, sizeof RECEIVE_BUFFER) != 0)
      set_int(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
  }
  return fd;
}

static napi_value open_socket(napi_env env, napi_callback_info info) {
  napi_value args[4];
  int ns, domain, type, protocol, previous, error;
  if (!cnm_get_args(env, info, 4, args) || !cnm_get_int(env, args[0], "ns", &ns) ||
      !cnm_get_int(env, args[1], "domain", &domain) || !cnm_get_int(env, args[2], "type", &type) ||
      !cnm_get_int(env, args[3], "protocol", &protocol))
    return NULL;
  if ((error = cnm_enter(ns, &previous)) != 0) return cnm_throw(env, error, "setns");
  int fd = cnm_socket(domain, type, protocol);
  cnm_leave(previous);
  return fd < 0 ? cnm_throw(env, -fd, "socket") : cnm_number(env, fd);
}

static napi_value set_option(napi_env env, napi_callback_info info) {
  napi_value args[4];
  napi_valuetype kind;
  int fd, level, name, number;
  const uint8_t *bytes = NULL;
  size_t length = 0;
  if (!cnm_get_args(env, info, 4, args) || !cnm_get_int(env, args[0], "fd", &fd) ||
      !cnm_get_int(env, args[1], "level", &level) || !cnm_get_int(env, args[2], "name", &name) ||
      napi_typeof(env, args[3], &kind) != napi_ok)
    return NULL;
  if (kind == napi_number) {
    if (!cnm_get_int(env, args[3], "value", &number)) return NULL;
    bytes = (const uint8_t *)&number;
    length = sizeof number;
  } else if (!cnm_get_bytes(env, args[3], "value", &bytes, &length)) {
    return NULL;
  }
  if (setsockopt(fd, level, name, bytes, (socklen_t)length) != 0) return cnm_throw(env, errno, "setsockopt");
  return cnm_undefined(env);
}

static napi_value bind_socket(napi_env env, napi_callback_info info) {
  napi_value args[2];
  int fd;
  const uint8_t *address;
  size_t length;
  if (!cnm_get_args(env, info, 2, args) || !cnm_get_int(env, args[0], "fd", &fd) ||
      !cnm_get_bytes(env, args[1], "address", &address, &length))
    return NULL;
  if (bind(fd, (const struct sockaddr *)address, (socklen_t)length) != 0) return cnm_throw(env, errno, "bind");
  return cnm_undefined(env);
}

static napi_value connect_socket(napi_env env, napi_callback_info info) {
  napi_value args[2];
  int fd;
  const uint8_t *address;
  size_t length;
  if (!cnm_get_args(env, info, 2, args) || !cnm_get_int(env, args[0], "fd", &fd) ||
      !cnm_get_bytes(env, args[1], "address", &address, &length))
    return NULL;
  if (connect(fd, (const struct sockaddr *)address, (socklen_t)length) != 0) return cnm_throw(env, errno, "connect");
  return cnm_undefined(env);
}

static napi_value listen_socket(napi_env env, napi_callback_info info) {
  napi_value args[2];
  int fd, backlog;
  if (!cnm_get_args(env, info, 2, args) || !cnm_get_int(env, args[0], "fd", &fd) ||
      !cnm_get_int(env, args[1], "backlog", &backlog))
    return NULL;
  if (listen(fd, backlog) != 0) return cnm_throw(env, errno, "listen");
  return cnm_undefined(env);
}

static napi_value socket_name(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  int fd;
  if (!cnm_get_args(env, info, 1, args) || !cnm_get_int(env, args[0], "fd", &fd)) return NULL;
  if (getsockname(fd, (struct sockaddr *)&address, &length) != 0) return cnm_throw(env, errno, "getsockname");
  return cnm_bytes(env, &address, length < sizeof address ? length : sizeof address);
}

/* Takes no lock of the kernel's and loads no module, as asking for the index of a name would (net/core/dev_ioctl.c). */
static napi_value link_name(napi_env env, napi_callback_info info) {
  napi_value args[2], name;
  struct ifreq request = {0};
  int fd;
  if (!cnm_get_args(env, info, 2, args) || !cnm_get_int(env, args[0], "fd", &fd) ||
      !cnm_get_int(env, args[1], "index", &request.ifr_ifindex))
    return NULL;
  if (ioctl(fd, SIOCGIFNAME, &request) != 0)
    return errno == ENODEV ? cnm_undefined(env) : cnm_throw(env, errno, "ioctl");
  return napi_create_string_utf8(env, request.ifr_name, strnlen(request.ifr_name, IFNAMSIZ), &name) == napi_ok ? name : NULL;
}

static napi_value close_descriptor(napi_env env, napi_callback_info info) {
  napi_value args[1];
  int fd;
  if (!cnm_get_args(env, info, 1, args) || !cnm_get_int(env, args[0], "fd", &fd)) return NULL;
  /* Linux has released the descriptor even when close(2) is interrupted. */
  if (close(fd) != 0 && errno != EINTR) return cnm_throw(env, errno, "close");
  return cnm_undefined(env);
}

void cnm_register_socket(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {
      {"socket", open_socket}, {"setsockopt", set_option},  {"bind", bind_socket},
      {"connect", connect_socket}, {"listen", listen_socket}, {"socketName", socket_name},
      {"linkName", link_name},  {"close", close_descriptor},
  };
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
