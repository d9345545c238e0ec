/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every transport must do, over every transport, behind a poller and inline. A column is a
 * struct rig_options; a test asks for capabilities, never for a transport's name, except where a
 * target process of its own is needed to be killed.
 */
#include <errno.h>
#include <linux/memfd.h>
#include <signal.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/engine_internal.h"
#include "transport/verbs/verbs_host.h"

#include "../tap.h"
#include "cases.h"
#include "pattern.h"
#include "tests/calls.h"

struct rig rig;

static struct slu_op op_of(enum slu_opcode opcode, uint64_t remote_offset, uint64_t local_offset,
			   uint64_t length)
{
	return (struct slu_op){.remote = rig.remote,
			       .region = rig.region,
			       .remote_offset = remote_offset,
			       .local_offset = local_offset,
			       .length = length,
			       .opcode = (uint8_t)opcode,
			       .user_data = 0x1234};
}

static uint8_t *local(uint64_t offset)
{
	return (uint8_t *)slu_region_addr(rig.region) + offset;
}

/* ---- data ---- */

#define GUARD 64u

/* WRITE, see it at the target and nothing beside it; clear; READ, see it here and nothing beside.
 */
static void round_trip(uint64_t remote_offset, uint64_t local_offset, uint64_t length,
		       uint64_t generation)
{
	struct slu_op write = op_of(SLU_WRITE, remote_offset, local_offset, length);
	struct slu_op read = op_of(SLU_READ, remote_offset, local_offset, length);

	rig_target_clear(&rig, remote_offset - GUARD, length + 2 * GUARD);
	memset(local(local_offset - GUARD), 0, length + 2 * GUARD);
	pattern_fill(local(local_offset), remote_offset, length, generation);
	assert_int_equal(rig_run_one(&rig, &write), 0);
	assert_true(rig_target_holds(&rig, remote_offset, length, generation));
	assert_true(rig_target_is_clear(&rig, remote_offset - GUARD, GUARD));
	assert_true(rig_target_is_clear(&rig, remote_offset + length, GUARD));
	memset(local(local_offset - GUARD), 0, length + 2 * GUARD);
	assert_int_equal(rig_run_one(&rig, &read), 0);
	assert_int_equal(pattern_mismatch(local(local_offset), remote_offset, length, generation),
			 length);
	for (uint32_t i = 0; i < GUARD; i++) {
		assert_int_equal(*local(local_offset - GUARD + i), 0);
		assert_int_equal(*local(local_offset + length + i), 0);
	}
}

/* Goal: every length from 0 to 300 bytes arrives whole and alone. */
static void moves_every_small_length(void **state)
{
	(void)state;
	for (uint64_t length = 0; length <= 300; length++)
		round_trip(4096 + length % 64, 8192 + length * 7 % 64, length, length + 1);
}

/* Goal: lengths around each power of two up to 64 MiB arrive, whatever is cut there. */
static void moves_lengths_around_boundaries(void **state)
{
	(void)state;
	for (uint64_t power = 512; power <= UINT64_C(64) << 20; power *= 2)
		for (int64_t d = -1; d <= 1; d++)
			round_trip(4096, 4096, power + (uint64_t)d, power + (uint64_t)(d + 1));
}

/* Goal: neither end needs to be aligned. */
static void moves_unaligned(void **state)
{
	(void)state;
	for (uint64_t from = 0; from < 67; from += 3)
		for (uint64_t to = 0; to < 67; to += 11)
			round_trip(4096 + to, 4096 + from, 5000 + from * to, from * 100 + to);
}

/* Goal: the first and the last byte of a segment can be reached. */
static void reaches_both_ends(void **state)
{
	struct slu_op first = op_of(SLU_WRITE, 0, 0, 3);
	struct slu_op last = op_of(SLU_WRITE, RIG_SEGMENT_BYTES - 3, 0, 3);

	(void)state;
	pattern_fill(local(0), 0, 3, 5);
	assert_int_equal(rig_run_one(&rig, &first), 0);
	assert_true(rig_target_holds(&rig, 0, 3, 5));
	pattern_fill(local(0), RIG_SEGMENT_BYTES - 3, 3, 5);
	assert_int_equal(rig_run_one(&rig, &last), 0);
	assert_true(rig_target_holds(&rig, RIG_SEGMENT_BYTES - 3, 3, 5));
}

#define MANY 2000u

/* Goal: of a large mixed batch each operation completes once, and all bytes are right. */
static void completes_each_once(void **state)
{
	static struct slu_op ops[MANY];
	static struct slu_completion done[MANY];
	static uint8_t seen[MANY];
	const uint64_t block = 1000;

	(void)state;
	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 0; i < MANY; i++) {
		ops[i] = op_of(SLU_WRITE, i * block, i * block, i % 10 == 0 ? 0 : block - i % 7);
		ops[i].user_data = i;
		pattern_fill(local(i * block), i * block, block, 77);
	}
	rig_run(&rig, ops, MANY, done);
	for (uint32_t i = 0; i < MANY; i++) {
		assert_int_equal(done[i].status, 0);
		assert_int_equal(done[i].transport, rig.options.transport);
		assert_true(done[i].user_data < MANY);
		assert_int_equal(seen[done[i].user_data]++, 0);
	}
	for (uint32_t i = 0; i < MANY; i += 97)
		assert_true(rig_target_holds(&rig, i * block, ops[i].length, 77));
}

/* Goal: long operations are cut up, short ones between them neither wait for ever nor get lost. */
static void mixes_long_and_short(void **state)
{
	struct slu_op ops[12];
	struct slu_completion done[12];
	uint64_t at = 0;

	(void)state;
	for (uint32_t i = 0; i < 12; i++) {
		uint64_t length = i % 3 == 0 ? (UINT64_C(5) << 20) + i : 100 + i;

		ops[i] = op_of(SLU_WRITE, at, at, length);
		pattern_fill(local(at), at, length, 31);
		at += length;
	}
	rig_run(&rig, ops, 12, done);
	for (uint32_t i = 0; i < 12; i++)
		assert_int_equal(done[i].status, 0);
	assert_true(rig_target_holds(&rig, 0, at, 31));
}

/* More than a path has under way at once; an emulated device needs a fraction of a second for it,
 * and after a whole one slu_queue_close() gives up. */
#define CLOSING_OPS    100u
#define CLOSING_LENGTH (UINT64_C(128) << 10)

/* Goal: closing a queue finishes all that it accepted. */
static void closing_finishes_what_was_accepted(void **state)
{
	struct slu_queue *queue;
	struct slu_op ops[CLOSING_OPS];
	uint32_t accepted = 0;

	(void)state;
	rig_target_clear(&rig, 0, CLOSING_OPS * CLOSING_LENGTH);
	pattern_fill(local(0), 0, CLOSING_OPS * CLOSING_LENGTH, 12);
	for (uint32_t i = 0; i < CLOSING_OPS; i++)
		ops[i] = op_of(SLU_WRITE, i * CLOSING_LENGTH, i * CLOSING_LENGTH, CLOSING_LENGTH);
	assert_int_equal(slu_queue_open(rig.engine, NULL, &queue), 0);
	while (accepted < CLOSING_OPS)
		accepted += (uint32_t)submit_any(queue, ops + accepted, CLOSING_OPS - accepted);
	slu_queue_close(queue);
	assert_true(rig_target_holds(&rig, 0, CLOSING_OPS * CLOSING_LENGTH, 12));
}

/* ---- limits and rights ---- */

/* Goal: an operation outside region or segment is refused, and nothing of it is done. */
static void refuses_out_of_bounds(void **state)
{
	const uint64_t end = RIG_SEGMENT_BYTES;
	struct slu_op ops[] = {
		op_of(SLU_WRITE, end - 7, 0, 8),       op_of(SLU_READ, end - 7, 0, 8),
		op_of(SLU_WRITE, end, 0, 1),           op_of(SLU_WRITE, 0, end - 7, 8),
		op_of(SLU_READ, UINT64_MAX - 3, 0, 8), op_of(SLU_READ, 0, UINT64_MAX - 3, 8),
		op_of(SLU_READ, 0, 0, end + 1),
	};

	(void)state;
	rig_target_clear(&rig, end - 64, 64);
	memset(local(0), 0xff, 64);
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		assert_int_equal(submit_any(rig.queue, &ops[i], 1), -ERANGE);
	assert_true(rig_target_is_clear(&rig, end - 64, 64));
}

