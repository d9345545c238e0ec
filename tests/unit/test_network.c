/* SPDX-License-Identifier: Apache-2.0 */
/* A server and real clients over TCP, with and without TLS; and hostile ones over bare sockets. */
#include <errno.h>
#include <ifaddrs.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/work.h"
#include "control/client.h"
#include "control/invitation.h"
#include "control/server.h"
#include "net/stream.h"
#include "net/tls.h"
#include "tests/tap.h"
#include "tests/unit/keys.h"
#include "transport/transport.h"

#define PATIENCE_MS 300000
#define DAY         86400L
#define TIMEOUT_US  10000000

static const struct trust trust;
static struct control_thread *control;
static struct server *server;
static struct tls *server_tls, *client_tls;
static struct client_pool *pool;
static struct listener *listener;
static struct endpoint at;

static struct peer_info last_peer;
static struct stream attached[8];
static _Atomic unsigned attached_count, opened, closed, gone;
static _Atomic uint64_t attached_to, attached_link, gone_last;
static _Atomic int lost_with;
static _Atomic unsigned lost_count;

static int on_open(void *arg, const struct peer_info *peer, const char *segment, uint32_t rights,
		   const json_t *transports, json_t *answer, int fds[MESSAGE_FDS_MAX],
		   uint32_t *close_mask, void **client)
{
	json_t *fields;

	(void)arg;
	(void)transports;
	(void)fds;
	(void)close_mask;
	if (strcmp(segment, "ram") != 0)
		return fail(-EACCES, "%s may not use %s", peer->identity, segment);
	fields = json_pack("{s:s, s:i, s:i, s:i, s:i, s:{}}", "transport", "tcp", "length", 4096,
			   "rights", rights, "page_bytes", 4096, "node", 0, "grant");
	json_object_update(answer, fields);
	json_decref(fields);
	last_peer = *peer;
	*client = &opened;
	atomic_fetch_add(&opened, 1);
	return 0;
}

static json_t *on_describe(void *arg, const struct peer_info *peer)
{
	(void)arg;
	return json_pack("{s:{s:s}}", "verbs", "for", peer->identity);
}

/* It answers with a number that the client can check. */
static int on_path(void *client, const struct path_ask *ask, const json_t *offer, json_t *answer)
{
	json_int_t number = json_integer_value(json_object_get(offer, "number"));

	(void)ask;
	assert_ptr_equal(client, &opened);
	if (number < 0)
		return fail(-ENOSPC, "no path is left for %d", (int)number);
	json_object_set_new(answer, "number", json_integer(2 * number));
	return 0;
}

static void on_moved(void *client, uint64_t operations, uint64_t bytes_read, uint64_t bytes_written)
{
	(void)client;
	(void)operations;
	(void)bytes_read;
	(void)bytes_written;
}

static void on_close(void *client, bool lost)
{
	(void)client;
	(void)lost;
	atomic_fetch_add(&closed, 1);
}

static void on_attach(void *arg, struct stream *stream, const struct peer_info *peer, uint64_t link)
{
	(void)arg;
	attached[atomic_load(&attached_count)] = *stream;
	atomic_store(&attached_to, peer->connection);
	atomic_store(&attached_link, link);
	atomic_fetch_add(&attached_count, 1);
}

static void on_gone(void *arg, uint64_t connection)
{
	(void)arg;
	atomic_store(&gone_last, connection);
	atomic_fetch_add(&gone, 1);
}

static const struct server_callbacks callbacks = {.describe = on_describe,
						  .open = on_open,
						  .path = on_path,
						  .moved = on_moved,
						  .close = on_close,
						  .attach = on_attach,
						  .gone = on_gone};

static void on_lost(void *arg, int error)
{
	(void)arg;
	atomic_store(&lost_with, error);
	atomic_fetch_add(&lost_count, 1);
}

static void on_totals(void *arg, struct client_totals *totals)
{
	(void)arg;
	*totals = (struct client_totals){0};
}

static const struct session_callbacks session_callbacks = {.lost = on_lost, .totals = on_totals};

/* ---- set-up: which ends have what ---- */

struct setting {
	struct slu_tls_options target;
	struct slu_tls_options initiator;
	bool target_plain;
	bool initiator_plain;
	struct server_limits limits;
	const char *address; /* NULL: loopback */
};

static struct slu_tls_options psk(const char *file, const char *identity)
{
	return (struct slu_tls_options){.psk_file = keys_path(file), .identity = identity};
}

static struct slu_tls_options certificate(const char *name)
{
	char crt[64], key[64];

	snprintf(crt, sizeof(crt), "%s.crt", name);
	snprintf(key, sizeof(key), "%s.key", name);
	return (struct slu_tls_options){.cert_file = keys_path(crt),
					.key_file = keys_path(key),
					.ca_file = keys_path("ca.crt")};
}

static int start_client(const struct setting *setting)
{
	struct client_pool_options options = {.control = control,
					      .name = "unit",
					      .trust = &trust,
					      .tcp_plain = setting->initiator_plain};

	client_tls = NULL;
	if (tls_wanted(&setting->initiator) &&
	    tls_open(TLS_CLIENT, &setting->initiator, &client_tls) < 0)
		return -1;
	options.tls = client_tls;
	return client_pool_create(&options, &pool);
}

static void begin(struct setting setting)
{
	struct server_options options = {.control = control,
					 .trust = &trust,
					 .name = "unit",
					 .incarnation = 5,
					 .tcp_plain = setting.target_plain,
					 .limits = setting.limits,
					 .callbacks = &callbacks};

	server_tls = NULL;
	if (tls_wanted(&setting.target))
		assert_int_equal(tls_open(TLS_SERVER, &setting.target, &server_tls), 0);
	options.tls = server_tls;
	assert_int_equal(server_create(&options, &server), 0);
	assert_int_equal(server_listen_tcp(server,
					   setting.address ? setting.address : "127.0.0.1:0",
					   setting.address != NULL, &listener),
			 0);
	at = (struct endpoint){0};
	assert_int_equal(address_parse(listener_address(listener), &at.tcp), 0);
	assert_int_equal(start_client(&setting), 0);
}

static int set_up(void **state)
{
	(void)state;
	atomic_store(&attached_count, 0);
	atomic_store(&opened, 0);
	atomic_store(&closed, 0);
	atomic_store(&gone, 0);
	atomic_store(&lost_with, 0);
	atomic_store(&lost_count, 0);
	server = NULL;
	pool = NULL;
	server_tls = client_tls = NULL;
	return control_thread_start(&control);
}

static void end(void)
{
	client_pool_destroy(pool);
	server_destroy(server);
	for (unsigned i = 0; i < attached_count; i++)
		stream_close(&attached[i]);
	atomic_store(&attached_count, 0);
	tls_close(client_tls);
	tls_close(server_tls);
	pool = NULL;
	server = NULL;
	client_tls = server_tls = NULL;
}

static int tear_down(void **state)
{
	(void)state;
	end();
	control_thread_stop(control);
	return 0;
}

/* ---- steps ---- */

static bool becomes(_Atomic unsigned *count, unsigned value)
{
	for (int i = 0; i < PATIENCE_MS && atomic_load(count) != value; i++)
		usleep(1000);
	return atomic_load(count) == value;
}

