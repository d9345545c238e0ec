/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files: what is accepted lies within its bounds, and what --print-config makes of it
 * reads back as the same.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/config_file.h"
#include "common/settings.h"
#include "tests/fuzz/fuzz.h"

struct values {
	uint64_t size;
	int depth;
	bool flag;
	const char *address;
	int workload;
	struct option_list segments;
};

static const char *const words[] = {"read", "write", NULL};

static const struct option_spec specs[] = {
	{.section = "All",
	 .name = "size",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct values, size),
	 .initial = "64K",
	 .min = 1},
	{.name = "queue-depth",
	 .type = OPTION_INT,
	 .offset = offsetof(struct values, depth),
	 .initial = "64",
	 .min = 1,
	 .max = 1000},
	{.name = "flag", .type = OPTION_BOOL, .offset = offsetof(struct values, flag)},
	{.name = "address", .type = OPTION_STRING, .offset = offsetof(struct values, address)},
	{.name = "workload",
	 .type = OPTION_ENUM,
	 .offset = offsetof(struct values, workload),
	 .initial = "read",
	 .values = words},
	{.name = "segment", .type = OPTION_LIST, .offset = offsetof(struct values, segments)},
};

static const struct command command = {.name = "fuzz",
				       .section = "target",
				       .specs = specs,
				       .specs_count = sizeof(specs) / sizeof(specs[0]),
				       .config_size = sizeof(struct values)};

static int read_config(const char *bytes, size_t size, struct settings *settings)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	char path[32];
	int rc;

	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
		abort();
	*settings = (struct settings){.command = &command, .path = "fuzz"};
	settings->config = calloc(1, command.config_size);
	if (!settings->config)
		abort();
	options_init(&settings->options, specs, command.specs_count, settings->config);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	rc = config_file_read(path, command.section, &settings->options, &settings->grants,
			      &settings->texts);
	close(fd);
	return rc;
}

static void must(bool good)
{
	if (!good)
		abort();
}

static void check(const struct settings *settings)
{
	const struct values *values = settings->config;
	const struct grants *grants = &settings->grants;

	must(values->size >= 1 && values->depth >= 1 && values->depth <= 1000);
	must(values->workload == 0 || values->workload == 1);
	must(values->segments.count <= OPTION_LIST_MAX && grants->count <= SLU_GRANTS_MAX);
	for (uint32_t i = 0; i < grants->count; i++) {
		const struct slu_grant *grant = &grants->items[i];

		must(grants_check_identity(grant->identity, "fuzz") == 0);
		must(*grant->segment && strlen(grant->segment) <= SLU_NAME_MAX);
		must((grant->rights & ~(SLU_RIGHT_READ | SLU_RIGHT_WRITE)) == 0);
	}
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void check_same(const struct settings *a, const struct settings *b)
{
	const struct values *one = a->config, *other = b->config;

	must(one->size == other->size && one->depth == other->depth && one->flag == other->flag &&
	     one->workload == other->workload && same_text(one->address, other->address));
	must(one->segments.count == other->segments.count);
	for (uint32_t i = 0; i < one->segments.count; i++)
		must(same_text(one->segments.items[i], other->segments.items[i]));
	must(a->grants.count == b->grants.count);
	for (uint32_t i = 0; i < a->grants.count; i++)
		must(same_text(a->grants.items[i].identity, b->grants.items[i].identity) &&
		     same_text(a->grants.items[i].segment, b->grants.items[i].segment) &&
		     a->grants.items[i].rights == b->grants.items[i].rights);
}

/* A line that has become too long to be printed is refused. */
static void read_back(const struct settings *settings)
{
	struct settings again;
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);
	int rc;

	must(out);
	rc = settings_print(settings, out);
	fclose(out);
	if (rc == 0) {
		must(read_config(text, length, &again) == 0);
		check_same(settings, &again);
		settings_fini(&again);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct settings settings;

	if (read_config((const char *)data, size, &settings) == 0) {
		check(&settings);
		read_back(&settings);
	}
	settings_fini(&settings);
	return 0;
}