/* Goal: malformed operations are told apart, and the good ones before them are taken. */
static void refuses_malformed(void **state)
{
	struct slu_op ops[3] = {op_of(SLU_READ, 0, 0, 8), op_of(SLU_READ, 8, 8, 8),
				op_of(SLU_READ, 16, 16, 8)};
	struct slu_completion done[3];

	(void)state;
	ops[2].opcode = 17;
	assert_int_equal(submit_any(rig.queue, ops, 3), 2);
	assert_int_equal(submit_any(rig.queue, &ops[2], 1), -EINVAL);
	assert_int_equal(slu_wait(rig.queue, 2, 5000000), 2);
	assert_int_equal(slu_reap(rig.queue, done, 3), 2);
	ops[2] = op_of(SLU_READ, 0, 0, 8);
	ops[2].timeout_us = SLU_TIMEOUT_MAX_US + 1;
	assert_int_equal(submit_any(rig.queue, &ops[2], 1), -EINVAL);
	ops[2] = op_of(SLU_READ, 0, 0, 8);
	ops[2].region = NULL;
	assert_int_equal(submit_any(rig.queue, &ops[2], 1), -EINVAL);
	assert_int_equal(submit_any(rig.queue, ops, 0), 0);
}

/* Goal: a read-only segment can be read, never written, and says so at the earliest point. */
static void honours_read_only(void **state)
{
	struct slu_remote *remote = NULL;
	struct slu_op op;

	(void)state;
	assert_int_equal(rig_remote(&rig, "ro", SLU_RIGHT_READ | SLU_RIGHT_WRITE, &remote),
			 -EACCES);
	assert_null(remote);
	assert_int_equal(rig_remote(&rig, "ro", SLU_RIGHT_READ, &remote), 0);
	op = op_of(SLU_WRITE, 0, 0, 8);
	op.remote = remote;
	assert_int_equal(submit_any(rig.queue, &op, 1), -EACCES);
	op.opcode = SLU_WRITE_NOTIFY;
	assert_int_equal(submit_any(rig.queue, &op, 1), -EACCES);
	op.opcode = SLU_READ;
	op.length = RIG_SMALL_BYTES;
	assert_int_equal(rig_run_one(&rig, &op), 0);
	assert_int_equal(pattern_mismatch(local(0), 0, RIG_SMALL_BYTES, 9), RIG_SMALL_BYTES);
	slu_remote_close(remote);
}

/* Goal: a full queue takes fewer, loses none, and takes more once it has been reaped. */
static void takes_fewer_when_full(void **state)
{
	static struct slu_op ops[4096];
	static struct slu_completion done[4096];
	struct slu_queue_info info = {.size = sizeof(info)};
	uint32_t depth;

	(void)state;
	assert_int_equal(slu_queue_get_info(rig.queue, &info), 0);
	depth = info.depth;
	assert_true(depth < 4096);
	for (uint32_t i = 0; i < 4096; i++)
		ops[i] = op_of(SLU_READ, i * 8, i * 8, 8);
	assert_int_equal(submit_any(rig.queue, ops, 4096), depth);
	assert_int_equal(submit_any(rig.queue, ops, 1), 0);
	assert_int_equal(slu_wait(rig.queue, depth, 10000000), depth);
	assert_int_equal(slu_reap(rig.queue, done, 4096), depth);
	assert_int_equal(rig_run_one(&rig, &ops[0]), 0);
	assert_int_equal(slu_queue_get_info(rig.queue, &info), 0);
	assert_int_equal(info.outstanding, 0);
	assert_true(info.full >= 2);
}

/* Goal: operations on many remotes, in one batch, each reach their own. */
static void serves_many_remotes(void **state)
{
	struct slu_remote *remotes[RIG_SMALL_COUNT];
	struct slu_op ops[RIG_SMALL_COUNT * 4];
	struct slu_completion done[RIG_SMALL_COUNT * 4];
	uint32_t n = 0;

	(void)state;
	for (uint32_t i = 0; i < RIG_SMALL_COUNT; i++) {
		char suffix[8];

		snprintf(suffix, sizeof(suffix), "s%u", i);
		assert_int_equal(rig_remote(&rig, suffix, 3, &remotes[i]), 0);
		pattern_fill(local(i * 1024), i * 1024, 1024, i);
	}
	for (uint32_t k = 0; k < 4; k++)
		for (uint32_t i = 0; i < RIG_SMALL_COUNT; i++, n++) {
			ops[n] = op_of(SLU_WRITE, k * 256, i * 1024 + k * 256, 256);
			ops[n].remote = remotes[i];
		}
	rig_run(&rig, ops, n, done);
	memset(local(0), 0, RIG_SMALL_COUNT * 1024);
	for (uint32_t i = 0; i < RIG_SMALL_COUNT; i++) {
		ops[i] = op_of(SLU_READ, 0, i * 1024, 1024);
		ops[i].remote = remotes[i];
	}
	rig_run(&rig, ops, RIG_SMALL_COUNT, done);
	assert_int_equal(pattern_mismatch(local(5 * 1024), 5 * 1024, 1024, 5), 1024);
	for (uint32_t i = 0; i < RIG_SMALL_COUNT; i++) {
		assert_int_equal(pattern_mismatch(local(i * 1024), i * 1024, 1024, i), 1024);
		slu_remote_close(remotes[i]);
	}
}

/* ---- parts of memory, and memory of any kind ---- */

static struct slu_op op_on(struct slu_remote *remote, enum slu_opcode opcode, uint64_t at,
			   uint64_t length)
{
	struct slu_op op = op_of(opcode, at, 0, length);

	op.remote = remote;
	return op;
}

/* WRITE all of the part and READ it again: at the target it is there, and nothing beside it. */
static void fill_part(struct slu_remote *remote, const struct rig_part *part)
{
	struct slu_op write = op_on(remote, SLU_WRITE, 0, part->length);
	struct slu_op read = op_on(remote, SLU_READ, 0, part->length);

	rig_target_clear(&rig, part->offset - GUARD, part->length + 2 * GUARD);
	pattern_fill(local(0), part->offset, part->length, 21);
	assert_int_equal(rig_run_one(&rig, &write), 0);
	assert_true(rig_target_holds(&rig, part->offset, part->length, 21));
	assert_true(rig_target_is_clear(&rig, part->offset - GUARD, GUARD));
	assert_true(rig_target_is_clear(&rig, part->offset + part->length, GUARD));
	memset(local(0), 0, part->length);
	assert_int_equal(rig_run_one(&rig, &read), 0);
	assert_int_equal(pattern_mismatch(local(0), part->offset, part->length, 21), part->length);
}

static void refuse_beyond(struct slu_remote *remote, const struct rig_part *part)
{
	struct slu_op ops[] = {
		op_on(remote, SLU_READ, part->length - 7, 8),
		op_on(remote, SLU_READ, part->length, 1),
		op_on(remote, SLU_READ, 0, part->length + 1),
		op_on(remote, SLU_READ, 0 - part->offset, 8),
	};

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		assert_int_equal(slu_submit(rig.queue, &ops[i], 1), -ERANGE);
}

/* What cannot be in shared memory is refused there, with the reason. */
static bool is_refused(const struct rig_part *part)
{
	struct slu_remote *remote = NULL;

	if (!part->not_shared || rig.options.transport != SLU_TRANSPORT_SHM)
		return false;
	assert_int_equal(rig_remote(&rig, part->suffix, part->rights, &remote), -EOPNOTSUPP);
	assert_null(remote);
	assert_non_null(strstr(slu_last_error(), part->not_shared));
	return true;
}

/* Goal: of a part of a region, or of registered memory, that part is reached, with offsets of its
 * own, and not a byte beyond it; or the transport says why it cannot. */
