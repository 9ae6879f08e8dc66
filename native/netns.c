/* Network namespaces: opening, binding, removing; entering one and coming home. Making them is create.c's. */
#include "cnm.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef NSFS_MAGIC
#define NSFS_MAGIC 0x6e736673 /* linux/magic.h */
#endif

/* Bytes; the C library takes its thread-local storage out of it. Only what is touched is ever made real. */
#define STACK_SIZE (256 * 1024)

/* ---- where this thread is. Per thread and not per environment: a thread may carry several environments. */

static _Thread_local struct {
  int home;    /* descriptor of the namespace that the thread was born in */
  int current; /* where it is: home, or the innermost `run` */
  unsigned environments;
  bool proven; /* coming home has been seen to work */
} here = {-1, -1, 0, false};

bool cnm_thread_attach(void) {
  if (here.environments == 0) {
    int fd = open(CNM_OWN_NETNS, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    here.home = here.current = fd;
    here.proven = false;
  }
  here.environments++;
  return true;
}

void cnm_thread_detach(void) {
  if (here.environments == 0 || --here.environments > 0) return;
  close(here.home);
  here.home = here.current = -1;
}

int cnm_enter(int ns, int *previous) {
  *previous = here.current;
  /* Inside a user namespace one may be allowed in but not back: found out while at home, where it costs nothing. */
  if (!here.proven) {
    if (setns(here.current, CLONE_NEWNET) != 0) return errno;
    here.proven = true;
  }
  return setns(ns, CLONE_NEWNET) == 0 ? 0 : errno;
}

int cnm_home(void) { return here.home; }

void cnm_leave(int previous) {
  if (setns(previous, CLONE_NEWNET) != 0) abort(); /* a thread in the wrong namespace is worse than none */
}

int cnm_spawn(void *(*body)(void *), void *argument, unsigned long *thread) {
  pthread_attr_t attributes;
  sigset_t all, before;
  pthread_t id;
  bool away = here.current != here.home; /* inside a `run`; and a thread is born where its creator is */
  int error = pthread_attr_init(&attributes);
  if (error != 0) return error;
  if (away) cnm_leave(here.home);
  pthread_attr_setstacksize(&attributes, STACK_SIZE);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited */
  error = pthread_create(&id, &attributes, body, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (away) cnm_leave(here.current);
  if (error == 0) *thread = (unsigned long)id;
  return error;
}

/* ---- descriptors and paths */

bool cnm_is_netns(int fd) {
  struct statfs filesystem;
  return fstatfs(fd, &filesystem) == 0 && (unsigned long)filesystem.f_type == NSFS_MAGIC &&
         ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET;
}

int cnm_mount_netns(int ns, const char *path) {
  char source[64];
  snprintf(source, sizeof source, "/proc/thread-self/fd/%d", ns);
  return mount(source, path, NULL, MS_BIND, NULL) == 0 ? 0 : errno;
}

int cnm_make_file(const char *path) {
  int fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
  if (fd < 0) return errno;
  close(fd);
  return 0;
}

struct cnm_failure cnm_unbind(const char *path) {
  struct stat status;
  if (lstat(path, &status) != 0) return (struct cnm_failure){errno == ENOENT ? 0 : errno, "lstat"};
  if (S_ISDIR(status.st_mode)) return (struct cnm_failure){EISDIR, "umount2"}; /* never detach a file system */
  while (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;           /* bound several times over */
  if (errno != EINVAL && errno != ENOENT) return (struct cnm_failure){errno, "umount2"};
  if (unlink(path) != 0 && errno != ENOENT) return (struct cnm_failure){errno, "unlink"};
  return (struct cnm_failure){0, NULL};
}

static napi_value open_netns(napi_env env, napi_callback_info info) {
  napi_value args[1];
  char path[PATH_MAX];
  if (!cnm_get_args(env, info, 1, args)) return NULL;
  if (cnm_is_null(env, args[0]))
    memcpy(path, CNM_OWN_NETNS, sizeof CNM_OWN_NETNS);
  else if (!cnm_get_string(env, args[0], "path", path, sizeof path))
    return NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hold the thread */
  if (fd < 0) return cnm_throw(env, errno, "open");
  if (!cnm_is_netns(fd)) {
    close(fd);
    return cnm_throw(env, EINVAL, "open");
  }
  return cnm_number(env, fd);
}

static napi_value bind_netns(napi_env env, napi_callback_info info) {
  napi_value args[2];
  char path[PATH_MAX];
  int ns, error;
  if (!cnm_get_args(env, info, 2, args) || !cnm_get_int(env, args[0], "ns", &ns) ||
      !cnm_get_string(env, args[1], "path", path, sizeof path))
    return NULL;
  if (fcntl(ns, F_GETFD) < 0) return cnm_throw(env, errno, "mount");
  if (!cnm_is_netns(ns)) return cnm_throw(env, EINVAL, "mount");
  if ((error = cnm_make_file(path)) != 0) return cnm_throw(env, error, "open");
  if ((error = cnm_mount_netns(ns, path)) != 0) {
    unlink(path);
    return cnm_throw(env, error, "mount");
  }
  return cnm_undefined(env);
}

static napi_value remove_netns(napi_env env, napi_callback_info info) {
  napi_value args[1];
  char path[PATH_MAX];
  if (!cnm_get_args(env, info, 1, args) || !cnm_get_string(env, args[0], "path", path, sizeof path)) return NULL;
  struct cnm_failure failure = cnm_unbind(path);
  return failure.number != 0 ? cnm_throw(env, failure.number, failure.syscall) : cnm_undefined(env);
}

static napi_value inode(napi_env env, napi_callback_info info) {
  napi_value args[1];
  struct stat status;
  int fd;
  if (!cnm_get_args(env, info, 1, args) || !cnm_get_int(env, args[0], "fd", &fd)) return NULL;
  if (fstat(fd, &status) != 0) return cnm_throw(env, errno, "fstat");
  return cnm_number(env, (double)status.st_ino);
}

/* ---- run */

static napi_value run(napi_env env, napi_callback_info info) {
  napi_value args[2], result = NULL;
  napi_valuetype type;
  int ns, previous, error;
  if (!cnm_get_args(env, info, 2, args) || !cnm_get_int(env, args[0], "ns", &ns)) return NULL;
  if (napi_typeof(env, args[1], &type) != napi_ok || type != napi_function) {
    napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", "body: function expected");
    return NULL;
  }
  /* A descriptor of our own: what runs inside may close the caller's, and a nested journey still has to return here. */
  int own = fcntl(ns, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return cnm_throw(env, errno, "setns");
  if ((error = cnm_enter(own, &previous)) != 0) {
    close(own);
    return cnm_throw(env, error, "setns");
  }
  here.current = own;
  napi_status status = napi_call_function(env, cnm_undefined(env), args[1], 0, NULL, &result);
  here.current = previous;
  cnm_leave(previous);
  close(own);
  return status == napi_ok ? result : NULL; /* otherwise its exception is pending */
}

void cnm_register_netns(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {
      {"openNetns", open_netns}, {"bindNetns", bind_netns}, {"removeNetns", remove_netns},
      {"inode", inode},          {"run", run},
  };
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
