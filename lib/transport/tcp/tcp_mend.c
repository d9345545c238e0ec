/* SPDX-License-Identifier: Apache-2.0 */
/* A link gets connections, its first or when it has lost those that it had (repair.h). */
#include <errno.h>
#include <stddef.h>

#include "base/log.h"
#include "transport/tcp/tcp.h"

/* Who has something to post on it is told so, and fails. */
static int give_up(struct tcp_link *link)
{
	link->mending.hopeless = true;
	link->error = -ECONNRESET;
	transport_changed();
	return fail(-ECONNRESET, "the data connections to target %s are lost", link->target);
}

int tcp_link_mend(struct repair_item *item, uint64_t until_ns)
{
	struct tcp_link *link =
		(struct tcp_link *)((char *)item - offsetof(struct tcp_link, mending));

	/* Pairs with the release in take_down(). */
	if (!link->error &&
	    atomic_load_explicit(&link->state, memory_order_acquire) != TCP_LINK_DOWN)
		return 0;
	if (link->error || atomic_load(&link->peer->lost))
		return give_up(link);
	if (link->losses >= TCP_LOSSES_MAX) {
		log_peer(SLU_LOG_ERROR,
			 "data connections to target %s are lost before they carry anything, %u "
			 "times in a row: look at the target's log",
			 link->target, link->losses);
		return give_up(link);
	}
	return tcp_link_dial(link, until_ns);
}
