/* SPDX-License-Identifier: Apache-2.0 */
#include "control/server.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define BACKLOG 1024

/* Out of descriptors: look again after this. */
static const struct timeval accept_pause = {.tv_usec = 100000};
static const struct timeval handshake_time = {.tv_sec = SERVER_HANDSHAKE_SECONDS};

enum session_state {
	SESSION_NEW,     /* hello must come */
	SESSION_GREETED, /* open must come */
	SESSION_OPEN,
};

struct session {
	struct server *server;
	struct event *event;
	struct event *deadline; /* of the handshake */
	int fd;
	enum session_state state;
	bool said_bye;
	void *client;
	struct message_reader reader;
	LIST_ENTRY(session) link;
};

struct listener {
	struct server *server;
	struct event *event;
	struct event *resume;
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path) + 1]; /* empty: abstract */
	LIST_ENTRY(listener) link;
};

struct server {
	struct server_options options;
	LIST_HEAD(, session) sessions;
	LIST_HEAD(, listener) listeners;
	_Atomic uint32_t session_count;
};

static void session_close(struct session *session)
{
	struct server *server = session->server;

	if (session->client)
		server->options.callbacks->close(session->client, !session->said_bye);
	LIST_REMOVE(session, link);
	atomic_fetch_sub(&server->session_count, 1);
	event_free(session->event);
	event_free(session->deadline);
	close(session->fd);
	message_reader_reset(&session->reader);
	free(session);
}

static int refuse(struct session *session, int error)
{
	message_write_new(session->fd,
			  json_pack("{s:s, s:i, s:s}", "type", "refused", "error", -error, "text",
				    slu_last_error()),
			  NULL, 0);
	return error;
}

static int on_hello(struct session *session, const json_t *message)
{
	const struct server_options *options = &session->server->options;
	char incarnation[17];
	int low, high;

	if (json_unpack((json_t *)message, "{s:[i,i]}", "versions", &low, &high) < 0)
		return refuse(session, fail(-EPROTO, "hello without versions"));
	if (high < MESSAGE_VERSION_LOW || low > MESSAGE_VERSION_HIGH)
		return refuse(session, fail(-EPROTONOSUPPORT,
					    "client speaks protocol versions %d to %d, target %s "
					    "speaks %d to %d: upgrade the older side",
					    low, high, options->name, MESSAGE_VERSION_LOW,
					    MESSAGE_VERSION_HIGH));
	snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, options->incarnation);
	session->state = SESSION_GREETED;
	return message_write_new(
		session->fd,
		json_pack("{s:s, s:i, s:s, s:s, s:i}", "type", "welcome", "version",
			  high < MESSAGE_VERSION_HIGH ? high : MESSAGE_VERSION_HIGH, "name",
			  options->name, "incarnation", incarnation, "pid", (int)getpid()),
		NULL, 0);
}

static void close_granted(const int *fds, uint32_t close_mask)
{
	for (uint32_t i = 0; i < MESSAGE_FDS_MAX; i++)
		if (close_mask & 1u << i)
			close(fds[i]);
}

static int on_open(struct session *session, const json_t *message)
{
	const struct server_options *options = &session->server->options;
	int fds[MESSAGE_FDS_MAX];
	uint32_t close_mask = 0;
	const char *segment;
	json_t *transports, *opened;
	int rights, count, rc;

	if (json_unpack((json_t *)message, "{s:s, s:i, s:o}", "segment", &segment, "rights",
			&rights, "transports", &transports) < 0)
		return refuse(session, fail(-EPROTO, "open without segment, rights or transports"));
	opened = json_pack("{s:s}", "type", "opened");
	if (!opened)
		return refuse(session, fail(-ENOMEM, "target is out of memory"));
	count = options->callbacks->open(options->arg, segment, (uint32_t)rights, transports,
					 opened, fds, &close_mask, &session->client);
	if (count < 0) {
		json_decref(opened);
		return refuse(session, count);
	}
	session->state = SESSION_OPEN;
	rc = message_write_new(session->fd, opened, fds, (uint32_t)count);
	close_granted(fds, close_mask);
	event_del(session->deadline);
	return rc;
}

