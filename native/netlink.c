/*
 * Exchanges over netlink sockets: messages out, answers in.
 *
 * The caller sees to it that one socket carries one exchange at a time; two at once would take each other's answers.
 * (lib/kernel queues per socket, in JavaScript, where waiting costs no thread.)
 */
#include "cnm.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Milliseconds without any answer. The kernel answers from within send(2); slow are only dumps of huge tables. */
#define SILENCE 5000
/* Bytes; the kernel fills up to 32 KiB per dump message, and a single object (a link with many VFs) may be larger. */
#define RECEIVE_SIZE (256 * 1024)
/* Of one send: below the default send buffer (net.core.wmem_default, 208 KiB), and few enough that the answers (some
 * 1.3 KB of receive buffer per ack) fit the default receive buffer too. */
#define SEND_BYTES (64 * 1024)
#define SEND_MESSAGES 128
#define DUMP_ATTEMPTS 4
/* nlmsghdr.nlmsg_flags of answers, linux/netlink.h */
#ifndef NLM_F_CAPPED
#define NLM_F_CAPPED 0x100
#define NLM_F_ACK_TLVS 0x200
#endif

#define UNANSWERED (-1)

struct step {
  int fd;
  uint32_t count;
  uint8_t *messages; /* ours: sequence numbers are written into it */
  size_t length;
  int *errors;  /* per message: 0, errno, UNANSWERED */
  char **texts; /* per message: NULL or the kernel's extended ack */
  uint8_t *data;
  size_t data_length, data_capacity;
};

static size_t align(size_t length) { return NLMSG_ALIGN(length); }

