/*
 * UDP and packet sockets served in batches: what has come is read by one recvmmsg(2) into memory that JavaScript sees, JavaScript
 * writes its answers beside it, and one sendmmsg(2) sends them. All on the event loop's own thread, nothing is allocated
 * on the way.
 *
 * The memory is one per environment: a batch is read, answered and sent before the loop turns to the next socket.
 */
#include "cnm.h"

#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

/* Datagrams of one batch: past some dozens, a system call more or less no longer shows. */
#define BATCH 64
/* Bytes of one datagram; what is longer is cut. */
#define SLOT 4096
/* A struct sockaddr_in, sockaddr_ll or (the largest) sockaddr_in6. */
#define SOURCE (sizeof(struct sockaddr_in6))

/* Slot i of `said` answers slot i of `heard`; a length of 0 says nothing. */
struct memory {
  uint8_t heard[BATCH][SLOT];
  uint8_t said[BATCH][SLOT];
  uint8_t sources[BATCH][SOURCE];
  uint16_t heard_lengths[BATCH];
  uint16_t said_lengths[BATCH];
};

struct datagrams {
  uv_poll_t poll;
  napi_env env;
  napi_ref listener;
  napi_async_cleanup_hook_handle cleanup;
  int fd; /* -1: closed */
  double lost;
};

/* What JavaScript holds: it may be asked for after the socket has gone. */
struct holder {
  struct datagrams *socket; /* NULL: closed */
  double lost;              /* of the closed socket */
};

static const napi_type_tag HOLDER = {0x5e0fb1c36a954d27, 0x9d41c8a2f7763be0};

/* ---- the memory */

/* Asked anew for each batch: JavaScript can detach a buffer. NULL then. */
static struct memory *get_memory(napi_env env, napi_value *buffer) {
  struct cnm_env *data = cnm_env(env);
  void *bytes = NULL;
  size_t length = 0;
  if (napi_get_reference_value(env, data->datagrams, buffer) != napi_ok || *buffer == NULL ||
      napi_get_arraybuffer_info(env, *buffer, &bytes, &length) != napi_ok || length < sizeof(struct memory))
    return NULL;
  return bytes;
}

static bool make_memory(napi_env env) {
  struct cnm_env *data = cnm_env(env);
  napi_value buffer;
  void *bytes;
  if (data->datagrams != NULL) return true;
  return napi_create_arraybuffer(env, sizeof(struct memory), &bytes, &buffer) == napi_ok &&
         napi_create_reference(env, buffer, 1, &data->datagrams) == napi_ok;
}

static bool set_view(napi_env env, napi_value handle, const char *name, napi_typedarray_type type, napi_value buffer,
                     size_t offset, size_t count) {
  napi_value view;
  return napi_create_typedarray(env, type, count, buffer, offset, &view) == napi_ok &&
         napi_set_named_property(env, handle, name, view) == napi_ok;
}

/* ---- the socket */

static void readable(uv_poll_t *poll, int status, int events);

/* How many came; -errno when none did: ECONNREFUSED and the like, of a connected socket. */
static int receive(int fd, struct memory *memory) {
  struct mmsghdr messages[BATCH];
  struct iovec parts[BATCH];
  int count;
  memset(messages, 0, sizeof messages);
  for (int i = 0; i < BATCH; i++) {
    parts[i] = (struct iovec){memory->heard[i], SLOT};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
    messages[i].msg_hdr.msg_name = memory->sources[i];
    messages[i].msg_hdr.msg_namelen = SOURCE;
  }
  do
    count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
  while (count < 0 && errno == EINTR);
  if (count < 0) return -errno;
  for (int i = 0; i < count; i++) {
    memory->heard_lengths[i] = (uint16_t)messages[i].msg_len;
    memory->said_lengths[i] = 0;
  }
  return count;
}

