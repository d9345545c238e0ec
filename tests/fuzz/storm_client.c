/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm of control messages from targets to a client, made from a seed: what a target may say,
 * nearly that, and noise, in pieces of any size, over Unix sockets and TCP; with descriptors that
 * nobody asked for. storm_client COUNT [SEED]. To be built with sanitizers.
 *
 * Whatever comes, opening ends, sessions are lost once, and at the end a target that behaves is
 * used as if nothing had been, with no descriptor left over.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/random.h"
#include "control/client.h"
#include "directory/p2p.h"
#include "tests/fuzz/fuzz.h"

#define WIRE_MAX      16384u
#define BURST         4096u /* bytes gathered before they are sent */
#define SESSIONS      4u
#define DESCRIPTORS   3u
#define PATIENCE_US   60000000u
#define IMPATIENCE_US 20000u
#define PACE_MS       1

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static struct random dice; /* the target's; the client's choices are made by the serial number */
static struct client_pool *pool;
static struct endpoint unix_end = {.is_unix = true}, tcp_end;
static int unix_listener, tcp_listener;
static _Atomic uint64_t taken, opened, answers;
static _Atomic bool behaves, over;

static uint32_t below(uint32_t n)
{
	return (uint32_t)random_below(&dice, n);
}

int __real_message_read(struct message_reader *reader, struct stream *stream, json_t **message);
int __wrap_message_read(struct message_reader *reader, struct stream *stream, json_t **message);

/* Counts what the client has taken: more was sent, but not all before it had closed. */
int __wrap_message_read(struct message_reader *reader, struct stream *stream, json_t **message)
{
	int rc = __real_message_read(reader, stream, message);

	if (rc != 0 && rc != -ECONNRESET)
		atomic_fetch_add(&taken, 1);
	return rc;
}

/* ---- what the target says ---- */

struct wire {
	uint32_t length;
	uint8_t bytes[WIRE_MAX];
};

__attribute__((format(printf, 2, 3))) static void say(struct wire *wire, const char *format, ...)
{
	char text[2048];
	uint32_t length;
	va_list args;

	va_start(args, format);
	length = (uint32_t)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	must(length < sizeof(text) && wire->length + 4 + length <= WIRE_MAX);
	memcpy(wire->bytes + wire->length, &length, 4);
	memcpy(wire->bytes + wire->length + 4, text, length);
	wire->length += 4 + length;
}

/* A number as JSON, mostly a small one, sometimes nothing of the kind. */
static const char *number(void)
{
	static const char *const odd[] = {
		"-1", "4294967295", "9223372036854775807", "1e99", "null", "\"1\"", "[]", "0.5"};
	static char small[8][16];
	static unsigned next;
	char *text = small[next++ % 8];

	if (below(200) == 0)
		return odd[below(sizeof(odd) / sizeof(odd[0]))];
	snprintf(text, sizeof(small[0]), "%u", below(8));
	return text;
}

/* ---- what the client has asked on this connection ---- */

#define ASKS 256u /* the latest ones */

static long open_heard = -1; /* session of an open that was not answered */
static uint32_t asks_heard;
static uint32_t asked_on[ASKS]; /* session, by request */

/* Reads along: what is cut in two is missed, and one answer fewer is right. */
static void note_asks(const char *text, const char *end)
{
	while ((text = memchr(text, '{', (size_t)(end - text)))) {
		unsigned session, request;

		if (sscanf(text, "{\"type\":\"open\",\"session\":%u", &session) == 1)
			open_heard = session;
		if (sscanf(text, "{\"type\":\"path\",\"session\":%u,\"request\":%u", &session,
			   &request) == 2) {
			asked_on[request % ASKS] = session;
			asks_heard = request + 1;
		}
		text++;
	}
}

/* To one of the latest, mostly with what an answer has; seldom to what was never asked. */
static void say_answer(struct wire *wire)
{
	static const char *const odd[] = {"[]", "null", "7", "\"{}\""};
	uint32_t back = 1 + below(asks_heard < 8 ? asks_heard : 8);
	uint32_t request = asks_heard - back + (below(2000) ? 0 : back);
	uint32_t session = below(2000) ? asked_on[request % ASKS] : below(8);

	if (below(4) == 0)
		say(wire,
		    "{\"type\":\"refused\",\"session\":%u,\"request\":%u,\"error\":%s,"
		    "\"text\":\"no\"}",
		    session, request, below(9) ? "28" : number());
	else
		say(wire, "{\"type\":\"path\",\"session\":%u,\"request\":%u,\"answer\":%s}",
		    session, request, below(20) ? "{\"qpn\":5,\"keys\":[1,2]}" : odd[below(4)]);
}

