/* SPDX-License-Identifier: Apache-2.0 */
#include "net/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/log.h"
#include "net/network.h"

/* ---- text ---- */

static int bad_address(const char *text)
{
	return fail(-EINVAL, "\"%.280s\" is no address: HOST:PORT or [IPV6]:PORT is one", text);
}

static int parse_port(const char *text, uint16_t *port)
{
	unsigned long value = 0;

	if (!*text || strlen(text) > 5)
		return -EINVAL;
	for (const char *c = text; *c; c++) {
		if (*c < '0' || *c > '9')
			return -EINVAL;
		value = value * 10 + (unsigned long)(*c - '0');
	}
	if (value > UINT16_MAX)
		return -EINVAL;
	*port = (uint16_t)value;
	return 0;
}

static bool host_is_sane(const char *host)
{
	for (const char *c = host; *c; c++)
		if (*c <= ' ' || *c >= 0x7f || strchr("/[]@", *c))
			return false;
	return true;
}

int address_parse(const char *text, struct host_port *at)
{
	const char *end = strrchr(text, ':');
	const char *begin = text;
	struct host_port parsed = {0};
	size_t length;

	if (!end || parse_port(end + 1, &parsed.port) < 0)
		return bad_address(text);
	if (*begin == '[') {
		begin++;
		end--;
		if (end <= begin || *end != ']')
			return bad_address(text);
	}
	length = (size_t)(end - begin);
	if (length == 0 || length > HOST_MAX)
		return bad_address(text);
	memcpy(parsed.host, begin, length);
	if (!host_is_sane(parsed.host) || (begin == text && strchr(parsed.host, ':')))
		return bad_address(text);
	*at = parsed;
	return 0;
}

bool address_is_loopback(const union address *address)
{
	const struct in6_addr *v6 = &address->v6.sin6_addr;

	if (address->any.sa_family == AF_INET)
		return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
}

bool address_is_any(const union address *address)
{
	if (address->any.sa_family == AF_INET)
		return address->v4.sin_addr.s_addr == htonl(INADDR_ANY);
	return IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr);
}

uint16_t address_port(const union address *address)
{
	return ntohs(address->any.sa_family == AF_INET ? address->v4.sin_port
						       : address->v6.sin6_port);
}

void address_format(const union address *address, char text[ADDRESS_TEXT_MAX])
{
	char host[INET6_ADDRSTRLEN] = "?";

	if (address->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &address->v4.sin_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT_MAX, "%s:%u", host, address_port(address));
	} else {
		inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host));
		snprintf(text, ADDRESS_TEXT_MAX, "[%s]:%u", host, address_port(address));
	}
}

void endpoint_format(const struct endpoint *endpoint, char text[ADDRESS_TEXT_MAX])
{
	const struct sockaddr_un *path = &endpoint->path;
	bool v6 = strchr(endpoint->tcp.host, ':');

	if (!endpoint->is_unix)
		snprintf(text, ADDRESS_TEXT_MAX, v6 ? "tcp:[%s]:%u" : "tcp:%s:%u",
			 endpoint->tcp.host, endpoint->tcp.port);
	else if (path->sun_path[0])
		snprintf(text, ADDRESS_TEXT_MAX, "unix:%.*s", (int)sizeof(path->sun_path),
			 path->sun_path);
	else
		snprintf(text, ADDRESS_TEXT_MAX, "unix:@%.*s",
			 (int)(endpoint->path_length - offsetof(struct sockaddr_un, sun_path) - 1),
			 path->sun_path + 1);
}

bool endpoint_equal(const struct endpoint *one, const struct endpoint *other)
{
	if (one->is_unix != other->is_unix)
		return false;
	if (one->is_unix)
		return one->path_length == other->path_length &&
		       memcmp(&one->path, &other->path, one->path_length) == 0;
	return one->tcp.port == other->tcp.port && strcmp(one->tcp.host, other->tcp.host) == 0;
}

/* ---- looking up ---- */

/*
 * The system's resolver knows no deadline: a thread asks it, and is left to itself when the time is
 * up. The one of the two who leaves last frees the question.
 */
struct lookup {
	pthread_mutex_t lock;
	pthread_cond_t done;
	char host[HOST_MAX + 1];
	char port[6];
	bool answered;
	bool abandoned;
	int error; /* of getaddrinfo */
	struct addrinfo *found;
};