static bool is_dump(const struct nlmsghdr *message) { return (message->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP; }

static void free_step(struct step *step) {
  for (uint32_t i = 0; step->texts != NULL && i < step->count; i++) free(step->texts[i]);
  free(step->texts);
  free(step->errors);
  free(step->messages);
  free(step->data);
}

/*
 * `count` numbers in a row that no other exchange of this process has, for a while. Never 0: that is the number of
 * what the kernel says unasked.
 */
static uint32_t reserve_numbers(uint32_t count) {
  static _Atomic uint32_t next = 1;
  uint32_t first = atomic_load(&next), start;
  do start = first > UINT32_MAX - count ? 1 : first;
  while (!atomic_compare_exchange_weak(&next, &first, start + count));
  return start;
}

/* ---- reading answers */

/* One group of messages that went out in one send. */
struct group {
  struct step *step;
  uint32_t first;  /* index in the step of its first message */
  uint32_t count;
  uint32_t number; /* sequence number of the first */
  uint32_t pending;
  bool interrupted; /* NLM_F_DUMP_INTR was seen */
};

static int keep(struct step *step, const struct nlmsghdr *message) {
  size_t size = align(message->nlmsg_len);
  if (step->data_length + size > step->data_capacity) {
    size_t capacity = step->data_capacity * 2 > 4096 ? step->data_capacity * 2 : 4096;
    while (capacity < step->data_length + size) capacity *= 2;
    uint8_t *data = realloc(step->data, capacity);
    if (data == NULL) return ENOMEM;
    step->data = data;
    step->data_capacity = capacity;
  }
  uint8_t *target = step->data + step->data_length;
  memcpy(target, message, message->nlmsg_len);
  memset(target + message->nlmsg_len, 0, size - message->nlmsg_len);
  step->data_length += size;
  return 0;
}

/* The text of an extended ack whose attributes begin at `offset` of the message; NULL when it has none. */
static char *ack_text(const struct nlmsghdr *message, size_t offset) {
  const uint8_t *bytes = (const uint8_t *)message;
  while (offset + sizeof(struct nlattr) <= message->nlmsg_len) {
    struct nlattr attribute;
    memcpy(&attribute, bytes + offset, sizeof attribute);
    if (attribute.nla_len < sizeof attribute || attribute.nla_len > message->nlmsg_len - offset) break;
    if ((attribute.nla_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG)
      return strndup((const char *)bytes + offset + sizeof attribute, attribute.nla_len - sizeof attribute);
    offset += NLA_ALIGN(attribute.nla_len);
  }
  return NULL;
}

static void settle(struct group *group, uint32_t index, int error, char *text) {
  if (group->step->errors[index] != UNANSWERED) {
    free(text);
    return;
  }
  group->step->errors[index] = error < 0 ? -error : error;
  group->step->texts[index] = text;
  group->pending--;
}

static void take_error(struct group *group, uint32_t index, const struct nlmsghdr *message) {
  struct nlmsgerr body;
  char *text = NULL;
  if (message->nlmsg_len < NLMSG_LENGTH(sizeof body)) return;
  memcpy(&body, NLMSG_DATA(message), sizeof body);
  if (message->nlmsg_flags & NLM_F_ACK_TLVS) {
    size_t offset = NLMSG_LENGTH(sizeof body);
    /* Not capped: what was asked is repeated before the attributes. */
    if (!(message->nlmsg_flags & NLM_F_CAPPED) && body.error != 0 && body.msg.nlmsg_len > sizeof body.msg)
      offset += align(body.msg.nlmsg_len) - sizeof body.msg;
    text = ack_text(message, offset);
  }
  settle(group, index, body.error, text);
}

/* The end of a dump, which carries an error when it broke off. */
static void take_done(struct group *group, uint32_t index, const struct nlmsghdr *message) {
  int error = 0;
  char *text = NULL;
  if (message->nlmsg_len >= NLMSG_LENGTH(sizeof error)) {
    memcpy(&error, NLMSG_DATA(message), sizeof error);
    if (message->nlmsg_flags & NLM_F_ACK_TLVS) text = ack_text(message, NLMSG_LENGTH(align(sizeof error)));
  }
  settle(group, index, error < 0 ? error : 0, text);
}

static int take(struct group *group, const uint8_t *bytes, size_t length) {
  while (length >= sizeof(struct nlmsghdr)) {
    const struct nlmsghdr *message = (const struct nlmsghdr *)bytes;
    if (message->nlmsg_len < sizeof *message || message->nlmsg_len > length) return EBADMSG;
    uint32_t offset = message->nlmsg_seq - group->number;
    if (offset < group->count) { /* else an answer to an exchange that gave up waiting */
      uint32_t index = group->first + offset;
      int error = 0;
      if (message->nlmsg_flags & NLM_F_DUMP_INTR && message->nlmsg_type != NLMSG_ERROR) group->interrupted = true;
      if (message->nlmsg_type == NLMSG_ERROR)
        take_error(group, index, message);
      else if (message->nlmsg_type == NLMSG_DONE)
        take_done(group, index, message);
      else if (message->nlmsg_type >= NLMSG_MIN_TYPE)
        error = keep(group->step, message);
      if (error != 0) return error;
    }
    size_t size = align(message->nlmsg_len);
    if (size >= length) break;
    bytes += size;
    length -= size;
  }
  return 0;
}

/* ---- one send and its answers */

static struct cnm_failure wait_readable(int fd) {
  struct pollfd question = {.fd = fd, .events = POLLIN};
  int ready;
  do ready = poll(&question, 1, SILENCE);
  while (ready < 0 && errno == EINTR);
  if (ready < 0) return (struct cnm_failure){errno, "poll"};
  return (struct cnm_failure){ready == 0 ? ETIMEDOUT : 0, "recvmsg"};
}

static struct cnm_failure receive(struct group *group, uint8_t *buffer, size_t size) {
  struct sockaddr_nl sender = {0};
  struct iovec part = {buffer, size};
  struct msghdr header = {.msg_name = &sender, .msg_namelen = sizeof sender, .msg_iov = &part, .msg_iovlen = 1};
  /* The answer is there already, as a rule: ask for it before waiting. MSG_TRUNC returns the true length. */
  ssize_t length = recvmsg(group->step->fd, &header, MSG_DONTWAIT | MSG_TRUNC);
  if (length < 0) {
    if (errno == EAGAIN) return wait_readable(group->step->fd);
    return (struct cnm_failure){errno == EINTR ? 0 : errno, "recvmsg"};
  }
  if ((size_t)length > size) return (struct cnm_failure){EMSGSIZE, "recvmsg"};
  if (header.msg_namelen != sizeof sender || sender.nl_pid != 0) return (struct cnm_failure){0, NULL}; /* not the kernel */
  return (struct cnm_failure){take(group, buffer, (size_t)length), "recvmsg"};
}

static struct cnm_failure ask(struct group *group, uint8_t *messages, size_t length, uint8_t *buffer, size_t size) {
  struct cnm_failure failure = {0, NULL};
  uint8_t *message = messages;
  ssize_t sent;
  group->number = reserve_numbers(group->count);
  group->pending = group->count;
  group->interrupted = false;
  for (uint32_t i = 0; i < group->count; i++) {
    struct nlmsghdr *header = (struct nlmsghdr *)message;
    header->nlmsg_seq = group->number + i;
    header->nlmsg_pid = 0;
    group->step->errors[group->first + i] = UNANSWERED;
    message += align(header->nlmsg_len);
  }
  do sent = send(group->step->fd, messages, length, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) return (struct cnm_failure){errno, "sendmsg"};
  while (group->pending > 0 && failure.number == 0) failure = receive(group, buffer, size);
  return failure;
}

static struct cnm_failure ask_dump(struct group *group, uint8_t *messages, size_t length, uint8_t *buffer, size_t size) {
  struct step *step = group->step;
  size_t mark = step->data_length;
  for (int attempt = 1;; attempt++) {
    struct cnm_failure failure = ask(group, messages, length, buffer, size);
    if (failure.number != 0 || !group->interrupted || step->errors[group->first] != 0) return failure;
    if (attempt == DUMP_ATTEMPTS) { /* what was read last is kept; it is for the caller to judge */
      step->errors[group->first] = EINTR;
      return failure;
    }
    step->data_length = mark;
    free(step->texts[group->first]);
    step->texts[group->first] = NULL;
  }
}

/* Sends all messages of a step, a dump always alone (a socket can have one under way), and waits for every answer. */
static struct cnm_failure run_step(struct step *step, uint8_t *buffer, size_t size) {
  uint8_t *position = step->messages;
  for (uint32_t index = 0; index < step->count;) {
    struct group group = {.step = step, .first = index};
    uint8_t *start = position;
    size_t length = 0;
    bool dump = is_dump((struct nlmsghdr *)position);
    do {
      size_t next = align(((struct nlmsghdr *)position)->nlmsg_len);
      position += next;
      length += next;
      group.count++;
    } while (!dump && ++index < step->count && group.count < SEND_MESSAGES && !is_dump((struct nlmsghdr *)position) &&
             length + align(((struct nlmsghdr *)position)->nlmsg_len) <= SEND_BYTES);
    if (dump) index++;
    struct cnm_failure failure = dump ? ask_dump(&group, start, length, buffer, size)
                                      : ask(&group, start, length, buffer, size);
    if (failure.number != 0) return failure;
  }
  return (struct cnm_failure){0, NULL};
}

static bool has_error(const struct step *step) {
  for (uint32_t i = 0; i < step->count; i++)
    if (step->errors[i] != 0) return true;
  return false;
}

struct cnm_failure cnm_loopback_up(int route) {
  struct {
    struct nlmsghdr header;
    struct ifinfomsg link;
  } message = {
      .header = {sizeof message, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, 0, 0},
      .link = {.ifi_family = AF_UNSPEC, .ifi_index = 1, .ifi_flags = IFF_UP, .ifi_change = IFF_UP},
  };
  int error = 0;
  char *text = NULL;
  uint8_t answer[1024] __attribute__((aligned(NLMSG_ALIGNTO)));
  struct step step = {.fd = route, .count = 1, .messages = (uint8_t *)&message, .errors = &error, .texts = &text};
  struct cnm_failure failure = run_step(&step, answer, sizeof answer);
  free(text);
  free(step.data);
  if (failure.number == 0 && error != 0) failure = (struct cnm_failure){error, "RTM_NEWLINK"};
  return failure;
}

/* ---- between JavaScript and steps */

/* Whole, asks, and wants an answer: what does not would be waited for in vain. */
static bool is_sound(const struct step *step) {
  size_t offset = 0;
  for (uint32_t i = 0; i < step->count; i++) {
    struct nlmsghdr message;
    if (step->length - offset < sizeof message) return false;
    memcpy(&message, step->messages + offset, sizeof message);
    if (message.nlmsg_len < sizeof message || align(message.nlmsg_len) > step->length - offset) return false;
    if (!(message.nlmsg_flags & NLM_F_REQUEST)) return false;
    if (!(message.nlmsg_flags & NLM_F_ACK) && !is_dump(&message)) return false;
    offset += align(message.nlmsg_len);
  }
  return offset == step->length;
}

/* False: an exception is pending, and the step has been freed. */
static bool parse_step(napi_env env, napi_value value, struct step *step) {
  napi_value fd, messages, count;
  napi_valuetype type;
  const uint8_t *bytes;
  size_t length;
  int number;
  memset(step, 0, sizeof *step);
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "step: object expected");
    return false;
  }
  if (napi_get_named_property(env, value, "fd", &fd) != napi_ok ||
      napi_get_named_property(env, value, "messages", &messages) != napi_ok ||
      napi_get_named_property(env, value, "count", &count) != napi_ok)
    return false; /* a getter threw */
  if (!cnm_get_int(env, fd, "fd", &step->fd) || !cnm_get_bytes(env, messages, "messages", &bytes, &length) ||
      !cnm_get_int(env, count, "count", &number))
    return false;
  if (number < 0 || (size_t)number > length / sizeof(struct nlmsghdr)) {
    cnm_throw(env, EINVAL, "sendmsg");
    return false;
  }
  step->count = (uint32_t)number;
  step->length = length;
  step->messages = malloc(length + 1);
  step->errors = calloc(step->count + 1, sizeof *step->errors);
  step->texts = calloc(step->count + 1, sizeof *step->texts);
  bool complete = step->messages != NULL && step->errors != NULL && step->texts != NULL;
  if (complete && length > 0) memcpy(step->messages, bytes, length); /* JavaScript may change or free its own meanwhile */
  if (complete && is_sound(step)) return true;
  free_step(step);
  cnm_throw(env, complete ? EINVAL : ENOMEM, complete ? "sendmsg" : "malloc");
  return false;
}

