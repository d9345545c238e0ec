/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/choose.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/transport.h"
#include "transport/verbs/verbs.h"

static const enum slu_transport preference[SLU_CANDIDATES_MAX] = {
	SLU_TRANSPORT_SHM, SLU_TRANSPORT_VERBS, SLU_TRANSPORT_TCP};

__attribute__((format(printf, 3, 4))) static void say(struct slu_candidate *candidate, bool usable,
						      const char *format, ...)
{
	va_list args;

	candidate->usable = usable;
	va_start(args, format);
	vsnprintf(candidate->reason, sizeof(candidate->reason), format, args);
	va_end(args);
}

/* ---- shared memory: is there a Unix socket of this very target? ---- */

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
	const char *path = client_welcome(choice->connection)->socket;
	struct endpoint at = {.is_unix = true};
	struct client *local;

	p2p_segment_address(choice->name.segment, &at.path, &at.path_length);
	local = connect_local(choice, pool, &at, until_ns);
	if (!local && path[0] && p2p_path_address(path, &at.path, &at.path_length) == 0)
		local = connect_local(choice, pool, &at, until_ns);
	return local;
}

static void say_out_of_reach(struct slu_candidate *candidate, const char *path)
{
	if (path[0])
		say(candidate, false,
		    "the target is on this host, but its Unix socket %s is not to be reached from "
		    "here: share that directory",
		    path);
	else
		say(candidate, false,
		    "the target is on this host, but no Unix socket of it can be reached from "
		    "here: "
		    "start it with --socket PATH in a directory that both see");
}

static void consider_shm(struct choice *choice, struct slu_candidate *candidate,
			 struct client_pool *pool, uint64_t until_ns)
{
	const struct client_welcome *welcome = client_welcome(choice->connection);

	if (welcome->is_unix) {
		choice->local = choice->connection;
	} else if (!welcome->same_host) {
		say(candidate, false, "the target is on another host, which shares no memory");
		return;
	} else {
		choice->local = find_local(choice, pool, until_ns);
	}
	if (!choice->local) {
		say_out_of_reach(candidate, welcome->socket);
		return;
	}
	say(candidate, true, "both ends are on this host and share its Unix socket (%s)",
	    client_welcome(choice->local)->address);
}

/* ---- RDMA ---- */

static void consider_verbs(const struct choice *choice, struct slu_candidate *candidate)
{
	const struct client_welcome *welcome = client_welcome(choice->connection);
	const json_t *offer = json_object_get(welcome->transports, "verbs");
	struct verbs_pair pair;
	char text[VERBS_PAIR_TEXT];

	if (choice->devices->count > 0 && client_peer(choice->connection)->encrypted &&
	    !choice->rdma_plain)
		say(candidate, false,
		    "RDMA does not encrypt, and the session is encrypted: --rdma-plain at both "
		    "ends allows it");
	else if (verbs_pair_choose(choice->devices, offer, -1, 0, &pair) < 0)
		say(candidate, false, "%s%s", slu_last_error(),
		    welcome->encrypted && !offer ? "; or not to encrypted sessions, without "
						   "--rdma-plain of its own"
						 : "");
	else
		say(candidate, true, "%s%s", verbs_pair_describe(choice->devices, &pair, text),
		    welcome->encrypted ? "; the session is encrypted, the data is not" : "");
}

/* ---- TCP ---- */

static void consider_tcp(const struct choice *choice, struct slu_candidate *candidate)
{
	const struct client_welcome *welcome = client_welcome(choice->connection);
	bool encrypted = welcome->tcp_tls && !client_peer(choice->connection)->encrypted;

	if (welcome->tcp.port == 0) {
		say(candidate, false,
		    "the target does not listen on TCP: start it with --listen ADDRESS:PORT");
		return;
	}
	say(candidate, true, "the target serves TCP at %s port %u, %s", welcome->tcp.host,
	    welcome->tcp.port,
	    client_peer(choice->connection)->encrypted ? "encrypted"
	    : encrypted                                ? "authenticated by TLS, data in the clear"
						       : "in the clear");
}

/* ---- the choice ---- */

static void add_costs(struct slu_candidate *candidate)
{
	const struct transport_capabilities *capabilities =
		&transport_find(candidate->transport)->client->capabilities;

	candidate->latency_ns = capabilities->latency_ns;
	candidate->bytes_per_second = capabilities->bytes_per_second;
}

static void consider(struct choice *choice, struct slu_candidate *candidate,
		     struct client_pool *pool, uint64_t until_ns)
{
	add_costs(candidate);
	if (candidate->transport == SLU_TRANSPORT_SHM)
		consider_shm(choice, candidate, pool, until_ns);
	else if (candidate->transport == SLU_TRANSPORT_VERBS)
		consider_verbs(choice, candidate);
	else
		consider_tcp(choice, candidate);
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

int choice_make(struct choice *choice, struct client_pool *pool,
		const struct verbs_devices *devices, bool rdma_plain, const char *name,
		enum slu_transport wanted, uint64_t until_ns)
{
	int rc;

	memset(choice, 0, sizeof(*choice));
	choice->devices = devices;
	choice->rdma_plain = rdma_plain;
	rc = p2p_parse(name, &choice->name);
	if (rc == 0)
		rc = client_connect(pool, &choice->name.endpoint, choice->name.segment, until_ns,
				    &choice->connection);
	if (rc < 0)
		return rc;
	for (; choice->count < SLU_CANDIDATES_MAX; choice->count++) {
		struct slu_candidate *candidate = &choice->candidates[choice->count];

		candidate->transport = preference[choice->count];
		consider(choice, candidate, pool, until_ns);
	}
	take(choice, wanted);
	return 0;
}

void choice_refuse(struct choice *choice, enum slu_transport refused, enum slu_transport wanted,
		   const char *why)
{
	for (uint32_t i = 0; i < choice->count; i++) {
		if (choice->candidates[i].transport == refused)
			say(&choice->candidates[i], false, "%s", why);
		choice->candidates[i].chosen = false;
	}
	take(choice, wanted);
}

struct client *choice_connection(const struct choice *choice, enum slu_transport transport)
{
	return transport == SLU_TRANSPORT_SHM ? choice->local : choice->connection;
}

int choice_fail(const struct choice *choice, enum slu_transport wanted)
{
	for (uint32_t i = 0; i < choice->count; i++)
		if (choice->candidates[i].transport == wanted)
			return fail(-EOPNOTSUPP, "%s was required: %s", slu_transport_name(wanted),
				    choice->candidates[i].reason);
	return fail(-EOPNOTSUPP, "no transport can be used: shm: %s; verbs: %s; tcp: %s",
		    choice->candidates[0].reason, choice->candidates[1].reason,
		    choice->candidates[2].reason);
}

void choice_release(struct choice *choice, const struct client *kept)
{
	if (choice->local != choice->connection && choice->local != kept)
		client_release(choice->local);
	if (choice->connection != kept)
		client_release(choice->connection);
	choice->local = choice->connection = NULL;
}
