/* SPDX-License-Identifier: Apache-2.0 */
#include "mix.h"

#include <string.h>

#include "samples.h"

#define REAPED_MAX 64
#define SEED       1

/* In user_data. */
enum {
	TIMED,
	OTHER,
};

static void reap(struct mix *mix, struct slu_queue *queue)
{
	struct slu_completion done[REAPED_MAX];
	int n = slu_reap(queue, done, REAPED_MAX);

	for (int i = 0; i < n; i++) {
		if (done[i].status != 0)
			die("an operation failed: %s", slu_strerror(done[i].status));
		if (done[i].user_data == TIMED) {
			mix->back = true;
			continue;
		}
		mix->under_way--;
		mix->moved += mix->other.length;
	}
}

static void reap_both(struct mix *mix)
{
	reap(mix, mix->reads);
	if (mix->others != mix->reads)
		reap(mix, mix->others);
}

static void submit(struct slu_queue *queue, const struct slu_op *op)
{
	int n = slu_submit(queue, op, 1);

	if (n != 1)
		die("slu_submit: %s", n < 0 ? slu_strerror(n) : "the queue is full");
}

static void go_on(struct mix *mix, struct slu_op *op)
{
	op->remote_offset = op->local_offset = cursor_next(&mix->cursor);
}

static void top_up(struct mix *mix)
{
	for (; mix->under_way < mix->kept; mix->under_way++) {
		go_on(mix, &mix->other);
		submit(mix->others, &mix->other);
	}
}

static void time_once(struct mix *mix)
{
	mix->back = false;
	submit(mix->reads, &mix->timed);
	while (!mix->back)
		reap_both(mix);
	top_up(mix);
}

/* READs come at any moment: else each would begin where the last one ended, at that of a slice. */
static void lull(void *arg)
{
	struct mix *mix = arg;
	double most = mix->kept > 0 ? mix->lull_ns / tick_ns() : 0;
	uint64_t end = most < 1 ? 0 : ticks() + random_below(&mix->random, (uint64_t)most);

	while (ticks() < end) {
		reap_both(mix);
		top_up(mix);
	}
}

static void read_once(void *arg)
{
	time_once(arg);
}

static void other_once(void *arg)
{
	struct mix *mix = arg;

	go_on(mix, &mix->timed);
	time_once(mix);
}

void mix_fill(struct mix *mix)
{
	mix->kept = mix->options.depth;
	top_up(mix);
}

void mix_drain(struct mix *mix)
{
	mix->kept = 0;
	while (mix->under_way > 0)
		reap_both(mix);
}

double mix_read_ns(struct mix *mix, uint64_t slice_ns, double fraction)
{
	mix->timed = mix->read;
	return samples_percentile_ns(slice_ns, 1, fraction, lull, read_once, mix);
}

double mix_other_ns(struct mix *mix, uint64_t length, uint64_t slice_ns, double fraction)
{
	mix->timed = mix->other;
	mix->timed.user_data = TIMED;
	mix->timed.length = length;
	return samples_percentile_ns(slice_ns, 1, fraction, NULL, other_once, mix);
}

uint64_t mix_step(void *arg)
{
	struct mix *mix = arg;
	uint64_t moved = mix->moved;

	mix->kept = mix->options.depth;
	top_up(mix);
	reap_both(mix);
	return mix->moved - moved;
}

void mix_finish(void *arg)
{
	mix_drain(arg);
}

/* Both ends were unlike before. */
static void verify(struct mix *mix, const struct rig_pair *reads, const struct rig_pair *others)
{
	uint64_t offset = mix->read.local_offset;
	uint64_t pieces =
		mix->cursor.count < mix->options.depth ? mix->cursor.count : mix->options.depth;

	mix->timed = mix->read;
	time_once(mix);
	mix_fill(mix);
	mix_drain(mix);
	if (memcmp(reads->local + offset, reads->mapped + offset, MIX_READ_BYTES) != 0 ||
	    memcmp(others->local, others->mapped, pieces * mix->cursor.size) != 0)
		die("wrong bytes");
}

void mix_open(struct mix *mix, const struct rig *rig, const struct rig_pair *reads,
	      const struct rig_pair *others, const struct mix_options *options)
{
	uint64_t half = reads->length / 2;
	bool is_inline = options->poller == SLU_POLLER_INLINE;

	*mix = (struct mix){.bench = rig->bench, .options = *options, .random = {.state = SEED}};
	mix->others = rig_queue(rig, options->poller, options->depth + 1);
	mix->reads = is_inline ? mix->others : rig_queue(rig, options->poller, 1);
	mix->read = (struct slu_op){.user_data = TIMED,
				    .opcode = SLU_READ,
				    .remote = reads->remote,
				    .remote_offset = half,
				    .region = reads->region,
				    .local_offset = half,
				    .length = MIX_READ_BYTES};
	mix->other = (struct slu_op){.user_data = OTHER,
				     .opcode = (uint8_t)options->opcode,
				     .remote = others->remote,
				     .region = others->region,
				     .length = options->length};
	mix->cursor = (struct cursor){.size = options->length,
				      .count = others->length / 2 / options->length};
	verify(mix, reads, others);
}

void mix_close(struct mix *mix)
{
	if (mix->others != mix->reads)
		slu_queue_close(mix->others);
	slu_queue_close(mix->reads);
}
