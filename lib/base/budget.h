/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What one identity has of this target, and how much it may have: the one place of limits per
 * identity. All connections of an identity share a budget.
 *
 * Whoever keeps a budget holds a reference; what was taken is given back before the reference is.
 * Finding a budget, the table and its settings belong to the control thread; the rest is free of
 * locks and for any thread, pollers too.
 *
 * budgets_create -> (budgets_set) -> budget_find -> budget_take / budget_give -> budget_put
 *                -> budgets_destroy
 */
#ifndef BASE_BUDGET_H
#define BASE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/security.h>

/* What every identity may have. A gateway of 60,000 sessions gets along with it. */
#define BUDGET_CONNECTIONS      4096u
#define BUDGET_DATA_CONNECTIONS 1024u /* of up to 400 KiB */
#define BUDGET_SESSIONS         65536u
#define BUDGET_LINKS            1024u
#define BUDGET_RESPONSE_BYTES   (64u << 20)
#define BUDGET_REQUESTS         1024u
#define BUDGET_DESCRIPTORS      256u /* a quarter of what most systems let a process have open */

#define BUDGET_CALL_BYTES    (64u << 20)
#define BUDGET_CONTROL_BYTES (4u << 20)

struct budget;
struct budgets;

/**
 * Do @p limits and @p own limit nothing but what we know? Any thread.
 *
 * @param limits  SLU_LIMITS_MAX of them, or NULL
 * @return        0; -E2BIG
 */
int limits_check_known(const uint64_t limits[SLU_LIMITS_MAX], const struct slu_identity_limits *own,
		       uint32_t count);

/**
 * @param limits  for all, by enum slu_limit; an item of 0, or NULL: the defaults above
 * @return        0; -ENOMEM
 */
int budgets_create(const uint64_t limits[SLU_LIMIT_COUNT], struct budgets **budgets);

/** Every reference has been put. Accepts NULL. */
void budgets_destroy(struct budgets *budgets);

/**
 * Replace the limits. What an identity has beyond a new one it keeps, but gets no more.
 *
 * @param limits  as above
 * @param own     limits of some identities; copied
 * @return        0; -EINVAL an identity twice; -ENOMEM; nothing was changed then
 */
int budgets_set(struct budgets *budgets, const uint64_t limits[SLU_LIMIT_COUNT],
		const struct slu_identity_limits *own, uint32_t count);

/** The budget of @p identity, with a reference for the caller. @return NULL: out of memory */
struct budget *budget_find(struct budgets *budgets, const char *identity);

/** One more reference, by whoever holds one. Accepts NULL. @return @p budget */
struct budget *budget_get(struct budget *budget);

/** Accepts NULL. */
void budget_put(struct budget *budget);

/**
 * Take @p n of @p limit. NULL is a budget without limits.
 *
 * @return 0; -EDQUOT, slu_last_error() names the identity, the limit and what raises it
 */
int budget_take(struct budget *budget, enum slu_limit limit, uint64_t n);

/** The same without a text, for a poller that will ask again. */
bool budget_try(struct budget *budget, enum slu_limit limit, uint64_t n);

/** Give back what was taken. */
void budget_give(struct budget *budget, enum slu_limit limit, uint64_t n);

/**
 * Add @p n to what was spent of @p limit in this second, beyond the limit as well: it has happened.
 * Control thread.
 *
 * @return may there be more before the second is over? NULL is a budget without limits.
 */
bool budget_spend(struct budget *budget, enum slu_limit limit, uint64_t n, uint64_t now_ns);

/**
 * Areas shared with clients of it that stay a while after their clients have left. Control thread.
 * NULL has none.
 */
void budget_linger(struct budget *budget, int more);
uint32_t budget_lingering(const struct budget *budget);

uint64_t budget_used(const struct budget *budget, enum slu_limit limit);
uint64_t budget_limit(const struct budget *budget, enum slu_limit limit);

/** Control and data connections together. */
uint64_t budget_connections(const struct budget *budget);

/**
 * The budget with the most connections, as far as is known: @p grown has got one just now. Control
 * thread. Without a reference: valid until another budget is found.
 */
struct budget *budgets_largest(struct budgets *budgets, struct budget *grown);

/** Budgets in the table: those that somebody holds, and a few that nobody does any more. */
uint32_t budgets_count(const struct budgets *budgets);

#endif
