/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/choose.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* ---- is there a Unix socket of this very target? ---- */

/* What does not answer there leaves time for another way. @return NULL: none, or another target's
 */
static struct client *connect_local(struct choice *choice, struct client_pool *pool,
				    const struct endpoint *at, uint64_t until_ns)
{
	uint64_t incarnation = client_welcome(choice->connection)->incarnation;
	struct client *local;

	if (client_connect(pool, at, choice->name.segment, clock_halfway_ns(until_ns), &local) < 0)
		return NULL;
	if (client_welcome(local)->incarnation == incarnation)
		return local;
	client_release(local);
	return NULL;
}

static struct client *find_local(struct choice *choice, struct client_pool *pool, uint64_t until_ns)
{
	const struct client_welcome *welcome = client_welcome(choice->connection);
	const char *path = welcome->socket;
	struct endpoint at = {.is_unix = true};
	struct client *local;

	if (welcome->is_unix)
		return choice->connection;
	if (!welcome->same_host)
		return NULL;
	p2p_segment_address(choice->name.segment, &at.path, &at.path_length);
	local = connect_local(choice, pool, &at, until_ns);
	if (!local && path[0] && p2p_path_address(path, &at.path, &at.path_length) == 0)
		local = connect_local(choice, pool, &at, until_ns);
	return local;
}

/* ---- the choice ---- */

static void consider(struct choice *choice, const struct transport_env *env,
		     const struct transport *transport)
{
	const struct client_welcome *welcome = client_welcome(choice->connection);
	const struct transport_prospect prospect = {
		.offer = json_object_get(welcome->transports, slu_transport_name(transport->id)),
		.encrypted = welcome->encrypted,
		.data_encrypted = client_peer(choice->connection)->encrypted,
		.same_host = welcome->same_host,
		.socket = welcome->socket,
		.local = choice->local ? client_welcome(choice->local)->address : NULL,
		.host = welcome->tcp.host,
		.port = welcome->tcp.port,
		.tls = welcome->tcp_tls};
	struct slu_candidate *candidate = &choice->candidates[choice->count++];

	candidate->transport = transport->id;
	candidate->latency_ns = transport->client->capabilities.latency_ns;
	candidate->bytes_per_second = transport->client->capabilities.bytes_per_second;
	candidate->memories = transport->client->capabilities.memories;
	candidate->usable = transport->client->consider(env, &prospect, candidate->reason);
}

const struct slu_candidate *choice_taken(const struct choice *choice)
{
	for (uint32_t i = 0; i < choice->count; i++)
		if (choice->candidates[i].chosen)
			return &choice->candidates[i];
	return NULL;
}

/* Why one that would have worked was not taken. */
static void say_passed_over(struct slu_candidate *candidate, enum slu_transport taken, bool asked)
{
	size_t length = strlen(candidate->reason);

	snprintf(candidate->reason + length, sizeof(candidate->reason) - length, "; %s %s",
		 slu_transport_name(taken), asked ? "was asked for" : "costs less");
}

/* The first usable one, or the one that was asked for. */
static void take(struct choice *choice, enum slu_transport wanted)
{
	const struct slu_candidate *taken;

	for (uint32_t i = 0; i < choice->count && !choice_taken(choice); i++) {
		struct slu_candidate *candidate = &choice->candidates[i];

		candidate->chosen = candidate->usable && (wanted == SLU_TRANSPORT_AUTO ||
							  wanted == candidate->transport);
	}
	taken = choice_taken(choice);
	for (uint32_t i = 0; taken && i < choice->count; i++)
		if (choice->candidates[i].usable && !choice->candidates[i].chosen)
			say_passed_over(&choice->candidates[i], taken->transport,
					wanted != SLU_TRANSPORT_AUTO);
}

int choice_make(struct choice *choice, struct client_pool *pool, const struct transport_env *env,
		const char *name, enum slu_transport wanted, uint64_t until_ns)
{
	int rc;

	memset(choice, 0, sizeof(*choice));
	rc = p2p_parse(name, &choice->name);
	if (rc == 0)
		rc = client_connect(pool, &choice->name.endpoint, choice->name.segment, until_ns,
				    &choice->connection);
	if (rc < 0)
		return rc;
	choice->local = find_local(choice, pool, until_ns);
	for (unsigned id = 0; id < TRANSPORTS && choice->count < SLU_CANDIDATES_MAX; id++) {
		const struct transport *transport = transport_find((enum slu_transport)id);

		if (transport && transport->client->consider)
			consider(choice, env, transport);
	}
	take(choice, wanted);
	return 0;
}

void choice_refuse(struct choice *choice, enum slu_transport refused, enum slu_transport wanted,
		   const char *why)
{
	for (uint32_t i = 0; i < choice->count; i++) {
		struct slu_candidate *candidate = &choice->candidates[i];

		candidate->chosen = false;
		if (candidate->transport != refused)
			continue;
		candidate->usable = false;
		snprintf(candidate->reason, sizeof(candidate->reason), "%s", why);
	}
	take(choice, wanted);
}

struct client *choice_connection(const struct choice *choice, enum slu_transport transport)
{
	return transport_find(transport)->client->local ? choice->local : choice->connection;
}

int choice_fail(const struct choice *choice, enum slu_transport wanted)
{
	char all[SLU_CANDIDATES_MAX * (SLU_REASON_MAX + 16)] = "";

	for (uint32_t i = 0; i < choice->count; i++) {
		const struct slu_candidate *candidate = &choice->candidates[i];
		size_t length = strlen(all);

		if (candidate->transport == wanted)
			return fail(-EOPNOTSUPP, "%s was required: %s", slu_transport_name(wanted),
				    candidate->reason);
		snprintf(all + length, sizeof(all) - length, "%s%s: %s", i ? "; " : "",
			 slu_transport_name(candidate->transport), candidate->reason);
	}
	return fail(-EOPNOTSUPP, "no transport can be used: %s", all);
}

void choice_release(struct choice *choice, const struct client *kept)
{
	if (choice->local != choice->connection && choice->local != kept)
		client_release(choice->local);
	if (choice->connection != kept)
		client_release(choice->connection);
	choice->local = choice->connection = NULL;
}
