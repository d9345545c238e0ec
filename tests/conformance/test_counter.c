/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Eight clients, half of them in shared memory and half over TCP, and the target itself raise one
 * counter, each so many times, and it is exact.
 *
 * usage: test_counter TIMES
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sluice/sluice.h>

#define CLIENTS 8
#define BATCH   64u
#define NAME    "counter"

static void must(int rc, const char *what)
{
	if (rc >= 0)
		return;
	fprintf(stderr, "%s: %s (%s)\n", what, slu_last_error(), slu_strerror(rc));
	exit(1);
}

static struct slu_engine *open_engine(const char *listen)
{
	struct slu_engine_options options;
	struct slu_engine *engine;

	slu_engine_options_init(&options, sizeof(options));
	options.pollers = listen ? 1 : 0;
	options.listen = listen;
	must(slu_engine_open(&options, &engine), "engine");
	return engine;
}

struct client {
	struct slu_queue *queue;
	struct slu_op op;
	uint64_t *words;
};

static void open_client(struct client *client, unsigned number, const char *address, int pid)
{
	struct slu_engine *engine = open_engine(NULL);
	struct slu_remote_options options;
	char name[SLU_REMOTE_NAME_MAX];

	slu_remote_options_init(&options, sizeof(options));
	options.transport = number % 2 ? SLU_TRANSPORT_TCP : SLU_TRANSPORT_SHM;
	snprintf(name, sizeof(name), number % 2 ? NAME "-%d@%s" : NAME "-%d", pid, address);
	must(slu_remote_open(engine, name, &options, &client->op.remote), name);
	must(slu_region_alloc(engine, BATCH * sizeof(uint64_t), NULL, &client->op.region),
	     "region");
	must(slu_queue_open(engine, NULL, &client->queue), "queue");
	client->words = slu_region_addr(client->op.region);
}

static void run(struct client *client, uint32_t n)
{
	struct slu_completion done[BATCH];
	struct slu_op ops[BATCH];
	uint32_t reaped = 0;

	for (uint32_t i = 0; i < n; i++) {
		ops[i] = client->op;
		ops[i].local_offset = i * sizeof(uint64_t);
	}
	if (slu_submit(client->queue, ops, n) != (int)n)
		must(-1, "submit");
	while (reaped < n) {
		int got = slu_wait(client->queue, n - reaped, UINT64_MAX);

		must(got, "wait");
		got = slu_reap(client->queue, done, BATCH);
		for (int i = 0; i < got; i++)
			must(done[i].status, "operation");
		reaped += (uint32_t)got;
	}
}

/* By one, of what it was when it was looked at last. @return has it been another's meanwhile? */
static int raise_by_swap(struct client *client)
{
	uint64_t seen = client->words[0];

	client->op.operand = seen + 1;
	run(client, 1);
	return client->words[0] != seen;
}

static int raise_counter(unsigned number, uint64_t times, const char *address, int pid)
{
	struct client client = {.op = {.opcode = SLU_FETCH_ADD, .operand = 1}};
	uint64_t swaps = times / 100;

	open_client(&client, number, address, pid);
	for (uint64_t left = times - swaps; left > 0;) {
		uint32_t n = left < BATCH ? (uint32_t)left : BATCH;

		run(&client, n);
		left -= n;
	}
	client.op.opcode = SLU_COMPARE_SWAP;
	for (uint64_t i = 0; i < swaps; i++)
		while (raise_by_swap(&client))
			;
	return 0;
}

static void start_client(unsigned number, uint64_t times, int in, int pid)
{
	char address[SLU_ADDRESS_MAX + 1] = "";

	if (fork() != 0)
		return;
	if (read(in, address, sizeof(address)) <= 0)
		exit(1);
	exit(raise_counter(number, times, address, pid));
}

int main(int argc, char **argv)
{
	uint64_t times = argc == 2 ? strtoull(argv[1], NULL, 10) : 0, expected;
	struct slu_engine_info info = {.size = sizeof(info)};
	char address[SLU_ADDRESS_MAX + 1] = "", name[SLU_NAME_MAX + 1];
	struct slu_segment *segment;
	struct slu_region *region;
	struct slu_engine *engine;
	_Atomic uint64_t *counter;
	int pipes[CLIENTS][2], failed = 0;

	if (times == 0) {
		fprintf(stderr, "usage: %s TIMES\n", argv[0]);
		return 2;
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		must(pipe(pipes[i]), "pipe");
		start_client(i, times, pipes[i][0], (int)getpid());
	}
	engine = open_engine("127.0.0.1:0");
	snprintf(name, sizeof(name), NAME "-%d", (int)getpid());
	must(slu_region_alloc(engine, 4096, NULL, &region), "region");
	must(slu_segment_export(engine, name, region, SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL,
				&segment),
	     "segment");
	must(slu_engine_get_info(engine, &info), "info");
	snprintf(address, sizeof(address), "%s", info.listen);
	counter = slu_region_addr(region);
	for (unsigned i = 0; i < CLIENTS; i++)
		if (write(pipes[i][1], address, sizeof(address)) < 0)
			return 1;
	for (uint64_t i = 0; i < times; i++)
		(*counter)++;
	for (unsigned i = 0; i < CLIENTS; i++) {
		int status;

		failed += wait(&status) < 0 || status != 0;
	}
	expected = times * (CLIENTS + 1);
	printf("%d of %d clients failed; the counter is %llu, %llu is right\n", failed, CLIENTS,
	       (unsigned long long)*counter, (unsigned long long)expected);
	failed += *counter != expected;
	slu_engine_close(engine);
	return failed > 0;
}
