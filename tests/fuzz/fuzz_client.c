/* SPDX-License-Identifier: Apache-2.0 */
/* An initiator at a target that answers anything: a grant is mapped within bounds, or refused. */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/client_internal.h"
#include "directory/p2p.h"
#include "message/client_area.h"
#include "tests/fuzz/fuzz.h"

#define SEGMENT_BYTES 65536
#define TURNS         8  /* of the target, then it says all that is left */
#define TURN_MS       10 /* that it waits for the client's next message */
#define PATIENCE_US   5000000

static struct client_pool_options options = {.name = "fuzz"};
static struct client_pool *pool; /* a new one for each input: it remembers targets */
static struct endpoint endpoint = {.is_unix = true};
static int listener, fds[3]; /* as shm passes them: segment, area, timer */
static const uint8_t *input;
static size_t input_size;
static sem_t served; /* the target is done with input */

static int sealed_memory(size_t length)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)length) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		abort();
	return fd;
}

/* @p length bytes at once, the descriptors with the first. */
static void send_bytes(int fd, const uint8_t *bytes, size_t length)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(fds))];
	} control = {0};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
	struct msghdr header = {.msg_iov = &iov,
				.msg_iovlen = 1,
				.msg_control = control.bytes,
				.msg_controllen = sizeof(control.bytes)};

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(&control.align), fds, sizeof(fds));
	sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* A message each time that the client has said something, so that answers follow what they answer:
 * they would be nothing but hostile else. */
static void send_input(int fd)
{
	struct pollfd said = {.fd = fd, .events = POLLIN};
	char request[4096];
	size_t at = 0;

	for (int turn = 0; turn < TURNS && input_size - at > 4; turn++) {
		uint32_t length;

		memcpy(&length, input + at, sizeof(length));
		if (length > input_size - at - 4)
			break;
		if (poll(&said, 1, TURN_MS) > 0 && recv(fd, request, sizeof(request), 0) <= 0)
			return;
		send_bytes(fd, input + at, 4 + length);
		at += 4 + length;
	}
	if (at < input_size)
		send_bytes(fd, input + at, input_size - at);
}

static void *target(void *arg)
{
	char request[4096];
	int fd;

	while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		if (input_size > 0)
			send_input(fd);
		shutdown(fd, SHUT_WR);
		while (read(fd, request, sizeof(request)) > 0)
			;
		close(fd);
		sem_post(&served);
	}
	return arg;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct trust trust;
	pthread_t thread;
	char name[32];

	(void)argc;
	(void)argv;
	slu_log_set(SLU_LOG_ERROR, fuzz_log, NULL);
	sem_init(&served, 0, 0);
	options.trust = &trust;
	if (control_thread_start(&options.control) < 0)
		abort();
	fds[0] = sealed_memory(SEGMENT_BYTES);
	fds[1] = sealed_memory(CLIENT_AREA_BYTES);
	fds[2] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	snprintf(name, sizeof(name), "fuzz-client-%d", (int)getpid());
	p2p_segment_address(name, &endpoint.path, &endpoint.path_length);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 ||
	    bind(listener, (struct sockaddr *)&endpoint.path, endpoint.path_length) < 0 ||
	    listen(listener, 16) < 0 || pthread_create(&thread, NULL, target, NULL) != 0)
		abort();
	return 0;
}

static void use(struct transport_peer *peer, const struct client_grant *grant, uint32_t rights)
{
	const struct transport_client *client = shm_transport.client;
	void *view;

	if (grant->fd_count > MESSAGE_FDS_MAX)
		abort();
	if (client->import(peer, json_object_get(grant->opened, "grant"), grant->length, rights,
			   grant->fds, grant->fd_count, &view) < 0)
		return;
	if (grant->length > SEGMENT_BYTES)
		abort();
	client->release(view);
}

static void on_lost(void *arg, int error)
{
	(void)arg;
	if (error >= 0)
		abort();
}

static void on_totals(void *arg, struct client_totals *totals)
{
	(void)arg;
	*totals = (struct client_totals){.operations = 1};
}

static void on_answered(void *arg, int error, const json_t *answer)
{
	if (error > 0 || json_is_object(answer) != (error == 0))
		abort();
	atomic_fetch_add((_Atomic unsigned *)arg, 1);
}

static void ask(struct session *session)
{
	json_t *offer = json_pack("{s:i}", "qpn", 1), *answer = NULL;
	int rc = session_ask(session, offer, clock_deadline_ns(PATIENCE_US), &answer);

	if (rc == -ETIMEDOUT || json_is_object(answer) != (rc == 0))
		abort();
	json_decref(answer);
	json_decref(offer);
}

static void invite(struct client *client)
{
	json_t *offer = json_pack("{s:s, s:i}", "link", "000000000000000a", "count", 2);
	json_t *answer = NULL;
	int rc = client_ask(client, "invite", offer, clock_deadline_ns(PATIENCE_US), &answer);

	if (rc == -ETIMEDOUT || json_is_object(answer) != (rc == 0))
		abort();
	json_decref(answer);
	json_decref(offer);
}

/* Until it is answered, or nobody is left who could. */
static void raise_fence(struct client *client)
{
	struct transport_peer *peer = client_peer(client);

	peer->forgo(peer->ticket(peer, 1));
	peer->raise(peer->ticket(peer, 2));
	while (peer->fence->pending && !peer->lost)
		usleep(100);
}

static void open_session(struct client *client)
{
	_Atomic unsigned answered = 0;
	static const struct session_callbacks callbacks = {.lost = on_lost, .totals = on_totals};
	static const enum slu_transport transports[] = {SLU_TRANSPORT_SHM};
	const struct session_request request = {.segment = "fuzz",
						.rights = SLU_RIGHT_READ | SLU_RIGHT_WRITE,
						.transports = transports,
						.transport_count = 1,
						.until_ns = clock_deadline_ns(PATIENCE_US),
						.callbacks = &callbacks};
	struct client_grant grant;
	struct session *session;
	uint64_t cpu_ns;

	if (session_open(client, &request, &session, &grant) < 0)
		return;
	use(client_peer(client), &grant, request.rights);
	client_grant_free(&grant);
	session_ask_async(session, json_pack("{s:i}", "qpn", 2), on_answered, &answered);
	ask(session);
	session_usage(session, PATIENCE_US, &cpu_ns);
	invite(client);
	raise_fence(client);
	session_close(session);
	if (answered != 1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct client *client;
	uint8_t *wire;

	input_size = fuzz_messages(data, size, "", &wire);
	input = wire;
	if (client_pool_create(&options, &pool) < 0)
		abort();
	if (client_connect(pool, &endpoint, "fuzz", clock_deadline_ns(PATIENCE_US), &client) == 0) {
		const struct client_welcome *welcome = client_welcome(client);

		if (strlen(welcome->target) > SLU_NAME_MAX ||
		    strlen(welcome->identity) > SLU_IDENTITY_MAX)
			abort();
		open_session(client);
		client_release(client);
	}
	client_pool_destroy(pool);
	sem_wait(&served);
	free(wire);
	return 0;
}
