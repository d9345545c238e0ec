/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm of data frames, made from a seed: valid ones, nearly valid ones, and noise, in pieces of
 * any size, to the target's service and to the client. libFuzzer finds the clever inputs; this one
 * counts: storm_data COUNT [SEED]. To be built with sanitizers.
 *
 * After every frame that breaks the protocol the connection must be closed, operations must end
 * once, and at the end a well-behaved client must still be served.
 */
#include <stdio.h>

#include "base/random.h"
#include "tests/tcp_pair.h"

#define FRAME_MAX (sizeof(struct wire_request) + SLU_MESSAGE_MAX)
#define OPS       32u

static struct random dice;

static uint32_t below(uint32_t n)
{
	return (uint32_t)random_below(&dice, n);
}

/* Mostly small, sometimes at or beyond a limit. */
static uint32_t odd_length(void)
{
	static const uint32_t edges[] = {0,
					 1,
					 CHANNEL_STAGE_BYTES,
					 CHANNEL_STAGE_BYTES + 1,
					 SLU_MESSAGE_MAX,
					 SLU_MESSAGE_MAX + 1,
					 (uint32_t)TRANSPORT_SLICE_MAX_BYTES + 1,
					 UINT32_MAX};

	return below(50) ? below(100) : edges[below(8)];
}

/* ---- to the target ---- */

struct flow {
	struct tcp_pair *pair;
	int fd;
	uint32_t sequence;
};

static void connect_sender(struct flow *sender)
{
	int ends[2];

	pair_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
	tcp_server_attach(sender->pair->server, &(struct stream){.fd = ends[1]}, PAIR_CONNECTION, 1,
			  NULL);
	sender->fd = ends[0];
	sender->sequence = 0;
}

static void answer_owner(struct tcp_pair *pair)
{
	struct slu_notification note;
	struct inbox_request request;

	while (inbox_poll(pair->export.inbox, 0, &note, 1) > 0)
		;
	while (inbox_receive(pair->export.inbox, 0, &request))
		inbox_reply(pair->export.inbox, 0, request.slot, 0, request.data, request.length);
}

/* @return bytes of the frame; a body is cut to what fits */
static size_t make_request(struct flow *sender, uint8_t *frame)
{
	const struct tcp_view *view = sender->pair->remote->view;
	struct wire_request head = {.type = (uint8_t)(1 + below(4)),
				    .length = odd_length(),
				    .handle = view->handle,
				    .generation = view->generation,
				    .offset = below(200) ? below(PAIR_BYTES) : random_next(&dice),
				    .tag = below(100),
				    .sequence = sender->sequence++};
	size_t body = 0;

	if (below(300) == 0)
		((uint8_t *)&head)[below(sizeof(head))] ^= (uint8_t)(1u << below(8));
	if (head.type != WIRE_READ && head.length <= SLU_MESSAGE_MAX)
		body = head.length;
	memcpy(frame, &head, sizeof(head));
	memset(frame + sizeof(head), (int)below(256), body);
	return sizeof(head) + body;
}

/* In pieces; between them the target has its turn. @return false: the connection was closed */
static bool deliver(struct flow *sender, const uint8_t *frame, size_t length)
{
	char responses[16384];
	size_t at = 0;

	while (at < length) {
		size_t piece = below(4) ? length - at : 1 + below((uint32_t)(length - at));
		ssize_t sent = send(sender->fd, frame + at, piece, MSG_NOSIGNAL);

		if (sent < 0 && errno != EAGAIN)
			return false;
		at += sent > 0 ? (size_t)sent : 0;
		if (sent < 0 || below(8) == 0) {
			sender->pair->service->run(sender->pair->service);
			answer_owner(sender->pair);
			while (recv(sender->fd, responses, sizeof(responses), 0) > 0)
				;
		}
	}
	return true;
}

static void storm_target(struct tcp_pair *pair, uint64_t count)
{
	struct flow sender = {.pair = pair};
	uint8_t frame[FRAME_MAX];

	connect_sender(&sender);
	for (uint64_t i = 0; i < count; i++) {
		size_t length = make_request(&sender, frame);

		if (deliver(&sender, frame, length) && below(2000))
			continue;
		close(sender.fd);
		pair_serve(pair);
		connect_sender(&sender);
	}
	close(sender.fd);
	pair_serve(pair);
}

