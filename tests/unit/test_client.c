/* SPDX-License-Identifier: Apache-2.0 */
/* The initiator's side of a session, at a target that a thread of the test plays from a script. */
#include "control/client.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "directory/p2p.h"
#include "tests/tap.h"
#include "transport/transport.h"

/* @p rest: its socket, tcp and transports */
#define WELCOME_WITH(rest)                                                                         \
	"{\"type\":\"welcome\",\"version\":6,\"name\":\"played\","                                 \
	"\"incarnation\":\"00000000deadbeef\",\"pid\":1,\"boot_id\":\"x\","                        \
	"\"identity\":\"user:me\",\"connection\":\"0000000000000007\","                            \
	"\"secret\":\"000102030405060708090a0b0c0d0e0f\"," rest "}"
#define WELCOME         WELCOME_WITH("\"socket\":null,\"tcp\":null")
#define TALKING_WELCOME WELCOME_WITH("\"transports\":{\"verbs\":{\"gid\":\"fe80::1\"}}")
#define OPENED                                                                                     \
	"{\"type\":\"opened\",\"session\":0,\"transport\":\"shm\",\"length\":8192,"                \
	"\"rights\":1,\"page_bytes\":4096,\"node\":0,\"grant\":{}}"
#define SECOND_OPENED                                                                              \
	"{\"type\":\"opened\",\"session\":1,\"transport\":\"shm\",\"length\":4096,"                \
	"\"rights\":1,\"page_bytes\":4096,\"node\":0,\"grant\":{}}"

#define FLOOD "flood" /* say pong for as long as we listen */

/* What the target says after each message that it hears; NULL: hang up. "": say nothing more. */
struct part {
	int listener;
	const char *const *lines;
};

static struct part control_part, data_part;
static pthread_t actor, data_actor;
static struct endpoint at;
static const struct trust trust;
static struct control_thread *control;
static struct client_pool *pool;

static _Atomic bool flooded; /* to the end: the target was not hung up on */
static _Atomic int lost_with;
static _Atomic unsigned lost_times;

