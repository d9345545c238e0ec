/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Owns a segment, sleeps until something comes for it, says what came, and answers calls; until it
 * is killed:
 *     owner NAME
 */
#include <poll.h>
#include <stdio.h>

#include <sluice/sluice.h>

#define BYTES 65536u

static int die(const char *what)
{
	fprintf(stderr, "owner: %s: %s\n", what, slu_last_error());
	return 1;
}

static void take_all(struct slu_segment *segment)
{
	struct slu_notification note;
	struct slu_message message;

	while (slu_segment_poll(segment, &note, 1) == 1)
		printf("notified %u\n", note.tag);
	while (slu_segment_receive(segment, &message, 1) == 1) {
		printf("called with %u bytes\n", message.length);
		slu_segment_answer(segment, &message, 0, message.data, message.length);
	}
}

static int serve(struct slu_segment *segment)
{
	struct pollfd wake = {.fd = slu_segment_fd(segment), .events = POLLIN};
	int armed;

	for (;;) {
		take_all(segment);
		armed = slu_segment_arm(segment);
		if (armed < 0)
			return die("arming");
		if (armed == 0)
			poll(&wake, 1, -1);
	}
}

int main(int argc, char **argv)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	struct slu_engine_options options;
	struct slu_segment *segment;
	struct slu_engine *engine;
	struct slu_region *region;

	if (argc != 2)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	slu_engine_options_init(&options, sizeof(options));
	options.listen = "127.0.0.1:0";
	if (slu_engine_open(&options, &engine) < 0)
		return die("opening the engine");
	if (slu_region_alloc(engine, BYTES, NULL, &region) < 0 ||
	    slu_segment_export(engine, argv[1], region, SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL,
			       &segment) < 0 ||
	    slu_engine_get_info(engine, &info) < 0)
		return die("exporting");
	printf("ready: %s\n", info.listen);
	return serve(segment);
}
