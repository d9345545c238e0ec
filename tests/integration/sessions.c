/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens a segment many times from one engine, says so, and keeps it open until stdin ends:
 *     sessions NAME@ADDRESS COUNT [PSK_FILE]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <sluice/sluice.h>

static int die(const char *what)
{
	fprintf(stderr, "sessions: %s: %s\n", what, slu_last_error());
	return 1;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* One operation on the last of them: the sessions are real. */
static int read_some(struct slu_engine *engine, struct slu_remote *remote)
{
	struct slu_queue_options options;
	struct slu_op op = {.opcode = SLU_READ, .remote = remote, .length = 4096};
	struct slu_completion done = {.status = -1};
	struct slu_queue *queue;
	int rc;

	slu_queue_options_init(&options, sizeof(options));
	options.poller = SLU_POLLER_INLINE;
	if (slu_region_alloc(engine, 4096, NULL, &op.region) < 0 ||
	    slu_queue_open(engine, &options, &queue) < 0)
		return die("setting up");
	rc = slu_submit(queue, &op, 1);
	if (rc == 1) {
		slu_wait(queue, 1, UINT64_MAX);
		slu_reap(queue, &done, 1);
	}
	slu_queue_close(queue);
	if (rc == 1 && done.status == 0)
		return 0;
	fprintf(stderr, "sessions: reading: %s\n", slu_strerror(rc < 0 ? rc : done.status));
	return 1;
}

static int open_all(struct slu_engine *engine, const char *name, unsigned count)
{
	struct slu_remote_options options;
	struct slu_remote *remote = NULL;
	double start = seconds();

	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_TCP;
	for (unsigned i = 0; i < count; i++)
		if (slu_remote_open(engine, name, &options, &remote) < 0)
			return die(name);
	printf("open: %u in %.3f s\n", count, seconds() - start);
	fflush(stdout);
	return read_some(engine, remote);
}

int main(int argc, char **argv)
{
	struct slu_engine_options options;
	struct slu_engine *engine;
	int code;

	if (argc < 3) {
		fputs("usage: sessions NAME@ADDRESS COUNT [PSK_FILE]\n", stderr);
		return 2;
	}
	slu_engine_options_init(&options, sizeof(options));
	options.tls.psk_file = argc > 3 ? argv[3] : NULL;
	if (slu_engine_open(&options, &engine) < 0)
		return die("opening the engine");
	code = open_all(engine, argv[1], (unsigned)atoi(argv[2]));
	if (code == 0) {
		puts("ready");
		fflush(stdout);
		while (getchar() != EOF)
			;
	}
	slu_engine_close(engine);
	return code;
}
