/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two buffers: lines are put into one while the other is being written, without the lock. A record
 * is the level's byte and the text with its NUL. The lock is never held over a call that can wait.
 */
#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

#define PLAIN  '\x7f' /* in place of a level: log_say() */
#define SILENT (-1)   /* below every level */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t said;    /* the writer has something to do */
	pthread_cond_t written; /* it has done it */
	pthread_t writer;
	bool started;
	bool prepared;
	bool writing; /* has a buffer in hand */
	slu_log_fn receiver;
	void *receiver_arg;
	uint32_t filling; /* which buffer */
	uint32_t used;    /* bytes of it */
	uint64_t lost;    /* lines that found no room, or that could not be written */
	int lost_error;   /* why not; 0: no room */
	struct log_site *sites;
	char buffers[2][LOG_BUFFER_BYTES];
} log_state = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.said = PTHREAD_COND_INITIALIZER,
	.written = PTHREAD_COND_INITIALIZER,
};

static atomic_int log_level = SLU_LOG_WARNING;

static _Thread_local char last_error[512];

bool log_enabled(enum slu_log_level level)
{
	return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

/* Texts of peers are quoted: none may begin a line of its own or talk to a terminal. */
static void keep_to_one_line(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++) {
		bool second_set = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0; /* in UTF-8 */

		if (*c < ' ' || *c == 0x7f || second_set)
			*c = '?';
		if (second_set)
			c[1] = '?';
	}
}

/* ---- the buffer; under the lock ---- */

static void put(char level, const char *text)
{
	size_t size = strlen(text) + 1;
	char *to = log_state.buffers[log_state.filling] + log_state.used;

	if (log_state.used + 1 + size > LOG_BUFFER_BYTES) {
		log_state.lost++;
		return;
	}
	to[0] = level;
	memcpy(to + 1, text, size);
	log_state.used += (uint32_t)(1 + size);
}

/* A bucket of LOG_PEER_BURST lines that fills with LOG_PEER_PER_SECOND. */
static bool may_say(struct log_site *site, uint64_t now_ns)
{
	const uint64_t interval = NS_PER_SECOND / LOG_PEER_PER_SECOND;
	uint64_t due = site->due_ns > now_ns ? site->due_ns : now_ns;

	if (due - now_ns > interval * (LOG_PEER_BURST - 1))
		return false;
	site->due_ns = due + interval;
	return true;
}

/* @return are there still some whose turn has not come? */
static bool say_unsaid(uint64_t now_ns)
{
	bool left = false;

	for (struct log_site *site = log_state.sites; site; site = site->next) {
		char text[LOG_LINE_MAX];

		if (!site->unsaid)
			continue;
		if (!may_say(site, now_ns)) {
			left = true;
			continue;
		}
		snprintf(text, sizeof(text), "%s (and %u more like this)", site->latest,
			 site->unsaid - 1);
		if (log_enabled(site->level))
			put((char)site->level, site->unsaid > 1 ? text : site->latest);
		site->unsaid = 0;
	}
	return left;
}

static void keep_unsaid(struct log_site *site, const char *text)
{
	site->unsaid++;
	snprintf(site->latest, sizeof(site->latest), "%.*s", (int)sizeof(site->latest) - 1, text);
	if (site->listed)
		return;
	site->listed = true;
	site->next = log_state.sites;
	log_state.sites = site;
}

/* ---- the writer ---- */

