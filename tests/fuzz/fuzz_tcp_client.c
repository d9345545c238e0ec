/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client with operations of every kind under a target that responds anything: each operation ends
 * exactly once, and nothing is written outside their memory.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/tcp_pair.h"

#define OPS 8u

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	slu_log_set(SLU_LOG_ERROR, pair_silence, NULL);
	return 0;
}

/* @p late: which may time out, a bit each */
static void make_ops(struct tcp_pair *pair, struct slu_op *ops, uint8_t late)
{
	for (uint32_t i = 0; i < OPS; i++) {
		ops[i] = (struct slu_op){.user_data = i,
					 .remote = pair->remote,
					 .region = pair->local,
					 .local_offset = i * 4096u,
					 .length = i * 100u,
					 .opcode = (uint8_t)(i % 4),
					 .timeout_us = late & 1u << i ? PAIR_TIMEOUT_US : 0,
					 .tag = 64};
		if (ops[i].opcode == OP_CALL)
			ops[i].remote_offset = 65536 + i * 64u;
	}
}

static void count(const struct slu_completion *done, uint32_t n, uint32_t *ended)
{
	for (uint32_t i = 0; i < n; i++) {
		if (done[i].user_data >= OPS || done[i].status > 0)
			abort();
		ended[done[i].user_data]++;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t ended[OPS] = {0};
	struct slu_completion done[OPS];
	struct slu_op ops[OPS];
	struct tcp_pair pair;
	size_t cut = size > 0 ? 1 + data[0] * 8u : 1;

	pair_open(&pair, true);
	make_ops(&pair, ops, size > 0 ? data[0] : 0);
	pair_post(&pair, ops, OPS);
	for (size_t at = 1; at < size; at += cut) {
		size_t n = size - at < cut ? size - at : cut;

		if (send(pair.raw, data + at, n, MSG_NOSIGNAL) < 0)
			break;
		if (at > size / 2)
			pair_expire(&pair);
		count(done, pair_poll(&pair, done, OPS), ended);
	}
	requests_cancel(pair.client.poller, NULL, pair.client.queue);
	requests_tell(pair.client.poller);
	count(done, pair_poll(&pair, done, OPS), ended);
	for (uint32_t i = 0; i < OPS; i++)
		if (ended[i] != 1)
			abort();
	pair_close(&pair);
	return 0;
}
