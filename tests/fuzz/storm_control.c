/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm of control messages, made from a seed: valid ones, nearly valid ones and noise, in pieces
 * of any size, over Unix sockets and TCP to one target. libFuzzer finds the clever inputs; this one
 * counts: storm_control COUNT [SEED]. To be built with sanitizers.
 *
 * Meanwhile a client that behaves opens and closes sessions, attaches data connections and fences:
 * it must be served to the end, and only it. What the storm opened must all have been closed when
 * its connections have gone.
 */
#include <dirent.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "control/invitation.h"
#include "control/server.h"
#include "directory/p2p.h"
#include "net/address.h"
#include "net/stream.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/odd_json.h"

#define WIRE_MAX    32768u
#define PATIENCE_MS 300000
#define LINKS       16u   /* of the client that behaves */
#define BURST       4096u /* bytes gathered before they are sent */

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static struct random dice;
static struct server *server;
static struct sockaddr_un path;
static socklen_t path_length;
static union address tcp;
static _Atomic int clients;
static _Atomic uint64_t attached, taken, paths, fenced, last_gone;
static uint64_t right_proofs; /* sent */
static uint64_t good_number;  /* of the connection of the client that behaves */
static uint64_t good_fences;  /* of its links */
static _Atomic uint64_t good_fenced;

static uint32_t below(uint32_t n)
{
	return (uint32_t)random_below(&dice, n);
}

static struct message_reader reader; /* of somebody who behaves */

int __real_message_read(struct message_reader *from, struct stream *stream, json_t **message);
int __wrap_message_read(struct message_reader *from, struct stream *stream, json_t **message);

/* Counts what the target has taken: more was sent, but not all before the connection had ended. */
int __wrap_message_read(struct message_reader *from, struct stream *stream, json_t **message)
{
	int rc = __real_message_read(from, stream, message);

	if (from != &reader && rc != 0 && rc != -ECONNRESET)
		atomic_fetch_add(&taken, 1);
	return rc;
}

/* ---- the target ---- */

static int on_open(void *arg, const struct peer_info *peer, const char *segment, uint32_t rights,
		   const json_t *transports, json_t *opened, int fds[MESSAGE_FDS_MAX],
		   uint32_t *close_mask, void **client)
{
	(void)arg;
	(void)transports;
	if (rights == 0 || strlen(segment) > 20)
		return fail(-EACCES, "\"%.30s\" is not for you", segment);
	json_object_set_new(opened, "length", json_integer(4096));
	*client = malloc(1);
	atomic_fetch_add(&clients, 1);
	if (!peer->is_unix)
		return 0;
	fds[0] = dup(0);
	*close_mask = 1;
	return 1;
}

static json_t *on_describe(void *arg, const struct peer_info *peer)
{
	(void)arg;
	return peer->connection % 3
		       ? json_pack("{s:{s:I}}", "verbs", "number", (json_int_t)peer->connection)
		       : NULL;
}

/* What an offer may hold is taken as a transport would, and sent back: some of it is too long. */
static int on_path(void *client, const struct path_ask *ask, const json_t *offer, json_t *answer)
{
	(void)ask;
	must(client && json_is_object(offer));
	atomic_fetch_add(&paths, 1);
	if (json_object_get(offer, "refuse"))
		return fail(-ENOSPC, "no path is left");
	json_object_set_new(answer, "back", json_deep_copy(offer));
	json_object_set_new(answer, "again", json_deep_copy(offer));
	return 0;
}

static void on_moved(void *client, uint64_t operations, uint64_t bytes_read, uint64_t bytes_written)
{
	(void)operations;
	(void)bytes_read;
	(void)bytes_written;
	must(client);
}

static void on_close(void *client, bool lost)
{
	(void)lost;
	atomic_fetch_sub(&clients, 1);
	free(client);
}

static void on_attach(void *arg, struct stream *stream, const struct peer_info *peer, uint64_t link)
{
	(void)arg;
	(void)link;
	must(peer->connection == good_number);
	atomic_fetch_add(&attached, 1);
	stream_close(stream);
}

static void on_fence(void *arg, uint64_t connection, uint64_t link)
{
	(void)arg;
	(void)link;
	atomic_fetch_add(connection == good_number ? &good_fenced : &fenced, 1);
}

static void on_gone(void *arg, uint64_t connection)
{
	(void)arg;
	must(connection != good_number || !server);
	atomic_store(&last_gone, connection);
}