static void reaches_its_part_only(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < RIG_PARTS; i++) {
		const struct rig_part *part = &rig_parts[i];
		struct slu_remote *remote;

		if (!(part->rights & SLU_RIGHT_WRITE) || is_refused(part))
			continue;
		assert_int_equal(rig_remote(&rig, part->suffix, part->rights, &remote), 0);
		assert_int_equal(slu_remote_length(remote), part->length);
		fill_part(remote, part);
		refuse_beyond(remote, part);
		slu_remote_close(remote);
	}
}

/* Goal: of parts that overlap each has its own rights; what is written by one is read by the other.
 */
static void parts_have_their_own_rights(void **state)
{
	const struct rig_part *part = &rig_parts[0], *other = &rig_parts[1];
	uint64_t shift = other->offset - part->offset, shared = part->length - shift;
	struct slu_remote *remote, *reader = NULL;
	struct slu_op op;

	(void)state;
	assert_int_equal(rig_remote(&rig, other->suffix, 3, &reader), -EACCES);
	assert_null(reader);
	assert_int_equal(rig_remote(&rig, part->suffix, 3, &remote), 0);
	assert_int_equal(rig_remote(&rig, other->suffix, SLU_RIGHT_READ, &reader), 0);
	fill_part(remote, part);
	memset(local(0), 0, other->length);
	op = op_on(reader, SLU_READ, 0, shared);
	assert_int_equal(rig_run_one(&rig, &op), 0);
	assert_int_equal(pattern_mismatch(local(0), other->offset, shared, 21), shared);
	op.opcode = SLU_WRITE;
	assert_int_equal(slu_submit(rig.queue, &op, 1), -EACCES);
	slu_remote_close(reader);
	slu_remote_close(remote);
}

/* Goal: where a way is left, auto takes it, and says why it was not shared memory. */
static void goes_another_way(void **state)
{
	enum slu_transport column = rig.options.transport;

	(void)state;
	if (!rig.port)
		skip_because("the target has no other way");
	for (uint32_t i = 0; i < RIG_PARTS; i++) {
		const struct rig_part *part = &rig_parts[i];
		struct slu_candidate candidates[SLU_CANDIDATES_MAX];
		struct slu_remote *remote;

		rig.options.transport = SLU_TRANSPORT_AUTO;
		assert_int_equal(rig_remote(&rig, part->suffix, part->rights, &remote), 0);
		rig.options.transport = column;
		assert_true(slu_remote_get_candidates(remote, candidates, SLU_CANDIDATES_MAX) > 0);
		assert_int_equal(candidates[0].transport, SLU_TRANSPORT_SHM);
		assert_int_equal(candidates[0].chosen, !part->not_shared);
		assert_int_equal(candidates[0].usable, !part->not_shared);
		assert_int_equal(candidates[0].memories, 1u << SLU_MEMORY_HOST);
		if (part->not_shared)
			assert_non_null(strstr(candidates[0].reason, part->not_shared));
		if (part->rights & SLU_RIGHT_WRITE)
			fill_part(remote, part);
		slu_remote_close(remote);
	}
}

static uint32_t fill_import(struct slu_remote *remote)
{
	struct slu_op op = op_on(remote, SLU_WRITE, 0, RIG_IMPORT_BYTES);

	pattern_fill(local(0), 0, RIG_IMPORT_BYTES, 33);
	return (uint32_t)rig_run_one(&rig, &op);
}

/* Goal: memory that was imported by its descriptor is written and read as any; a part of its file
 * that was imported again is the same memory, with rights of its own. */
static void serves_imported_memory(void **state)
{
	struct slu_remote *remote, *part = NULL;
	struct slu_op op;

	(void)state;
	assert_int_equal(rig_remote(&rig, "imported-part", 3, &part), -EACCES);
	assert_int_equal(rig_remote(&rig, "imported", 3, &remote), 0);
	assert_int_equal(rig_remote(&rig, "imported-part", SLU_RIGHT_READ, &part), 0);
	assert_int_equal(slu_remote_length(remote), RIG_IMPORT_BYTES);
	assert_int_equal(slu_remote_length(part), RIG_PART_BYTES);
	assert_int_equal(fill_import(remote), 0);
	memset(local(0), 0, RIG_IMPORT_BYTES);
	op = op_on(part, SLU_READ, 0, RIG_PART_BYTES);
	assert_int_equal(rig_run_one(&rig, &op), 0);
	assert_int_equal(pattern_mismatch(local(0), RIG_PART_OFFSET, RIG_PART_BYTES, 33),
			 RIG_PART_BYTES);
	op.length++;
	assert_int_equal(slu_submit(rig.queue, &op, 1), -ERANGE);
	op = op_on(remote, SLU_READ, RIG_IMPORT_BYTES - 1, 1);
	assert_int_equal(rig_run_one(&rig, &op), 0);
	slu_remote_close(part);
	slu_remote_close(remote);
}

/* Goal: any pointer can be read into and written from by way of a cache, and unmapped when the
 * cache says that it may be. */
static void moves_by_cached_pointers(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 4096, 0, 30000);
	struct slu_cache *cache;

	(void)state;
	assert_int_equal(slu_cache_open(rig.engine, NULL, &cache), 0);
	for (uint32_t i = 1; i <= 3; i++) {
		char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		assert_ptr_not_equal(memory, MAP_FAILED);
		pattern_fill(memory + 100, 4096, op.length, i);
		op.opcode = SLU_WRITE;
		assert_int_equal(
			slu_cache_get(cache, memory + 100, op.length, &op.region, &op.local_offset),
			0);
		assert_int_equal(rig_run_one(&rig, &op), 0);
		assert_true(rig_target_holds(&rig, 4096, op.length, i));
		assert_int_equal(slu_cache_invalidate(cache, memory, 65536), -EBUSY);
		memset(memory, 0, 65536);
		op.opcode = SLU_READ;
		assert_int_equal(rig_run_one(&rig, &op), 0);
		assert_int_equal(pattern_mismatch(memory + 100, 4096, op.length, i), op.length);
		slu_cache_put(cache, op.region);
		assert_int_equal(slu_cache_invalidate(cache, memory, 65536), 0);
		munmap(memory, 65536);
	}
	slu_cache_close(cache);
}

/* A device keeps the pages that it has registered, whatever becomes of their file. */
static bool pins_memory(void)
{
	return rig.options.transport == SLU_TRANSPORT_VERBS;
}

/* The library's handler: cmocka puts another in its place for each test. */
static struct sigaction on_loss;

static struct slu_region *import_here(int *fd)
{
	struct slu_region *region;

	*fd = memfd_create("lost", MFD_CLOEXEC);
	assert_int_equal(ftruncate(*fd, RIG_SMALL_BYTES), 0);
	assert_int_equal(slu_region_import(rig.engine, *fd, 0, 0, NULL, &region), 0);
	return region;
}

/* Not within a test. */
static void learn_handler(void)
{
	int fd;

	slu_region_close(import_here(&fd));
	close(fd);
	sigaction(SIGBUS, NULL, &on_loss);
}

/* An operation whose memory is lost, between two others, which go on. */
static void lose_one(struct slu_op lost)
{
	struct slu_op ops[] = {op_of(SLU_WRITE, 8192, 0, 40000), lost,
			       op_of(SLU_WRITE, 65536, 0, 40000)};
	struct slu_completion done[3];

	ops[0].user_data = ops[2].user_data = 7;
	ops[1].user_data = 8;
	rig_run(&rig, ops, 3, done);
	for (uint32_t i = 0; i < 3; i++) {
		bool is_lost = done[i].user_data == 8 && !pins_memory();

		if (done[i].user_data != 8 || is_lost)
			assert_int_equal(done[i].status, is_lost ? -EFAULT : 0);
	}
}