static void log_nothing(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

static void on_lost(void *arg, int error)
{
	(void)arg;
	atomic_store(&lost_with, error);
	atomic_fetch_add(&lost_times, 1);
}

static void on_totals(void *arg, struct client_totals *totals)
{
	(void)arg;
	*totals = (struct client_totals){0};
}

static const struct session_callbacks callbacks = {.lost = on_lost, .totals = on_totals};

static void tell(struct stream *stream, const char *text)
{
	struct message_writer writer = {.limit_bytes = 0};

	message_send(&writer, stream, json_loads(text, 0, NULL), NULL, 0);
}

/* One message of the client; pings and totals do not count. @return 0, or it hung up */
static int listen_to(struct stream *stream, struct message_reader *reader)
{
	struct pollfd readable = {.fd = stream->fd, .events = POLLIN};
	json_t *message;
	int rc;

	while ((rc = message_read(reader, stream, &message)) == 0)
		poll(&readable, 1, -1);
	if (rc == 1)
		json_decref(message);
	return rc == 1 ? 0 : -1;
}

/* A million messages: seconds of work for whoever does nothing else until they are read. */
static void flood(const struct stream *stream)
{
	static const char pong[] = "\x0f\0\0\0{\"type\":\"pong\"}";
	char many[1024 * (sizeof(pong) - 1)];
	int rounds = 0;

	for (size_t i = 0; i < sizeof(many); i++)
		many[i] = pong[i % (sizeof(pong) - 1)];
	while (rounds < 1024 && send(stream->fd, many, sizeof(many), MSG_NOSIGNAL) > 0)
		rounds++;
	atomic_store(&flooded, rounds == 1024);
}

static void *play(void *arg)
{
	struct message_reader reader = {0};
	const struct part *part = arg;
	struct stream stream = {.fd = accept4(part->listener, NULL, NULL, SOCK_CLOEXEC)};

	for (const char *const *line = part->lines; listen_to(&stream, &reader) == 0; line++) {
		if (!*line)
			break;
		if (strcmp(*line, FLOOD) == 0)
			flood(&stream);
		else if (**line)
			tell(&stream, *line);
	}
	message_reader_reset(&reader);
	stream_close(&stream);
	return arg;
}

static int set_up(void **state)
{
	struct client_pool_options options = {.name = "unit", .trust = &trust};
	static unsigned serial;
	char name[32];

	(void)state;
	atomic_store(&lost_with, 0);
	atomic_store(&lost_times, 0);
	if (control_thread_start(&control) < 0)
		return -1;
	options.control = control;
	if (client_pool_create(&options, &pool) < 0)
		return -1;
	snprintf(name, sizeof(name), "unit-client-%d-%u", (int)getpid(), serial++);
	at.is_unix = true;
	p2p_segment_address(name, &at.path, &at.path_length);
	control_part.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (control_part.listener < 0 ||
	    bind(control_part.listener, (struct sockaddr *)&at.path, at.path_length) < 0)
		return -1;
	return listen(control_part.listener, 1);
}

static int tear_down(void **state)
{
	(void)state;
	client_pool_destroy(pool);
	control_thread_stop(control);
	return close(control_part.listener);
}

static void begin_play(const char *const *script)
{
	control_part.lines = script;
	assert_int_equal(pthread_create(&actor, NULL, play, &control_part), 0);
}

static int open_on(struct client *client, uint64_t timeout_us, struct session **session,
		   struct client_grant *grant)
{
	static const enum slu_transport transports[] = {SLU_TRANSPORT_SHM, SLU_TRANSPORT_TCP};
	const struct session_request request = {.segment = "ram",
						.rights = SLU_RIGHT_READ,
						.transports = transports,
						.transport_count = 2,
						.until_ns = clock_deadline_ns(timeout_us),
						.callbacks = &callbacks};

	return session_open(client, &request, session, grant);
}

static int open_at(const char *const *script, uint64_t timeout_us, struct session **session,
		   struct client_grant *grant)
{
	struct client *client;
	int rc;

	if (script)
		begin_play(script);
	rc = client_connect(pool, &at, "ram", clock_deadline_ns(timeout_us), &client);
	if (rc < 0)
		return rc;
	rc = open_on(client, timeout_us, session, grant);
	client_release(client); /* the session holds it */
	return rc;
}

static void assert_fails(const char *const *script, int error, const char *text)
{
	struct client_grant grant;
	struct session *session;
	int ret = open_at(script, 10000000, &session, &grant);

	pthread_join(actor, NULL);
	if (ret != error || !strstr(slu_last_error(), text))
		fail_msg("%d (%s), not %d (... %s ...)", ret, slu_last_error(), error, text);
}

/* Goal: a granted segment is described as the target said, and closing hangs up. */
static void test_granted(void **state)
{
	static const char *const script[] = {WELCOME, OPENED, "", "", NULL};
	const struct client_welcome *welcome;
	struct client_grant grant;
	struct session *session;
	struct client *client;

	(void)state;
	assert_int_equal(open_at(script, 10000000, &session, &grant), 0);
	assert_int_equal(grant.transport, SLU_TRANSPORT_SHM);
	assert_int_equal(grant.length, 8192);
	assert_int_equal(grant.page_bytes, 4096);
	assert_int_equal(grant.fd_count, 0);
	client_grant_free(&grant);
	assert_int_equal(client_connect(pool, &at, "ram", 0, &client), 0); /* is open */
	welcome = client_welcome(client);
	assert_string_equal(welcome->target, "played");
	assert_int_equal(welcome->incarnation, 0xdeadbeef);
	assert_int_equal(welcome->pid, getpid()); /* of the socket, not of the message */
	assert_string_equal(welcome->identity, "user:me");
	assert_true(welcome->is_unix);
	assert_false(welcome->same_host);
	assert_int_equal(welcome->tcp.port, 0);
	assert_int_equal(strncmp(welcome->address, "unix:@sluice/unit-client-", 25), 0);
	client_release(client);
	session_close(session);
	pthread_join(actor, NULL);
}

/* Goal: two sessions share one connection, and each has its own end. */
static void test_shared(void **state)
{
	static const char *const script[] = {
		WELCOME,
		OPENED,
		SECOND_OPENED,
		"{\"type\":\"closing\",\"error\":108,\"sessions\":[0]}",
		"",
		"",
		"",
		NULL};
	struct session *first, *second;
	struct client_grant grant;
	struct client *client;
	uint64_t cpu_ns = 1;

	(void)state;
	assert_int_equal(open_at(script, 10000000, &first, &grant), 0);
	client_grant_free(&grant);
	assert_int_equal(client_connect(pool, &at, "ram", 0, &client), 0);
	assert_int_equal(open_on(client, 10000000, &second, &grant), 0);
	assert_int_equal(grant.length, 4096);
	client_grant_free(&grant);
	client_release(client);
	assert_int_equal(session_usage(first, 100000, &cpu_ns), -ETIMEDOUT); /* closing came */
	assert_int_equal(lost_times, 1);
	assert_int_equal(lost_with, -ESHUTDOWN);
	assert_int_equal(session_usage(first, 100000, &cpu_ns), -ESHUTDOWN);
	session_close(first);
	session_close(second);
	pthread_join(actor, NULL);
	assert_int_equal(lost_times, 1);
}

/* Goal: a right that is withdrawn is told apart from a target that closes. */
static void test_revoked(void **state)
{
	static const char *const script[] = {
		WELCOME, OPENED, "{\"type\":\"closing\",\"error\":128,\"sessions\":[0, 5, \"x\"]}",
		"",      "",     NULL};
	struct client_grant grant;
	struct session *session;
	uint64_t cpu_ns = 1;

	(void)state;
	assert_int_equal(open_at(script, 10000000, &session, &grant), 0);
	client_grant_free(&grant);
	session_usage(session, 100000, &cpu_ns);
	assert_int_equal(lost_with, -EKEYREVOKED);
	assert_int_equal(session_usage(session, 100000, &cpu_ns), -EKEYREVOKED);
	session_close(session);
	pthread_join(actor, NULL);
}

/* Goal: nobody at the address is -ECONNREFUSED, with the command that would help. */
static void test_nobody_listens(void **state)
{
	struct client_grant grant;
	struct session *session;

	(void)state;
	close(control_part.listener);
	control_part.listener = dup(STDERR_FILENO);
	assert_int_equal(open_at(NULL, 1000000, &session, &grant), -ECONNREFUSED);
	assert_non_null(strstr(slu_last_error(), "sluice-target --segment ram"));
}

/* Goal: a target that says nothing, to hello or to open, is given up at the timeout, not before and
 * not for ever. */
static void test_silent_target(void **state)
{
	static const char *const silent[] = {"", NULL};
	static const char *const polite[] = {WELCOME, "", "", "", NULL};
	const char *const *scripts[] = {silent, polite};
	struct client_grant grant;
	struct session *session;

	(void)state;
	for (int i = 0; i < 2; i++) {
		uint64_t before = clock_monotonic_ns(NULL);

		assert_int_equal(open_at(scripts[i], 100000, &session, &grant), -ETIMEDOUT);
		assert_true(clock_monotonic_ns(NULL) - before >= 100 * 1000 * NS_PER_US);
		pthread_join(actor, NULL);
	}
}

/* Goal: a target that never stops talking holds up nobody: opening times out all the same. */
static void test_flood(void **state)
{
	static const char *const script[] = {WELCOME, FLOOD, NULL};
	struct client_grant grant;
	struct session *session;

	(void)state;
	assert_int_equal(open_at(script, 100000, &session, &grant), -ETIMEDOUT);
	pthread_join(actor, NULL);
	assert_false(flooded);
}

/* Goal: a refusal arrives with the target's error and words. */
static void test_refusal(void **state)
{
	static const char *const script[] = {
		WELCOME, "{\"type\":\"refused\",\"session\":0,\"error\":13,\"text\":\"not today\"}",
		"", "", NULL};

	(void)state;
	assert_fails(script, -EACCES, "not today");
}

/* Goal: a refusal without a usable reason is a broken protocol, not success. */
static void test_refusal_without_reason(void **state)
{
	static const char *const no_error[] = {"{\"type\":\"refused\",\"text\":\"x\"}", NULL};
	static const char *const no_text[] = {"{\"type\":\"refused\",\"error\":13}", NULL};
	static const char *const negative[] = {
		"{\"type\":\"refused\",\"error\":-13,\"text\":\"x\"}", NULL};

	(void)state;
	assert_fails(no_error, -EPROTO, "without a reason");
	assert_fails(no_text, -EPROTO, "without a reason");
	assert_fails(negative, -EPROTO, "without a reason");
}

/* Goal: a version that we did not offer is -EPROTONOSUPPORT, an older one too. */
static void test_version(void **state)
{
	static const char *const newer[] = {"{\"type\":\"welcome\",\"version\":99,\"name\":\"n\","
					    "\"incarnation\":\"1\",\"pid\":1}",
					    NULL};
	static const char *const older[] = {
		"{\"type\":\"welcome\",\"version\":3,\"name\":\"n\",\"incarnation\":\"1\","
		"\"boot_id\":\"x\",\"identity\":\"i\",\"token\":\"t\"}",
		NULL};

	(void)state;
	assert_fails(newer, -EPROTONOSUPPORT, "version 99");
	assert_fails(older, -EPROTONOSUPPORT, "version 3");
}

/* Goal: incomplete, impossible and unexpected answers are -EPROTO, each with its reason. */
static void test_broken_answers(void **state)
{
	static const char *const bare_welcome[] = {"{\"type\":\"welcome\"}", NULL};
	static const char *const wrong_type[] = {"{\"type\":\"opened\"}", NULL};
	static const char *const bare_opened[] = {WELCOME, "{\"type\":\"opened\",\"session\":0}",
						  "", "", NULL};
	static const char *const negative[] = {
		WELCOME,
		"{\"type\":\"opened\",\"session\":0,\"transport\":\"shm\",\"length\":-1,"
		"\"rights\":1,\"page_bytes\":4096,\"node\":0,\"grant\":{}}",
		"", "", NULL};
	static const char *const unknown_transport[] = {
		WELCOME,
		"{\"type\":\"opened\",\"session\":0,\"transport\":\"x\",\"length\":1,"
		"\"rights\":1,\"page_bytes\":4096,\"node\":0,\"grant\":{}}",
		"", "", NULL};
#define NAMED(name, number, secret, rest)                                                          \
	{                                                                                          \
		"{\"type\":\"welcome\",\"version\":6,\"name\":\"" name                             \
		"\",\"incarnation\":\"1\",\"pid\":1,\"boot_id\":\"x\",\"identity\":\"i\","         \
		"\"connection\":" number ",\"secret\":" secret rest "}",                           \
			NULL                                                                       \
	}
#define NUMBER "\"0000000000000001\""
#define SECRET "\"000102030405060708090a0b0c0d0e0f\""
	static const char *const welcomes[][2] = {
		NAMED("0123456789012345678901234567890123456789012345678901234567890123", NUMBER,
		      SECRET, ""),
		NAMED("n", "1", SECRET, ""),
		NAMED("n", "\"1\"", SECRET, ""),
		NAMED("n", "null", SECRET, ""),
		NAMED("n", NUMBER, "null", ""),
		NAMED("n", NUMBER, "\"\"", ""),
		NAMED("n", NUMBER, "\"000102030405060708090a0b0c0d0e\"", ""),
		NAMED("n", NUMBER, "\"000102030405060708090a0b0c0d0e0g\"", ""),
		NAMED("n", NUMBER, SECRET, ",\"transports\":[]"),
		NAMED("n", NUMBER, SECRET,
		      ",\"tcp\":{\"host\":\"h\",\"port\":65536,\"tls\":false,\"plain\":false}"),
	};

	(void)state;
	assert_fails(bare_welcome, -EPROTO, "welcome");
	assert_fails(wrong_type, -EPROTO, "opened");
	assert_fails(bare_opened, -EPROTO, "incomplete");
	assert_fails(negative, -EPROTO, "incomplete");
	assert_fails(unknown_transport, -EPROTO, "transport \"x\"");
	for (size_t i = 0; i < sizeof(welcomes) / sizeof(welcomes[0]); i++)
		assert_fails(welcomes[i], -EPROTO, "welcome");
}

/* Goal: a target that hangs up at either step of the handshake is -ECONNRESET. */
static void test_hang_up(void **state)
{
	static const char *const at_once[] = {NULL};
	static const char *const after_welcome[] = {WELCOME, NULL};

	(void)state;
	assert_fails(at_once, -ECONNRESET, "closed the connection");
	/* The target may be gone before or after open is sent. */
	assert_fails(after_welcome, -ECONNRESET, "target");
}

/* ---- watched ---- */

/* Ask for usage, which makes the target say its third line. */
static int ask_usage(const char *const *script, uint64_t timeout_us, uint64_t *cpu_ns)
{
	struct client_grant grant;
	struct session *session;
	int ret;

	atomic_store(&lost_with, 0);
	atomic_store(&lost_times, 0);
	assert_int_equal(open_at(script, 10000000, &session, &grant), 0);
	client_grant_free(&grant);
	ret = session_usage(session, timeout_us, cpu_ns);
	for (int i = 0; i < 10000 && ret < 0 && ret != -ETIMEDOUT && !lost_times; i++)
		usleep(1000);
	session_close(session);
	pthread_join(actor, NULL);
	return ret;
}

/* Goal: the target's usage is what it answered. */
static void test_usage(void **state)
{
	static const char *const script[] = {WELCOME, OPENED, "{\"type\":\"usage\",\"cpu_ns\":77}",
					     "",      "",     NULL};
	uint64_t cpu_ns = 0;

	(void)state;
	assert_int_equal(ask_usage(script, 10000000, &cpu_ns), 0);
	assert_int_equal(cpu_ns, 77);
	assert_int_equal(lost_times, 0);
}

/* Goal: a target that does not answer is -ETIMEDOUT and the output stays as it was. */
static void test_usage_timeout(void **state)
{
	static const char *const script[] = {WELCOME, OPENED, "", "", NULL};
	uint64_t cpu_ns = 5;

	(void)state;
	assert_int_equal(ask_usage(script, 50000, &cpu_ns), -ETIMEDOUT);
	assert_int_equal(cpu_ns, 5);
}

/* Goal: the target's death and its announced end are told apart, once each. */
static void test_lost(void **state)
{
	static const char *const dies[] = {WELCOME, OPENED, NULL};
	static const char *const closes[] = {
		WELCOME, OPENED, "{\"type\":\"closing\",\"error\":108}", "", "", NULL};
	uint64_t cpu_ns;

	(void)state;
	assert_int_equal(ask_usage(dies, 10000000, &cpu_ns), -ECONNRESET);
	assert_int_equal(lost_with, -ECONNRESET);
	assert_int_equal(lost_times, 1);
	assert_int_equal(ask_usage(closes, 10000000, &cpu_ns), -ESHUTDOWN);
	assert_int_equal(lost_with, -ESHUTDOWN);
	assert_int_equal(lost_times, 1);
}

/* ---- paths ---- */

#define ANSWER(request, qpn)                                                                       \
	"{\"type\":\"path\",\"session\":0,\"request\":" #request ",\"answer\":{\"qpn\":" #qpn "}}"

/* What came of asking without waiting; the control thread's until times is not 0. */
static struct {
	_Atomic unsigned times;
	int error;
	json_int_t qpn;
	unsigned lost_before;
	char text[256];
} told;

static void on_answered(void *arg, int error, const json_t *answer)
{
	assert_ptr_equal(arg, &told);
	assert_int_equal(answer != NULL, error == 0);
	told.error = error;
	told.qpn = json_integer_value(json_object_get(answer, "qpn"));
	told.lost_before = atomic_load(&lost_times);
	strncpy(told.text, error ? slu_last_error() : "", sizeof(told.text) - 1);
	atomic_fetch_add(&told.times, 1);
}

static void ask_without_waiting(struct session *session)
{
	assert_int_equal(
		session_ask_async(session, json_pack("{s:i}", "qpn", 1), on_answered, &told), 0);
}

static bool becomes(_Atomic unsigned *count, unsigned value)
{
	for (int i = 0; i < 20000 && atomic_load(count) != value; i++)
		usleep(1000);
	return atomic_load(count) == value;
}

static int ask(struct session *session, uint64_t timeout_us, json_int_t *qpn)
{
	json_t *offer = json_pack("{s:i}", "qpn", 1), *answer = NULL;
	int rc = session_ask(session, offer, clock_deadline_ns(timeout_us), &answer);

	assert_int_equal(answer != NULL, rc == 0);
	*qpn = json_integer_value(json_object_get(answer, "qpn"));
	json_decref(answer);
	json_decref(offer);
	return rc;
}

static struct session *session_at(const char *const *script)
{
	struct client_grant grant;
	struct session *session;

	atomic_store(&lost_with, 0);
	atomic_store(&lost_times, 0);
	memset(&told, 0, sizeof(told));
	assert_int_equal(open_at(script, 10000000, &session, &grant), 0);
	client_grant_free(&grant);
	return session;
}

static void leave_stage(struct session *session)
{
	session_close(session);
	pthread_join(actor, NULL);
}

/* Goal: what the target's transports say of themselves is the client's to read, if they do. */
static void test_transports(void **state)
{
	static const char *const talking[] = {TALKING_WELCOME, "", NULL};
	static const char *const silent[] = {WELCOME, "", NULL};
	const char *const *scripts[] = {talking, silent};

	(void)state;
	for (int i = 0; i < 2; i++) {
		const struct client_welcome *welcome;
		struct client *client;
		const char *gid = "";

		begin_play(scripts[i]);
		assert_int_equal(
			client_connect(pool, &at, "ram", clock_deadline_ns(10000000), &client), 0);
		welcome = client_welcome(client);
		json_unpack(welcome->transports, "{s:{s:s}}", "verbs", "gid", &gid);
		assert_string_equal(gid, i == 0 ? "fe80::1" : "");
		assert_int_equal(welcome->version, 6);
		assert_ptr_equal(client_peer(client)->transports, welcome->transports);
		client_release(client);
		pthread_join(actor, NULL);
	}
}

/* Goal: answers find who asked, in any order; what is late is dropped without harm; a request that
 * nobody waits for is told of the end before closing returns. */
static void test_ask(void **state)
{
	static const char *const script[] = {WELCOME,      OPENED, "", ANSWER(0, 5), ANSWER(2, 6),
					     ANSWER(3, 7), "",     "", NULL};
	struct session *session = session_at(script);
	json_int_t qpn;

	(void)state;
	assert_int_equal(ask(session, 50000, &qpn), -ETIMEDOUT);
	assert_non_null(strstr(slu_last_error(), "in time"));
	ask_without_waiting(session); /* hears the late answer to the first */
	assert_int_equal(ask(session, 10000000, &qpn), 0);
	assert_int_equal(qpn, 6);
	assert_int_equal(ask(session, 10000000, &qpn), 0);
	assert_int_equal(qpn, 7);
	assert_int_equal(told.times, 0);
	session_close(session);
	assert_int_equal(told.times, 1);
	assert_int_equal(told.error, -ECANCELED);
	pthread_join(actor, NULL);
	assert_int_equal(lost_times, 0);
}

/* Goal: asking without waiting is answered, refused and given up as asking is. */
static void test_ask_without_waiting(void **state)
{
	static const char *const script[] = {
		WELCOME,
		OPENED,
		ANSWER(0, 9),
		"{\"type\":\"refused\",\"session\":0,\"request\":1,\"error\":28,"
		"\"text\":\"no queue pair is left\"}",
		"",
		"",
		NULL};
	struct session *session = session_at(script);

	(void)state;
	ask_without_waiting(session);
	assert_true(becomes(&told.times, 1));
	assert_int_equal(told.error, 0);
	assert_int_equal(told.qpn, 9);
	ask_without_waiting(session);
	assert_true(becomes(&told.times, 2));
	assert_int_equal(told.error, -ENOSPC);
	assert_string_equal(told.text, "the target refused: no queue pair is left");
	assert_int_equal(session_ask_async(session, json_array(), on_answered, &told), -EINVAL);
	assert_int_equal(session_ask_async(session, NULL, on_answered, &told), -EINVAL);
	ask_without_waiting(session); /* never answered: by the clock of the connection */
	assert_true(becomes(&told.times, 3));
	assert_int_equal(told.error, -ETIMEDOUT);
	leave_stage(session);
	assert_int_equal(told.times, 3);
	assert_int_equal(lost_times, 0);
}

/* Goal: a target's refusal arrives with its errno and words, and the session is used as before. */
static void test_ask_refused(void **state)
{
	static const char *const script[] = {
		WELCOME,
		OPENED,
		"{\"type\":\"refused\",\"session\":0,\"request\":0,\"error\":19,"
		"\"text\":\"not that device\"}",
		"{\"type\":\"refused\",\"session\":0,\"request\":1}",
		"{\"type\":\"path\",\"session\":0,\"request\":2,\"answer\":[]}",
		ANSWER(3, 4),
		"",
		"",
		NULL};
	struct session *session = session_at(script);
	json_int_t qpn;

	(void)state;
	assert_int_equal(ask(session, 10000000, &qpn), -ENODEV);
	assert_non_null(strstr(slu_last_error(), "not that device"));
	assert_int_equal(ask(session, 10000000, &qpn), -EPROTO);
	assert_non_null(strstr(slu_last_error(), "without a reason"));
	assert_int_equal(ask(session, 10000000, &qpn), -EPROTO);
	assert_non_null(strstr(slu_last_error(), "incomplete"));
	assert_int_equal(ask(session, 10000000, &qpn), 0);
	assert_int_equal(qpn, 4);
	leave_stage(session);
	assert_int_equal(lost_times, 0);
}

/* Goal: an offer that is no object, or longer than a message, is refused here; nothing is sent, and
 * the connection stays. */
static void test_ask_what_cannot_be_said(void **state)
{
	static const char *const script[] = {WELCOME, OPENED, ANSWER(1, 3), "", "", NULL};
	static char pad[MESSAGE_MAX_BYTES];
	struct session *session = session_at(script);
	json_t *offer, *answer = NULL;
	json_int_t qpn;

	(void)state;
	memset(pad, 'x', sizeof(pad) - 1);
	offer = json_pack("{s:s}", "pad", pad);
	assert_int_equal(session_ask(session, offer, clock_deadline_ns(10000000), &answer),
			 -EMSGSIZE);
	json_decref(offer);
	offer = json_array();
	assert_int_equal(session_ask(session, offer, clock_deadline_ns(10000000), &answer),
			 -EINVAL);
	json_decref(offer);
	assert_int_equal(session_ask(session, NULL, clock_deadline_ns(10000000), &answer), -EINVAL);
	assert_null(answer);
	assert_int_equal(ask(session, 10000000, &qpn), 0);
	assert_int_equal(qpn, 3);
	leave_stage(session);
}

/* Goal: whoever asks when the session ends is told how it ended, and before the session's owner is;
 * who asks later is told the same. */
static void test_ask_at_the_end(void **state)
{
	static const char *const dies[] = {WELCOME, OPENED, "", NULL};
	static const char *const closes[] = {
		WELCOME, OPENED, "", "{\"type\":\"closing\",\"error\":108}", "", "", NULL};
	static const char *const revokes[] = {
		WELCOME, OPENED, "",  "{\"type\":\"closing\",\"error\":128,\"sessions\":[0]}",
		"",      "",     NULL};
	static const struct {
		const char *const *script;
		int error;
		const char *text;
	} ends[] = {{dies, -ECONNRESET, "closed the connection"},
		    {closes, -ESHUTDOWN, "closing"},
		    {revokes, -EKEYREVOKED, "no longer granted"}};

	(void)state;
	for (int i = 0; i < 3; i++) {
		struct session *session = session_at(ends[i].script);
		json_int_t qpn;

		ask_without_waiting(session);
		assert_int_equal(ask(session, 10000000, &qpn), ends[i].error);
		assert_non_null(strstr(slu_last_error(), ends[i].text));
		assert_true(becomes(&told.times, 1));
		assert_int_equal(told.error, ends[i].error);
		assert_int_equal(told.lost_before, 0);
		assert_true(becomes(&lost_times, 1));
		assert_int_equal(ask(session, 10000000, &qpn), ends[i].error);
		assert_non_null(strstr(slu_last_error(), "is over"));
		ask_without_waiting(session);
		assert_true(becomes(&told.times, 2));
		assert_int_equal(told.error, ends[i].error);
		leave_stage(session);
	}
}

/* Goal: a target that answers what it was not asked is hung up on. */
static void test_ask_hostile(void **state)
{
	static const char *const answers[] = {
		ANSWER(1, 1),
		ANSWER(-1, 1),
		ANSWER(9223372036854775807, 1),
		ANSWER(null, 1),
		ANSWER("0", 1),
		ANSWER(0.5, 1),
		"{\"type\":\"path\"}",
		"{\"type\":\"invite\",\"session\":0,\"request\":0,\"answer\":{}}",
		"{\"type\":\"fence\",\"request\":0,\"answer\":{}}",
		"{\"type\":\"fence\",\"request\":1,\"answer\":{}}",
		"{\"type\":\"path\",\"session\":1,\"request\":0,\"answer\":{}}",
		"{\"type\":\"path\",\"request\":0,\"session\":-1,\"answer\":{}}",
		"{\"type\":\"refused\",\"session\":0,\"request\":1,\"error\":5,\"text\":\"x\"}",
		"{\"type\":\"refused\",\"session\":1,\"request\":0,\"error\":5,\"text\":\"x\"}",
	};

	(void)state;
	slu_log_set(SLU_LOG_ERROR, log_nothing, NULL);
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		const char *const script[] = {WELCOME, OPENED, answers[i], "", NULL};
		struct session *session = session_at(script);
		json_int_t qpn;

		assert_int_equal(ask(session, 10000000, &qpn), -ECONNRESET);
		assert_true(becomes(&lost_times, 1));
		assert_int_equal(lost_with, -ECONNRESET);
		leave_stage(session);
	}
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
}