static napi_value step_result(napi_env env, const struct step *step) {
  napi_value result, errors, texts, text, data = cnm_bytes(env, step->data, step->data_length);
  if (data == NULL || napi_create_object(env, &result) != napi_ok ||
      napi_create_array_with_length(env, step->count, &errors) != napi_ok ||
      napi_create_array_with_length(env, step->count, &texts) != napi_ok)
    return NULL;
  for (uint32_t i = 0; i < step->count; i++) {
    text = cnm_undefined(env);
    if (step->texts[i] != NULL) napi_create_string_utf8(env, step->texts[i], NAPI_AUTO_LENGTH, &text);
    napi_set_element(env, errors, i, cnm_number(env, step->errors[i]));
    napi_set_element(env, texts, i, text);
  }
  napi_set_named_property(env, result, "errors", errors);
  napi_set_named_property(env, result, "texts", texts);
  napi_set_named_property(env, result, "data", data);
  return result;
}

static napi_value exchange_sync(napi_env env, napi_callback_info info) {
  napi_value args[1], result = NULL;
  struct step step;
  struct cnm_failure failure = {ENOMEM, "malloc"};
  if (!cnm_get_args(env, info, 1, args) || !parse_step(env, args[0], &step)) return NULL;
  uint8_t *buffer = malloc(RECEIVE_SIZE);
  if (buffer != NULL) failure = run_step(&step, buffer, RECEIVE_SIZE);
  if (failure.number == 0)
    result = step_result(env, &step);
  else
    cnm_throw(env, failure.number, failure.syscall);
  free(buffer);
  free_step(&step);
  return result;
}

