/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Vectors (slu_vector): what they must be, and how they are taken apart into pieces that are in one
 * at either side.
 */
#ifndef TRANSPORT_VECTOR_H
#define TRANSPORT_VECTOR_H

#include <stdint.h>

#include <sluice/queue.h>

/** A part of a vector has at most so many pieces. */
#define VECTOR_PIECES 64u

/** So many bytes that lie together, at either side. */
struct vector_piece {
	uint64_t remote; /* from the start of the segment */
	uint64_t local;  /* from the start of the region */
	uint32_t length;
};

/** How far a vector was taken apart: at either side the run, and the bytes of it. Zero: not yet. */
struct vector_place {
	uint32_t remote_run;
	uint32_t local_run;
	uint64_t remote_within;
	uint64_t local_within;
};

/** Memory to look for overlaps in, for one thread at a time: 2 MiB, touched only when needed. */
struct vector_scratch {
	struct vector_span *spans;
};

/** @return 0; -ENOMEM */
int vector_scratch_init(struct vector_scratch *scratch);

/** Accepts a zeroed one. */
void vector_scratch_fini(struct vector_scratch *scratch);

/**
 * Is @p op, which has SLU_VECTOR, as it must be? Its bytes lie within the segment and the region,
 * no two pieces that are written overlap.
 *
 * @return 0; -EINVAL, -ERANGE, with a text
 */
int vector_check(const struct slu_op *op, uint64_t segment_length, uint64_t region_length,
		 struct vector_scratch *scratch);

/** Bytes of a vector that was checked. */
uint64_t vector_length(const struct slu_vector *vector);

/**
 * The next pieces of @p op's @p vector from @p place on, which moves along.
 *
 * @param max_bytes  of all of them; at most UINT32_MAX
 * @param pieces     out: up to @p max
 * @return           how many; 0: there are none left
 */
uint32_t vector_take(const struct slu_op *op, const struct slu_vector *vector,
		     struct vector_place *place, uint64_t max_bytes, struct vector_piece *pieces,
		     uint32_t max);

/** Of all pieces. */
static inline uint32_t vector_bytes(const struct vector_piece *pieces, uint32_t n)
{
	uint32_t bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		bytes += pieces[i].length;
	return bytes;
}

#endif
