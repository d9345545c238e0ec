/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/random.h"
#include "control/loop.h"
#include "engine/engine_internal.h"
#include "net/network.h"
#include "transport/repair.h"

#define ENGINES_MAX     8u
#define WATCHES_MAX     4096u
#define LISTENERS_MAX   8u
#define CONNECTIONS_MAX 256u
#define WINDOW_BYTES    65536u /* on their way, of one direction */
#define RETRY_NS        50000u
#define NAP_NS          1000000u /* a poller with requests looks that often */
#define FIRST_BYTES     4u       /* come together: a target looks at them to tell TLS */

/* Bytes that one end has sent and the other has not received. */
struct chunk {
	uint64_t due_ns;
	size_t length, delivered;
	TAILQ_ENTRY(chunk) link;
	char bytes[];
};

struct direction {
	TAILQ_HEAD(, chunk) chunks;
	uint64_t last_due_ns;
	size_t bytes;
	bool ended; /* no more is sent */
	bool told;  /* and the receiver knows */
};

struct connection {
	uint64_t number;
	int near, far; /* our halves: of who connected, and of who accepted */
	int accepted;  /* its half, until it is taken; -1 */
	struct direction out, back;
};

struct port {
	union address address;
	int fd;   /* an eventfd: a semaphore of those who wait */
	int ours; /* the same; fd may be closed */
};

struct timer {
	struct watch *watch;
	uint64_t due_ns; /* of a timer */
	uint64_t every_ns;
	bool triggered;
};

static struct {
	struct world_options options;
	struct random random, work;
	uint64_t now_ns;
	uint64_t hash;
	struct world_counts counts;
	struct slu_engine *engines[ENGINES_MAX];
	uint32_t engine_count;
	struct timer watches[WATCHES_MAX];
	uint32_t watch_count;
	struct port ports[LISTENERS_MAX];
	uint32_t port_count;
	struct connection *connections[CONNECTIONS_MAX];
	uint32_t connection_count;
} world;

/* ---- history ---- */

void world_note(uint64_t what)
{
	world.hash = (world.hash ^ what) * UINT64_C(0x100000001b3);
	world.hash ^= world.hash >> 29;
}

static void note_bytes(uint64_t number, const char *bytes, size_t length)
{
	world_note(world.now_ns);
	world_note(number);
	for (size_t i = 0; i < length; i++)
		world_note((unsigned char)bytes[i]);
}

/* ---- time and chance ---- */

static uint64_t virtual_now(void)
{
	return world.now_ns;
}

static int seeded(void *bytes, size_t count, bool waits)
{
	(void)waits;
	for (size_t i = 0; i < count; i++)
		((uint8_t *)bytes)[i] = (uint8_t)random_next(&world.random);
	return 0;
}

uint64_t world_now_ns(void)
{
	return world.now_ns;
}

uint64_t world_chance(uint64_t bound)
{
	return random_below(&world.work, bound);
}

const struct world_counts *world_counts(void)
{
	return &world.counts;
}

/* ---- loops ---- */

static int loop_open(struct loop **loop)
{
	*loop = malloc(1); /* who it is */
	return *loop ? 0 : -ENOMEM;
}

static void loop_close(struct loop *loop)
{
	free(loop);
}

static void loop_nothing(struct loop *loop)
{
	(void)loop;
}

static struct timer *watch_find(const struct watch *watch)
{
	for (uint32_t i = 0; i < world.watch_count; i++)
		if (world.watches[i].watch == watch)
			return &world.watches[i];
	return NULL;
}

static void on_init(struct watch *watch)
{
	assert(!watch_find(watch));
}

static int on_start(struct watch *watch, uint64_t after_us)
{
	struct timer *timer = watch_find(watch);

	if (!timer) {
		assert(world.watch_count < WATCHES_MAX);
		timer = &world.watches[world.watch_count++];
	}
	*timer = (struct timer){.watch = watch,
				.due_ns = watch->fd < 0 ? world.now_ns + after_us * NS_PER_US : 0,
				.every_ns = after_us * NS_PER_US};
	return 0;
}

static void on_stop(struct watch *watch)
{
	struct timer *timer = watch_find(watch);

	if (timer)
		*timer = world.watches[--world.watch_count];
}

static void on_trigger(struct watch *watch)
{
	struct timer *timer = watch_find(watch);

	if (timer)
		timer->triggered = true;
}