/* ---- the same on a worker */

struct journey {
  napi_async_work work;
  napi_deferred deferred;
  uint32_t count, done;
  struct cnm_failure failure;
  struct step steps[];
};

/* The descriptors of a journey are its own: JavaScript may close its meanwhile, and the number be given to another file. */
static void free_journey(struct journey *journey) {
  for (uint32_t i = 0; i < journey->count; i++) {
    if (journey->steps[i].fd >= 0) close(journey->steps[i].fd);
    free_step(&journey->steps[i]);
  }
  free(journey);
}

static void journey_execute(napi_env env, void *data) {
  struct journey *journey = data;
  (void)env;
  uint8_t *buffer = malloc(RECEIVE_SIZE);
  if (buffer == NULL) journey->failure = (struct cnm_failure){ENOMEM, "malloc"};
  while (journey->failure.number == 0 && journey->done < journey->count) {
    struct step *step = &journey->steps[journey->done];
    journey->failure = run_step(step, buffer, RECEIVE_SIZE);
    if (journey->failure.number != 0) break;
    journey->done++;
    if (has_error(step)) break;
  }
  free(buffer);
}

static void journey_complete(napi_env env, napi_status status, void *data) {
  struct journey *journey = data;
  napi_value results, result;
  if (status == napi_cancelled) journey->failure = (struct cnm_failure){ECANCELED, "sendmsg"};
  if (journey->failure.number == 0 && napi_create_array_with_length(env, journey->done, &results) == napi_ok) {
    for (uint32_t i = 0; i < journey->done; i++)
      if ((result = step_result(env, &journey->steps[i])) != NULL) napi_set_element(env, results, i, result);
    napi_resolve_deferred(env, journey->deferred, results);
  } else {
    napi_reject_deferred(env, journey->deferred, cnm_error(env, journey->failure));
  }
  napi_delete_async_work(env, journey->work);
  free_journey(journey);
}

