/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/error.h>

#include "common/options.h"
#include "tests/tap.h"

struct values {
	bool check;
	bool progress;
	uint64_t batch;
	uint64_t seed;
	uint64_t size;
	double rate;
	double duration;
	int node;
	int workload;
	const char *json;
	struct option_list segments;
	bool help;
};

static const char *const workloads[] = {"read", "write", "mix", NULL};

#define FIELD(name) offsetof(struct values, name)

static const struct option_spec specs[] = {
	{"Work", "integrity_check", 0, OPTION_BOOL, FIELD(check), "false", .help = "compare"},
	{NULL, "progress", 0, OPTION_BOOL, FIELD(progress), "true", .help = "a live line"},
	{NULL, "batch", 0, OPTION_U64, FIELD(batch), "16", 1, 1024, NULL, "N", "requests"},
	{NULL, "seed", 0, OPTION_U64, FIELD(seed), "1", 0, 0, NULL, "N", "of chance"},
	{NULL, "size", 0, OPTION_SIZE, FIELD(size), "64K", 1, 1 << 30, NULL, "BYTES",
	 "per request"},
	{NULL, "rate", 0, OPTION_RATE, FIELD(rate), NULL, 1, 0, NULL, "R", "requests a second"},
	{NULL, "duration", 0, OPTION_DOUBLE, FIELD(duration), "10", 0, 100, NULL, "S", "seconds"},
	{NULL, "node", 0, OPTION_INT, FIELD(node), "-1", -1, 63, NULL, "N", "NUMA node"},
	{NULL, "workload", 0, OPTION_ENUM, FIELD(workload), "read", .values = workloads,
	 .help = "w"},
	{"Output", "json", 'j', OPTION_STRING, FIELD(json), NULL, .argument = "FILE", .help = "f"},
	{NULL, "local_segment", 0, OPTION_LIST, FIELD(segments), NULL, .argument = "N",
	 .help = "s"},
	{NULL, "help", 'h', OPTION_BOOL, FIELD(help), "false", .help = "this text",
	 .flag_only = true},
};

static struct values values;
static struct options options;

static int reset(void **state)
{
	(void)state;
	memset(&values, 0, sizeof(values));
	options_init(&options, specs, sizeof(specs) / sizeof(specs[0]), &values);
	return 0;
}

static int parse(const char *const *argv)
{
	int argc = 0;

	while (argv[argc])
		argc++;
	return options_parse(&options, argc, (char *const *)(uintptr_t)argv);
}

#define PARSE(...) parse((const char *const[]){"program", __VA_ARGS__, NULL})

static void assert_error(int rc, int expected, const char *part)
{
	assert_int_equal(rc, expected);
	if (!strstr(slu_last_error(), part))
		fail_msg("\"%s\" does not say \"%s\"", slu_last_error(), part);
}

/* Goal: without flags the defaults of the table stand, and nothing counts as given. */
static void test_defaults_stand(void **state)
{
	(void)state;
	assert_int_equal(parse((const char *const[]){"program", NULL}), 0);
	assert_true(values.progress);
	assert_int_equal(values.batch, 16);
	assert_int_equal(values.size, 65536);
	assert_int_equal(values.node, -1);
	assert_int_equal(values.workload, 0);
	assert_null(values.json);
	assert_false(options_given(&options, "batch"));
}

/* Goal: both spellings of names and both forms of values mean the same. */
static void test_spellings_are_equal(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--local_segment", "a", "--local-segment=b", "--batch=3"), 0);
	assert_int_equal(values.segments.count, 2);
	assert_string_equal(values.segments.items[0], "a");
	assert_string_equal(values.segments.items[1], "b");
	assert_int_equal(values.batch, 3);
	assert_true(options_given(&options, "local-segment"));
}

/* Goal: every form of a boolean is understood, and the last one counts. */
static void test_booleans(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--integrity-check", "--no-progress"), 0);
	assert_true(values.check);
	assert_false(values.progress);
	assert_int_equal(PARSE("--integrity_check=false", "--progress", "true"), 0);
	assert_false(values.check);
	assert_true(values.progress);
	assert_int_equal(PARSE("--no_progress", "--integrity_check", "--batch", "2"), 0);
	assert_false(values.progress);
	assert_true(values.check);
	assert_error(PARSE("--progress=maybe"), -EINVAL, "true or false");
	assert_error(PARSE("--no-progress=true"), -EINVAL, "takes no value");
	assert_error(PARSE("--no-batch"), -EINVAL, "takes a value");
}

