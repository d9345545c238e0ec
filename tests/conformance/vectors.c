/* SPDX-License-Identifier: Apache-2.0 */
/* Operations of many fragments. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../tap.h"
#include "cases.h"
#include "pattern.h"

#define AREA      (UINT64_C(4) << 20) /* of either end, in which the fragments lie */
#define REMOTE_AT (UINT64_C(1) << 20)
#define LOCAL_AT  (UINT64_C(8) << 20)
#define CELL      4096u /* each holds one fragment, so that none overlap */
#define CELLS     (AREA / CELL)

static struct slu_fragment fragments[SLU_FRAGMENTS_MAX + 1];
static uint32_t table[2][SLU_FRAGMENTS_MAX];

static uint8_t *local(uint64_t offset)
{
	return (uint8_t *)slu_region_addr(rig.region) + offset;
}

static struct slu_op vector_op(enum slu_opcode opcode, const struct slu_vector *vector)
{
	return (struct slu_op){.remote = rig.remote,
			       .region = rig.region,
			       .remote_offset = REMOTE_AT,
			       .local_offset = LOCAL_AT,
			       .vector = vector,
			       .opcode = (uint8_t)opcode,
			       .flags = SLU_VECTOR,
			       .user_data = 77};
}

static struct slu_completion run(const struct slu_op *op)
{
	struct slu_completion done;

	rig_run(&rig, op, 1, &done);
	assert_int_equal(done.user_data, op->user_data);
	return done;
}

/* A byte of the vector lies at so much of the segment's area, and so much of the region's. */
typedef void (*visit_fn)(uint64_t remote, uint64_t local, uint64_t length);

static void visit_list(uint32_t count, visit_fn visit)
{
	for (uint32_t i = 0; i < count; i++)
		visit(fragments[i].remote_offset, fragments[i].local_offset, fragments[i].length);
}

static uint8_t expected[AREA];
static uint8_t seen[AREA];

static void expect_at_target(uint64_t remote, uint64_t from, uint64_t length)
{
	memcpy(expected + remote, local(LOCAL_AT + from), length);
}

static void expect_here(uint64_t remote, uint64_t to, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		expected[to + i] = pattern_byte(REMOTE_AT + remote + i, 5);
}

/* All of the area, by operations that are no vectors. */
static void move_area(enum slu_opcode opcode, uint64_t to)
{
	struct slu_op op = {.remote = rig.remote,
			    .region = rig.region,
			    .remote_offset = REMOTE_AT,
			    .local_offset = to,
			    .length = AREA,
			    .opcode = (uint8_t)opcode};

	assert_int_equal(rig_run_one(&rig, &op), 0);
}

/*
 * What a WRITE moves is at the target and nothing else is, what a READ moves is here and nothing
 * else is.
 */
static void both_ways(const struct slu_vector *vector, void (*each)(visit_fn visit),
		      uint64_t length)
{
	struct slu_op write = vector_op(SLU_WRITE, vector), read = vector_op(SLU_READ, vector);
	struct slu_completion done;

	rig_target_clear(&rig, REMOTE_AT, AREA);
	pattern_fill(local(LOCAL_AT), 1, AREA, 3);
	memset(expected, 0, AREA);
	each(expect_at_target);
	done = run(&write);
	assert_int_equal(done.status, 0);
	assert_int_equal(done.bytes, length);
	move_area(SLU_READ, LOCAL_AT + AREA);
	assert_memory_equal(local(LOCAL_AT + AREA), expected, AREA);

	pattern_fill(local(LOCAL_AT + AREA), REMOTE_AT, AREA, 5);
	move_area(SLU_WRITE, LOCAL_AT + AREA);
	memset(local(LOCAL_AT), 0, AREA);
	memset(expected, 0, AREA);
	each(expect_here);
	done = run(&read);
	assert_int_equal(done.status, 0);
	assert_int_equal(done.bytes, length);
	memcpy(seen, local(LOCAL_AT), AREA);
	assert_memory_equal(seen, expected, AREA);
}

