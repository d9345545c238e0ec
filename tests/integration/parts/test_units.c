/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/units.h"
#include "tests/tap.h"

/* Goal: three significant digits in the unit that reads best, also where rounding carries over. */
static void test_durations(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} cases[] = {
		{0, "0 ns"},
		{999, "999 ns"},
		{1000, "1.00 us"},
		{1234, "1.23 us"},
		{9994, "9.99 us"},
		{9996, "10.0 us"},
		{99940, "99.9 us"},
		{99960, "100 us"},
		{999499, "999 us"},
		{999500, "1.00 ms"},
		{12345678, "12.3 ms"},
		{1500000000, "1.50 s"},
		{3600000000000, "3600 s"},
	};
	char text[UNIT_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unit_format_duration(cases[i].ns, text);
		assert_string_equal(text, cases[i].text);
	}
}

/* Goal: B is bytes, b is bits, i is powers of 1024. */
static void test_throughput(void **state)
{
	char text[UNIT_TEXT];

	(void)state;
	unit_format_bytes(1e9, UNIT_GB, 2, text);
	assert_string_equal(text, "1.00 GB");
	unit_format_bytes(1e9, UNIT_GBIT, 0, text);
	assert_string_equal(text, "8 Gb");
	unit_format_bytes(0x1p30, UNIT_GIB, 1, text);
	assert_string_equal(text, "1.0 GiB");
	unit_format_bytes(0x1p20, UNIT_MIBIT, 1, text);
	assert_string_equal(text, "8.0 Mib");
	unit_format_bytes(1500, UNIT_KB, 3, text);
	assert_string_equal(text, "1.500 KB");
	unit_format_bytes(1024, UNIT_KIBIT, 0, text);
	assert_string_equal(text, "8 Kib");
}

/* Goal: counts are scaled by 1000. */
static void test_counts(void **state)
{
	char text[UNIT_TEXT];

	(void)state;
	unit_format_count(812, text);
	assert_string_equal(text, "812");
	unit_format_count(147900000, text);
	assert_string_equal(text, "148 M");
	unit_format_count(2.5e12, text);
	assert_string_equal(text, "2500 G");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_throughput),
		cmocka_unit_test(test_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
