/*
 * Making network namespaces, on a thread that does nothing else (the maker, one per environment, born with the first
 * namespace). It unshares, does what is to be done inside, and comes home; when it cannot come home (inside a user
 * namespace one may not be let back into where one came from) it ends, and the next namespace has a new maker.
 *
 * Not a libuv worker that starts a throw-away thread: two threads fewer to wake, which is a fifth of the whole cost. And
 * on the calling thread for who can wait: no thread to wake at all saves as much again as the kernel itself needs.
 */
#include "cnm.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/netlink.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct creation {
  struct creation *next;
  napi_deferred deferred;
  bool bound; /* `path` is to be bound */
  int ns, route;
  ino_t inode;
  struct cnm_failure failure;
  char path[];
};

struct cnm_maker {
  pthread_mutex_t mutex;
  pthread_cond_t wanted;
  struct creation *first, **last; /* what waits to be made */
  bool stopping;
  bool ended;   /* the thread came to its end by itself, and is to be joined */
  bool running; /* the thread exists; JavaScript's thread alone asks and says so */
  pthread_t thread;
  int home;
  uint32_t pending; /* promises that are open; JavaScript's thread alone counts */
  napi_threadsafe_function deliver;
};

/* ---- the maker's thread */

static struct cnm_failure create_inside(struct creation *c) {
  struct stat status;
  int error;
  struct cnm_failure failure = {0, NULL};
  if ((c->ns = open(CNM_OWN_NETNS, O_RDONLY | O_CLOEXEC)) < 0) return (struct cnm_failure){errno, "open"};
  if (fstat(c->ns, &status) != 0) {
    failure = (struct cnm_failure){errno, "fstat"};
    goto ns;
  }
  c->inode = status.st_ino;
  if ((c->route = cnm_socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE)) < 0) {
    failure = (struct cnm_failure){-c->route, "socket"};
    goto ns;
  }
  failure = cnm_loopback_up(c->route);
  if (failure.number != 0) goto route;
  if (c->bound && (error = cnm_mount_netns(c->ns, c->path)) != 0) {
    failure = (struct cnm_failure){error, "mount"};
    goto route;
  }
  return failure;
route:
  close(c->route);
ns:
  close(c->ns);
  return failure;
}

/* False: this thread is lost abroad. */
static bool create(struct creation *c, int home) {
  int error;
  if (c->bound && (error = cnm_make_file(c->path)) != 0) {
    c->failure = (struct cnm_failure){error, "open"};
    return true;
  }
  bool left = unshare(CLONE_NEWNET) == 0;
  c->failure = left ? create_inside(c) : (struct cnm_failure){errno, "unshare"};
  if (c->failure.number != 0 && c->bound) unlink(c->path);
  return !left || setns(home, CLONE_NEWNET) == 0;
}

/* When nobody will ever know of it. */
static void dispose(struct creation *c) {
  if (c->failure.number == 0) {
    close(c->ns);
    close(c->route);
    if (c->bound) cnm_unbind(c->path);
  }
  free(c);
}

static struct creation *take_first(struct cnm_maker *maker) {
  struct creation *c = maker->first;
  if (c == NULL) return NULL;
  maker->first = c->next;
  if (maker->first == NULL) maker->last = &maker->first;
  return c;
}

static void *make_loop(void *argument) {
  struct cnm_maker *maker = argument;
  bool home = true;
  while (home) {
    pthread_mutex_lock(&maker->mutex);
    while (maker->first == NULL && !maker->stopping) pthread_cond_wait(&maker->wanted, &maker->mutex);
    struct creation *c = maker->stopping ? NULL : take_first(maker);
    pthread_mutex_unlock(&maker->mutex);
    if (c == NULL) return NULL;
    home = create(c, maker->home);
    if (!home) { /* said before the creation is delivered: whoever hears of that looks for a new maker */
      pthread_mutex_lock(&maker->mutex);
      maker->ended = true;
      pthread_mutex_unlock(&maker->mutex);
    }
    if (napi_call_threadsafe_function(maker->deliver, c, napi_tsfn_nonblocking) != napi_ok) dispose(c);
  }
  return NULL;
}

/* ---- JavaScript's thread */

/* A maker for what waits; 0 or errno. */
static int ensure_running(struct cnm_maker *maker) {
  unsigned long thread;
  pthread_mutex_lock(&maker->mutex);
  bool ended = maker->ended;
  maker->ended = false;
  pthread_mutex_unlock(&maker->mutex);
  if (ended) {
    pthread_join(maker->thread, NULL);
    maker->running = false;
  }
  if (maker->running) return 0;
  int error = cnm_spawn(make_loop, maker, &thread);
  if (error != 0) return error;
  maker->thread = (pthread_t)thread;
  maker->running = true;
  return 0;
}

/* { ns, inode, route }, or NULL when the environment is ending. */
static napi_value describe(napi_env env, const struct creation *c) {
  napi_value result;
  bool complete = napi_create_object(env, &result) == napi_ok &&
                  napi_set_named_property(env, result, "ns", cnm_number(env, c->ns)) == napi_ok &&
                  napi_set_named_property(env, result, "inode", cnm_number(env, (double)c->inode)) == napi_ok &&
                  napi_set_named_property(env, result, "route", cnm_number(env, c->route)) == napi_ok;
  return complete ? result : NULL;
}

static void settle(napi_env env, struct cnm_maker *maker, struct creation *c) {
  napi_value result;
  bool delivered = false;
  if (c->failure.number != 0)
    delivered = napi_reject_deferred(env, c->deferred, cnm_error(env, c->failure)) == napi_ok;
  else if ((result = describe(env, c)) != NULL)
    delivered = napi_resolve_deferred(env, c->deferred, result) == napi_ok;
  if (delivered)
    free(c);
  else
    dispose(c); /* the environment is ending */
  if (--maker->pending == 0) napi_unref_threadsafe_function(env, maker->deliver);
}

