/* SPDX-License-Identifier: Apache-2.0 */
#include "copy.h"

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

/*
 * Four vectors are loaded before the first is stored, so that a miss does not hold up the next.
 * Non-temporal stores are ordered after the copy as a user of the data would have to.
 */
#define VECTOR_COPY(name, isa, vector, load, store, finish)                                        \
	__attribute__((target(isa))) static void name(void *to, const void *from, size_t length)   \
	{                                                                                          \
		vector *out = to;                                                                  \
		const vector *in = from;                                                           \
		const vector *end = in + length / sizeof(vector);                                  \
                                                                                                   \
		for (; in != end; in += 4, out += 4) {                                             \
			vector a = load(in);                                                       \
			vector b = load(in + 1);                                                   \
			vector c = load(in + 2);                                                   \
			vector d = load(in + 3);                                                   \
                                                                                                   \
			store(out, a);                                                             \
			store(out + 1, b);                                                         \
			store(out + 2, c);                                                         \
			store(out + 3, d);                                                         \
		}                                                                                  \
		finish;                                                                            \
	}

VECTOR_COPY(copy_avx2, "avx2", __m256i, _mm256_load_si256, _mm256_store_si256, )
VECTOR_COPY(copy_avx512, "avx512f", __m512i, _mm512_load_si512, _mm512_store_si512, )
VECTOR_COPY(copy_sse2_nt, "sse2", __m128i, _mm_load_si128, _mm_stream_si128, _mm_sfence())
VECTOR_COPY(copy_avx2_nt, "avx2", __m256i, _mm256_load_si256, _mm256_stream_si256, _mm_sfence())
VECTOR_COPY(copy_avx512_nt, "avx512f", __m512i, _mm512_load_si512, _mm512_stream_si512,
	    _mm_sfence())

static void copy_memcpy(void *to, const void *from, size_t length)
{
	memcpy(to, from, length);
}

static void copy_rep_movsb(void *to, const void *from, size_t length)
{
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

unsigned copy_kernels(struct copy_kernel *kernels)
{
	bool avx2 = __builtin_cpu_supports("avx2");
	bool avx512 = __builtin_cpu_supports("avx512f");
	const struct {
		struct copy_kernel kernel;
		bool usable;
	} all[] = {
		{{"memcpy", copy_memcpy}, true},
		{{"rep movsb", copy_rep_movsb}, true},
		{{"avx2", copy_avx2}, avx2},
		{{"avx512", copy_avx512}, avx512},
		{{"sse2 non-temporal", copy_sse2_nt}, true},
		{{"avx2 non-temporal", copy_avx2_nt}, avx2},
		{{"avx512 non-temporal", copy_avx512_nt}, avx512},
	};
	unsigned count = 0;

	_Static_assert(sizeof(all) / sizeof(all[0]) <= COPY_KERNELS_MAX, "room for every kernel");
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].usable)
			kernels[count++] = all[i].kernel;
	return count;
}
