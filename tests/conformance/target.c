/* SPDX-License-Identifier: Apache-2.0 */
/* The target process of the suite: exports its segments and answers questions about their bytes. */
#include "target.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "pattern.h"

#define NOTIFY_SECONDS 20

uint32_t target_take_notifications(struct slu_segment *segment, const uint8_t *memory, uint32_t n)
{
	struct slu_notification note;
	time_t until = time(NULL) + NOTIFY_SECONDS;
	uint32_t taken = 0, good = 0;

	while (taken < n && time(NULL) < until) {
		uint64_t at;

		if (slu_segment_poll(segment, &note, 1) == 0)
			continue;
		at = (uint64_t)note.tag * RIG_NOTIFY_STRIDE;
		taken++;
		good += at + RIG_NOTIFY_STRIDE <= RIG_SEGMENT_BYTES &&
			pattern_mismatch(memory + at, at, RIG_NOTIFY_STRIDE, note.tag) ==
				RIG_NOTIFY_STRIDE;
	}
	return good;
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
		return target_take_notifications(segment, memory, (uint32_t)length);
	case TARGET_LEAVE:
		return 1;
	}
	return 0;
}

static int serve(struct slu_segment *segment, uint8_t *memory, int wire)
{
	struct target_question question;

	while (read(wire, &question, sizeof(question)) == sizeof(question)) {
		uint64_t answer = target_answer(segment, memory, &question);

		if (write(wire, &answer, sizeof(answer)) != sizeof(answer))
			return 1;
		if (question.what == TARGET_LEAVE)
			return 0;
	}
	return 1;
}

int target_main(const char *prefix, int wire)
{
	struct slu_region *regions[2 + RIG_SMALL_COUNT];
	struct slu_segment *segments[2 + RIG_SMALL_COUNT];
	struct slu_engine *engine;
	uint64_t ready = 1;
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (slu_engine_open(NULL, &engine) < 0 || rig_export(engine, prefix, regions, segments) < 0)
		ready = 0;
	if (write(wire, &ready, sizeof(ready)) != sizeof(ready) || !ready)
		return 1;
	rc = serve(segments[0], slu_region_addr(regions[0]), wire);
	slu_engine_close(engine);
	return rc;
}