/* ---- data connections ---- */

#define ASKED(type, answer) "{\"type\":\"" type "\",\"request\":0,\"answer\":" answer "}"
#define INVITED             ASKED("invite", "{\"secret\":\"00112233445566778899aabbccddeeff\"}")
#define CHALLENGE           "{\"type\":\"challenge\",\"nonce\":\"0f0e0d0c0b0a09080706050403020100\"}"
#define ATTACHED            "{\"type\":\"attached\"}"

static char data_welcome[512]; /* with the port of what follows */

static int set_up_data(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(address);

	data_part.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(data_part.listener, (struct sockaddr *)&address, length) < 0 ||
	    listen(data_part.listener, 8) < 0 ||
	    getsockname(data_part.listener, (struct sockaddr *)&address, &length) < 0)
		return -1;
	snprintf(data_welcome, sizeof(data_welcome),
		 WELCOME_WITH("\"tcp\":{\"host\":\"127.0.0.1\",\"port\":%u,\"tls\":false,"
			      "\"plain\":false}"),
		 ntohs(address.sin_port));
	return set_up(state);
}

static int tear_down_data(void **state)
{
	close(data_part.listener);
	return tear_down(state);
}

static unsigned open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

/* @p answer: to invite. @p data: of a data connection; NULL: nobody comes so far. */
static int dial(const char *answer, const char *const *data, uint32_t count, unsigned patience_ms,
		struct stream *streams)
{
	const char *const script[] = {data_welcome, OPENED, answer, "", "", NULL};
	uint64_t until_ns = clock_monotonic_ns(NULL) + patience_ms * (NS_PER_SECOND / 1000);
	unsigned descriptors = open_descriptors();
	struct transport_peer *peer;
	struct session *session = session_at(script);
	struct client *client;
	int rc;

