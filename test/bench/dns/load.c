/*
 * Asks a name server as fast as it answers, or at a given rate, and says how fast it was. Cheap, so that the server is the
 * limit: each client (a connected UDP socket) has several questions outstanding, sent and received in batches.
 *
 * load SERVER SOURCE QUESTIONS CLIENTS WINDOW SECONDS RATE COUNT
 *   QUESTIONS: file of messages, each behind its length in two bytes (big endian); asked in turn, over and over.
 *   The digits 00000000 in one are replaced by a number that counts up: names that nobody has asked for before.
 *   WINDOW: questions that a client has outstanding, up to 32. RATE: questions a second in all, 0: as many as go.
 *   COUNT: questions after which it ends, 0: SECONDS decide.
 * Prints: completed lost seconds p50 p99 (ms).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WINDOW 32 /* a power of two: the low bits of an id are the place in the window */
#define SLOT 4096
#define LOST 1.0 /* seconds */
#define MOST_LATENCIES (1 << 20)

struct outstanding {
  uint16_t id; /* 0: none */
  double since;
};
struct client {
  int fd, free;
  uint16_t generation;
  struct outstanding window[WINDOW];
};

static struct client *clients;
static int window, first_free;
static const uint8_t *questions;
static size_t questions_size, at;
static uint64_t asked, completed, lost, counter;
static float *latencies;
static size_t latencies_count;
static uint8_t outgoing[WINDOW][SLOT], incoming[WINDOW][SLOT];

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* Puts the next question into `outgoing[place]`. */
static size_t write_question(int place, uint16_t id) {
  if (at + 2 > questions_size) at = 0;
  size_t length = (size_t)questions[at] << 8 | questions[at + 1];
  memcpy(outgoing[place], questions + at + 2, length);
  outgoing[place][0] = (uint8_t)(id >> 8);
  outgoing[place][1] = (uint8_t)id;
  uint8_t *digits = memmem(outgoing[place], length, "00000000", 8);
  if (digits != NULL) {
    uint64_t rest = ++counter;
    for (int i = 7; i >= 0; i--, rest /= 10) digits[i] = (uint8_t)('0' + rest % 10);
  }
  at += 2 + length;
  return length;
}

/* Asks up to `most` questions, where the window has room. */
static int ask(struct client *client, int most) {
  struct mmsghdr messages[WINDOW];
  struct iovec parts[WINDOW];
  double time = now();
  int count = 0;
  memset(messages, 0, sizeof messages);
  for (int place = 0; place < window && count < most; place++) {
    if (client->window[place].id != 0) continue;
    uint16_t id = (uint16_t)(++client->generation * WINDOW + place);
    if (id < WINDOW) id = (uint16_t)(++client->generation * WINDOW + place); /* never 0 */
    client->window[place] = (struct outstanding){id, time};
    parts[count] = (struct iovec){outgoing[count], write_question(count, id)};
    messages[count].msg_hdr.msg_iov = &parts[count];
    messages[count].msg_hdr.msg_iovlen = 1;
    count++;
  }
  /* What does not go is lost, as on the way. */
  if (count > 0) (void)sendmmsg(client->fd, messages, (unsigned)count, MSG_DONTWAIT);
  client->free -= count;
  asked += (uint64_t)count;
  return count;
}

static void hear(struct client *client) {
  static struct mmsghdr messages[WINDOW];
  static struct iovec parts[WINDOW];
  for (int i = 0; i < WINDOW; i++) {
    parts[i] = (struct iovec){incoming[i], SLOT};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  int count = recvmmsg(client->fd, messages, WINDOW, MSG_DONTWAIT, NULL);
  double time = now();
  for (int i = 0; i < count; i++) {
    uint16_t id = (uint16_t)(incoming[i][0] << 8 | incoming[i][1]);
    struct outstanding *one = &client->window[id & (WINDOW - 1)];
    if (messages[i].msg_len < 12 || id == 0 || one->id != id) continue; /* given up before */
    if (latencies_count < MOST_LATENCIES) latencies[latencies_count++] = (float)((time - one->since) * 1e3);
    one->id = 0;
    client->free++;
    completed++;
  }
}

static void give_up(struct client *client, double before) {
  for (int place = 0; place < window; place++)
    if (client->window[place].id != 0 && client->window[place].since < before) {
      client->window[place].id = 0;
      client->free++;
      lost++;
    }
}

static int compare(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void read_questions(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL || fseek(file, 0, SEEK_END) != 0) die(path);
  questions_size = (size_t)ftell(file);
  uint8_t *bytes = malloc(questions_size);
  rewind(file);
  if (bytes == NULL || fread(bytes, 1, questions_size, file) != questions_size) die(path);
  fclose(file);
  questions = bytes;
}

static int connected(const char *server, const char *source) {
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET};
  inet_pton(AF_INET, source, &address.sin_addr);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0) die("bind");
  inet_pton(AF_INET, server, &address.sin_addr);
  address.sin_port = htons(53);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) die("connect");
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 9) return 2;
  int count = atoi(argv[4]);
  window = atoi(argv[5]);
  double seconds = atof(argv[6]), rate = atof(argv[7]);
  uint64_t most = strtoull(argv[8], NULL, 10);
  if (count < 1 || window < 1 || window > WINDOW) return 2;
  read_questions(argv[3]);
  latencies = malloc(MOST_LATENCIES * sizeof *latencies);
  clients = calloc((size_t)count, sizeof *clients);
  int poll = epoll_create1(EPOLL_CLOEXEC);
  for (int i = 0; i < count; i++) {
    clients[i].fd = connected(argv[1], argv[2]);
    clients[i].free = window;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, clients[i].fd, &event) != 0) die("epoll_ctl");
  }

  double start = now(), end = start, cleaned = start;
  if (rate == 0)
    for (int i = 0; i < count; i++) ask(&clients[i], window);
  for (;;) {
    struct epoll_event events[64];
    struct timespec pause = {0, 10000000};
    end = now();
    if (most > 0 ? completed + lost >= most : end - start >= seconds) break;
    if (rate > 0) {
      double due = (end - start) * rate - (double)asked;
      for (int tries = 0; due >= 1 && tries < count; tries++) {
        due -= ask(&clients[first_free], 1);
        first_free = (first_free + 1) % count;
      }
      pause.tv_nsec = (long)(1e9 / rate);
    }
    int ready = epoll_pwait2(poll, events, 64, &pause, NULL);
    for (int i = 0; i < ready; i++) {
      struct client *client = events[i].data.ptr;
      hear(client);
      if (rate == 0) ask(client, window);
    }
    if (end - cleaned > LOST / 4) {
      cleaned = end;
      for (int i = 0; i < count; i++) {
        give_up(&clients[i], end - LOST);
        if (rate == 0) ask(&clients[i], window);
      }
    }
  }
  qsort(latencies, latencies_count, sizeof *latencies, compare);
  double p50 = latencies_count ? latencies[latencies_count / 2] : -1;
  double p99 = latencies_count ? latencies[latencies_count * 99 / 100] : -1;
  printf("%llu %llu %.6f %.4f %.4f\n", (unsigned long long)completed, (unsigned long long)lost, end - start, p50, p99);
  return 0;
}
