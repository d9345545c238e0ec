/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: reopen NAME@ADDRESS ROUNDS BULK
 *
 * Open a segment by RDMA, write and read some bytes of it, and close it, so often; each time there
 * are 1 + BULK queue pairs. Fails when something failed, when the bytes were others, or when the
 * process holds more file descriptors, RDMA objects or pinned memory at the end than after the
 * first round.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sluice/sluice.h>

#define BYTES 32768u /* more than one short operation: the bulk queue pairs carry some */

struct held {
	unsigned descriptors;
	unsigned objects;
	unsigned long pinned_kib;
};

static void must(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "reopen: %s: %s (%s)\n", what, slu_last_error(), slu_strerror(rc));
	exit(1);
}

static unsigned count_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned count = 0;

	while (directory && readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* Queue pairs, completion queues and registrations of this process, as the kernel lists them. */
static unsigned count_objects(void)
{
	char command[160];
	unsigned count = 0;
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "for kind in qp cq mr; do rdma resource show $kind; done | grep -c 'pid %d '",
		 (int)getpid());
	pipe = popen(command, "r");
	if (!pipe || fscanf(pipe, "%u", &count) != 1)
		must(-1, command);
	pclose(pipe);
	return count;
}

static unsigned long read_pinned_kib(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[128];

	while (status && fgets(line, sizeof(line), status))
		sscanf(line, "VmPin: %lu", &kib);
	if (status)
		fclose(status);
	return kib;
}

static struct held look(void)
{
	struct held held = {count_descriptors(), count_objects(), read_pinned_kib()};

	printf("reopen: %u descriptors, %u RDMA objects, %lu KiB pinned\n", held.descriptors,
	       held.objects, held.pinned_kib);
	return held;
}

static void move(struct slu_queue *queue, struct slu_op *op, uint8_t opcode)
{
	struct slu_completion done;

	op->opcode = opcode;
	must(slu_submit(queue, op, 1) == 1 ? 0 : -1, "slu_submit");
	while (slu_reap(queue, &done, 1) == 0)
		;
	must(done.status, "a transfer");
}

static void use_once(struct slu_engine *engine, const char *name, struct slu_region *region,
		     unsigned round)
{
	struct slu_queue_options queue_options;
	struct slu_remote_options remote_options;
	struct slu_op op = {.region = region, .length = BYTES};
	char *memory = slu_region_addr(region);
	struct slu_queue *queue;

	slu_queue_options_init(&queue_options, sizeof(queue_options));
	slu_remote_options_init(&remote_options, sizeof(remote_options));
	queue_options.poller = SLU_POLLER_INLINE;
	remote_options.transport = SLU_TRANSPORT_VERBS;
	must(slu_queue_open(engine, &queue_options, &queue), "slu_queue_open");
	must(slu_remote_open(engine, name, &remote_options, &op.remote), "slu_remote_open");
	memset(memory, (int)(round % 255 + 1), BYTES);
	move(queue, &op, SLU_WRITE);
	memset(memory, 0, BYTES);
	move(queue, &op, SLU_READ);
	for (unsigned i = 0; i < BYTES; i++)
		must(memory[i] == (char)(round % 255 + 1) ? 0 : -1, "other bytes came back");
	slu_remote_close(op.remote);
	slu_queue_close(queue);
}

int main(int argc, char **argv)
{
	struct slu_engine_options options;
	struct slu_region_options region_options;
	unsigned rounds = argc == 4 ? (unsigned)atoi(argv[2]) : 0;
	struct slu_engine *engine;
	struct slu_region *region;
	struct held first = {0}, last;

	if (rounds == 0) {
		fprintf(stderr, "usage: reopen NAME@ADDRESS ROUNDS BULK\n");
		return 2;
	}
	slu_engine_options_init(&options, sizeof(options));
	slu_region_options_init(&region_options, sizeof(region_options));
	options.insecure = true;
	options.rdma.queue_pairs = (uint32_t)atoi(argv[3]);
	must(slu_engine_open(&options, &engine), "slu_engine_open");
	must(slu_region_alloc(engine, BYTES, &region_options, &region), "slu_region_alloc");
	for (unsigned i = 0; i < rounds; i++) {
		use_once(engine, argv[1], region, i);
		if (i == 0)
			first = look();
	}
	last = look();
	slu_engine_close(engine);
	return last.descriptors > first.descriptors || last.objects > first.objects ||
	       last.pinned_kib > first.pinned_kib;
}
