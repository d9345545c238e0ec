/* SPDX-License-Identifier: Apache-2.0 */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "transport/tcp/wire.h"

#define SOURCE        "127.0.0.2" /* has its own 28000 ports */
#define HELD          200         /* connections kept open at a time */
#define GARBAGE_BYTES 65536
#define WAIT_MS       100 /* for an answer, or for the target to close */
#define NOBODY        65534
#define PATH_BYTES    32
#define SESSIONS      1000 /* of a client that is killed */
#define PIPELINED     50   /* requests on their way at a time */
#define DATA          4    /* data connections of a client that does not read */
#define READS         120  /* that it asks for on each of them */
#define READ_BYTES    (512 * KIB)
#define READ_SOME     (8 * KIB) /* about what the sockets hold of it */
#define BEHIND_NS     (NS_PER_SECOND / 50)

/* The process is one of these and nothing else. */
struct intruder {
	const char *segment;
	struct door door;
	struct visitor visitor; /* the one that stays, where one does */
	unsigned session;
	int held[HELD];
	struct visitor *guests;
	uint64_t said_ns;
};

static void wait_closed(int fd)
{
	struct pollfd event = {.fd = fd, .events = POLLIN};
	char answer[1024];

	while (poll(&event, 1, WAIT_MS) == 1 && recv(fd, answer, sizeof(answer), 0) > 0)
		;
	close(fd);
}

/* ---- who has no key ---- */

static bool has_closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EINTR);
}