static struct client *connected(void)
{
	struct client *client = NULL;
	int rc = client_connect(pool, &at, "ram", clock_deadline_ns(TIMEOUT_US), &client);

	if (rc < 0)
		fail_msg("connect: %d (%s)", rc, slu_last_error());
	return client;
}

static void expect_refused(int error, const char *text)
{
	struct client *client;
	int rc = client_connect(pool, &at, "ram", clock_deadline_ns(TIMEOUT_US), &client);

	if (rc != error || !strstr(slu_last_error(), text))
		fail_msg("%d (%s), not %d (... %s ...)", rc, slu_last_error(), error, text);
}

static int open_segment(struct client *client, const char *segment, struct session **session)
{
	static const enum slu_transport transports[] = {SLU_TRANSPORT_TCP};
	const struct session_request request = {.segment = segment,
						.rights = SLU_RIGHT_READ,
						.transports = transports,
						.transport_count = 1,
						.until_ns = clock_deadline_ns(TIMEOUT_US),
						.callbacks = &session_callbacks};
	struct client_grant grant;
	int rc = session_open(client, &request, session, &grant);

	if (rc == 0)
		client_grant_free(&grant);
	return rc;
}

static struct session *opened_on(struct client *client)
{
	struct session *session = NULL;
	int rc = open_segment(client, "ram", &session);

	if (rc < 0)
		fail_msg("open: %d (%s)", rc, slu_last_error());
	return session;
}

static void wait_readable(int fd)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
}

static void expect_bytes(struct stream *stream, const char *text)
{
	char bytes[64] = "";
	size_t have = 0;

	while (have < strlen(text)) {
		struct iovec iov = {.iov_base = bytes + have, .iov_len = strlen(text) - have};
		ssize_t got = stream_read(stream, &iov, 1);

		assert_true(got >= 0);
		if (got == 0)
			wait_readable(stream->fd);
		have += (size_t)got;
	}
	assert_string_equal(bytes, text);
}

static void write_text(struct stream *stream, const char *text)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};

	assert_int_equal(stream_write(stream, &iov, 1), strlen(text));
}

#define LINK UINT64_C(0xfedcba9876543210)

/* The data connections of a link: each works both ways. */
static void check_data(struct client *client, const char *described)
{
	struct transport_peer *peer = client_peer(client);
	struct stream streams[2];
	unsigned before = atomic_load(&attached_count);
	int rc = peer->dial(peer, LINK, 2, clock_deadline_ns(TIMEOUT_US), streams);

	if (rc < 0)
		fail_msg("dial: %d (%s)", rc, slu_last_error());
	assert_true(becomes(&attached_count, before + 2));
	assert_int_equal(attached_link, LINK);
	assert_int_equal(peer->encrypted, strcmp(described, "plain") != 0);
	for (int i = 0; i < 2; i++) {
		struct stream *there = &attached[before + (unsigned)i];

		assert_string_equal(stream_describe(&streams[i]), described);
		assert_string_equal(stream_describe(there), described);
		write_text(&streams[i], "there");
		expect_bytes(there, "there");
		write_text(there, "and back");
		expect_bytes(&streams[i], "and back");
		stream_close(&streams[i]);
	}
}

/* ---- well-behaved ---- */

/* Goal: over loopback without TLS a client is anonymous, opens sessions and attaches data. */
static void test_plain(void **state)
{
	const struct client_welcome *welcome;
	struct session *session;
	struct client *client;

	(void)state;
	begin((struct setting){0});
	client = connected();
	session = opened_on(client);
	welcome = client_welcome(client);
	assert_string_equal(last_peer.identity, "tcp:anonymous");
	assert_string_equal(welcome->identity, "tcp:anonymous");
	assert_false(last_peer.is_unix);
	assert_false(last_peer.owner);
	assert_false(welcome->encrypted);
	assert_false(welcome->is_unix);
	assert_true(welcome->same_host);
	assert_int_equal(welcome->tcp.port, at.tcp.port);
	assert_int_equal(strncmp(welcome->address, "tcp:127.0.0.1:", 14), 0);
	check_data(client, "plain");
	assert_int_equal(attached_to, last_peer.connection);
	session_close(session);
	assert_int_equal(gone, 0);
	client_release(client);
	assert_true(becomes(&gone, 1));
	assert_int_equal(gone_last, last_peer.connection);
	assert_int_equal(closed, 1);
	assert_int_equal(lost_count, 0);
}

/* Goal: with a key the identity is the key's, and data is encrypted. */
static void test_key(void **state)
{
	struct session *session;
	struct client *client;

	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("all", "bob")});
	client = connected();
	session = opened_on(client);
	assert_string_equal(last_peer.identity, "bob");
	assert_string_equal(client_welcome(client)->identity, "bob");
	assert_true(client_welcome(client)->encrypted);
	check_data(client, "TLS 1.3");
	session_close(session);
	client_release(client);
}

/* Goal: with certificates the identity is the common name. */
static void test_certificates(void **state)
{
	struct session *session;
	struct client *client;

	(void)state;
	begin((struct setting){.target = certificate("target"), .initiator = certificate("carol")});
	client = connected();
	session = opened_on(client);
	assert_string_equal(last_peer.identity, "carol");
	check_data(client, "TLS 1.3");
	session_close(session);
	client_release(client);
}

/* Goal: data goes in the clear only where both ends want it. */
static void test_plain_data(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		struct session *session;
		struct client *client;

		begin((struct setting){.target = psk("all", NULL),
				       .initiator = psk("all", "bob"),
				       .target_plain = i & 1,
				       .initiator_plain = i & 2});
		client = connected();
		session = opened_on(client);
		check_data(client, i == 3 ? "plain" : "TLS 1.3");
		session_close(session);
		client_release(client);
		end();
	}
}

/* Goal: over a Unix socket the target says where data connections go, and they work. */
static void test_data_of_unix_client(void **state)
{
	struct endpoint local = {.is_unix = true};
	struct listener *unix_listener;
	struct session *session;
	struct stream stream;
	struct client *client;

	(void)state;
	begin((struct setting){.address = "0.0.0.0:0"});
	local.path.sun_family = AF_UNIX;
	snprintf(local.path.sun_path + 1, 64, "sluice/unit-network-%d", (int)getpid());
	local.path_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
					strlen(local.path.sun_path + 1));
	assert_int_equal(server_listen(server, &local.path, local.path_length, &unix_listener), 0);
	at = local;
	client = connected();
	assert_true(client_welcome(client)->is_unix);
	assert_string_equal(client_welcome(client)->tcp.host, "0.0.0.0");
	session = opened_on(client);
	check_data(client, "plain");
	session_close(session);
	client_release(client);
	server_unlisten(server, listener);
	client = connected();
	assert_int_equal(client_welcome(client)->tcp.port, 0);
	assert_int_equal(client_peer(client)->dial(client_peer(client), LINK, 1,
						   clock_deadline_ns(TIMEOUT_US), &stream),
			 -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "--listen"));
	client_release(client);
}

/* Goal: without a session nobody dials, nor more connections than a link has; of those that cannot
 * all be made none is left. */
