/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may still land at a target: clients that raise fences at real servers, some of them through
 * a relay that can lose the connection for the client alone.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/client.h"
#include "control/server.h"
#include "directory/p2p.h"
#include "net/address.h"
#include "tests/tap.h"
#include "transport/transport.h"

#define PATIENCE_MS  60000
#define SETTLE_MS    1300 /* longer than what was not answered waits to be asked again */
#define TIMEOUT_US   60000000
#define INCARNATION  UINT64_C(0xabc)
#define LINK         UINT64_C(0xfedcba9876543210)
#define FORSAKEN     80 /* more than are remembered */
#define ROUNDS       20
#define RAISERS      4
#define RAISED_BY_ME 50

static const struct trust trust;
static struct control_thread *control, *server_control;
static struct client_pool *pool;
static struct server *server;
static struct endpoint here, relayed, by_tcp;

/* ---- the target ---- */

static _Atomic unsigned fenced, gone, lost;
static _Atomic uint64_t fenced_link, fenced_of, gone_last;
static _Atomic bool held; /* the target carries on with what ends when held_until is posted */
static sem_t held_until;
static _Atomic bool refuses;  /* it does not say that something is over */
static _Atomic unsigned said; /* by the client: that it waits */

static int on_open(void *arg, const struct peer_info *peer, const char *segment, uint32_t rights,
		   const json_t *transports, json_t *answer, int fds[MESSAGE_FDS_MAX],
		   uint32_t *close_mask, void **client)
{
	json_t *fields = json_pack("{s:s, s:i, s:i, s:i, s:i, s:{}}", "transport", "tcp", "length",
				   4096, "rights", rights, "page_bytes", 4096, "node", 0, "grant");

	(void)arg;
	(void)peer;
	(void)segment;
	(void)transports;
	(void)fds;
	(void)close_mask;
	json_object_update(answer, fields);
	json_decref(fields);
	*client = &server;
	return 0;
}

static void on_moved(void *client, uint64_t operations, uint64_t bytes_read, uint64_t bytes_written)
{
	(void)client;
	(void)operations;
	(void)bytes_read;
	(void)bytes_written;
}

static void on_close(void *client, bool was_lost)
{
	(void)client;
	(void)was_lost;
}

static void on_fence(void *arg, uint64_t connection, uint64_t link)
{
	(void)arg;
	atomic_store(&fenced_of, connection);
	atomic_store(&fenced_link, link);
	atomic_fetch_add(&fenced, 1);
	if (held)
		sem_wait(&held_until);
}

static void on_gone(void *arg, uint64_t connection)
{
	(void)arg;
	atomic_store(&gone_last, connection);
	atomic_fetch_add(&gone, 1);
	if (held)
		sem_wait(&held_until);
}

static int on_settle(void *arg, const struct fence_ask *ask)
{
	(void)arg;
	(void)ask;
	return refuses ? fail(-EIO, "not yet") : 0;
}

static const struct server_callbacks callbacks = {.open = on_open,
						  .moved = on_moved,
						  .close = on_close,
						  .fence = on_fence,
						  .gone = on_gone,
						  .settle = on_settle};

static void start_target(uint64_t incarnation)
{
	struct server_options options = {.control = server_control,
					 .trust = &trust,
					 .name = "unit",
					 .incarnation = incarnation,
					 .callbacks = &callbacks};
	struct listener *listener;

	assert_int_equal(server_create(&options, &server), 0);
	assert_int_equal(server_listen(server, &here.path, here.path_length, &listener), 0);
	assert_int_equal(server_listen_tcp(server, "127.0.0.1:0", false, &listener), 0);
	assert_int_equal(address_parse(listener_address(listener), &by_tcp.tcp), 0);
}

static void stop_target(void)
{
	server_destroy(server);
	server = NULL;
}

/* ---- relays: each of one connection ---- */

