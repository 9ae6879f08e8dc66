/* /proc/sys of a namespace: what it shows below net/ depends on where the thread that opens it is. */
#include "cnm.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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

/* ---- where to look
 *
 * The kernel keeps a cache entry of /proc/sys/net/ipv6 for every namespace that ever looked, all of one parent and one
 * name: a list, which the first look of a namespace walks from end to end. With 1,000 namespaces that is 0.5 to 2 ms. So
 * other namespaces than our own are looked at through a proc file system that nobody else sees, which has a cache of its
 * own (a look costs 20 us) and is replaced (40 us) before its lists grow long. Where one may not have such, /proc serves.
 */

#define LOOKS_PER_MOUNT 64

static void *close_later(void *argument) {
  close((int)(intptr_t)argument);
  return NULL;
}

/* The kernel waits for a grace period of RCU when a file system goes: milliseconds, and nobody's. */
static void let_go(int mount) {
  unsigned long thread;
  if (cnm_spawn(close_later, (void *)(intptr_t)mount, &thread) == 0)
    pthread_detach((pthread_t)thread);
  else
    close(mount);
}

static int mount_proc(void) {
#if defined(SYS_fsopen) && defined(SYS_fsconfig) && defined(SYS_fsmount)
  int context = (int)syscall(SYS_fsopen, "proc", FSOPEN_CLOEXEC), mount = -1;
  if (context < 0) return -1;
  if (syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
    mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
  close(context);
  return mount;
#else
  return -1;
#endif
}

/* Our own namespace's are for /proc to show or to hide: it may have been made read-only on purpose. */
static bool is_ours(int ns) {
  struct stat own, other;
  return fstat(cnm_home(), &own) != 0 || fstat(ns, &other) != 0 || own.st_ino == other.st_ino;
}

/* A descriptor of the root of a proc file system, or -1 for /proc. */
static int root_of(napi_env env, int ns) {
  struct cnm_env *data = cnm_env(env);
  if (data->proc_refused || is_ours(ns)) return -1;
  if (data->proc >= 0 && data->proc_looks >= LOOKS_PER_MOUNT) {
    let_go(data->proc);
    data->proc = -1;
  }
  if (data->proc < 0) {
    data->proc = mount_proc();
    data->proc_looks = 0;
    data->proc_refused = data->proc < 0;
  }
  data->proc_looks++;
  return data->proc;
}

/* What to open: a namespace, a path and what that is relative to. */
struct target {
  int ns, root;
  char path[PATH_MAX];
};

static bool get_target(napi_env env, const napi_value *args, struct target *target) {
  static const char PREFIX[] = "/proc/sys/";
  char *key = target->path + sizeof PREFIX - 1;
  memcpy(target->path, PREFIX, sizeof PREFIX);
  if (!cnm_get_int(env, args[0], "ns", &target->ns) ||
      !cnm_get_string(env, args[1], "key", key, sizeof target->path - sizeof PREFIX))
    return false;
  if (!is_inside(key)) {
    cnm_throw(env, EINVAL, "open");
    return false;
  }
  target->root = root_of(env, target->ns);
  return true;
}

static int open_target(const struct target *target, int flags) {
  static const char PROC[] = "/proc/";
  if (target->root < 0) return open(target->path, flags | O_CLOEXEC);
  return openat(target->root, target->path + sizeof PROC - 1, flags | O_CLOEXEC);
}

static struct cnm_failure read_file(const struct target *target, char *value, size_t size, size_t *length) {
  struct cnm_failure failure = {0, NULL};
  int fd = open_target(target, O_RDONLY);
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
  struct target target;
  char value[VALUE_SIZE];
  size_t length = 0;
  int previous, error;
  if (!cnm_get_args(env, info, 2, args) || !get_target(env, args, &target)) return NULL;
  if ((error = cnm_enter(target.ns, &previous)) != 0) return cnm_throw(env, error, "setns");
  struct cnm_failure failure = read_file(&target, value, sizeof value, &length);
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

static struct cnm_failure write_file(const struct target *target, const char *value, size_t length) {
  struct cnm_failure failure = {0, NULL};
  int fd = open_target(target, O_WRONLY);
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
  struct target target;
  char value[VALUE_SIZE];
  int previous, error;
  if (!cnm_get_args(env, info, 3, args) || !get_target(env, args, &target) ||
      !cnm_get_string(env, args[2], "value", value, sizeof value))
    return NULL;
  if ((error = cnm_enter(target.ns, &previous)) != 0) return cnm_throw(env, error, "setns");
  struct cnm_failure failure = write_file(&target, value, strlen(value));
  cnm_leave(previous);
  return failure.number != 0 ? cnm_throw(env, failure.number, failure.syscall) : cnm_undefined(env);
}

void cnm_register_sysctl(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {{"readSysctl", read_sysctl}, {"writeSysctl", write_sysctl}};
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