static void test_dial_refused(void **state)
{
	struct stream streams[INVITED_MAX + 1];
	struct transport_peer *peer;
	struct session *session;
	struct client *client;

	(void)state;
	begin((struct setting){0});
	client = connected();
	peer = client_peer(client);
	assert_int_equal(peer->dial(peer, LINK, 1, clock_deadline_ns(TIMEOUT_US), streams),
			 -EACCES);
	assert_non_null(strstr(slu_last_error(), "who have opened a segment"));
	session = opened_on(client);
	assert_int_equal(
		peer->dial(peer, LINK, INVITED_MAX + 1, clock_deadline_ns(TIMEOUT_US), streams),
		-EPROTO);
	server_unlisten(server, listener);
	assert_int_equal(peer->dial(peer, LINK, 2, clock_deadline_ns(TIMEOUT_US), streams),
			 -ECONNREFUSED);
	assert_int_equal(attached_count, 0);
	assert_int_equal(lost_count, 0);
	session_close(session);
	client_release(client);
}

static void *open_and_close(void *arg)
{
	struct client *client = NULL;
	struct session *session = NULL;

	if (client_connect(pool, &at, "ram", clock_deadline_ns(TIMEOUT_US), &client) == 0 &&
	    open_segment(client, "ram", &session) == 0) {
		atomic_fetch_add((_Atomic unsigned *)arg, 1);
		while (atomic_load((_Atomic unsigned *)arg) < 32)
			usleep(1000);
	}
	session_close(session);
	client_release(client);
	return NULL;
}

/* Goal: threads that connect at the same time share one connection. */
static void test_shared_connection(void **state)
{
	_Atomic unsigned ready = 0;
	pthread_t threads[32];

	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("all", "bob")});
	for (int i = 0; i < 32; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, open_and_close, &ready), 0);
	for (int i = 0; i < 32; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(ready, 32);
	assert_int_equal(opened, 32);
	assert_true(becomes(&gone, 1));
	assert_int_equal(closed, 32);
}

/* Goal: a thousand sessions over one TLS connection, and the table of either end forgets them. */
static void test_thousand_sessions(void **state)
{
	static struct session *sessions[1000];
	struct client *client;

	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("all", "bob")});
	client = connected();
	for (int i = 0; i < 1000; i++)
		sessions[i] = opened_on(client);
	assert_int_equal(server_session_count(server), 1000);
	assert_int_equal(server_connection_count(server), 1);
	for (int i = 0; i < 1000; i++)
		session_close(sessions[i]);
	assert_true(becomes(&closed, 1000));
	assert_int_equal(server_session_count(server), 0);
	client_release(client);
	assert_int_equal(lost_count, 0);
}

static int ask(struct session *session, int number, json_int_t *answered)
{
	json_t *offer = json_pack("{s:i}", "number", number), *answer = NULL;
	int rc = session_ask(session, offer, clock_deadline_ns(TIMEOUT_US), &answer);

	*answered = json_integer_value(json_object_get(answer, "number"));
	json_decref(answer);
	json_decref(offer);
	return rc;
}

/* Goal: over TLS too the welcome tells of the transports, to whom the target knows the client as,
 * and paths are asked for through what a transport is given. */
static void test_paths(void **state)
{
	struct transport_peer *peer;
	struct session *session;
	struct client *client;
	const char *identity = "";
	json_t *offer = json_pack("{s:i}", "number", 21), *answer;
	json_int_t number;

	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("all", "bob")});
	client = connected();
	peer = client_peer(client);
	json_unpack((json_t *)(uintptr_t)peer->transports, "{s:{s:s}}", "verbs", "for", &identity);
	assert_string_equal(identity, "bob");
	session = opened_on(client);
	assert_int_equal(peer->ask(session, offer, clock_deadline_ns(TIMEOUT_US), &answer), 0);
	assert_int_equal(json_integer_value(json_object_get(answer, "number")), 42);
	json_decref(answer);
	json_decref(offer);
	assert_int_equal(ask(session, -1, &number), -ENOSPC);
	assert_non_null(strstr(slu_last_error(), "no path is left for -1"));
	assert_int_equal(ask(session, 4, &number), 0);
	assert_int_equal(number, 8);
	session_close(session);
	client_release(client);
	assert_int_equal(lost_count, 0);
}

struct asker {
	struct session *session;
	int first;
	_Atomic unsigned right; /* of those who did not wait */
	unsigned waited;        /* and were answered rightly */
};

static void on_answered(void *arg, int error, const json_t *answer)
{
	struct asker *asker = arg;

	if (error == 0 && json_integer_value(json_object_get(answer, "number")) >= asker->first)
		atomic_fetch_add(&asker->right, 1);
}

static void *ask_often(void *arg)
{
	struct asker *asker = arg;

	for (int i = 0; i < 100; i++) {
		json_int_t number;

		session_ask_async(asker->session, json_pack("{s:i}", "number", asker->first),
				  on_answered, asker);
		if (ask(asker->session, asker->first + i, &number) == 0 &&
		    number == 2 * (asker->first + i))
			asker->waited++;
	}
	return NULL;
}

/* Goal: many threads ask at the same time, on one session and on several, and each gets its own
 * answer. */
static void test_many_paths(void **state)
{
	static struct asker askers[16];
	pthread_t threads[16];
	struct session *sessions[4];
	struct client *client;

	(void)state;
	begin((struct setting){0});
	client = connected();
	for (int i = 0; i < 4; i++)
		sessions[i] = opened_on(client);
	for (int i = 0; i < 16; i++) {
		askers[i] = (struct asker){.session = sessions[i % 4], .first = 1000 * i};
		assert_int_equal(pthread_create(&threads[i], NULL, ask_often, &askers[i]), 0);
	}
	for (int i = 0; i < 16; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(askers[i].waited, 100);
		assert_true(becomes(&askers[i].right, 100));
	}
	for (int i = 0; i < 4; i++)
		session_close(sessions[i]);
	client_release(client);
	assert_int_equal(lost_count, 0);
}

static void *ask_until_over(void *arg)
{
	struct asker *asker = arg;
	json_int_t number;
	int rc;

	while ((rc = ask(asker->session, 1, &number)) == 0)
		;
	asker->first = rc;
	return NULL;
}

/* Goal: when the target dies, whoever asks is told, and nobody waits for the time-out. */
static void test_paths_of_a_target_that_dies(void **state)
{
	struct asker askers[4];
	pthread_t threads[4];
	struct session *session;
	struct client *client;

	(void)state;
	begin((struct setting){0});
	client = connected();
	session = opened_on(client);
	for (int i = 0; i < 4; i++) {
		askers[i] = (struct asker){.session = session};
		assert_int_equal(pthread_create(&threads[i], NULL, ask_until_over, &askers[i]), 0);
	}
	usleep(20000);
	server_destroy(server);
	server = NULL;
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(askers[i].first, -ECONNRESET);
	}
	session_close(session);
	client_release(client);
}

/* Goal: a target that dies is told to its sessions once; the next connection is a new one. */
static void test_target_dies(void **state)
{
	struct session *session;
	struct client *client, *other;
	char address[ADDRESS_TEXT_MAX];
	struct server_options options = {.control = control,
					 .trust = &trust,
					 .name = "next",
					 .incarnation = 6,
					 .callbacks = &callbacks};

	(void)state;
	begin((struct setting){0});
	client = connected();
	session = opened_on(client);
	strcpy(address, listener_address(listener));
	server_destroy(server);
	assert_true(becomes(&lost_count, 1));
	assert_int_equal(lost_with, -ECONNRESET);
	assert_int_equal(server_create(&options, &server), 0);
	assert_int_equal(server_listen_tcp(server, address, false, &listener), 0);
	other = connected();
	assert_ptr_not_equal(other, client);
	assert_int_equal(client_welcome(other)->incarnation, 6);
	client_release(other);
	session_close(session);
	client_release(client);
}

