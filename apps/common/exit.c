/* SPDX-License-Identifier: Apache-2.0 */
#include "common/exit.h"

#include <errno.h>

#include <sluice/error.h>

#include "base/log.h"

void exit_explain(int error)
{
	const char *cause = slu_last_error();

	log_say("%s: %s", program_invocation_short_name, cause[0] ? cause : slu_strerror(error));
}

int exit_usage(void)
{
	log_say("%s: %s", program_invocation_short_name, slu_last_error());
	return EXIT_USAGE;
}
