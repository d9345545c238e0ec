/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "initiator/pattern.h"
#include "tests/tap.h"

#define BYTES 4096

static uint8_t memory[BYTES + 64];

/* Goal: any range that was filled compares equal, at every alignment of offset and memory. */
static void test_filled_is_equal(void **state)
{
	const struct pattern pattern = {1, 2};

	(void)state;
	for (uint64_t offset = 0; offset < 17; offset++)
		for (uint64_t shift = 0; shift < 9; shift++)
			for (uint64_t length = 0; length < 40; length++) {
				pattern_fill(&pattern, offset, memory + shift, length);
				assert_int_equal(
					pattern_compare(&pattern, offset, memory + shift, length),
					length);
			}
}

/* Goal: filling touches its range and nothing else. */
static void test_fill_stays_inside(void **state)
{
	const struct pattern pattern = {1, 2};

	(void)state;
	memset(memory, 0xee, sizeof(memory));
	pattern_fill(&pattern, 3, memory + 8, 21);
	for (size_t i = 0; i < 64; i++)
		if (i < 8 || i >= 8 + 21)
			assert_int_equal(memory[i], 0xee);
}

/* Goal: a range filled in pieces is the same as one filled at once: bytes depend on the offset. */
static void test_pieces_fit(void **state)
{
	const struct pattern pattern = {5, 6};

	(void)state;
	for (uint64_t cut = 0; cut <= 64; cut++) {
		pattern_fill(&pattern, 1001, memory, cut);
		pattern_fill(&pattern, 1001 + cut, memory + cut, 64 - cut);
		assert_int_equal(pattern_compare(&pattern, 1001, memory, 64), 64);
	}
	for (uint64_t i = 0; i < 64; i++)
		assert_int_equal(pattern_byte(&pattern, 1001 + i), memory[i]);
}

/* Goal: one flipped bit is found, at the very byte. */
static void test_flipped_bit_is_found(void **state)
{
	const struct pattern pattern = {7, 8};

	(void)state;
	for (uint64_t i = 0; i < 100; i++) {
		pattern_fill(&pattern, 5, memory, 100);
		memory[i] ^= (uint8_t)(1u << i % 8);
		assert_int_equal(pattern_compare(&pattern, 5, memory, 100), i);
	}
}

/* Goal: data of another place, generation or seed, and cleared memory, are found at once. */
static void test_misplaced_and_stale_are_found(void **state)
{
	const struct pattern pattern = {1, 1};

	(void)state;
	for (uint64_t away = 8; away <= 1 << 20; away *= 2) {
		pattern_fill(&pattern, away, memory, BYTES);
		assert_in_range(pattern_compare(&pattern, 0, memory, BYTES), 0, 8);
	}
	for (uint64_t other = 2; other < 200; other++) {
		const struct pattern stale = {1, other}, foreign = {other, 1};

		pattern_fill(&stale, 0, memory, BYTES);
		assert_in_range(pattern_compare(&pattern, 0, memory, BYTES), 0, 8);
		pattern_fill(&foreign, 0, memory, BYTES);
		assert_in_range(pattern_compare(&pattern, 0, memory, BYTES), 0, 8);
	}
	memset(memory, 0, BYTES);
	assert_in_range(pattern_compare(&pattern, 0, memory, BYTES), 0, 8);
}

/* Goal: no two pages are alike, wherever they lie and of whatever generation; none is zeros. */
static void test_pages_differ(void **state)
{
	static uint8_t pages[4][BYTES];

	(void)state;
	for (uint64_t i = 0; i < 4; i++) {
		const struct pattern pattern = {.seed = 1, .generation = i % 2};

		pattern_fill(&pattern, i / 2 * BYTES, pages[i], BYTES);
		assert_false(pattern_is_zeros(pages[i], BYTES));
		for (uint64_t k = 0; k < i; k++)
			assert_memory_not_equal(pages[i], pages[k], BYTES);
	}
	memset(memory, 0, sizeof(memory));
	assert_true(pattern_is_zeros(memory, 1));
	assert_true(pattern_is_zeros(memory, BYTES));
	memory[BYTES - 1] = 1;
	assert_false(pattern_is_zeros(memory, BYTES));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filled_is_equal),
		cmocka_unit_test(test_fill_stays_inside),
		cmocka_unit_test(test_pieces_fit),
		cmocka_unit_test(test_flipped_bit_is_found),
		cmocka_unit_test(test_misplaced_and_stale_are_found),
		cmocka_unit_test(test_pages_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