/* ---- refusals: each with its own error ---- */

/* Goal: an identity's wrong key is -EKEYREJECTED. */
static void test_wrong_key(void **state)
{
	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("wrong", NULL)});
	expect_refused(-EKEYREJECTED, "another key for the identity \"alice\"");
}

/* Goal: an identity that the target does not know is -ENOKEY. */
static void test_unknown_identity(void **state)
{
	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("mallory", NULL)});
	expect_refused(-ENOKEY, "does not know the identity \"mallory\"");
}

/* Goal: a certificate that expired since it was loaded is -EKEYEXPIRED. */
static void test_expired_certificate(void **state)
{
	(void)state;
	keys_certificate("short", "ca", "shorty", NULL, 2);
	begin((struct setting){.target = certificate("target"), .initiator = certificate("short")});
	sleep(3);
	expect_refused(-EKEYEXPIRED, "that our certificate, or");
}

/* Goal: a certificate of another authority is -EKEYREJECTED, at whichever end; a name that does not
 * fit as well, and a common name that is no identity. */
static void test_rejected_certificates(void **state)
{
	(void)state;
	begin((struct setting){.target = certificate("target"),
			       .initiator = certificate("foreign")});
	expect_refused(-EKEYREJECTED, "does not trust the authority");
	end();
	begin((struct setting){.target = certificate("foreign"),
			       .initiator = certificate("carol")});
	expect_refused(-EKEYREJECTED, "is not trusted");
	end();
	begin((struct setting){.target = certificate("carol"), .initiator = certificate("carol")});
	expect_refused(-EKEYREJECTED, "another name");
	end();
	begin((struct setting){.target = certificate("target"),
			       .initiator = certificate("posing")});
	expect_refused(-EKEYREJECTED, "no common name");
}

/* Goal: where only one end speaks TLS it is -EPERM, with what to do. */
static void test_tls_mismatch(void **state)
{
	(void)state;
	begin((struct setting){.target = psk("all", NULL)});
	expect_refused(-EPERM, "requires TLS: give --psk");
	end();
	begin((struct setting){.initiator = psk("bob", NULL)});
	expect_refused(-EPERM, "does not speak TLS");
}

/* Goal: the initiator does not leave the host in the clear. */
static void test_exposed_initiator(void **state)
{
	(void)state;
	begin((struct setting){0});
	assert_int_equal(address_parse("192.0.2.1:7000", &at.tcp), 0);
	expect_refused(-EPERM, "--insecure");
}

/* Goal: a name that is not known is -EADDRNOTAVAIL. */
static void test_name_unknown(void **state)
{
	struct client *client;
	int rc;

	(void)state;
	begin((struct setting){0});
	assert_int_equal(address_parse("no-such-host.invalid:7000", &at.tcp), 0);
	rc = client_connect(pool, &at, "ram", clock_deadline_ns(TIMEOUT_US), &client);
	if (rc == -ETIMEDOUT)
		skip_because("the name server does not answer");
	assert_int_equal(rc, -EADDRNOTAVAIL);
	assert_non_null(strstr(slu_last_error(), "no-such-host.invalid"));
}

/* Goal: a port where nobody listens is -ECONNREFUSED. */
static void test_nobody_listens(void **state)
{
	(void)state;
	begin((struct setting){0});
	server_unlisten(server, listener);
	expect_refused(-ECONNREFUSED, "no target listens at 127.0.0.1:");
}

/* Goal: addresses that cannot be listened at: each for its own reason. */
static void test_listen(void **state)
{
	struct listener *other = NULL;

	(void)state;
	begin((struct setting){0});
	assert_int_equal(server_listen_tcp(server, listener_address(listener), false, &other),
			 -EADDRINUSE);
	assert_non_null(strstr(slu_last_error(), "is taken"));
	assert_int_equal(server_listen_tcp(server, "192.0.2.1:0", true, &other), -EADDRNOTAVAIL);
	assert_int_equal(server_listen_tcp(server, "0.0.0.0:0", false, &other), -EPERM);
	assert_non_null(strstr(slu_last_error(), "--insecure"));
	assert_int_equal(server_listen_tcp(server, "[::]:0", false, &other), -EPERM);
	assert_int_equal(server_listen_tcp(server, "7000", false, &other), -EINVAL);
	assert_null(other);
	assert_int_equal(server_listen_tcp(server, "0.0.0.0:0", true, &other), 0);
	server_unlisten(server, other);
	end();
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("all", "bob")});
	assert_int_equal(server_listen_tcp(server, "0.0.0.0:0", false, &other), 0);
}

/* Goal: a segment that is not granted is -EACCES; the connection serves others. */
static void test_refused_segment(void **state)
{
	struct session *session = NULL;
	struct client *client;

	(void)state;
	begin((struct setting){0});
	client = connected();
	assert_int_equal(open_segment(client, "rom", &session), -EACCES);
	assert_non_null(strstr(slu_last_error(), "tcp:anonymous may not use rom"));
	assert_null(session);
	session = opened_on(client);
	session_close(session);
	client_release(client);
}

/* Goal: an identity that has lost its key loses its session within a second and cannot come back;
 * others stay; a broken file changes nothing. */
static void test_revoked_key(void **state)
{
	struct tls *alice_tls;
	struct slu_tls_options alice = psk("all", "alice");
	struct client_pool_options options = {.control = control, .name = "a", .trust = &trust};
	struct client_pool *bob_pool, *alice_pool;
	struct session *of_alice, *of_bob;
	struct client *client;
	uint64_t cpu_ns;

	(void)state;
	keys_write("changing", "alice:" KEY_ALICE "\nbob:" KEY_BOB "\n");
	begin((struct setting){.target = psk("changing", NULL), .initiator = psk("all", "bob")});
	bob_pool = pool;
	assert_int_equal(tls_open(TLS_CLIENT, &alice, &alice_tls), 0);
	options.tls = alice_tls;
	assert_int_equal(client_pool_create(&options, &alice_pool), 0);
	client = connected();
	of_bob = opened_on(client);
	client_release(client);
	pool = alice_pool;
	client = connected();
	of_alice = opened_on(client);
	client_release(client);
	keys_write("changing", "nonsense\n");
	assert_int_equal(server_reload_tls(server), -EINVAL);
	assert_int_equal(server_session_count(server), 2);
	keys_write("changing", "bob:" KEY_BOB "\n");
	assert_int_equal(server_reload_tls(server), 0);
	assert_int_equal(server_session_count(server), 1);
	assert_true(becomes(&lost_count, 1));
	assert_int_equal(lost_with, -EKEYREVOKED);
	assert_int_equal(session_usage(of_alice, 1000000, &cpu_ns), -EKEYREVOKED);
	assert_int_equal(session_usage(of_bob, 10000000, &cpu_ns), 0);
	assert_int_equal(gone, 1);
	expect_refused(-ENOKEY, "\"alice\"");
	session_close(of_alice);
	session_close(of_bob);
	client_pool_destroy(alice_pool);
	pool = bob_pool;
	tls_close(alice_tls);
}