static void say_welcome(struct wire *wire)
{
	bool odd = !behaves && below(8) == 0;

	say(wire,
	    "{\"type\":\"welcome\",\"version\":%s,\"name\":\"%s\",\"incarnation\":\"%s\","
	    "\"pid\":%s,\"boot_id\":\"x\",\"identity\":\"me\",\"token\":\"t\",\"socket\":%s,"
	    "\"tcp\":%s,\"transports\":%s}",
	    odd        ? number()
	    : below(8) ? "3"
		       : "2",
	    odd && below(4) == 0 ? "a\\nb" : "storm",
	    odd && below(4) == 0 ? "-12" : "00000000deadbeef", odd ? number() : "1",
	    odd ? number() : "null",
	    odd ? "{\"host\":\"x\",\"port\":70000,\"tls\":1,\"plain\":0}" : "null",
	    odd && below(4) == 0 ? number() : "{\"verbs\":{\"gid\":\"fe80::1\"}}");
}

static void say_opened(struct wire *wire, const char *session)
{
	say(wire,
	    "{\"type\":\"opened\",\"session\":%s,\"transport\":\"%s\",\"length\":%s,\"rights\":1,"
	    "\"page_bytes\":4096,\"node\":0,\"grant\":%s}",
	    session, below(20) ? "shm" : "ether", below(20) ? "4096" : number(),
	    below(50) ? "{}" : "7");
}

/* What was asked to be opened, mostly; else a session that is open, or none. */
static void open_something(struct wire *wire)
{
	char session[16];

	if (open_heard < 0 || below(200) == 0) {
		say_opened(wire, number());
		return;
	}
	snprintf(session, sizeof(session), "%ld", open_heard);
	say_opened(wire, session);
	open_heard = -1;
}

static void say_something(struct wire *wire)
{
	static const char *const plain[] = {"welcome", "attached", "hello", "",
					    "opened",  "refused",  "path"};
	uint32_t what = below(32);

	if (what >= 24 && asks_heard > 0)
		say_answer(wire);
	else if (what >= 20 && open_heard >= 0)
		open_something(wire);
	else if (what < 8 || below(60)) /* most of the rest ends what has begun */
		say(wire, "{\"type\":\"%s\"}", below(50) ? "pong" : "ping");
	else if (what < 12)
		say(wire, "{\"type\":\"usage\",\"cpu_ns\":%s}", number());
	else if (what < 16)
		say(wire, "{\"type\":\"closing\",\"error\":%s,\"sessions\":[%s,%s]}",
		    below(2) ? "128" : number(), number(), number());
	else if (what < 20)
		say(wire, "{\"type\":\"refused\",\"session\":%s,\"error\":%s,\"text\":\"no\"}",
		    number(), below(9) ? "13" : number());
	else if (below(2))
		open_something(wire);
	else
		say(wire, "{\"type\":\"%s\"}", plain[below(7)]);
}

static void spoil(struct wire *wire, uint32_t begin)
{
	wire->bytes[begin + below(wire->length - begin)] ^= (uint8_t)(1u << below(8));
}

static void make_burst(struct wire *wire)
{
	uint32_t length = below(20) ? 1 + below(256) : BURST; /* mostly a few: the client's turn */

	wire->length = 0;
	while (wire->length < length) {
		uint32_t begin = wire->length;

		say_something(wire);
		if (below(2000) == 0)
			spoil(wire, begin);
	}
}

/* ---- the target ---- */

static ssize_t send_some(int fd, const uint8_t *bytes, size_t length, bool with_descriptors)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(DESCRIPTORS * sizeof(int))];
	} control = {0};
	const int descriptors[DESCRIPTORS] = {0, 1, 2};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

	if (with_descriptors) {
		header.msg_control = control.bytes;
		header.msg_controllen = sizeof(control.bytes);
		control.align.cmsg_level = SOL_SOCKET;
		control.align.cmsg_type = SCM_RIGHTS;
		control.align.cmsg_len = CMSG_LEN(sizeof(descriptors));
		memcpy(CMSG_DATA(&control.align), descriptors, sizeof(descriptors));
	}
	return sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Read what is there. @return false: it hung up */
static bool hear(int fd)
{
	static char text[65536];
	ssize_t rc = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	if (rc == 0 || (rc < 0 && errno != EAGAIN))
		return false;
	rc = rc > 0 ? rc : 0;
	text[rc] = '\0';
	note_asks(text, text + rc);
	return true;
}

/* Give the client time to say something: what answers nothing ends most connections. */
static bool wait_and_hear(int fd)
{
	struct pollfd said = {.fd = fd, .events = POLLIN};

	return poll(&said, 1, below(8) ? PACE_MS : 0) == 0 || hear(fd);
}