/* Goal: test_sizes take suffixes of 1024; overflow, signs and rubbish are errors. */
static void test_sizes(void **state)
{
	static const char *const bad[] = {"",     "K",    "-1", "1X",   "1KB", "1 K",
					  "1.5K", "0x10", "+1", "64Ki", "one", "1KiBx"};
	uint64_t bytes = 77;

	(void)state;
	assert_int_equal(option_parse_size("1000", &bytes), 0);
	assert_int_equal(bytes, 1000);
	assert_int_equal(option_parse_size("64k", &bytes), 0);
	assert_int_equal(bytes, 65536);
	assert_int_equal(option_parse_size("3GiB", &bytes), 0);
	assert_int_equal(bytes, UINT64_C(3) << 30);
	assert_int_equal(option_parse_size("16777215T", &bytes), 0);
	assert_int_equal(bytes, UINT64_C(16777215) << 40);
	assert_int_equal(option_parse_size("16777216T", &bytes), -ERANGE);
	assert_int_equal(option_parse_size("18446744073709551616", &bytes), -ERANGE);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(option_parse_size(bad[i], &bytes), -EINVAL);
	assert_int_equal(bytes, UINT64_C(16777215) << 40);
}

/* Goal: a formatted size can be parsed again once its blank is taken out. */
static void test_sizes_are_formatted(void **state)
{
	char text[OPTION_SIZE_TEXT];

	(void)state;
	option_format_size(65536, text);
	assert_string_equal(text, "64 KiB");
	option_format_size(1000, text);
	assert_string_equal(text, "1000 B");
	option_format_size(0, text);
	assert_string_equal(text, "0 B");
	option_format_size(UINT64_C(5) << 40, text);
	assert_string_equal(text, "5 TiB");
}

/* Goal: test_numbers outside their limits name the limits; the field keeps its value. */
static void test_limits_are_named(void **state)
{
	(void)state;
	assert_error(PARSE("--batch", "0"), -ERANGE, "1 to 1024");
	assert_error(PARSE("--batch=1025"), -ERANGE, "1 to 1024");
	assert_error(PARSE("--size", "0"), -ERANGE, "1 B to 1 GiB");
	assert_error(PARSE("--size", "2G"), -ERANGE, "1 B to 1 GiB");
	assert_error(PARSE("--node", "-2"), -ERANGE, "-1 to 63");
	assert_error(PARSE("--node", "99999999999999999999"), -ERANGE, "-1 to 63");
	assert_error(PARSE("--rate", "0"), -ERANGE, "at least 1");
	assert_error(PARSE("--duration", "101"), -ERANGE, "0 to 100");
	assert_error(PARSE("--seed", "18446744073709551616"), -ERANGE, "2^64");
	assert_int_equal(values.batch, 16);
	assert_int_equal(values.size, 65536);
	assert_int_equal(values.node, -1);
}

/* Goal: the whole of a number is read: every 64-bit one, hexadecimal, fractions, rates. */
static void test_numbers(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--seed=0xffffffffffffffff", "--rate", "2.5M", "--duration=.5"), 0);
	assert_int_equal(values.seed, UINT64_MAX);
	assert_true(values.rate == 2.5e6);
	assert_true(values.duration == 0.5);
	assert_error(PARSE("--seed", "-1"), -EINVAL, "a whole number");
	assert_error(PARSE("--batch", "1x"), -EINVAL, "a whole number");
	assert_error(PARSE("--duration", "nan"), -EINVAL, "a number");
	assert_error(PARSE("--duration", "1e999"), -EINVAL, "a number");
	assert_error(PARSE("--duration", "1k"), -EINVAL, "a number");
	assert_error(PARSE("--rate", "1kk"), -EINVAL, "a rate");
}

/* Goal: an unknown word lists the known ones. */
static void test_unknown_word_lists_words(void **state)
{
	(void)state;
	assert_int_equal(PARSE("--workload", "mix"), 0);
	assert_int_equal(values.workload, 2);
	assert_error(PARSE("--workload", "mixed"), -EINVAL, "read, write, mix");
	assert_int_equal(values.workload, 2);
}

