/* SPDX-License-Identifier: Apache-2.0 */
/** @file Questions to the suite's target, which is a process or part of this one. */
#ifndef CONFORMANCE_TARGET_H
#define CONFORMANCE_TARGET_H

#include "rig.h"

enum target_what {
	TARGET_HOLDS,
	TARGET_IS_CLEAR,
	TARGET_CLEAR,
	TARGET_NOTIFICATIONS, /* length of them; generation: sleep in between */
	TARGET_CALLS,         /* length of them; offset: enum rig_service */
	TARGET_LOSES,
	TARGET_DEPARTED,      /* length of clients */
	TARGET_LEAVE,
};

struct target_question {
	enum target_what what;
	uint64_t offset;
	uint64_t length;
	uint64_t generation;
};

/** Body of the target process: serve until it is told to leave. @return exit status */
int target_main(const struct rig *rig, const char *prefix, int wire);

/** Answer one question about the big segment, whose bytes are at @p memory. */
uint64_t target_answer(struct slu_segment *segment, uint8_t *memory,
		       const struct target_question *question);

/**
 * Take @p n notifications.
 *
 * @param sleeps  sleep until they come; a wake-up that does not come ends it
 * @return        those whose data was there when they came
 */
uint32_t target_take_notifications(struct slu_segment *segment, const uint8_t *memory, uint32_t n,
				   bool sleeps);

/** Serve @p n calls. @return those answered */
uint32_t target_serve_calls(struct slu_segment *segment, enum rig_service service, uint32_t n);

#endif