static int on_moved(struct session *session, const json_t *message)
{
	json_int_t operations, bytes_read, bytes_written;

	if (json_unpack((json_t *)message, "{s:I, s:I, s:I}", "operations", &operations,
			"bytes_read", &bytes_read, "bytes_written", &bytes_written) < 0)
		return fail(-EPROTO, "moved without its numbers");
	session->server->options.callbacks->moved(session->client, (uint64_t)operations,
						  (uint64_t)bytes_read, (uint64_t)bytes_written);
	return 0;
}

static int on_usage(struct session *session)
{
	json_int_t cpu_ns = (json_int_t)clock_process_cpu_ns();

	return message_write_new(
		session->fd, json_pack("{s:s, s:I}", "type", "usage", "cpu_ns", cpu_ns), NULL, 0);
}

/* @return 0, or the session ends */
static int dispatch(struct session *session, const json_t *message)
{
	const char *type = message_type(message);

	if (session->state == SESSION_NEW && strcmp(type, "hello") == 0)
		return on_hello(session, message);
	if (session->state == SESSION_GREETED && strcmp(type, "open") == 0)
		return on_open(session, message);
	if (session->state == SESSION_OPEN && strcmp(type, "moved") == 0)
		return on_moved(session, message);
	if (session->state == SESSION_OPEN && strcmp(type, "usage") == 0)
		return on_usage(session);
	if (strcmp(type, "bye") == 0) {
		session->said_bye = true;
		return -ESHUTDOWN;
	}
	return refuse(session, fail(-EPROTO, "unexpected message \"%.32s\"", type));
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	log_warning("a client is disconnected: no handshake within %d s", SERVER_HANDSHAKE_SECONDS);
	session_close(arg);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct session *session = arg;
	json_t *message;
	int rc;

	(void)what;
	while ((rc = message_read(&session->reader, fd, &message)) > 0) {
		rc = dispatch(session, message);
		json_decref(message);
		if (rc < 0)
			break;
	}
	if (rc == -EPROTO)
		log_warning("a client is disconnected: %s", slu_last_error());
	if (rc < 0)
		session_close(session);
}

static int session_create(struct server *server, int fd)
{
	struct event_base *base = control_base(server->options.control);
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return -ENOMEM;
	session->server = server;
	session->fd = fd;
	session->event = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, session);
	session->deadline = event_new(base, -1, 0, on_deadline, session);
	if (!session->event || !session->deadline || event_add(session->event, NULL) < 0 ||
	    event_add(session->deadline, &handshake_time) < 0) {
		if (session->event)
			event_free(session->event);
		if (session->deadline)
			event_free(session->deadline);
		free(session);
		return -ENOMEM;
	}
	LIST_INSERT_HEAD(&server->sessions, session, link);
	atomic_fetch_add(&server->session_count, 1);
	return 0;
}

/* A stranger is told why before the door closes. */
static void admit(struct server *server, int fd)
{
	struct session stranger = {.fd = fd};
	pid_t pid;
	int rc = credentials_check(fd, server->options.trust, &pid);

	if (rc < 0) {
		log_warning("a client is refused: %s", slu_last_error());
		refuse(&stranger, rc);
		close(fd);
		return;
	}
	if (session_create(server, fd) < 0) {
		log_error("a client is refused: out of memory");
		close(fd);
	}
}

static void on_connection(evutil_socket_t listen_fd, short what, void *arg)
{
	struct listener *listener = arg;
	int fd;

	(void)what;
	while ((fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
		admit(listener->server, fd);
	if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
		return;
	log_warning("no descriptor for a new client: %s; raise it with ulimit -n", strerror(errno));
	event_del(listener->event);
	event_add(listener->resume, &accept_pause);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
	struct listener *listener = arg;

	(void)fd;
	(void)what;
	event_add(listener->event, NULL);
}

/* A socket file that nobody listens on is what a killed target left. */
static bool is_stale(const struct sockaddr_un *address, socklen_t length)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool stale;

	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)address, length) < 0 && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int bind_socket(int fd, const struct sockaddr_un *address, socklen_t length)
{
	const struct sockaddr *generic = (const struct sockaddr *)address;

	if (bind(fd, generic, length) == 0)
		return 0;
	if (errno == EADDRINUSE && address->sun_path[0] && is_stale(address, length) &&
	    unlink(address->sun_path) == 0 && bind(fd, generic, length) == 0)
		return 0;
	return -errno;
}

