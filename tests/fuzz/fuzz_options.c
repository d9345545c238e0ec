/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines: arguments are separated by newlines; the table has a row of every type. */
#include "common/options.h"
#include "tests/fuzz/fuzz.h"

#define ARGUMENTS_MAX 64

struct values {
	bool flag;
	uint64_t number;
	int integer;
	uint64_t size;
	double rate;
	double real;
	const char *string;
	int word;
	struct option_list list;
};

static const char *const words[] = {"read", "write", "mix", NULL};

#define FIELD(name) offsetof(struct values, name)

static const struct option_spec specs[] = {
	{.section = "All",
	 .name = "flag",
	 .letter = 'f',
	 .type = OPTION_BOOL,
	 .offset = FIELD(flag),
	 .initial = "true",
	 .help = "a boolean"},
	{.name = "some_number",
	 .letter = 'n',
	 .type = OPTION_U64,
	 .offset = FIELD(number),
	 .initial = "0x10",
	 .min = 1,
	 .max = 1000,
	 .argument = "N",
	 .help = "a number"},
	{.name = "integer",
	 .type = OPTION_INT,
	 .offset = FIELD(integer),
	 .initial = "-1",
	 .min = -1,
	 .max = 63,
	 .argument = "N",
	 .help = "an integer"},
	{.name = "size",
	 .type = OPTION_SIZE,
	 .offset = FIELD(size),
	 .initial = "64K",
	 .min = 1,
	 .argument = "SIZE",
	 .help = "a size"},
	{.name = "rate",
	 .type = OPTION_RATE,
	 .offset = FIELD(rate),
	 .argument = "RATE",
	 .help = "a rate"},
	{.name = "real",
	 .type = OPTION_DOUBLE,
	 .offset = FIELD(real),
	 .initial = "1.5",
	 .argument = "X",
	 .help = "a real number"},
	{.name = "string",
	 .type = OPTION_STRING,
	 .offset = FIELD(string),
	 .argument = "TEXT",
	 .help = "a text"},
	{.name = "word",
	 .type = OPTION_ENUM,
	 .offset = FIELD(word),
	 .initial = "mix",
	 .values = words,
	 .help = "a word"},
	{.name = "list",
	 .type = OPTION_LIST,
	 .offset = FIELD(list),
	 .argument = "ITEM",
	 .help = "a list"},
};

static void check(const struct values *values)
{
	if (values->number < 1 || values->number > 1000 || values->integer < -1 ||
	    values->integer > 63 || values->word < 0 || values->word > 2 || values->size < 1 ||
	    values->list.count > OPTION_LIST_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), *rest = text;
	struct values *values = calloc(1, sizeof(*values));
	char *argv[ARGUMENTS_MAX + 1];
	struct options options;
	int argc = 0;

	if (!values)
		abort();
	while (rest && argc < ARGUMENTS_MAX)
		argv[argc++] = strsep(&rest, "\n");
	argv[argc] = NULL;
	options_init(&options, specs, sizeof(specs) / sizeof(specs[0]), values);
	options_parse(&options, argc, argv);
	check(values);
	free(values);
	free(text);
	return 0;
}
