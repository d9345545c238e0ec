/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm of control messages from targets to a client, made from a seed: what a target may say,
 * nearly that, and noise, in pieces of any size, over Unix sockets and TCP; with descriptors that
 * nobody asked for. storm_client COUNT [SEED]. To be built with sanitizers.
 *
 * Whatever comes, opening ends, sessions are lost once, and at the end a target that behaves is
 * used as if nothing had been, with no descriptor left over; the fences that were raised meanwhile
 * it answers.
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
#include "base/clock.h"
#include "control/client_internal.h"
#include "directory/p2p.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/odd_json.h"

#define WIRE_MAX      16384u
#define BURST         4096u /* bytes gathered before they are sent */
#define SESSIONS      4u
#define FENCES        16u /* of one target, at a time */
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
static _Atomic uint64_t taken, opened, answers, invited, raised;
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

#define ASKS   256u /* the latest ones */
#define SECRET "\"secret\":\"000102030405060708090a0b0c0d0e0f\""

enum type { PATH, INVITE, FENCE, SAME, TYPES };

static const char *const types[TYPES] = {"path", "invite", "fence", "same"};
static long open_heard = -1; /* session of an open that was not answered */
static uint32_t asks_heard;
static struct {
	enum type type;
	unsigned session; /* of a path */
	char nonce[2 * SAME_NONCE_BYTES + 1]; /* of a question */
} asked[ASKS];            /* by request */

/* What an answer has to have. */
static const char *right_answer(enum type type, const char *nonce)
{
	static const uint8_t secret[SECRET_BYTES] = {0, 1, 2,  3,  4,  5,  6,  7,
						     8, 9, 10, 11, 12, 13, 14, 15};
	static char answer[64];
	struct same_claim claim = {0};
	char proof[PROOF_TEXT];

	if (type == PATH)
		return "{\"qpn\":5,\"keys\":[1,2]}";
	if (type == INVITE)
		return "{" SECRET "}";
	secret_parse(nonce, claim.nonce, sizeof(claim.nonce));
	if (type == FENCE)
		must(secret_prove_text(secret, FENCE_OVER, strlen(FENCE_OVER), proof));
	else
		must(secret_prove_text(secret, &claim, sizeof(claim), proof));
	snprintf(answer, sizeof(answer), "{\"proof\":\"%s\"}", proof);
	return answer;
}

static void note_ask(enum type type, const char *text)
{
	const char *session = strstr(text, "\"session\":");
	const char *nonce = strstr(text, "\"nonce\":\"");
	char format[64];
	unsigned request, number = 0;

	snprintf(format, sizeof(format), "{\"type\":\"%s\",\"request\":%%u", types[type]);
	if (sscanf(text, format, &request) != 1)
		return;
	if (type == PATH && (!session || sscanf(session, "\"session\":%u", &number) != 1))
		return;
	asked[request % ASKS].type = type;
	asked[request % ASKS].session = number;
	snprintf(asked[request % ASKS].nonce, sizeof(asked->nonce), "%s",
		 type == SAME && nonce ? nonce + strlen("\"nonce\":\"") : "");
	asks_heard = request + 1;
}

/* Reads along: what is cut in two is missed, and one answer fewer is right. */
static void note_asks(const char *text, const char *end)
{
	while ((text = memchr(text, '{', (size_t)(end - text)))) {
		unsigned session;

		if (sscanf(text, "{\"type\":\"open\",\"session\":%u", &session) == 1)
			open_heard = session;
		for (enum type type = PATH; type < TYPES; type++)
			note_ask(type, text);
		text++;
	}
}

/* To one of the latest, mostly with what an answer has; seldom to what was never asked. */
static void say_answer(struct wire *wire)
{
	static const char *const odd[] = {"[]",
					  "null",
					  "7",
					  "\"{}\"",
					  "{\"secret\":\"00\"}",
					  "{\"proof\":\"000102030405060708090a0b0c0d0e0f\"}"};
	uint32_t back = 1 + below(asks_heard < 8 ? asks_heard : 8);
	uint32_t request = asks_heard - back + (below(2000) ? 0 : back);
	enum type type = below(2000) ? asked[request % ASKS].type : below(TYPES);
	uint32_t session = below(2000) ? asked[request % ASKS].session : below(8);
	const char *answer = below(type == SAME ? 400 : 20)
				     ? right_answer(type, asked[request % ASKS].nonce)
				     : odd[below(6)];
	char of[32] = "";

	if (type == PATH)
		snprintf(of, sizeof(of), "\"session\":%u,", session);
	if (below(4) == 0)
		say(wire, "{\"type\":\"refused\",%s\"request\":%u,\"error\":%s,\"text\":\"no\"}",
		    of, request, below(9) ? "28" : number());
	else
		say(wire, "{\"type\":\"%s\",%s\"request\":%u,\"answer\":%s}", types[type], of,
		    request, answer);
}