/* ---- over bare sockets ---- */

static int try_dial(void)
{
	uint64_t until_ns = clock_monotonic_ns(NULL) + 5 * NS_PER_SECOND;
	struct dial dial = {.until_ns = until_ns};
	struct stream stream = {.fd = -1};
	int rc;

	dial.count = address_resolve(&at.tcp, until_ns, dial.addresses);
	assert_int_equal(dial.count, 1);
	while ((rc = dial_advance(&dial, &stream)) == 0)
		wait_ready(stream.fd, POLLOUT, dial.wake_ns);
	return rc < 0 ? rc : stream.fd;
}

static int dial(void)
{
	int fd = try_dial();

	assert_true(fd >= 0);
	return fd;
}

/* It is reset, perhaps before we have seen that it was accepted. */
static void expect_turned_away(void)
{
	int fd = try_dial();
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	char byte;

	if (fd < 0) {
		assert_int_equal(fd, -ECONNRESET);
		return;
	}
	assert_int_equal(poll(&readable, 1, 10000), 1);
	assert_true(recv(fd, &byte, 1, 0) <= 0);
	close(fd);
}

static void say(struct stream *stream, json_t *message)
{
	struct message_writer writer = {.limit_bytes = 0};

	assert_int_equal(message_send(&writer, stream, message, NULL, 0), 0);
}

static json_t *hear(struct stream *stream)
{
	struct message_reader reader = {0};
	json_t *message;
	int rc;

	while ((rc = message_read(&reader, stream, &message)) == 0)
		wait_readable(stream->fd);
	assert_int_equal(rc, 1);
	return message;
}

static void expect_refusal(struct stream *stream, int error)
{
	json_t *message = hear(stream);

	assert_string_equal(message_type(message), "refused");
	assert_int_equal(json_integer_value(json_object_get(message, "error")), error);
	json_decref(message);
}

/* Whatever comes before it. */
static void expect_end(int fd)
{
	char waste[4096];
	ssize_t got;

	do {
		wait_readable(fd);
		got = recv(fd, waste, sizeof(waste), 0);
	} while (got > 0);
	assert_true(got == 0 || errno == ECONNRESET);
	close(fd);
}

static json_t *hello(void)
{
	return json_pack("{s:s, s:[i,i], s:s}", "type", "hello", "versions", MESSAGE_VERSION_LOW,
			 MESSAGE_VERSION_HIGH, "name", "bare");
}

static struct stream shaken(struct tls *tls)
{
	struct stream stream = {.fd = dial()};
	int rc;

	if (!tls)
		return stream;
	assert_int_equal(tls_start(tls, &stream, "127.0.0.1"), 0);
	while ((rc = tls_handshake(&stream)) == 0)
		wait_readable(stream.fd);
	assert_int_equal(rc, 1);
	return stream;
}

static void expect(struct stream *stream, const char *type)
{
	json_t *message = hear(stream);

	assert_string_equal(message_type(message), type);
	json_decref(message);
}

/* A control connection by hand, under TLS if @p tls is given. @p number: the target's, of it */
static struct stream greeted(struct tls *tls, uint64_t *number)
{
	struct stream stream = shaken(tls);
	json_t *message;

	say(&stream, hello());
	message = hear(&stream);
	assert_string_equal(message_type(message), "welcome");
	assert_true(message_number(message, "connection", number));
	json_decref(message);
	return stream;
}

/* ---- data connections by hand ---- */

/* Who may invite: a control connection with a session. */
struct owner {
	struct stream stream;
	uint64_t number;
};

static struct owner make_owner(struct tls *tls)
{
	struct owner owner;

	owner.stream = greeted(tls, &owner.number);
	say(&owner.stream, json_pack("{s:s, s:i, s:s, s:i, s:[s]}", "type", "open", "session", 1,
				     "segment", "ram", "rights", 1, "transports", "tcp"));
	expect(&owner.stream, "opened");
	return owner;
}

static json_t *number_of(uint64_t number)
{
	return json_sprintf("%016llx", (unsigned long long)number);
}

/* @return what will be proven; its secret is put into @p secret */
static struct data_claim invited(struct owner *owner, uint64_t link, uint32_t count,
				 uint8_t secret[SECRET_BYTES])
{
	json_t *message, *answer;

	say(&owner->stream, json_pack("{s:s, s:i, s:{s:o, s:i}}", "type", "invite", "request", 1,
				      "offer", "link", number_of(link), "count", (int)count));
	message = hear(&owner->stream);
	assert_string_equal(message_type(message), "invite");
	answer = json_object_get(message, "answer");
	assert_true(secret_parse(json_string_value(json_object_get(answer, "secret")), secret,
				 SECRET_BYTES));
	json_decref(message);
	return (struct data_claim){.connection = owner->number, .link = link};
}

static json_t *attach(const struct data_claim *claim)
{
	return json_pack("{s:s, s:o, s:o}", "type", "attach", "connection",
			 number_of(claim->connection), "link", number_of(claim->link));
}

static json_t *proof(const char *text)
{
	return json_pack("{s:s, s:s}", "type", "proof", "proof", text);
}

/* The nonce that the target says goes into @p claim. */
static void expect_challenge(struct stream *stream, struct data_claim *claim)
{
	json_t *message = hear(stream);

	assert_string_equal(message_type(message), "challenge");
	assert_true(secret_parse(json_string_value(json_object_get(message, "nonce")), claim->nonce,
				 sizeof(claim->nonce)));
	json_decref(message);
}

/* A connection that has been asked for its proof. */
static struct stream challenged(struct data_claim *claim)
{
	struct stream stream = {.fd = dial()};

	say(&stream, attach(claim));
	expect_challenge(&stream, claim);
	return stream;
}

static void prove(const uint8_t secret[SECRET_BYTES], const struct data_claim *claim,
		  char text[PROOF_TEXT])
{
	assert_true(secret_prove_text(secret, claim, sizeof(*claim), text));
}

static void expect_attached(struct data_claim claim, const uint8_t secret[SECRET_BYTES])
{
	unsigned before = atomic_load(&attached_count);
	struct stream stream = challenged(&claim);
	char text[PROOF_TEXT];

	prove(secret, &claim, text);
	say(&stream, proof(text));
	expect(&stream, "attached");
	assert_true(becomes(&attached_count, before + 1));
	assert_int_equal(attached_to, claim.connection);
	assert_int_equal(attached_link, claim.link);
	stream_close(&stream);
}

/* To the challenge @p message is said, and that is not enough. */
static void refuse_proof(struct stream stream, json_t *message, int error)
{
	unsigned before = atomic_load(&attached_count);

	say(&stream, message);
	expect_refusal(&stream, error);
	expect_end(stream.fd);
	assert_int_equal(attached_count, before);
}

static void refuse_attach(uint64_t connection, uint64_t link)
{
	const struct data_claim claim = {.connection = connection, .link = link};

	refuse_proof((struct stream){.fd = dial()}, attach(&claim), EACCES);
}

/* Goal: only who was invited is asked for a proof: to that link of that connection, as often as was
 * said, while the connection lives, until it invites again or fences the link. */
