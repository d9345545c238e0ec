/* SPDX-License-Identifier: Apache-2.0 */
/* The server's life, its listeners, and what the engine asks of all connections. */
#include "control/server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/log.h"
#include "base/random.h"
#include "base/work.h"
#include "control/holder.h"
#include "control/server_internal.h"
#include "net/network.h"
#include "net/secret.h"
#include "net/tls.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

#define BACKLOG    1024
#define ACCEPT_RUN 32 /* of one listener, then others have their turn */

/* For the lock of a socket's folder. */
#define LOCK_TRIES    200
#define LOCK_PAUSE_US 10000

/* Out of memory, or of descriptors in spite of all: look again after this. */
#define ACCEPT_PAUSE_US 100000u

#define SWEEP_INTERVAL_US 1000000u

/* ---- accepting ---- */

static void pause_listener(struct listener *listener)
{
	watch_stop(&listener->accepting);
	watch_start(&listener->resume, ACCEPT_PAUSE_US);
}

int listener_accept(const struct listener *listener, struct stream *stream, union address *from)
{
	int fd;

	if (listener->is_tcp)
		return network->accept(listener->fd, stream, from);
	fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return -errno;
	*stream = (struct stream){.fd = descriptor_note(fd)};
	return 0;
}

/* @return false: it is no use to go on */
static bool accept_one(struct listener *listener)
{
	union address from = {0};
	struct stream stream;
	int rc = listener_accept(listener, &stream, &from);

	work_count(WORK_ITEMS, 1);
	if (rc == 0)
		connection_accept(listener, &stream, &from);
	if (rc == 0 || rc == -ECONNABORTED || rc == -EINTR)
		return true;
	if ((rc == -EMFILE || rc == -ENFILE) && descriptors_free_one(listener))
		return true;
	if (rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS)
		pause_listener(listener);
	return false;
}

static void on_connection(void *arg)
{
	work_begin(WORK_EVENT);
	for (int i = 0; i < ACCEPT_RUN; i++)
		if (!accept_one(arg))
			return;
}

static void on_resume(void *arg)
{
	struct listener *listener = arg;

	watch_start(&listener->accepting, 0);
}

/*
 * Whoever binds and listens at a path of a folder does it with the folder locked: else two targets
 * that start together could each take the other's for what a killed one left. Who may not read the
 * folder, or finds it locked for long, gets no lock and takes nothing over. @return -1: none
 */
static int lock_folder(const char *path)
{
	char folder[ADDRESS_TEXT_MAX];
	int fd;

	strcpy(folder, path);
	strrchr(folder, '/')[1] = '\0';
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
		if (flock(fd, LOCK_EX | LOCK_NB) == 0)
			return fd;
		usleep(LOCK_PAUSE_US);
	}
	if (fd >= 0)
		close(fd);
	return -1;
}

/* A socket file that nobody listens on is what a killed target left. */
static bool is_stale(const struct sockaddr_un *address, socklen_t length)
{
	struct stat stat;
	bool stale;
	int fd;

	if (lstat(address->sun_path, &stat) < 0 || !S_ISSOCK(stat.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)address, length) < 0 && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int bind_socket(int fd, const struct sockaddr_un *address, socklen_t length, bool takes_over)
{
	const struct sockaddr *generic = (const struct sockaddr *)address;

	if (bind(fd, generic, length) == 0)
		return 0;
	if (errno == EADDRINUSE && takes_over && is_stale(address, length) &&
	    unlink(address->sun_path) == 0 && bind(fd, generic, length) == 0)
		return 0;
	return -errno;
}

/* The kernel's table of abstract names and paths knows no text: ours is for people. */
static void describe_path(struct listener *listener, const struct sockaddr_un *address,
			  socklen_t length)
{
	if (address->sun_path[0])
		snprintf(listener->text, sizeof(listener->text), "%.*s",
			 (int)sizeof(address->sun_path), address->sun_path);
	else
		snprintf(listener->text, sizeof(listener->text), "@%.*s",
			 (int)(length - offsetof(struct sockaddr_un, sun_path) - 1),
			 address->sun_path + 1);
}

static int listen_at(struct listener *listener, const struct sockaddr_un *address, socklen_t length,
		     bool takes_over)
{
	mode_t mode = listener->server->options.trust->count ? 0666 : 0600;
	int rc = bind_socket(listener->fd, address, length, takes_over);

	if (rc == -EADDRINUSE)
		return rc; /* by whom is found out when the folder is not locked any more */
	if (rc < 0)
		return fail(rc, "cannot listen at \"%s\": %s", listener->text, strerror(-rc));
	listener->bound = true;
	if (address->sun_path[0])
		chmod(listener->text, mode);
	if (listen(listener->fd, BACKLOG) < 0)
		return fail(-errno, "listen: %s", strerror(errno));
	return 0;
}

/*
 * Clients have no descriptors for us, and whoever closes one last may have to wait for as long as
 * its sender likes (SO_LINGER): they are refused before they come. Older kernels cannot.
 */
static void refuse_descriptors(int fd)
{
	const int none = 0;

	setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &none, sizeof(none)); /* accept() inherits it */
}

