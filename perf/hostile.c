/* SPDX-License-Identifier: Apache-2.0 */
#include "hostile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/tls.h"

#define SOURCE        "127.0.0.2" /* has its own 28000 ports */
#define HELD          200         /* connections kept open at a time */
#define GARBAGE_BYTES 65536
#define WAIT_MS       100 /* for an answer, or for the target to close */
#define LOWEST        19  /* priority */
#define PATH_BYTES    32

static const char token[] = "{\"type\":\"attach\",\"token\":\"0123456789abcdef0123456789abcdef\"}";

/* The hostile process is one of these and nothing else. */
struct attacker {
	struct sockaddr_in target;
	_Atomic uint64_t *attempts;
	struct tls *tls;
	int held[HELD];
	uint64_t said_ns;
};

/* A connection, or -1: then the target, or its host, has had enough for the moment. */
static int attack(struct attacker *attacker)
{
	struct sockaddr_in source = {.sin_family = AF_INET};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	inet_pton(AF_INET, SOURCE, &source.sin_addr);
	atomic_fetch_add_explicit(attacker->attempts, 1, memory_order_relaxed);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&source, sizeof(source)) == 0 &&
	    connect(fd, (struct sockaddr *)&attacker->target, sizeof(attacker->target)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

/* Resets instead of lingering: the ports of this address must not run out. */
static void leave(int fd)
{
	struct linger now = {.l_onoff = 1};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

static void wait_closed(int fd)
{
	struct pollfd event = {.fd = fd, .events = POLLIN};
	char answer[1024];

	while (poll(&event, 1, WAIT_MS) == 1 && recv(fd, answer, sizeof(answer), 0) > 0)
		;
	leave(fd);
}

static bool has_closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EINTR);
}

/* Keep all connections open; with @p byte say another one on each of them. */
static void hold(struct attacker *attacker, bool says, char byte)
{
	for (unsigned i = 0; i < HELD; i++) {
		if (attacker->held[i] >= 0 && has_closed(attacker->held[i])) {
			leave(attacker->held[i]);
			attacker->held[i] = -1;
		}
		if (attacker->held[i] < 0)
			attacker->held[i] = attack(attacker);
		if (says && attacker->held[i] >= 0)
			send(attacker->held[i], &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	usleep(1000);
}

static void silent(struct attacker *attacker)
{
	hold(attacker, false, 0);
}

/* The lengths that these bytes begin are allowed ones, and never reached. */
static void slow(struct attacker *attacker)
{
	uint64_t now_ns = clock_monotonic_ns(NULL);
	bool says = now_ns - attacker->said_ns >= NS_PER_SECOND;

	if (says)
		attacker->said_ns = now_ns;
	hold(attacker, says, 1);
}

static void connects(struct attacker *attacker)
{
	int fd = attack(attacker);

	if (fd >= 0)
		leave(fd);
}

static void oversized(struct attacker *attacker)
{
	static char garbage[GARBAGE_BYTES];
	int fd = attack(attacker);

	if (fd < 0)
		return;
	memset(garbage, 0xff, sizeof(garbage));
	send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL);
	wait_closed(fd);
}

static void guess_token(struct attacker *attacker)
{
	uint32_t length = sizeof(token) - 1;
	char message[4 + sizeof(token)];
	int fd = attack(attacker);

	if (fd < 0)
		return;
	memcpy(message, &length, 4);
	memcpy(message + 4, token, length);
	send(fd, message, 4 + length, MSG_NOSIGNAL);
	wait_closed(fd);
}

static void guess_key(struct attacker *attacker)
{
	struct stream stream = {.fd = attack(attacker)};
	struct pollfd event = {.fd = stream.fd, .events = POLLIN};

	if (stream.fd < 0)
		return;
	fcntl(stream.fd, F_SETFL, O_NONBLOCK);
	if (tls_start(attacker->tls, &stream, "127.0.0.1") == 0)
		while (tls_handshake(&stream) == 0 && poll(&event, 1, WAIT_MS) == 1)
			;
	stream_close(&stream);
}

static void (*const kinds[])(struct attacker *attacker) = {
	[HOSTILE_SILENT] = silent,     [HOSTILE_SLOW] = slow,
	[HOSTILE_CONNECTS] = connects, [HOSTILE_OVERSIZED] = oversized,
	[HOSTILE_TOKEN] = guess_token, [HOSTILE_KEY] = guess_key,
};

/* The identity that the rig's key file has, with another key. */
static struct tls *wrong_key(void)
{
	static const char line[] = "perf:00112233445566778899aabbccddeeff\n";
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

static void run(enum hostile_kind kind, const char *address, _Atomic uint64_t *attempts)
{
	struct attacker attacker = {.target = {.sin_family = AF_INET}, .attempts = attempts};
	const char *port = strrchr(address, ':');

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpriority(PRIO_PROCESS, 0, LOWEST);
	inet_pton(AF_INET, "127.0.0.1", &attacker.target.sin_addr);
	attacker.target.sin_port = htons((uint16_t)atoi(port + 1));
	for (unsigned i = 0; i < HELD; i++)
		attacker.held[i] = -1;
	if (kind == HOSTILE_KEY)
		attacker.tls = wrong_key();
	raise(SIGSTOP);
	for (;;)
		kinds[kind](&attacker);
}

void hostile_start(struct hostile *hostile, enum hostile_kind kind, const char *address)
{
	hostile->attempts = mmap(NULL, sizeof(*hostile->attempts), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (hostile->attempts == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	hostile->pid = fork();
	if (hostile->pid < 0)
		die("fork: %s", strerror(errno));
	if (hostile->pid == 0)
		run(kind, address, hostile->attempts);
	hostile_pause(hostile);
}

void hostile_resume(const struct hostile *hostile)
{
	kill(hostile->pid, SIGCONT);
}

void hostile_pause(const struct hostile *hostile)
{
	int status;

	kill(hostile->pid, SIGSTOP);
	if (waitpid(hostile->pid, &status, WUNTRACED) != hostile->pid || !WIFSTOPPED(status))
		die("the hostile process has ended");
}

void hostile_stop(struct hostile *hostile)
{
	kill(hostile->pid, SIGKILL);
	waitpid(hostile->pid, NULL, 0);
	munmap((void *)hostile->attempts, sizeof(*hostile->attempts));
}
