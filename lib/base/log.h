/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The log, and the text behind slu_last_error(). Never on the hot path.
 *
 * Who says something leaves a line in a buffer and goes on; a thread of the log's own writes it, or
 * hands it to the application's receiver. So a reader that stalls or a disk that is full holds
 * nobody up: what finds no room is lost and counted, and the count is said.
 *
 * What a peer can cause is said by log_peer(), which keeps to a rate.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/error.h>

#define LOG_BUFFER_BYTES    65536u /* lines that are not written yet */
#define LOG_LINE_MAX        1024u  /* bytes, with the NUL; the rest is cut off */
#define LOG_FLUSH_MS        1000u  /* how long an end waits for its last words to be read */
#define LOG_PEER_BURST      10u    /* lines of one kind that peers can cause, and then ... */
#define LOG_PEER_PER_SECOND 1u

#define log_error(...)   log_line(SLU_LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(SLU_LOG_WARNING, __VA_ARGS__)
#define log_info(...)    log_line(SLU_LOG_INFO, __VA_ARGS__)
#define log_debug(...)   log_line(SLU_LOG_DEBUG, __VA_ARGS__)

/** Any thread. */
void log_line(enum slu_log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** What is said in one place of the code because of a peer. Static, and zeroed but for the level.
 */
struct log_site {
	enum slu_log_level level;
	bool listed;
	uint32_t unsaid;
	uint64_t due_ns; /* when the lines said are made up for, see LOG_PEER_PER_SECOND */
	struct log_site *next;
	char latest[256]; /* of the unsaid */
};

/**
 * Say what a peer has caused: up to LOG_PEER_BURST lines, then LOG_PEER_PER_SECOND. The others are
 * counted, and told of by the latest of them, with the count. Any thread.
 */
#define log_peer(severity, ...)                                                                    \
	do {                                                                                       \
		static struct log_site log_site_ = {.level = (severity)};                          \
		log_limited(&log_site_, __VA_ARGS__);                                              \
	} while (0)

void log_limited(struct log_site *site, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** A line of the program's own on standard error, as it stands, in turn with the log. */
void log_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Would a line of @p level be let through? */
bool log_enabled(enum slu_log_level level);

/**
 * Start the thread of the log, which a first line does otherwise: from a thread that is not pinned,
 * for it inherits that. What cannot be started now is tried again with the next line.
 */
void log_start(void);

/** Wait until what was said is out, for at most LOG_FLUSH_MS. Any thread but the log's. */
void log_flush(void);

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
