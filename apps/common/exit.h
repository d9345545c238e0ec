/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Exit codes of the appliances, and how they name a failure.
 */
#ifndef COMMON_EXIT_H
#define COMMON_EXIT_H

enum exit_code {
	EXIT_DONE = 0,   /* done, and verified where that was asked for */
	EXIT_FAILED = 1, /* failed, interrupted, or wrong data */
	EXIT_USAGE = 2,  /* the command line asks for what cannot be */
};

/** Print cause and remedy of a failure on stderr; where nobody knew them, what @p error means. */
void exit_explain(int error);

/** Print slu_last_error() as a mistake in the command line. @return EXIT_USAGE */
int exit_usage(void);

#endif
