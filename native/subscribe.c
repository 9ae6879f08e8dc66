/*
 * Multicast netlink subscriptions. One poller thread per environment serves them all: it starts with the first and ends
 * with the last. A socket is armed for one event at a time (EPOLLONESHOT): what is read becomes one chunk, and only
 * when JavaScript has taken that is the socket read again. So at most one chunk per subscription is under way, and
 * what comes meanwhile waits in the socket's receive buffer, whose overflow the kernel reports as ENOBUFS.
 *
 * A subscription to "others" hears all namespaces that have an id in the one where its socket is, except that one itself: one
 * socket for a thousand namespaces, since the kernel walks over all subscribers, wherever they are, for each message.
 *
 * Poller and JavaScript share the list of subscriptions under one mutex, and name a subscription by its id, never by
 * its address: it may be closed while an event of it is on the way.
 */
#include "cnm.h"

#include <linux/filter.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* Bytes of one chunk, and the space that a further message must have (the kernel's notifications are at most 16 KiB). */
#define CHUNK_SIZE (64 * 1024)
#define MESSAGE_SIZE (32 * 1024)
#define READS 256
/* Bytes of the receive buffer: some thousand events while JavaScript is busy elsewhere. */
static const int RECEIVE_BUFFER = 4 * 1024 * 1024;
/* What goes before each message of another namespace: a message of type NLMSG_NOOP whose body is the namespace's id. */
#define ORIGIN_SIZE (NLMSG_HDRLEN + sizeof(int32_t))
/* The id that wakes the poller to end; subscriptions count from 1. */
#define WAKE_ID 0

struct subscription {
  struct subscription *next;
  uint64_t id;
  int fd;
  bool others;
  napi_ref listener;
  uint8_t *chunk; /* read, and not yet taken by JavaScript */
  size_t length;
  bool overrun; /* ENOBUFS: to be told after the chunk */
};

struct cnm_poller {
  pthread_mutex_t mutex;
  struct subscription *subscriptions;
  uint64_t last_id;
  napi_threadsafe_function deliver; /* lives as long as the environment */
  bool running;
  pthread_t thread;
  int epoll, wake;
};

static struct subscription *find(struct cnm_poller *poller, uint64_t id) {
  struct subscription *subscription = poller->subscriptions;
  while (subscription != NULL && subscription->id != id) subscription = subscription->next;
  return subscription;
}

static void arm(struct cnm_poller *poller, int operation, int fd, uint64_t id) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data = {.u64 = id}};
  (void)epoll_ctl(poller->epoll, operation, fd, &event);
}

static void announce(struct cnm_poller *poller, uint64_t id) {
  (void)napi_call_threadsafe_function(poller->deliver, (void *)(uintptr_t)id, napi_tsfn_nonblocking);
}

/* ---- the poller's thread */

/* Where a message comes from: 0 is the kernel; the id of its namespace, or -1 when that is the socket's own. */
struct origin {
  uint32_t sender;
  int32_t namespace;
};

/* Length of the next message, or -1. Netlink datagrams are never empty. */
static ssize_t receive(int fd, void *buffer, size_t room, struct origin *origin) {
  struct sockaddr_nl address = {0};
  union {
    struct cmsghdr header;
    uint8_t bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec vector = {buffer, room};
  struct msghdr message = {.msg_name = &address, .msg_namelen = sizeof address, .msg_iov = &vector, .msg_iovlen = 1,
                           .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_TRUNC);
  *origin = (struct origin){address.nl_pid, -1};
  if (length < 0) return length;
  for (struct cmsghdr *each = CMSG_FIRSTHDR(&message); each != NULL; each = CMSG_NXTHDR(&message, each))
    if (each->cmsg_level == SOL_NETLINK && each->cmsg_type == NETLINK_LISTEN_ALL_NSID)
      memcpy(&origin->namespace, CMSG_DATA(each), sizeof origin->namespace);
  return length;
}

static void write_origin(uint8_t *place, int32_t namespace) {
  struct nlmsghdr header = {.nlmsg_len = ORIGIN_SIZE, .nlmsg_type = NLMSG_NOOP};
  memcpy(place, &header, sizeof header);
  memcpy(place + NLMSG_HDRLEN, &namespace, sizeof namespace);
}

/*
 * Reads what is there, up to a chunk. Only what the kernel says: whoever is privileged inside a container can send to
 * sockets there; and only so many reads, since meanwhile JavaScript's thread may be waiting for the mutex.
 */
static void fill(struct subscription *subscription) {
  struct origin origin;
  size_t before = subscription->others ? ORIGIN_SIZE : 0;
  subscription->length = 0;
  subscription->chunk = malloc(CHUNK_SIZE);
  if (subscription->chunk == NULL) {
    subscription->overrun = true;
    return;
  }
  for (int reads = 0; reads < READS && CHUNK_SIZE - subscription->length >= MESSAGE_SIZE; reads++) {
    uint8_t *place = subscription->chunk + subscription->length;
    size_t room = CHUNK_SIZE - subscription->length - before;
    ssize_t got = receive(subscription->fd, place + before, room, &origin);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got >= 0 && (origin.sender != 0 || (subscription->others && origin.namespace < 0))) continue;
    if (got < 0 || (size_t)got > room) { /* lost, or too long for us: the listener must look for itself */
      subscription->overrun = true;
      return;
    }
    if (subscription->others) write_origin(place, origin.namespace);
    subscription->length += before + NLMSG_ALIGN((size_t)got);
  }
}

