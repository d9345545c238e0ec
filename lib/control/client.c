/* SPDX-License-Identifier: Apache-2.0 */
#include "control/client.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/transport.h"

static const struct timeval report_interval = {.tv_sec = 1};

struct client {
	int fd;
	struct message_reader reader;

	/* Once watched; the control thread's. */
	struct control_thread *control;
	const struct client_callbacks *callbacks;
	void *arg;
	struct event *event;
	struct event *timer;
	struct client_totals reported;

	/* A question about usage, between its asker and the control thread. */
	pthread_mutex_t lock;
	pthread_cond_t answered;
	bool asking;
	int answer; /* 0, or why there is none */
	uint64_t cpu_ns;
};

/* ---- handshake: on the caller's thread ---- */

static int wait_readable(int fd, uint64_t until_ns)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};

	for (;;) {
		uint64_t now = clock_monotonic_ns(NULL);
		int rc = poll(&readable, 1,
			      now < until_ns ? (int)((until_ns - now) / 1000000) + 1 : 0);

		if (rc > 0)
			return 0;
		if (rc == 0)
			return fail(-ETIMEDOUT, "the target did not answer in time");
		if (errno != EINTR)
			return fail(-errno, "poll: %s", strerror(errno));
	}
}

static int refused(const json_t *message)
{
	const char *text = json_string_value(json_object_get(message, "text"));
	int error = (int)json_integer_value(json_object_get(message, "error"));

	if (!text || error <= 0 || error > 4095)
		return fail(-EPROTO, "the target refused without a reason");
	return fail(-error, "the target refused: %s", text);
}

static int receive(struct client *client, const char *type, uint64_t until_ns, json_t **out)
{
	json_t *message;
	int rc;

	while ((rc = message_read(&client->reader, client->fd, &message)) == 0) {
		rc = wait_readable(client->fd, until_ns);
		if (rc < 0)
			return rc;
	}
	if (rc == -ECONNRESET)
		return fail(rc, "the target closed the connection during the handshake");
	if (rc < 0)
		return rc;
	if (strcmp(message_type(message), type) == 0) {
		*out = message;
		return 0;
	}
	if (strcmp(message_type(message), "refused") == 0)
		rc = refused(message);
	else
		rc = fail(-EPROTO, "the target said \"%.32s\" where \"%s\" was due",
			  message_type(message), type);
	json_decref(message);
	return rc;
}

static int send_hello(struct client *client, const struct client_request *request)
{
	return message_write_new(client->fd,
				 json_pack("{s:s, s:[i,i], s:s}", "type", "hello", "versions",
					   MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH, "name",
					   request->name),
				 NULL, 0);
}

static int parse_welcome(const json_t *message, struct client_grant *grant)
{
	const char *name, *incarnation;
	int version, pid;

	if (json_unpack((json_t *)message, "{s:i, s:s, s:s, s:i}", "version", &version, "name",
			&name, "incarnation", &incarnation, "pid", &pid) < 0 ||
	    sscanf(incarnation, "%16" SCNx64, &grant->incarnation) != 1)
		return fail(-EPROTO, "the target's welcome is incomplete");
	if (version < MESSAGE_VERSION_LOW || version > MESSAGE_VERSION_HIGH)
		return fail(-EPROTONOSUPPORT,
			    "the target chose protocol version %d, we speak %d to %d", version,
			    MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH);
	strncpy(grant->target, name, SLU_NAME_MAX);
	return 0;
}

static int greet(struct client *client, const struct client_request *request, uint64_t until_ns,
		 struct client_grant *grant)
{
	json_t *message;
	int rc = send_hello(client, request);

	/* A target that refuses us at once may have closed already: what it said is still there. */
	if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET)
		return fail(rc, "cannot talk to the target: %s", strerror(-rc));
	rc = receive(client, "welcome", until_ns, &message);
	if (rc < 0)
		return rc;
	rc = parse_welcome(message, grant);
	json_decref(message);
	return rc;
}

static json_t *transports_wanted(enum slu_transport transport)
{
	return json_pack("[s]",
			 slu_transport_name(transport == SLU_TRANSPORT_AUTO ? SLU_TRANSPORT_SHM
									    : transport));
}