static struct journey *parse_journey(napi_env env, napi_value steps) {
  uint32_t count = 0;
  napi_value value;
  if (napi_get_array_length(env, steps, &count) != napi_ok) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "steps: array expected");
    return NULL;
  }
  struct journey *journey = calloc(1, sizeof *journey + count * sizeof journey->steps[0]);
  if (journey == NULL) {
    cnm_throw(env, ENOMEM, "malloc");
    return NULL;
  }
  while (journey->count < count) {
    struct step *step = &journey->steps[journey->count];
    if (napi_get_element(env, steps, journey->count, &value) != napi_ok || !parse_step(env, value, step)) {
      free_journey(journey);
      return NULL;
    }
    journey->count++;
    step->fd = fcntl(step->fd, F_DUPFD_CLOEXEC, 0);
    if (step->fd < 0 && journey->failure.number == 0) journey->failure = (struct cnm_failure){errno, "sendmsg"};
  }
  return journey;
}

static napi_value exchange(napi_env env, napi_callback_info info) {
  napi_value args[1], promise, name;
  struct journey *journey;
  if (!cnm_get_args(env, info, 1, args) || (journey = parse_journey(env, args[0])) == NULL) return NULL;
  if (journey->failure.number != 0) {
    if (napi_create_promise(env, &journey->deferred, &promise) != napi_ok) promise = NULL;
    else napi_reject_deferred(env, journey->deferred, cnm_error(env, journey->failure));
    free_journey(journey);
    return promise;
  }
  if (napi_create_string_utf8(env, "cnm:exchange", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, journey_execute, journey_complete, journey, &journey->work) != napi_ok) {
    free_journey(journey);
    return cnm_throw(env, ENOMEM, "napi_create_async_work");
  }
  if (napi_create_promise(env, &journey->deferred, &promise) != napi_ok ||
      napi_queue_async_work(env, journey->work) != napi_ok) {
    napi_delete_async_work(env, journey->work);
    free_journey(journey);
    return cnm_throw(env, ENOMEM, "napi_queue_async_work");
  }
  return promise;
}

void cnm_register_netlink(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {{"exchange", exchange}, {"exchangeSync", exchange_sync}};
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