	assert_int_equal(client_connect(pool, &at, "ram", 0, &client), 0);
	peer = client_peer(client);
	data_part.lines = data;
	if (data)
		assert_int_equal(pthread_create(&data_actor, NULL, play, &data_part), 0);
	rc = peer->dial(peer, 3, count, until_ns, streams);
	for (uint32_t i = 0; rc == 0 && i < count; i++)
		stream_close(&streams[i]);
	if (data)
		pthread_join(data_actor, NULL);
	client_release(client);
	leave_stage(session);
	assert_int_equal(open_descriptors(), descriptors);
	return rc;
}

static void assert_dial_fails(const char *answer, const char *const *data, int error,
			      const char *text)
{
	struct stream stream;
	int rc = dial(answer, data, 1, error == -ETIMEDOUT ? 50 : 10000, &stream);

	if (rc != error || !strstr(slu_last_error(), text))
		fail_msg("%d (%s), not %d (... %s ...)", rc, slu_last_error(), error, text);
}

/* Goal: an invitation that the target answers badly, refuses, or not at all, is an error with its
 * reason, and nothing is dialled; only a broken protocol costs the session. */
static void test_bad_invitations(void **state)
{
	static const char *const incomplete[] = {
		ASKED("invite", "{}"), ASKED("invite", "{\"secret\":7}"),
		ASKED("invite", "{\"secret\":\"00112233\"}"),
		ASKED("invite", "{\"secret\":\"00112233445566778899aabbccddeefg\"}"),
		ASKED("invite", "[]")};
	static const char *const broken[] = {ASKED("path", "{}"), ASKED("fence", "{}"),
					     "{\"type\":\"invite\"}", "{\"type\":\"attached\"}"};

	(void)state;
	slu_log_set(SLU_LOG_ERROR, log_nothing, NULL);
	for (size_t i = 0; i < sizeof(incomplete) / sizeof(incomplete[0]); i++) {
		assert_dial_fails(incomplete[i], NULL, -EPROTO, "incomplete");
		assert_int_equal(lost_times, 0);
	}
	assert_dial_fails(
		"{\"type\":\"refused\",\"request\":0,\"error\":28,\"text\":\"too many links\"}",
		NULL, -ENOSPC, "too many links");
	assert_dial_fails("", NULL, -ETIMEDOUT, "in time");
	assert_int_equal(lost_times, 0);
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		assert_dial_fails(broken[i], NULL, -ECONNRESET, "closed the connection");
		assert_int_equal(lost_times, 1);
	}
	assert_dial_fails(NULL, NULL, -ECONNRESET, "closed the connection");
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
}