static int parse_opened(struct client_grant *grant)
{
	json_int_t length, page_bytes, rights;
	const char *transport;
	json_t *details;

	if (json_unpack(grant->opened, "{s:s, s:I, s:I, s:I, s:i, s:o}", "transport", &transport,
			"length", &length, "rights", &rights, "page_bytes", &page_bytes, "node",
			&grant->node, "grant", &details) < 0 ||
	    length <= 0 || !json_is_object(details))
		return fail(-EPROTO, "the target's answer to open is incomplete");
	grant->transport = (enum slu_transport)transport_parse(transport);
	grant->length = (uint64_t)length;
	grant->page_bytes = (uint64_t)page_bytes;
	return 0;
}

static int open_segment(struct client *client, const struct client_request *request,
			uint64_t until_ns, struct client_grant *grant)
{
	json_t *transports = transports_wanted(request->transport);
	int rc = message_write_new(client->fd,
				   json_pack("{s:s, s:s, s:i, s:o}", "type", "open", "segment",
					     request->segment, "rights", (int)request->rights,
					     "transports", transports),
				   NULL, 0);

	if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET)
		return fail(rc, "cannot talk to the target: %s", strerror(-rc));
	rc = receive(client, "opened", until_ns, &grant->opened);
	if (rc < 0)
		return rc;
	grant->fd_count = client->reader.fd_count;
	memcpy(grant->fds, client->reader.fds, sizeof(grant->fds));
	client->reader.fd_count = 0;
	return parse_opened(grant);
}

static int connect_socket(struct client *client, const struct client_request *request)
{
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (client->fd < 0)
		return fail(-errno, "socket: %s", strerror(errno));
	if (connect(client->fd, (const struct sockaddr *)&request->address,
		    request->address_length) == 0)
		return 0;
	if (errno == ECONNREFUSED || errno == ENOENT)
		return fail(
			-ECONNREFUSED,
			"no target listens at %s: start one with sluice-target --segment %s=SIZE",
			request->described, request->segment);
	if (errno == EAGAIN)
		return fail(-ECONNREFUSED,
			    "the target at %s is overrun with connections; try again",
			    request->described);
	return fail(-errno, "cannot connect to %s: %s", request->described, strerror(errno));
}

static int shake_hands(struct client *client, const struct client_request *request,
		       struct client_grant *grant)
{
	uint64_t until_ns = clock_monotonic_ns(NULL) + request->timeout_us * NS_PER_US;
	pid_t pid;
	int rc = connect_socket(client, request);

	if (rc == 0)
		rc = credentials_check(client->fd, request->trust, &pid);
	if (rc == 0)
		rc = greet(client, request, until_ns, grant);
	if (rc == 0) {
		grant->pid = pid; /* in our own PID namespace, or 0 */
		rc = open_segment(client, request, until_ns, grant);
	}
	return rc;
}

int client_open(const struct client_request *request, struct client **out,
		struct client_grant *grant)
{
	struct client *client = calloc(1, sizeof(*client));
	int rc;

	if (!client)
		return fail(-ENOMEM, "out of memory");
	memset(grant, 0, sizeof(*grant));
	client->fd = -1;
	client->reader.takes_fds = true;
	pthread_mutex_init(&client->lock, NULL);
	pthread_cond_init(&client->answered, NULL);
	rc = shake_hands(client, request, grant);
	if (rc < 0) {
		client_grant_free(grant);
		client_close(client);
		return rc;
	}
	*out = client;
	return 0;
}

void client_grant_free(struct client_grant *grant)
{
	for (uint32_t i = 0; i < grant->fd_count; i++)
		close(grant->fds[i]);
	grant->fd_count = 0;
	json_decref(grant->opened);
	grant->opened = NULL;
}

/* ---- watched: on the control thread ---- */

static void answer(struct client *client, int result, uint64_t cpu_ns)
{
	pthread_mutex_lock(&client->lock);
	if (client->asking) {
		client->asking = false;
		client->answer = result;
		client->cpu_ns = cpu_ns;
		pthread_cond_broadcast(&client->answered);
	}
	pthread_mutex_unlock(&client->lock);
}

static int report_moved(struct client *client)
{
	struct client_totals now = {0};

	client->callbacks->totals(client->arg, &now);
	if (memcmp(&now, &client->reported, sizeof(now)) == 0)
		return 0;
	client->reported = now;
	return message_write_new(client->fd,
				 json_pack("{s:s, s:I, s:I, s:I}", "type", "moved", "operations",
					   (json_int_t)now.operations, "bytes_read",
					   (json_int_t)now.bytes_read, "bytes_written",
					   (json_int_t)now.bytes_written),
				 NULL, 0);
}

