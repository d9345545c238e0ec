/* SPDX-License-Identifier: Apache-2.0 */
/* A link gets new connections when it has lost those that it had: an attempt of the repair thread.
 */
#include <errno.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/tcp/tcp.h"

#define ATTEMPT_NS (3 * NS_PER_SECOND)

/* Who has something to post on it is told so, and fails. */
static bool give_up(struct tcp_link *link)
{
	link->error = -ECONNRESET;
	transport_changed();
	return true;
}

bool tcp_link_mend(struct repair_item *item)
{
	struct tcp_link *link =
		(struct tcp_link *)((char *)item - offsetof(struct tcp_link, mending));

	if (atomic_load(&link->peer->lost))
		return give_up(link);
	if (link->losses >= TCP_LOSSES_MAX) {
		log_peer(SLU_LOG_ERROR,
			 "data connections to target %s are lost before they carry anything, %u "
			 "times in a row: look at the target's log",
			 link->target, link->losses);
		return give_up(link);
	}
	if (tcp_link_dial(link, clock_monotonic_ns(NULL) + ATTEMPT_NS) == 0)
		return true;
	log_peer(SLU_LOG_WARNING, "no new data connections to target %s yet: %s", link->target,
		 slu_last_error());
	return false;
}