static void serve(struct cnm_poller *poller, uint64_t id) {
  struct subscription *subscription = find(poller, id);
  if (subscription == NULL || subscription->chunk != NULL) return;
  fill(subscription);
  if (subscription->length == 0) {
    free(subscription->chunk);
    subscription->chunk = NULL;
    if (!subscription->overrun) { /* woken for nothing */
      arm(poller, EPOLL_CTL_MOD, subscription->fd, id);
      return;
    }
  }
  announce(poller, id);
}

static void *poll_loop(void *argument) {
  struct cnm_poller *poller = argument;
  struct epoll_event events[64];
  for (;;) {
    int count = epoll_wait(poller->epoll, events, CNM_COUNT(events), -1);
    bool ends = false;
    pthread_mutex_lock(&poller->mutex);
    for (int i = 0; i < count; i++) {
      if (events[i].data.u64 == WAKE_ID)
        ends = true;
      else
        serve(poller, events[i].data.u64);
    }
    pthread_mutex_unlock(&poller->mutex);
    if (ends) return NULL;
  }
}

static struct cnm_failure start_poller(struct cnm_poller *poller) {
  struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = WAKE_ID}};
  struct cnm_failure failure;
  unsigned long thread;
  if ((poller->epoll = epoll_create1(EPOLL_CLOEXEC)) < 0) return (struct cnm_failure){errno, "epoll_create1"};
  if ((poller->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) {
    failure = (struct cnm_failure){errno, "eventfd"};
    goto epoll;
  }
  if (epoll_ctl(poller->epoll, EPOLL_CTL_ADD, poller->wake, &event) != 0) {
    failure = (struct cnm_failure){errno, "epoll_ctl"};
    goto wake;
  }
  int error = cnm_spawn(poll_loop, poller, &thread);
  if (error != 0) {
    failure = (struct cnm_failure){error, "pthread_create"};
    goto wake;
  }
  poller->thread = (pthread_t)thread;
  poller->running = true;
  return (struct cnm_failure){0, NULL};
wake:
  close(poller->wake);
epoll:
  close(poller->epoll);
  return failure;
}

static void stop_poller(struct cnm_poller *poller) {
  uint64_t one = 1;
  if (!poller->running) return;
  (void)!write(poller->wake, &one, sizeof one);
  pthread_join(poller->thread, NULL);
  poller->running = false;
  close(poller->wake);
  close(poller->epoll);
}

/* ---- JavaScript's thread */

/* Takes it off the list; the rest of the list does not know it any more. */
static struct subscription *take_off(struct cnm_poller *poller, uint64_t id) {
  for (struct subscription **link = &poller->subscriptions; *link != NULL; link = &(*link)->next) {
    struct subscription *subscription = *link;
    if (subscription->id != id) continue;
    *link = subscription->next;
    return subscription;
  }
  return NULL;
}

static void free_subscription(napi_env env, struct subscription *subscription) {
  if (subscription->listener != NULL) napi_delete_reference(env, subscription->listener);
  if (subscription->fd >= 0) close(subscription->fd); /* leaves the epoll with it */
  free(subscription->chunk);
  free(subscription);
}

