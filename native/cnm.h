/*
 * The native half of libcnm: enter a network namespace, speak netlink, open sockets there. No policy.
 *
 * Rules that every file keeps:
 * - A thread that enters a namespace is home again before the call returns; if it cannot come home, the process aborts.
 * - Every descriptor is O_CLOEXEC and is closed on every path that does not hand it to JavaScript.
 * - No state of JavaScript outlives its environment: it hangs on the instance data (struct cnm_env).
 */
#ifndef CNM_H
#define CNM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define NAPI_VERSION 8

#include <errno.h>
#include <node_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CNM_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* What went wrong: 0, or an errno and the system call that said so. */
struct cnm_failure {
  int number;
  const char *syscall;
};

/* One per environment (the main thread, each worker); freed with it. */
struct cnm_env {
  struct cnm_poller *poller; /* NULL until the first subscription */
  struct cnm_maker *maker;   /* NULL until the first namespace is made */
  napi_ref datagrams;        /* ArrayBuffer that batches of datagrams lie in; NULL until the first socket */
  int proc;                  /* root of a proc file system of our own, for sysctls; -1 until the first look */
  uint32_t proc_looks;       /* at sysctls, since it was made */
  bool proc_refused;         /* one may not have one here */
};

struct cnm_env *cnm_env(napi_env env);

/* ---- values.c: between JavaScript and C. The getters throw and return false when the value does not fit. */

bool cnm_get_args(napi_env env, napi_callback_info info, size_t count, napi_value *values);
bool cnm_get_int(napi_env env, napi_value value, const char *name, int *result);
/* Fails with ENAMETOOLONG when it does not fit, with EINVAL when it contains a NUL. */
bool cnm_get_string(napi_env env, napi_value value, const char *name, char *buffer, size_t size);
/* The bytes belong to JavaScript: valid until the call returns or runs JavaScript. */
bool cnm_get_bytes(napi_env env, napi_value value, const char *name, const uint8_t **bytes, size_t *length);
bool cnm_is_null(napi_env env, napi_value value);

napi_value cnm_number(napi_env env, double value);
napi_value cnm_bytes(napi_env env, const void *bytes, size_t length);
napi_value cnm_undefined(napi_env env);
/* Error with `errno`, `code` and `syscall`. */
napi_value cnm_error(napi_env env, struct cnm_failure failure);
/* Throws it; returns NULL, for `return cnm_throw(...)`. */
napi_value cnm_throw(napi_env env, int number, const char *syscall);
/* What a listener threw becomes an uncaughtException; by itself, Node would only warn of it. */
void cnm_report_exception(napi_env env);

/* ---- netns.c */

#define CNM_OWN_NETNS "/proc/thread-self/ns/net"

/* Notes where this thread is at home; once per environment, while it is there. False: errno is set. */
bool cnm_thread_attach(void);
void cnm_thread_detach(void);
/* Enters the namespace `ns`; 0, or the errno and nothing happened. Pair with cnm_leave(previous). */
int cnm_enter(int ns, int *previous);
void cnm_leave(int previous);
/* Descriptor of this thread's home; it lives as long as the thread has an environment. */
int cnm_home(void);
/* Runs `body` on a new thread, born at home, that no signal handler of the process interrupts. 0 or errno. */
int cnm_spawn(void *(*body)(void *), void *argument, unsigned long *thread);
bool cnm_is_netns(int fd);
/* The file to mount on; EEXIST rather than taking over what somebody else has there. 0 or errno. */
int cnm_make_file(const char *path);
/* mount --bind of the namespace `ns` on the existing file `path`. 0 or errno. */
int cnm_mount_netns(int ns, const char *path);
/* Undoes both. What is not there is fine. */
struct cnm_failure cnm_unbind(const char *path);
void cnm_register_netns(napi_env env, napi_value exports);

/* ---- socket.c */

/* socket(2) where the thread is, with the options that netlink sockets of ours have. Returns it, or -errno. */
int cnm_socket(int domain, int type, int protocol);
void cnm_register_socket(napi_env env, napi_value exports);

/* ---- netlink.c */

/* Sets `lo` (index 1) up through a NETLINK_ROUTE socket. */
struct cnm_failure cnm_loopback_up(int route);
void cnm_register_netlink(napi_env env, napi_value exports);

/* ---- create.c, datagrams.c, subscribe.c, sysctl.c */

void cnm_register_create(napi_env env, napi_value exports);
void cnm_register_datagrams(napi_env env, napi_value exports);
void cnm_register_subscribe(napi_env env, napi_value exports);
void cnm_register_sysctl(napi_env env, napi_value exports);

/* ---- module.c */

struct cnm_function {
  const char *name;
  napi_callback call;
};
void cnm_export(napi_env env, napi_value exports, const struct cnm_function *functions, size_t count);

#endif