static bool is_ready(const struct timer *timer)
{
	struct pollfd fd = {.fd = timer->watch->fd,
			    .events = timer->watch->kind == WATCH_READ ? POLLIN : POLLOUT};

	if (timer->triggered)
		return true;
	return fd.fd < 0 ? timer->due_ns <= world.now_ns : poll(&fd, 1, 0) > 0;
}

/* @return was it ready? */
static bool run_watch(uint32_t index)
{
	struct timer *timer = &world.watches[index];
	struct watch *watch = timer->watch;

	if (!is_ready(timer))
		return false;
	timer->triggered = false;
	timer->due_ns = world.now_ns + timer->every_ns;
	if (watch->kind == WATCH_ONCE)
		on_stop(watch);
	watch_run(watch);
	return true;
}

static const struct loop_ops loops = {.open = loop_open,
				      .close = loop_close,
				      .run = loop_nothing,
				      .leave = loop_nothing,
				      .init = on_init,
				      .start = on_start,
				      .stop = on_stop,
				      .trigger = on_trigger};

/* ---- streams ---- */

/* Some of the front. */
static int shorten(const struct iovec *iov, int iovcnt, struct iovec *some)
{
	size_t total = 0, wanted;
	int count = 0;

	for (int i = 0; i < iovcnt; i++)
		total += iov[i].iov_len;
	if (total <= FIRST_BYTES || !random_chance(&world.random, world.options.cut))
		return 0;
	world.counts.short_calls++;
	wanted = FIRST_BYTES + random_below(&world.random, total - FIRST_BYTES);
	for (; wanted > 0 && count < iovcnt; count++) {
		some[count] = iov[count];
		if (some[count].iov_len > wanted)
			some[count].iov_len = wanted;
		wanted -= some[count].iov_len;
	}
	return count;
}

static ssize_t cut_read(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	struct stream plain = {.fd = stream->fd};
	struct iovec some[iovcnt];
	int count = shorten(iov, iovcnt, some);

	return count > 0 ? stream_read(&plain, some, count) : stream_read(&plain, iov, iovcnt);
}

static ssize_t cut_write(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	struct stream plain = {.fd = stream->fd};
	struct iovec some[iovcnt];
	int count = shorten(iov, iovcnt, some);

	return count > 0 ? stream_write(&plain, some, count) : stream_write(&plain, iov, iovcnt);
}

static bool nothing_pending(const struct stream *stream)
{
	(void)stream;
	return false;
}

static const char *describe(const struct stream *stream)
{
	(void)stream;
	return "simulated";
}

static void close_half(struct stream *stream)
{
	if (stream->fd >= 0)
		close(stream->fd);
}

static const struct stream_ops simulated = {.read = cut_read,
					    .write = cut_write,
					    .pending = nothing_pending,
					    .describe = describe,
					    .close = close_half};

/* ---- the network ---- */

static bool same(const union address *one, const union address *other)
{
	return one->any.sa_family == AF_INET && other->any.sa_family == AF_INET &&
	       one->v4.sin_port == other->v4.sin_port &&
	       one->v4.sin_addr.s_addr == other->v4.sin_addr.s_addr;
}

static int net_listen(const union address *address, int backlog, union address *bound)
{
	struct port *port = &world.ports[world.port_count];

	(void)backlog;
	assert(world.port_count < LISTENERS_MAX);
	*port = (struct port){.address = *address,
			      .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | EFD_SEMAPHORE)};
	if (port->fd < 0)
		return -errno;
	port->ours = dup(port->fd);
	world.port_count++;
	*bound = *address;
	return port->fd;
}

static struct port *port_find(const union address *address)
{
	for (uint32_t i = 0; i < world.port_count; i++)
		if (same(&world.ports[i].address, address))
			return &world.ports[i];
	return NULL;
}

/* The port that a connection goes to is the one of its address: kept in its number's low bits. */
static int net_connect(const union address *address, struct stream *stream)
{
	struct port *port = port_find(address);
	struct connection *connection;
	int near[2], far[2];

	if (!port)
		return -ECONNREFUSED;
	assert(world.connection_count < CONNECTIONS_MAX);
	connection = calloc(1, sizeof(*connection));
	if (!connection ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, near) < 0 ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, far) < 0)
		abort();
	TAILQ_INIT(&connection->out.chunks);
	TAILQ_INIT(&connection->back.chunks);
	connection->number =
		world.counts.connections++ * LISTENERS_MAX + (uint64_t)(port - world.ports);
	connection->near = near[1];
	connection->far = far[1];
	connection->accepted = far[0];
	world.connections[world.connection_count++] = connection;
	eventfd_write(port->ours, 1);
	*stream = (struct stream){.ops = &simulated, .fd = near[0]};
	return 0;
}

