/* SPDX-License-Identifier: Apache-2.0 */
#include "loopback.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "samples.h"

#define MESSAGE_MAX 4096

static int listen_anywhere(struct sockaddr_in *address)
{
	socklen_t size = sizeof(*address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*address = (struct sockaddr_in){.sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || bind(fd, (struct sockaddr *)address, size) != 0 || listen(fd, 1) != 0 ||
	    getsockname(fd, (struct sockaddr *)address, &size) != 0)
		die("cannot listen on 127.0.0.1: %s", strerror(errno));
	return fd;
}

static void tune(int fd)
{
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
	    fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
		die("cannot set up a socket: %s", strerror(errno));
}

void loopback_open(struct loopback *loopback)
{
	struct sockaddr_in address;
	int listener = listen_anywhere(&address);

	loopback->ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (loopback->ends[0] < 0 ||
	    connect(loopback->ends[0], (struct sockaddr *)&address, sizeof(address)) != 0)
		die("cannot connect to 127.0.0.1: %s", strerror(errno));
	loopback->ends[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (loopback->ends[1] < 0)
		die("cannot accept on 127.0.0.1: %s", strerror(errno));
	close(listener);
	tune(loopback->ends[0]);
	tune(loopback->ends[1]);
}

void loopback_close(struct loopback *loopback)
{
	close(loopback->ends[0]);
	close(loopback->ends[1]);
}

struct player {
	const struct bench *bench;
	int fd;
	uint32_t bytes;
	atomic_bool stop;
	double p50_ns;
};

/* False when told to stop, which may be at the start of a message only. */
static bool receive_message(struct player *player, char *message)
{
	uint32_t have = 0;

	while (have < player->bytes) {
		ssize_t n = recv(player->fd, message + have, player->bytes - have, 0);

		if (n > 0)
			have += (uint32_t)n;
		else if (n == 0 || errno != EAGAIN)
			die("recv: %s", n == 0 ? "closed" : strerror(errno));
		else if (have == 0 && atomic_load_explicit(&player->stop, memory_order_relaxed))
			return false;
	}
	return true;
}

static void send_message(const struct player *player, const char *message)
{
	if (send(player->fd, message, player->bytes, MSG_NOSIGNAL) != (ssize_t)player->bytes)
		die("send: %s", strerror(errno));
}

static void *echo_run(void *arg)
{
	char message[MESSAGE_MAX];

	while (receive_message(arg, message))
		send_message(arg, message);
	return NULL;
}

static char message[MESSAGE_MAX]; /* of the caller */

static void trip(void *arg)
{
	send_message(arg, message);
	receive_message(arg, message);
}

static void *call_run(void *arg)
{
	struct player *player = arg;

	memory_fill(message, sizeof(message), 0);
	player->p50_ns = samples_p50_ns(player->bench->slice_ns, 1, trip, player);
	return NULL;
}

double loopback_round_trip_ns(const struct bench *bench, struct loopback *loopback, uint32_t bytes)
{
	struct player caller = {.bench = bench, .fd = loopback->ends[0], .bytes = bytes};
	struct player echo = {.bench = bench, .fd = loopback->ends[1], .bytes = bytes};
	pthread_t thread;

	if (bytes > MESSAGE_MAX)
		die("a message of %u bytes is too long", bytes);
	tick_ns();
	thread = core_thread_start(bench, bench->cores[1], echo_run, &echo);
	core_thread_run(bench, bench->cores[0], call_run, &caller);
	atomic_store_explicit(&echo.stop, true, memory_order_relaxed);
	core_thread_join(thread);
	return caller.p50_ns;
}
