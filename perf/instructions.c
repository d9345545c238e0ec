/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One operation at a time, for counting instructions: valgrind collects those of instructions_submit
 * and instructions_reap, which are the client's whole way of an operation. What it waits for comes
 * in between, so that the first look finds it, and no turn of a poller is counted that has nothing
 * to do. RDMA runs over the model of an mlx5 device, of which no code is on this way.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/conformance/rig.h"

#define WAIT_US 3000u

int instructions_submit(struct slu_queue *queue, const struct slu_op *op);
int instructions_reap(struct slu_queue *queue, struct slu_completion *done);

__attribute__((noinline)) int instructions_submit(struct slu_queue *queue, const struct slu_op *op)
{
	return slu_submit(queue, op, 1);
}

__attribute__((noinline)) int instructions_reap(struct slu_queue *queue,
						struct slu_completion *done)
{
	return slu_reap(queue, done, 1);
}

static const struct {
	const char *name;
	enum slu_transport transport;
} transports[] = {
	{"shm", SLU_TRANSPORT_SHM},
	{"tcp", SLU_TRANSPORT_TCP},
	{"verbs", SLU_TRANSPORT_VERBS},
};

static enum slu_transport transport_of(const char *name)
{
	for (size_t i = 0; i < sizeof(transports) / sizeof(transports[0]); i++)
		if (!strcmp(transports[i].name, name))
			return transports[i].transport;
	fprintf(stderr, "instructions: no transport %s\n", name);
	exit(2);
}

/* @return looks that came too early */
static unsigned run(const struct rig *rig, const struct slu_op *op, unsigned count)
{
	struct slu_completion done;
	unsigned early = 0;

	for (unsigned i = 0; i < count; i++) {
		if (instructions_submit(rig->queue, op) != 1) {
			fprintf(stderr, "instructions: not accepted\n");
			exit(1);
		}
		usleep(WAIT_US);
		while (instructions_reap(rig->queue, &done) == 0) {
			early++;
			usleep(WAIT_US);
		}
		if (done.status < 0) {
			fprintf(stderr, "instructions: %s\n", slu_strerror(done.status));
			exit(1);
		}
	}
	return early;
}

int main(int argc, char **argv)
{
	struct rig_options options = {.title = "instructions"};
	struct slu_op op = {0};
	static struct rig rig;

	if (argc != 5) {
		fprintf(stderr, "Usage: instructions TRANSPORT read|write LENGTH COUNT\n");
		return 2;
	}
	options.transport = transport_of(argv[1]);
	rig_open(&rig, &options);
	op.remote = rig.remote;
	op.region = rig.region;
	op.opcode = strcmp(argv[2], "read") ? SLU_WRITE : SLU_READ;
	op.length = strtoull(argv[3], NULL, 0);
	printf("%u\n", run(&rig, &op, (unsigned)strtoul(argv[4], NULL, 0)));
	rig_close(&rig);
	return 0;
}
