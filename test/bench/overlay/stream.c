/*
 * TCP between two namespaces, without a runtime in the way.
 *   stream serve PORT               answers all kinds, for ever
 *   stream push  ADDRESS PORT MS    sends as fast as it can; prints bytes per second that the other end has read
 *   stream echo  ADDRESS PORT MS    one byte there and back, again and again; prints round trips per second
 *   stream call  ADDRESS PORT MS    the same, each on a connection of its own; prints calls per second
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>

static char buffer[1 << 17];

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static void serve_one(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  char kind;
  if (read(fd, &kind, 1) != 1) return;
  if (kind == 'e') {
    while (read(fd, buffer, 1) == 1)
      if (write(fd, buffer, 1) != 1) return;
    return;
  }
  uint64_t total = 0;
  ssize_t got;
  while ((got = read(fd, buffer, sizeof buffer)) > 0) total += (uint64_t)got;
  if (write(fd, &total, sizeof total) < 0) return;
}

static int call(const struct sockaddr_in *far) {
  /* Closed at once, or the ports would run out. */
  struct linger at_once = {1, 0};
  int fd = socket(AF_INET, SOCK_STREAM, 0), ok;
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  ok = !connect(fd, (const struct sockaddr *)far, sizeof *far) && write(fd, "ex", 2) == 2 && read(fd, buffer, 1) == 1;
  close(fd);
  return ok;
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc == 3 && !strcmp(argv[1], "serve")) {
    signal(SIGCHLD, SIG_IGN);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    if (bind(fd, (struct sockaddr *)&own, sizeof own) || listen(fd, 16)) return perror("serve"), 1;
    puts("ready");
    fflush(stdout);
    for (;;) {
      int peer = accept(fd, 0, 0);
      if (peer < 0) continue;
      if (fork() == 0) {
        serve_one(peer);
        return 0;
      }
      close(peer);
    }
  }
  if (argc != 5) return 2;
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  struct sockaddr_in far = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
  inet_pton(AF_INET, argv[2], &far.sin_addr);
  if (!strcmp(argv[1], "call")) {
    double first = now(), last = first + atoi(argv[4]) / 1e3;
    long calls = 0;
    for (; now() < last; calls++)
      if (!call(&far)) return perror("call"), 1;
    printf("%f\n", calls / (now() - first));
    return 0;
  }
  if (connect(fd, (struct sockaddr *)&far, sizeof far)) return perror("connect"), 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  double began = now(), end = began + atoi(argv[4]) / 1e3;
  if (!strcmp(argv[1], "echo")) {
    long trips = 0;
    if (write(fd, "e", 1) != 1) return 1;
    for (; now() < end; trips++)
      if (write(fd, "x", 1) != 1 || read(fd, buffer, 1) != 1) return 1;
    printf("%f\n", trips / (now() - began));
    return 0;
  }
  uint64_t total = 0;
  if (write(fd, "p", 1) != 1) return 1;
  while (now() < end)
    if (write(fd, buffer, sizeof buffer) < 0) return 1;
  shutdown(fd, SHUT_WR);
  if (read(fd, &total, sizeof total) != sizeof total) return 1;
  printf("%f\n", (double)total / (now() - began));
  return 0;
}