static void shuffle(uint32_t *numbers, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		numbers[i] = i;
	for (uint32_t i = n - 1; i > 0; i--) {
		uint32_t other = (uint32_t)random() % (i + 1), kept = numbers[i];

		numbers[i] = numbers[other];
		numbers[other] = kept;
	}
}

/* Of every length up to a cell, in no order, some of them adjacent to the next. @return bytes */
static uint64_t make_list(uint32_t count, bool ordered)
{
	uint64_t bytes = 0;

	shuffle(table[0], CELLS);
	shuffle(table[1], CELLS);
	for (uint32_t i = 0; i < count; i++) {
		uint64_t length = i % 5 == 0 ? CELL : 1 + (uint64_t)random() % CELL;

		fragments[i] = (struct slu_fragment){
			.remote_offset = (uint64_t)(ordered ? i : table[0][i]) * CELL,
			.local_offset = (uint64_t)(ordered ? i : table[1][i]) * CELL,
			.length = length};
		bytes += length;
	}
	return bytes;
}

static uint32_t listed;

static void each_listed(visit_fn visit)
{
	visit_list(listed, visit);
}

/* Goal: fragments of all lengths, few and many, in order or in none, move and nothing beside them.
 */
void moves_listed_fragments(void **state)
{
	static const uint32_t counts[] = {1, 2, 63, 64, 65, 200, CELLS};

	(void)state;
	srandom(1);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
		for (int ordered = 0; ordered < 2; ordered++) {
			struct slu_vector vector = {.shape = SLU_VECTOR_LIST,
						    .count = counts[i],
						    .fragments = fragments};

			listed = counts[i];
			both_ways(&vector, each_listed, make_list(listed, ordered));
		}
}

/* One byte at a time, by the definition. */
static const struct slu_vector *defined;

static uint64_t place_of(bool remote, uint64_t byte)
{
	const struct slu_strides *strides =
		remote ? &defined->strided.remote : &defined->strided.local;
	const struct slu_pages *pages = remote ? &defined->paged.remote : &defined->paged.local;
	uint64_t page = byte / pages->page_bytes;

	if (defined->shape == SLU_VECTOR_STRIDED)
		return byte / strides->length * strides->stride_bytes + byte % strides->length;
	return (pages->pages ? pages->pages[page] : page) * pages->page_bytes +
	       byte % pages->page_bytes;
}

static uint64_t bytes_of(const struct slu_vector *vector)
{
	return vector->shape == SLU_VECTOR_STRIDED
		       ? vector->strided.remote.length * vector->strided.remote.count
		       : vector->paged.remote.page_bytes * vector->paged.remote.count;
}

static void each_defined(visit_fn visit)
{
	for (uint64_t i = 0; i < bytes_of(defined); i++)
		visit(place_of(true, i), place_of(false, i), 1);
}

