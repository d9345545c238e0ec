/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A target under a client that sends anything, over a Unix socket or TCP: its sessions end, and
 * their objects with them; a client that behaves stays connected, is served after each, and nobody
 * attaches with its invitations or fences its links.
 */
#include <poll.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/server.h"
#include "directory/p2p.h"
#include "net/address.h"
#include "net/stream.h"
#include "tests/fuzz/fuzz.h"

static struct sockaddr_un path;
static socklen_t path_length;
static union address tcp;
static struct server *server;
static char number[17]; /* of the connection of the client that behaves */
static _Atomic int clients;

static int on_open(void *arg, const struct peer_info *peer, const char *segment, uint32_t rights,
		   const json_t *transports, json_t *opened, int fds[MESSAGE_FDS_MAX],
		   uint32_t *close_mask, void **client)
{
	(void)arg;
	(void)segment;
	(void)transports;
	if (rights == 0)
		return fail(-EACCES, "not without rights");
	json_object_set_new(opened, "length", json_integer(4096));
	atomic_fetch_add(&clients, 1);
	*client = malloc(1);
	if (!peer->is_unix)
		return 0;
	fds[0] = dup(0);
	*close_mask = 1;
	return 1;
}

static json_t *on_describe(void *arg, const struct peer_info *peer)
{
	(void)arg;
	return json_pack("{s:{s:b}}", "verbs", "unix", peer->is_unix);
}

static int on_path(void *client, const struct path_ask *ask, const json_t *offer, json_t *answer)
{
	(void)ask;
	if (!client || !json_is_object(offer))
		abort();
	if (json_object_get(offer, "refuse"))
		return fail(-ENOSPC, "no path is left");
	json_object_set_new(answer, "back", json_deep_copy(offer));
	return 0;
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

/* Nobody can know the secrets that are not the client's own. */
static void on_attach(void *arg, struct stream *stream, const struct peer_info *peer, uint64_t link)
{
	(void)arg;
	(void)stream;
	(void)peer;
	(void)link;
	abort();
}

static void on_fence(void *arg, uint64_t connection, uint64_t link)
{
	(void)arg;
	(void)link;
	if (connection == 1)
		abort(); /* the client that behaves has fenced nothing */
}

static void on_gone(void *arg, uint64_t connection)
{
	(void)arg;
	if (connection == 1)
		abort();
}

static const struct server_callbacks callbacks = {.describe = on_describe,
						  .open = on_open,
						  .path = on_path,
						  .moved = on_moved,
						  .close = on_close,
						  .attach = on_attach,
						  .fence = on_fence,
						  .gone = on_gone};

static int dial(bool over_tcp)
{
	const struct sockaddr *address = over_tcp ? &tcp.any : (struct sockaddr *)&path;
	socklen_t length = over_tcp ? sizeof(tcp.v4) : path_length;
	int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || connect(fd, address, length) < 0)
		abort();
	return fd;
}

/* ---- the client that behaves: its connection stays ---- */

static struct stream good;

static json_t *ask(const char *text, const char *type)
{
	struct message_writer writer = {.limit_bytes = 0};
	struct message_reader reader = {0};
	json_t *message = NULL;

	if (message_send(&writer, &good, json_loads(text, 0, NULL), NULL, 0) < 0)
		abort();
	while (message_read(&reader, &good, &message) == 0)
		poll(&(struct pollfd){.fd = good.fd, .events = POLLIN}, 1, -1);
	if (strcmp(message_type(message), type) != 0)
		abort();
	return message;
}

static void greet(void)
{
	json_t *welcome;

	good.fd = dial(false);
	welcome = ask("{\"type\":\"hello\",\"versions\":[6,6],\"name\":\"n\"}", "welcome");
	strcpy(number, json_string_value(json_object_get(welcome, "connection")));
	json_decref(welcome);
	json_decref(ask("{\"type\":\"open\",\"session\":0,\"segment\":\"s\",\"rights\":1,"
			"\"transports\":[]}",
			"opened"));
}

/* An invitation that whoever comes next would like to use. */
static void invite(void)
{
	json_decref(ask("{\"type\":\"invite\",\"request\":1,\"offer\":{\"link\":"
			"\"000000000000000a\",\"count\":16}}",
			"invite"));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static const struct trust trust;
	struct server_options options = {.trust = &trust,
					 .name = "fuzz",
					 .callbacks = &callbacks,
					 .limits = {.local_accepts_per_second = 1000000,
						    .local_accepts_burst = 1000000,
						    .messages_per_second = 1000000}};
	union address addresses[ADDRESSES_MAX];
	struct listener *listener, *tcp_listener;
	struct host_port at;
	char name[32];

	(void)argc;
	(void)argv;
	slu_log_set(SLU_LOG_ERROR, fuzz_log, NULL);
	snprintf(name, sizeof(name), "fuzz-server-%d", (int)getpid());
	p2p_segment_address(name, &path, &path_length);
	if (control_thread_start(&options.control) < 0 || server_create(&options, &server) < 0 ||
	    server_listen(server, &path, path_length, &listener) < 0 ||
	    server_listen_tcp(server, "127.0.0.1:0", false, &tcp_listener) < 0 ||
	    address_parse(listener_address(tcp_listener), &at) < 0 ||
	    address_resolve(&at, clock_monotonic_ns(NULL) + NS_PER_SECOND, addresses) != 1)
		abort();
	tcp = addresses[0];
	greet();
	return 0;
}

/* Over a reset connection the server may still be about to notice. */
static void expect_nothing_left(void)
{
	for (int i = 0; i < 10000; i++) {
		if (server_session_count(server) == 1 && atomic_load(&clients) == 1 &&
		    server_connection_count(server) == 1)
			return;
		usleep(i < 100 ? 10 : 1000);
	}
	abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *wire;
	size_t length = fuzz_messages(data, size, number, &wire);
	int fd = dial(size % 4 == 1);
	char answer[4096];

	invite();
	if (length > 0)
		send(fd, wire, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	shutdown(fd, SHUT_WR);
	while (read(fd, answer, sizeof(answer)) > 0)
		;
	close(fd);
	free(wire);
	expect_nothing_left();
	return 0;
}