static void lookup_free(struct lookup *lookup)
{
	if (lookup->found)
		freeaddrinfo(lookup->found);
	pthread_cond_destroy(&lookup->done);
	pthread_mutex_destroy(&lookup->lock);
	free(lookup);
}

static int look_up(const char *host, const char *port, int flags, struct addrinfo **found)
{
	const struct addrinfo hints = {.ai_family = AF_UNSPEC,
				       .ai_socktype = SOCK_STREAM,
				       .ai_flags = AI_NUMERICSERV | flags};

	return getaddrinfo(host, port, &hints, found);
}

static void *lookup_main(void *arg)
{
	struct lookup *lookup = arg;
	struct addrinfo *found = NULL;
	int error = look_up(lookup->host, lookup->port, 0, &found);
	bool abandoned;

	pthread_mutex_lock(&lookup->lock);
	lookup->error = error;
	lookup->found = error ? NULL : found;
	lookup->answered = true;
	abandoned = lookup->abandoned;
	pthread_cond_signal(&lookup->done);
	pthread_mutex_unlock(&lookup->lock);
	if (abandoned)
		lookup_free(lookup);
	return NULL;
}

static struct lookup *lookup_start(const struct host_port *at)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	pthread_attr_t detached;
	pthread_t thread;
	int error;

	if (!lookup)
		return NULL;
	strcpy(lookup->host, at->host);
	snprintf(lookup->port, sizeof(lookup->port), "%u", at->port);
	pthread_mutex_init(&lookup->lock, NULL);
	condition_init(&lookup->done);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &detached, lookup_main, lookup);
	pthread_attr_destroy(&detached);
	if (error) {
		lookup_free(lookup);
		return NULL;
	}
	return lookup;
}

/* Takes the answer out; @p lookup is gone afterwards. @return error of getaddrinfo, -ETIMEDOUT */
static int lookup_wait(struct lookup *lookup, uint64_t until_ns, struct addrinfo **found)
{
	bool answered;
	int error;

	pthread_mutex_lock(&lookup->lock);
	while (!lookup->answered && condition_wait(&lookup->done, &lookup->lock, until_ns))
		;
	answered = lookup->answered;
	lookup->abandoned = !answered;
	error = answered ? lookup->error : -ETIMEDOUT;
	*found = answered ? lookup->found : NULL;
	lookup->found = NULL;
	pthread_mutex_unlock(&lookup->lock);
	if (answered)
		lookup_free(lookup);
	return error;
}

static int take_addresses(const struct addrinfo *found, union address out[ADDRESSES_MAX])
{
	int count = 0;

	for (const struct addrinfo *a = found; a && count < ADDRESSES_MAX; a = a->ai_next)
		if ((a->ai_family == AF_INET || a->ai_family == AF_INET6) &&
		    a->ai_addrlen <= sizeof(out[0]))
			memcpy(&out[count++], a->ai_addr, a->ai_addrlen);
	return count;
}

static int lookup_failed(const char *host, int error)
{
	if (error == -ETIMEDOUT)
		return fail(-ETIMEDOUT, "the name server did not answer in time for host \"%s\"",
			    host);
	if (error == EAI_MEMORY)
		return fail(-ENOMEM, "out of memory");
	return fail(-EADDRNOTAVAIL,
		    "host \"%s\" is not known (%s): check the name, or give its address", host,
		    error ? gai_strerror(error) : "it has no IP address");
}

int address_resolve(const struct host_port *at, uint64_t until_ns, union address out[ADDRESSES_MAX])
{
	struct addrinfo *found = NULL;
	struct lookup *lookup;
	char port[6];
	int error, count;

	snprintf(port, sizeof(port), "%u", at->port);
	error = look_up(at->host, port, AI_NUMERICHOST, &found); /* asks nobody */
	if (error == EAI_NONAME) {
		lookup = lookup_start(at);
		if (!lookup)
			return fail(-ENOMEM, "out of memory");
		error = lookup_wait(lookup, until_ns, &found);
	}
	count = error ? 0 : take_addresses(found, out);
	if (found)
		freeaddrinfo(found);
	return count > 0 ? count : lookup_failed(at->host, error);
}

/* ---- sockets ---- */

static socklen_t length_of(const union address *address)
{
	return address->any.sa_family == AF_INET ? sizeof(address->v4) : sizeof(address->v6);
}