static const struct server_callbacks callbacks = {.describe = on_describe,
						  .open = on_open,
						  .path = on_path,
						  .moved = on_moved,
						  .close = on_close,
						  .attach = on_attach,
						  .fence = on_fence,
						  .gone = on_gone};

static void start_target(void)
{
	static const struct trust trust;
	struct server_options options = {.trust = &trust,
					 .name = "storm",
					 .callbacks = &callbacks,
					 .limits = {.local_accepts_per_second = 1000000,
						    .local_accepts_burst = 1000000,
						    .messages_per_second = 100000000}};
	union address addresses[ADDRESSES_MAX];
	struct listener *listener, *tcp_listener;
	struct host_port at;
	char name[32];

	snprintf(name, sizeof(name), "storm-%d", (int)getpid());
	p2p_segment_address(name, &path, &path_length);
	must(control_thread_start(&options.control) == 0);
	must(server_create(&options, &server) == 0);
	must(server_listen(server, &path, path_length, &listener) == 0);
	must(server_listen_tcp(server, "127.0.0.1:0", false, &tcp_listener) == 0);
	must(address_parse(listener_address(tcp_listener), &at) == 0);
	must(address_resolve(&at, clock_monotonic_ns(NULL) + NS_PER_SECOND, addresses) == 1);
	tcp = addresses[0];
}

/* ---- messages ---- */

struct wire {
	uint32_t length;
	uint8_t bytes[WIRE_MAX];
};

static void put(struct wire *wire, const void *bytes, uint32_t length)
{
	must(wire->length + length <= WIRE_MAX);
	memcpy(wire->bytes + wire->length, bytes, length);
	wire->length += length;
}

__attribute__((format(printf, 2, 3))) static void say(struct wire *wire, const char *format, ...)
{
	static char text[MESSAGE_MAX_BYTES];
	uint32_t length;
	va_list args;

	va_start(args, format);
	length = (uint32_t)vsnprintf(text, sizeof(text), format, args);
	must(length < sizeof(text));
	va_end(args);
	put(wire, &length, sizeof(length));
	put(wire, text, length);
}

/* A number as JSON, mostly a small one, sometimes nothing of the kind. */
static const char *number(void)
{
	static const char *const odd[] = {
		"-1", "4294967295", "4294967296", "9223372036854775807", "1e99", "null", "\"1\"",
		"[]", "0.5",        "{}",         "18446744073709551616"};
	static char small[4][16];
	static unsigned next;
	char *text = small[next++ % 4];

	if (below(1000) == 0)
		return odd[below(sizeof(odd) / sizeof(odd[0]))];
	snprintf(text, sizeof(small[0]), "%u", below(64));
	return text;
}

static void say_open(struct wire *wire)
{
	static const char *const segments[] = {"ram", "", "a\\u0000b", "\\ud83d\\ude00",
					       "a name that is longer than is allowed"};

	say(wire,
	    "{\"type\":\"open\",\"session\":%s,\"segment\":\"%s\",\"rights\":%s,\"transports\":[%s]"
	    "}",
	    number(), segments[below(8) ? 0 : below(5)], number(),
	    below(8) ? "\"shm\",\"tcp\"" : "1,[],null");
}

static void say_close(struct wire *wire)
{
	say(wire,
	    "{\"type\":\"close\",\"session\":%s,\"operations\":%s,\"bytes_read\":%s,"
	    "\"bytes_written\":%s}",
	    number(), number(), number(), number());
}

static void say_moved(struct wire *wire)
{
	say(wire, "{\"type\":\"moved\",\"totals\":[[%s,%s,%s,%s],[%s,1,2,3]]}", number(), number(),
	    number(), number(), number());
}

/* Mostly an object, sometimes one that is nearly too long to be sent back, or nothing of the kind.
 */
static void say_path(struct wire *wire)
{
	static const char *const odd[] = {"[]", "null", "7", "\"{}\"", "true"};
	static char pad[12000];
	uint32_t kind = below(1000);

	memset(pad, 'x', sizeof(pad) - 1);
	if (kind == 0)
		say(wire, "{\"type\":\"path\",\"session\":%s,\"request\":%s,\"offer\":%s}",
		    number(), number(), odd[below(sizeof(odd) / sizeof(odd[0]))]);
	else if (kind < 10)
		say(wire,
		    "{\"type\":\"path\",\"session\":%s,\"request\":%s,\"offer\":{\"pad\":"
		    "\"%.*s\"}}",
		    number(), number(), (int)below(sizeof(pad)), pad);
	else
		say(wire,
		    "{\"type\":\"path\",\"session\":%s,\"request\":%s,\"offer\":{\"qpn\":%s,"
		    "\"gids\":[\"fe80::1\",%s],\"%s\":{}}}",
		    number(), below(30) ? number() : "9223372036854775806", number(), number(),
		    kind < 300 ? "refuse" : "verbs");
}

