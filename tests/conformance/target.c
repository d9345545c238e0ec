/* SPDX-License-Identifier: Apache-2.0 */
/* The target process of the suite: exports its segments and answers questions about their bytes. */
#include "target.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "engine/engine_internal.h"
#include "pattern.h"

#define SERVE_SECONDS 600
#define WAKE_MS       120000
#define LATE_US       1500000
#define QUIET_US      300000
#define GROUP         8u

/* @return false: armed and not woken, which must not be */
static bool sleep_until_woken(struct slu_segment *segment)
{
	struct pollfd wake = {.fd = slu_segment_fd(segment), .events = POLLIN};

	return slu_segment_arm(segment) != 0 || poll(&wake, 1, WAKE_MS) == 1;
}

uint32_t target_take_notifications(struct slu_segment *segment, const uint8_t *memory, uint32_t n,
				   bool sleeps)
{
	struct slu_notification note;
	time_t until = time(NULL) + SERVE_SECONDS;
	uint32_t taken = 0, good = 0;

	while (taken < n && time(NULL) < until) {
		uint64_t at;

		if (slu_segment_poll(segment, &note, 1) == 0) {
			if (sleeps && !sleep_until_woken(segment))
				break;
			continue;
		}
		at = (uint64_t)note.tag * RIG_NOTIFY_STRIDE;
		taken++;
		good += at + RIG_NOTIFY_STRIDE <= RIG_SEGMENT_BYTES &&
			pattern_mismatch(memory + at, at, RIG_NOTIFY_STRIDE, note.tag) ==
				RIG_NOTIFY_STRIDE;
	}
	return good;
}

/* Of whom the last request was. */
static const char *_Atomic last_identity;

static bool answer_call(struct slu_segment *segment, enum rig_service service,
			const struct slu_message *message)
{
	static _Thread_local uint8_t answer[SLU_CALL_MAX];
	uint32_t length = message->length;
	int32_t status = 0;

	for (uint32_t i = 0; i < length; i++)
		answer[i] = rig_answer_byte(((const uint8_t *)message->data)[i]);
	if (service == RIG_LONGEST) {
		memset(answer, 0x77, SLU_MESSAGE_MAX);
		length = SLU_MESSAGE_MAX;
	}
	last_identity = message->identity;
	if (service == RIG_STATUS && length >= sizeof(status))
		memcpy(&status, message->data, sizeof(status));
	return slu_segment_answer(segment, message, status, answer, length) == 0;
}

/* The last first. */
static uint32_t answer_group(struct slu_segment *segment, enum rig_service service,
			     const struct slu_message *group, uint32_t n)
{
	uint32_t answered = 0;

	while (n-- > 0)
		answered += answer_call(segment, service, &group[n]);
	return answered;
}

/* Requests that are kept until there are @p want of them. @return how many came */
static uint32_t collect(struct slu_segment *segment, bool sleeps, struct slu_message *group,
			uint32_t want)
{
	time_t until = time(NULL) + SERVE_SECONDS;
	uint32_t n = 0;

	while (n < want && time(NULL) < until) {
		int got = slu_segment_receive(segment, group + n, want - n);

		n += (uint32_t)got;
		if (got == 0 && sleeps && !sleep_until_woken(segment))
			break;
	}
	return n;
}

/* Whatever comes, until nothing has come for a while. */
static uint32_t serve_leftovers(struct slu_segment *segment)
{
	struct slu_message message;
	uint32_t answered = 0;

	for (uint32_t quiet_us = 0; quiet_us < QUIET_US; quiet_us += 1000) {
		while (slu_segment_receive(segment, &message, 1) == 1) {
			answered += answer_call(segment, RIG_ECHO, &message);
			quiet_us = 0;
		}
		usleep(1000);
	}
	return answered;
}

/* ---- several threads ---- */

#define THREADS 4u

struct crew {
	struct slu_segment *segment;
	uint32_t wanted;
	_Atomic uint32_t answered;
	pthread_mutex_t lock;
	struct slu_message left; /* by one, for another to answer; id 0: none is */
};

/* Exchange what is left for @p message. */
static struct slu_message swap(struct crew *crew, const struct slu_message *message)
{
	struct slu_message left;

	pthread_mutex_lock(&crew->lock);
	left = crew->left;
	crew->left = *message;
	pthread_mutex_unlock(&crew->lock);
	return left;
}

static void *serve_in_crew(void *arg)
{
	const struct slu_message none = {.id = 0};
	time_t until = time(NULL) + SERVE_SECONDS;
	struct crew *crew = arg;

	while (atomic_load(&crew->answered) < crew->wanted && time(NULL) < until) {
		struct slu_message message;
		bool came = slu_segment_receive(crew->segment, &message, 1) == 1;
		struct slu_message left = swap(crew, came ? &message : &none);

		if (left.id)
			atomic_fetch_add(&crew->answered,
					 answer_call(crew->segment, RIG_ECHO, &left));
		if (!came && !left.id)
			usleep(10);
	}
	return NULL;
}

static uint32_t serve_by_threads(struct slu_segment *segment, uint32_t n)
{
	struct crew crew = {.segment = segment, .wanted = n, .lock = PTHREAD_MUTEX_INITIALIZER};
	pthread_t threads[THREADS];

	for (uint32_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, serve_in_crew, &crew))
			abort();
	for (uint32_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return atomic_load(&crew.answered);
}

/* ---- a service ---- */

