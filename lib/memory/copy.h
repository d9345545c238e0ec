/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Copies on a polling core.
 *
 * No one kind of store wins everywhere: a destination that the last-level cache still holds wants
 * ordinary stores, one that it does not hold wants non-temporal ones, which save the read for
 * ownership. So each polling core remembers which destination pages it wrote when, and takes the
 * distance since then, in bytes moved by all that share the cache, for an answer (struct
 * copy_tracker).
 */
#ifndef MEMORY_COPY_H
#define MEMORY_COPY_H

#include <immintrin.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/** Below this the choice costs more than it saves: ordinary stores. */
#define COPY_STREAM_MIN_BYTES 1024u

/** From here on "rep movsb" is worth its start-up. */
#define COPY_STRING_MIN_BYTES 1024u

/** Copies up to this size are expanded in line. */
#define COPY_SMALL_BYTES 64u

/** Polling cores tell each other of so many 4 KiB units at a time. */
#define COPY_TOLD_UNITS 256u

struct copy_entry {
	uint32_t page; /* of the destination, low bits of its number */
	uint32_t when; /* copy_tracker.now then */
};

/** Owned by one polling core. */
struct copy_tracker {
	uint32_t now;     /* 4 KiB units moved so far, read and written; wraps */
	uint32_t horizon; /* a page written fewer units ago than this is taken for cached */
	uint32_t bits;    /* of the table's index */
	bool unfenced;    /* streamed stores may not be visible yet: copy_settle() before telling */
	uint32_t told;    /* now, when the others were told of it, */
	uint32_t heard;   /* and *moved then */
	_Atomic uint32_t *moved; /* through the cache, by all that share it; wraps */
	struct copy_entry entries[];
};

/** Choose the kernels by the CPU's flags. Once per process. */
void copy_init(void);

/** "memcpy, avx2 non-temporal". Static text. */
const char *copy_describe(void);

/**
 * @param llc_bytes  last-level cache to plan for; 0: unknown, nothing is taken for cached
 * @param llc        which of the machine's (topology_llc()): cores of one number share it
 * @return           NULL: out of memory
 */
struct copy_tracker *copy_tracker_create(uint64_t llc_bytes, uint32_t llc);

/** Tell the others, and count what they moved. */
void copy_tracker_share(struct copy_tracker *tracker);

/** Accepts NULL. */
void copy_tracker_destroy(struct copy_tracker *tracker);

/** Non-temporal copy; who calls it sets copy_tracker.unfenced. */
extern void (*copy_streamed)(void *dst, const void *src, uint64_t length);

/** Has the CPU a fast "rep movsb" (ERMS)? */
extern bool copy_has_fast_string;

/** Copy into the cache. */
static inline void copy_cached(void *dst, const void *src, uint64_t length)
{
	if (length < COPY_STRING_MIN_BYTES || !copy_has_fast_string)
		memcpy(dst, src, length);
	else
		__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(length) : : "memory");
}

/**
 * Before anyone is told: make streamed stores visible before every later store.
 *
 * Put off until then, because a fence waits for the memory: one per completed burst, none between
 * the slices of a long operation.
 */
static inline void copy_settle(struct copy_tracker *tracker)
{
	if (tracker->unfenced) {
		_mm_sfence();
		tracker->unfenced = false;
	}
}

/**
 * Is @p dst likely in the cache? Notes that @p length bytes are now written there.
 *
 * A table that is smaller than the pages in use forgets, and a page that it forgot is one that the
 * cache has, most likely, evicted too.
 */
static inline bool copy_tracker_cached(struct copy_tracker *tracker, const void *dst,
				       uint64_t length)
{
	uint32_t page = (uint32_t)((uintptr_t)dst >> (length >= 4096 ? 12 : 10));
	uint32_t mixed = page + (page >> tracker->bits) * 0x9e3779b1u;
	struct copy_entry *entry = &tracker->entries[mixed & ((1u << tracker->bits) - 1)];
	bool cached = entry->page == page && tracker->now - entry->when < tracker->horizon;

	entry->page = page;
	entry->when = tracker->now;
	tracker->now += (uint32_t)((length * 2 + 4095) >> 12);
	if (__builtin_expect(tracker->now - tracker->told >= COPY_TOLD_UNITS, 0))
		copy_tracker_share(tracker);
	return cached;
}

/** Up to COPY_SMALL_BYTES, in overlapping words. 8 aligned bytes are one store. */
static inline void copy_small(void *dst, const void *src, uint64_t length)
{
	char *d = dst;
	const char *s = src;

	if (length > 32) {
		__m128i a = _mm_loadu_si128((const __m128i *)s);
		__m128i b = _mm_loadu_si128((const __m128i *)(s + 16));
		__m128i c = _mm_loadu_si128((const __m128i *)(s + length - 32));
		__m128i e = _mm_loadu_si128((const __m128i *)(s + length - 16));

		_mm_storeu_si128((__m128i *)d, a);
		_mm_storeu_si128((__m128i *)(d + 16), b);
		_mm_storeu_si128((__m128i *)(d + length - 32), c);
		_mm_storeu_si128((__m128i *)(d + length - 16), e);
	} else if (length >= 16) {
		__m128i a = _mm_loadu_si128((const __m128i *)s);
		__m128i b = _mm_loadu_si128((const __m128i *)(s + length - 16));

		_mm_storeu_si128((__m128i *)d, a);
		_mm_storeu_si128((__m128i *)(d + length - 16), b);
	} else if (length >= 8) {
		uint64_t a, b;

		memcpy(&a, s, 8);
		memcpy(&b, s + length - 8, 8);
		memcpy(d, &a, 8);
		memcpy(d + length - 8, &b, 8);
	} else if (length >= 4) {
		uint32_t a, b;

		memcpy(&a, s, 4);
		memcpy(&b, s + length - 4, 4);
		memcpy(d, &a, 4);
		memcpy(d + length - 4, &b, 4);
	} else if (length > 0) {
		char a = s[0], b = s[length / 2], c = s[length - 1];

		d[0] = a;
		d[length / 2] = b;
		d[length - 1] = c;
	}
}

#endif