/* As a number of a connection or link is written; that of a client, or of none, or not a number. */
static const char *name(void)
{
	static const char *const odd[] = {"", "1", "000000000000000G", "00000000000000001",
					  "\\u0000"};
	static char names[4][17];
	static unsigned next;
	char *text = names[next++ % 4];

	if (below(500) == 0)
		return odd[below(sizeof(odd) / sizeof(odd[0]))];
	snprintf(text, sizeof(names[0]), "%016x", below(8) ? below(300) : 0xffffffffu);
	return text;
}

/* 16 bytes that nobody has told: a secret, or a proof. */
static const char *guess(void)
{
	static char text[33];

	snprintf(text, sizeof(text), "%016llx%016llx", (unsigned long long)random_next(&dice),
		 (unsigned long long)random_next(&dice));
	if (below(500) == 0)
		text[below(32)] = below(2) ? '\0' : 'x';
	return text;
}

static void say_invite(struct wire *wire)
{
	say(wire, "{\"type\":\"invite\",\"request\":%s,\"offer\":{\"link\":\"%s\",\"count\":%s}}",
	    number(), name(), number());
}

/* A link of its own; or somebody's connection, and not even its own may be ended so. */
static void say_fence(struct wire *wire)
{
	if (below(2))
		say(wire, "{\"type\":\"fence\",\"request\":%s,\"offer\":{\"link\":\"%s\"}}",
		    number(), name());
	else
		say(wire,
		    "{\"type\":\"fence\",\"request\":%s,\"offer\":{\"connection\":\"%s\","
		    "\"proof\":\"%s\"}}",
		    number(), name(), guess());
}

/* Of whichever connection: what is proved is worth nothing but here. */
static void say_same(struct wire *wire)
{
	say(wire,
	    "{\"type\":\"same\",\"request\":%s,\"offer\":{\"connection\":\"%s\","
	    "\"nonce\":\"%s\"}}",
	    number(), name(), guess());
}

static void say_something(struct wire *wire)
{
	static const char *const plain[] = {"ping",     "pong",   "usage",   "hello", "bye",
					    "attach",   "opened", "closing", "",      "ping\\n",
					    "path",     "invite", "fence",   "proof", "challenge",
					    "attached", "same"};
	uint32_t what = below(29);

	if (what < 8)
		say_open(wire);
	else if (what < 14)
		say_close(wire);
	else if (what < 17)
		say_moved(wire);
	else if (what < 21)
		say_path(wire);
	else if (what < 23)
		say_invite(wire);
	else if (what < 25)
		say_fence(wire);
	else if (what < 26)
		say_same(wire);
	else
		say(wire, "{\"type\":\"%s\"}", plain[below(500) ? below(3) : below(17)]);
}

/* One bit, or a length that lies. */
static void spoil(struct wire *wire, uint32_t begin)
{
	if (below(4) == 0)
		wire->bytes[begin + below(4)] ^= (uint8_t)(1u << below(8));
	else
		wire->bytes[begin + below(wire->length - begin)] ^= (uint8_t)(1u << below(8));
}

/* Attaching, with the links to which somebody is invited among those that are claimed. */
static void begin_connection(struct wire *wire)
{
	wire->length = 0;
	if (below(20) == 0) {
		say(wire, "{\"type\":\"attach\",\"connection\":\"%016llx\",\"link\":\"%016x\"}",
		    (unsigned long long)good_number, below(LINKS));
		if (below(4))
			say(wire, "{\"type\":\"proof\",\"proof\":\"%s\"}", guess());
	} else if (below(50)) {
		say(wire, "{\"type\":\"hello\",\"versions\":[2,%s],\"name\":\"storm\"}",
		    below(20) ? VERSION : number());
	}
}

/* ---- sending ---- */

static int dial_tcp(uint32_t host)
{
	struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	must(fd >= 0 && bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0);
	must(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)) == 0);
	must(connect(fd, &tcp.any, sizeof(tcp.v4)) == 0);
	return fd;
}

