/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/transport.h"

#include <string.h>

static const char *const names[] = {"auto", "shm", "verbs", "tcp", "fake"};

const char *slu_transport_name(enum slu_transport transport)
{
	return (unsigned)transport < sizeof(names) / sizeof(names[0]) ? names[transport]
								      : "unknown";
}

int transport_parse(const char *name)
{
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0)
			return (int)i;
	return -1;
}

static const struct transport *const transports[TRANSPORTS] = {
	[SLU_TRANSPORT_SHM] = &shm_transport,
	[SLU_TRANSPORT_VERBS] = &verbs_transport,
	[SLU_TRANSPORT_TCP] = &tcp_transport,
	[SLU_TRANSPORT_FAKE] = &fake_transport,
};

const struct transport *transport_find(enum slu_transport id)
{
	return (unsigned)id < TRANSPORTS ? transports[id] : NULL;
}

/* @return NULL: it needs none, or that is no transport */
static const struct transport_host *host_of(unsigned id)
{
	return transports[id] ? transports[id]->host : NULL;
}

int transports_open(struct transport_env *env, const struct slu_engine_options *options)
{
	int rc = 0;

	for (unsigned id = 0; rc == 0 && id < TRANSPORTS; id++)
		if (host_of(id))
			rc = host_of(id)->open(options, &env->hosts[id]);
	return rc;
}

void transports_close(struct transport_env *env)
{
	for (unsigned id = 0; id < TRANSPORTS; id++)
		if (host_of(id))
			host_of(id)->close(env->hosts[id]);
}

void transports_remove(const struct transport_env *env, struct slu_region *region)
{
	for (unsigned id = 0; id < TRANSPORTS; id++)
		if (env->hosts[id] && host_of(id) && host_of(id)->remove)
			host_of(id)->remove(env->hosts[id], region);
}

int transports_add(const struct transport_env *env, struct slu_region *region)
{
	int rc = 0;

	for (unsigned id = 0; rc == 0 && id < TRANSPORTS; id++)
		if (env->hosts[id] && host_of(id) && host_of(id)->add)
			rc = host_of(id)->add(env->hosts[id], region);
	if (rc < 0)
		transports_remove(env, region);
	return rc;
}

void transports_leave(struct transport_peer *peer)
{
	for (unsigned id = 0; id < TRANSPORTS; id++)
		if (peer->private[id])
			transports[id]->client->leave(peer->private[id]);
}

int transports_meet(struct transport_peer *peer)
{
	int rc = 0;

	for (unsigned id = 0; rc == 0 && id < TRANSPORTS; id++)
		if (transports[id] && transports[id]->client->meet)
			rc = transports[id]->client->meet(&peer->private[id]);
	if (rc < 0)
		transports_leave(peer);
	return rc;
}

uint32_t transport_permitted(uint32_t rights)
{
	uint32_t opcodes = 0;

	if (rights & SLU_RIGHT_READ)
		opcodes |= 1u << SLU_READ;
	if (rights & SLU_RIGHT_WRITE)
		opcodes |= 1u << SLU_WRITE | 1u << SLU_WRITE_NOTIFY;
	if (rights == (SLU_RIGHT_READ | SLU_RIGHT_WRITE))
		opcodes |= 1u << SLU_FETCH_ADD | 1u << SLU_COMPARE_SWAP;
	if (opcodes)
		opcodes |= 1u << OP_CALL;
	return opcodes;
}

/* Of all engines: whoever looks for nothing has lost a look. */
_Atomic uint64_t transport_change_count;

void transport_changed(void)
{
	atomic_fetch_add(&transport_change_count, 1);
}

void remote_fail(struct slu_remote *remote, int error)
{
	int connected = 0;

	atomic_compare_exchange_strong(&remote->state, &connected, error);
	atomic_store_explicit(&remote->permitted, 0, memory_order_release);
	transport_changed();
}
