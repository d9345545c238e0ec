/* SPDX-License-Identifier: Apache-2.0 */
/* Who may do what with our segments; and sessions that lose a right while they run. */
#include <errno.h>

#include "base/fork.h"
#include "base/log.h"
#include "engine/engine_internal.h"

int rights_start(struct slu_engine *engine, const struct slu_engine_options *options)
{
	return access_create(options->grants, options->grants_count, &engine->access);
}

/* Marks those whose sessions end, so that what they still ask for is answered with the reason. */
static bool has_lost(void *arg, void *unused)
{
	struct segment_client *client = arg;
	const struct access *access = client->segment->engine->access;
	uint32_t rights = access_rights(access, client->peer.identity, client->peer.owner,
					client->segment->name);

	(void)unused;
	if (!(client->rights & ~rights))
		return false;
	if (client->reason == 0)
		log_peer(SLU_LOG_WARNING, "%s loses segment %s: the grants have changed",
			 client->peer.identity, client->segment->name);
	client->reason = -EKEYREVOKED;
	return true;
}

struct replace_call {
	struct slu_engine *engine;
	struct access *access;
};

static int replace(void *arg)
{
	struct replace_call *call = arg;
	struct access *old = call->engine->access;

	if (access_is_open(call->access) && !access_is_open(old))
		return -EINVAL;
	call->engine->access = call->access;
	access_destroy(old);
	return 0;
}

int slu_engine_set_grants(struct slu_engine *engine, const struct slu_grant *grants, uint32_t count)
{
	struct replace_call call = {.engine = engine};
	int rc = fork_check();

	if (rc == 0)
		rc = access_create(grants, count, &call.access);
	if (rc < 0)
		return rc;
	rc = control_call(engine->control, replace, &call);
	if (rc < 0) {
		access_destroy(call.access);
		return fail(rc, "no grants at all would let everybody do everything: if that is "
				"meant, grant every right to * on *");
	}
	server_revoke(engine->server, has_lost, NULL, -EKEYREVOKED);
	serve_wait(engine); /* until no memory window of theirs is open */
	return 0;
}

struct limits_call {
	struct slu_engine *engine;
	const uint64_t *limits;
	const struct slu_identity_limits *own;
	uint32_t count;
};

static int replace_limits(void *arg)
{
	struct limits_call *call = arg;

	return budgets_set(call->engine->budgets, call->limits, call->own, call->count);
}

int slu_engine_set_limits(struct slu_engine *engine, const uint64_t limits[SLU_LIMITS_MAX],
			  const struct slu_identity_limits *own, uint32_t count)
{
	struct limits_call call = {engine, limits, own, count};
	int rc = fork_check();

	if (rc == 0)
		rc = limits_check_known(limits, own, count);
	if (rc < 0)
		return rc;
	rc = control_call(engine->control, replace_limits, &call);
	/* The text was left on the control thread. */
	return rc == -EINVAL ? fail(rc,
				    "limits of one identity twice, or of a name that is longer "
				    "than %d",
				    SLU_IDENTITY_MAX)
	       : rc < 0      ? fail(rc, "out of memory")
			     : 0;
}

bool rights_any(void *arg, const struct peer_info *peer)
{
	const struct slu_engine *engine = arg;

	return access_any(engine->access, peer->identity, peer->owner);
}

int slu_engine_reload_tls(struct slu_engine *engine)
{
	int rc = fork_check();

	if (rc == 0 && engine->server_tls)
		rc = server_reload_tls(engine->server);
	if (rc == 0 && engine->client_tls)
		rc = tls_reload(engine->client_tls);
	return rc;
}