/* From many addresses of this host: one that sends wrong proofs is not listened to for a while. */
static int dial(void)
{
	int fd;

	if (below(2))
		return dial_tcp(INADDR_LOOPBACK + 1 + below(100000));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && connect(fd, (struct sockaddr *)&path, path_length) == 0);
	return fd;
}

/* Reads what is said back, or the target would stop to listen. @return false: it hung up */
static bool deliver(int fd, const struct wire *wire)
{
	static char waste[65536];
	uint32_t at = 0;

	while (at < wire->length) {
		struct pollfd ready = {.fd = fd, .events = POLLIN | POLLOUT};
		uint32_t left = wire->length - at;
		ssize_t rc;

		must(poll(&ready, 1, PATIENCE_MS) == 1); /* else the target hangs */
		if (ready.revents & (POLLIN | POLLHUP | POLLERR)) {
			rc = recv(fd, waste, sizeof(waste), MSG_DONTWAIT);
			if (rc == 0 || (rc < 0 && errno != EAGAIN))
				return false;
		}
		if (!(ready.revents & POLLOUT))
			continue;
		rc = send(fd, wire->bytes + at, below(8) ? left : 1 + below(left),
			  MSG_NOSIGNAL | MSG_DONTWAIT);
		if (rc < 0 && errno != EAGAIN)
			return false;
		at += rc > 0 ? (uint32_t)rc : 0;
	}
	return true;
}

/* One connection. */
static void storm_once(void)
{
	static struct wire wire;
	uint32_t bursts = 1 + below(200);
	bool open = true;
	int fd = dial();

	begin_connection(&wire);
	while (open && bursts-- > 0) {
		while (wire.length < BURST) {
			uint32_t begin = wire.length;

			say_something(&wire);
			if (below(3000) == 0)
				spoil(&wire, begin);
		}
		open = deliver(fd, &wire);
		wire.length = 0;
	}
	close(fd);
}

/* ---- somebody who behaves ---- */

static struct stream good;

static json_t *expect(const char *type)
{
	json_t *message;
	int rc;

	while ((rc = message_read(&reader, &good, &message)) == 0) {
		struct pollfd readable = {.fd = good.fd, .events = POLLIN};

		must(poll(&readable, 1, PATIENCE_MS) == 1);
	}
	must(rc == 1);
	must(strcmp(message_type(message), type) == 0);
	return message;
}

static void tell(const char *text)
{
	struct message_writer writer = {.limit_bytes = 0};

	must(message_send(&writer, &good, json_loads(text, 0, NULL), NULL, 0) == 0);
}

static uint64_t greet(char secret[SECRET_TEXT])
{
	json_t *welcome;
	uint64_t given;

	good = (struct stream){.fd = dial_tcp(INADDR_LOOPBACK)};
	tell("{\"type\":\"hello\",\"versions\":[2,6],\"name\":\"good\"}");
	welcome = expect("welcome");
	must(message_number(welcome, "connection", &given));
	snprintf(secret, SECRET_TEXT, "%s", json_string_value(json_object_get(welcome, "secret")));
	json_decref(welcome);
	return given;
}

static void ask(void)
{
	json_t *answer;
	json_int_t request;
	int qpn;

	tell("{\"type\":\"path\",\"session\":1,\"request\":17,\"offer\":{\"qpn\":5}}");
	answer = expect("path");
	must(json_unpack(answer, "{s:I, s:{s:{s:i}}}", "request", &request, "answer", "back", "qpn",
			 &qpn) == 0);
	must(request == 17 && qpn == 5);
	json_decref(answer);
}

__attribute__((format(printf, 1, 2))) static void tell_with(const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	must(vsnprintf(text, sizeof(text), format, args) < (int)sizeof(text));
	va_end(args);
	tell(text);
}

static void invite(uint64_t link, uint8_t secret[SECRET_BYTES])
{
	json_t *message;

	tell_with(
		"{\"type\":\"invite\",\"request\":18,\"offer\":{\"link\":\"%016llx\",\"count\":1}}",
		(unsigned long long)link);
	message = expect("invite");
	must(secret_parse(
		json_string_value(json_object_get(json_object_get(message, "answer"), "secret")),
		secret, SECRET_BYTES));
	json_decref(message);
}

