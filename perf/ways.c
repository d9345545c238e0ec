/* SPDX-License-Identifier: Apache-2.0 */
#include "ways.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#ifdef HAVE_LIBURING
#include <liburing.h>
#endif

#include "lanes.h"

#define PENDING_MAX 16 /* sends in flight, where they end later */

static uint64_t sent(const struct sender *sender, ssize_t n)
{
	if (n < 0 && errno != EAGAIN && errno != ENOBUFS)
		die("a send of %llu bytes: %s", (unsigned long long)sender->block_bytes,
		    strerror(errno));
	return n < 0 ? 0 : (uint64_t)n;
}

static uint64_t plain_send(struct sender *sender)
{
	struct iovec iov = {(void *)sender->block, sender->block_bytes};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	return sent(sender, sendmsg(sender->fd, &message, MSG_NOSIGNAL));
}

static void plain_close(struct sender *sender)
{
	(void)sender;
}

static void zerocopy_open(struct sender *sender)
{
	int one = 1;

	if (setsockopt(sender->fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) != 0)
		die("SO_ZEROCOPY: %s", strerror(errno));
}

/* A notice stands for the sends numbered from ee_info to ee_data. */
static void zerocopy_reap(struct sender *sender)
{
	char control[CMSG_SPACE(sizeof(struct sock_extended_err) + sizeof(struct sockaddr_in))];
	struct msghdr message = {.msg_control = control, .msg_controllen = sizeof(control)};
	struct sock_extended_err notice;
	uint32_t ended;

	if (recvmsg(sender->fd, &message, MSG_ERRQUEUE) < 0)
		return;
	memcpy(&notice, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(notice));
	ended = notice.ee_data - notice.ee_info + 1;
	sender->pending -= ended;
	sender->sends += ended;
	sender->copied += notice.ee_code & SO_EE_CODE_ZEROCOPY_COPIED ? ended : 0;
}

static uint64_t zerocopy_send(struct sender *sender)
{
	struct iovec iov = {(void *)sender->block, sender->block_bytes};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	uint64_t n = 0;

	if (sender->pending < PENDING_MAX)
		n = sent(sender, sendmsg(sender->fd, &message, MSG_NOSIGNAL | MSG_ZEROCOPY));
	sender->pending += n > 0;
	if (sender->pending > PENDING_MAX / 2)
		zerocopy_reap(sender);
	return n;
}

static void zerocopy_close(struct sender *sender)
{
	while (sender->pending > 0)
		zerocopy_reap(sender);
}

static const struct way plain = {"sendmsg", NULL, plain_send, plain_close};
static const struct way zerocopy = {"MSG_ZEROCOPY", zerocopy_open, zerocopy_send, zerocopy_close};

#ifdef HAVE_LIBURING
static void uring_open(struct sender *sender)
{
	struct io_uring *ring = calloc(1, sizeof(*ring));
	int rc = ring ? io_uring_queue_init(2 * PENDING_MAX, ring, 0) : -ENOMEM;

	if (rc < 0)
		die("io_uring: %s", strerror(-rc));
	sender->state = ring;
}

/* With zero-copy a send ends twice: sent, and given back. */
static uint64_t uring_reap(struct sender *sender)
{
	struct io_uring_cqe *ends[PENDING_MAX];
	unsigned n = io_uring_peek_batch_cqe(sender->state, ends, PENDING_MAX);
	uint64_t bytes = 0;

	for (unsigned i = 0; i < n; i++) {
		bool more = ends[i]->flags & IORING_CQE_F_MORE;

		if (ends[i]->res < 0)
			die("io_uring send: %s", strerror(-ends[i]->res));
		bytes += ends[i]->flags & IORING_CQE_F_NOTIF ? 0 : (uint64_t)ends[i]->res;
		sender->pending -= !more;
		sender->sends += !more;
	}
	io_uring_cq_advance(sender->state, n);
	return bytes;
}

