/* Registration: one struct cnm_env per environment, and the functions of lib/kernel/binding.ts. */
#include "cnm.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct cnm_env *cnm_env(napi_env env) {
  void *data = NULL;
  napi_get_instance_data(env, &data);
  return data;
}

void cnm_export(napi_env env, napi_value exports, const struct cnm_function *functions, size_t count) {
  for (size_t i = 0; i < count; i++) {
    napi_value function;
    if (napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].call, NULL, &function) == napi_ok)
      napi_set_named_property(env, exports, functions[i].name, function);
  }
}

static void finalize_env(napi_env env, void *data, void *hint) {
  struct cnm_env *ending = data;
  (void)env;
  (void)hint;
  if (ending->proc >= 0) close(ending->proc);
  free(ending);
  cnm_thread_detach();
}

static void nothing(napi_env env, void *data) {
  (void)env;
  (void)data;
}

static void forget_work(napi_env env, napi_status status, void *data) {
  (void)status;
  napi_async_work *work = data;
  napi_delete_async_work(env, *work);
  free(work);
}

/*
 * libuv starts its pool with the first piece of work, and a new thread is born where its creator is. Started here, while
 * the thread is home, the pool cannot be born in a foreign namespace because the body of `run` was the first to need it.
 */
static void start_pool(napi_env env) {
  static atomic_flag started = ATOMIC_FLAG_INIT;
  if (atomic_flag_test_and_set(&started)) return;
  napi_async_work *work = malloc(sizeof *work);
  napi_value name;
  if (work == NULL) return;
  if (napi_create_string_utf8(env, "cnm:start", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, NULL, name, nothing, forget_work, work, work) != napi_ok) {
    free(work);
    return;
  }
  if (napi_queue_async_work(env, *work) != napi_ok) forget_work(env, napi_cancelled, work);
}

__attribute__((visibility("default"))) NAPI_MODULE_INIT() {
  struct cnm_env *data = calloc(1, sizeof *data);
  if (data == NULL) return cnm_throw(env, ENOMEM, "malloc");
  data->proc = -1;
  if (!cnm_thread_attach()) {
    free(data);
    return cnm_throw(env, errno, "open");
  }
  if (napi_set_instance_data(env, data, finalize_env, NULL) != napi_ok) {
    finalize_env(env, data, NULL);
    return NULL;
  }
  start_pool(env);
  cnm_register_netns(env, exports);
  cnm_register_create(env, exports);
  cnm_register_socket(env, exports);
  cnm_register_netlink(env, exports);
  cnm_register_subscribe(env, exports);
  cnm_register_sysctl(env, exports);
  cnm_register_datagrams(env, exports);
  return exports;
}
