/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * SIGINT and SIGTERM: the first one asks the program to finish, the second one ends it at once.
 * SIGHUP, where the program wants it, asks it to read its configuration again.
 */
#ifndef COMMON_INTERRUPT_H
#define COMMON_INTERRUPT_H

#include <stdbool.h>
#include <stdint.h>

#define INTERRUPT_FOREVER UINT64_MAX

/** Install the handlers. Before any thread is started. @return 0; -errno */
int interrupt_init(void);

/** From now on SIGHUP does not end the program. After interrupt_init(). */
void interrupt_catch_reload(void);

/** Has a signal come that ends the program? Any thread. */
bool interrupt_pending(void);

/** Has SIGHUP come since the last call? One thread. */
bool interrupt_take_reload(void);

/**
 * Sleep @p timeout_ns, or until a signal comes: SIGHUP, too, where it is caught. One thread at a
 * time. @return did one come that ends the program?
 */
bool interrupt_wait(uint64_t timeout_ns);

#endif