static int net_connected(struct stream *stream)
{
	(void)stream;
	return 0;
}

static int net_accept(int listener, struct stream *stream, union address *from)
{
	eventfd_t one;

	if (eventfd_read(listener, &one) < 0)
		return -EAGAIN;
	for (uint32_t i = 0; i < world.connection_count; i++) {
		struct connection *connection = world.connections[i];

		if (connection->accepted < 0 ||
		    world.ports[connection->number % LISTENERS_MAX].fd != listener)
			continue;
		*from = world.ports[connection->number % LISTENERS_MAX].address;
		from->v4.sin_port = htons((uint16_t)(40000 + connection->number % 20000));
		*stream = (struct stream){.ops = &simulated, .fd = connection->accepted};
		connection->accepted = -1;
		return 0;
	}
	return -EAGAIN;
}

static const struct network network_simulated = {.resolve = address_resolve,
						 .listen = net_listen,
						 .accept = net_accept,
						 .connect = net_connect,
						 .connected = net_connected};

/* What was sent since. */
static void collect(struct direction *direction, int from, uint64_t number)
{
	static char bytes[WINDOW_BYTES];
	uint64_t due;

	while (!direction->ended && direction->bytes < WINDOW_BYTES) {
		ssize_t got = recv(from, bytes, WINDOW_BYTES - direction->bytes, MSG_DONTWAIT);
		struct chunk *chunk;

		if (got < 0 && errno == EAGAIN)
			return;
		direction->ended = got <= 0;
		if (got <= 0)
			return;
		chunk = malloc(sizeof(*chunk) + (size_t)got);
		if (!chunk)
			abort();
		due = world.now_ns + 1 + random_below(&world.random, world.options.delay_max_ns);
		if (due < direction->last_due_ns)
			due = direction->last_due_ns;
		*chunk = (struct chunk){.due_ns = due, .length = (size_t)got};
		memcpy(chunk->bytes, bytes, (size_t)got);
		direction->last_due_ns = due;
		direction->bytes += (size_t)got;
		note_bytes(number, bytes, (size_t)got);
		TAILQ_INSERT_TAIL(&direction->chunks, chunk, link);
	}
}

static void drop_chunk(struct direction *direction, struct chunk *chunk)
{
	TAILQ_REMOVE(&direction->chunks, chunk, link);
	direction->bytes -= chunk->length;
	free(chunk);
}

static void forget(struct connection *connection)
{
	for (uint32_t i = 0; i < world.connection_count; i++)
		if (world.connections[i] == connection)
			world.connections[i] = world.connections[--world.connection_count];
	while (!TAILQ_EMPTY(&connection->out.chunks))
		drop_chunk(&connection->out, TAILQ_FIRST(&connection->out.chunks));
	while (!TAILQ_EMPTY(&connection->back.chunks))
		drop_chunk(&connection->back, TAILQ_FIRST(&connection->back.chunks));
	close(connection->near);
	close(connection->far);
	if (connection->accepted >= 0)
		close(connection->accepted);
	free(connection);
}

/* @return was there something to deliver? */
static bool deliver(struct connection *connection, struct direction *direction, int to)
{
	struct chunk *chunk = TAILQ_FIRST(&direction->chunks);
	ssize_t sent;

	if (!chunk && direction->ended && !direction->told) {
		direction->told = true;
		shutdown(to, SHUT_WR);
		if (connection->out.told && connection->back.told)
			forget(connection);
		return true;
	}
	if (!chunk || chunk->due_ns > world.now_ns)
		return false;
	if (random_chance(&world.random, world.options.reset)) {
		world.counts.resets++;
		world_note(connection->number);
		forget(connection);
		return true;
	}
	sent = send(to, chunk->bytes + chunk->delivered, chunk->length - chunk->delivered,
		    MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN) {
		forget(connection);
		return true;
	}
	if (sent > 0)
		chunk->delivered += (size_t)sent;
	world.counts.bytes += sent > 0 ? (uint64_t)sent : 0;
	if (chunk->delivered == chunk->length)
		drop_chunk(direction, chunk);
	else
		chunk->due_ns = world.now_ns + RETRY_NS;
	return true;
}