/* Goal: strides of either side, equal or not, put each byte where they say. */
void moves_strides(void **state)
{
	static const struct slu_vector vectors[] = {
		{.shape = SLU_VECTOR_STRIDED,
		 .strided = {{.stride_bytes = 3000, .length = 1000, .count = 300},
			     {.stride_bytes = 1000, .length = 1000, .count = 300}}},
		{.shape = SLU_VECTOR_STRIDED,
		 .strided = {{.stride_bytes = 100, .length = 7, .count = 12000},
			     {.stride_bytes = 30000, .length = 700, .count = 120}}},
		{.shape = SLU_VECTOR_STRIDED,
		 .strided = {{.stride_bytes = 0, .length = 6000, .count = 1},
			     {.stride_bytes = 9001, .length = 2000, .count = 3}}},
		{.shape = SLU_VECTOR_STRIDED,
		 .strided = {{.stride_bytes = 700000, .length = 600000, .count = 5},
			     {.stride_bytes = 1000000, .length = 1000000, .count = 3}}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		defined = &vectors[i];
		both_ways(defined, each_defined, bytes_of(defined));
	}
}

/* Goal: pages go to the pages that the tables say, of the same size or another, or in order. */
void moves_pages(void **state)
{
	static const struct slu_vector vectors[] = {
		{.shape = SLU_VECTOR_PAGED,
		 .paged = {{.pages = table[0], .page_bytes = 4096, .count = 200},
			   {.pages = table[1], .page_bytes = 4096, .count = 200}}},
		{.shape = SLU_VECTOR_PAGED,
		 .paged = {{.page_bytes = 4096, .count = 160},
			   {.pages = table[1], .page_bytes = 16384, .count = 40}}},
		{.shape = SLU_VECTOR_PAGED,
		 .paged = {{.pages = table[0], .page_bytes = 7, .count = 1000},
			   {.page_bytes = 5, .count = 1400}}},
	};

	(void)state;
	srandom(2);
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		shuffle(table[0], 256);
		shuffle(table[1], 256);
		for (uint32_t k = 256; k < 1000; k++)
			table[0][k] = k;
		defined = &vectors[i];
		both_ways(defined, each_defined, bytes_of(defined));
	}
}

/* Goal: as many fragments as there may be are one operation and one completion. */
void moves_the_most_fragments(void **state)
{
	struct slu_vector vector = {
		.shape = SLU_VECTOR_LIST, .count = SLU_FRAGMENTS_MAX, .fragments = fragments};

	(void)state;
	for (uint32_t i = 0; i < SLU_FRAGMENTS_MAX; i++)
		fragments[i] = (struct slu_fragment){
			.remote_offset = (uint64_t)i * 64,
			.local_offset = (uint64_t)(SLU_FRAGMENTS_MAX - 1 - i) * 64,
			.length = 33};
	listed = SLU_FRAGMENTS_MAX;
	both_ways(&vector, each_listed, UINT64_C(33) * SLU_FRAGMENTS_MAX);
}

/* Goal: a notification comes once, and after the last of the fragments. */
void notifies_after_fragments(void **state)
{
	struct slu_vector vector = {.shape = SLU_VECTOR_LIST, .fragments = fragments};

	(void)state;
	for (vector.count = 1; vector.count <= 1000; vector.count = vector.count * 3 + 1) {
		struct slu_op op = vector_op(SLU_WRITE_NOTIFY, &vector);

		/* The data of its tag is the last fragment; what comes before is elsewhere. */
		op.tag = vector.count;
		op.remote_offset = op.local_offset = 0;
		for (uint32_t i = 0; i < vector.count; i++) {
			uint64_t at = RIG_NOTIFY_STRIDE *
				      (i == vector.count - 1 ? (uint64_t)op.tag : 20000 + i * 2);

			fragments[i] = (struct slu_fragment){at, at, RIG_NOTIFY_STRIDE};
			pattern_fill(local(at), at, RIG_NOTIFY_STRIDE, op.tag);
		}
		rig_expect_notifications(&rig, 1);
		assert_int_equal(run(&op).status, 0);
		assert_int_equal(rig_notified(&rig), 1);
	}
}

/* Goal: operations may share a vector, at different offsets and at the same time. */
void shares_a_vector(void **state)
{
	struct slu_vector vector = {.shape = SLU_VECTOR_STRIDED,
				    .strided = {{.stride_bytes = 128, .length = 64, .count = 4096},
						{.stride_bytes = 64, .length = 64, .count = 4096}}};
	struct slu_completion done[8];
	struct slu_op ops[8];

	(void)state;
	rig_target_clear(&rig, REMOTE_AT, AREA);
	for (uint32_t i = 0; i < 8; i++) {
		ops[i] = vector_op(SLU_WRITE, &vector);
		ops[i].remote_offset = REMOTE_AT + i * AREA / 8;
		ops[i].local_offset = LOCAL_AT + i * AREA / 8;
		pattern_fill(local(ops[i].local_offset), 0, AREA / 8, i);
	}
	rig_run(&rig, ops, 8, done);
	move_area(SLU_READ, LOCAL_AT + AREA);
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(done[i].status, 0);
		for (uint64_t k = 0; k < 4096; k++)
			assert_memory_equal(local(LOCAL_AT + AREA + i * AREA / 8 + k * 128),
					    local(ops[i].local_offset + k * 64), 64);
	}
}

