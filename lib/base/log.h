/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The log, and the text behind slu_last_error(). Never on the hot path.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <sluice/error.h>

#define log_error(...)   log_line(SLU_LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(SLU_LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(SLU_LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(SLU_LOG_DEBUG, __VA_ARGS__)

/** Any thread. */
void log_line(enum slu_log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** Would a line of @p level be let through? */
int log_enabled(enum slu_log_level level);

/**
 * Keep the cause and remedy of a failure for slu_last_error() of this thread.
 *
 * Called once, by the function that first knows the cause.
 *
 * @param error  negative errno
 * @return       @p error, so that "return fail(-EINVAL, ...)" reads well
 */
int fail(int error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
