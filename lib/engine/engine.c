/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fork.h"
#include "base/log.h"
#include "base/random.h"
#include "base/sized.h"
#include "base/work.h"
#include "directory/p2p.h"
#include "engine/process.h"
#include "memory/copy.h"
#include "memory/heap.h"
#include "numa/placement.h"
#include "transport/buffers.h"
#include "transport/repair.h"

#define LEAVE_TIMEOUT_US 2000000u

static const struct slu_engine_options default_options = {
	.poll = SLU_POLL_ADAPTIVE,
	.node = -1,
	.rdma = {.gid_index = -1, .timeout = -1, .retries = -1, .traffic_class = -1}};

static const struct sized sized_options = {SIZED(slu_engine_options, reserved),
					   SIZED_RESERVED(slu_engine_options),
					   .defaults = &default_options};
static const struct sized sized_info = {SIZED(slu_engine_info, reserved)};
static const struct sized sized_poller_info = {SIZED(slu_poller_info, reserved)};

void slu_engine_options_init(struct slu_engine_options *options, size_t size)
{
	sized_init(&sized_options, options, size);
}

/* What asks for something that we do not know. */
static int check_known(const struct slu_engine_options *options)
{
	int rc = sized_check_reserved("slu_engine_options.rdma.reserved", options->rdma.reserved,
				      sizeof(options->rdma.reserved));

	if (rc == 0)
		rc = sized_check_reserved("slu_engine_options.tls.reserved", options->tls.reserved,
					  sizeof(options->tls.reserved));
	if (rc == 0)
		rc = limits_check_known(options->limits, options->identity_limits,
					options->identity_limits_count);
	return rc;
}

static int check_options(const struct slu_engine_options *options)
{
	if (options->pollers > SLU_POLLERS_MAX / 2)
		return fail(-EINVAL, "%u pollers asked for, at most %d are possible",
			    options->pollers, SLU_POLLERS_MAX / 2);
	if (options->poll != SLU_POLL_ADAPTIVE && options->poll != SLU_POLL_BUSY)
		return fail(-EINVAL, "libsluice %s has no poll mode %d", slu_version(),
			    options->poll);
	if (options->allowed_uids_count > SLU_ALLOWED_UIDS_MAX)
		return fail(-EINVAL, "%u users allowed, at most %d are possible",
			    options->allowed_uids_count, SLU_ALLOWED_UIDS_MAX);
	if (options->shm_writers_count > SLU_ALLOWED_UIDS_MAX)
		return fail(-EINVAL, "%u users who write in shared memory, at most %d are possible",
			    options->shm_writers_count, SLU_ALLOWED_UIDS_MAX);
	return 0;
}

static void take_users(struct trust *trust, const uid_t *uids, uint32_t count)
{
	trust->count = count;
	if (count > 0)
		memcpy(trust->uids, uids, count * sizeof(*uids));
}

static void take_options(struct slu_engine *engine, const struct slu_engine_options *options)
{
	const char *name = options->name ? options->name : program_invocation_short_name;

	strncpy(engine->name, name, SLU_NAME_MAX);
	for (char *c = engine->name; *c; c++) /* it goes into JSON and onto terminals */
		if (!isprint((unsigned char)*c))
			*c = '?';
	engine->incarnation = random_word();
	take_users(&engine->trust, options->allowed_uids, options->allowed_uids_count);
	take_users(&engine->shm_writers, options->shm_writers, options->shm_writers_count);
	engine->no_shm_writers = options->no_shm_writers;
	engine->plain = options->tcp_plain || options->rdma.plain;
	engine->clock.now = options->clock ? options->clock : process_clock();
	engine->clock.arg = options->clock_arg;
	engine->env.clock = &engine->clock;
	engine->env.seed = options->seed ? options->seed : random_word();
}

/* They count as taken from here on. */
static int choose_cores(struct slu_engine *engine, const struct slu_engine_options *options)
{
	int cores[SLU_POLLERS_MAX];
	int count;

	if (!options->cores)
		return placement_choose_cores(engine->topology, options->node, options->pollers,
					      engine->cores);
	count = placement_parse_cores(options->cores, cores, SLU_POLLERS_MAX);
	if (count < 0)
		return -EINVAL; /* its text is there */
	if ((uint32_t)count < options->pollers)
		return fail(-EINVAL, "%u pollers but only %d cores in \"%s\"", options->pollers,
			    count, options->cores);
	memcpy(engine->cores, cores, options->pollers * sizeof(*cores));
	placement_take_cores(engine->cores, options->pollers);
	return 0;
}