static void on_requests(void *arg, struct slu_segment *segment, const struct slu_message *messages,
			uint32_t n)
{
	_Atomic uint32_t *answered = arg;

	for (uint32_t i = 0; i < n; i++)
		atomic_fetch_add(answered, answer_call(segment, RIG_ECHO, &messages[i]));
}

static uint32_t serve_in_turn(struct slu_segment *segment, uint32_t n)
{
	time_t until = time(NULL) + SERVE_SECONDS;
	_Atomic uint32_t answered = 0;
	const struct slu_service service = {
		.size = sizeof(service), .arg = &answered, .requests = on_requests};

	if (slu_segment_serve(segment, 0, &service) < 0)
		return 0;
	while (atomic_load(&answered) < n && time(NULL) < until)
		usleep(1000);
	slu_segment_unserve(segment);
	return atomic_load(&answered);
}

static uint32_t wait_for_departures(struct slu_segment *segment, uint32_t n)
{
	time_t until = time(NULL) + SERVE_SECONDS;
	struct slu_departure gone[8];
	uint32_t told = 0;

	do {
		int got = slu_segment_departures(segment, gone, 8);

		for (int i = 0; i < got; i++)
			told += gone[i].identity == last_identity && !gone[i].lost;
		usleep(1000);
	} while (told < n && time(NULL) < until);
	return n == 0 ? 0 : told;
}

uint32_t target_serve_calls(struct slu_segment *segment, enum rig_service service, uint32_t n)
{
	struct slu_message group[SLU_MESSAGES_MAX];
	uint32_t answered = 0;

	if (service == RIG_LEFTOVERS)
		return serve_leftovers(segment);
	if (service == RIG_THREADS)
		return serve_by_threads(segment, n);
	if (service == RIG_IN_TURN)
		return serve_in_turn(segment, n);
	while (answered < n) {
		uint32_t left = n - answered;
		uint32_t want = service == RIG_REVERSED ? GROUP : service == RIG_LATE ? left : 1;
		uint32_t got;

		want = want < left ? want : left;
		got = collect(segment, service == RIG_SLEEPING, group, want);
		if (service == RIG_LATE)
			usleep(LATE_US);
		answered += answer_group(segment, service, group, got);
		if (got < want)
			break;
	}
	return answered;
}

uint64_t target_answer(struct slu_segment *segment, uint8_t *memory,
		       const struct target_question *question)
{
	const uint64_t offset = question->offset, length = question->length;

	switch (question->what) {
	case TARGET_HOLDS:
		return pattern_mismatch(memory + offset, offset, length, question->generation) ==
		       length;
	case TARGET_IS_CLEAR:
		for (uint64_t i = 0; i < length; i++)
			if (memory[offset + i])
				return 0;
		return 1;
	case TARGET_CLEAR:
		memset(memory + offset, 0, length);
		return 1;
	case TARGET_NOTIFICATIONS:
		return target_take_notifications(segment, memory, (uint32_t)length,
						 question->generation);
	case TARGET_CALLS:
		return target_serve_calls(segment, (enum rig_service)offset, (uint32_t)length);
	case TARGET_LOSES:
		return rig_lose();
	case TARGET_DEPARTED:
		return wait_for_departures(segment, (uint32_t)length);
	case TARGET_LEAVE:
		return 1;
	}
	return 0;
}

static void nothing(struct poller *poller, void *arg)
{
	(void)poller;
	(void)arg;
}

/*
 * What our pollers have written into the segments was heard of from the initiator, and nothing in
 * this process comes between: so they are asked, that it be seen here, and what we write by them.
 */
static void meet_pollers(struct slu_engine *engine)
{
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		poller_call(engine->pollers[i], nothing, NULL);
}

static int serve(struct slu_engine *engine, struct slu_segment *segment, uint8_t *memory, int wire)
{
	struct target_question question;

	while (read(wire, &question, sizeof(question)) == sizeof(question)) {
		uint64_t answer;

		meet_pollers(engine);
		answer = target_answer(segment, memory, &question);
		meet_pollers(engine);
		if (write(wire, &answer, sizeof(answer)) != sizeof(answer))
			return 1;
		if (question.what == TARGET_LEAVE)
			return 0;
	}
	return 1;
}

/* @return the port that was chosen; 0: none, or not started */
static uint16_t start_engine(const struct rig *rig, struct slu_engine **engine)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	struct slu_engine_options options;
	const char *colon;

	slu_engine_options_init(&options, sizeof(options));
	if (rig->options.transport == SLU_TRANSPORT_TCP ||
	    rig->options.transport == SLU_TRANSPORT_VERBS)
		options.listen = "127.0.0.1:0";
	options.pollers = 1; /* for a service */
	rig_security(rig, &options);
	if (slu_engine_open(&options, engine) < 0 || slu_engine_get_info(*engine, &info) < 0)
		return 0;
	colon = info.listen ? strrchr(info.listen, ':') : NULL;
	return colon ? (uint16_t)atoi(colon + 1) : 0;
}

int target_main(const struct rig *rig, const char *prefix, int wire)
{
	struct slu_region *regions[RIG_SEGMENTS];
	struct slu_segment *segments[RIG_SEGMENTS];
	struct slu_engine *engine = NULL;
	uint64_t ready;
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ready = (uint64_t)start_engine(rig, &engine) << 1;
	if (engine && rig_export(engine, prefix, regions, segments) == 0)
		ready |= 1;
	if (write(wire, &ready, sizeof(ready)) != sizeof(ready) || !(ready & 1))
		return 1;
	rc = serve(engine, segments[0], slu_region_addr(regions[0]), wire);
	slu_engine_close(engine);
	return rc;
}