/* ---- what is refused ---- */

/* Nothing is taken, and the text says why. */
static void refused(const struct slu_op *op, int error, const char *text)
{
	assert_int_equal(slu_submit(rig.queue, op, 1), error);
	if (!strstr(slu_last_error(), text))
		fail_msg("\"%s\" does not say \"%s\"", slu_last_error(), text);
}

static void refused_list(uint32_t count, int error, const char *text)
{
	struct slu_vector vector = {
		.shape = SLU_VECTOR_LIST, .count = count, .fragments = fragments};
	struct slu_op op = vector_op(SLU_WRITE, &vector);

	refused(&op, error, text);
}

static void refused_fragment(uint64_t remote, uint64_t here, uint64_t length, int error,
			     const char *text)
{
	fragments[0] = (struct slu_fragment){0, 0, 8};
	fragments[1] = (struct slu_fragment){remote, here, length};
	refused_list(2, error, text);
}

/* Goal: each way in which a list can be wrong is told, and nothing of it is done. */
void refuses_bad_lists(void **state)
{
	const uint64_t room = RIG_SEGMENT_BYTES - REMOTE_AT;
	struct slu_vector vector = {.shape = SLU_VECTOR_LIST, .count = 1};
	struct slu_op op = vector_op(SLU_WRITE, NULL);

	(void)state;
	rig_target_clear(&rig, REMOTE_AT, 4096);
	memset(local(LOCAL_AT), 0xff, 4096);
	refused(&op, -EINVAL, "without a vector");
	op.vector = &vector;
	refused(&op, -EINVAL, "without its list");
	vector.shape = 9;
	refused(&op, -EINVAL, "shape 9");
	refused_list(0, -EINVAL, "no fragments");
	refused_list(SLU_FRAGMENTS_MAX + 1, -EINVAL, "at most 65536");
	refused_fragment(64, 64, 0, -EINVAL, "is empty");
	refused_fragment(room - 7, 64, 8, -ERANGE, "leaves the segment");
	refused_fragment(UINT64_MAX - 3, 64, 8, -ERANGE, "leaves the segment");
	refused_fragment(64, UINT64_MAX - 3, 8, -ERANGE, "leaves the region");
	refused_fragment(64, 64, UINT64_MAX, -ERANGE, "leaves the segment");
	vector.shape = SLU_VECTOR_LIST;
	vector.fragments = fragments;
	op.remote_offset = RIG_SEGMENT_BYTES + 1;
	refused(&op, -ERANGE, "outside the segment");
	op.remote_offset = REMOTE_AT;
	op.flags = 0x80 | SLU_VECTOR;
	refused(&op, -EINVAL, "not known");
	op.flags = SLU_VECTOR;
	op.reserved[1] = 1;
	refused(&op, -EINVAL, "reserved");
	assert_true(rig_target_is_clear(&rig, REMOTE_AT, 4096));
}

static struct slu_vector strided(uint64_t stride, uint64_t length, uint32_t count)
{
	return (struct slu_vector){.shape = SLU_VECTOR_STRIDED,
				   .strided = {{stride, length, count, 0},
					       {.stride_bytes = 16, .length = 16, .count = 1}}};
}

static struct slu_vector paged(uint64_t page_bytes, uint32_t count)
{
	return (struct slu_vector){
		.shape = SLU_VECTOR_PAGED,
		.paged = {{table[0], page_bytes, count, 0}, {.page_bytes = 16, .count = 1}}};
}

