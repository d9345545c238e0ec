/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Waking the owner of a segment, who sleeps on one descriptor, from other processes and from our
 * own pollers.
 *
 * Whatever two processes share, the flags of an open file included, either can change. So each
 * connection has a descriptor of its own, and neither side ever reads or writes it, which could be
 * made to block: it is a timer (timerfd). The client sets it to expire at once, which never waits
 * for anything; the owner waits for its edges with an epoll set that is nobody else's. A client in
 * bad faith can wake the owner for nothing, and can keep only itself from being heard. (A pipe
 * would not do: who is stopped in a write to it, by a page that comes late, keeps every reader and
 * writer waiting, O_NONBLOCK or not.)
 */
#ifndef MESSAGE_WAKE_H
#define MESSAGE_WAKE_H

#include <stdint.h>

struct wake_set;

/** @return 0; -EMFILE, -ENOMEM, -errno */
int wake_set_create(struct wake_set **set);

/** Accepts NULL. */
void wake_set_destroy(struct wake_set *set);

/** To be polled for reading. Lives with the set. */
int wake_set_fd(const struct wake_set *set);

/** An eventfd that wakes it, for this process only: to be written, never read. */
int wake_set_eventfd(const struct wake_set *set);

/**
 * What a client on @p connection rings; one for all of its sessions. Counted. Control thread.
 *
 * @return a descriptor that belongs to the set; -EMFILE, -ENOMEM, -ENOSPC, with a text
 */
int wake_set_get(struct wake_set *set, uint64_t connection);

/** One got less; after the last nobody on @p connection can wake it any more. Control thread. */
void wake_set_put(struct wake_set *set, uint64_t connection);

/** Forget what has rung: what rings from now on is not forgotten. Never waits. The owner. */
void wake_set_clear(struct wake_set *set);

/** Client: is @p fd what can be rung? @return 0; -EPROTO */
int wake_check(int fd);

/** Client: never waits. */
void wake_ring(int fd);

#endif
