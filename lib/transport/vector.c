/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/vector.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"

/* ---- is it as it must be? ---- */

/* One end of the bytes, as messages call it. */
struct side {
	const char *name;
	uint64_t room; /* bytes from the operation's offset to the end of it */
	bool written;
};

static int check_count(uint32_t count, const char *what)
{
	if (count == 0)
		return fail(-EINVAL, "a vector of no %s: 1 to %u are possible", what,
			    SLU_FRAGMENTS_MAX);
	if (count > SLU_FRAGMENTS_MAX)
		return fail(-EINVAL, "a vector of %u %s: at most %u are possible", count, what,
			    SLU_FRAGMENTS_MAX);
	return 0;
}

static int check_fragment(const struct side *side, uint32_t index, uint64_t offset, uint64_t length)
{
	if (length == 0)
		return fail(-EINVAL, "fragment %u of the vector is empty: leave it out", index);
	if (length > side->room || offset > side->room - length)
		return fail(-ERANGE,
			    "fragment %u of the vector leaves the %s: %" PRIu64 " bytes at %" PRIu64
			    " of %" PRIu64,
			    index, side->name, length, offset, side->room);
	return 0;
}

static int check_strides(const struct side *side, const struct slu_strides *strides)
{
	int rc = check_count(strides->count, "runs");
	uint64_t gaps = strides->count - 1u;

	if (rc < 0)
		return rc;
	if (strides->reserved || strides->length == 0)
		return fail(-EINVAL, "strides of the %s: %s", side->name,
			    strides->reserved ? "reserved fields must be zero"
					      : "a run of no bytes");
	if (strides->length > side->room ||
	    (gaps > 0 && strides->stride_bytes > (side->room - strides->length) / gaps))
		return fail(-ERANGE,
			    "strides leave the %s: %u runs of %" PRIu64 " bytes every %" PRIu64
			    ", of %" PRIu64,
			    side->name, strides->count, strides->length, strides->stride_bytes,
			    side->room);
	if (side->written && gaps > 0 && strides->stride_bytes < strides->length)
		return fail(-EINVAL,
			    "runs overlap in the %s, which is written: %" PRIu64
			    " bytes every %" PRIu64,
			    side->name, strides->length, strides->stride_bytes);
	return 0;
}

/* ---- overlaps, where the order of the fragments does not show that there are none ---- */

struct vector_span {
	uint64_t begin;
	uint64_t end;
};

#define DIGIT_BITS  11u
#define DIGITS      (1u << DIGIT_BITS)
#define SPANS_BYTES (sizeof(struct vector_span) * SLU_FRAGMENTS_MAX * 2)