static socklen_t source_size(const uint8_t *source) {
  sa_family_t family;
  memcpy(&family, source, sizeof family);
  if (family == AF_PACKET) return sizeof(struct sockaddr_ll);
  return family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

/* Returns how many did not go: UDP may lose them, the loop must not wait. */
static int send_answers(int fd, struct memory *memory, int heard) {
  struct mmsghdr messages[BATCH];
  struct iovec parts[BATCH];
  int count = 0, sent = 0, lost = 0;
  memset(messages, 0, sizeof messages[0] * (size_t)heard);
  for (int i = 0; i < heard; i++) {
    size_t length = memory->said_lengths[i];
    if (length == 0 || length > SLOT) continue;
    parts[count] = (struct iovec){memory->said[i], length};
    messages[count].msg_hdr.msg_iov = &parts[count];
    messages[count].msg_hdr.msg_iovlen = 1;
    messages[count].msg_hdr.msg_name = memory->sources[i];
    messages[count].msg_hdr.msg_namelen = source_size(memory->sources[i]);
    count++;
  }
  while (sent < count) {
    int done = sendmmsg(fd, messages + sent, (unsigned)(count - sent), MSG_DONTWAIT);
    if (done > 0) {
      sent += done;
    } else if (errno == EAGAIN || errno == ENOBUFS) {
      return lost + count - sent;
    } else if (errno != EINTR) { /* this one cannot go: a firewall, no route, port 0 */
      sent++;
      lost++;
    }
  }
  return lost;
}

/* Frees what hangs on the environment; the rest goes with the loop's next turn. */
static void forget(uv_handle_t *handle) {
  struct datagrams *socket = (struct datagrams *)handle;
  napi_async_cleanup_hook_handle cleanup = socket->cleanup;
  free(socket);
  if (cleanup != NULL) (void)napi_remove_async_cleanup_hook(cleanup);
}

/* Gives the descriptor back. */
static int stop(struct datagrams *socket) {
  struct holder *holder = socket->poll.data;
  int fd = socket->fd;
  uv_close((uv_handle_t *)&socket->poll, forget); /* off the epoll at once: the descriptor can be closed */
  socket->fd = -1;
  if (socket->listener != NULL) napi_delete_reference(socket->env, socket->listener);
  socket->listener = NULL;
  holder->socket = NULL;
  holder->lost = socket->lost;
  return fd;
}

static void shut(struct datagrams *socket) {
  if (socket->fd >= 0) close(stop(socket));
}

static void environment_ends(napi_async_cleanup_hook_handle handle, void *data) {
  (void)handle;
  shut(data); /* when it is closed already, `forget` is on its way: the environment waits for that */
}

/* Calls the listener; false when that cannot be. */
static bool tell(struct datagrams *socket, int number) {
  napi_env env = socket->env;
  napi_value listener, global, count, result;
  if (napi_get_reference_value(env, socket->listener, &listener) != napi_ok ||
      napi_get_global(env, &global) != napi_ok || napi_create_int32(env, number, &count) != napi_ok)
    return false;
  if (napi_make_callback(env, NULL, global, listener, 1, &count, &result) != napi_ok) cnm_report_exception(env);
  return true;
}

static void heard(struct datagrams *socket) {
  napi_value buffer;
  struct memory *memory = get_memory(socket->env, &buffer);
  if (memory == NULL) return shut(socket);
  int number = receive(socket->fd, memory);
  if (number == 0 || number == -EAGAIN || !tell(socket, number) || number < 0) return;
  /* JavaScript may have closed the socket, and detached the buffer. */
  if (socket->fd < 0 || (memory = get_memory(socket->env, &buffer)) == NULL) return;
  socket->lost += send_answers(socket->fd, memory, number);
}

/* An error of the socket, which is taken off by asking; libuv has stopped. */
static void failed(struct datagrams *socket) {
  int error = 0;
  socklen_t size = sizeof error;
  (void)getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  (void)uv_poll_start(&socket->poll, UV_READABLE, readable);
  if (error != 0) (void)tell(socket, -error);
}

static void readable(uv_poll_t *poll, int status, int events) {
  struct datagrams *socket = (struct datagrams *)poll;
  napi_handle_scope scope;
  (void)events;
  if (napi_open_handle_scope(socket->env, &scope) != napi_ok) return;
  if (status < 0)
    failed(socket);
  else
    heard(socket);
  napi_close_handle_scope(socket->env, scope);
}

/* ---- calls */

static struct holder *get_holder(napi_env env, napi_callback_info info, size_t count, napi_value *args) {
  napi_value self = NULL;
  void *holder = NULL;
  bool ours = false;
  if (napi_get_cb_info(env, info, &count, args, &self, NULL) != napi_ok ||
      napi_check_object_type_tag(env, self, &HOLDER, &ours) != napi_ok || !ours ||
      napi_unwrap(env, self, &holder) != napi_ok) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "this: socket of datagrams() expected");
    return NULL;
  }
  return holder;
}

static napi_value close_call(napi_env env, napi_callback_info info) {
  struct holder *holder = get_holder(env, info, 0, NULL);
  if (holder != NULL && holder->socket != NULL) shut(holder->socket);
  return holder == NULL ? NULL : cnm_undefined(env);
}

static napi_value lost_call(napi_env env, napi_callback_info info) {
  struct holder *holder = get_holder(env, info, 0, NULL);
  if (holder == NULL) return NULL;
  return cnm_number(env, holder->socket != NULL ? holder->socket->lost : holder->lost);
}

static napi_value send_call(napi_env env, napi_callback_info info) {
  napi_value args[2];
  const uint8_t *message, *to;
  size_t length, size;
  ssize_t sent;
  struct holder *holder = get_holder(env, info, 2, args);
  if (holder == NULL || !cnm_get_bytes(env, args[0], "message", &message, &length) ||
      !cnm_get_bytes(env, args[1], "to", &to, &size))
    return NULL;
  if (size != SOURCE && size != 0) return cnm_throw(env, EINVAL, "sendto");
  struct datagrams *socket = holder->socket;
  if (socket == NULL) return cnm_number(env, 0);
  do
    sent = size == 0
               ? send(socket->fd, message, length, MSG_DONTWAIT)
               : sendto(socket->fd, message, length, MSG_DONTWAIT, (const struct sockaddr *)to, source_size(to));
  while (sent < 0 && errno == EINTR);
  if (sent >= 0) return cnm_number(env, 0);
  socket->lost++;
  return cnm_number(env, errno);
}