/* Goal: the same with strides and tables. */
void refuses_bad_strides_and_pages(void **state)
{
	const struct {
		struct slu_vector vector;
		int error;
		const char *text;
	} cases[] = {
		{strided(16, 16, 0), -EINVAL, "no runs"},
		{strided(16, 16, SLU_FRAGMENTS_MAX + 1), -EINVAL, "at most 65536"},
		{strided(16, 0, 2), -EINVAL, "no bytes"},
		{strided(UINT64_C(36) << 20, 16, 3), -ERANGE, "leave the segment"},
		{strided(UINT64_MAX, 16, 2), -ERANGE, "leave the segment"},
		{strided(UINT64_C(1) << 63, 16, 3), -ERANGE, "leave the segment"},
		{strided(16, UINT64_MAX, 1), -ERANGE, "leave the segment"},
		{strided(16, 16, 2), -EINVAL, "as many"},
		{paged(16, 0), -EINVAL, "no pages"},
		{paged(0, 2), -EINVAL, "no bytes"},
		{paged(16, 4), -ERANGE, "leaves the segment"},
		{paged(UINT64_MAX, 1), -ERANGE, "leaves the segment"},
		{paged(16, 2), -EINVAL, "as many"},
		{{.shape = SLU_VECTOR_STRIDED, .count = 1}, -EINVAL, "is of lists"},
		{{.shape = SLU_VECTOR_PAGED,
		  .paged = {{.page_bytes = 16, .count = 1, .reserved = 1},
			    {.page_bytes = 16, .count = 1}}},
		 -EINVAL,
		 "reserved"},
	};

	(void)state;
	table[0][0] = 0;
	table[0][1] = 1;
	table[0][2] = 2;
	table[0][3] = UINT32_MAX;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct slu_op op = vector_op(SLU_WRITE, &cases[i].vector);

		refused(&op, cases[i].error, cases[i].text);
	}
}

static void overlaps(enum slu_opcode opcode, const struct slu_vector *vector, bool refuses)
{
	struct slu_op op = vector_op(opcode, vector);

	if (refuses)
		refused(&op, -EINVAL, "overlap");
	else
		assert_int_equal(run(&op).status, 0);
}

/* Goal: what would be written twice is refused, wherever in the list it is; read twice it may be.
 */
void refuses_overlaps(void **state)
{
	struct slu_vector list = {.shape = SLU_VECTOR_LIST, .count = CELLS, .fragments = fragments};
	struct slu_vector runs = {.shape = SLU_VECTOR_STRIDED,
				  .strided = {{.stride_bytes = 15, .length = 16, .count = 8},
					      {.stride_bytes = 16, .length = 16, .count = 8}}};
	struct slu_vector pages = {.shape = SLU_VECTOR_PAGED,
				   .paged = {{.pages = table[0], .page_bytes = 64, .count = 300},
					     {.pages = table[1], .page_bytes = 64, .count = 300}}};
	struct slu_fragment kept;

	(void)state;
	srandom(3);
	for (int i = 0; i < 50; i++) {
		uint32_t one = (uint32_t)random() % CELLS, other = (one + 7) % CELLS;

		make_list(CELLS, i % 2);
		kept = fragments[one];
		fragments[one].length = fragments[other].length = 4;
		fragments[one].remote_offset = fragments[other].remote_offset + 3;
		overlaps(SLU_WRITE, &list, true);
		overlaps(SLU_READ, &list, false);
		fragments[one].remote_offset = kept.remote_offset;
		fragments[one].local_offset = fragments[other].local_offset;
		overlaps(SLU_READ, &list, true);
		overlaps(SLU_WRITE, &list, false);
	}
	overlaps(SLU_WRITE, &runs, true);
	overlaps(SLU_READ, &runs, false);
	shuffle(table[0], 300);
	shuffle(table[1], 300);
	overlaps(SLU_WRITE, &pages, false);
	table[0][200] = table[0][100];
	overlaps(SLU_WRITE, &pages, true);
	overlaps(SLU_READ, &pages, false);
}