/* Goal: a region here whose pages are taken away fails the operations on it and no others. */
static void survives_lost_regions(void **state)
{
	static const enum slu_opcode opcodes[] = {SLU_WRITE, SLU_READ};
	static const uint64_t lengths[] = {8, 40000};

	(void)state;
	sigaction(SIGBUS, &on_loss, NULL);
	for (uint32_t i = 0; i < 4; i++) {
		struct slu_op op = op_of(opcodes[i & 1], 0, 0, lengths[i / 2]);
		struct slu_region_info info = {.size = sizeof(info)};
		int fd;

		op.region = import_here(&fd);
		assert_int_equal(rig_run_one(&rig, &op), 0);
		assert_int_equal(ftruncate(fd, 0), 0);
		lose_one(op);
		assert_int_equal(slu_region_get_info(op.region, &info), 0);
		assert_true(info.lost || pins_memory());
		slu_region_close(op.region);
		close(fd);
	}
}

/* Goal: a file that cannot be sealed is not shared, and why; elsewhere, when it is shrunk, its
 * segment is lost, and no other. */
static void survives_lost_segments(void **state)
{
	struct slu_remote *remote = NULL;
	struct slu_op op;
	int rc = rig_remote(&rig, "lost", 3, &remote);

	(void)state;
	sigaction(SIGBUS, &on_loss, NULL);
	if (rig.options.transport == SLU_TRANSPORT_SHM) {
		assert_int_equal(rc, -EOPNOTSUPP);
		assert_non_null(strstr(slu_last_error(), "MFD_ALLOW_SEALING"));
		return;
	}
	assert_int_equal(rc, 0);
	op = op_on(remote, SLU_READ, 0, RIG_SMALL_BYTES);
	assert_int_equal(rig_run_one(&rig, &op), 0);
	rig_target_loses(&rig);
	lose_one(op);
	slu_remote_close(remote);
	op = op_of(SLU_READ, 0, 0, 4096);
	assert_int_equal(rig_run_one(&rig, &op), 0);
}

/* ---- notifications ---- */

#define NOTES 20000u

/* Goal: when a notification arrives its data has arrived, through many laps of any ring. */
static void notifies_after_data(void **state)
{
	static struct slu_op ops[NOTES];
	static struct slu_completion done[NOTES];
	uint32_t n = rig.options.transport == SLU_TRANSPORT_FAKE ? SLU_NOTIFICATIONS_MAX : NOTES;

	(void)state;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)i * RIG_NOTIFY_STRIDE;

		pattern_fill(local(at), at, RIG_NOTIFY_STRIDE, i);
		ops[i] = op_of(SLU_WRITE_NOTIFY, at, at, RIG_NOTIFY_STRIDE);
		ops[i].tag = i;
	}
	rig_expect_notifications(&rig, n);
	rig_run(&rig, ops, n, done);
	assert_int_equal(rig_notified(&rig), n);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(done[i].status, 0);
}

/* Goal: a long WRITE that is cut up notifies once, after its last byte. */
static void notifies_once_after_long_data(void **state)
{
	const uint64_t length = (UINT64_C(3) << 20) + 5;
	struct slu_op op = op_of(SLU_WRITE_NOTIFY, 0, 0, length);

	(void)state;
	pattern_fill(local(0), 0, RIG_NOTIFY_STRIDE, 0);
	pattern_fill(local(RIG_NOTIFY_STRIDE), RIG_NOTIFY_STRIDE, length - RIG_NOTIFY_STRIDE, 8);
	op.tag = 0;
	rig_expect_notifications(&rig, 1);
	assert_int_equal(rig_run_one(&rig, &op), 0);
	assert_int_equal(rig_notified(&rig), 1);
	assert_true(rig_target_holds(&rig, RIG_NOTIFY_STRIDE, length - RIG_NOTIFY_STRIDE, 8));
}

/* Goal: a target that takes no notifications holds its senders back until their deadline, no more.
 */
static void holds_back_unread_notifications(void **state)
{
	struct slu_op op = op_of(SLU_WRITE_NOTIFY, 0, 0, RIG_NOTIFY_STRIDE);
	struct slu_op plain = op_of(SLU_WRITE, 4096, 0, 8);
	int status = 0;

	(void)state;
	pattern_fill(local(0), 0, RIG_NOTIFY_STRIDE, 0);
	for (uint32_t i = 0; i < SLU_NOTIFICATIONS_MAX; i++)
		assert_int_equal(rig_run_one(&rig, &op), 0);
	op.timeout_us = 50000;
	status = rig_run_one(&rig, &op);
	assert_int_equal(status, -ETIMEDOUT);
	assert_int_equal(rig_run_one(&rig, &plain), 0);
	rig_expect_notifications(&rig, SLU_NOTIFICATIONS_MAX);
	assert_int_equal(rig_notified(&rig), SLU_NOTIFICATIONS_MAX);
	rig_expect_notifications(&rig, 1);
	op.timeout_us = 0;
	assert_int_equal(rig_run_one(&rig, &op), 0);
	assert_int_equal(rig_notified(&rig), 1);
}

/* Goal: an owner that sleeps is woken for each notification that finds it asleep. */
static void notifies_a_sleeping_owner(void **state)
{
	const uint32_t n = 3000;

	(void)state;
	if (!rig.pid)
		skip_because("the target is this process");
	for (uint32_t i = 0; i < n; i++)
		pattern_fill(local((uint64_t)i * RIG_NOTIFY_STRIDE),
			     (uint64_t)i * RIG_NOTIFY_STRIDE, RIG_NOTIFY_STRIDE, i);
	rig_expect_asleep(&rig, n);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t at = (uint64_t)i * RIG_NOTIFY_STRIDE;
		struct slu_op op = op_of(SLU_WRITE_NOTIFY, at, at, RIG_NOTIFY_STRIDE);

		op.tag = i;
		assert_int_equal(rig_run_one(&rig, &op), 0);
		if (i % 3 == 0) /* or it would never get to sleep */
			usleep(i % 50);
	}
	assert_int_equal(rig_notified(&rig), n);
}

/* ---- calls ---- */

#define ANSWERS (UINT64_C(32) << 20) /* where answers go; requests lie below */

static struct slu_op call_of(uint64_t request, uint64_t length, uint64_t answer, uint32_t room)
{
	struct slu_op op = op_of(TEST_CALL, ANSWERS + answer, request, length);

	op.tag = room;
	return op;
}

static bool is_answer(const uint8_t *answer, const uint8_t *request, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (answer[i] != rig_answer_byte(request[i]))
			return false;
	return true;
}

static bool is_filled(const uint8_t *memory, uint8_t with, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (memory[i] != with)
			return false;
	return true;
}

/* Goal: a request of any size comes to the owner whole, and its answer back, and nothing beside. */
static void calls_with_every_size(void **state)
{
	static const uint32_t sizes[] = {0, 1, 7, 55, 56, 57, 64, 65, 511, 1000, 4095, 4096};
	const uint32_t count = sizeof(sizes) / sizeof(sizes[0]);

	(void)state;
	rig_serve_calls(&rig, RIG_ECHO, 2 * count);
	for (uint32_t i = 0; i < 2 * count; i++) {
		uint32_t size = sizes[i % count];
		uint32_t room = i < count ? size : SLU_MESSAGE_MAX; /* exact, and ample */
		struct slu_op op = call_of(GUARD + i, size, GUARD + i * 3, room);
		struct slu_completion done;

		pattern_fill(local(op.local_offset), 0, size, i);
		memset(local(op.remote_offset - GUARD), 0xcc, SLU_MESSAGE_MAX + 2 * GUARD);
		rig_run(&rig, &op, 1, &done);
		assert_int_equal(done.status, 0);
		assert_int_equal(done.scope, SLU_SCOPE_NONE);
		assert_int_equal(done.user_data, op.user_data);
		assert_int_equal(done.transport, rig.options.transport);
		assert_int_equal(done.bytes, size);
		assert_true(is_answer(local(op.remote_offset), local(op.local_offset), size));
		assert_true(is_filled(local(op.remote_offset - GUARD), 0xcc, GUARD));
		assert_true(is_filled(local(op.remote_offset + size), 0xcc,
				      SLU_MESSAGE_MAX - size + GUARD));
	}
	assert_int_equal(rig_served(&rig), 2 * count);
}

#define CALLS       1000u
#define CALL_STRIDE 64u