int vector_scratch_init(struct vector_scratch *scratch)
{
	void *at = mmap(NULL, SPANS_BYTES, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return fail(-ENOMEM, "out of memory");
	scratch->spans = at;
	return 0;
}

void vector_scratch_fini(struct vector_scratch *scratch)
{
	if (scratch->spans)
		munmap(scratch->spans, SPANS_BYTES);
	scratch->spans = NULL;
}

static void sort_by_digit(const struct vector_span *from, struct vector_span *to, uint32_t count,
			  uint32_t shift)
{
	uint32_t places[DIGITS] = {0}, next = 0;

	for (uint32_t i = 0; i < count; i++)
		places[from[i].begin >> shift & (DIGITS - 1)]++;
	for (uint32_t i = 0; i < DIGITS; i++) {
		uint32_t here = places[i];

		places[i] = next;
		next += here;
	}
	for (uint32_t i = 0; i < count; i++)
		to[places[from[i].begin >> shift & (DIGITS - 1)]++] = from[i];
}

static bool spans_overlap(struct vector_span *spans, uint32_t count, uint64_t room)
{
	struct vector_span *from = spans, *to = spans + SLU_FRAGMENTS_MAX;

	for (uint32_t shift = 0; shift < 64 && room >> shift > 0; shift += DIGIT_BITS) {
		struct vector_span *sorted = to;

		sort_by_digit(from, to, count, shift);
		to = from;
		from = sorted;
	}
	for (uint32_t i = 1; i < count; i++)
		if (from[i].begin < from[i - 1].end)
			return true;
	return false;
}

static int overlap(const struct side *side)
{
	return fail(-EINVAL, "fragments of the vector overlap in the %s, which is written",
		    side->name);
}

/* ---- lists ---- */

static uint64_t offset_in(const struct slu_fragment *fragment, bool remote)
{
	return remote ? fragment->remote_offset : fragment->local_offset;
}

/* @return 0, also where it cannot be told: then @p ordered is false */
static int check_list_side(const struct side *side, const struct slu_fragment *fragments,
			   uint32_t count, bool remote, bool *ordered)
{
	uint64_t end = 0;

	*ordered = true;
	for (uint32_t i = 0; i < count; i++) {
		uint64_t offset = offset_in(&fragments[i], remote), length = fragments[i].length;

		if (__builtin_expect(length - 1 >= side->room || offset > side->room - length, 0))
			return check_fragment(side, i, offset, length);
		*ordered &= offset >= end;
		end = offset + length;
	}
	return 0;
}

static int check_list_overlap(const struct side *side, const struct slu_fragment *fragments,
			      uint32_t count, bool remote, struct vector_scratch *scratch)
{
	struct vector_span *spans = scratch->spans;

	for (uint32_t i = 0; i < count; i++) {
		uint64_t begin = offset_in(&fragments[i], remote);

		spans[i] = (struct vector_span){begin, begin + fragments[i].length};
	}
	return spans_overlap(spans, count, side->room) ? overlap(side) : 0;
}

static int check_list(const struct slu_vector *vector, const struct side *remote,
		      const struct side *local, struct vector_scratch *scratch)
{
	const struct side *written = remote->written ? remote : local;
	bool ordered[2]; /* local, remote */
	int rc = check_count(vector->count, "fragments");

	if (rc == 0 && !vector->fragments)
		rc = fail(-EINVAL, "a vector without its list of fragments");
	if (rc == 0)
		rc = check_list_side(remote, vector->fragments, vector->count, true, &ordered[1]);
	if (rc == 0)
		rc = check_list_side(local, vector->fragments, vector->count, false, &ordered[0]);
	if (rc < 0 || ordered[remote->written])
		return rc;
	return check_list_overlap(written, vector->fragments, vector->count, remote->written,
				  scratch);
}

/* ---- pages ---- */

static int check_table(const struct side *side, const struct slu_pages *pages,
		       struct vector_scratch *scratch)
{
	uint64_t room = side->room / pages->page_bytes;
	struct vector_span *spans = scratch->spans;
	bool ordered = true;

	for (uint32_t i = 0; i < pages->count; i++) {
		if (pages->pages[i] >= room)
			return fail(-ERANGE,
				    "page %u of entry %u of the table leaves the %s, which has "
				    "%" PRIu64 " pages of %" PRIu64 " bytes there",
				    pages->pages[i], i, side->name, room, pages->page_bytes);
		ordered &= i == 0 || pages->pages[i] > pages->pages[i - 1];
	}
	if (ordered || !side->written)
		return 0;
	for (uint32_t i = 0; i < pages->count; i++)
		spans[i] = (struct vector_span){pages->pages[i], pages->pages[i] + UINT64_C(1)};
	return spans_overlap(spans, pages->count, UINT32_MAX) ? overlap(side) : 0;
}

static int check_pages(const struct side *side, const struct slu_pages *pages,
		       struct vector_scratch *scratch)
{
	int rc = check_count(pages->count, "pages");

	if (rc < 0)
		return rc;
	if (pages->reserved || pages->page_bytes == 0)
		return fail(-EINVAL, "pages of the %s: %s", side->name,
			    pages->reserved ? "reserved fields must be zero"
					    : "a page of no bytes");
	if (pages->pages)
		return check_table(side, pages, scratch);
	if (pages->count > side->room / pages->page_bytes)
		return fail(-ERANGE,
			    "%u pages of %" PRIu64 " bytes leave the %s, of %" PRIu64 " bytes",
			    pages->count, pages->page_bytes, side->name, side->room);
	return 0;
}

/* ---- all of it ---- */

/* Of counts and lengths that may be anything. */
static uint64_t product(uint64_t count, uint64_t length)
{
	return length > UINT64_MAX / SLU_FRAGMENTS_MAX ? UINT64_MAX : count * length;
}

static uint64_t length_at(const struct slu_vector *vector, bool remote)
{
	const struct slu_strides *strides =
		remote ? &vector->strided.remote : &vector->strided.local;
	const struct slu_pages *pages = remote ? &vector->paged.remote : &vector->paged.local;
	uint64_t length = 0;

	switch (vector->shape) {
	case SLU_VECTOR_STRIDED:
		return product(strides->count, strides->length);
	case SLU_VECTOR_PAGED:
		return product(pages->count, pages->page_bytes);
	default:
		for (uint32_t i = 0; i < vector->count; i++)
			length += vector->fragments[i].length;
		return length;
	}
}

uint64_t vector_length(const struct slu_vector *vector)
{
	return length_at(vector, true);
}

static int check_shape(const struct slu_vector *vector, const struct side *remote,
		       const struct side *local, struct vector_scratch *scratch)
{
	int rc;

	if (vector->shape > SLU_VECTOR_PAGED)
		return fail(-EINVAL, "a vector of shape %u: there is none such", vector->shape);
	if (vector->shape == SLU_VECTOR_LIST)
		return check_list(vector, remote, local, scratch);
	if (vector->count)
		return fail(-EINVAL, "slu_vector.count is of lists: it must be zero");
	if (vector->shape == SLU_VECTOR_STRIDED) {
		rc = check_strides(remote, &vector->strided.remote);
		return rc < 0 ? rc : check_strides(local, &vector->strided.local);
	}
	rc = check_pages(remote, &vector->paged.remote, scratch);
	return rc < 0 ? rc : check_pages(local, &vector->paged.local, scratch);
}

int vector_check(const struct slu_op *op, uint64_t segment_length, uint64_t region_length,
		 struct vector_scratch *scratch)
{
	struct side remote = {"segment", segment_length - op->remote_offset,
			      op->opcode != SLU_READ};
	struct side local = {"region", region_length - op->local_offset, op->opcode == SLU_READ};
	const struct slu_vector *vector = op->vector;
	uint64_t length;
	int rc;

	if (!vector)
		return fail(-EINVAL, "SLU_VECTOR without a vector");
	if (op->remote_offset > segment_length || op->local_offset > region_length)
		return fail(-ERANGE, "the offset that the vector counts from is outside the %s",
			    op->remote_offset > segment_length ? "segment" : "region");
	rc = check_shape(vector, &remote, &local, scratch);
	if (rc < 0)
		return rc;
	length = length_at(vector, true);
	if (length > SLU_LENGTH_MAX)
		return fail(-EINVAL, "a vector of %" PRIu64 " bytes: at most %" PRIu64, length,
			    SLU_LENGTH_MAX);
	if (vector->shape != SLU_VECTOR_LIST && length != length_at(vector, false))
		return fail(-EINVAL,
			    "a vector of %" PRIu64 " bytes in the segment and %" PRIu64
			    " in the region: they must be as many",
			    length, length_at(vector, false));
	return 0;
}

/* ---- taking it apart ---- */

/* It joins the one before where they lie together. @return pieces now */
static inline uint32_t add_piece(struct vector_piece *pieces, uint32_t n, uint64_t remote,
				 uint64_t local, uint32_t length)
{
	struct vector_piece *next = pieces + n;

	if (n > 0 && next[-1].remote + next[-1].length == remote &&
	    next[-1].local + next[-1].length == local) {
		next[-1].length += length;
		return n;
	}
	*next = (struct vector_piece){remote, local, length};
	return n + 1;
}

static uint32_t take_list(const struct slu_op *op, const struct slu_vector *vector,
			  struct vector_place *place, uint64_t left, struct vector_piece *pieces,
			  uint32_t max)
{
	uint32_t n = 0;

	while (n < max && left > 0 && place->remote_run < vector->count) {
		const struct slu_fragment *fragment = &vector->fragments[place->remote_run];
		uint64_t within = place->remote_within;
		uint64_t length = fragment->length - within;

		if (length > left) {
			length = left;
			place->remote_within += left;
		} else {
			place->remote_run++;
			place->remote_within = 0;
		}
		left -= length;
		n = add_piece(pieces, n, op->remote_offset + fragment->remote_offset + within,
			      op->local_offset + fragment->local_offset + within, (uint32_t)length);
	}
	return n;
}

/* What strides and pages have in common: a run that all others are like, and where each begins. */
struct runs {
	uint64_t length;
	uint64_t distance;
	const uint32_t *table; /* NULL: each is the next one */
	uint32_t count;
};

static inline struct runs runs_of(const struct slu_vector *vector, bool remote)
{
	const struct slu_strides *strides =
		remote ? &vector->strided.remote : &vector->strided.local;
	const struct slu_pages *pages = remote ? &vector->paged.remote : &vector->paged.local;

	if (vector->shape == SLU_VECTOR_STRIDED)
		return (struct runs){strides->length, strides->stride_bytes, NULL, strides->count};
	return (struct runs){pages->page_bytes, pages->page_bytes, pages->pages, pages->count};
}

static inline uint64_t run_offset(const struct runs *runs, uint32_t run, uint64_t within)
{
	return (runs->table ? runs->table[run] : run) * runs->distance + within;
}

static inline void move_on(const struct runs *runs, uint32_t *run, uint64_t *within,
			   uint64_t length)
{
	*within += length;
	if (*within < runs->length)
		return;
	*within = 0;
	++*run;
}

static uint32_t take_runs(const struct slu_op *op, const struct slu_vector *vector,
			  struct vector_place *place, uint64_t left, struct vector_piece *pieces,
			  uint32_t max)
{
	const struct runs remote = runs_of(vector, true), local = runs_of(vector, false);
	uint32_t n = 0;

	while (n < max && left > 0 && place->remote_run < remote.count &&
	       place->local_run < local.count) {
		uint64_t length = remote.length - place->remote_within;
		uint64_t of_local = local.length - place->local_within;

		if (length > of_local)
			length = of_local;
		if (length > left)
			length = left;
		left -= length;
		n = add_piece(pieces, n,
			      op->remote_offset +
				      run_offset(&remote, place->remote_run, place->remote_within),
			      op->local_offset +
				      run_offset(&local, place->local_run, place->local_within),
			      (uint32_t)length);
		move_on(&remote, &place->remote_run, &place->remote_within, length);
		move_on(&local, &place->local_run, &place->local_within, length);
	}
	return n;
}

uint32_t vector_take(const struct slu_op *op, const struct slu_vector *vector,
		     struct vector_place *place, uint64_t max_bytes, struct vector_piece *pieces,
		     uint32_t max)
{
	return vector->shape == SLU_VECTOR_LIST
		       ? take_list(op, vector, place, max_bytes, pieces, max)
		       : take_runs(op, vector, place, max_bytes, pieces, max);
}
