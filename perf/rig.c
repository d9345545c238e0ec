/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "net/tls.h"

#define PSK_BYTES      32
#define PSK_PATH_BYTES 32

/* What the two ends are filled with. */
enum {
	LOCAL_DATA,
	REMOTE_DATA,
};

static const uint64_t lengths[RIG_MEMORIES] = {
	[RIG_CACHED] = 4 * MIB,
	[RIG_STREAMING] = GIB,
};

static const char *const identities[RIG_IDENTITIES] = {
	[RIG_PERF] = "perf",
	[RIG_NEIGHBOUR] = "neighbour",
	[RIG_ROGUE] = "rogue",
};

static void write_key(int fd, const char *identity)
{
	unsigned char key[PSK_BYTES];

	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		die("a key: %s", strerror(errno));
	dprintf(fd, "%s:", identity);
	for (unsigned i = 0; i < PSK_BYTES; i++)
		dprintf(fd, "%02x", key[i]);
	dprintf(fd, "\n");
}

/* Keys of this run; both ends read them when they start, then they are gone. */
static void write_psk_file(char path[PSK_PATH_BYTES])
{
	int fd;

	snprintf(path, PSK_PATH_BYTES, "/tmp/sluice-perf-XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	for (unsigned i = 0; i < RIG_IDENTITIES; i++)
		write_key(fd, identities[i]);
	close(fd);
}

static void open_keys(struct rig *rig, const char *psk_file)
{
	for (unsigned i = 0; i < RIG_IDENTITIES; i++) {
		struct slu_tls_options options = {.psk_file = psk_file, .identity = identities[i]};

		if (tls_open(TLS_CLIENT, &options, &rig->keys[i]) != 0)
			die("%s", slu_last_error());
	}
}

static void open_engine(struct rig *rig, const struct rig_options *wanted, const char *psk_file)
{
	struct slu_engine_options options;
	uint32_t pollers = wanted->pollers;
	char cores[32];

	slu_engine_options_init(&options, sizeof(options));
	if (pollers == 1)
		snprintf(cores, sizeof(cores), "%d", rig->bench->cores[1]);
	else
		snprintf(cores, sizeof(cores), "%d,%d", rig->bench->cores[0], rig->bench->cores[1]);
	options.name = "perf";
	options.pollers = pollers;
	options.poll = wanted->poll;
	options.cores = pollers ? cores : NULL;
	options.tcp_connections = wanted->connections;
	options.tls.psk_file = psk_file;
	options.tcp_plain = wanted->siege.on;
	if (slu_engine_open(&options, &rig->engine) != 0)
		die("%s", slu_last_error());
}

static void say_page_size(uint64_t page_bytes)
{
	if (page_bytes < 2 * MIB)
		fprintf(stderr,
			"perf: buffers are on pages of %llu KiB: too few 2 MiB pages free\n",
			(unsigned long long)(page_bytes / KIB));
}

static void open_pair(struct rig *rig, const struct target *target, struct rig_pair *pair,
		      const struct target_segment *segment)
{
	char name[SLU_REMOTE_NAME_MAX + 1];
	bool tcp = target->address[0] != '\0';
	struct slu_region_options region_options;
	struct slu_remote_options remote_options;
	struct slu_region_info info = {.size = sizeof(info)};

	slu_region_options_init(&region_options, sizeof(region_options));
	slu_remote_options_init(&remote_options, sizeof(remote_options));
	remote_options.transport = tcp ? SLU_TRANSPORT_TCP : SLU_TRANSPORT_SHM;
	snprintf(name, sizeof(name), "%s%s%s", segment->name, tcp ? "@" : "", target->address);
	pair->length = segment->length;
	if (slu_region_alloc(rig->engine, segment->length, &region_options, &pair->region) != 0 ||
	    slu_region_get_info(pair->region, &info) != 0 ||
	    slu_remote_open(rig->engine, name, &remote_options, &pair->remote) != 0)
		die("%s", slu_last_error());
	pair->local = slu_region_addr(pair->region);
	pair->mapped = target_map(target, segment);
	memory_fill(pair->local, pair->length, LOCAL_DATA);
	memory_fill(pair->mapped, pair->length, REMOTE_DATA);
	pair->page_bytes = info.page_bytes;
	say_page_size(info.page_bytes);
}

void rig_open(struct rig *rig, const struct bench *bench, const struct rig_options *options)
{
	struct target_segment segments[RIG_MEMORIES];
	struct target_segment peer_segment = {.length = lengths[RIG_CACHED]};
	unsigned count = options->streaming ? RIG_MEMORIES : RIG_STREAMING;
	struct target_options target = {.tcp = options->tcp,
					.answers = options->answers,
					.core = bench->cores[1],
					.siege = options->siege};
	char psk_file[PSK_PATH_BYTES];

	*rig = (struct rig){.bench = bench};
	for (unsigned i = 0; i < count; i++)
		segments[i] = (struct target_segment){.length = lengths[i]};
	if (options->tls) {
		write_psk_file(psk_file);
		target.psk_file = psk_file;
	}
	target_start(&rig->target, segments, count, &target);
	if (options->peer)
		target_start(&rig->peer, &peer_segment, 1, &target);
	open_engine(rig, options, target.psk_file);
	if (options->tls) {
		open_keys(rig, psk_file);
		unlink(psk_file);
	}
	for (unsigned i = 0; i < count; i++) {
		strcpy(rig->names[i], segments[i].name);
		open_pair(rig, &rig->target, &rig->pairs[i], &segments[i]);
	}
	if (options->peer) {
		strcpy(rig->peer_name, peer_segment.name);
		open_pair(rig, &rig->peer, &rig->peer_pair, &peer_segment);
	}
}

static void close_pair(struct rig_pair *pair)
{
	if (pair->mapped)
		munmap(pair->mapped, pair->length);
}

void rig_close(struct rig *rig)
{
	for (unsigned i = 0; i < RIG_MEMORIES; i++)
		close_pair(&rig->pairs[i]);
	close_pair(&rig->peer_pair);
	slu_engine_close(rig->engine);
	for (unsigned i = 0; i < RIG_IDENTITIES; i++)
		tls_close(rig->keys[i]);
	if (rig->peer.pid)
		target_stop(&rig->peer);
	target_stop(&rig->target);
}

struct slu_queue *rig_queue(const struct rig *rig, int32_t poller, uint32_t depth)
{
	struct slu_queue_options options;
	struct slu_queue *queue;

	slu_queue_options_init(&options, sizeof(options));
	options.poller = poller;
	options.depth = depth;
	if (slu_queue_open(rig->engine, &options, &queue) != 0)
		die("%s", slu_last_error());
	return queue;
}
