/* Between JavaScript's values and C's; and the one form of error. */
#include "cnm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* strerrorname_np is glibc's alone, so the names are here; those that the calls of this addon can give. */
#define NAME(number) { number, #number }
static const struct {
  int number;
  const char *name;
} NAMES[] = {
    NAME(EPERM),        NAME(ENOENT),          NAME(ESRCH),           NAME(EINTR),         NAME(EIO),
    NAME(ENXIO),        NAME(E2BIG),           NAME(EBADF),           NAME(EAGAIN),        NAME(ENOMEM),
    NAME(EACCES),       NAME(EFAULT),          NAME(ENOTBLK),         NAME(EBUSY),         NAME(EEXIST),
    NAME(EXDEV),        NAME(ENODEV),          NAME(ENOTDIR),         NAME(EISDIR),        NAME(EINVAL),
    NAME(ENFILE),       NAME(EMFILE),          NAME(ENOTTY),          NAME(ETXTBSY),       NAME(EFBIG),
    NAME(ENOSPC),       NAME(ESPIPE),          NAME(EROFS),           NAME(EMLINK),        NAME(EPIPE),
    NAME(EDOM),         NAME(ERANGE),          NAME(EDEADLK),         NAME(ENAMETOOLONG),  NAME(ENOLCK),
    NAME(ENOSYS),       NAME(ENOTEMPTY),       NAME(ELOOP),           NAME(ENODATA),       NAME(ETIME),
    NAME(ENOLINK),      NAME(EPROTO),          NAME(EBADMSG),         NAME(EOVERFLOW),     NAME(EILSEQ),
    NAME(ENOTSOCK),     NAME(EDESTADDRREQ),    NAME(EMSGSIZE),        NAME(EPROTOTYPE),    NAME(ENOPROTOOPT),
    NAME(EPROTONOSUPPORT), NAME(ESOCKTNOSUPPORT), NAME(EOPNOTSUPP),   NAME(EPFNOSUPPORT),  NAME(EAFNOSUPPORT),
    NAME(EADDRINUSE),   NAME(EADDRNOTAVAIL),   NAME(ENETDOWN),        NAME(ENETUNREACH),   NAME(ENETRESET),
    NAME(ECONNABORTED), NAME(ECONNRESET),      NAME(ENOBUFS),         NAME(EISCONN),       NAME(ENOTCONN),
    NAME(ESHUTDOWN),    NAME(ETIMEDOUT),       NAME(ECONNREFUSED),    NAME(EHOSTDOWN),     NAME(EHOSTUNREACH),
    NAME(EALREADY),     NAME(EINPROGRESS),     NAME(ESTALE),          NAME(EUSERS),        NAME(EDQUOT),
    NAME(ECANCELED),    NAME(EKEYREJECTED),
};

static void throw_type(napi_env env, const char *name, const char *expected) {
  char message[96];
  snprintf(message, sizeof message, "%s: %s expected", name, expected);
  napi_throw_type_error(env, "ERR_INVALID_ARG_TYPE", message);
}

bool cnm_get_args(napi_env env, napi_callback_info info, size_t count, napi_value *values) {
  size_t given = count; /* those that are missing come as undefined */
  return napi_get_cb_info(env, info, &given, values, NULL, NULL) == napi_ok;
}

bool cnm_get_int(napi_env env, napi_value value, const char *name, int *result) {
  int32_t number;
  if (napi_get_value_int32(env, value, &number) != napi_ok) {
    throw_type(env, name, "integer");
    return false;
  }
  *result = number;
  return true;
}

bool cnm_get_string(napi_env env, napi_value value, const char *name, char *buffer, size_t size) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, NULL, 0, &length) != napi_ok) {
    throw_type(env, name, "string");
    return false;
  }
  if (length >= size) {
    cnm_throw(env, ENAMETOOLONG, "open");
    return false;
  }
  napi_get_value_string_utf8(env, value, buffer, size, &length);
  if (strlen(buffer) != length) {
    cnm_throw(env, EINVAL, "open");
    return false;
  }
  return true;
}

bool cnm_get_bytes(napi_env env, napi_value value, const char *name, const uint8_t **bytes, size_t *length) {
  napi_typedarray_type type;
  void *data;
  bool is_typed = false;
  if (napi_is_typedarray(env, value, &is_typed) != napi_ok || !is_typed ||
      napi_get_typedarray_info(env, value, &type, length, &data, NULL, NULL) != napi_ok || type != napi_uint8_array) {
    throw_type(env, name, "Uint8Array");
    return false;
  }
  *bytes = data;
  return true;
}

bool cnm_is_null(napi_env env, napi_value value) {
  napi_valuetype type;
  return napi_typeof(env, value, &type) == napi_ok && type == napi_null;
}

napi_value cnm_number(napi_env env, double value) {
  napi_value result = NULL;
  napi_create_double(env, value, &result);
  return result;
}

napi_value cnm_bytes(napi_env env, const void *bytes, size_t length) {
  napi_value buffer, result = NULL;
  void *data;
  if (napi_create_arraybuffer(env, length, &data, &buffer) != napi_ok) return NULL;
  if (length > 0) memcpy(data, bytes, length);
  napi_create_typedarray(env, napi_uint8_array, length, buffer, 0, &result);
  return result;
}

napi_value cnm_undefined(napi_env env) {
  napi_value result = NULL;
  napi_get_undefined(env, &result);
  return result;
}

napi_value cnm_error(napi_env env, struct cnm_failure failure) {
  char text[256], unnamed[24];
  const char *name = NULL;
  napi_value code, message, error = NULL, value;
  for (size_t i = 0; i < CNM_COUNT(NAMES) && name == NULL; i++)
    if (NAMES[i].number == failure.number) name = NAMES[i].name;
  if (name == NULL) {
    snprintf(unnamed, sizeof unnamed, "E%d", failure.number);
    name = unnamed;
  }
  snprintf(text, sizeof text, "%s: %s", failure.syscall, strerror(failure.number));
  if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code) != napi_ok ||
      napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message) != napi_ok ||
      napi_create_error(env, code, message, &error) != napi_ok)
    return NULL;
  napi_set_named_property(env, error, "errno", cnm_number(env, failure.number));
  if (napi_create_string_utf8(env, failure.syscall, NAPI_AUTO_LENGTH, &value) == napi_ok)
    napi_set_named_property(env, error, "syscall", value);
  return error;
}

napi_value cnm_throw(napi_env env, int number, const char *syscall) {
  napi_value error = cnm_error(env, (struct cnm_failure){number, syscall});
  if (error != NULL) napi_throw(env, error);
  return NULL;
}

void cnm_report_exception(napi_env env) {
  napi_value exception;
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending &&
      napi_get_and_clear_last_exception(env, &exception) == napi_ok)
    napi_fatal_exception(env, exception);
}