/* ---- to the client ---- */

static size_t make_response(uint8_t *frame, uint32_t sequence)
{
	struct wire_response head = {.type = (uint8_t)(1 + below(3)),
				     .status = (int16_t)(below(4) ? 0 : -(int)below(140)),
				     .length = below(3) ? 1 : odd_length(),
				     .sequence = sequence + (below(20) ? 0 : below(5))};
	size_t body = head.type != WIRE_DONE && head.length <= 4096 ? head.length : 0;

	if (below(100) == 0)
		((uint8_t *)&head)[below(sizeof(head))] ^= (uint8_t)(1u << below(8));
	memcpy(frame, &head, sizeof(head));
	memset(frame + sizeof(head), (int)below(256), body);
	return sizeof(head) + body;
}

static void make_ops(struct tcp_pair *pair, struct slu_op *ops)
{
	for (uint32_t i = 0; i < OPS; i++) {
		ops[i] = (struct slu_op){.user_data = i,
					 .remote = pair->remote,
					 .region = pair->local,
					 .local_offset = i * 4096u,
					 .length = below(4) ? 1 : below(4096),
					 .opcode = (uint8_t)below(4),
					 .timeout_us = below(4) ? 0 : PAIR_TIMEOUT_US,
					 .tag = 64};
		if (ops[i].opcode == OP_CALL)
			ops[i].remote_offset = 500000 + i * 64u;
	}
}

static void count_ended(struct tcp_pair *pair, uint32_t *ended)
{
	struct slu_completion done[OPS];
	uint32_t n = pair_poll(pair, done, OPS);

	for (uint32_t i = 0; i < n; i++) {
		pair_must(done[i].user_data < OPS && done[i].status <= 0);
		ended[done[i].user_data]++;
	}
}

/* One link, until it breaks or has had 200 responses. @return responses */
static uint64_t storm_one_client(struct tcp_pair *pair)
{
	uint32_t ended[OPS] = {0};
	uint8_t frame[FRAME_MAX];
	struct slu_op ops[OPS];
	uint32_t sent = 0;

	pair_reconnect(pair);
	make_ops(pair, ops);
	pair_post(pair, ops, OPS);
	while (sent < 200 && !pair_link(pair)->error) {
		size_t length = make_response(frame, sent);

		if (send(pair->raw, frame, length, MSG_NOSIGNAL) < 0)
			break;
		sent++;
		if (below(50) == 0)
			pair_expire(pair);
		count_ended(pair, ended);
	}
	requests_cancel(pair->client.poller, NULL, pair->client.queue);
	requests_tell(pair->client.poller);
	count_ended(pair, ended);
	for (uint32_t i = 0; i < OPS; i++)
		pair_must(ended[i] == 1);
	return sent ? sent : 1;
}

/* Is somebody who behaves still served? */
static void check_service(struct tcp_pair *pair)
{
	struct slu_op write = {
		.remote = pair->remote, .region = pair->local, .length = 4096, .opcode = SLU_WRITE};
	struct slu_completion done;
	uint32_t n = 0;

	memset(pair->local->addr, 0x3c, 4096);
	pair_post(pair, &write, 1);
	for (int i = 0; i < 1000 && n == 0; i++) {
		pair_serve(pair);
		n = pair_poll(pair, &done, 1);
	}
	pair_must(n == 1 && done.status == 0);
	pair_must(memcmp(pair->segment->addr, pair->local->addr, 4096) == 0);
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	struct tcp_pair pair;
	uint64_t responses = 0;

	if (count == 0) {
		fprintf(stderr, "usage: %s COUNT [SEED]\n", argv[0]);
		return 2;
	}
	dice.state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	slu_log_set(SLU_LOG_ERROR, pair_silence, NULL);
	pair_open(&pair, false);
	storm_target(&pair, count - count / 5);
	check_service(&pair);
	pair_close(&pair);
	pair_open(&pair, true);
	while (responses < count / 5)
		responses += storm_one_client(&pair);
	pair_close(&pair);
	printf("%llu requests and %llu responses, seed %s: nothing broke\n",
	       (unsigned long long)(count - count / 5), (unsigned long long)responses,
	       argc > 2 ? argv[2] : "1");
	return 0;
}
