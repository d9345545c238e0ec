/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opens remotes from one engine and writes by them, as the lines of stdin say:
 *     open TRANSPORT NAME[@ADDRESS]
 *     write REMOTE COUNT BYTES LETTER TIMEOUT_MS     so often the same, at the segment's start
 * Each is answered with its number and "0", or the error, or "lands" where it may still arrive.
 * With three arguments its certificate, its key and the authority are in these files.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

#define REMOTES   16
#define COUNT_MAX 64
#define BYTES_MAX (8u << 20)
#define OPEN_US   2000000u

static struct slu_engine *engine;
static struct slu_region *region;
static struct slu_queue *queue;
static struct slu_remote *remotes[REMOTES];
static unsigned remote_count;

static int die(const char *what)
{
	fprintf(stderr, "remotes: %s: %s\n", what, slu_last_error());
	return 1;
}

static void open_remote(unsigned number, const char *transport, const char *name)
{
	struct slu_remote_options options;
	int rc;

	slu_remote_options_init(&options, sizeof(options));
	options.transport = strcmp(transport, "shm") == 0 ? SLU_TRANSPORT_SHM : SLU_TRANSPORT_TCP;
	options.timeout_us = OPEN_US;
	rc = remote_count < REMOTES
		     ? slu_remote_open(engine, name, &options, &remotes[remote_count])
		     : -1;
	if (rc == 0)
		remote_count++;
	printf("%u %d %s\n", number, rc, rc < 0 ? slu_last_error() : "");
}

static void write_some(unsigned number, struct slu_op op, unsigned count, int letter)
{
	bool may_land = false;
	int status = 0;

	memset(slu_region_addr(region), letter, op.length);
	for (unsigned i = 0; i < count; i++)
		if (slu_submit(queue, &op, 1) != 1)
			status = -1;
	for (unsigned reaped = 0; status != -1 && reaped < count;) {
		struct slu_completion done;

		slu_wait(queue, 1, UINT64_MAX);
		if (slu_reap(queue, &done, 1) != 1)
			continue;
		reaped++;
		status = done.status < 0 ? done.status : status;
		may_land |= (done.scope & SLU_MAY_LAND) != 0;
	}
	printf("%u %d %s\n", number, status, may_land ? "lands" : "");
}

static int obey(unsigned number, const char *line)
{
	unsigned remote, count, bytes, timeout_ms;
	char transport[8], name[256], letter;

	if (sscanf(line, "open %7s %255s", transport, name) == 2)
		open_remote(number, transport, name);
	else if (sscanf(line, "write %u %u %u %c %u", &remote, &count, &bytes, &letter,
			&timeout_ms) == 5 &&
		 remote < remote_count && count <= COUNT_MAX && bytes <= BYTES_MAX)
		write_some(number,
			   (struct slu_op){.opcode = SLU_WRITE,
					   .remote = remotes[remote],
					   .region = region,
					   .length = bytes,
					   .timeout_us = 1000 * timeout_ms},
			   count, letter);
	else
		return -1;
	return 0;
}

int main(int argc, char **argv)
{
	struct slu_engine_options options;
	struct slu_queue_options queueing;
	char line[512];

	setvbuf(stdout, NULL, _IOLBF, 0);
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	if (argc == 4) {
		options.tls.cert_file = argv[1];
		options.tls.key_file = argv[2];
		options.tls.ca_file = argv[3];
	}
	slu_queue_options_init(&queueing, sizeof(queueing));
	queueing.depth = COUNT_MAX;
	if (slu_engine_open(&options, &engine) < 0 ||
	    slu_region_alloc(engine, BYTES_MAX, NULL, &region) < 0 ||
	    slu_queue_open(engine, &queueing, &queue) < 0)
		return die("opening the engine");
	for (unsigned number = 1; fgets(line, sizeof(line), stdin); number++)
		if (obey(number, line) < 0)
			return die(line);
	slu_queue_close(queue);
	while (remote_count > 0)
		slu_remote_close(remotes[--remote_count]);
	slu_engine_close(engine);
	return 0;
}