static void test_uninvited(void **state)
{
	uint8_t first[SECRET_BYTES], second[SECRET_BYTES];
	struct owner owner, other;
	struct data_claim claim;

	(void)state;
	begin((struct setting){0});
	owner = make_owner(NULL);
	other = make_owner(NULL);
	refuse_attach(owner.number, LINK);
	claim = invited(&owner, LINK, 2, first);
	refuse_attach(owner.number, LINK + 1);
	refuse_attach(other.number, LINK);
	refuse_attach(0, LINK);
	refuse_attach(UINT64_MAX, LINK);
	expect_attached(claim, first);
	expect_attached(claim, first);
	refuse_attach(owner.number, LINK); /* used up */
	invited(&owner, LINK, 1, first);
	say(&owner.stream, json_pack("{s:s, s:i, s:{s:o}}", "type", "fence", "request", 2, "offer",
				     "link", number_of(LINK)));
	expect(&owner.stream, "fence");
	refuse_attach(owner.number, LINK);
	invited(&owner, LINK, 1, first);
	invited(&owner, LINK, 1, second);
	assert_memory_not_equal(first, second, SECRET_BYTES);
	expect_attached(claim, second);
	refuse_attach(owner.number, LINK);
	invited(&owner, LINK, 1, first);
	stream_close(&owner.stream);
	assert_true(becomes(&gone, 1));
	refuse_attach(owner.number, LINK);
	stream_close(&other.stream);
	assert_int_equal(attached_count, 3);
}

/* Goal: a proof that is wrong in one bit, cut, another secret's or none at all attaches nothing,
 * and takes nothing from who was invited. */
static void test_wrong_proofs(void **state)
{
	uint8_t secret[SECRET_BYTES], foreign[SECRET_BYTES];
	char text[2 * PROOF_BYTES + 2];
	struct owner owner, other;
	struct data_claim claim;
	struct stream stream;

	(void)state;
	begin((struct setting){0});
	owner = make_owner(NULL);
	other = make_owner(NULL);
	claim = invited(&owner, LINK, 1, secret);
	invited(&other, LINK, 1, foreign);
	stream = challenged(&claim);
	prove(secret, &claim, text);
	text[31] = text[31] == '0' ? '1' : '0';
	refuse_proof(stream, proof(text), EACCES);
	stream = challenged(&claim);
	prove(secret, &claim, text);
	text[30] = '\0';
	refuse_proof(stream, proof(text), EACCES);
	stream = challenged(&claim);
	prove(secret, &claim, text);
	strcat(text, "0");
	refuse_proof(stream, proof(text), EACCES);
	stream = challenged(&claim);
	prove(foreign, &claim, text);
	refuse_proof(stream, proof(text), EACCES);
	secret_format(secret, SECRET_BYTES, text); /* of those who read the secret itself */
	refuse_proof(challenged(&claim), proof(text), EACCES);
	refuse_proof(challenged(&claim), proof(""), EACCES);
	refuse_proof(challenged(&claim), json_pack("{s:s, s:i}", "type", "proof", "proof", 0),
		     EACCES);
	refuse_proof(challenged(&claim), json_pack("{s:s}", "type", "proof"), EACCES);
	refuse_proof(challenged(&claim), attach(&claim), EPROTO);
	refuse_proof(challenged(&claim), hello(), EPROTO);
	expect_attached(claim, secret);
	stream_close(&owner.stream);
	stream_close(&other.stream);
}

/* Goal: a proof that was overheard is good for the connection that it was made on, and no other:
 * neither before nor after it was used, nor for another link. */
static void test_replayed_proof(void **state)
{
	char text[PROOF_TEXT];
	struct data_claim claim, early, late, elsewhere;
	struct stream good, thief, third;
	uint8_t secret[SECRET_BYTES], unused[SECRET_BYTES];
	struct owner owner;

	(void)state;
	begin((struct setting){0});
	owner = make_owner(NULL);
	claim = early = late = invited(&owner, LINK, INVITED_MAX, secret);
	elsewhere = invited(&owner, LINK + 1, 1, unused);
	good = challenged(&claim);
	thief = challenged(&early);
	third = challenged(&elsewhere);
	assert_memory_not_equal(claim.nonce, early.nonce, sizeof(claim.nonce));
	prove(secret, &claim, text);
	refuse_proof(thief, proof(text), EACCES);
	refuse_proof(third, proof(text), EACCES);
	say(&good, proof(text));
	expect(&good, "attached");
	assert_true(becomes(&attached_count, 1));
	refuse_proof(challenged(&late), proof(text), EACCES);
	stream_close(&good);
	stream_close(&owner.stream);
}

/* Goal: an invitation that ends between the question and the proof is worth nothing: used by
 * another, or gone with its connection. */
static void test_proof_too_late(void **state)
{
	char text[PROOF_TEXT];
	uint8_t secret[SECRET_BYTES];
	struct data_claim claim;
	struct stream stream;
	struct owner owner;

	(void)state;
	begin((struct setting){0});
	owner = make_owner(NULL);
	claim = invited(&owner, LINK, 1, secret);
	stream = challenged(&claim);
	expect_attached(claim, secret);
	prove(secret, &claim, text);
	refuse_proof(stream, proof(text), EACCES);
	claim = invited(&owner, LINK, 1, secret);
	stream = challenged(&claim);
	stream_close(&owner.stream);
	assert_true(becomes(&gone, 1));
	prove(secret, &claim, text);
	refuse_proof(stream, proof(text), EACCES);
}

/* Goal: attach that lacks its numbers ends the connection. */
static void test_broken_attach(void **state)
{
	static const char *const broken[] = {
		"{\"type\":\"attach\"}",
		"{\"type\":\"attach\",\"connection\":\"0000000000000001\"}",
		"{\"type\":\"attach\",\"link\":\"0000000000000001\"}",
		"{\"type\":\"attach\",\"connection\":1,\"link\":1}",
		"{\"type\":\"attach\",\"connection\":\"1\",\"link\":\"1\"}",
	};

	(void)state;
	begin((struct setting){0});
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
		refuse_proof((struct stream){.fd = dial()}, json_loads(broken[i], 0, NULL), EPROTO);
	refuse_proof((struct stream){.fd = dial()}, proof("00"), EPROTO);
}

/* Goal: what comes right behind the proof belongs to the data connection: none of it is lost. */
static void test_no_byte_overread(void **state)
{
	char text[PROOF_TEXT], wire[256];
	uint8_t secret[SECRET_BYTES];
	struct data_claim claim;
	struct stream stream;
	struct owner owner;
	uint32_t length;

	(void)state;
	begin((struct setting){0});
	owner = make_owner(NULL);
	claim = invited(&owner, LINK, 1, secret);
	stream = challenged(&claim);
	prove(secret, &claim, text);
	length = (uint32_t)snprintf(wire + 4, sizeof(wire) - 4,
				    "{\"type\":\"proof\",\"proof\":\"%s\"}", text);
	memcpy(wire, &length, 4);
	strcpy(wire + 4 + length, "first bytes");
	assert_int_equal(send(stream.fd, wire, 4 + length + 11, 0), 4 + length + 11);
	assert_true(becomes(&attached_count, 1));
	expect_bytes(&attached[0], "first bytes");
	stream_close(&stream);
	stream_close(&owner.stream);
}

static void expect_closed(struct stream *stream)
{
	expect_end(dup(stream->fd));
	stream_close(stream);
}

/*
 * Goal: a key that was taken away opens nothing, however far its owner had come: shaking hands when
 * the files are read again, through with it and silent, or open.
 */