static int open_socket(struct listener *listener, const struct sockaddr_un *address,
		       socklen_t length)
{
	int lock = -1, rc;

	listener->fd =
		descriptor_note(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (listener->fd < 0)
		return fail(-errno, "socket: %s", strerror(errno));
	refuse_descriptors(listener->fd);
	describe_path(listener, address, length);
	if (address->sun_path[0])
		lock = lock_folder(listener->text);
	rc = listen_at(listener, address, length, lock >= 0);
	if (lock >= 0)
		close(lock);
	return rc == -EADDRINUSE ? holder_explain(listener->text, address, length,
						  listener->server->options.trust)
				 : rc;
}

/* A host name may stand for several addresses: the first is taken. */
static int open_tcp(struct listener *listener, const char *text, bool insecure)
{
	const uint64_t until_ns = clock_monotonic_ns(NULL) + 5 * NS_PER_SECOND;
	union address addresses[ADDRESSES_MAX];
	struct host_port at;
	int rc = address_parse(text, &at);

	if (rc == 0)
		rc = network->resolve(&at, until_ns, addresses);
	if (rc < 0)
		return rc;
	if (!listener->server->options.tls && !insecure && !address_is_loopback(&addresses[0]))
		return fail(-EPERM,
			    "other hosts could reach %s, and without TLS anybody there would have "
			    "the segments: give --psk or --tls-cert, or --insecure, or listen at "
			    "127.0.0.1",
			    text);
	listener->fd = network->listen(&addresses[0], BACKLOG, &listener->address);
	if (listener->fd < 0)
		return listener->fd;
	address_format(&listener->address, listener->text);
	return 0;
}

static void listener_destroy(struct listener *listener)
{
	watch_stop(&listener->accepting);
	watch_stop(&listener->resume);
	if (listener->bound && listener->text[0] == '/')
		unlink(listener->text);
	if (listener->fd >= 0)
		descriptor_close(listener->fd);
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
	struct loop *loop = control_loop(call->server->options.control);

	watch_init(&listener->accepting, loop, listener->fd, WATCH_READ, on_connection, listener);
	watch_init(&listener->resume, loop, -1, WATCH_ONCE, on_resume, listener);
	if (watch_start(&listener->accepting, 0) < 0)
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

static struct listener *listener_create(struct server *server, bool is_tcp)
{
	struct listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return NULL;
	listener->server = server;
	listener->fd = -1;
	listener->is_tcp = is_tcp;
	return listener;
}

/* @p rc: how opening its socket went. */
static int start_listener(struct listener *listener, int rc, struct listener **out)
{
	struct listen_call call = {.server = listener->server, .listener = listener};

	if (rc == 0 && control_call(listener->server->options.control, add_listener, &call) < 0)
		rc = fail(-ENOMEM, "out of memory");
	if (rc < 0) {
		listener_destroy(listener);
		return rc;
	}
	*out = listener;
	return 0;
}

int server_listen(struct server *server, const struct sockaddr_un *address, socklen_t length,
		  struct listener **out)
{
	struct listener *listener = listener_create(server, false);

	if (!listener)
		return fail(-ENOMEM, "out of memory");
	return start_listener(listener, open_socket(listener, address, length), out);
}

int server_listen_tcp(struct server *server, const char *address, bool insecure,
		      struct listener **out)
{
	struct listener *listener = listener_create(server, true);

	if (!listener)
		return fail(-ENOMEM, "out of memory");
	return start_listener(listener, open_tcp(listener, address, insecure), out);
}

const char *listener_address(const struct listener *listener)
{
	return listener->text;
}

void server_unlisten(struct server *server, struct listener *listener)
{
	struct listen_call call = {.server = server, .listener = listener};

	if (listener)
		control_call(server->options.control, remove_listener, &call);
}

/*
 * A walk over all connections: those that are done go to the end of the list. Where there are very
 * many sessions it is cut into runs, between which the loop serves others.
 */
struct walk_call {
	struct server *server;
	/* @return 1 there is more to do for it; 0 it is done; negative, it has to be closed */
	int (*step)(struct connection *connection, struct sessions_walk *sessions);
	struct sessions_walk sessions;
	uint64_t number;
};

/* What the control thread revokes by itself: a walk of which each run posts the next. */
struct revoking {
	struct control_task task; /* first */
	struct walk_call call;
	bool posted;
	bool again; /* it was asked for once more since */
};

/* ---- life ---- */

static void on_sweep(void *arg)
{
	work_begin(WORK_EVENT);
	connection_sweep(arg);
}

static void add_identity(struct server *server, uid_t uid)
{
	struct identity *identity = &server->identities[server->identity_count++];

	identity->uid = uid;
	credentials_identity(uid, identity->name);
}

static void name_users(struct server *server)
{
	const struct trust *trust = server->options.trust;

	add_identity(server, geteuid());
	add_identity(server, 0);
	for (uint32_t i = 0; i < trust->count; i++) {
		add_identity(server, trust->uids[i]);
		if (credentials_ambiguous(trust->uids[i]))
			log_warning(
				"user %u is allowed, and will be refused all the same: in this "
				"user namespace that number stands for all whom it does not map",
				trust->uids[i]);
	}
}

static uint32_t or_default(uint32_t value, uint32_t initial)
{
	return value ? value : initial;
}

static void take_limits(struct server *server)
{
	struct server_limits *limits = &server->options.limits;

	limits->connections = or_default(limits->connections, SERVER_CONNECTIONS_MAX);
	limits->unauthenticated = or_default(limits->unauthenticated, SERVER_UNAUTHENTICATED_MAX);
	limits->accepts_per_second =
		or_default(limits->accepts_per_second, SERVER_ACCEPTS_PER_SECOND);
	limits->accepts_burst = or_default(limits->accepts_burst, SERVER_ACCEPTS_BURST);
	limits->address_accepts_per_second =
		or_default(limits->address_accepts_per_second, SERVER_ADDRESS_ACCEPTS_PER_SECOND);
	limits->address_accepts_burst =
		or_default(limits->address_accepts_burst, SERVER_ADDRESS_ACCEPTS_BURST);
	limits->known_accepts_per_second =
		or_default(limits->known_accepts_per_second, SERVER_KNOWN_ACCEPTS_PER_SECOND);
	limits->known_accepts_burst =
		or_default(limits->known_accepts_burst, SERVER_KNOWN_ACCEPTS_BURST);
	limits->local_accepts_per_second =
		or_default(limits->local_accepts_per_second, SERVER_LOCAL_ACCEPTS_PER_SECOND);
	limits->local_accepts_burst =
		or_default(limits->local_accepts_burst, SERVER_LOCAL_ACCEPTS_BURST);
	limits->messages_per_second =
		or_default(limits->messages_per_second, SERVER_MESSAGES_PER_SECOND);
	limits->ping_seconds = or_default(limits->ping_seconds, SERVER_PING_SECONDS);
	limits->silence_seconds = or_default(limits->silence_seconds, SERVER_SILENCE_SECONDS);
}

static void on_look_again(void *arg)
{
	work_begin(WORK_EVENT);
	in_flight_look(arg);
}

static int start_sweep(void *arg)
{
	struct server *server = arg;
	struct loop *loop = control_loop(server->options.control);

	watch_init(&server->sweep, loop, -1, WATCH_EVERY, on_sweep, server);
	watch_init(&server->look_again, loop, -1, WATCH_ONCE, on_look_again, server);
	return watch_start(&server->sweep, SWEEP_INTERVAL_US);
}

static void server_free(struct server *server)
{
	if (!server)
		return;
	secret_free(server->master, SECRET_BYTES);
	free(server->revoking);
	free(server);
}

int server_create(const struct server_options *options, struct server **out)
{
	struct server *server = calloc(1, sizeof(*server));
	uint64_t word;

	if (server) {
		server->revoking = calloc(1, sizeof(*server->revoking));
		server->master = secret_alloc(SECRET_BYTES);
	}
	if (!server || !server->revoking || !server->master) {
		server_free(server);
		return fail(-ENOMEM, "out of memory");
	}
	server->options = *options;
	LIST_INIT(&server->listeners);
	TAILQ_INIT(&server->strangers);
	TAILQ_INIT(&server->connections);
	TAILQ_INIT(&server->closing);
	TAILQ_INIT(&server->heard);
	TAILQ_INIT(&server->pinged);
	TAILQ_INIT(&server->throttled);
	server->silence.run = connection_silence;
	TAILQ_INIT(&server->in_flight);
	origins_init(&server->origins, random_word());
	server->spare_fd = -1;
	descriptors_look(server);
	sessions_init(server);
	take_limits(server);
	for (size_t at = 0; at < SECRET_BYTES; at += sizeof(word)) {
		word = random_word();
		memcpy(server->master + at, &word, sizeof(word));
	}
	name_users(server);
	boot_id_read(server->boot_id);
	if (control_call(options->control, start_sweep, server) < 0) {
		server_destroy(server);
		return fail(-ENOMEM, "out of memory");
	}
	*out = server;
	return 0;
}

static int end_all(void *arg)
{
	struct server *server = arg;
	struct connection *connection;
	struct listener *listener;

	while ((connection = TAILQ_FIRST(&server->connections)))
		connection_close(connection);
	while ((connection = TAILQ_FIRST(&server->strangers)))
		connection_close(connection);
	while ((connection = TAILQ_FIRST(&server->closing)))
		connection_close(connection);
	in_flight_forget_all(server);
	while (sessions_end_parted(server))
		;
	server->revoking->again = false;
	while ((listener = LIST_FIRST(&server->listeners))) {
		LIST_REMOVE(listener, link);
		listener_destroy(listener);
	}
	watch_stop(&server->sweep);
	watch_stop(&server->look_again);
	return 0;
}

static int nothing(void *arg)
{
	(void)arg;
	return 0;
}

void server_destroy(struct server *server)
{
	if (!server)
		return;
	control_call(server->options.control, end_all, server);
	if (server->spare_fd >= 0)
		close(server->spare_fd);
	control_call(server->options.control, nothing, NULL); /* what was posted has run */
	server_free(server);
}

/* ---- what the engine asks ---- */

/* @return false: there is none left */
static bool walk_one(struct walk_call *call)
{
	struct server *server = call->server;
	struct connection *connection = TAILQ_FIRST(&server->connections);
	int rc;

	if (!connection || connection->walked == call->number)
		return false;
	work_count(WORK_ITEMS, 1);
	call->sessions.left--;
	rc = call->step(connection, &call->sessions);
	if (rc == 0) {
		connection->walked = call->number;
		TAILQ_REMOVE(&server->connections, connection, link);
		TAILQ_INSERT_TAIL(&server->connections, connection, link);
	} else if (rc < 0) {
		connection_close_politely(connection);
	}
	return true;
}

/* Whose connection ended meanwhile is over when the walk is. @return 1 there is more */
static int end_walk(struct walk_call *call)
{
	if (call->sessions.ends && sessions_end_parted(call->server))
		return 1;
	call->server->walk = NULL;
	return 0;
}

/* @return 1 there is more, or another goes on: the caller comes again */
static int walk_some(void *arg)
{
	struct walk_call *call = arg;
	struct server *server = call->server;

	if (server->walk && server->walk != call)
		return 1;
	if (!server->walk)
		call->number = ++server->last_walk;
	server->walk = call;
	call->sessions.left = SESSIONS_WALK_RUN;
	while (call->sessions.left > 0)
		if (!walk_one(call))
			return end_walk(call);
	return 1;
}

static void walk(struct walk_call *call)
{
	while (control_call(call->server->options.control, walk_some, call) > 0)
		;
}

static void walk_sessions(struct server *server, struct sessions_walk sessions)
{
	struct walk_call call = {.server = server, .step = sessions_walk, .sessions = sessions};

	walk(&call);
}

void server_dismiss(struct server *server, bool (*which)(void *client, void *arg), void *arg)
{
	walk_sessions(server,
		      (struct sessions_walk){
			      .which = which, .arg = arg, .tells = true, .error = -ESHUTDOWN});
}

static int begin_draining(void *arg)
{
	struct server *server = arg;
	struct connection *connection;

	server->draining = true;
	while ((connection = TAILQ_FIRST(&server->strangers)))
		connection_close(connection);
	return 0;
}

static int tell_all(struct connection *connection, struct sessions_walk *sessions)
{
	return sessions_tell_all(connection, sessions->error);
}

void server_drain(struct server *server)
{
	struct walk_call call = {.server = server, .step = tell_all, .sessions.error = -ESHUTDOWN};

	control_call(server->options.control, begin_draining, server);
	walk(&call);
}

void server_drop(struct server *server, bool (*which)(void *client, void *arg), void *arg)
{
	walk_sessions(server, (struct sessions_walk){.which = which, .arg = arg, .ends = true});
}

void server_revoke(struct server *server, bool (*which)(void *client, void *arg), void *arg,
		   int error)
{
	walk_sessions(
		server,
		(struct sessions_walk){
			.which = which, .arg = arg, .tells = true, .error = error, .ends = true});
}

static void on_revoking(struct control_task *task)
{
	struct revoking *revoking = (struct revoking *)task;
	bool more = walk_some(&revoking->call) > 0;

	revoking->posted = more || revoking->again;
	revoking->again &= more;
	if (revoking->posted)
		control_post(revoking->call.server->options.control, task);
}

void server_revoke_soon(struct server *server, bool (*which)(void *client, void *arg), void *arg,
			int error)
{
	struct revoking *revoking = server->revoking;

	revoking->again = revoking->posted;
	if (revoking->posted)
		return;
	revoking->posted = true;
	revoking->task.run = on_revoking;
	revoking->call = (struct walk_call){
		.server = server,
		.step = sessions_walk,
		.sessions = {
			.which = which, .arg = arg, .tells = true, .error = error, .ends = true}};
	control_post(server->options.control, &revoking->task);
}

/* To look at a certificate takes a tenth of a millisecond. */
#define VALIDITY_COST 64

static int end_if_invalid(struct connection *connection, struct sessions_walk *sessions)
{
	int rc = connection_still_valid(connection);

	sessions->left -= VALIDITY_COST;
	return rc < 0 ? connection_disown(connection, rc) : 0;
}

/* If it is known who they are; a handshake that goes on is looked at when it is through. */
static int end_invalid_strangers(void *arg)
{
	struct server *server = arg;
	struct connection *connection, *next;

	for (connection = TAILQ_FIRST(&server->strangers); connection; connection = next) {
		next = TAILQ_NEXT(connection, link);
		if ((connection->state != CONNECTION_NEW &&
		     connection->state != CONNECTION_PROVING) ||
		    connection_still_valid(connection) == 0)
			continue;
		connection_suspect(connection);
		connection_close(connection);
	}
	return 0;
}

int server_reload_tls(struct server *server)
{
	struct walk_call call = {.server = server, .step = end_if_invalid};
	int rc;

	if (!server->options.tls)
		return 0;
	rc = tls_reload(server->options.tls);
	if (rc < 0)
		return rc;
	control_call(server->options.control, end_invalid_strangers, server);
	walk(&call);
	return 0;
}

uint32_t server_session_count(const struct server *server)
{
	return atomic_load(&server->session_count);
}

uint32_t server_connection_count(const struct server *server)
{
	return atomic_load(&server->connection_count);
}