static void close_subscription(napi_env env, struct cnm_poller *poller, uint64_t id) {
  pthread_mutex_lock(&poller->mutex);
  struct subscription *subscription = take_off(poller, id);
  bool last = poller->subscriptions == NULL;
  pthread_mutex_unlock(&poller->mutex);
  if (subscription == NULL) return;
  free_subscription(env, subscription);
  if (last) stop_poller(poller);
}

/* Reads the socket again, or tells what is still to be told. */
static void next_turn(struct cnm_poller *poller, uint64_t id) {
  pthread_mutex_lock(&poller->mutex);
  struct subscription *subscription = find(poller, id); /* the listener may have closed it */
  if (subscription != NULL && subscription->overrun)
    announce(poller, id);
  else if (subscription != NULL)
    arm(poller, EPOLL_CTL_MOD, subscription->fd, id);
  pthread_mutex_unlock(&poller->mutex);
}

/* Called with env NULL when the environment is ending. */
static void deliver(napi_env env, napi_value callback, void *context, void *data) {
  struct cnm_poller *poller = context;
  uint64_t id = (uintptr_t)data;
  napi_value listener = NULL, argument = NULL, result;
  (void)callback;
  if (env == NULL) return;
  pthread_mutex_lock(&poller->mutex);
  struct subscription *subscription = find(poller, id);
  uint8_t *chunk = NULL;
  size_t length = 0;
  if (subscription != NULL) {
    chunk = subscription->chunk;
    length = subscription->length;
    subscription->chunk = NULL;
    if (chunk == NULL) subscription->overrun = false;
  }
  pthread_mutex_unlock(&poller->mutex);
  if (subscription == NULL) return;
  if (chunk != NULL)
    argument = cnm_bytes(env, chunk, length);
  else
    napi_get_null(env, &argument);
  free(chunk);
  if (argument != NULL && napi_get_reference_value(env, subscription->listener, &listener) == napi_ok && listener != NULL &&
      napi_call_function(env, cnm_undefined(env), listener, 1, &argument, &result) != napi_ok)
    cnm_report_exception(env);
  next_turn(poller, id);
}

/* Before the environment takes down the thread-safe function: nobody may call that any more. */
static void shut_down(void *data) {
  struct cnm_poller *poller = data;
  stop_poller(poller);
  while (poller->subscriptions != NULL) {
    struct subscription *subscription = take_off(poller, poller->subscriptions->id);
    close(subscription->fd);
    free(subscription->chunk);
    free(subscription); /* its reference goes with the environment */
  }
}

static void forget_poller(napi_env env, void *data, void *context) {
  struct cnm_poller *poller = context;
  (void)env;
  (void)data;
  pthread_mutex_destroy(&poller->mutex);
  free(poller);
}

/* The poller of this environment, made with the first subscription. */
static struct cnm_poller *get_poller(napi_env env) {
  struct cnm_env *data = cnm_env(env);
  napi_value name;
  if (data->poller != NULL) return data->poller;
  struct cnm_poller *poller = calloc(1, sizeof *poller);
  if (poller == NULL) return NULL;
  pthread_mutex_init(&poller->mutex, NULL);
  if (napi_create_string_utf8(env, "cnm:subscribe", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, forget_poller, poller, deliver,
                                      &poller->deliver) != napi_ok) {
    forget_poller(env, NULL, poller);
    return NULL;
  }
  napi_unref_threadsafe_function(env, poller->deliver); /* does not keep the process alive */
  napi_add_env_cleanup_hook(env, shut_down, poller);    /* hooks run last in, first out: before that of the function */
  return data->poller = poller;
}

/* To hear the other namespaces, and of what they say only what the filter lets through. */
static struct cnm_failure hear_others(int fd, const struct sock_fprog *filter) {
  static const int ON = 1;
  if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, filter, sizeof *filter) != 0 ||
      setsockopt(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, &ON, sizeof ON) != 0)
    return (struct cnm_failure){errno, "setsockopt"};
  return (struct cnm_failure){0, NULL};
}