/* Reads what is said back, or the client would give us up. @return false: it hung up */
static bool deliver(int fd, bool is_unix, const struct wire *wire)
{
	uint32_t at = 0;

	while (at < wire->length) {
		struct pollfd ready = {.fd = fd, .events = POLLIN | POLLOUT};
		uint32_t left = wire->length - at;
		ssize_t rc;

		must(poll(&ready, 1, PATIENCE_US / 1000) == 1); /* else the client hangs */
		if (ready.revents & (POLLIN | POLLHUP | POLLERR) && !hear(fd))
			return false;
		if (!(ready.revents & POLLOUT))
			continue;
		rc = send_some(fd, wire->bytes + at, below(8) ? left : 1 + below(left),
			       is_unix && below(20) == 0);
		if (rc < 0 && errno != EAGAIN)
			return false;
		at += rc > 0 ? (uint32_t)rc : 0;
	}
	return true;
}

static void rage(int fd, bool is_unix)
{
	static struct wire wire;
	uint32_t bursts = below(1000);
	bool open = true;

	wire.length = 0;
	asks_heard = 0;
	open_heard = -1;
	if (below(30))
		say_welcome(&wire);
	open = deliver(fd, is_unix, &wire);
	while (open && bursts-- > 0) {
		open = wait_and_hear(fd);
		if (!open)
			break;
		make_burst(&wire);
		open = deliver(fd, is_unix, &wire);
	}
}

static bool heard(int fd, const char *what)
{
	char text[4096];
	size_t length = 0;
	ssize_t rc;

	while (length < sizeof(text) && !memmem(text, length, what, strlen(what))) {
		rc = recv(fd, text + length, sizeof(text) - length, 0);
		if (rc <= 0)
			return false;
		length += (size_t)rc;
	}
	return length < sizeof(text);
}

static void tell(int fd, const struct wire *wire)
{
	must(send(fd, wire->bytes, wire->length, MSG_NOSIGNAL) == (ssize_t)wire->length);
}

/* One session is opened and one path made, and the connection closed by the client. */
static void behave(int fd)
{
	static struct wire welcome, opened, path;

	welcome.length = opened.length = path.length = 0;
	do {
		welcome.length = 0;
		say_welcome(&welcome);
	} while (!memmem(welcome.bytes, welcome.length, "\"version\":3", 11));
	say(&path, "{\"type\":\"path\",\"session\":0,\"request\":0,\"answer\":{\"qpn\":5}}");
	say(&opened, "{\"type\":\"opened\",\"session\":0,\"transport\":\"shm\",\"length\":4096,"
		     "\"rights\":1,\"page_bytes\":4096,\"node\":0,\"grant\":{}}");
	must(heard(fd, "\"hello\""));
	tell(fd, &welcome);
	must(heard(fd, "\"open\""));
	tell(fd, &opened);
	must(heard(fd, "\"path\""));
	tell(fd, &path);
	must(heard(fd, "\"bye\""));
}

static void *play_target(void *arg)
{
	struct pollfd ready[2] = {{.fd = unix_listener, .events = POLLIN},
				  {.fd = tcp_listener, .events = POLLIN}};

	while (!over) {
		poll(ready, 2, 100);
		for (int i = 0; i < 2; i++) {
			int fd;

			if (!ready[i].revents)
				continue;
			fd = accept4(ready[i].fd, NULL, NULL, SOCK_CLOEXEC);
			must(fd >= 0);
			if (behaves)
				behave(fd);
			else
				rage(fd, i == 0);
			close(fd);
		}
	}
	return arg;
}

static void listen_somewhere(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(any);
	char name[32];

	snprintf(name, sizeof(name), "storm-client-%d", (int)getpid());
	p2p_segment_address(name, &unix_end.path, &unix_end.path_length);
	unix_listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	tcp_listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(bind(unix_listener, (struct sockaddr *)&unix_end.path, unix_end.path_length) == 0);
	must(bind(tcp_listener, (struct sockaddr *)&any, sizeof(any)) == 0);
	must(listen(unix_listener, 16) == 0 && listen(tcp_listener, 16) == 0);
	must(getsockname(tcp_listener, (struct sockaddr *)&any, &length) == 0);
	snprintf(tcp_end.tcp.host, sizeof(tcp_end.tcp.host), "127.0.0.1");
	tcp_end.tcp.port = ntohs(any.sin_port);
}

/* ---- the client ---- */

struct use {
	struct session *session;
	_Atomic uint32_t losses;
	uint32_t asked;            /* without waiting */
	_Atomic uint32_t answered; /* as often, when the session is closed */
};

static void on_lost(void *arg, int error)
{
	struct use *use = arg;

	must(error == -ESHUTDOWN || error == -EKEYREVOKED || error == -ECONNRESET);
	must(atomic_fetch_add(&use->losses, 1) == 0);
}

static void on_totals(void *arg, struct client_totals *totals)
{
	(void)arg;
	*totals = (struct client_totals){.operations = 1};
}

