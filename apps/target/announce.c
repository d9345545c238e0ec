/* SPDX-License-Identifier: Apache-2.0 */
#include "target/announce.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The initiator of the same build or installation, else the one in PATH. */
static void find_initiator(char *path, size_t size)
{
	static const char *const places[] = {"%.*s/sluice-initiator",
					     "%.*s/../initiator/sluice-initiator"};
	char self[PATH_MAX], candidate[PATH_MAX + 64], real[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	const char *slash;

	snprintf(path, size, "sluice-initiator");
	if (len <= 0)
		return;
	self[len] = '\0';
	slash = strrchr(self, '/');
	for (int i = 0; slash && i < 2; i++) {
		snprintf(candidate, sizeof(candidate), i ? places[1] : places[0],
			 (int)(slash - self), self);
		if (!access(candidate, X_OK) && realpath(candidate, real)) {
			snprintf(path, size, "%s", real);
			return;
		}
	}
}

/* Flags that make the initiator's defaults fit into a small segment; nothing for others. */
static void print_fitting_flags(uint64_t length_bytes)
{
	uint64_t size = 65536;

	if (length_bytes >= size * 16 * 4)
		return;
	while (size > 64 && size * 16 * 4 > length_bytes)
		size /= 2;
	if (size * 16 * 4 <= length_bytes)
		printf(" --size %" PRIu64, size);
	else
		printf(" --threads 1 --batch 1 --size %" PRIu64,
		       length_bytes < size ? length_bytes : size);
}

static void print_command(const struct config *config)
{
	const struct segment_config *segment = &config->segments[0];
	char initiator[PATH_MAX];

	find_initiator(initiator, sizeof(initiator));
	printf("\nTo use it from this host:\n\n  %s --remote_segment %s", initiator, segment->name);
	if (config->socket)
		printf("@%s", config->socket);
	fputs(config->read_only ? " --workload read" : " --workload mix --integrity_check", stdout);
	print_fitting_flags(segment->length_bytes);
	fputs("\n\n", stdout);
}

static void print_segment(const struct serving *serving, const struct config *config, uint32_t i)
{
	struct slu_region_info info = {.size = sizeof(info)};
	char length[OPTION_SIZE_TEXT], page[OPTION_SIZE_TEXT];

	slu_region_get_info(serving->regions[i], &info);
	option_format_size(info.length_bytes, length);
	option_format_size(info.page_bytes, page);
	printf("  segment %s: %s on %s pages, node %d, %s\n", config->segments[i].name, length,
	       page, info.node, config->read_only ? "read only" : "read and write");
	printf("    listens on this host at the abstract Unix socket sluice/%s\n",
	       config->segments[i].name);
}

static void print_ready(const struct config *config)
{
	printf("ready: pid=%d segments=", (int)getpid());
	for (uint32_t i = 0; i < config->segments_count; i++)
		printf("%s%s", i ? "," : "", config->segments[i].name);
	putchar('\n');
}

void announce(const struct serving *serving, const struct config *config)
{
	struct slu_engine_info engine = {.size = sizeof(engine)};

	slu_engine_get_info(serving->engine, &engine);
	printf("sluice-target %s, incarnation %016" PRIx64 "\n", slu_version(), engine.incarnation);
	for (uint32_t i = 0; i < config->segments_count; i++)
		print_segment(serving, config, i);
	if (config->socket)
		printf("  all of them also at the Unix socket %s\n", config->socket);
	if (!engine.eal_hugepages)
		puts("  note: no free 2 MiB pages for rings and pools, ordinary pages are used");
	print_command(config);
	print_ready(config);
}
