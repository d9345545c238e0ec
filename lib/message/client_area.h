/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a client shares with the owner of a segment beside the segment itself, where both reach the
 * same memory: notifications, calls, and the word by which the owner asks to be woken. Made by the
 * target, used by shm, where all sessions of one connection with the same rights on the segment
 * have one, and, within one process, by fake. Pages are touched only as lanes are used.
 *
 * Each session has a number (lane_session()), which goes with all that it leaves there. A client
 * may say that it is another session of its own; of others' it has no area.
 *
 * Waking: the owner sets armed and looks once more; a client that has stored something reads armed,
 * and whoever takes it back to 0 wakes the owner (wake.h). The barriers between the store and the
 * load of each (barrier_light_shared() here, barrier_heavy_shared() in slu_segment_arm()) see to it
 * that one sees the other.
 *
 * To notify takes the right to write, on every transport: the owner looks at no notifications of a
 * client without it, whatever stands in its area.
 */
#ifndef MESSAGE_CLIENT_AREA_H
#define MESSAGE_CLIENT_AREA_H

#include "base/barrier.h"
#include "memory/guard.h"
#include "message/mailbox.h"
#include "message/notify_ring.h"
#include "message/wake.h"

struct client_area {
	_Alignas(64) _Atomic uint32_t armed; /* owner sets, client clears */
	struct notify_ring notifications;
	struct mailbox calls;
};

static_assert(sizeof(struct client_area) ==
		      64 + sizeof(struct notify_ring) + sizeof(struct mailbox),
	      "shared layout");

#define CLIENT_AREA_BYTES ((sizeof(struct client_area) + 4095) / 4096 * 4096)

/** The owner's end. */
struct client_inbox {
	struct client_area *area;
	struct notify_inbox notifications;
	struct mailbox_receiver calls;
	uint32_t id;         /* tells the areas of a connection apart, also later ones */
	int fd;              /* of the area */
	int wake_fd;         /* by which the client wakes the owner; not owned */
	struct guard *guard; /* of the area */
};

/** A poller's way to wake the owner. */
struct client_waker {
	struct client_area *area;
	int wake_fd; /* not owned */
	bool fence;  /* the owner's heavy barrier does not reach us */
};

/** Make an area, in sealed memory. @p budget may be NULL. @return 0; -EMFILE, -ENOMEM */
int client_inbox_init(struct client_inbox *inbox, uint32_t id, uint32_t rights, int wake_fd,
		      struct budget *budget);

/** And the area. */
void client_inbox_fini(struct client_inbox *inbox);

/** Accepts NULL. */
void client_area_unmap(struct client_area *area);

/** Out of line: enters the kernel. */
void client_wake_owner(const struct client_waker *waker);

/** After something was stored for the owner: wake it if it has asked. */
static inline void client_stored(const struct client_waker *waker)
{
	barrier_light_shared(waker->fence);
	if (__builtin_expect(atomic_load_explicit(&waker->area->armed, memory_order_relaxed) != 0,
			     0))
		client_wake_owner(waker);
}

#endif
