/* SPDX-License-Identifier: Apache-2.0 */
/* Against the installed library: one process writes into a segment of its own and reads it back. */
#include <sluice/sluice.h>
#include <stdio.h>
#include <string.h>

static int move(struct slu_queue *queue, const struct slu_op *op)
{
	struct slu_completion done;

	if (slu_submit(queue, op, 1) != 1 || slu_wait(queue, 1, 5000000) != 1 ||
	    slu_reap(queue, &done, 1) != 1)
		return -1;
	return done.status;
}

int main(void)
{
	struct slu_engine_options engine_options;
	struct slu_region_options region_options;
	struct slu_remote_options remote_options;
	struct slu_queue_options inlined;
	struct slu_engine *engine;
	struct slu_region *exported, *local;
	struct slu_segment *segment;
	struct slu_remote *remote;
	struct slu_queue *queue;
	struct slu_op op = {.opcode = SLU_WRITE, .length = 6};
	char *buffer;

	slu_engine_options_init(&engine_options, sizeof(engine_options));
	slu_region_options_init(&region_options, sizeof(region_options));
	slu_remote_options_init(&remote_options, sizeof(remote_options));
	slu_queue_options_init(&inlined, sizeof(inlined));
	inlined.poller = SLU_POLLER_INLINE;
	if (slu_engine_open(&engine_options, &engine) < 0 ||
	    slu_region_alloc(engine, 1 << 20, &region_options, &exported) < 0 ||
	    slu_region_alloc(engine, 1 << 20, &region_options, &local) < 0 ||
	    slu_segment_export(engine, "install-test", exported, SLU_RIGHT_READ | SLU_RIGHT_WRITE,
			       NULL, &segment) < 0 ||
	    slu_remote_open(engine, "install-test", &remote_options, &remote) < 0 ||
	    slu_queue_open(engine, &inlined, &queue) < 0) {
		fprintf(stderr, "%s\n", slu_last_error());
		return 1;
	}
	buffer = slu_region_addr(local);
	memcpy(buffer, "sluice", 6);
	op.remote = remote;
	op.region = local;
	if (move(queue, &op) != 0)
		return 1;
	op.opcode = SLU_READ;
	op.local_offset = 4096;
	if (move(queue, &op) != 0 || memcmp(buffer + 4096, "sluice", 6) != 0)
		return 1;
	slu_engine_close(engine);
	printf("%s works\n", slu_version());
	return 0;
}