static int open_socket(struct listener *listener, const struct sockaddr_un *address,
		       socklen_t length)
{
	const char *name = address->sun_path[0] ? address->sun_path : address->sun_path + 1;
	int name_length = (int)(length - offsetof(struct sockaddr_un, sun_path));
	mode_t mode = listener->server->options.trust->count ? 0666 : 0600;
	int rc;

	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->fd < 0)
		return fail(-errno, "socket: %s", strerror(errno));
	rc = bind_socket(listener->fd, address, length);
	if (rc == -EADDRINUSE)
		return fail(rc,
			    "another target already listens at \"%.*s\": choose another name or "
			    "stop that one",
			    name_length, name);
	if (rc < 0)
		return fail(rc, "cannot listen at \"%.*s\": %s", name_length, name, strerror(-rc));
	if (address->sun_path[0]) {
		strcpy(listener->path, address->sun_path);
		chmod(listener->path, mode);
	}
	if (listen(listener->fd, BACKLOG) < 0)
		return fail(-errno, "listen: %s", strerror(errno));
	return 0;
}

static void listener_destroy(struct listener *listener)
{
	if (listener->event)
		event_free(listener->event);
	if (listener->resume)
		event_free(listener->resume);
	if (listener->path[0])
		unlink(listener->path);
	if (listener->fd >= 0)
		close(listener->fd);
	free(listener);
}

struct listen_call {
	struct server *server;
	struct listener *listener;
};

static int add_listener(void *arg)
{
	struct listen_call *call = arg;
	struct listener *listener = call->listener;
	struct event_base *base = control_base(call->server->options.control);

	listener->event =
		event_new(base, listener->fd, EV_READ | EV_PERSIST, on_connection, listener);
	listener->resume = event_new(base, -1, 0, on_resume, listener);
	if (!listener->event || !listener->resume || event_add(listener->event, NULL) < 0)
		return -ENOMEM;
	LIST_INSERT_HEAD(&call->server->listeners, listener, link);
	return 0;
}

static int remove_listener(void *arg)
{
	struct listen_call *call = arg;

	LIST_REMOVE(call->listener, link);
	listener_destroy(call->listener);
	return 0;
}

int server_listen(struct server *server, const struct sockaddr_un *address, socklen_t length,
		  struct listener **out)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	struct listen_call call = {.server = server, .listener = listener};
	int rc;

	if (!listener)
		return fail(-ENOMEM, "out of memory");
	listener->server = server;
	listener->fd = -1;
	rc = open_socket(listener, address, length);
	if (rc == 0 && control_call(server->options.control, add_listener, &call) < 0)
		rc = fail(-ENOMEM, "out of memory");
	if (rc < 0) {
		listener_destroy(listener);
		return rc;
	}
	*out = listener;
	return 0;
}

void server_unlisten(struct server *server, struct listener *listener)
{
	struct listen_call call = {.server = server, .listener = listener};

	if (listener)
		control_call(server->options.control, remove_listener, &call);
}

int server_create(const struct server_options *options, struct server **out)
{
	struct server *server = calloc(1, sizeof(*server));

	if (!server)
		return fail(-ENOMEM, "out of memory");
	server->options = *options;
	LIST_INIT(&server->sessions);
	LIST_INIT(&server->listeners);
	*out = server;
	return 0;
}

static int end_all(void *arg)
{
	struct server *server = arg;
	struct session *session;
	struct listener *listener;

	while ((session = LIST_FIRST(&server->sessions)))
		session_close(session);
	while ((listener = LIST_FIRST(&server->listeners))) {
		LIST_REMOVE(listener, link);
		listener_destroy(listener);
	}
	return 0;
}

void server_destroy(struct server *server)
{
	if (!server)
		return;
	control_call(server->options.control, end_all, server);
	free(server);
}

void server_dismiss(struct server *server, bool (*which)(void *client, void *arg), void *arg)
{
	struct session *session = LIST_FIRST(&server->sessions);

	while (session) {
		struct session *next = LIST_NEXT(session, link);

		if (!session->client)
			session_close(session);
		else if (which(session->client, arg))
			message_write_new(session->fd, json_pack("{s:s}", "type", "closing"), NULL,
					  0);
		session = next;
	}
}

void server_drop(struct server *server, bool (*which)(void *client, void *arg), void *arg)
{
	struct session *session = LIST_FIRST(&server->sessions);

	while (session) {
		struct session *next = LIST_NEXT(session, link);

		if (session->client && which(session->client, arg))
			session_close(session);
		session = next;
	}
}

uint32_t server_session_count(const struct server *server)
{
	return atomic_load(&server->session_count);
}
