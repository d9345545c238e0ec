/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A short READ, one at a time, and other operations that are under way on the same poller.
 *
 * One thread at a time; the calls that open and close belong to the main thread.
 */
#ifndef PERF_MIX_H
#define PERF_MIX_H

#include <sluice/sluice.h>

#include "base/random.h"
#include "cursor.h"
#include "rig.h"

#define MIX_READ_BYTES 64

/** The others. */
struct mix_options {
	int32_t poller; /* as in slu_queue_options; inline, one queue has all */
	enum slu_opcode opcode;
	uint64_t length;
	uint32_t depth; /* that many are kept under way */
};

struct mix {
	const struct bench *bench;
	struct mix_options options;
	struct slu_queue *reads, *others;
	struct slu_op read, other, timed;
	struct cursor cursor; /* of the others: half of the memory */
	uint32_t kept;        /* under way: the depth, or none */
	uint32_t under_way;
	uint64_t moved; /* bytes of the others that are over */
	double lull_ns; /* most that comes before a READ beside others; 0 unless it is set */
	struct random random;
	bool back; /* what is timed is */
};

/**
 * Open the queues, and see that both kinds really move bytes; dies if not.
 *
 * @param reads   the two ends of the READ
 * @param others  of the others; may be the same
 */
void mix_open(struct mix *mix, const struct rig *rig, const struct rig_pair *reads,
	      const struct rig_pair *others, const struct mix_options *options);

void mix_close(struct mix *mix);

/** From now on the others are kept under way: whenever the calls below look. */
void mix_fill(struct mix *mix);

/** Until they are over; no further ones. */
void mix_drain(struct mix *mix);

/** What @p fraction of the READs do not exceed, over one slice. @return nanoseconds */
double mix_read_ns(struct mix *mix, uint64_t slice_ns, double fraction);

/** The same for one of the others, but of @p length and alone; none is kept under way. */
double mix_other_ns(struct mix *mix, uint64_t length, uint64_t slice_ns, double fraction);

/** Lane's step and finish, of the others alone. @return bytes */
uint64_t mix_step(void *arg);
void mix_finish(void *arg);

#endif
