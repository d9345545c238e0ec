/* SPDX-License-Identifier: Apache-2.0 */
/* A target under a client that sends anything: the session ends, and its client object with it. */
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/server.h"
#include "directory/p2p.h"
#include "tests/fuzz/fuzz.h"

static struct sockaddr_un address;
static socklen_t address_length;
static struct server *server;
static _Atomic int clients;

static int on_open(void *arg, const char *segment, uint32_t rights, const json_t *transports,
		   json_t *opened, int fds[MESSAGE_FDS_MAX], uint32_t *close_mask, void **client)
{
	(void)arg;
	(void)segment;
	(void)rights;
	(void)transports;
	json_object_set_new(opened, "length", json_integer(4096));
	fds[0] = dup(0);
	*close_mask = 1;
	atomic_fetch_add(&clients, 1);
	*client = malloc(1);
	return 1;
}

static void on_moved(void *client, uint64_t operations, uint64_t bytes_read, uint64_t bytes_written)
{
	(void)operations;
	(void)bytes_read;
	(void)bytes_written;
	if (!client)
		abort();
}

static void on_close(void *client, bool lost)
{
	(void)lost;
	atomic_fetch_sub(&clients, 1);
	free(client);
}

static const struct server_callbacks callbacks = {
	.open = on_open, .moved = on_moved, .close = on_close};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct trust trust;
	struct server_options options = {.trust = &trust, .name = "fuzz", .callbacks = &callbacks};
	struct listener *listener;
	char name[32];

	(void)argc;
	(void)argv;
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	snprintf(name, sizeof(name), "fuzz-server-%d", (int)getpid());
	p2p_segment_address(name, &address, &address_length);
	if (control_thread_start(&options.control) < 0 || server_create(&options, &server) < 0 ||
	    server_listen(server, &address, address_length, &listener) < 0)
		abort();
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char answer[4096];

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, address_length) < 0)
		abort();
	if (size > 0)
		send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_WR);
	while (read(fd, answer, sizeof(answer)) > 0)
		;
	close(fd);
	/* The session was closed before the end of file came here. */
	if (server_session_count(server) != 0 || atomic_load(&clients) != 0)
		abort();
	return 0;
}