static void collect_all(void)
{
	for (uint32_t i = 0; i < world.connection_count; i++) {
		struct connection *connection = world.connections[i];

		collect(&connection->out, connection->near, 2 * connection->number);
		collect(&connection->back, connection->far, 2 * connection->number + 1);
	}
}

/* ---- turns ---- */

static bool run_engine(struct slu_engine *engine)
{
	uint32_t which = (uint32_t)random_below(&world.random, engine->poller_threads + 1);

	if (which < engine->poller_threads)
		return poller_run_once(engine->pollers[which]) > 0;
	return engine->env.repair && repair_step(engine->env.repair);
}

/* Whose turn it is, of all who may have something to do. */
static bool run_one(uint32_t turn)
{
	if (turn < world.engine_count)
		return run_engine(world.engines[turn]);
	turn -= world.engine_count;
	if (turn < world.watch_count)
		return run_watch(turn);
	turn -= world.watch_count;
	if (turn < world.connection_count)
		return deliver(world.connections[turn], &world.connections[turn]->out,
			       world.connections[turn]->far);
	turn -= world.connection_count;
	return deliver(world.connections[turn], &world.connections[turn]->back,
		       world.connections[turn]->near);
}

static uint64_t earlier(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

/* Nobody has anything to do before. */
static uint64_t next_event_ns(uint64_t until_ns)
{
	uint64_t next = earlier(until_ns, world.now_ns + NAP_NS);

	for (uint32_t i = 0; i < world.watch_count; i++)
		if (world.watches[i].watch->fd < 0)
			next = earlier(next, world.watches[i].due_ns);
	for (uint32_t i = 0; i < world.connection_count; i++) {
		const struct chunk *out = TAILQ_FIRST(&world.connections[i]->out.chunks);
		const struct chunk *back = TAILQ_FIRST(&world.connections[i]->back.chunks);

		next = earlier(next, out ? out->due_ns : next);
		next = earlier(next, back ? back->due_ns : next);
	}
	return next;
}

/* An engine has two turns, one of a poller and one of repairs: it is asked twice. */
static void step(uint64_t until_ns)
{
	uint32_t count, first;

	world.counts.steps++;
	collect_all();
	count = world.engine_count + world.watch_count + 2 * world.connection_count;
	first = count ? (uint32_t)random_below(&world.random, count) : 0;
	for (uint32_t i = 0; i < 2 * count; i++) {
		if (!run_one((first + i) % count))
			continue;
		world_note((first + i) % count);
		world.now_ns += 100 + random_below(&world.random, 900);
		return;
	}
	world.now_ns = world.now_ns < until_ns ? next_event_ns(until_ns) : world.now_ns;
	world.now_ns++;
}

void world_step(void)
{
	step(UINT64_MAX);
}

/* ---- life ---- */

static const struct environment stepped = {.now_ns = virtual_now, .random = seeded, .step = step};

static struct {
	const struct environment *environment;
	const struct network *network;
	const struct loop_ops *loops;
} before;

void world_begin(const struct world_options *options)
{
	memset(&world, 0, sizeof(world));
	world.options = *options;
	world.random.state = options->seed;
	world.work.state = ~options->seed;
	world.now_ns = NS_PER_SECOND;
	before.environment = environment;
	before.network = network;
	before.loops = loop_ops;
	environment = &stepped;
	network = &network_simulated;
	loop_ops = &loops;
}

void world_calm(void)
{
	world.options.cut = world.options.reset = 0;
}

uint64_t world_end(void)
{
	assert(world.engine_count == 0 && world.watch_count == 0);
	while (world.connection_count > 0)
		forget(world.connections[0]);
	for (uint32_t i = 0; i < world.port_count; i++)
		close(world.ports[i].ours);
	environment = before.environment;
	network = before.network;
	loop_ops = before.loops;
	return world.hash;
}

int world_open(const struct slu_engine_options *options, struct slu_engine **engine)
{
	int rc = slu_engine_open(options, engine);

	assert(world.engine_count < ENGINES_MAX);
	if (rc == 0)
		world.engines[world.engine_count++] = *engine;
	return rc;
}

void world_close(struct slu_engine *engine)
{
	slu_engine_close(engine);
	for (uint32_t i = 0; i < world.engine_count; i++)
		if (world.engines[i] == engine)
			world.engines[i] = world.engines[--world.engine_count];
}