static int open_session(struct client *client, struct use *use, uint64_t timeout_us)
{
	static const struct session_callbacks callbacks = {.lost = on_lost, .totals = on_totals};
	static const enum slu_transport transports[] = {SLU_TRANSPORT_SHM};
	const struct session_request request = {.segment = "ram",
						.rights = SLU_RIGHT_READ,
						.transports = transports,
						.transport_count = 1,
						.timeout_us = timeout_us,
						.callbacks = &callbacks,
						.arg = use};
	struct client_grant grant;
	int rc = session_open(client, &request, &use->session, &grant);

	if (rc < 0)
		return rc;
	must(grant.length > 0 && grant.fd_count <= MESSAGE_FDS_MAX);
	client_grant_free(&grant);
	atomic_fetch_add(&opened, 1);
	return 0;
}

static void on_answered(void *arg, int error, const json_t *answer)
{
	struct use *use = arg;

	must(error <= 0 && json_is_object(answer) == (error == 0));
	must(error == 0 || slu_last_error()[0]);
	atomic_fetch_add(&use->answered, 1);
	atomic_fetch_add(&answers, error == 0);
}

static int ask(struct use *use, uint64_t timeout_us)
{
	json_t *offer = json_pack("{s:i, s:[i,i]}", "qpn", 1, "keys", 2, 3), *answer = NULL;
	int rc = session_ask(use->session, offer, timeout_us, &answer);

	must(rc <= 0 && json_is_object(answer) == (rc == 0));
	atomic_fetch_add(&answers, rc == 0);
	json_decref(answer);
	json_decref(offer);
	return rc;
}

static void ask_without_waiting(struct use *use)
{
	must(session_ask_async(use->session, json_pack("{s:i}", "qpn", 7), on_answered, use) == 0);
	use->asked++;
}

static void close_session(struct use *use)
{
	session_close(use->session);
	must(atomic_load(&use->answered) == use->asked);
}

static void visit(uint64_t serial)
{
	struct use uses[SESSIONS] = {0};
	struct client *client;
	uint64_t cpu_ns;

	if (client_connect(pool, serial % 2 ? &tcp_end : &unix_end, "ram", PATIENCE_US, &client) <
	    0)
		return;
	for (uint32_t i = 0; i < SESSIONS; i++)
		for (uint32_t n = 0; open_session(client, &uses[i], IMPATIENCE_US) < 0 && n < 8;)
			n++;
	for (uint32_t n = 0; n < 100; n++) {
		struct use *use = &uses[n % SESSIONS];

		if (!use->session)
			continue;
		if (n % 3 == 0)
			ask_without_waiting(use);
		if (n % 3 == 1)
			ask(use, IMPATIENCE_US);
		else
			session_usage(use->session, IMPATIENCE_US, &cpu_ns);
	}
	for (uint32_t i = 0; i < SESSIONS; i++)
		close_session(&uses[(i + serial) % SESSIONS]);
	client_release(client);
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

static void expect_good_service(void)
{
	const struct endpoint *const ends[] = {&unix_end, &tcp_end};

	for (int i = 0; i < 2; i++) {
		struct client *client;
		struct use use = {0};

		must(client_connect(pool, ends[i], "ram", PATIENCE_US, &client) == 0);
		must(open_session(client, &use, PATIENCE_US) == 0);
		must(ask(&use, PATIENCE_US) == 0);
		must(use.losses == 0);
		session_close(use.session);
		client_release(client);
	}
}

int main(int argc, char **argv)
{
	static const struct trust trust;
	struct client_pool_options options = {.name = "storm", .trust = &trust};
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, visits = 0;
	unsigned descriptors;
	pthread_t target;

	if (count == 0) {
		fprintf(stderr, "usage: %s COUNT [SEED]\n", argv[0]);
		return 2;
	}
	dice.state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
	slu_log_set(SLU_LOG_ERROR, fuzz_log, NULL);
	listen_somewhere();
	must(control_thread_start(&options.control) == 0);
	must(client_pool_create(&options, &pool) == 0);
	descriptors = open_descriptors();
	must(pthread_create(&target, NULL, play_target, NULL) == 0);
	while (atomic_load(&taken) < count)
		visit(visits++);
	behaves = true;
	expect_good_service();
	over = true;
	pthread_join(target, NULL);
	must(open_descriptors() == descriptors);
	client_pool_destroy(pool);
	control_thread_stop(options.control);
	close(unix_listener);
	close(tcp_listener);
	printf("%llu messages on %llu connections with %llu sessions and %llu answers, seed %s: "
	       "nothing broke\n",
	       (unsigned long long)taken, (unsigned long long)visits, (unsigned long long)opened,
	       (unsigned long long)answers, argc > 2 ? argv[2] : "1");
	return 0;
}