static int start_poller(struct slu_engine *engine, const struct slu_engine_options *options,
			int core)
{
	uint32_t index = engine->poller_threads;
	struct poller *poller;
	int rc = poller_create(index, &engine->env, engine->llc_bytes,
			       topology_llc(engine->topology, core), &poller);

	if (rc < 0)
		return rc;
	rc = poller_thread_start(poller, core, topology_cpu_node(engine->topology, core),
				 options->poll);
	if (rc < 0) {
		poller_destroy(poller);
		return rc;
	}
	engine->pollers[index] = poller;
	engine->poller_threads++;
	return 0;
}

static int start_pollers(struct slu_engine *engine, const struct slu_engine_options *options)
{
	int rc = choose_cores(engine, options);

	if (rc < 0)
		return rc;
	engine->cores_taken = options->pollers;
	for (uint32_t i = 0; rc == 0 && i < options->pollers; i++)
		rc = start_poller(engine, options, engine->cores[i]);
	return rc;
}

static void stop_pollers(struct slu_engine *engine)
{
	for (uint32_t i = 0; i < engine->poller_threads; i++) {
		poller_thread_stop(engine->pollers[i]);
		poller_destroy(engine->pollers[i]);
	}
	placement_return_cores(engine->cores, engine->cores_taken);
}

/* Keys and certificates for both roles: a target may be a client of others as well. */
static int open_tls(struct slu_engine *engine, const struct slu_tls_options *options, bool listens)
{
	int rc = 0;

	if (!tls_wanted(options))
		return 0;
	if (listens)
		rc = tls_open(TLS_SERVER, options, &engine->server_tls);
	return rc < 0 ? rc : tls_open(TLS_CLIENT, options, &engine->client_tls);
}

static int open_clients(struct slu_engine *engine, const struct slu_engine_options *options)
{
	struct client_pool_options pool = {.control = engine->control,
					   .name = engine->name,
					   .trust = &engine->trust,
					   .tls = engine->client_tls,
					   .insecure = options->insecure,
					   .tcp_plain = options->tcp_plain};

	return client_pool_create(&pool, &engine->clients);
}

static int listen_on_tcp(struct slu_engine *engine, const struct slu_engine_options *options)
{
	int rc = serve_start(engine);

	if (rc < 0)
		return rc;
	return server_listen_tcp(engine->server, options->listen, options->insecure,
				 &engine->tcp_listener);
}

static int listen_on_path(struct slu_engine *engine, const char *path)
{
	struct sockaddr_un address;
	socklen_t length;
	int rc = p2p_path_address(path, &address, &length);

	return rc < 0 ? rc : server_listen(engine->server, &address, length, &engine->socket);
}

static int start_control(struct slu_engine *engine, const struct slu_engine_options *options)
{
	struct server_options server = {.trust = &engine->trust,
					.name = engine->name,
					.incarnation = engine->incarnation,
					.tcp_plain = options->tcp_plain,
					.callbacks = &segment_callbacks,
					.arg = engine};
	int rc = open_tls(engine, &options->tls, options->listen != NULL);

	if (rc == 0)
		rc = rights_start(engine, options);
	if (rc == 0)
		rc = control_thread_start(&engine->control);
	if (rc < 0)
		return rc;
	server.control = engine->control;
	server.tls = engine->server_tls;
	rc = budgets_create(NULL, &engine->budgets);
	if (rc == 0)
		rc = budgets_set(engine->budgets, options->limits, options->identity_limits,
				 options->identity_limits_count);
	if (rc < 0)
		return rc;
	server.budgets = engine->budgets;
	rc = server_create(&server, &engine->server);
	if (rc == 0)
		rc = open_clients(engine, options);
	if (rc == 0)
		rc = losses_watch(engine);
	if (rc == 0 && options->socket)
		rc = listen_on_path(engine, options->socket);
	if (rc == 0 && options->listen)
		rc = listen_on_tcp(engine, options);
	return rc;
}

static int start(struct slu_engine *engine, const struct slu_engine_options *options)
{
	int rc;

	take_options(engine, options);
	rc = topology_open(NULL, &engine->topology);
	if (rc < 0)
		return rc;
	engine->llc_bytes = topology_llc_bytes(engine->topology, -1);
	rc = transports_open(&engine->env, options);
	if (rc == 0)
		rc = start_pollers(engine, options);
	if (rc == 0)
		rc = start_control(engine, options);
	return rc;
}