static void test_old_key(void **state)
{
	struct slu_tls_options alice = psk("all", "alice");
	struct stream half = {.fd = -1}, silent, open, fresh;
	struct tls *alice_tls;
	uint64_t number;
	int rc;

	(void)state;
	keys_write("changing", "alice:" KEY_ALICE "\nbob:" KEY_BOB "\n");
	begin((struct setting){.target = psk("changing", NULL), .initiator = psk("all", "bob")});
	assert_int_equal(tls_open(TLS_CLIENT, &alice, &alice_tls), 0);
	silent = shaken(alice_tls);
	open = greeted(alice_tls, &number);
	do { /* until the target is not so quick that all of it is done at once */
		stream_close(&half);
		half = (struct stream){.fd = dial()};
		assert_int_equal(tls_start(alice_tls, &half, "127.0.0.1"), 0);
		rc = tls_handshake(&half);
		assert_in_range(rc, 0, 1);
	} while (rc == 1);
	wait_readable(half.fd); /* the target has chosen the key */
	keys_write("changing", "bob:" KEY_BOB "\n");
	assert_int_equal(server_reload_tls(server), 0);
	expect_closed(&silent);
	expect_closed(&open);
	while ((rc = tls_handshake(&half)) == 0)
		wait_readable(half.fd);
	assert_int_equal(rc, 1);
	say(&half, hello());
	expect_refusal(&half, EKEYREVOKED);
	expect_closed(&half);
	fresh = greeted(client_tls, &number);
	stream_close(&fresh);
	tls_close(alice_tls);
}

/* Goal: between the reading of the files and the end of those who have lost their key nothing is
 * opened and nothing attached either. */
static void test_old_key_asks(void **state)
{
	struct slu_tls_options alice = psk("all", "alice");
	char text[PROOF_TEXT];
	struct stream early, late;
	uint8_t secret[SECRET_BYTES];
	struct data_claim claim;
	struct tls *alice_tls;
	struct owner owner;

	(void)state;
	keys_write("changing", "alice:" KEY_ALICE "\nbob:" KEY_BOB "\n");
	begin((struct setting){.target = psk("changing", NULL), .initiator = psk("all", "bob")});
	assert_int_equal(tls_open(TLS_CLIENT, &alice, &alice_tls), 0);
	owner = make_owner(alice_tls);
	claim = invited(&owner, LINK, 2, secret);
	early = shaken(alice_tls);
	say(&early, attach(&claim));
	expect_challenge(&early, &claim);
	late = shaken(alice_tls);
	keys_write("changing", "bob:" KEY_BOB "\n");
	assert_int_equal(tls_reload(server_tls), 0); /* not server_reload_tls() */
	prove(secret, &claim, text);
	say(&early, proof(text));
	expect_refusal(&early, EKEYREVOKED);
	expect_closed(&early);
	say(&late, attach(&claim));
	expect_refusal(&late, EKEYREVOKED);
	expect_closed(&late);
	say(&owner.stream, json_pack("{s:s, s:i, s:s, s:i, s:[s]}", "type", "open", "session", 2,
				     "segment", "ram", "rights", 1, "transports", "tcp"));
	expect_closed(&owner.stream);
	assert_int_equal(opened, 1);
	assert_int_equal(attached_count, 0);
	tls_close(alice_tls);
}

/* Goal: under TLS an invitation serves its own identity only, and no plain connection; whoever it
 * was shown to learns nothing by trying. */
static void test_stolen_invitation(void **state)
{
	struct slu_tls_options alice = psk("all", "alice");
	char text[PROOF_TEXT];
	uint8_t secret[SECRET_BYTES];
	struct data_claim claim;
	struct tls *alice_tls;
	struct stream stream;
	struct owner owner;

	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("all", "bob")});
	assert_int_equal(tls_open(TLS_CLIENT, &alice, &alice_tls), 0);
	owner = make_owner(client_tls);
	claim = invited(&owner, LINK, 1, secret);
	stream = shaken(alice_tls);
	say(&stream, attach(&claim));
	expect_refusal(&stream, EACCES);
	stream_close(&stream);
	refuse_proof((struct stream){.fd = dial()}, attach(&claim), EPERM);
	assert_int_equal(attached_count, 0);
	stream = shaken(client_tls);
	say(&stream, attach(&claim));
	expect_challenge(&stream, &claim);
	prove(secret, &claim, text);
	say(&stream, proof(text));
	expect(&stream, "attached");
	assert_true(becomes(&attached_count, 1));
	stream_close(&stream);
	stream_close(&owner.stream);
	tls_close(alice_tls);
}

/* Goal: a client of an older protocol is told so, over TCP too. */
static void test_version(void **state)
{
	struct stream stream;

	(void)state;
	begin((struct setting){0});
	stream = (struct stream){.fd = dial()};
	say(&stream,
	    json_pack("{s:s, s:[i,i]}", "type", "hello", "versions", 1, MESSAGE_VERSION_LOW - 1));
	expect_refusal(&stream, EPROTONOSUPPORT);
	expect_end(stream.fd);
}

/* Goal: who begins and does not go on is closed when its time is up: before a byte, inside TLS,
 * inside a message, or asked for a proof; a client that has greeted stays. */
static void test_half_open(void **state)
{
	uint8_t secret[SECRET_BYTES];
	struct stream good, asked;
	struct data_claim claim;
	struct owner owner;
	int fds[4];

	(void)state;
	begin((struct setting){.target = psk("all", NULL), .initiator = psk("all", "bob")});
	owner = make_owner(client_tls);
	good = owner.stream;
	claim = invited(&owner, LINK, 1, secret);
	asked = shaken(client_tls);
	say(&asked, attach(&claim));
	expect_challenge(&asked, &claim);
	for (int i = 0; i < 4; i++)
		fds[i] = dial();
	assert_int_equal(send(fds[1], "\x16", 1, 0), 1);
	assert_int_equal(send(fds[2], "\x16\x03\x01\x02\x00\x01", 6, 0), 6);
	assert_int_equal(send(fds[3], "\x40\0\0\0{\"type", 10, 0), 10);
	for (int i = 0; i < 4; i++)
		expect_end(fds[i]);
	expect_end(dup(asked.fd));
	stream_close(&asked);
	say(&good, json_pack("{s:s}", "type", "ping"));
	json_decref(hear(&good));
	stream_close(&good);
}

/* Goal: a connection on which nothing comes is asked; one that answers stays, one that does not is
 * closed. */
static void test_keepalive(void **state)
{
	struct stream alive, dead;
	uint64_t number;

	(void)state;
	begin((struct setting){.limits = {.ping_seconds = 1, .silence_seconds = 2}});
	alive = greeted(NULL, &number);
	dead = greeted(NULL, &number);
	for (int i = 0; i < 4; i++) {
		expect(&alive, "ping");
		say(&alive, json_pack("{s:s}", "type", "pong"));
	}
	expect(&dead, "ping");
	expect_end(dead.fd);
	assert_int_equal(server_connection_count(server), 1);
	stream_close(&alive);
}

/* Goal: real clients answer, and are not lost. */
static void test_kept_alive(void **state)
{
	struct session *session;
	struct client *client;
	uint64_t cpu_ns;

	(void)state;
	begin((struct setting){.limits = {.ping_seconds = 1, .silence_seconds = 2}});
	client = connected();
	session = opened_on(client);
	sleep(4);
	assert_int_equal(session_usage(session, TIMEOUT_US, &cpu_ns), 0);
	assert_int_equal(lost_count, 0);
	session_close(session);
	client_release(client);
}

