/* /proc/sys of a namespace: what it shows below net/ depends on where the thread that opens it is. */
#include "cnm.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Bytes of a value; the kernel's own limit of one read or write is a page. */
#define VALUE_SIZE 4096

/* The caller has validated the key; a slip there must still not open anything outside of /proc/sys. */
static bool is_inside(const char *key) {
  if (key[0] == '\0' || key[0] == '/') return false;
  for (const char *part = key; part != NULL; part = strchr(part, '/')) {
    if (*part == '/') part++;
    if (part[0] == '.' && part[1] == '.' && (part[2] == '/' || part[2] == '\0')) return false;
  }
  return true;
}

static bool get_target(napi_env env, const napi_value *args, int *ns, char *path, size_t size) {
  static const char PREFIX[] = "/proc/sys/";
  char *key = path + sizeof PREFIX - 1;
  memcpy(path, PREFIX, sizeof PREFIX);
  if (!cnm_get_int(env, args[0], "ns", ns) || !cnm_get_string(env, args[1], "key", key, size - sizeof PREFIX))
    return false;
  if (is_inside(key)) return true;
  cnm_throw(env, EINVAL, "open");
  return false;
}

static struct cnm_failure read_file(const char *path, char *value, size_t size, size_t *length) {
  struct cnm_failure failure = {0, NULL};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return (struct cnm_failure){errno, "open"};
  for (*length = 0; *length < size;) {
    ssize_t got = read(fd, value + *length, size - *length);
    if (got == 0) break;
    if (got < 0) {
      failure = (struct cnm_failure){errno, "read"};
      break;
    }
    *length += (size_t)got;
  }
  close(fd);
  return failure;
}

static napi_value read_sysctl(napi_env env, napi_callback_info info) {
  napi_value args[2], result = NULL;
  char path[PATH_MAX], value[VALUE_SIZE];
  size_t length = 0;
  int ns, previous, error;
  if (!cnm_get_args(env, info, 2, args) || !get_target(env, args, &ns, path, sizeof path)) return NULL;
  if ((error = cnm_enter(ns, &previous)) != 0) return cnm_throw(env, error, "setns");
  struct cnm_failure failure = read_file(path, value, sizeof value, &length);
  cnm_leave(previous);
  if (failure.number == ENOENT || failure.number == ENOTDIR) {
    napi_get_null(env, &result);
    return result;
  }
  if (failure.number != 0) return cnm_throw(env, failure.number, failure.syscall);
  if (length > 0 && value[length - 1] == '\n') length--;
  napi_create_string_utf8(env, value, length, &result);
  return result;
}

static struct cnm_failure write_file(const char *path, const char *value, size_t length) {
  struct cnm_failure failure = {0, NULL};
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return (struct cnm_failure){errno, "open"};
  /* One write: the kernel takes each as a whole value. */
  ssize_t put = write(fd, value, length);
  if (put < 0)
    failure = (struct cnm_failure){errno, "write"};
  else if ((size_t)put != length)
    failure = (struct cnm_failure){EIO, "write"};
  close(fd);
  return failure;
}

static napi_value write_sysctl(napi_env env, napi_callback_info info) {
  napi_value args[3];
  char path[PATH_MAX], value[VALUE_SIZE];
  int ns, previous, error;
  if (!cnm_get_args(env, info, 3, args) || !get_target(env, args, &ns, path, sizeof path) ||
      !cnm_get_string(env, args[2], "value", value, sizeof value))
    return NULL;
  if ((error = cnm_enter(ns, &previous)) != 0) return cnm_throw(env, error, "setns");
  struct cnm_failure failure = write_file(path, value, strlen(value));
  cnm_leave(previous);
  return failure.number != 0 ? cnm_throw(env, failure.number, failure.syscall) : cnm_undefined(env);
}

void cnm_register_sysctl(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {{"readSysctl", read_sysctl}, {"writeSysctl", write_sysctl}};
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