static void forget_holder(napi_env env, void *data, void *hint) {
  struct holder *holder = data;
  (void)env;
  (void)hint;
  if (holder->socket != NULL) shut(holder->socket); /* nobody can close it any more */
  free(holder);
}

/* The port that it is bound to. */
static uint16_t port_of(int fd) {
  struct sockaddr_in6 address = {0}; /* the port is where that of sockaddr_in is */
  socklen_t size = sizeof address;
  (void)getsockname(fd, (struct sockaddr *)&address, &size);
  return ntohs(address.sin6_port);
}

static bool make_handle(napi_env env, struct holder *holder, int fd, napi_value *handle) {
  static const struct cnm_function CALLS[] = {{"send", send_call}, {"lost", lost_call}, {"close", close_call}};
  napi_value buffer;
  if (get_memory(env, &buffer) == NULL || napi_create_object(env, handle) != napi_ok ||
      napi_set_named_property(env, *handle, "port", cnm_number(env, port_of(fd))) != napi_ok ||
      !set_view(env, *handle, "heard", napi_uint8_array, buffer, offsetof(struct memory, heard), BATCH * SLOT) ||
      !set_view(env, *handle, "said", napi_uint8_array, buffer, offsetof(struct memory, said), BATCH * SLOT) ||
      !set_view(env, *handle, "sources", napi_uint8_array, buffer, offsetof(struct memory, sources), BATCH * SOURCE) ||
      !set_view(env, *handle, "heardLengths", napi_uint16_array, buffer, offsetof(struct memory, heard_lengths), BATCH) ||
      !set_view(env, *handle, "saidLengths", napi_uint16_array, buffer, offsetof(struct memory, said_lengths), BATCH))
    return false;
  cnm_export(env, *handle, CALLS, CNM_COUNT(CALLS));
  return napi_type_tag_object(env, *handle, &HOLDER) == napi_ok &&
         napi_wrap(env, *handle, holder, forget_holder, NULL, NULL) == napi_ok;
}

static bool is_datagram(int fd, struct cnm_failure *failure) {
  int type = 0, domain = 0;
  socklen_t size = sizeof type;
  if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
    *failure = (struct cnm_failure){errno, "getsockopt"};
    return false;
  }
  *failure = (struct cnm_failure){EPROTOTYPE, "getsockopt"};
  return type == SOCK_DGRAM || (domain == AF_PACKET && type == SOCK_RAW);
}

static napi_value datagrams(napi_env env, napi_callback_info info) {
  napi_value args[2], handle;
  napi_valuetype type;
  uv_loop_t *loop;
  int fd, error;
  struct cnm_failure failure;
  if (!cnm_get_args(env, info, 2, args) || !cnm_get_int(env, args[0], "fd", &fd)) return NULL;
  if (napi_typeof(env, args[1], &type) != napi_ok || type != napi_function) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "onHeard: function expected");
    return NULL;
  }
  if (!is_datagram(fd, &failure)) return cnm_throw(env, failure.number, failure.syscall);
  struct datagrams *socket = calloc(1, sizeof *socket);
  struct holder *holder = calloc(1, sizeof *holder);
  failure = (struct cnm_failure){ENOMEM, "malloc"};
  if (socket == NULL || holder == NULL || !make_memory(env) || napi_get_uv_event_loop(env, &loop) != napi_ok ||
      !make_handle(env, holder, fd, &handle)) {
    free(socket);
    free(holder);
    return cnm_throw(env, failure.number, failure.syscall);
  }
  /* From here on the handle owns `holder`, and with it the socket. */
  if ((error = uv_poll_init(loop, &socket->poll, fd)) != 0) {
    free(socket);
    return cnm_throw(env, -error, "uv_poll_init");
  }
  socket->env = env;
  socket->fd = fd;
  socket->poll.data = holder;
  holder->socket = socket;
  if (napi_create_reference(env, args[1], 1, &socket->listener) != napi_ok ||
      napi_add_async_cleanup_hook(env, environment_ends, socket, &socket->cleanup) != napi_ok ||
      uv_poll_start(&socket->poll, UV_READABLE, readable) != 0) {
    (void)stop(socket); /* the caller's again */
    return cnm_throw(env, failure.number, failure.syscall);
  }
  uv_unref((uv_handle_t *)&socket->poll); /* does not keep the process alive */
  return handle;
}

void cnm_register_datagrams(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {{"datagrams", datagrams}};
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
