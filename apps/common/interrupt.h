/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * SIGINT and SIGTERM: the first one asks the program to finish, the second one ends it at once.
 */
#ifndef COMMON_INTERRUPT_H
#define COMMON_INTERRUPT_H

#include <stdbool.h>
#include <stdint.h>

#define INTERRUPT_FOREVER UINT64_MAX

/** Install the handlers. Before any thread is started. @return 0; -errno */
int interrupt_init(void);

/** Has a signal come? Any thread. */
bool interrupt_pending(void);

/** Sleep @p timeout_ns, or until a signal comes. One thread at a time. @return did one come? */
bool interrupt_wait(uint64_t timeout_ns);

#endif