/* More calls at once than can be on their way: each gets its own answer, once. */
static void call_many(enum rig_service service)
{
	static struct slu_op ops[CALLS];
	static struct slu_completion done[CALLS];
	static uint8_t seen[CALLS];

	memset(seen, 0, sizeof(seen));
	memset(local(ANSWERS), 0, CALLS * CALL_STRIDE);
	for (uint32_t i = 0; i < CALLS; i++) {
		ops[i] = call_of(i * CALL_STRIDE, i % CALL_STRIDE, i * CALL_STRIDE, CALL_STRIDE);
		ops[i].user_data = i;
		pattern_fill(local(i * CALL_STRIDE), i, CALL_STRIDE, i);
	}
	rig_serve_calls(&rig, service, CALLS);
	rig_run(&rig, ops, CALLS, done);
	assert_int_equal(rig_served(&rig), CALLS);
	for (uint32_t i = 0; i < CALLS; i++) {
		uint64_t n = done[i].user_data;

		assert_int_equal(done[i].status, 0);
		assert_true(n < CALLS);
		assert_int_equal(seen[n]++, 0);
		assert_int_equal(done[i].bytes, ops[n].length);
		assert_true(is_answer(local(ANSWERS + n * CALL_STRIDE), local(n * CALL_STRIDE),
				      ops[n].length));
	}
}

/* Goal: calls over the limit wait for their turn. */
static void calls_wait_for_room(void **state)
{
	(void)state;
	call_many(RIG_ECHO);
}

/* Goal: answers in another order than their requests find their callers. */
static void takes_answers_in_any_order(void **state)
{
	(void)state;
	if (rig.options.depth && rig.options.depth < 8)
		skip_because("the owner waits for more calls than the queue takes");
	call_many(RIG_REVERSED);
}

/* Goal: calls travel between long and short copies, on the same queue. */
static void calls_among_copies(void **state)
{
	struct slu_op ops[30];
	struct slu_completion done[30];

	(void)state;
	for (uint32_t i = 0; i < 30; i++) {
		uint64_t at = i * UINT64_C(4096);

		pattern_fill(local(at), at, 4096, i);
		ops[i] = i % 3 == 0   ? call_of(at, 100, at, 100)
			 : i % 3 == 1 ? op_of(SLU_WRITE, at, at, 64)
				      : op_of(SLU_WRITE, UINT64_C(8) << 20, at, 3 << 20);
		ops[i].user_data = i;
	}
	rig_serve_calls(&rig, RIG_ECHO, 10);
	rig_run(&rig, ops, 30, done);
	assert_int_equal(rig_served(&rig), 10);
	for (uint32_t i = 0; i < 30; i++) {
		assert_int_equal(done[i].status, 0);
		assert_int_equal(done[i].bytes, done[i].user_data % 3 == 0   ? 100
						: done[i].user_data % 3 == 1 ? 64
									     : 3 << 20);
	}
	assert_true(is_answer(local(ANSWERS), local(0), 100));
	assert_true(rig_target_holds(&rig, 4096, 64, 1));
}

/* Goal: an answer that is longer than the room for it fails, and writes nothing. */
static void refuses_long_answers(void **state)
{
	static const uint32_t rooms[] = {0, 1, 100, SLU_MESSAGE_MAX - 1, SLU_MESSAGE_MAX};
	struct slu_completion done;

	(void)state;
	rig_serve_calls(&rig, RIG_LONGEST, 5);
	for (uint32_t i = 0; i < 5; i++) {
		struct slu_op op = call_of(0, 16, 0, rooms[i]);

		memset(local(ANSWERS), 0xcc, 2 * SLU_MESSAGE_MAX);
		rig_run(&rig, &op, 1, &done);
		assert_int_equal(done.status, rooms[i] == SLU_MESSAGE_MAX ? 0 : -EMSGSIZE);
		assert_int_equal(done.bytes, rooms[i] == SLU_MESSAGE_MAX ? SLU_MESSAGE_MAX : 0);
		assert_int_equal(done.scope, done.status ? SLU_SCOPE_OPERATION : SLU_SCOPE_NONE);
		if (done.status)
			assert_true(is_filled(local(ANSWERS), 0xcc, SLU_MESSAGE_MAX));
		else
			assert_true(is_filled(local(ANSWERS), 0x77, SLU_MESSAGE_MAX));
	}
	assert_int_equal(rig_served(&rig), 5);
}

/* Goal: the status that the owner answers with is the call's. */
static void hands_on_the_owners_status(void **state)
{
	static const int32_t statuses[] = {-ENOENT, -EINVAL, -ETIMEDOUT, -4095, 0};
	struct slu_completion done;

	(void)state;
	rig_serve_calls(&rig, RIG_STATUS, 5);
	for (uint32_t i = 0; i < 5; i++) {
		struct slu_op op = call_of(0, sizeof(statuses[i]), 0, 64);

		memset(local(ANSWERS), 0xcc, 64);
		memcpy(local(0), &statuses[i], sizeof(statuses[i]));
		rig_run(&rig, &op, 1, &done);
		assert_int_equal(done.status, statuses[i]);
		assert_int_equal(done.bytes, statuses[i] ? 0 : sizeof(statuses[i]));
		if (statuses[i])
			assert_true(is_filled(local(ANSWERS), 0xcc, 64));
	}
	assert_int_equal(rig_served(&rig), 5);
}

/* Goal: a call that cannot be is refused when it is submitted. */
static void refuses_malformed_calls(void **state)
{
	const uint64_t end = RIG_SEGMENT_BYTES; /* of the region as well */
	struct slu_op too_long = call_of(0, SLU_CALL_MAX + 1, 0, 0);
	struct slu_op too_much_room = call_of(0, 0, 0, SLU_CALL_MAX + 1);
	struct slu_op outside[] = {call_of(end - 7, 8, 0, 0), call_of(UINT64_MAX - 3, 8, 0, 0),
				   call_of(0, 8, end - ANSWERS - 7, 8),
				   call_of(0, 8, UINT64_MAX - ANSWERS - 3, 8)};

	(void)state;
	assert_int_equal(submit_any(rig.queue, &too_long, 1), -EINVAL);
	assert_int_equal(submit_any(rig.queue, &too_much_room, 1), -EINVAL);
	for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
		assert_int_equal(submit_any(rig.queue, &outside[i], 1), -ERANGE);
}

/* Goal: who may only read can call, but not notify. */
static void calls_with_any_right(void **state)
{
	static const uint32_t rights[] = {SLU_RIGHT_READ, SLU_RIGHT_WRITE};

	(void)state;
	for (uint32_t i = 0; i < 2; i++) {
		struct slu_remote *remote = NULL;
		struct slu_op op = call_of(0, 100, 0, 100);

		assert_int_equal(rig_remote(&rig, "big", rights[i], &remote), 0);
		op.remote = remote;
		pattern_fill(local(0), 0, 100, i);
		rig_serve_calls(&rig, RIG_ECHO, 1);
		assert_int_equal(rig_run_one(&rig, &op), 0);
		assert_int_equal(rig_served(&rig), 1);
		assert_true(is_answer(local(ANSWERS), local(0), 100));
		if (rights[i] == SLU_RIGHT_READ) {
			op = op_of(SLU_WRITE_NOTIFY, 0, 0, 8);
			op.remote = remote;
			assert_int_equal(submit_any(rig.queue, &op, 1), -EACCES);
		}
		slu_remote_close(remote);
	}
}

/* One more call is answered, and by its own answer: nothing is left over of earlier ones. */
static void calls_go_on(void)
{
	struct slu_op op = call_of(8192, 33, 8192, 64);

	pattern_fill(local(8192), 5, 33, 6);
	rig_serve_calls(&rig, RIG_ECHO, 1);
	assert_int_equal(rig_run_one(&rig, &op), 0);
	assert_int_equal(rig_served(&rig), 1);
	assert_true(is_answer(local(ANSWERS + 8192), local(8192), 33));
}

/*
 * Goal: a call ends at its deadline; its late answer is dropped and takes nobody else's place. The
 * calls beside it go on, and the owner sees none of them twice.
 */