/* No delay for small segments, and a peer that is silent for 20 s is dead. */
static void tune(int fd)
{
	const int on = 1, idle_seconds = 10, interval_seconds = 3, probes = 3;
	const unsigned unacknowledged_ms = 20000;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof(idle_seconds));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_seconds, sizeof(interval_seconds));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms,
		   sizeof(unacknowledged_ms));
}

static int begin_connect(const union address *address, struct stream *stream)
{
	int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, &address->any, length_of(address)) < 0 && errno != EINPROGRESS &&
	    errno != EINTR) {
		rc = -errno;
		close(fd);
		return rc;
	}
	tune(fd);
	*stream = (struct stream){.fd = descriptor_note(fd)};
	return 0;
}

static int look_connected(struct stream *stream)
{
	struct pollfd writable = {.fd = stream->fd, .events = POLLOUT};
	socklen_t length = sizeof(int);
	int error = 0;

	if (poll(&writable, 1, 0) == 0)
		return -EINPROGRESS;
	if (getsockopt(stream->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
		return -errno;
	return -error;
}

static int accept_tcp(int listener, struct stream *stream, union address *from)
{
	socklen_t length = sizeof(*from);
	int fd = accept4(listener, &from->any, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return -errno;
	tune(fd);
	*stream = (struct stream){.fd = descriptor_note(fd)};
	return 0;
}

static int connect_failed(const union address *address, int error)
{
	char text[ADDRESS_TEXT_MAX];

	address_format(address, text);
	switch (error) {
	case -ECONNREFUSED:
		return fail(error, "no target listens at %s: start one with sluice-target --listen",
			    text);
	case -EHOSTUNREACH:
	case -ENETUNREACH:
		return fail(-EHOSTUNREACH,
			    "there is no way to %s: check the address, routes and firewalls", text);
	case -ETIMEDOUT:
		return fail(error,
			    "%s did not answer in time: check the address, firewalls, and that the "
			    "host is up",
			    text);
	default:
		return fail(error, "cannot connect to %s: %s", text, strerror(-error));
	}
}

/* An address that swallows everything leaves time for the others. */
static int try_next(struct dial *dial, struct stream *stream)
{
	uint64_t now = clock_monotonic_ns(NULL);
	uint64_t left = dial->until_ns > now ? dial->until_ns - now : 0;

	dial->wake_ns = now + left / (uint64_t)(dial->count - dial->next);
	return network->connect(&dial->addresses[dial->next], stream);
}

int dial_advance(struct dial *dial, struct stream *stream)
{
	for (;;) {
		int rc = stream->fd < 0 ? try_next(dial, stream) : 0;

		if (rc == 0)
			rc = network->connected(stream);
		if (rc == 0)
			return 1;
		if (rc == -EINPROGRESS && clock_monotonic_ns(NULL) < dial->wake_ns)
			return 0;
		stream_close(stream);
		if (++dial->next < dial->count)
			continue;
		return connect_failed(&dial->addresses[dial->next - 1],
				      rc == -EINPROGRESS ? -ETIMEDOUT : rc);
	}
}

static int listen_failed(const union address *address, int error)
{
	char text[ADDRESS_TEXT_MAX];

	address_format(address, text);
	switch (error) {
	case -EADDRINUSE:
		return fail(error,
			    "port %u is taken at %s: choose another port, or 0 for a free one, or "
			    "stop the process that has it (ss -ltnp)",
			    address_port(address), text);
	case -EADDRNOTAVAIL:
		return fail(error, "%s is not an address of this host: see ip address", text);
	case -EACCES:
		return fail(error, "may not listen at %s: ports below 1024 belong to root", text);
	default:
		return fail(error, "cannot listen at %s: %s", text, strerror(-error));
	}
}

int address_listen(const union address *address, int backlog, union address *bound)
{
	const int on = 1;
	socklen_t length = sizeof(*bound);
	int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return listen_failed(address, -errno);
	/* A port whose old connections are in TIME_WAIT is free; one that is listened at is not. */
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, &address->any, length_of(address)) == 0 && listen(fd, backlog) == 0 &&
	    getsockname(fd, &bound->any, &length) == 0)
		return descriptor_note(fd);
	rc = listen_failed(address, -errno);
	close(fd);
	return rc;
}

static const struct network kernel = {.resolve = address_resolve,
				      .listen = address_listen,
				      .accept = accept_tcp,
				      .connect = begin_connect,
				      .connected = look_connected};

const struct network *network = &kernel;