/* Goal: whatever is said on a data connection in place of the challenge or of its acceptance, it is
 * given up with a reason, and the session goes on. */
static void test_bad_challenges(void **state)
{
	static const char *const good[] = {CHALLENGE, ATTACHED, "", NULL};
	static const char *const hangs_up[] = {NULL};
	static const char *const hangs_up_later[] = {CHALLENGE, NULL};
	static const char *const silent[] = {CHALLENGE, "", NULL};
	static const char *const unasked[] = {ATTACHED, "", NULL};
	static const char *const twice[] = {CHALLENGE, CHALLENGE, "", NULL};
	static const char *const bare[] = {"{\"type\":\"challenge\"}", "", NULL};
	static const char *const cut[] = {"{\"type\":\"challenge\",\"nonce\":\"0f0e\"}", "", NULL};
	static const char *const refuses[] = {
		CHALLENGE, "{\"type\":\"refused\",\"error\":13,\"text\":\"nobody was invited\"}",
		NULL};
	struct stream streams[2];

	(void)state;
	assert_dial_fails(INVITED, hangs_up, -ECONNRESET, "closed the connection");
	assert_dial_fails(INVITED, hangs_up_later, -ECONNRESET, "closed the connection");
	assert_dial_fails(INVITED, silent, -ETIMEDOUT, "in time");
	assert_dial_fails(INVITED, unasked, -EPROTO, "\"attached\" where \"challenge\"");
	assert_dial_fails(INVITED, twice, -EPROTO, "\"challenge\" where \"attached\"");
	assert_dial_fails(INVITED, bare, -EPROTO, "challenge is incomplete");
	assert_dial_fails(INVITED, cut, -EPROTO, "challenge is incomplete");
	assert_dial_fails(INVITED, refuses, -EACCES, "nobody was invited");
	assert_int_equal(dial(INVITED, good, 1, 10000, streams), 0);
	assert_int_equal(dial(INVITED, good, 2, 50, streams),
			 -ETIMEDOUT); /* the second is silent */
	assert_int_equal(lost_times, 0);
}

