/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A target's data service under a client that sends anything. The first byte says how the input is
 * cut; heads that begin with a plausible type get the sequence and the handle that are due, so that
 * the fuzzer reaches what stands behind those checks.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/tcp_pair.h"

static struct tcp_pair pair;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	slu_log_set(SLU_LOG_ERROR, pair_silence, NULL);
	pair_open(&pair, false);
	return 0;
}

static void drain_owner(void)
{
	struct slu_notification note;
	struct inbox_request request;

	while (inbox_poll(pair.export.inbox, 0, &note, 1) > 0)
		;
	while (inbox_receive(pair.export.inbox, 0, &request))
		inbox_reply(pair.export.inbox, 0, request.slot, 0, "answer", 6);
}

/* Heads that a client would not get wrong by accident. */
static void mend(uint8_t *data, size_t size)
{
	const struct tcp_view *view = pair.remote->view;
	struct wire_request head;
	uint32_t sequence = 0;

	for (size_t at = 0; at + sizeof(head) <= size; at += sizeof(head)) {
		memcpy(&head, data + at, sizeof(head));
		if (head.type & 0x80)
			return;
		head.sequence = sequence++;
		head.handle = view->handle;
		head.generation = view->generation;
		head.offset %= PAIR_BYTES + 64;
		head.length %= 8192;
		memcpy(data + at, &head, sizeof(head));
		if (head.type == WIRE_WRITE || head.type == WIRE_NOTIFY || head.type == WIRE_CALL)
			at += head.length;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t cut = size > 0 ? 1 + data[0] * 16u : 1;
	uint8_t *copy = size > 0 ? malloc(size) : NULL;
	char answer[4096];
	int ends[2];

	if (!copy)
		return 0;
	memcpy(copy, data, size);
	if (data[0] & 1)
		mend(copy + 1, size - 1);
	pair_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
	tcp_server_attach(pair.server, &(struct stream){.fd = ends[1]}, PAIR_CONNECTION, 1, NULL);
	for (size_t at = 1; at < size; at += cut) {
		size_t n = size - at < cut ? size - at : cut;

		if (send(ends[0], copy + at, n, MSG_NOSIGNAL) < 0)
			break;
		pair_serve(&pair);
		drain_owner();
		while (read(ends[0], answer, sizeof(answer)) > 0)
			;
	}
	close(ends[0]);
	pair_serve(&pair);
	drain_owner();
	pair_serve(&pair);
	free(copy);
	return 0;
}