enum relaying {
	RELAY_PASSES,
	RELAY_STALLS, /* what the client says does not arrive */
	RELAY_CUT,    /* the client has lost its connection, the target has not noticed */
	RELAY_OVER,
};

static struct relay {
	int listener;
	struct endpoint to;
	pthread_t thread;
	_Atomic int does, knows;
} relays[2], *const relay = &relays[0], *const other_relay = &relays[1];

/* @return false: that end has gone */
static bool pass(int from, int to)
{
	char bytes[4096];
	ssize_t got = recv(from, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (got > 0)
		send(to, bytes, (size_t)got, MSG_NOSIGNAL);
	return got > 0 || (got < 0 && errno == EAGAIN);
}

static void *play_relay(void *arg)
{
	struct relay *of = arg;
	int in = accept4(of->listener, NULL, NULL, SOCK_CLOEXEC);
	int out = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool passes = connect(out, (const struct sockaddr *)&of->to.path, of->to.path_length) == 0;

	while (passes && of->does < RELAY_CUT) {
		struct pollfd ends[2] = {{.fd = in, .events = POLLIN},
					 {.fd = out, .events = POLLIN}};

		poll(ends, 2, 1);
		of->knows = of->does;
		passes = pass(out, in) && (of->knows != RELAY_PASSES || pass(in, out));
	}
	close(in);
	while (passes && of->does != RELAY_OVER)
		usleep(1000);
	close(out);
	return NULL;
}

static void name_endpoint(struct endpoint *endpoint)
{
	static unsigned serial;
	char name[32];

	snprintf(name, sizeof(name), "unit-fence-%d-%u", (int)getpid(), serial++);
	endpoint->is_unix = true;
	p2p_segment_address(name, &endpoint->path, &endpoint->path_length);
}

static void start(struct relay *of)
{
	of->does = of->knows = RELAY_PASSES;
	of->to = here;
	of->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	name_endpoint(&relayed);
	assert_int_equal(
		bind(of->listener, (const struct sockaddr *)&relayed.path, relayed.path_length), 0);
	assert_int_equal(listen(of->listener, 1), 0);
	assert_int_equal(pthread_create(&of->thread, NULL, play_relay, of), 0);
}

static void start_relay(void)
{
	start(relay);
}

/* From now on nothing that the client says arrives. */
static void stall(struct relay *of)
{
	of->does = RELAY_STALLS;
	while (of->knows != RELAY_STALLS)
		usleep(100);
}

static void stall_relay(void)
{
	stall(relay);
}

static void stop(struct relay *of)
{
	of->does = RELAY_OVER;
	pthread_join(of->thread, NULL);
	close(of->listener);
}

static void stop_relay(void)
{
	stop(relay);
}

/* ---- the client ---- */

static void on_lost(void *arg, int error)
{
	(void)arg;
	(void)error;
	atomic_fetch_add(&lost, 1);
}

static void on_totals(void *arg, struct client_totals *totals)
{
	(void)arg;
	*totals = (struct client_totals){0};
}

struct user {
	struct client *client;
	struct transport_peer *peer;
	struct session *session;
};

static struct user use(const struct endpoint *endpoint)
{
	static const struct session_callbacks session_callbacks = {.lost = on_lost,
								   .totals = on_totals};
	static const enum slu_transport transports[] = {SLU_TRANSPORT_TCP};
	const struct session_request request = {.segment = "ram",
						.rights = SLU_RIGHT_WRITE,
						.transports = transports,
						.transport_count = 1,
						.until_ns = clock_deadline_ns(TIMEOUT_US),
						.callbacks = &session_callbacks};
	struct client_grant grant;
	struct user user;
	int rc = client_connect(pool, endpoint, "ram", clock_deadline_ns(TIMEOUT_US), &user.client);

	if (rc < 0)
		fail_msg("connect: %d (%s)", rc, slu_last_error());
	user.peer = client_peer(user.client);
	assert_int_equal(session_open(user.client, &request, &user.session, &grant), 0);
	client_grant_free(&grant);
	return user;
}

static void leave(struct user *user)
{
	session_close(user->session);
	client_release(user->client);
}

static void raise_fence(const struct user *user, uint64_t link)
{
	struct fence_ticket *ticket = user->peer->ticket(user->peer, link);

	assert_non_null(ticket);
	user->peer->raise(ticket);
}

static int set_up(void **state)
{
	struct client_pool_options options = {.name = "unit", .trust = &trust};

	(void)state;
	fenced = gone = lost = said = 0;
	held = refuses = false;
	sem_init(&held_until, 0, 0);
	name_endpoint(&here);
	if (control_thread_start(&control) < 0 || control_thread_start(&server_control) < 0)
		return -1;
	options.control = control;
	if (client_pool_create(&options, &pool) < 0)
		return -1;
	start_target(INCARNATION);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	held = false;
	sem_post(&held_until); /* a test that failed has left it so */
	client_pool_destroy(pool);
	server_destroy(server);
	control_thread_stop(control);
	control_thread_stop(server_control);
	sem_destroy(&held_until);
	return 0;
}

static bool becomes(_Atomic unsigned *count, unsigned value)
{
	for (int i = 0; i < PATIENCE_MS && atomic_load(count) != value; i++)
		usleep(1000);
	return atomic_load(count) == value;
}

static void lose(void)
{
	unsigned before = atomic_load(&lost);

	relay->does = RELAY_CUT;
	assert_true(becomes(&lost, before + 1));
}

/* ---- tests ---- */

/* Goal: a fence stands from when it is raised until the target has ended the link, and has said so;
 * it stands for all that the client has open there. */
static void test_answered(void **state)
{
	struct user user = use(&here), other;

	(void)state;
	start_relay();
	other = use(&relayed);
	assert_ptr_not_equal(user.client, other.client);
	assert_ptr_equal(user.peer->fence, other.peer->fence);
	assert_int_equal(user.peer->fence->pending, 0);
	held = true;
	raise_fence(&user, LINK);
	assert_int_equal(other.peer->fence->pending, 1);
	assert_true(becomes(&fenced, 1));
	assert_int_equal(fenced_link, LINK);
	assert_int_equal(fenced_of, 1);
	usleep(SETTLE_MS * 1000); /* and is not asked for again meanwhile */
	assert_int_equal(user.peer->fence->pending, 1);
	held = false;
	sem_post(&held_until);
	assert_true(becomes(&user.peer->fence->pending, 0));
	usleep(SETTLE_MS * 1000);
	assert_int_equal(fenced, 1);
	assert_int_equal(gone, 0);
	leave(&user);
	leave(&other);
	stop_relay();
}

/* Goal: links that ended with nothing under way raise nothing. */
static void test_forgone(void **state)
{
	struct user user = use(&here);

	(void)state;
	user.peer->forgo(NULL);
	for (uint64_t i = 0; i < 10; i++)
		user.peer->forgo(user.peer->ticket(user.peer, i));
	assert_int_equal(user.peer->fence->pending, 0);
	leave(&user);
	assert_true(becomes(&gone, 1));
	assert_int_equal(fenced, 0);
}

/* Goal: if the connection is lost as well, the fence stands until a later one to the same target
 * names it there: then that is over, though the target had not noticed. */
static void test_orphaned(void **state)
{
	struct user old, next;
	struct fence *fence;

	(void)state;
	start_relay();
	old = use(&relayed);
	fence = old.peer->fence;
	lose();
	assert_true(old.peer->lost);
	assert_int_equal(server_connection_count(server), 1);
	raise_fence(&old, LINK);
	usleep(SETTLE_MS * 1000);
	assert_int_equal(fence->pending, 1);
	assert_int_equal(gone, 0);
	next = use(&here);
	assert_ptr_equal(next.peer->fence, fence);
	assert_true(becomes(&fence->pending, 0));
	assert_int_equal(gone, 1);
	assert_int_equal(gone_last, 1);
	assert_int_equal(fenced, 0);
	assert_int_equal(server_connection_count(server), 1);
	leave(&old);
	leave(&next);
	stop_relay();
}

/* Goal: what was asked and not answered when the connection was lost is asked over another one that
 * is there; what is raised after that is too. */
static void test_lost_while_asking(void **state)
{
	struct user old, next = use(&here);

	(void)state;
	start_relay();
	old = use(&relayed);
	stall_relay();
	raise_fence(&old, LINK);
	usleep(SETTLE_MS * 1000);
	assert_int_equal(next.peer->fence->pending, 1);
	assert_int_equal(fenced, 0);
	lose();
	assert_true(becomes(&next.peer->fence->pending, 0));
	assert_int_equal(gone, 1);
	assert_int_equal(gone_last, 2);
	raise_fence(&old, LINK + 1); /* a poller is told of the end last */
	assert_true(becomes(&next.peer->fence->pending, 0));
	assert_int_equal(fenced, 0);
	assert_int_equal(gone, 1);
	leave(&old);
	leave(&next);
	stop_relay();
}

/* Goal: a connection that is lost, and not known to be, keeps no other from being asked. */
static void test_black_hole(void **state)
{
	struct user old, hole, good = use(&here);

	(void)state;
	start_relay();
	old = use(&relayed);
	start(other_relay);
	hole = use(&relayed);
	stall(other_relay);
	lose();
	raise_fence(&old, LINK);
	assert_true(becomes(&good.peer->fence->pending, 0));
	assert_int_equal(gone, 1);
	assert_int_equal(gone_last, 2);
	leave(&old);
	leave(&hole);
	leave(&good);
	stop(other_relay);
	stop_relay();
}

static void count_said(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	if (level == SLU_LOG_WARNING && strstr(text, "target unit does not confirm"))
		atomic_fetch_add(&said, 1);
}

/* Goal: that a target refuses to say that a lost connection is over is said once, and it is asked
 * again. */
static void test_refused(void **state)
{
	struct user old, next = use(&here);

	(void)state;
	start_relay();
	old = use(&relayed);
	refuses = true;
	slu_log_set(SLU_LOG_WARNING, count_said, NULL);
	lose();
	raise_fence(&old, LINK);
	assert_true(becomes(&said, 1));
	usleep(SETTLE_MS * 1000);
	assert_int_equal(next.peer->fence->pending, 1);
	refuses = false;
	assert_true(becomes(&next.peer->fence->pending, 0));
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	assert_int_equal(said, 1);
	leave(&old);
	leave(&next);
	stop_relay();
}

/* Goal: another target confirms nothing, and is not held up itself; the one that is meant does,
 * also when nobody has held a connection to it meanwhile. */
static void test_other_target(void **state)
{
	struct endpoint there = here;
	struct server *meant = server;
	struct user old, other, back;
	struct fence *fence;

	(void)state;
	start_relay();
	old = use(&relayed);
	fence = old.peer->fence;
	lose();
	raise_fence(&old, LINK);
	name_endpoint(&here);
	start_target(INCARNATION + 1);
	other = use(&here);
	assert_ptr_not_equal(other.peer->fence, fence);
	usleep(SETTLE_MS * 1000);
	assert_int_equal(fence->pending, 1);
	assert_int_equal(other.peer->fence->pending, 0);
	raise_fence(&other, LINK);
	assert_true(becomes(&other.peer->fence->pending, 0));
	assert_int_equal(fence->pending, 1);
	leave(&old);
	leave(&other);
	back = use(&there);
	assert_ptr_equal(back.peer->fence, fence); /* was remembered */
	assert_true(becomes(&fence->pending, 0));
	leave(&back);
	server_destroy(meant);
	stop_relay();
}

/* Goal: a target has one fence at all its addresses: what is raised at one stands at the others,
 * and when its connection is lost, one to another address lets it go. */
static void test_other_address(void **state)
{
	struct user old, other;

	(void)state;
	start_relay();
	old = use(&relayed);
	other = use(&by_tcp);
	assert_ptr_equal(other.peer->fence, old.peer->fence);
	stall_relay();
	raise_fence(&old, LINK);
	assert_int_equal(other.peer->fence->pending, 1);
	lose();
	assert_true(becomes(&other.peer->fence->pending, 0));
	assert_int_equal(gone, 1);
	assert_int_equal(gone_last, 1);
	leave(&old);
	leave(&other);
	stop_relay();
}

/* Goal: who says that he is that target and is not holds up nobody and lets nobody go; the one that
 * is meant is found beside him, by connections that are lost as well. */
static void test_liar(void **state)
{
	struct endpoint there = here, there_by_tcp = by_tcp;
	struct server *meant = server;
	struct user old, liar, again, found;

	(void)state;
	start_relay();
	old = use(&relayed);
	name_endpoint(&here);
	start_target(INCARNATION);
	liar = use(&here);
	assert_ptr_not_equal(liar.peer->fence, old.peer->fence);
	raise_fence(&liar, LINK);
	assert_true(becomes(&liar.peer->fence->pending, 0));
	stall_relay();
	raise_fence(&old, LINK);
	lose();
	assert_int_equal(liar.peer->fence->pending, 0);
	again = use(&by_tcp);
	assert_ptr_equal(again.peer->fence, liar.peer->fence);
	usleep(SETTLE_MS * 1000);
	assert_int_equal(old.peer->fence->pending, 1);
	assert_int_equal(gone, 0);
	found = use(&there_by_tcp);
	assert_ptr_equal(found.peer->fence, old.peer->fence);
	assert_true(becomes(&found.peer->fence->pending, 0));
	assert_int_equal(gone, 1);
	leave(&found);
	found = use(&there);
	assert_ptr_equal(found.peer->fence, old.peer->fence);
	leave(&old);
	leave(&again);
	leave(&liar);
	leave(&found);
	server_destroy(meant);
	stop_relay();
}

struct opener {
	const struct endpoint *endpoint;
	pthread_barrier_t *begin;
	struct user user;
};

static void *open_one(void *arg)
{
	struct opener *opener = arg;

	pthread_barrier_wait(opener->begin);
	opener->user = use(opener->endpoint);
	return NULL;
}

/* Goal: connections that are made at the same time at two addresses of a target have one fence,
 * also beside another target that calls itself the same. */
static void test_at_once(void **state)
{
	struct endpoint there = here, there_by_tcp = by_tcp;
	struct server *meant = server;
	struct opener openers[2] = {{.endpoint = &there}, {.endpoint = &there_by_tcp}};
	pthread_barrier_t begin;
	pthread_t threads[2];
	struct user liar;

	(void)state;
	name_endpoint(&here);
	start_target(INCARNATION);
	pthread_barrier_init(&begin, NULL, 2);
	for (int round = 0; round < ROUNDS; round++) {
		if (round == ROUNDS / 2)
			liar = use(&here);
		for (int i = 0; i < 2; i++) {
			openers[i].begin = &begin;
			assert_int_equal(pthread_create(&threads[i], NULL, open_one, &openers[i]),
					 0);
		}
		for (int i = 0; i < 2; i++)
			pthread_join(threads[i], NULL);
		assert_ptr_equal(openers[0].user.peer->fence, openers[1].user.peer->fence);
		for (int i = 0; i < 2; i++)
			leave(&openers[i].user);
	}
	pthread_barrier_destroy(&begin);
	leave(&liar);
	server_destroy(meant);
}

/* Goal: a client that has gone leaves its fence behind: who comes next to that target names it. */
static void test_remembered(void **state)
{
	struct user user;

	(void)state;
	start_relay();
	user = use(&relayed);
	stall_relay();
	raise_fence(&user, LINK);
	raise_fence(&user, LINK + 1);
	leave(&user); /* its goodbye does not arrive */
	assert_int_equal(server_connection_count(server), 1);
	relay->does = RELAY_CUT;
	user = use(&here);
	assert_true(becomes(&user.peer->fence->pending, 0));
	assert_int_equal(gone, 1);
	assert_int_equal(gone_last, 1);
	assert_int_equal(fenced, 0);
	leave(&user);
	stop_relay();
}

struct raiser {
	const struct user *user;
	uint64_t first;
};

static void *raise_many(void *arg)
{
	const struct raiser *raiser = arg;
	struct transport_peer *peer = raiser->user->peer;

	for (uint64_t i = 0; i < RAISED_BY_ME; i++) {
		peer->forgo(peer->ticket(peer, raiser->first + i));
		peer->raise(peer->ticket(peer, raiser->first + i));
	}
	return NULL;
}

static void raise_by_threads(const struct user *user)
{
	struct raiser raisers[RAISERS];
	pthread_t threads[RAISERS];

	for (uint64_t i = 0; i < RAISERS; i++) {
		raisers[i] = (struct raiser){.user = user, .first = i * RAISED_BY_ME};
		assert_int_equal(pthread_create(&threads[i], NULL, raise_many, &raisers[i]), 0);
	}
	for (int i = 0; i < RAISERS; i++)
		pthread_join(threads[i], NULL);
}

/* Goal: of many that are raised at once each is answered; those whose connection is lost among them
 * are too. */
static void test_many(void **state)
{
	struct user user = use(&here), old;

	(void)state;
	raise_by_threads(&user);
	assert_true(becomes(&user.peer->fence->pending, 0));
	assert_int_equal(fenced, RAISERS * RAISED_BY_ME);
	start_relay();
	old = use(&relayed);
	stall_relay();
	raise_by_threads(&old);
	assert_int_equal(user.peer->fence->pending, RAISERS * RAISED_BY_ME);
	lose();
	assert_true(becomes(&user.peer->fence->pending, 0));
	assert_int_equal(gone, 1);
	leave(&old);
	leave(&user);
	stop_relay();
}

/* One that the client has lost with something on its way, and left; its target may not notice. */
static void forsake(void)
{
	struct user user;

	start_relay();
	user = use(&relayed);
	lose();
	raise_fence(&user, LINK);
	assert_int_equal(user.peer->fence->pending, 1);
	leave(&user);
}

/* Goal: targets that are never heard of again take no more memory than is said: the first are
 * forgotten, and met as if nothing had been; the last is remembered. */
static void test_forsaken(void **state)
{
	struct endpoint there = here;
	struct server *first = server;
	struct client *client;
	struct user user;
	unsigned had_gone;

	(void)state;
	forsake();
	for (uint64_t i = 1; i < FORSAKEN; i++) {
		stop_relay();
		if (i > 1)
			stop_target();
		name_endpoint(&here);
		start_target(INCARNATION + i);
		forsake();
	}
	user = use(&there);
	assert_int_equal(user.peer->fence->pending, 0);
	had_gone = gone;
	leave(&user);
	assert_true(becomes(&gone, had_gone + 1)); /* it is not held */
	held = true;
	assert_int_equal(client_connect(pool, &here, "ram", clock_deadline_ns(TIMEOUT_US), &client),
			 0);
	assert_int_equal(client_peer(client)->fence->pending, 1);
	sem_post(&held_until);
	assert_true(becomes(&client_peer(client)->fence->pending, 0));
	held = false;
	client_release(client);
	stop_relay();
	server_destroy(first);
}

#define fencing(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		fencing(test_answered),     fencing(test_forgone),
		fencing(test_orphaned),     fencing(test_lost_while_asking),
		fencing(test_black_hole),   fencing(test_refused),
		fencing(test_other_target), fencing(test_other_address),
		fencing(test_liar),         fencing(test_at_once),
		fencing(test_remembered),   fencing(test_many),
		fencing(test_forsaken),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