static void say_welcome(struct wire *wire)
{
	static unsigned connections;
	bool odd = !behaves && below(8) == 0;

	say(wire,
	    "{\"type\":\"welcome\",\"version\":%s,\"name\":\"%s\",\"incarnation\":\"%s\","
	    "\"pid\":%s,\"boot_id\":\"x\",\"identity\":\"me\",\"connection\":\"%016x\",%s,"
	    "\"socket\":%s,\"tcp\":%s,\"transports\":%s}",
	    odd && below(2) ? number() : VERSION, odd && below(4) == 0 ? "a\\nb" : "storm",
	    odd && below(4) == 0 ? "-12" : "00000000deadbeef", odd ? number() : "1", ++connections,
	    odd && below(4) == 0 ? "\"secret\":null" : SECRET, odd ? number() : "null",
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
	static const char *const plain[] = {"welcome", "attached", "hello",  "",      "opened",
					    "refused", "path",     "invite", "fence", "same"};
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
		say(wire, "{\"type\":\"%s\"}", plain[below(10)]);
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

static void tell(int fd, struct wire *wire)
{
	must(send(fd, wire->bytes, wire->length, MSG_NOSIGNAL) == (ssize_t)wire->length);
	wire->length = 0;
}

/* What it is asked for it answers rightly. @return false: the client has said goodbye */
static bool answer(int fd, const json_t *message)
{
	static struct wire wire;
	json_int_t request = json_integer_value(json_object_get(message, "request"));
	const char *type = message_type(message);
	const char *nonce =
		json_string_value(json_object_get(json_object_get(message, "offer"), "nonce"));

	if (strcmp(type, "hello") == 0)
		say_welcome(&wire);
	else if (strcmp(type, "open") == 0)
		say(&wire,
		    "{\"type\":\"opened\",\"session\":0,\"transport\":\"shm\",\"length\":4096,"
		    "\"rights\":1,\"page_bytes\":4096,\"node\":0,\"grant\":{}}");
	for (enum type asked_for = PATH; asked_for < TYPES; asked_for++)
		if (strcmp(type, types[asked_for]) == 0)
			say(&wire, "{\"type\":\"%s\",%s\"request\":%u,\"answer\":%s}", type,
			    asked_for == PATH ? "\"session\":0," : "", (unsigned)request,
			    right_answer(asked_for, nonce));
	if (wire.length > 0)
		tell(fd, &wire);
	return strcmp(type, "bye") != 0;
}

/* Until the client says goodbye. */
static void behave(int fd)
{
	struct pollfd said = {.fd = fd, .events = POLLIN};
	struct message_reader reader = {0};
	struct stream stream = {.fd = fd};
	bool stays = true;

	while (stays) {
		json_t *message;
		int rc;

		while ((rc = __real_message_read(&reader, &stream, &message)) == 0)
			must(poll(&said, 1, PATIENCE_US / 1000) == 1);
		must(rc == 1);
		stays = answer(fd, message);
		json_decref(message);
	}
	message_reader_reset(&reader);
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
						.until_ns = clock_deadline_ns(timeout_us),
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
	int rc = session_ask(use->session, offer, clock_deadline_ns(timeout_us), &answer);

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

static void invite(struct client *client)
{
	json_t *offer = json_pack("{s:s, s:i}", "link", "0000000000000001", "count", 2);
	json_t *answer = NULL;
	int rc = client_ask(client, "invite", offer, clock_deadline_ns(IMPATIENCE_US), &answer);

	must(rc <= 0 && json_is_object(answer) == (rc == 0));
	atomic_fetch_add(&invited, rc == 0);
	json_decref(answer);
	json_decref(offer);
}

/* Those that this target does not answer the one that behaves will. */
static void raise_fence(struct client *client)
{
	struct transport_peer *peer = client_peer(client);
	struct fence_ticket *ticket = peer->ticket(peer, 1);

	if (peer->fence->pending >= FENCES) {
		peer->forgo(ticket);
		return;
	}
	peer->raise(ticket);
	atomic_fetch_add(&raised, 1);
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

	if (client_connect(pool, serial % 2 ? &tcp_end : &unix_end, "ram",
			   clock_deadline_ns(PATIENCE_US), &client) < 0)
		return;
	for (uint32_t i = 0; i < SESSIONS; i++)
		for (uint32_t n = 0; open_session(client, &uses[i], IMPATIENCE_US) < 0 && n < 8;)
			n++;
	for (uint32_t n = 0; n < 100; n++) {
		struct use *use = &uses[n % SESSIONS];

		if (n % 16 == 5)
			raise_fence(client);
		if (n % 16 == 13)
			invite(client);
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

		must(client_connect(pool, ends[i], "ram", clock_deadline_ns(PATIENCE_US),
				    &client) == 0);
		must(open_session(client, &use, PATIENCE_US) == 0);
		must(ask(&use, PATIENCE_US) == 0);
		invite(client);
		for (int n = 0; client_peer(client)->fence->pending; n++) {
			must(n < (int)(PATIENCE_US / 1000));
			usleep(1000);
		}
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
	printf("%llu messages on %llu connections with %llu sessions, %llu answers, %llu "
	       "invitations and %llu fences, seed %s: nothing broke\n",
	       (unsigned long long)taken, (unsigned long long)visits, (unsigned long long)opened,
	       (unsigned long long)answers, (unsigned long long)invited, (unsigned long long)raised,
	       argc > 2 ? argv[2] : "1");
	return 0;
}
