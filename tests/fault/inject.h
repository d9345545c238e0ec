/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Makes the n-th call of the library fail, out of everything that it asks of the C library, the
 * kernel and the libraries below it and that can fail. Calls are wrapped at link time (--wrap), so
 * only those of Sluice's own code count; meson.build lists them.
 */
#ifndef TESTS_FAULT_INJECT_H
#define TESTS_FAULT_INJECT_H

#include <stdbool.h>

/** Fail the @p n-th wrapped call from now on, of any thread, counting from 1; or also all later. */
void inject_arm(unsigned n, bool for_ever);

/** Stop failing. @return the name of the (first) call that was failed; NULL none came so far */
const char *inject_disarm(void);

#endif