static void drops_late_answers(void **state)
{
	struct slu_op ops[3];
	struct slu_completion done[3];

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		ops[i] = call_of(i * 64, 64, i * 64, 64);
		ops[i].user_data = i;
		ops[i].timeout_us = i == 1 ? 500000 : 0; /* sent by then */
		pattern_fill(local(i * 64), i * 64, 64, 8);
	}
	memset(local(ANSWERS), 0xcc, 3 * 64);
	rig_serve_calls(&rig, RIG_LATE, 3);
	rig_run(&rig, ops, 3, done);
	assert_int_equal(rig_served(&rig), 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(done[i].status, done[i].user_data == 1 ? -ETIMEDOUT : 0);
	calls_go_on();
	assert_true(is_answer(local(ANSWERS), local(0), 64));
	assert_true(is_filled(local(ANSWERS + 64), 0xcc, 64));
	assert_true(is_answer(local(ANSWERS + 128), local(128), 64));
}

/* Goal: with an owner that answers nothing all calls end at their deadline, sent or not; later,
 * when it answers them after all, calls go on. */
static void bounds_unanswered_calls(void **state)
{
	static struct slu_op ops[3 * SLU_CALLS_MAX];
	static struct slu_completion done[3 * SLU_CALLS_MAX];
	const struct slu_op waits = call_of(64, 64, 64, 64); /* for a place that one of those has */

	(void)state;
	memset(local(ANSWERS), 0xcc, 64);
	for (uint32_t i = 0; i < 3 * SLU_CALLS_MAX; i++) {
		ops[i] = call_of(0, 64, 0, 64);
		ops[i].timeout_us = 200000; /* one at least is sent by then */
	}
	rig_run(&rig, ops, 3 * SLU_CALLS_MAX, done);
	for (uint32_t i = 0; i < 3 * SLU_CALLS_MAX; i++)
		assert_int_equal(done[i].status, -ETIMEDOUT);
	assert_int_equal(submit_any(rig.queue, &waits, 1), 1);
	slu_reap(rig.queue, NULL, 0); /* inline: it is begun */
	rig_serve_calls(&rig, RIG_LEFTOVERS, 0);
	assert_int_equal(slu_wait(rig.queue, 1, UINT64_C(60000000)), 1);
	assert_int_equal(slu_reap(rig.queue, done, 1), 1);
	assert_int_equal(done->status, 0);
	assert_in_range(rig_served(&rig), 1, 3 * SLU_CALLS_MAX + 1);
	calls_go_on();
	assert_true(is_filled(local(ANSWERS), 0xcc, 64));
}

/* Goal: closing a remote ends its calls, and the others' go on. */
static void closing_ends_calls(void **state)
{
	struct slu_remote *remote = NULL;
	struct slu_completion done[3];
	struct slu_op ops[3];
	int reaped = 0;

	(void)state;
	if (!rig.options.pollers)
		skip_because("the owner of an inline queue reaps before it closes a remote");
	assert_int_equal(rig_remote(&rig, "big", SLU_RIGHT_READ, &remote), 0);
	for (uint32_t i = 0; i < 3; i++) {
		ops[i] = call_of(0, 64, 0, 64);
		ops[i].remote = remote;
	}
	assert_int_equal(submit_any(rig.queue, ops, 3), 3);
	slu_remote_close(remote);
	while (reaped < 3) {
		assert_true(slu_wait(rig.queue, 1, 10000000) > 0);
		reaped += slu_reap(rig.queue, done + reaped, 3);
	}
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(done[i].status, -ECANCELED);
	rig_serve_calls(&rig, RIG_LEFTOVERS, 0);
	rig_served(&rig);
	calls_go_on();
}

/* Goal: an owner that sleeps is woken for each call that finds it asleep. */
static void calls_a_sleeping_owner(void **state)
{
	const uint32_t n = 1500;

	(void)state;
	rig_serve_calls(&rig, RIG_SLEEPING, n);
	for (uint32_t i = 0; i < n; i++) {
		struct slu_op op = call_of(0, 8, 0, 8);

		memcpy(local(0), &i, sizeof(i));
		assert_int_equal(rig_run_one(&rig, &op), 0);
		assert_true(is_answer(local(ANSWERS), local(0), 8));
	}
	assert_int_equal(rig_served(&rig), n);
}

/* ---- waiting ---- */

/* Goal: the longest time to wait is not taken for the shortest. */
static void opens_with_all_the_time(void **state)
{
	struct slu_remote_info info = {.size = sizeof(info)};
	struct slu_remote_options options;
	struct slu_remote *remote = NULL;

	(void)state;
	assert_int_equal(slu_remote_get_info(rig.remote, &info), 0);
	slu_remote_options_init(&options, sizeof(options));
	options.transport = rig.options.transport;
	options.timeout_us = UINT64_MAX;
	assert_int_equal(slu_remote_open(rig.engine, info.name, &options, &remote), 0);
	slu_remote_close(remote);
}

/* Goal: the eventfd fires once per arm, and a wait for nothing does not block. */
static void wakes_by_eventfd(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 0, 0, 64);
	struct slu_completion done;
	struct pollfd wake = {.events = POLLIN};
	uint64_t count;

	(void)state;
	assert_int_equal(slu_wait(rig.queue, 5, UINT64_MAX), 0);
	if (!rig.options.pollers) {
		assert_int_equal(slu_queue_eventfd(rig.queue), -EOPNOTSUPP);
		assert_int_equal(slu_queue_arm(rig.queue), -EOPNOTSUPP);
		return;
	}
	wake.fd = slu_queue_eventfd(rig.queue);
	for (int i = 0; i < 100; i++) {
		int armed = slu_queue_arm(rig.queue);

		assert_int_equal(armed, 0);
		assert_int_equal(submit_any(rig.queue, &op, 1), 1);
		while (armed == 0) { /* a wake-up may be an old one */
			assert_int_equal(poll(&wake, 1, 10000), 1);
			assert_int_equal(read(wake.fd, &count, sizeof(count)), sizeof(count));
			armed = slu_queue_arm(rig.queue);
		}
		assert_int_equal(armed, 1);
		assert_int_equal(slu_reap(rig.queue, &done, 1), 1);
	}
	assert_int_equal(submit_any(rig.queue, &op, 1), 1);
	assert_int_equal(slu_wait(rig.queue, 1, 10000000), 1);
	assert_int_equal(slu_queue_arm(rig.queue), 1);
	assert_int_equal(slu_reap(rig.queue, &done, 1), 1);
}

/* ---- ends ---- */

/* Goal: counters tell what was done. */
static void counts_what_it_did(void **state)
{
	struct slu_remote_info before = {.size = sizeof(before)}, after = before;
	struct slu_op write = op_of(SLU_WRITE, 0, 0, 1000), read = op_of(SLU_READ, 0, 0, 500);

	(void)state;
	assert_int_equal(slu_remote_get_info(rig.remote, &before), 0);
	assert_int_equal(rig_run_one(&rig, &write), 0);
	assert_int_equal(rig_run_one(&rig, &read), 0);
	assert_int_equal(slu_remote_get_info(rig.remote, &after), 0);
	assert_int_equal(after.writes - before.writes, 1);
	assert_int_equal(after.reads - before.reads, 1);
	assert_int_equal(after.bytes_written - before.bytes_written, 1000);
	assert_int_equal(after.bytes_read - before.bytes_read, 500);
	assert_int_equal(after.failed, before.failed);
	assert_int_equal(after.transport, rig.options.transport);
	assert_int_equal(after.length_bytes, RIG_SEGMENT_BYTES);
}

static int scope_of(const struct slu_completion *done)
{
	return done->scope & ~SLU_MAY_LAND;
}

/* What is there at the target, by a READ. */
static void read_back(uint64_t offset, uint64_t length)
{
	struct slu_op op = op_of(SLU_READ, offset, ANSWERS + offset, length);

	assert_int_equal(rig_run_one(&rig, &op), 0);
}

#define STANDS       32u                   /* writes over parts of the first */
#define STAND_BYTES  UINT64_C(4096)        /* each */
#define STAND_STRIDE (UINT64_C(256) << 10) /* from one to the next */
#define FIRST_BYTES  (STANDS * STAND_STRIDE)