static void say_bye(struct client *client)
{
	if (report_moved(client) == 0)
		message_write_new(client->fd, json_pack("{s:s}", "type", "bye"), NULL, 0);
}

static void stop_watching(struct client *client)
{
	if (client->event)
		event_free(client->event);
	if (client->timer)
		event_free(client->timer);
	client->event = NULL;
	client->timer = NULL;
}

static void lose(struct client *client, int error)
{
	client->callbacks->lost(client->arg, error);
	if (error == -ESHUTDOWN)
		say_bye(client);
	stop_watching(client);
	close(client->fd);
	client->fd = -1;
	answer(client, error, 0);
}

static int dispatch(struct client *client, const json_t *message)
{
	if (strcmp(message_type(message), "closing") == 0)
		return -ESHUTDOWN;
	if (strcmp(message_type(message), "usage") == 0) {
		const json_t *cpu_ns = json_object_get(message, "cpu_ns");

		answer(client, 0, (uint64_t)json_integer_value(cpu_ns));
		return 0;
	}
	return fail(-EPROTO, "the target said \"%.32s\" out of turn", message_type(message));
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct client *client = arg;
	json_t *message;
	int rc;

	(void)what;
	while ((rc = message_read(&client->reader, fd, &message)) > 0) {
		rc = dispatch(client, message);
		json_decref(message);
		if (rc < 0)
			break;
	}
	if (rc == -EPROTO)
		log_error("a session ends: %s", slu_last_error());
	if (rc < 0)
		lose(client, rc == -ESHUTDOWN ? rc : -ECONNRESET);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	report_moved(arg);
}

static int start_watching(void *arg)
{
	struct client *client = arg;
	struct event_base *base = control_base(client->control);

	client->event = event_new(base, client->fd, EV_READ | EV_PERSIST, on_readable, client);
	client->timer = event_new(base, -1, EV_PERSIST, on_timer, client);
	if (client->event && client->timer && event_add(client->event, NULL) == 0 &&
	    event_add(client->timer, &report_interval) == 0)
		return 0;
	stop_watching(client);
	return fail(-ENOMEM, "out of memory");
}

int client_watch(struct client *client, struct control_thread *control,
		 const struct client_callbacks *callbacks, void *arg)
{
	client->control = control;
	client->callbacks = callbacks;
	client->arg = arg;
	return control_call(control, start_watching, client) < 0 ? fail(-ENOMEM, "out of memory") : 0;
}

static int end_watching(void *arg)
{
	struct client *client = arg;

	if (client->fd >= 0 && client->event)
		say_bye(client);
	stop_watching(client);
	return 0;
}

void client_close(struct client *client)
{
	if (!client)
		return;
	if (client->control)
		control_call(client->control, end_watching, client);
	if (client->fd >= 0)
		close(client->fd);
	message_reader_reset(&client->reader);
	pthread_cond_destroy(&client->answered);
	pthread_mutex_destroy(&client->lock);
	free(client);
}

static int ask_usage(void *arg)
{
	struct client *client = arg;

	if (client->fd < 0)
		return -ECONNRESET;
	return message_write_new(client->fd, json_pack("{s:s}", "type", "usage"), NULL, 0);
}

int client_usage(struct client *client, uint64_t timeout_us, uint64_t *cpu_ns)
{
	struct timespec until;
	int rc;

	pthread_mutex_lock(&client->lock);
	client->asking = true;
	client->answer = -ETIMEDOUT;
	pthread_mutex_unlock(&client->lock);
	rc = control_call(client->control, ask_usage, client);
	if (rc < 0)
		return fail(rc, "cannot ask the target: %s", slu_strerror(rc));
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(timeout_us / 1000000);
	until.tv_nsec += (long)(timeout_us % 1000000) * 1000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&client->lock);
	while (client->asking &&
	       pthread_cond_timedwait(&client->answered, &client->lock, &until) == 0)
		;
	client->asking = false;
	rc = client->answer;
	*cpu_ns = rc == 0 ? client->cpu_ns : *cpu_ns;
	pthread_mutex_unlock(&client->lock);
	return rc < 0 ? fail(rc, "the target did not answer: %s", slu_strerror(rc)) : 0;
}