/* Keep all connections open; with @p says say another byte on each of them. */
static unsigned hold(struct intruder *intruder, bool says)
{
	unsigned attempts = 0;
	char byte = 1; /* the lengths that these begin are allowed ones, and never reached */

	for (unsigned i = 0; i < HELD; i++) {
		if (intruder->held[i] >= 0 && has_closed(intruder->held[i])) {
			close(intruder->held[i]);
			intruder->held[i] = -1;
		}
		if (intruder->held[i] < 0) {
			intruder->held[i] = door_knock(&intruder->door);
			attempts++;
		}
		if (says && intruder->held[i] >= 0)
			send(intruder->held[i], &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	usleep(1000);
	return attempts;
}

static bool a_second_later(struct intruder *intruder)
{
	uint64_t now_ns = clock_monotonic_ns(NULL);

	if (now_ns - intruder->said_ns < NS_PER_SECOND)
		return false;
	intruder->said_ns = now_ns;
	return true;
}

static unsigned silent(struct intruder *intruder)
{
	return hold(intruder, false);
}

static unsigned slow(struct intruder *intruder)
{
	return hold(intruder, a_second_later(intruder));
}

static unsigned connects(struct intruder *intruder)
{
	int fd = door_knock(&intruder->door);

	if (fd >= 0)
		close(fd);
	return 1;
}

static unsigned oversized(struct intruder *intruder)
{
	static char garbage[GARBAGE_BYTES];
	int fd = door_knock(&intruder->door);

	if (fd < 0)
		return 1;
	memset(garbage, 0xff, sizeof(garbage));
	send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL);
	wait_closed(fd);
	return 1;
}

/* Handshakes with another key than the one of that identity. */
static unsigned wrong_key(struct intruder *intruder)
{
	struct visitor visitor;

	visitor_connect(&visitor, &intruder->door);
	visitor_leave(&visitor);
	return 1;
}

/* A data connection of somebody. */
static unsigned guess_data(struct intruder *intruder)
{
	static const char message[] = "{\"type\":\"attach\",\"connection\":"
				      "\"0000000000000001\",\"link\":\"0123456789abcdef\"}";
	uint32_t length = sizeof(message) - 1;
	char framed[4 + sizeof(message)];
	int fd = door_knock(&intruder->door);

	if (fd < 0)
		return 1;
	memcpy(framed, &length, 4);
	memcpy(framed + 4, message, length);
	send(fd, framed, 4 + length, MSG_NOSIGNAL);
	wait_closed(fd);
	return 1;
}

/* ---- who has a key ---- */

/* Comes in, says hello, leaves. */
static unsigned visits(struct intruder *intruder)
{
	struct visitor visitor;

	visitor_enter(&visitor, &intruder->door);
	visitor_leave(&visitor);
	return 1;
}

/* As many connections as are held, of clients that have said who they are. */
static unsigned guests(struct intruder *intruder)
{
	unsigned attempts = 0;

	for (unsigned i = 0; i < HELD; i++) {
		if (visitor_tend(&intruder->guests[i]))
			continue;
		visitor_leave(&intruder->guests[i]);
		visitor_enter(&intruder->guests[i], &intruder->door);
		attempts++;
	}
	usleep(1000);
	return attempts;
}

static bool stays(struct intruder *intruder)
{
	if (intruder->visitor.connected)
		return true;
	intruder->session = 0;
	return visitor_enter(&intruder->visitor, &intruder->door);
}

static void goes(struct intruder *intruder)
{
	visitor_leave(&intruder->visitor);
}

/* @return answers, of any kind */
static unsigned open_some(struct intruder *intruder)
{
	struct visitor *visitor = &intruder->visitor;
	unsigned answers = 0;
	json_t *answer;

	for (unsigned i = 0; i < PIPELINED; i++)
		visitor_ask_open(visitor, ++intruder->session, intruder->segment, SLU_RIGHT_READ);
	while (answers < PIPELINED && (answer = visitor_hear(visitor))) {
		json_decref(answer);
		answers++;
	}
	return answers;
}

/* Asks to open what it has no right to. */
static unsigned refused(struct intruder *intruder)
{
	unsigned answers = stays(intruder) ? open_some(intruder) : 0;

	if (answers < PIPELINED)
		goes(intruder);
	return PIPELINED;
}

/* Opens sessions and is gone. */
static unsigned killed(struct intruder *intruder)
{
	unsigned answers = PIPELINED;

	for (unsigned i = 0; i < SESSIONS && answers == PIPELINED; i += PIPELINED)
		answers = stays(intruder) ? open_some(intruder) : 0;
	goes(intruder);
	return SESSIONS;
}

/* Opens what it may, and closes it. */
static unsigned opens(struct intruder *intruder)
{
	unsigned answers = stays(intruder) ? open_some(intruder) : 0;

	for (unsigned i = 0; i < answers; i++)
		visitor_close_session(&intruder->visitor, intruder->session - i);
	if (answers < PIPELINED)
		goes(intruder);
	return PIPELINED;
}

/* @return was it granted? Then @request is one for it, without a length. */
static bool open_session(struct intruder *intruder, struct wire_request *request)
{
	json_t *opened = NULL;
	int handle, generation;
	bool granted;

	if (stays(intruder) && visitor_ask_open(&intruder->visitor, ++intruder->session,
						intruder->segment, SLU_RIGHT_READ))
		opened = visitor_hear(&intruder->visitor);
	granted = opened && json_unpack(opened, "{s:{s:i, s:i}}", "grant", "handle", &handle,
					"generation", &generation) == 0;
	json_decref(opened);
	if (granted)
		*request = (struct wire_request){.type = WIRE_READ,
						 .handle = (uint32_t)handle,
						 .generation = (uint32_t)generation};
	return granted;
}

static void ask_reads(int fd, struct wire_request request, uint32_t length)
{
	struct wire_request requests[READS];

	request.length = length;
	for (unsigned i = 0; i < READS; i++) {
		requests[i] = request;
		requests[i].sequence = i;
	}
	send(fd, requests, sizeof(requests), MSG_NOSIGNAL);
}

static void take_answers(int fd, uint64_t bytes)
{
	struct pollfd event = {.fd = fd, .events = POLLIN};
	static char answers[256 * KIB];
	ssize_t n = 1;

	while (bytes > 0 && n > 0 && poll(&event, 1, WAIT_MS) == 1) {
		n = recv(fd, answers, sizeof(answers), 0);
		bytes -= n > 0 && (uint64_t)n < bytes ? (uint64_t)n : bytes;
	}
}

/* READs over a few data connections, and away. */
static void read_and_go(struct intruder *intruder, uint32_t length, bool takes)
{
	struct wire_request request;
	int data[DATA];

	if (open_session(intruder, &request)) {
		for (unsigned i = 0; i < DATA; i++) {
			data[i] = visitor_attach(&intruder->visitor, &intruder->door);
			if (data[i] >= 0)
				ask_reads(data[i], request, length);
		}
		for (unsigned i = 0; i < DATA; i++) {
			if (takes && data[i] >= 0)
				take_answers(data[i],
					     READS * (length + sizeof(struct wire_response)));
			if (data[i] >= 0)
				close(data[i]);
		}
	}
	goes(intruder);
}

static unsigned reads_nothing(struct intruder *intruder)
{
	read_and_go(intruder, READ_BYTES, false);
	return 1;
}

static unsigned reads(struct intruder *intruder)
{
	read_and_go(intruder, READ_SOME, true);
	return 1;
}

#define NEWCOMERS .newcomers = true

/* A handshake costs the target about as much as ten connections that end at once. */
const struct attack attacks[] = {
	{"silent connections", {silent, 0}, {guests, 0}, NEWCOMERS},
	{"slow connections", {slow, 0}, {guests, 0}, NEWCOMERS},
	{"a flood of connections", {connects, 1500}, {visits, 150}, NEWCOMERS},
	{"oversized messages", {oversized, 500}, {visits, 50}, NEWCOMERS},
	{"guessed data connections", {guess_data, 500}, {visits, 50}, NEWCOMERS},
	{"wrong keys", {wrong_key, 150}, {visits, 150}, NEWCOMERS},
	{"wrong keys, a stalled log",
	 {wrong_key, 150},
	 {visits, 150},
	 NEWCOMERS,
	 .stalled_log = true},
	{"a refused local user",
	 {connects, 1500},
	 {visits, 1500},
	 NEWCOMERS,
	 .unix_socket = true,
	 .other_user = true},
	{"opens without a right", {refused, 2000}, {opens, 2000}},
	{"READs that are not taken", {reads_nothing, 10}, {reads, 10}, .rights = SLU_RIGHT_READ},
	{"1000 sessions, killed", {killed, 5000}, {opens, 5000}, .rights = SLU_RIGHT_READ},
};

const unsigned attacks_count = sizeof(attacks) / sizeof(attacks[0]);

/* ---- the process ---- */

/* The identity of the attackers, with another key. */
static struct tls *make_wrong_key(void)
{
	static const char line[] = "rogue:00112233445566778899aabbccddeeff\n";
	char path[PATH_BYTES] = "/tmp/sluice-perf-XXXXXX";
	struct slu_tls_options options = {.psk_file = path};
	int fd = mkostemp(path, O_CLOEXEC);
	struct tls *tls;

	if (fd < 0 || write(fd, line, sizeof(line) - 1) != (ssize_t)sizeof(line) - 1)
		die("%s: %s", path, strerror(errno));
	close(fd);
	if (tls_open(TLS_CLIENT, &options, &tls) != 0)
		die("%s cannot be used", path);
	unlink(path);
	return tls;
}

static void become_another_user(void)
{
	if (setgroups(0, NULL) != 0 || setgid(NOBODY) != 0 || setuid(NOBODY) != 0)
		die("to be another user takes root: %s", strerror(errno));
}

static struct door door_of(const struct attack *attack, bool harmless, const struct rig *rig)
{
	struct tls *tls = rig->keys[harmless ? RIG_NEIGHBOUR : RIG_ROGUE];

	if (attack->unix_socket)
		return door_unix(rig->names[RIG_CACHED], WAIT_MS);
	if (attack->attack.work == wrong_key && !harmless)
		tls = make_wrong_key();
	return door_tcp(rig->target.address, SOURCE, tls, WAIT_MS);
}

/* Of its working time: a pause gives it no attempts to make up for. */
static uint64_t at_work_ns(const struct hostile_book *book)
{
	return clock_monotonic_ns(NULL) -
	       atomic_load_explicit(&book->paused_ns, memory_order_relaxed);
}

/* Nor has it many, if it was held up otherwise. */
static void keep_pace(const struct hostile_book *book, uint64_t *due_ns, double seconds)
{
	uint64_t now_ns = at_work_ns(book);

	*due_ns += (uint64_t)(seconds * (double)NS_PER_SECOND);
	if (*due_ns + BEHIND_NS < now_ns)
		*due_ns = now_ns;
	while ((now_ns = at_work_ns(book)) < *due_ns) {
		uint64_t left_ns = *due_ns - now_ns;

		nanosleep(&(struct timespec){.tv_sec = (time_t)(left_ns / NS_PER_SECOND),
					     .tv_nsec = (long)(left_ns % NS_PER_SECOND)},
			  NULL);
	}
}

static void run(struct intruder *intruder, const struct labour *labour, struct hostile_book *book)
{
	uint64_t due_ns = 0;

	for (unsigned i = 0; i < HELD; i++)
		intruder->held[i] = -1;
	intruder->guests = calloc(HELD, sizeof(*intruder->guests));
	if (!intruder->guests)
		die("out of memory");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	raise(SIGSTOP);
	for (;;) {
		unsigned units = labour->work(intruder);

		atomic_fetch_add_explicit(&book->attempts, units, memory_order_relaxed);
		if (labour->pace > 0)
			keep_pace(book, &due_ns, units / labour->pace);
	}
}

void hostile_start(struct hostile *hostile, const struct attack *attack, bool harmless,
		   const struct rig *rig)
{
	struct intruder intruder = {.segment = rig->names[RIG_CACHED],
				    .door = door_of(attack, harmless, rig)};

	*hostile =
		(struct hostile){.book = mmap(NULL, sizeof(*hostile->book), PROT_READ | PROT_WRITE,
					      MAP_SHARED | MAP_ANONYMOUS, -1, 0)};
	if (hostile->book == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	hostile->pid = fork();
	if (hostile->pid < 0)
		die("fork: %s", strerror(errno));
	if (hostile->pid == 0) {
		if (attack->other_user && !harmless)
			become_another_user();
		run(&intruder, harmless ? &attack->neighbour : &attack->attack, hostile->book);
	}
	hostile_pause(hostile);
	hostile->at_work_ns = 0;
}

void hostile_resume(struct hostile *hostile)
{
	uint64_t now_ns = clock_monotonic_ns(NULL);

	atomic_fetch_add_explicit(&hostile->book->paused_ns, now_ns - hostile->paused_at_ns,
				  memory_order_relaxed);
	hostile->at_work_ns -= now_ns;
	kill(hostile->pid, SIGCONT);
}

void hostile_pause(struct hostile *hostile)
{
	int status;

	kill(hostile->pid, SIGSTOP);
	if (waitpid(hostile->pid, &status, WUNTRACED) != hostile->pid || !WIFSTOPPED(status))
		die("a process beside the target has ended");
	hostile->paused_at_ns = clock_monotonic_ns(NULL);
	hostile->at_work_ns += hostile->paused_at_ns;
}

double hostile_rate(const struct hostile *hostile)
{
	return (double)hostile->book->attempts * (double)NS_PER_SECOND /
	       (double)hostile->at_work_ns;
}

void hostile_stop(struct hostile *hostile)
{
	kill(hostile->pid, SIGKILL);
	waitpid(hostile->pid, NULL, 0);
	munmap(hostile->book, sizeof(*hostile->book));
}