static int open_engine(const struct slu_engine_options *options, struct slu_engine **out)
{
	struct slu_engine *engine = calloc(1, sizeof(*engine));
	int rc;

	if (!engine)
		return fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&engine->opening, NULL);
	pthread_mutex_init(&engine->lock, NULL);
	rc = start(engine, options);
	if (rc < 0) {
		slu_engine_close(engine);
		return rc;
	}
	*out = engine;
	return 0;
}

int slu_engine_open(const struct slu_engine_options *given, struct slu_engine **out)
{
	struct slu_engine_options options;
	int rc = sized_take(&sized_options, given, &options);

	if (rc == 0)
		rc = check_known(&options);
	if (rc == 0)
		rc = check_options(&options);
	if (rc < 0)
		return rc;
	if (options.listen && options.pollers == 0)
		options.pollers = 1; /* TCP is served by pollers */
	rc = process_start();
	if (rc < 0)
		return rc;
	log_start();
	return open_engine(&options, out);
}

static int unlisten_segments(void *arg)
{
	struct slu_engine *engine = arg;
	struct slu_segment *segment;

	LIST_FOREACH (segment, &engine->segments, link) {
		server_unlisten(engine->server, segment->listener);
		segment->listener = NULL;
	}
	return 0;
}

int slu_engine_drain(struct slu_engine *engine, uint64_t timeout_us)
{
	uint64_t until = clock_deadline_ns(timeout_us);
	int rc = fork_check();

	if (rc < 0)
		return rc;
	server_unlisten(engine->server, engine->socket);
	server_unlisten(engine->server, engine->tcp_listener);
	engine->socket = engine->tcp_listener = NULL;
	control_call(engine->control, unlisten_segments, engine);
	server_drain(engine->server);
	atomic_store(&engine->drained_ns, clock_monotonic_ns(NULL));
	while (server_session_count(engine->server) > 0 && clock_monotonic_ns(NULL) < until)
		pause_us(2000);
	return (int)server_session_count(engine->server);
}

static void close_objects(struct slu_engine *engine)
{
	while (!LIST_EMPTY(&engine->queues))
		slu_queue_close(LIST_FIRST(&engine->queues));
	while (!LIST_EMPTY(&engine->remotes))
		slu_remote_close(LIST_FIRST(&engine->remotes));
	while (!LIST_EMPTY(&engine->segments))
		slu_segment_close(LIST_FIRST(&engine->segments));
	while (!LIST_EMPTY(&engine->caches))
		slu_cache_close(LIST_FIRST(&engine->caches));
}

void slu_engine_close(struct slu_engine *engine)
{
	if (!engine || fork_is_child())
		return;
	if (engine->server)
		slu_engine_drain(engine, LEAVE_TIMEOUT_US);
	close_objects(engine);
	losses_unwatch(engine);
	repair_stop(engine->env.repair);
	server_destroy(engine->server);
	client_pool_destroy(engine->clients);
	serve_stop(engine);
	control_thread_stop(engine->control);
	tls_close(engine->server_tls);
	tls_close(engine->client_tls);
	access_destroy(engine->access);
	stop_pollers(engine);
	while (!LIST_EMPTY(&engine->regions))
		slu_region_close(LIST_FIRST(&engine->regions));
	work_report();
	transports_close(&engine->env);
	budgets_destroy(engine->budgets);
	identities_free(engine);
	topology_close(engine->topology);
	pthread_mutex_destroy(&engine->lock);
	pthread_mutex_destroy(&engine->opening);
	free(engine);
	log_flush();
}

int slu_engine_get_info(struct slu_engine *engine, struct slu_engine_info *info)
{
	struct slu_engine_info own = {
		.name = engine->name,
		.incarnation = engine->incarnation,
		.pollers = engine->poller_threads,
		.eal_hugepages = heap_on_hugepages(),
		.copy = copy_describe(),
		.llc_bytes = engine->llc_bytes,
		.listen = engine->tcp_listener ? listener_address(engine->tcp_listener) : NULL,
		.tls = engine->server_tls != NULL,
		.connections = server_connection_count(engine->server),
		.sessions = server_session_count(engine->server),
	};

	if (fork_is_child())
		return fork_refuse();
	own.rdma =
		transport_find(SLU_TRANSPORT_VERBS)
			->host->devices(engine->env.hosts[SLU_TRANSPORT_VERBS], &own.rdma_devices);
	return sized_give(&sized_info, &own, info);
}

