/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operations by batches of one size, for counting instructions: valgrind collects those of
 * instructions_submit and instructions_reap, which are the client's whole way of an operation. What
 * they wait for comes in between, so that the first look finds it, and no turn of a poller is
 * counted that has nothing to do. RDMA runs over the model of an mlx5 device, of which no code is
 * on this way.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/conformance/rig.h"

#define WAIT_US   3000u
#define BATCH_MAX 64u

int instructions_submit(struct slu_queue *queue, const struct slu_op *ops, uint32_t n);
int instructions_reap(struct slu_queue *queue, struct slu_completion *done, uint32_t n);

__attribute__((noinline)) int instructions_submit(struct slu_queue *queue, const struct slu_op *ops,
						  uint32_t n)
{
	return slu_submit(queue, ops, n);
}

__attribute__((noinline)) int instructions_reap(struct slu_queue *queue,
						struct slu_completion *done, uint32_t n)
{
	return slu_reap(queue, done, n);
}

static const struct {
	const char *name;
	enum slu_transport transport;
} transports[] = {
	{"shm", SLU_TRANSPORT_SHM},
	{"tcp", SLU_TRANSPORT_TCP},
	{"verbs", SLU_TRANSPORT_VERBS},
};

static void stop(const char *why)
{
	fprintf(stderr, "instructions: %s\n", why);
	exit(1);
}

static enum slu_transport transport_of(const char *name)
{
	for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++)
		if (!strcmp(transports[i].name, name))
			return transports[i].transport;
	stop("no such transport");
	return SLU_TRANSPORT_AUTO;
}

/* The queue's links are made while its first operation waits: that one is not counted. */
static void begin(const struct rig *rig, const struct slu_op *op)
{
	struct slu_completion done;

	if (slu_submit(rig->queue, op, 1) != 1)
		stop("not accepted");
	while (slu_reap(rig->queue, &done, 1) == 0)
		usleep(WAIT_US);
	if (done.status < 0)
		stop(slu_strerror(done.status));
}

/* @return looks that came too early */
static unsigned run(const struct rig *rig, const struct slu_op *ops, uint32_t n, unsigned count)
{
	struct slu_completion done[BATCH_MAX];
	unsigned early = 0;

	for (unsigned i = 0; i < count; i++) {
		uint32_t reaped = 0;

		if (instructions_submit(rig->queue, ops, n) != (int)n)
			stop("not accepted");
		while (reaped < n) {
			usleep(WAIT_US);
			reaped +=
				(uint32_t)instructions_reap(rig->queue, done + reaped, n - reaped);
			early += reaped < n;
		}
		for (uint32_t k = 0; k < n; k++)
			if (done[k].status < 0)
				stop(slu_strerror(done[k].status));
	}
	return early;
}

int main(int argc, char **argv)
{
	struct rig_options options = {.title = "instructions"};
	struct slu_op ops[BATCH_MAX] = {0};
	static struct rig rig;
	uint32_t n;

	if (argc != 6)
		stop("usage: instructions TRANSPORT read|write LENGTH BATCH COUNT");
	options.transport = transport_of(argv[1]);
	n = (uint32_t)strtoul(argv[4], NULL, 0);
	if (n == 0 || n > BATCH_MAX)
		stop("a batch has 1 to 64 operations");
	rig_open(&rig, &options);
	for (uint32_t i = 0; i < n; i++) {
		ops[i].remote = rig.remote;
		ops[i].region = rig.region;
		ops[i].opcode = strcmp(argv[2], "read") ? SLU_WRITE : SLU_READ;
		ops[i].length = strtoull(argv[3], NULL, 0);
		ops[i].remote_offset = ops[i].local_offset = i * ops[i].length;
	}
	begin(&rig, &ops[0]);
	printf("%u\n", run(&rig, ops, n, (unsigned)strtoul(argv[5], NULL, 0)));
	rig_close(&rig);
	return 0;
}