/* The socket, a member of all groups; or what failed. With a filter: of others. */
static int open_member(int ns, int protocol, const int *groups, uint32_t count, const struct sock_fprog *filter,
                       struct cnm_failure *failure) {
  struct sockaddr_nl address = {.nl_family = AF_NETLINK};
  int previous, error = cnm_enter(ns, &previous);
  if (error != 0) {
    *failure = (struct cnm_failure){error, "setns"};
    return -1;
  }
  int fd = cnm_socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, protocol);
  cnm_leave(previous);
  if (fd < 0) {
    *failure = (struct cnm_failure){-fd, "socket"};
    return -1;
  }
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &RECEIVE_BUFFER, sizeof RECEIVE_BUFFER);
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    *failure = (struct cnm_failure){errno, "bind"};
    goto failed;
  }
  if (filter != NULL && (*failure = hear_others(fd, filter)).number != 0) goto failed;
  for (uint32_t i = 0; i < count; i++)
    if (setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &groups[i], sizeof groups[i]) != 0) {
      *failure = (struct cnm_failure){errno, "setsockopt"};
      goto failed;
    }
  return fd;
failed:
  close(fd);
  return -1;
}

static napi_value close_call(napi_env env, napi_callback_info info) {
  void *id = NULL;
  struct cnm_env *data = cnm_env(env);
  if (napi_get_cb_info(env, info, NULL, NULL, NULL, &id) == napi_ok && data->poller != NULL)
    close_subscription(env, data->poller, (uintptr_t)id);
  return cnm_undefined(env);
}

static bool get_groups(napi_env env, napi_value value, int *groups, uint32_t size, uint32_t *count) {
  napi_value element;
  if (napi_get_array_length(env, value, count) != napi_ok || *count > size) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "groups: array of at most 64 integers expected");
    return false;
  }
  for (uint32_t i = 0; i < *count; i++)
    if (napi_get_element(env, value, i, &element) != napi_ok || !cnm_get_int(env, element, "groups", &groups[i]))
      return false;
  return true;
}

/* `filter` NULL: of the namespace itself. */
static napi_value open_subscription(napi_env env, const napi_value *args, napi_value listener, const struct sock_fprog *filter) {
  napi_value handle, function;
  napi_valuetype type;
  int ns, protocol, groups[64];
  uint32_t count;
  struct cnm_failure failure = {ENOMEM, "malloc"};
  if (!cnm_get_int(env, args[0], "ns", &ns) || !cnm_get_int(env, args[1], "protocol", &protocol) ||
      !get_groups(env, args[2], groups, CNM_COUNT(groups), &count))
    return NULL;
  if (napi_typeof(env, listener, &type) != napi_ok || type != napi_function) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "onData: function expected");
    return NULL;
  }
  struct cnm_poller *poller = get_poller(env);
  struct subscription *subscription = calloc(1, sizeof *subscription);
  if (poller == NULL || subscription == NULL) {
    free(subscription);
    return cnm_throw(env, ENOMEM, "malloc");
  }
  uint64_t id = subscription->id = ++poller->last_id;
  subscription->others = filter != NULL;
  subscription->fd = open_member(ns, protocol, groups, count, filter, &failure);
  if (subscription->fd < 0) goto failed;
  if (napi_create_reference(env, listener, 1, &subscription->listener) != napi_ok ||
      napi_create_object(env, &handle) != napi_ok ||
      napi_create_function(env, "close", NAPI_AUTO_LENGTH, close_call, (void *)(uintptr_t)id, &function) != napi_ok ||
      napi_set_named_property(env, handle, "close", function) != napi_ok)
    goto failed;
  if (!poller->running && (failure = start_poller(poller)).number != 0) goto failed;
  pthread_mutex_lock(&poller->mutex);
  subscription->next = poller->subscriptions;
  poller->subscriptions = subscription;
  arm(poller, EPOLL_CTL_ADD, subscription->fd, id);
  pthread_mutex_unlock(&poller->mutex);
  return handle;
failed:
  free_subscription(env, subscription);
  return cnm_throw(env, failure.number, failure.syscall);
}

static napi_value subscribe(napi_env env, napi_callback_info info) {
  napi_value args[4];
  if (!cnm_get_args(env, info, 4, args)) return NULL;
  return open_subscription(env, args, args[3], NULL);
}

static napi_value subscribe_others(napi_env env, napi_callback_info info) {
  napi_value args[5];
  const uint8_t *program;
  size_t size;
  if (!cnm_get_args(env, info, 5, args) || !cnm_get_bytes(env, args[3], "filter", &program, &size)) return NULL;
  struct sock_fprog filter = {.len = (unsigned short)(size / sizeof(struct sock_filter)),
                              .filter = (struct sock_filter *)program};
  return open_subscription(env, args, args[4], &filter);
}

void cnm_register_subscribe(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {{"subscribe", subscribe}, {"subscribeOthers", subscribe_others}};
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