/* A data connection of the client that behaves: its proof lets it in, and only it. */
static void attach(uint64_t link, const uint8_t secret[SECRET_BYTES])
{
	struct data_claim claim = {.connection = good_number, .link = link};
	char proof[PROOF_TEXT];
	struct stream control = good;
	json_t *message;

	good.fd = dial_tcp(INADDR_LOOPBACK);
	tell_with("{\"type\":\"attach\",\"connection\":\"%016llx\",\"link\":\"%016llx\"}",
		  (unsigned long long)good_number, (unsigned long long)link);
	message = expect("challenge");
	must(secret_parse(json_string_value(json_object_get(message, "nonce")), claim.nonce,
			  sizeof(claim.nonce)));
	json_decref(message);
	must(secret_prove_text(secret, &claim, sizeof(claim), proof));
	tell_with("{\"type\":\"proof\",\"proof\":\"%s\"}", proof);
	json_decref(expect("attached"));
	close(good.fd);
	good = control;
	right_proofs++;
}

static void fence_link(uint64_t link)
{
	tell_with("{\"type\":\"fence\",\"request\":19,\"offer\":{\"link\":\"%016llx\"}}",
		  (unsigned long long)link);
	json_decref(expect("fence"));
	must(atomic_load(&good_fenced) == ++good_fences);
}

/* A connection that it has lost. */
static void fence_connection(void)
{
	struct stream control = good;
	char secret[SECRET_TEXT], proof[PROOF_TEXT];
	uint8_t bytes[SECRET_BYTES];
	uint64_t old = greet(secret);
	int fd = good.fd;

	good = control;
	must(secret_parse(secret, bytes, sizeof(bytes)));
	must(secret_prove_text(bytes, FENCE_END, strlen(FENCE_END), proof));
	tell_with("{\"type\":\"fence\",\"request\":20,\"offer\":{\"connection\":\"%016llx\","
		  "\"binding\":\"%064x\",\"proof\":\"%s\"}}",
		  (unsigned long long)old, 0, proof);
	json_decref(expect("fence"));
	must(atomic_load(&last_gone) == old);
	must(recv(fd, secret, sizeof(secret), 0) <= 0);
	close(fd);
}

/* What it has invited meanwhile stays invited while the storm goes on, and is used after it. */
static void behave(void)
{
	static uint8_t secret[SECRET_BYTES];
	static uint64_t link;
	static bool open;

	if (open && below(4) == 0)
		attach(link, secret);
	if (open && below(4) == 0)
		fence_link(link);
	if (below(16) == 0)
		fence_connection();
	if (open)
		tell("{\"type\":\"close\",\"session\":1,\"operations\":0,\"bytes_read\":0,"
		     "\"bytes_written\":0}");
	tell("{\"type\":\"open\",\"session\":1,\"segment\":\"ram\",\"rights\":1,\"transports\":[]"
	     "}");
	json_decref(expect("opened"));
	open = true;
	ask();
	link = below(LINKS);
	invite(link, secret);
	tell("{\"type\":\"ping\"}");
	json_decref(expect("pong"));
}

static unsigned open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	must(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static void expect_nothing_left(unsigned descriptors)
{
	for (int i = 0;
	     i < 10000 && (server_connection_count(server) > 1 || open_descriptors() > descriptors);
	     i++)
		usleep(1000);
	must(server_connection_count(server) == 1);
	must(server_session_count(server) == 1);
	must(atomic_load(&clients) == 1);
	must(atomic_load(&attached) == right_proofs);
	must(atomic_load(&good_fenced) == good_fences);
	must(open_descriptors() == descriptors);
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, connections = 0;
	char secret[SECRET_TEXT];
	struct server *ended;
	unsigned descriptors;

	if (count == 0) {
		fprintf(stderr, "usage: %s COUNT [SEED]\n", argv[0]);
		return 2;
	}
	dice.state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	slu_log_set(SLU_LOG_ERROR, fuzz_log, NULL);
	start_target();
	good_number = greet(secret);
	behave();
	descriptors = open_descriptors();
	while (atomic_load(&taken) < count) {
		storm_once();
		connections++;
		behave();
	}
	expect_nothing_left(descriptors);
	ended = server;
	server = NULL;
	server_destroy(ended);
	printf("%llu messages on %llu connections, %llu paths asked for, %llu links fenced, %llu "
	       "attached, seed %s: nothing broke\n",
	       (unsigned long long)taken, (unsigned long long)connections,
	       (unsigned long long)paths, (unsigned long long)fenced, (unsigned long long)attached,
	       argc > 2 ? argv[2] : "1");
	return 0;
}
