/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/fake/fake.h"

static int parse_pair(const char *pair, struct fake_behaviour *behaviour)
{
	unsigned long low, high;
	int end = 0;

	if (sscanf(pair, "delay_us=%lu-%lu%n", &low, &high, &end) == 2 && !pair[end] &&
	    low <= high) {
		behaviour->delay_min_ns = low * NS_PER_US;
		behaviour->delay_max_ns = high * NS_PER_US;
		return 0;
	}
	if (sscanf(pair, "loss=%lf%n", &behaviour->loss, &end) == 1 && !pair[end] &&
	    behaviour->loss >= 0 && behaviour->loss <= 1)
		return 0;
	if (sscanf(pair, "die_after=%lu%n", &behaviour->die_after, &end) == 1 && !pair[end])
		return 0;
	if (sscanf(pair, "capacity=%u%n", &behaviour->capacity, &end) == 1 && !pair[end] &&
	    behaviour->capacity >= 1 && behaviour->capacity <= FAKE_CAPACITY_MAX)
		return 0;
	return fail(-EINVAL,
		    "fake transport: \"%s\" is not understood (delay_us=LOW-HIGH, loss=0..1, "
		    "die_after=COUNT, capacity=1..%u)",
		    pair, FAKE_CAPACITY_MAX);
}

int fake_parse(const char *text, struct fake_behaviour *behaviour)
{
	struct fake_behaviour parsed = {.die_after = UINT64_MAX, .capacity = 256};
	char copy[256];
	char *rest = copy;
	char *pair;

	if (text && strlen(text) >= sizeof(copy))
		return fail(-EINVAL, "fake transport: behaviour longer than %zu bytes",
			    sizeof(copy) - 1);
	strcpy(copy, text ? text : "");
	while ((pair = strsep(&rest, ","))) {
		int rc = *pair ? parse_pair(pair, &parsed) : 0;

		if (rc < 0)
			return rc;
	}
	*behaviour = parsed;
	return 0;
}

static int fake_connect(struct slu_remote *remote, const struct path_env *env, struct path **path)
{
	const struct fake_view *view = remote->view;
	const struct fake_behaviour *behaviour = env->transport->hosts[SLU_TRANSPORT_FAKE];
	struct fake_path *fake =
		calloc(1, sizeof(*fake) + behaviour->capacity * sizeof(fake->parts[0]));

	if (!fake)
		return fail(-ENOMEM, "out of memory");
	fake->path.fast = &fake_fast;
	fake->path.slice_bytes = FAKE_SLICE_BYTES;
	fake->path.transport = SLU_TRANSPORT_FAKE;
	fake->path.remote = remote;
	fake->path.link = &fake->link;
	path_init(&fake->path);
	link_init(&fake->link, &fake_link_ops, env->schedule);
	fake->base = view->base;
	fake->region = view->region;
	fake->waker = &view->waker;
	fake->session = view->session;
	if (view->writes)
		notify_attach(&fake->notify, &view->waker.area->notifications, env->poller);
	calls_link_init(&fake->calls_link, &view->waker, env);
	calls_init(&fake->calls, &fake->path, &fake->calls_link, view->session);
	fake->clock = env->transport->clock;
	fake->random.state = env->transport->seed + env->poller;
	fake->behaviour = *behaviour;
	*path = &fake->path;
	return 0;
}

static void fake_disconnect(struct path *path)
{
	struct fake_path *fake = (struct fake_path *)path;

	if (!fake)
		return;
	if (fake->notify.lane)
		notify_detach(&fake->notify);
	calls_link_fini(&fake->calls_link);
	free(fake);
}

/* The client is told by import_local. */
static int fake_publish(const struct export *export, uint32_t rights,
			const struct client_inbox *inbox, uint32_t session, json_t *grant,
			int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask)
{
	(void)export;
	(void)rights;
	(void)inbox;
	(void)session;
	(void)grant;
	(void)fds;
	(void)close_mask;
	return 0;
}

static int fake_import_local(const struct export *export, uint32_t rights,
			     const struct client_inbox *inbox, uint32_t session, void **out)
{
	struct fake_view *view = calloc(1, sizeof(*view));

	if (!view)
		return fail(-ENOMEM, "out of memory");
	view->base = export->addr;
	view->region = export->region;
	view->waker = (struct client_waker){
		.area = inbox->area, .wake_fd = inbox->wake_fd, .fence = !barrier_is_asymmetric};
	view->session = session;
	view->writes = rights & SLU_RIGHT_WRITE;
	*out = view;
	return 0;
}

static int open_host(const struct slu_engine_options *options, void **out)
{
	struct fake_behaviour *behaviour = malloc(sizeof(*behaviour));
	int rc = behaviour ? fake_parse(options->fake, behaviour) : fail(-ENOMEM, "out of memory");

	if (rc == 0)
		*out = behaviour;
	else
		free(behaviour);
	return rc;
}

static const struct transport_host fake_hosts = {.open = open_host, .close = free};

static const struct transport_client fake_client = {
	.capabilities = {.slice_bytes = FAKE_SLICE_BYTES,
			 .atomics = true,
			 .call_bytes = SLU_CALL_MAX,
			 .memories = 1u << SLU_MEMORY_HOST},
	.import_local = fake_import_local,
	.release = free,
	.connect = fake_connect,
	.disconnect = fake_disconnect,
};

static const struct transport_target fake_target = {
	.publish = fake_publish,
};

const struct transport fake_transport = {
	.id = SLU_TRANSPORT_FAKE,
	.host = &fake_hosts,
	.client = &fake_client,
	.target = &fake_target,
	.fast = &fake_fast,
};