/* The order of what is in flight does not matter here: a favour that a transport could not ask. */
static void uring_fill(struct sender *sender, bool zero_copy)
{
	while (sender->pending < PENDING_MAX) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(sender->state);

		if (!sqe)
			break;
		if (zero_copy)
			io_uring_prep_send_zc(sqe, sender->fd, sender->block, sender->block_bytes,
					      MSG_NOSIGNAL | MSG_WAITALL, 0);
		else
			io_uring_prep_send(sqe, sender->fd, sender->block, sender->block_bytes,
					   MSG_NOSIGNAL | MSG_WAITALL);
		sender->pending++;
	}
	io_uring_submit(sender->state);
}

static uint64_t uring_send(struct sender *sender)
{
	uring_fill(sender, false);
	return uring_reap(sender);
}

static uint64_t uring_send_zero_copy(struct sender *sender)
{
	uring_fill(sender, true);
	return uring_reap(sender);
}

static void uring_close(struct sender *sender)
{
	while (sender->pending > 0) {
		io_uring_submit(sender->state);
		uring_reap(sender);
	}
	io_uring_queue_exit(sender->state);
	free(sender->state);
}

static const struct way uring = {"io_uring", uring_open, uring_send, uring_close};
static const struct way uring_zerocopy = {"io_uring, zero-copy", uring_open, uring_send_zero_copy,
					  uring_close};

static bool uring_usable(void)
{
	struct io_uring ring;

	if (io_uring_queue_init(2, &ring, 0) < 0)
		return false;
	io_uring_queue_exit(&ring);
	return true;
}
#endif

unsigned ways_usable(const struct way **ways)
{
	unsigned count = 0;

	ways[count++] = &plain;
	ways[count++] = &zerocopy;
#ifdef HAVE_LIBURING
	if (uring_usable()) {
		ways[count++] = &uring;
		ways[count++] = &uring_zerocopy;
	}
#endif
	return count;
}

struct receiver {
	int fd;
	char *block;
	uint64_t block_bytes;
	atomic_bool stop;
};

/* Spins, as a poller does; goes on until the sender has taken back what was pending. */
static void *receiver_run(void *arg)
{
	struct receiver *receiver = arg;
	uint64_t at = 0;

	while (!atomic_load_explicit(&receiver->stop, memory_order_relaxed)) {
		ssize_t n = recv(receiver->fd, receiver->block + at, receiver->block_bytes - at, 0);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			die("recv: %s", n == 0 ? "closed" : strerror(errno));
		if (n > 0)
			at = (at + (uint64_t)n) % receiver->block_bytes;
	}
	return NULL;
}

struct sending {
	const struct way *way;
	struct sender sender;
};

static uint64_t sending_step(void *arg)
{
	struct sending *sending = arg;

	return sending->way->send(&sending->sender);
}

static void sending_finish(void *arg)
{
	struct sending *sending = arg;

	sending->way->close(&sending->sender);
}

static void say_copied(const struct sender *sender, char *note)
{
	if (sender->copied > 0)
		snprintf(note, WAYS_NOTE_MAX, "the kernel copied %.0f %% of the sends all the same",
			 100.0 * (double)sender->copied / (double)sender->sends);
}

double ways_rate(const struct bench *bench, const struct way *way, uint64_t block_bytes, char *note)
{
	struct sending sending = {.way = way, .sender = {.block_bytes = block_bytes}};
	struct receiver receiver = {.block_bytes = block_bytes};
	struct lane lane = {.core = bench->cores[0],
			    .step = sending_step,
			    .finish = sending_finish,
			    .arg = &sending};
	struct loopback loopback;
	pthread_t thread;
	double rate;

	note[0] = '\0';
	loopback_open(&loopback);
	sending.sender.fd = loopback.ends[0];
	sending.sender.block = memory_map(block_bytes, false);
	receiver.fd = loopback.ends[1];
	receiver.block = memory_map(block_bytes, false);
	memory_fill((void *)sending.sender.block, block_bytes, 0);
	memory_fill(receiver.block, block_bytes, 1);
	if (way->open)
		way->open(&sending.sender);
	thread = core_thread_start(bench, bench->cores[1], receiver_run, &receiver);
	rate = lanes_rate(bench, &lane, 1);
	atomic_store_explicit(&receiver.stop, true, memory_order_relaxed);
	core_thread_join(thread);
	say_copied(&sending.sender, note);
	memory_unmap((void *)sending.sender.block, block_bytes);
	memory_unmap(receiver.block, block_bytes);
	loopback_close(&loopback);
	return rate;
}