/* Called with env NULL when the environment is ending. */
static void deliver(napi_env env, napi_value callback, void *context, void *data) {
  struct cnm_maker *maker = context;
  (void)callback;
  if (env == NULL) {
    dispose(data);
    return;
  }
  settle(env, maker, data);
  int error = maker->pending > 0 ? ensure_running(maker) : 0;
  if (error == 0) return;
  pthread_mutex_lock(&maker->mutex); /* no thread: nobody else takes from the queue */
  struct creation *waiting = maker->first;
  maker->first = NULL;
  maker->last = &maker->first;
  pthread_mutex_unlock(&maker->mutex);
  while (waiting != NULL) {
    struct creation *next = waiting->next;
    waiting->failure = (struct cnm_failure){error, "pthread_create"};
    settle(env, maker, waiting);
    waiting = next;
  }
}

/* Before the environment takes down the thread-safe function: nobody may call that any more. */
static void shut_down(void *data) {
  struct cnm_maker *maker = data;
  pthread_mutex_lock(&maker->mutex);
  maker->stopping = true;
  pthread_cond_signal(&maker->wanted);
  pthread_mutex_unlock(&maker->mutex);
  if (maker->running) pthread_join(maker->thread, NULL);
  maker->running = false;
  for (struct creation *c; (c = take_first(maker)) != NULL;) free(c);
}

static void forget_maker(napi_env env, void *data, void *context) {
  struct cnm_maker *maker = context;
  (void)env;
  (void)data;
  pthread_cond_destroy(&maker->wanted);
  pthread_mutex_destroy(&maker->mutex);
  free(maker);
}

/* The maker of this environment, made with the first namespace. */
static struct cnm_maker *get_maker(napi_env env) {
  struct cnm_env *data = cnm_env(env);
  napi_value name;
  if (data->maker != NULL) return data->maker;
  struct cnm_maker *maker = calloc(1, sizeof *maker);
  if (maker == NULL) return NULL;
  pthread_mutex_init(&maker->mutex, NULL);
  pthread_cond_init(&maker->wanted, NULL);
  maker->last = &maker->first;
  maker->home = cnm_home();
  if (napi_create_string_utf8(env, "cnm:createNetns", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_threadsafe_function(env, NULL, NULL, name, 0, 1, NULL, forget_maker, maker, deliver,
                                      &maker->deliver) != napi_ok) {
    forget_maker(env, NULL, maker);
    return NULL;
  }
  napi_unref_threadsafe_function(env, maker->deliver); /* keeps the process alive only while a promise is open */
  napi_add_env_cleanup_hook(env, shut_down, maker);    /* hooks run last in, first out: before that of the function */
  return data->maker = maker;
}

/* What is asked for; NULL when an exception is pending. */
static struct creation *parse_creation(napi_env env, napi_callback_info info) {
  napi_value args[1];
  char path[PATH_MAX] = "";
  if (!cnm_get_args(env, info, 1, args)) return NULL;
  bool bound = !cnm_is_null(env, args[0]);
  if (bound && !cnm_get_string(env, args[0], "path", path, sizeof path)) return NULL;
  size_t size = strlen(path) + 1;
  struct creation *c = calloc(1, sizeof *c + size);
  if (c == NULL) {
    cnm_throw(env, ENOMEM, "malloc");
    return NULL;
  }
  memcpy(c->path, path, size);
  c->bound = bound;
  return c;
}

static napi_value create_netns_sync(napi_env env, napi_callback_info info) {
  napi_value result = NULL;
  int error, previous;
  struct creation *c = parse_creation(env, info);
  if (c == NULL) return NULL;
  if ((error = cnm_enter(cnm_home(), &previous)) != 0) { /* where one cannot come home, only a maker may go */
    free(c);
    return cnm_throw(env, error, "setns");
  }
  create(c, previous);
  cnm_leave(previous); /* again, for a creation that never left; and aborts when one did not come home */
  if (c->failure.number != 0) cnm_throw(env, c->failure.number, c->failure.syscall);
  else result = describe(env, c);
  if (result != NULL || c->failure.number != 0) free(c);
  else dispose(c);
  return result;
}

static napi_value create_netns(napi_env env, napi_callback_info info) {
  napi_value promise;
  int error;
  struct creation *c = parse_creation(env, info);
  if (c == NULL) return NULL;
  struct cnm_maker *maker = get_maker(env);
  if (maker == NULL) {
    free(c);
    return cnm_throw(env, ENOMEM, "malloc");
  }
  if ((error = ensure_running(maker)) != 0) {
    free(c);
    return cnm_throw(env, error, "pthread_create");
  }
  if (napi_create_promise(env, &c->deferred, &promise) != napi_ok) {
    free(c);
    return NULL;
  }
  if (maker->pending++ == 0) napi_ref_threadsafe_function(env, maker->deliver);
  pthread_mutex_lock(&maker->mutex);
  *maker->last = c;
  maker->last = &c->next;
  pthread_cond_signal(&maker->wanted);
  pthread_mutex_unlock(&maker->mutex);
  return promise;
}

void cnm_register_create(napi_env env, napi_value exports) {
  static const struct cnm_function FUNCTIONS[] = {{"createNetns", create_netns}, {"createNetnsSync", create_netns_sync}};
  cnm_export(env, exports, FUNCTIONS, CNM_COUNT(FUNCTIONS));
}