/* Goal: garbage, endless lengths and one byte with an end are closed at once. */
static void test_garbage(void **state)
{
	static const char *const garbage[] = {"GET / HTTP/1.1\r\n\r\n", "\xff\xff\xff\xff",
					      "\x16\x03\x01\xff\xff\xff"};
	int fd;

	(void)state;
	for (int secure = 0; secure < 2; secure++) {
		begin((struct setting){.target = secure ? psk("all", NULL)
							: (struct slu_tls_options){0}});
		for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
			fd = dial();
			send(fd, garbage[i], strlen(garbage[i]), 0);
			expect_end(fd);
		}
		fd = dial();
		send(fd, "\x16", 1, 0);
		shutdown(fd, SHUT_WR);
		expect_end(fd);
		end();
	}
}

/* Goal: connections over the rate of their address are closed at once and leave nobody waiting
 * behind them; later it is served again. */
static void test_accept_rate(void **state)
{
	struct stream kept[5], late;
	uint64_t number;

	(void)state;
	begin((struct setting){
		.limits = {.local_accepts_per_second = 1, .local_accepts_burst = 5}});
	for (int i = 0; i < 5; i++)
		kept[i] = greeted(NULL, &number);
	for (int i = 0; i < 20; i++)
		expect_turned_away();
	sleep(2);
	late = greeted(NULL, &number);
	say(&late, json_pack("{s:s}", "type", "ping"));
	json_decref(hear(&late));
	stream_close(&late);
	for (int i = 0; i < 5; i++)
		stream_close(&kept[i]);
	assert_true(becomes(&gone, 6));
}

static _Atomic unsigned security_lines, security_events;

static void count_security(void *arg, enum slu_log_level level, const char *text)
{
	const char *more = strstr(text, "(and ");

	(void)arg;
	if (level != SLU_LOG_WARNING || !strstr(text, "security: "))
		return;
	atomic_fetch_add(&security_lines, 1);
	atomic_fetch_add(&security_events, 1 + (more ? (unsigned)atoi(more + 5) : 0));
}

/* Goal: of a flood of security events few lines are said, and they account for each of them. */
static void test_security_log(void **state)
{
	(void)state;
	begin((struct setting){0});
	atomic_store(&security_lines, 0);
	atomic_store(&security_events, 0);
	slu_log_set(SLU_LOG_WARNING, count_security, NULL);
	for (int i = 0; i < 500; i++)
		refuse_attach(1, LINK);
	assert_true(becomes(&security_events, 500));
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	assert_in_range(security_lines, 1, 100);
}

static bool own_address(char text[ADDRESS_TEXT_MAX])
{
	struct ifaddrs *all, *one;
	bool found = false;

	if (getifaddrs(&all) < 0)
		return false;
	for (one = all; one && !found; one = one->ifa_next) {
		union address address;

		if (!one->ifa_addr || one->ifa_addr->sa_family != AF_INET)
			continue;
		memcpy(&address.v4, one->ifa_addr, sizeof(address.v4));
		address.v4.sin_port = 0;
		found = !address_is_loopback(&address);
		if (found)
			address_format(&address, text);
	}
	freeifaddrs(all);
	return found;
}

/* Goal: an address that fails to show who it is, again and again, is refused for a while; those who
 * are connected from there stay. */
static void test_failing_address(void **state)
{
	char text[ADDRESS_TEXT_MAX];
	struct stream good;
	uint64_t number;

	(void)state;
	if (!own_address(text))
		skip_because("this host has no address but loopback");
	begin((struct setting){.address = text});
	good = greeted(NULL, &number);
	for (unsigned i = 0; i < SERVER_FAILURES_MAX; i++)
		refuse_attach(1, LINK);
	expect_turned_away();
	say(&good, json_pack("{s:s}", "type", "ping"));
	json_decref(hear(&good));
	stream_close(&good);
}

static int make_files(void **state)
{
	(void)state;
	if (keys_open() < 0)
		return -1;
	keys_write("all", "alice:" KEY_ALICE "\nbob:" KEY_BOB "\n");
	keys_write("bob", "bob:" KEY_BOB "\n");
	keys_write("wrong", "alice:" KEY_WRONG "\n");
	keys_write("mallory", "mallory:" KEY_WRONG "\n");
	keys_authority("ca");
	keys_authority("ca2");
	keys_certificate("target", "ca", "target", "IP:127.0.0.1", DAY);
	keys_certificate("carol", "ca", "carol", "DNS:carol.test", DAY);
	keys_certificate("posing", "ca", "user:root", NULL, DAY);
	keys_certificate("foreign", "ca2", "foreign", "IP:127.0.0.1", DAY);
	return 0;
}

static int remove_files(void **state)
{
	(void)state;
	keys_close();
	return 0;
}

#define networked(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#define SILENT 100u

/* Goal: clients from whom nothing is due are looked at by nobody, whatever their number; those that
 * have been silent for long are asked, and given up if they do not answer. */
static void test_silent_clients(void **state)
{
	static struct stream streams[SILENT];

	(void)state;
	begin((struct setting){.limits = {.ping_seconds = 3, .silence_seconds = 4}});
	for (uint32_t i = 0; i < SILENT; i++)
		streams[i] = greeted(NULL, &(uint64_t){0});
	work_forget();
	sleep(2);
	assert_in_range(work_greatest(WORK_EVENT, WORK_ITEMS), 0, 1);
	for (uint32_t i = 0; i < SILENT; i++)
		expect(&streams[i], "ping");
	say(&streams[0], json_pack("{s:s}", "type", "pong"));
	for (uint32_t i = 1; i < SILENT; i++)
		expect_end(streams[i].fd);
	assert_true(becomes(&gone, SILENT - 1));
	stream_close(&streams[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		networked(test_plain),
		networked(test_key),
		networked(test_certificates),
		networked(test_plain_data),
		networked(test_data_of_unix_client),
		networked(test_dial_refused),
		networked(test_shared_connection),
		networked(test_thousand_sessions),
		networked(test_paths),
		networked(test_many_paths),
		networked(test_paths_of_a_target_that_dies),
		networked(test_target_dies),
		networked(test_wrong_key),
		networked(test_unknown_identity),
		networked(test_expired_certificate),
		networked(test_rejected_certificates),
		networked(test_tls_mismatch),
		networked(test_exposed_initiator),
		networked(test_name_unknown),
		networked(test_nobody_listens),
		networked(test_listen),
		networked(test_refused_segment),
		networked(test_revoked_key),
		networked(test_uninvited),
		networked(test_wrong_proofs),
		networked(test_replayed_proof),
		networked(test_proof_too_late),
		networked(test_broken_attach),
		networked(test_no_byte_overread),
		networked(test_stolen_invitation),
		networked(test_old_key),
		networked(test_old_key_asks),
		networked(test_version),
		networked(test_half_open),
		networked(test_keepalive),
		networked(test_kept_alive),
		networked(test_garbage),
		networked(test_accept_rate),
		networked(test_security_log),
		networked(test_failing_address),
		networked(test_silent_clients),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, make_files, remove_files);
}
