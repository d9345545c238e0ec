/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static enum slu_log_level log_level = SLU_LOG_WARNING;
static slu_log_fn log_receiver;
static void *log_receiver_arg;

static _Thread_local char last_error[512];

void slu_log_set(enum slu_log_level level, slu_log_fn log, void *arg)
{
	log_level = level;
	log_receiver = log;
	log_receiver_arg = arg;
}

int log_enabled(enum slu_log_level level)
{
	return level <= log_level;
}

/* Texts of peers are quoted: none may begin a line of its own or talk to a terminal. */
static void keep_to_one_line(char *text)
{
	for (char *c = text; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

void log_line(enum slu_log_level level, const char *format, ...)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	char text[1024];
	va_list args;

	if (!log_enabled(level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	keep_to_one_line(text);
	if (log_receiver)
		log_receiver(log_receiver_arg, level, text);
	else
		fprintf(stderr, "sluice: %s: %s\n", names[level], text);
}

int fail(int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(last_error, sizeof(last_error), format, args);
	va_end(args);
	keep_to_one_line(last_error);
	log_debug("%s", last_error);
	return error;
}

const char *slu_last_error(void)
{
	return last_error;
}