/* Somebody may have made the descriptor one that does not wait: we are the one to wait. */
static int write_all(const char *text, size_t length)
{
	while (length > 0) {
		ssize_t done = write(STDERR_FILENO, text, length);
		struct pollfd fd = {.fd = STDERR_FILENO, .events = POLLOUT};

		if (done >= 0) {
			text += done;
			length -= (size_t)done;
		} else if (errno == EAGAIN) {
			poll(&fd, 1, -1);
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

static int write_line(char level, const char *text)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	char line[LOG_LINE_MAX + 32];
	int length;

	if (level == PLAIN)
		length = snprintf(line, sizeof(line), "%s\n", text);
	else
		length = snprintf(line, sizeof(line), "sluice: %s: %s\n", names[(int)level], text);
	return write_all(line, (size_t)length);
}

struct batch {
	const char *records;
	uint32_t bytes;
	slu_log_fn receiver;
	void *arg;
	uint64_t lost; /* before it; then also of it */
	int error;     /* why */
};

static void deliver_line(struct batch *batch, char level, const char *text)
{
	int rc = 0;

	if (batch->receiver && level != PLAIN)
		batch->receiver(batch->arg, (enum slu_log_level)level, text);
	else
		rc = write_line(level, text);
	if (rc == 0)
		return;
	batch->lost++;
	batch->error = -rc;
}

static void deliver_lost(struct batch *batch)
{
	struct batch former = *batch;
	char text[LOG_LINE_MAX];

	if (!batch->lost || !log_enabled(SLU_LOG_WARNING))
		return;
	if (batch->error)
		snprintf(text, sizeof(text),
			 "%" PRIu64 " messages were lost: the log could not be written: %s",
			 batch->lost, strerror(batch->error));
	else
		snprintf(text, sizeof(text),
			 "%" PRIu64 " messages were dropped: the reader of the log stalls",
			 batch->lost);
	batch->lost = 0;
	deliver_line(batch, SLU_LOG_WARNING, text);
	if (batch->lost)
		batch->lost = former.lost;
	else
		batch->error = 0;
}

static void deliver(struct batch *batch)
{
	for (const char *record = batch->records; record < batch->records + batch->bytes;
	     record += 2 + strlen(record + 1))
		deliver_line(batch, record[0], record + 1);
	deliver_lost(batch);
}

/* Under the lock, which it lets go meanwhile. */
static void write_batch(void)
{
	struct batch batch = {
		.records = log_state.buffers[log_state.filling],
		.bytes = log_state.used,
		.receiver = log_state.receiver,
		.arg = log_state.receiver_arg,
		.lost = log_state.lost,
		.error = log_state.lost_error,
	};

	log_state.filling = !log_state.filling;
	log_state.used = 0;
	log_state.lost = 0;
	log_state.lost_error = 0;
	log_state.writing = true;
	pthread_mutex_unlock(&log_state.lock);
	deliver(&batch);
	pthread_mutex_lock(&log_state.lock);
	log_state.writing = false;
	log_state.lost += batch.lost;
	log_state.lost_error = batch.error ? batch.error : log_state.lost_error;
	pthread_cond_broadcast(&log_state.written);
}

static void wait_until(pthread_cond_t *condition, uint64_t at_ns)
{
	struct timespec at = {.tv_sec = (time_t)(at_ns / NS_PER_SECOND),
			      .tv_nsec = (long)(at_ns % NS_PER_SECOND)};

	pthread_cond_clockwait(condition, &log_state.lock, CLOCK_MONOTONIC, &at);
}

static void *run_writer(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&log_state.lock);
	for (;;) {
		uint64_t now_ns = clock_kernel_ns();
		bool left = say_unsaid(now_ns);

		if (log_state.used > 0)
			write_batch();
		else if (left)
			wait_until(&log_state.said, now_ns + NS_PER_SECOND);
		else
			pthread_cond_wait(&log_state.said, &log_state.lock);
	}
	return NULL;
}

/* ---- fork, start, end ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&log_state.lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&log_state.lock);
}

/* The child has no writer, and what is in the buffers the parent says. */
static void after_fork_in_child(void)
{
	pthread_mutex_init(&log_state.lock, NULL);
	pthread_cond_init(&log_state.said, NULL);
	pthread_cond_init(&log_state.written, NULL);
	log_state.started = log_state.writing = false;
	log_state.used = 0;
	log_state.lost = 0;
	for (struct log_site *site = log_state.sites; site; site = site->next)
		site->unsaid = 0;
}

/* The application's receiver may be gone after this. */
static void finish(void)
{
	pthread_mutex_lock(&log_state.lock);
	say_unsaid(UINT64_MAX);
	pthread_mutex_unlock(&log_state.lock);
	log_flush();
	atomic_store(&log_level, SILENT);
}

/* Under the lock. */
static void start(void)
{
	if (!log_state.prepared) {
		log_state.prepared = true;
		atexit(finish);
		pthread_atfork(before_fork, after_fork, after_fork_in_child);
	}
	if (!log_state.started)
		log_state.started =
			thread_try(&log_state.writer, "sluice-log", run_writer, NULL) == 0;
}

void log_start(void)
{
	pthread_mutex_lock(&log_state.lock);
	start();
	pthread_mutex_unlock(&log_state.lock);
}

static bool is_writer(void)
{
	return log_state.started && pthread_equal(pthread_self(), log_state.writer);
}

/* Under the lock. Without a thread of its own the log is written here. */
static void flush_until(uint64_t until_ns)
{
	start();
	while ((log_state.used > 0 || log_state.writing) && clock_kernel_ns() < until_ns) {
		if (log_state.started || log_state.writing)
			wait_until(&log_state.written, until_ns);
		else
			write_batch();
	}
}

void log_flush(void)
{
	pthread_mutex_lock(&log_state.lock);
	if (!is_writer())
		flush_until(clock_kernel_ns() + LOG_FLUSH_MS * UINT64_C(1000000));
	pthread_mutex_unlock(&log_state.lock);
}

void slu_log_set(enum slu_log_level level, slu_log_fn log, void *arg)
{
	slu_log_fn former;

	log_flush();
	pthread_mutex_lock(&log_state.lock);
	former = log_state.receiver;
	atomic_store(&log_level, (int)level);
	log_state.receiver = log;
	log_state.receiver_arg = arg;
	/* A batch began with the former one: when it is over, nobody calls that any more. */
	while (former && log_state.writing && !is_writer())
		pthread_cond_wait(&log_state.written, &log_state.lock);
	pthread_mutex_unlock(&log_state.lock);
}

/* ---- saying something ---- */

static void put_and_wake(char level, const char *text)
{
	start();
	put(level, text);
	pthread_cond_signal(&log_state.said);
}

void log_line(enum slu_log_level level, const char *format, ...)
{
	char text[LOG_LINE_MAX];
	va_list args;

	if (!log_enabled(level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	keep_to_one_line(text);
	pthread_mutex_lock(&log_state.lock);
	put_and_wake((char)level, text);
	pthread_mutex_unlock(&log_state.lock);
}

void log_limited(struct log_site *site, const char *format, ...)
{
	char text[LOG_LINE_MAX];
	va_list args;

	if (!log_enabled(site->level))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	keep_to_one_line(text);
	pthread_mutex_lock(&log_state.lock);
	if (may_say(site, clock_kernel_ns())) {
		put_and_wake((char)site->level, text);
	} else {
		keep_unsaid(site, text);
		if (site->unsaid == 1) /* the writer has to look after it in time */
			pthread_cond_signal(&log_state.said);
	}
	pthread_mutex_unlock(&log_state.lock);
}

void log_say(const char *format, ...)
{
	char text[LOG_LINE_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	pthread_mutex_lock(&log_state.lock);
	put_and_wake(PLAIN, text);
	pthread_mutex_unlock(&log_state.lock);
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
