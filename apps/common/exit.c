/* SPDX-License-Identifier: Apache-2.0 */
#include "common/exit.h"

#include <errno.h>
#include <stdio.h>

#include <sluice/error.h>

void exit_explain(int error)
{
	fprintf(stderr, "%s: %s (%s)\n", program_invocation_short_name, slu_last_error(),
		slu_strerror(error));
}

int exit_usage(void)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, slu_last_error());
	return EXIT_USAGE;
}