static void finish_all_on(struct slu_queue *queue)
{
	struct slu_completion done[STANDS];

	assert_int_equal(slu_wait(queue, STANDS, UINT64_C(60000000)), STANDS);
	assert_int_equal(slu_reap(queue, done, STANDS), STANDS);
	for (uint32_t i = 0; i < STANDS; i++)
		assert_int_equal(done[i].status, 0);
}

/*
 * Stop the target while a WRITE is on its way, which ends then, well or not. A poller that gets no
 * processor for as long as the WRITE has may find it late, and post nothing of it; and it never
 * does if its link was lost at that moment: then all is begun again, with more time for it.
 */
static struct slu_completion write_to_stopped(void)
{
	struct slu_op first = op_of(SLU_WRITE, 0, 0, FIRST_BYTES);
	struct slu_op before = op_of(SLU_WRITE, 0, 0, STAND_BYTES);
	struct slu_completion done;

	for (first.timeout_us = 50000;; first.timeout_us *= 2) {
		assert_int_equal(rig_run_one(&rig, &before), 0); /* so the link is made */
		assert_int_equal(kill(rig.pid, SIGSTOP), 0);
		rig_run(&rig, &first, 1, &done);
		if (done.status != -ETIMEDOUT || done.scope & SLU_MAY_LAND)
			return done;
		assert_int_equal(kill(rig.pid, SIGCONT), 0);
	}
}

/* Then some over parts of it, one of which is what has come to the target last. */
static void write_twice(struct slu_queue *later)
{
	struct slu_op second[STANDS];
	struct slu_completion done;
	int accepted;

	for (uint64_t i = 0; i < STANDS; i++)
		second[i] = op_of(SLU_WRITE, i * STAND_STRIDE, FIRST_BYTES, STAND_BYTES);
	done = write_to_stopped();
	accepted = submit_any(later, second, STANDS);
	slu_reap(later, NULL, 0); /* inline: they are begun */
	assert_int_equal(kill(rig.pid, SIGCONT), 0);
	assert_int_equal(accepted, STANDS);
	assert_true(done.status == 0 || done.status == -ETIMEDOUT);
	finish_all_on(later);
}

/*
 * Goal: what is written, and acknowledged, after a WRITE that ended badly stands, whatever of that
 * was still on its way to a target that was stopped; from another queue, too.
 */
static void later_writes_stand(void **state)
{
	const struct slu_op once = op_of(SLU_READ, 0, ANSWERS, 8);
	struct slu_queue_options options;
	struct slu_completion done;
	struct slu_queue *other;

	(void)state;
	if (!rig.pid)
		skip_because("the target is this process");
	if (rig.options.depth && rig.options.depth < STANDS)
		skip_because("its queue is too short");
	slu_queue_options_init(&options, sizeof(options));
	options.poller = SLU_POLLER_INLINE;
	assert_int_equal(slu_queue_open(rig.engine, &options, &other), 0);
	assert_int_equal(submit_any(other, &once, 1), 1); /* its link is made before that stops */
	assert_int_equal(slu_wait(other, 1, UINT64_C(60000000)), 1);
	assert_int_equal(slu_reap(other, &done, 1), 1);
	assert_int_equal(done.status, 0);
	memset(local(0), 0x11, FIRST_BYTES);
	memset(local(FIRST_BYTES), 0x22, STAND_BYTES);
	for (int round = 0; round < 4; round++) {
		rig_target_clear(&rig, 0, FIRST_BYTES);
		write_twice(round % 2 ? other : rig.queue);
		read_back(0, FIRST_BYTES);
		memcpy(local(2 * FIRST_BYTES), local(ANSWERS), FIRST_BYTES);
		for (uint64_t i = 0; i < STANDS; i++)
			assert_true(
				is_filled(local(ANSWERS + i * STAND_STRIDE), 0x22, STAND_BYTES));
		for (int i = 0; i < 50; i++) {
			usleep(2000);
			read_back(0, FIRST_BYTES);
			assert_memory_equal(local(ANSWERS), local(2 * FIRST_BYTES), FIRST_BYTES);
		}
	}
	slu_queue_close(other);
}

/* Until the control thread has noticed, operations may still succeed; then they fail alike. */
static void expect_end(int error)
{
	struct slu_op op = op_of(SLU_WRITE, 0, 0, 64);
	struct slu_remote_info info = {.size = sizeof(info)};

	for (int i = 0; i < 5000; i++) {
		struct slu_completion done;
		int rc = submit_any(rig.queue, &op, 1);

		if (rc < 0) {
			assert_int_equal(rc, error);
			assert_int_equal(slu_remote_get_info(rig.remote, &info), 0);
			assert_int_equal(info.state, error);
			return;
		}
		assert_int_equal(slu_wait(rig.queue, 1, 5000000), 1);
		assert_int_equal(slu_reap(rig.queue, &done, 1), 1);
		assert_true(done.status == 0 || done.status == error);
		if (done.status < 0)
			assert_int_equal(scope_of(&done), SLU_SCOPE_SESSION);
		usleep(1000);
	}
	fail_msg("the end of the target was not noticed");
}

/* As many as the queue takes, to an owner that does not look. */
static uint32_t leave_calls_open(void)
{
	uint32_t open = 0;

	for (; open < SLU_CALLS_MAX + 4; open++) {
		struct slu_op op = call_of(0, 64, 0, 64);

		if (submit_any(rig.queue, &op, 1) != 1)
			break;
	}
	for (int i = 0; i < 100 && !rig.options.pollers; i++)
		slu_reap(rig.queue, NULL, 0); /* inline: now they are sent */
	memset(local(ANSWERS), 0xcc, 64);
	return open;
}

static void expect_calls_to_end(uint32_t open, int error)
{
	assert_int_equal(slu_wait(rig.queue, open, 10000000), open);
	while (open-- > 0) {
		struct slu_completion done;

		assert_int_equal(slu_reap(rig.queue, &done, 1), 1);
		assert_int_equal(done.status, error);
		/* A connection that is reset may be seen before the session's end is. */
		assert_true(scope_of(&done) == SLU_SCOPE_SESSION ||
			    (scope_of(&done) == SLU_SCOPE_PATH && error == -ECONNRESET));
	}
	assert_true(is_filled(local(ANSWERS), 0xcc, 64));
}

/* Goal: a target that closes in order is told apart from one that died. */
static void notices_closing(void **state)
{
	uint32_t open;

	(void)state;
	if (!rig.pid)
		skip_because("the target is this process");
	open = leave_calls_open();
	rig_dismiss_target(&rig);
	expect_calls_to_end(open, -ESHUTDOWN);
	expect_end(-ESHUTDOWN);
}

/* Goal: the death of the target is noticed and told as such; the engine goes on. */
static void notices_death(void **state)
{
	uint32_t open;

	(void)state;
	if (!rig.spare_pid)
		skip_because("the target is this process");
	rig_use_spare(&rig);
	open = leave_calls_open();
	rig_kill_target(&rig);
	expect_calls_to_end(open, -ECONNRESET);
	expect_end(-ECONNRESET);
}

static uint64_t sleeps_so_far(void)
{
	struct slu_poller_info info = {.size = sizeof(info)};

	assert_int_equal(slu_engine_get_poller(rig.engine, 0, &info), 0);
	return info.sleeps;
}

/* Goal: what a dead target has left behind, the ends of its connections, keeps no poller awake. */
static void sleeps_beside_the_dead(void **state)
{
	uint64_t before;

	(void)state;
	if (rig.spare_pid || !rig.options.pollers || rig.options.transport == SLU_TRANSPORT_FAKE)
		skip_because("no poller that sleeps, or no target that died");
	usleep(20000);
	before = sleeps_so_far();
	usleep(200000);
	assert_in_range(sleeps_so_far() - before, 0, 20);
}

