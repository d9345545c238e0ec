/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What every cmocka test includes: cmocka in the order that it wants, and skipping with a reason.
 */
#ifndef TESTS_TAP_H
#define TESTS_TAP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/tsan.h"

/* The library has a function named fail(): cmocka's macro of that name has to go. */
#undef fail
#undef fail_msg
#define fail_msg(...)                                                                              \
	do {                                                                                       \
		tap_comment(__VA_ARGS__);                                                          \
		_fail(__FILE__, __LINE__);                                                         \
	} while (0)

/** The sanitizers replace malloc, mlock and more: some tests make no sense under them. */
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define WITH_ADDRESS_SANITIZER 1
#else
#define WITH_ADDRESS_SANITIZER 0
#endif

/** One line that TAP readers pass over. */
#define tap_comment(...)                                                                           \
	do {                                                                                       \
		printf("# " __VA_ARGS__);                                                          \
		printf("\n");                                                                      \
		fflush(stdout);                                                                    \
	} while (0)

/** Leave the running test as skipped; the reason stands in the output. */
#define skip_because(...)                                                                          \
	do {                                                                                       \
		tap_comment("skipped: " __VA_ARGS__);                                              \
		skip();                                                                            \
	} while (0)

#endif