/* Goal: an unknown option suggests the nearest one, and only when it is near. */
static void test_unknown_option_suggests(void **state)
{
	(void)state;
	assert_error(PARSE("--intgrity-check"), -ENOENT, "did you mean --integrity_check?");
	assert_error(PARSE("--bach=1"), -ENOENT, "did you mean --batch?");
	assert_error(PARSE("--xyzzyplugh"), -ENOENT, "--help");
	assert_error(PARSE("--no-such-thing"), -ENOENT, "--no-such-thing");
	assert_error(PARSE("-x"), -ENOENT, "two dashes");
}

/* Goal: a flag never takes the next flag for its value, and stray words are refused. */
static void test_missing_values_and_stray_words(void **state)
{
	(void)state;
	assert_error(PARSE("--json"), -EINVAL, "needs a value: FILE");
	assert_error(PARSE("--json", "--progress"), -EINVAL, "needs a value: FILE");
	assert_error(PARSE("--json="), -EINVAL, "needs a value: FILE");
	assert_error(PARSE("segment0"), -EINVAL, "segment0");
	assert_error(PARSE("--"), -ENOENT, "--");
	assert_error(PARSE("-"), -EINVAL, "unexpected");
	assert_error(PARSE(""), -EINVAL, "unexpected");
}

/* Goal: test_letters stand for their long flags. */
static void test_letters(void **state)
{
	(void)state;
	assert_int_equal(PARSE("-h", "-j", "out.json"), 0);
	assert_true(values.help);
	assert_string_equal(values.json, "out.json");
}

/* Goal: a list takes its limit and not one more. */
static void test_list_is_bounded(void **state)
{
	(void)state;
	for (int i = 0; i < OPTION_LIST_MAX; i++)
		assert_int_equal(PARSE("--local_segment", "x"), 0);
	assert_error(PARSE("--local_segment", "x"), -E2BIG, "64");
	assert_int_equal(values.segments.count, OPTION_LIST_MAX);
}

/* Goal: other sources set the same table, and their place stands in the message. */
static void test_other_sources(void **state)
{
	(void)state;
	assert_int_equal(options_set(&options, "integrity-check", "true", "f:1"), 0);
	assert_true(values.check);
	assert_error(options_set(&options, "batch", "many", "f:2: batch"), -EINVAL, "f:2: batch");
	assert_error(options_set(&options, "bath", "1", "f:3: bath"), -ENOENT, "--batch");
}

/* Goal: over-long input neither overflows nor hides the message. */
static void test_long_input_is_bounded(void **state)
{
	static char flag[5000] = "--", value[5000] = "--size=";

	(void)state;
	memset(flag + 2, 'a', sizeof(flag) - 3);
	memset(value + 7, '9', sizeof(value) - 8);
	assert_error(PARSE(flag), -ENOENT, "unknown option");
	assert_error(PARSE(value), -ERANGE, "1 B to 1 GiB");
	memset(value + 7, 'x', sizeof(value) - 8);
	assert_error(PARSE(value), -EINVAL, "is not a size");
}

/* Goal: --help names every option, its default and its words, within 100 columns. */
static void test_help_is_complete_and_narrow(void **state)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	(void)state;
	assert_non_null(out);
	options_print_help(&options, out);
	fclose(out);
	for (size_t i = 0; i < sizeof(specs) / sizeof(specs[0]); i++)
		assert_non_null(strstr(text, specs[i].name));
	assert_non_null(strstr(text, "read|write|mix"));
	assert_non_null(strstr(text, "(default 64K)"));
	assert_non_null(strstr(text, "-h, --help"));
	assert_non_null(strstr(text, "Output:"));
	for (char *line = text; *line; line += strcspn(line, "\n") + 1)
		assert_in_range(strcspn(line, "\n"), 0, 100);
	free(text);
}