/* Goal: a dead remote, not closed yet, is no reason to refuse a queue to the living. */
static void opens_queues_beside_the_dead(void **state)
{
	struct slu_queue_options options;
	struct slu_queue *queue = NULL;

	(void)state;
	slu_queue_options_init(&options, sizeof(options));
	options.poller = SLU_POLLER_INLINE;
	assert_int_equal(slu_queue_open(rig.engine, &options, &queue), 0);
	slu_queue_close(queue);
}

/* Goal: without a word for it an encrypted session is carried by nothing that does not encrypt. */
static void keeps_encrypted(void **state)
{
	struct slu_remote_info info = {.size = sizeof(info)};
	enum slu_transport column = rig.options.transport;
	struct slu_remote *remote = NULL;
	struct verbs_host *host;
	bool *plain;

	(void)state;
	if (!rig.options.tls || column != SLU_TRANSPORT_VERBS)
		skip_because("of an encrypted session and RDMA");
	host = rig.engine->env.hosts[SLU_TRANSPORT_VERBS];
	plain = &host->devices->options.plain;
	*plain = false;
	assert_int_equal(rig_remote(&rig, "big", SLU_RIGHT_READ, &remote), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "--rdma-plain at both ends"));
	rig.options.transport = SLU_TRANSPORT_AUTO;
	assert_int_equal(rig_remote(&rig, "big", SLU_RIGHT_READ, &remote), 0);
	rig.options.transport = column;
	*plain = true;
	assert_int_equal(slu_remote_get_info(remote, &info), 0);
	assert_int_not_equal(info.transport, SLU_TRANSPORT_VERBS);
	slu_remote_close(remote);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(moves_every_small_length),
	cmocka_unit_test(moves_lengths_around_boundaries),
	cmocka_unit_test(moves_unaligned),
	cmocka_unit_test(reaches_both_ends),
	cmocka_unit_test(completes_each_once),
	cmocka_unit_test(mixes_long_and_short),
	cmocka_unit_test(closing_finishes_what_was_accepted),
	cmocka_unit_test(refuses_out_of_bounds),
	cmocka_unit_test(refuses_malformed),
	cmocka_unit_test(honours_read_only),
	cmocka_unit_test(takes_fewer_when_full),
	cmocka_unit_test(serves_many_remotes),
	cmocka_unit_test(moves_listed_fragments),
	cmocka_unit_test(moves_strides),
	cmocka_unit_test(moves_pages),
	cmocka_unit_test(moves_the_most_fragments),
	cmocka_unit_test(notifies_after_fragments),
	cmocka_unit_test(shares_a_vector),
	cmocka_unit_test(refuses_bad_lists),
	cmocka_unit_test(refuses_bad_strides_and_pages),
	cmocka_unit_test(refuses_overlaps),
	cmocka_unit_test(reaches_its_part_only),
	cmocka_unit_test(parts_have_their_own_rights),
	cmocka_unit_test(goes_another_way),
	cmocka_unit_test(serves_imported_memory),
	cmocka_unit_test(moves_by_cached_pointers),
	cmocka_unit_test(survives_lost_regions),
	cmocka_unit_test(survives_lost_segments),
	cmocka_unit_test(notifies_after_data),
	cmocka_unit_test(notifies_once_after_long_data),
	cmocka_unit_test(holds_back_unread_notifications),
	cmocka_unit_test(notifies_a_sleeping_owner),
	cmocka_unit_test(calls_with_every_size),
	cmocka_unit_test(calls_wait_for_room),
	cmocka_unit_test(takes_answers_in_any_order),
	cmocka_unit_test(calls_among_copies),
	cmocka_unit_test(refuses_long_answers),
	cmocka_unit_test(hands_on_the_owners_status),
	cmocka_unit_test(refuses_malformed_calls),
	cmocka_unit_test(calls_with_any_right),
	cmocka_unit_test(drops_late_answers),
	cmocka_unit_test(bounds_unanswered_calls),
	cmocka_unit_test(closing_ends_calls),
	cmocka_unit_test(calls_a_sleeping_owner),
	cmocka_unit_test(keeps_the_order_asked_for),
	cmocka_unit_test(orders_calls_after_writes),
	cmocka_unit_test(ends_in_silence),
	cmocka_unit_test(waits_for_the_silent),
	cmocka_unit_test(tells_of_silent_failures),
	cmocka_unit_test(cancels_what_is_under_way),
	cmocka_unit_test(cancels_what_is_held_back),
	cmocka_unit_test(cancels_nothing_else),
	cmocka_unit_test(adds_and_swaps),
	cmocka_unit_test(adds_many_at_once),
	cmocka_unit_test(refuses_bad_atomics),
	cmocka_unit_test(calls_with_long_bodies),
	cmocka_unit_test(calls_with_many_long_bodies),
	cmocka_unit_test(refuses_calls_that_are_too_long),
	cmocka_unit_test(refuses_longer_answers),
	cmocka_unit_test(drops_late_long_answers),
	cmocka_unit_test(calls_several_threads),
	cmocka_unit_test(calls_a_service),
	cmocka_unit_test(tells_who_has_gone),
	cmocka_unit_test(wakes_by_eventfd),
	cmocka_unit_test(opens_with_all_the_time),
	cmocka_unit_test(counts_what_it_did),
	cmocka_unit_test(keeps_encrypted),
	cmocka_unit_test(later_writes_stand),
	cmocka_unit_test(notices_closing),
	cmocka_unit_test(notices_death),
	cmocka_unit_test(sleeps_beside_the_dead),
	cmocka_unit_test(opens_queues_beside_the_dead),
};

/* One column per process: EAL is started once, and a target is forked before it. */
static const struct rig_options columns[] = {
	{.title = "shm-inline", .transport = SLU_TRANSPORT_SHM},
	{.title = "shm-adaptive", .transport = SLU_TRANSPORT_SHM, .pollers = 1},
	{.title = "shm-busy", .transport = SLU_TRANSPORT_SHM, .pollers = 1, .poll = SLU_POLL_BUSY},
	{.title = "shm-shallow", .transport = SLU_TRANSPORT_SHM, .pollers = 2, .depth = 3},
	{.title = "tcp-inline", .transport = SLU_TRANSPORT_TCP},
	{.title = "tcp-adaptive", .transport = SLU_TRANSPORT_TCP, .pollers = 1},
	{.title = "tcp-busy", .transport = SLU_TRANSPORT_TCP, .pollers = 1, .poll = SLU_POLL_BUSY},
	{.title = "tcp-tls", .transport = SLU_TRANSPORT_TCP, .pollers = 1, .tls = true},
	{.title = "tcp-plain", .transport = SLU_TRANSPORT_TCP, .tls = true, .tcp_plain = true},
	{.title = "verbs-inline", .transport = SLU_TRANSPORT_VERBS},
	{.title = "verbs-adaptive", .transport = SLU_TRANSPORT_VERBS, .pollers = 1},
	{.title = "verbs-busy",
	 .transport = SLU_TRANSPORT_VERBS,
	 .pollers = 1,
	 .poll = SLU_POLL_BUSY},
	{.title = "verbs-tls", .transport = SLU_TRANSPORT_VERBS, .pollers = 1, .tls = true},
	{.title = "verbs-cm", .transport = SLU_TRANSPORT_VERBS, .pollers = 1, .cm = true},
	{.title = "fake-inline", .transport = SLU_TRANSPORT_FAKE},
	{.title = "fake-adaptive", .transport = SLU_TRANSPORT_FAKE, .pollers = 1},
	{.title = "fake-reordering",
	 .transport = SLU_TRANSPORT_FAKE,
	 .pollers = 1,
	 .fake = "delay_us=0-20,capacity=64"},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
		int failed;

		if (argc != 2 || strcmp(argv[1], columns[i].title))
			continue;
		if (rig_lacks(&columns[i])) {
			printf("1..0 # SKIP %s\n", rig_lacks(&columns[i]));
			return 0;
		}
		rig_open(&rig, &columns[i]);
		learn_handler();
		failed = cmocka_run_group_tests_name(columns[i].title, tests, NULL, NULL);
		rig_close(&rig);
		return failed;
	}
	fprintf(stderr, "usage: %s COLUMN\n", argv[0]);
	return 2;
}