/* Goal: a fence stands until it is answered as it should be: what is refused or incomplete is asked
 * again, and the connection stays. */
static void test_bad_fences(void **state)
{
	static const char *const script[] = {
		WELCOME,
		OPENED,
		ASKED("fence", "[]"),
		"{\"type\":\"refused\",\"request\":1,\"error\":11,\"text\":\"not yet\"}",
		"{\"type\":\"fence\",\"request\":2,\"answer\":{}}",
		"",
		"",
		NULL};
	struct session *session = session_at(script);
	struct transport_peer *peer;
	struct client *client;

	(void)state;
	assert_int_equal(client_connect(pool, &at, "ram", 0, &client), 0);
	peer = client_peer(client);
	assert_int_equal(peer->fence->pending, 0);
	peer->raise(peer->ticket(peer, 3));
	assert_int_equal(peer->fence->pending, 1);
	assert_true(becomes(&peer->fence->pending, 0));
	assert_int_equal(lost_times, 0);
	client_release(client);
	leave_stage(session);
}

/* Goal: who names an incarnation that we know already, and gives no proof or a wrong one, is
 * another target; who does not answer, or refuses to, is not connected to. The one that is known
 * notices nothing. */
static void test_no_proof(void **state)
{
	static const char *const known[] = {WELCOME, OPENED, "", "", NULL};
	static const struct {
		const char *answer;
		int result;
	} says[] = {{ASKED("same", "{}"), 0},
		    {ASKED("same", "{\"proof\":7}"), 0},
		    {ASKED("same", "{\"proof\":\"\"}"), 0},
		    {ASKED("same", "{\"proof\":\"000102030405060708090a0b0c0d0e0f\"}"), 0},
		    {ASKED("same", "[]"), -EPROTO},
		    {ASKED("fence", "{}"), -ECONNRESET},
		    {"{\"type\":\"refused\",\"request\":0,\"error\":12,\"text\":\"no\"}", -ENOMEM},
		    {"{\"type\":\"closing\",\"error\":108}", -ESHUTDOWN},
		    {"", -ETIMEDOUT},
		    {NULL, -ECONNRESET}};
	struct endpoint there = {.tcp = {.host = "127.0.0.1"}};
	struct session *session = session_at(known);
	struct client *client, *other;
	struct sockaddr_in address;
	socklen_t length = sizeof(address);
	struct fence *fence;

	(void)state;
	slu_log_set(SLU_LOG_ERROR, log_nothing, NULL);
	getsockname(data_part.listener, (struct sockaddr *)&address, &length);
	there.tcp.port = ntohs(address.sin_port);
	assert_int_equal(client_connect(pool, &at, "ram", 0, &client), 0);
	fence = client_peer(client)->fence;
	for (size_t i = 0; i < sizeof(says) / sizeof(says[0]); i++) {
		const char *const script[] = {WELCOME, says[i].answer, "", NULL};
		uint64_t timeout_us = says[i].result == -ETIMEDOUT ? 50000 : 10000000;

		data_part.lines = script;
		assert_int_equal(pthread_create(&data_actor, NULL, play, &data_part), 0);
		assert_int_equal(
			client_connect(pool, &there, "ram", clock_deadline_ns(timeout_us), &other),
			says[i].result);
		if (says[i].result == 0) {
			assert_ptr_not_equal(client_peer(other)->fence, fence);
			client_release(other);
		}
		pthread_join(data_actor, NULL);
	}
	assert_int_equal(fence->pending, 0);
	assert_int_equal(lost_times, 0);
	client_release(client);
	leave_stage(session);
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
}

#define on_stage(test)  cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define with_data(test) cmocka_unit_test_setup_teardown(test, set_up_data, tear_down_data)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_stage(test_granted),
		on_stage(test_shared),
		on_stage(test_revoked),
		on_stage(test_nobody_listens),
		on_stage(test_silent_target),
		on_stage(test_flood),
		on_stage(test_refusal),
		on_stage(test_refusal_without_reason),
		on_stage(test_version),
		on_stage(test_broken_answers),
		on_stage(test_hang_up),
		on_stage(test_usage),
		on_stage(test_usage_timeout),
		on_stage(test_lost),
		on_stage(test_transports),
		on_stage(test_ask),
		on_stage(test_ask_without_waiting),
		on_stage(test_ask_refused),
		on_stage(test_ask_what_cannot_be_said),
		on_stage(test_ask_at_the_end),
		on_stage(test_ask_hostile),
		with_data(test_bad_invitations),
		with_data(test_bad_challenges),
		on_stage(test_bad_fences),
		with_data(test_no_proof),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