/* Goal: a stronger source replaces a weaker one's value, a list as a whole; origins are kept. */
static void test_sources(void **state)
{
	(void)state;
	options_source(&options, OPTION_FROM_FILE, 3);
	assert_int_equal(options_set(&options, "batch", "5", "f:3: batch"), 0);
	options_source(&options, OPTION_FROM_FILE, 4);
	assert_int_equal(options_set(&options, "local_segment", "a", "f:4"), 0);
	options_source(&options, OPTION_FROM_FILE, 6);
	assert_int_equal(options_set(&options, "local_segment", "b", "f:6"), 0);
	assert_int_equal(values.segments.count, 2);
	assert_int_equal(values.segments.lines[1], 6);
	options_source(&options, OPTION_FROM_ENVIRONMENT, 0);
	assert_int_equal(options_set(&options, "batch", "6", "X_BATCH"), 0);
	assert_int_equal(PARSE("--local-segment", "c"), 0);
	assert_int_equal(values.batch, 6);
	assert_int_equal(values.segments.count, 1);
	assert_string_equal(values.segments.items[0], "c");
	assert_int_equal(options.origins[2].source, OPTION_FROM_ENVIRONMENT);
	assert_int_equal(options.origins[10].source, OPTION_FROM_COMMAND_LINE);
	assert_int_equal(options.origins[3].source, OPTION_FROM_DEFAULT);
}

/* Goal: some options are flags only, and a file is told so. */
static void test_flag_only(void **state)
{
	(void)state;
	options_source(&options, OPTION_FROM_FILE, 1);
	assert_error(options_set(&options, "help", "true", "f:1: help"), -EINVAL,
		     "f:1: help: give");
	assert_false(values.help);
}

/* Goal: what looks like a word or an option is suggested, what looks like none is not. */
static void test_nearest(void **state)
{
	(void)state;
	assert_string_equal(option_nearest_word(workloads, "wrte"), "write");
	assert_null(option_nearest_word(workloads, "pigeon"));
	assert_string_equal(options_nearest(&options, "bach"), "batch");
	assert_null(options_nearest(&options, "elephant"));
	assert_error(PARSE("--workload", "raed"), -EINVAL, "did you mean read?");
	options_source(&options, OPTION_FROM_FILE, 1);
	assert_error(options_set(&options, "bach", "1", "f:1: bach"), -ENOENT, "mean batch?");
}

static void assert_prints(const char *name, const char *expected)
{
	const struct option_spec *spec = options_find(&options, name);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(spec);
	assert_non_null(out);
	options_print_value(&options, spec, options_value_count(&options, spec) - 1, out);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

/* Goal: every type is written as it is read; a text that is not set has no value. */
static void test_values_print(void **state)
{
	(void)state;
	assert_int_equal(options_value_count(&options, options_find(&options, "json")), 0);
	assert_int_equal(options_value_count(&options, options_find(&options, "local_segment")), 0);
	assert_int_equal(PARSE("--size", "3M", "--rate", "1.1", "--seed", "0xff", "--node", "-1",
			       "--json", "a b", "--local_segment", "x", "--local-segment", "y",
			       "--duration", "2.5", "--workload", "mix"),
			 0);
	assert_prints("size", "3M");
	assert_prints("rate", "1.1");
	assert_prints("seed", "255");
	assert_prints("node", "-1");
	assert_prints("json", "a b");
	assert_prints("local-segment", "y");
	assert_prints("duration", "2.5");
	assert_prints("workload", "mix");
	assert_prints("progress", "true");
	values.duration = 1.0 / 3;
	assert_prints("duration", "0.33333333333333331");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_defaults_stand, reset),
		cmocka_unit_test_setup(test_spellings_are_equal, reset),
		cmocka_unit_test_setup(test_booleans, reset),
		cmocka_unit_test_setup(test_sizes, reset),
		cmocka_unit_test_setup(test_sizes_are_formatted, reset),
		cmocka_unit_test_setup(test_limits_are_named, reset),
		cmocka_unit_test_setup(test_numbers, reset),
		cmocka_unit_test_setup(test_unknown_word_lists_words, reset),
		cmocka_unit_test_setup(test_unknown_option_suggests, reset),
		cmocka_unit_test_setup(test_missing_values_and_stray_words, reset),
		cmocka_unit_test_setup(test_letters, reset),
		cmocka_unit_test_setup(test_list_is_bounded, reset),
		cmocka_unit_test_setup(test_other_sources, reset),
		cmocka_unit_test_setup(test_long_input_is_bounded, reset),
		cmocka_unit_test_setup(test_help_is_complete_and_narrow, reset),
		cmocka_unit_test_setup(test_sources, reset),
		cmocka_unit_test_setup(test_flag_only, reset),
		cmocka_unit_test_setup(test_nearest, reset),
		cmocka_unit_test_setup(test_values_print, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