/* Under lock. */
static uint64_t bytes_of(const struct slu_engine *engine, const struct poller *poller)
{
	const struct slu_remote *remote;
	uint64_t bytes = poller->bytes;

	LIST_FOREACH (remote, &engine->remotes, link) {
		const struct path *path = remote->paths[poller->index];

		if (path)
			bytes += path_bytes(path);
	}
	return bytes;
}

/* Under lock. */
static void describe_poller(const struct slu_engine *engine, const struct poller *poller,
			    struct slu_poller_info *info)
{
	info->running_inline = !poller->is_thread;
	info->core = poller->core;
	info->node = poller->node;
	info->poll = poller->mode;
	info->loops = counter_read(&poller->loops);
	info->idle_loops = counter_read(&poller->idle_loops);
	info->sleeps = counter_read(&poller->sleeps);
	info->operations = counter_read(&poller->operations);
	info->bytes = bytes_of(engine, poller);
	info->buffers = atomic_load(&poller->env.buffers->made);
	info->buffers_used = buffers_used(poller->env.buffers);
	info->buffers_most = atomic_load(&poller->env.buffers->most);
	info->buffers_refused = counter_read(&poller->env.buffers->refused);
}

int slu_engine_get_poller(struct slu_engine *engine, uint32_t index, struct slu_poller_info *info)
{
	struct slu_poller_info own = {0};
	bool found;

	if (fork_is_child())
		return fork_refuse();
	pthread_mutex_lock(&engine->lock);
	found = index < SLU_POLLERS_MAX && engine->pollers[index];
	if (found)
		describe_poller(engine, engine->pollers[index], &own);
	pthread_mutex_unlock(&engine->lock);
	return found ? sized_give(&sized_poller_info, &own, info)
		     : fail(-ENOENT, "no poller %u", index);
}

/* Regions hang on the engine so that closing it leaves nothing behind. */
static int adopt_region(struct slu_engine *engine, struct slu_region *region)
{
	int rc = transports_add(&engine->env, region);

	if (rc < 0) {
		region_destroy(region);
		return rc;
	}
	region->engine = engine;
	pthread_mutex_lock(&engine->lock);
	LIST_INSERT_HEAD(&engine->regions, region, link);
	pthread_mutex_unlock(&engine->lock);
	return 0;
}

int slu_region_alloc(struct slu_engine *engine, uint64_t length_bytes,
		     const struct slu_region_options *given, struct slu_region **out)
{
	struct slu_region_options options;
	struct slu_region *region;
	int rc = fork_check();

	if (rc == 0)
		rc = region_take_options(given, &options);
	if (rc < 0)
		return rc;
	if (options.node >= 0 && !topology_has_node(engine->topology, options.node))
		return fail(-EINVAL, "there is no NUMA node %d; this machine has %u", options.node,
			    topology_node_count(engine->topology));
	rc = region_create(length_bytes, &options, &region);
	if (rc == 0)
		rc = adopt_region(engine, region);
	if (rc == 0)
		*out = region;
	return rc;
}

int slu_region_register(struct slu_engine *engine, void *addr, uint64_t length_bytes,
			struct slu_region **out)
{
	struct slu_region *region;
	int rc = fork_check();

	if (rc == 0)
		rc = region_wrap(addr, length_bytes, &region);
	if (rc == 0)
		rc = adopt_region(engine, region);
	if (rc == 0)
		*out = region;
	return rc;
}

int slu_region_import(struct slu_engine *engine, int fd, uint64_t offset_bytes,
		      uint64_t length_bytes, const struct slu_region_options *given,
		      struct slu_region **out)
{
	struct slu_region_options options;
	struct slu_region *region;
	int rc = fork_check();

	if (rc == 0)
		rc = region_take_options(given, &options);
	if (rc == 0)
		rc = region_import(fd, offset_bytes, length_bytes, &options, &region);
	if (rc == 0)
		rc = adopt_region(engine, region);
	if (rc == 0)
		*out = region;
	return rc;
}

void slu_region_close(struct slu_region *region)
{
	if (!region || fork_is_child())
		return;
	pthread_mutex_lock(&region->engine->lock);
	LIST_REMOVE(region, link);
	pthread_mutex_unlock(&region->engine->lock);
	transports_remove(&region->engine->env, region);
	region_destroy(region);
}
