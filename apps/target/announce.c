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

static void print_workload(const struct config *config)
{
	fputs(config->read_only ? " --workload read" : " --workload mix --integrity_check", stdout);
	print_fitting_flags(config->segments[0].length_bytes);
	fputs("\n\n", stdout);
}

static void print_command(const struct config *config)
{
	char initiator[PATH_MAX];

	find_initiator(initiator, sizeof(initiator));
	printf("\nTo use it from this host:\n\n  %s --remote_segment %s", initiator,
	       config->segments[0].name);
	if (config->socket)
		printf("@%s", config->socket);
	print_workload(config);
}

/* "HOST:PORT" as another host would write it: every address is none to connect to. */
static void describe_reachable(const char *listen, char *text, size_t size)
{
	bool any = !strncmp(listen, "0.0.0.0:", 8) || !strncmp(listen, "[::]:", 5);
	char host[HOST_NAME_MAX + 1] = "";

	gethostname(host, sizeof(host) - 1);
	if (any && host[0])
		snprintf(text, size, "%s%s", host, strrchr(listen, ':'));
	else
		snprintf(text, size, "%s", listen);
}

static bool is_loopback(const char *listen)
{
	return !strncmp(listen, "127.", 4) || !strncmp(listen, "[::1]:", 6);
}

static void print_remote_command(const struct config *config, const char *listen)
{
	const struct security *security = &config->security;
	char address[SLU_ADDRESS_MAX + 1];

	describe_reachable(listen, address, sizeof(address));
	printf("%s:\n\n  sluice-initiator --remote_segment %s@%s",
	       is_loopback(listen) ? "By TCP, from this host only" : "From another host",
	       config->segments[0].name, address);
	if (security->psk)
		fputs(" --psk FILE --identity NAME", stdout);
	else if (security->tls_cert)
		fputs(" --tls-cert FILE --tls-key FILE --tls-ca FILE", stdout);
	else if (!is_loopback(listen))
		fputs(" --insecure", stdout);
	if (security->tcp_plain)
		fputs(" --tcp-plain", stdout);
	print_workload(config);
}

static void print_listen(const struct config *config, const struct slu_engine_info *engine)
{
	printf("  all of them over TCP at %s, %s\n", engine->listen,
	       !engine->tls                 ? "WITHOUT authentication and encryption"
	       : config->security.tcp_plain ? "TLS, data authenticated but not encrypted"
					    : "TLS");
}

static bool is_served(const struct config *config, const char *segment)
{
	bool served = !strcmp(segment, "*");

	for (uint32_t i = 0; i < config->segments_count; i++)
		served = served || !strcmp(config->segments[i].name, segment);
	return served;
}

/* A name that is mistyped grants nothing to anybody. */
static void print_grants(const struct config *config, const struct grants *grants)
{
	if (grants->count)
		printf("  %u rights are granted to identities\n", grants->count);
	else if (config->listen)
		printf("  no identity is granted anything: whoever is let in may do everything\n");
	for (uint32_t i = 0; i < grants->count; i++)
		if (!is_served(config, grants->items[i].segment))
			printf("  note: identity %s has a right on %s, which is not served here\n",
			       grants->items[i].identity, grants->items[i].segment);
}

static void print_registration(const struct slu_region_info *info)
{
	if (info->devices)
		printf("    registered with %u RDMA device%s in %.2f ms\n", info->devices,
		       info->devices == 1 ? "" : "s", (double)info->register_ns / 1e6);
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
	print_registration(&info);
}

/* Which devices serve, or why none does. */
static void print_rdma(const struct slu_engine_info *engine)
{
	if (engine->rdma)
		printf("  %s: %s\n",
		       engine->rdma_devices ? "all of them over RDMA" : "not over RDMA",
		       engine->rdma);
}

static void print_ready(const struct config *config, const char *listen)
{
	printf("ready: pid=%d segments=", (int)getpid());
	for (uint32_t i = 0; i < config->segments_count; i++)
		printf("%s%s", i ? "," : "", config->segments[i].name);
	if (listen)
		printf(" listen=%s", listen);
	putchar('\n');
}

void announce(const struct serving *serving, const struct config *config,
	      const struct grants *grants)
{
	struct slu_engine_info engine = {.size = sizeof(engine)};

	slu_engine_get_info(serving->engine, &engine);
	printf("sluice-target %s, incarnation %016" PRIx64 "\n", slu_version(), engine.incarnation);
	for (uint32_t i = 0; i < config->segments_count; i++)
		print_segment(serving, config, i);
	if (config->socket)
		printf("  all of them also at the Unix socket %s\n", config->socket);
	if (engine.listen)
		print_listen(config, &engine);
	print_rdma(&engine);
	print_grants(config, grants);
	if (!engine.eal_hugepages)
		puts("  note: no free 2 MiB pages for rings and pools, ordinary pages are used");
	print_command(config);
	if (engine.listen)
		print_remote_command(config, engine.listen);
	print_ready(config, engine.listen);
}
