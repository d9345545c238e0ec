/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Waking the owner of a segment, who sleeps on one descriptor, from other processes and from our
 * own pollers.
 *
 * Whatever two processes share, the flags of an open file included, either can change. So each area
 * has a descriptor of its own, and neither side ever reads or writes it, which could be made to
 * block: it is a timer (timerfd). The client sets it to expire at once, which never waits for
 * anything; the owner waits for its edges with an epoll set that is nobody else's, and which tells
 * it, awake or asleep, who has rung: a list of the ready that no client can write. A client in bad
 * faith can wake the owner for nothing, and can keep only itself from being heard. (A pipe
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

/** An eventfd that wakes it, until it is cleared; for this process only: to be written, not read.
 */
int wake_set_eventfd(const struct wake_set *set);

/**
 * What a client rings, and wake_set_take() tells as @p number. Control thread.
 *
 * @return the descriptor, for wake_set_remove(); -EMFILE, -ENOMEM, -ENOSPC, with a text
 */
int wake_set_add(struct wake_set *set, uint32_t number);

/** Whoever has it cannot wake the owner any more. It is closed. Control thread. */
void wake_set_remove(struct wake_set *set, int fd);

/** Forget that the eventfd was written. The owner. */
void wake_set_clear(struct wake_set *set);

/** Taken in one call: who rings all the time is not waited for. */
#define WAKE_TAKEN 64u

/**
 * Forget who has rung; what rings from now on is not forgotten. Never waits. The owner.
 *
 * @return how many are in @p numbers; WAKE_TAKEN - 1 or more: there may be others
 */
uint32_t wake_set_take(struct wake_set *set, uint32_t numbers[WAKE_TAKEN]);

/** Client: is @p fd what can be rung? @return 0; -EPROTO */
int wake_check(int fd);

/** Client: never waits. */
void wake_ring(int fd);

#endif
