/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uses are counted by compare and exchange, so that nobody is refused because of another who was.
 *
 * A budget that nobody holds any more may be put by a poller, which cannot free it: the control
 * thread does when it makes others, two chains of the table each time.
 */
#include "base/budget.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/sized.h"

#define CHAINS             1024u /* a power of two */
#define CHAINS_PER_CLEANUP 2

struct budget {
	_Atomic uint32_t references;
	_Atomic uint64_t limits[SLU_LIMIT_COUNT];
	_Alignas(64) _Atomic uint64_t used[SLU_LIMIT_COUNT];
	uint64_t second[SLU_LIMIT_COUNT]; /* in which it was used, of what is limited in each */
	uint32_t lingering;
	char identity[SLU_IDENTITY_MAX + 1];
	LIST_ENTRY(budget) link;
};

LIST_HEAD(budget_chain, budget);

struct own_limits {
	char identity[SLU_IDENTITY_MAX + 1];
	uint64_t limits[SLU_LIMIT_COUNT];
};

struct budgets {
	uint64_t limits[SLU_LIMIT_COUNT];
	uint32_t own_count;
	struct own_limits *own; /* by identity */
	uint32_t count;
	uint32_t next_chain; /* to be cleaned up */
	struct budget *largest;
	struct budget_chain chains[CHAINS];
};

static const struct {
	const char *name;
	const char *text;
	uint64_t initial;
} kinds[SLU_LIMIT_COUNT] = {
	[SLU_LIMIT_CONNECTIONS] = {"max-connections", "control connections", BUDGET_CONNECTIONS},
	[SLU_LIMIT_DATA_CONNECTIONS] = {"max-data-connections", "data connections",
					BUDGET_DATA_CONNECTIONS},
	[SLU_LIMIT_SESSIONS] = {"max-sessions", "sessions", BUDGET_SESSIONS},
	[SLU_LIMIT_LINKS] = {"max-links", "RDMA links", BUDGET_LINKS},
	[SLU_LIMIT_RESPONSE_BYTES] = {"max-response-bytes",
				      "bytes of responses that it does not "
				      "read",
				      BUDGET_RESPONSE_BYTES},
	[SLU_LIMIT_REQUESTS] = {"max-requests", "requests that are not answered yet",
				BUDGET_REQUESTS},
	[SLU_LIMIT_DESCRIPTORS] = {"max-descriptors", "descriptors that it has not received yet",
				   BUDGET_DESCRIPTORS},
	[SLU_LIMIT_CALL_BYTES] = {"max-call-bytes", "bytes of long calls that are not answered yet",
				  BUDGET_CALL_BYTES},
	[SLU_LIMIT_CONTROL_BYTES] = {"max-control-bytes", "bytes of control messages in a second",
				     BUDGET_CONTROL_BYTES},
};

const char *slu_limit_name(enum slu_limit limit)
{
	return (unsigned)limit < SLU_LIMIT_COUNT ? kinds[limit].name : "unknown";
}

const char *slu_limit_text(enum slu_limit limit)
{
	return (unsigned)limit < SLU_LIMIT_COUNT ? kinds[limit].text : "unknown";
}

uint64_t slu_limit_default(enum slu_limit limit)
{
	return (unsigned)limit < SLU_LIMIT_COUNT ? kinds[limit].initial : 0;
}

/* ---- limits ---- */

static int check_room(const char *what, const uint64_t limits[SLU_LIMITS_MAX])
{
	return sized_check_reserved(what, limits + SLU_LIMIT_COUNT,
				    (SLU_LIMITS_MAX - SLU_LIMIT_COUNT) * sizeof(*limits));
}

int limits_check_known(const uint64_t limits[SLU_LIMITS_MAX], const struct slu_identity_limits *own,
		       uint32_t count)
{
	int rc = limits ? check_room("limits beyond SLU_LIMIT_COUNT", limits) : 0;

	for (uint32_t i = 0; rc == 0 && i < count; i++) {
		rc = check_room("slu_identity_limits.limits beyond SLU_LIMIT_COUNT", own[i].limits);
		if (rc == 0)
			rc = sized_check_reserved("slu_identity_limits.reserved", own[i].reserved,
						  sizeof(own[i].reserved));
	}
	return rc;
}

static void fill(uint64_t limits[SLU_LIMIT_COUNT], const uint64_t given[SLU_LIMIT_COUNT])
{
	for (int i = 0; i < SLU_LIMIT_COUNT; i++)
		limits[i] = given && given[i] ? given[i] : kinds[i].initial;
}

static int compare(const void *a, const void *b)
{
	const struct own_limits *one = a, *other = b;

	return strcmp(one->identity, other->identity);
}

static void apply(const struct budgets *budgets, struct budget *budget)
{
	struct own_limits key = {0};
	const struct own_limits *own = NULL;

	strcpy(key.identity, budget->identity);
	if (budgets->own_count > 0)
		own = bsearch(&key, budgets->own, budgets->own_count, sizeof(key), compare);
	for (int i = 0; i < SLU_LIMIT_COUNT; i++)
		atomic_store_explicit(&budget->limits[i],
				      own && own->limits[i] ? own->limits[i] : budgets->limits[i],
				      memory_order_relaxed);
}

static int copy_own(const struct slu_identity_limits *given, uint32_t count,
		    struct own_limits **out)
{
	struct own_limits *own = calloc((size_t)count + 1, sizeof(*own));

	if (!own)
		return fail(-ENOMEM, "out of memory");
	for (uint32_t i = 0; i < count; i++) {
		if (strlen(given[i].identity) > SLU_IDENTITY_MAX) {
			free(own);
			return fail(-EINVAL, "limits of identity \"%.80s\": it is longer than %d",
				    given[i].identity, SLU_IDENTITY_MAX);
		}
		strcpy(own[i].identity, given[i].identity);
		memcpy(own[i].limits, given[i].limits, sizeof(own[i].limits));
	}
	qsort(own, count, sizeof(*own), compare);
	for (uint32_t i = 1; i < count; i++)
		if (compare(&own[i - 1], &own[i]) == 0) {
			int rc = fail(-EINVAL, "there are limits for %s twice: keep one",
				      own[i].identity);

			free(own);
			return rc;
		}
	*out = own;
	return 0;
}

int budgets_set(struct budgets *budgets, const uint64_t limits[SLU_LIMIT_COUNT],
		const struct slu_identity_limits *given, uint32_t count)
{
	struct own_limits *own = NULL;
	struct budget *budget;
	int rc = copy_own(given, count, &own);

	if (rc < 0)
		return rc;
	free(budgets->own);
	budgets->own = own;
	budgets->own_count = count;
	fill(budgets->limits, limits);
	for (uint32_t i = 0; i < CHAINS; i++)
		LIST_FOREACH (budget, &budgets->chains[i], link)
			apply(budgets, budget);
	return 0;
}

/* ---- the table ---- */

int budgets_create(const uint64_t limits[SLU_LIMIT_COUNT], struct budgets **out)
{
	struct budgets *budgets = calloc(1, sizeof(*budgets));

	if (!budgets)
		return fail(-ENOMEM, "out of memory");
	fill(budgets->limits, limits);
	*out = budgets;
	return 0;
}

static void destroy(struct budgets *budgets, struct budget *budget)
{
	LIST_REMOVE(budget, link);
	budgets->count--;
	if (budgets->largest == budget)
		budgets->largest = NULL;
	free(budget);
}

void budgets_destroy(struct budgets *budgets)
{
	struct budget *budget;

	if (!budgets)
		return;
	for (uint32_t i = 0; i < CHAINS; i++)
		while ((budget = LIST_FIRST(&budgets->chains[i])))
			destroy(budgets, budget);
	free(budgets->own);
	free(budgets);
}

static struct budget_chain *chain_of(struct budgets *budgets, const char *identity)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

	for (const char *c = identity; *c; c++)
		hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	return &budgets->chains[(hash ^ hash >> 32) & (CHAINS - 1)];
}

/* Pairs with the release in budget_put(). */
static void clean_up(struct budgets *budgets)
{
	struct budget *budget, *next;

	for (int i = 0; i < CHAINS_PER_CLEANUP; i++) {
		budget = LIST_FIRST(&budgets->chains[budgets->next_chain++ & (CHAINS - 1)]);
		for (; budget; budget = next) {
			next = LIST_NEXT(budget, link);
			if (atomic_load_explicit(&budget->references, memory_order_acquire) == 0)
				destroy(budgets, budget);
		}
	}
}

static struct budget *create(struct budgets *budgets, const char *identity)
{
	size_t size = (sizeof(struct budget) + 63) / 64 * 64;
	struct budget *budget;

	clean_up(budgets);
	budget = aligned_alloc(64, size);
	if (!budget)
		return NULL;
	memset(budget, 0, size);
	strncpy(budget->identity, identity, SLU_IDENTITY_MAX);
	apply(budgets, budget);
	LIST_INSERT_HEAD(chain_of(budgets, budget->identity), budget, link);
	budgets->count++;
	return budget;
}

struct budget *budget_find(struct budgets *budgets, const char *identity)
{
	struct budget *budget;

	LIST_FOREACH (budget, chain_of(budgets, identity), link)
		if (strcmp(budget->identity, identity) == 0)
			return budget_get(budget);
	budget = create(budgets, identity);
	return budget ? budget_get(budget) : NULL;
}

struct budget *budget_get(struct budget *budget)
{
	if (budget)
		atomic_fetch_add_explicit(&budget->references, 1, memory_order_relaxed);
	return budget;
}

void budget_put(struct budget *budget)
{
	if (budget)
		atomic_fetch_sub_explicit(&budget->references, 1, memory_order_release);
}

/* ---- uses ---- */

bool budget_try(struct budget *budget, enum slu_limit limit, uint64_t n)
{
	uint64_t used, most;

	if (!budget)
		return true;
	most = budget_limit(budget, limit);
	used = atomic_load_explicit(&budget->used[limit], memory_order_relaxed);
	do
		if (used > most || n > most - used)
			return false;
	while (!atomic_compare_exchange_weak_explicit(&budget->used[limit], &used, used + n,
						      memory_order_relaxed, memory_order_relaxed));
	return true;
}

int budget_take(struct budget *budget, enum slu_limit limit, uint64_t n)
{
	if (budget_try(budget, limit, n))
		return 0;
	return fail(
		-EDQUOT,
		"identity %s has its limit of %" PRIu64
		" %s at the target: --%s raises it for all, %s under [identity %s] for it alone",
		budget->identity, budget_limit(budget, limit), kinds[limit].text, kinds[limit].name,
		kinds[limit].name, budget->identity);
}

void budget_give(struct budget *budget, enum slu_limit limit, uint64_t n)
{
	if (budget)
		atomic_fetch_sub_explicit(&budget->used[limit], n, memory_order_relaxed);
}

bool budget_spend(struct budget *budget, enum slu_limit limit, uint64_t n, uint64_t now_ns)
{
	uint64_t second = now_ns / NS_PER_SECOND;
	uint64_t spent;

	if (!budget)
		return true;
	spent = budget->second[limit] == second ? budget_used(budget, limit) + n : n;
	budget->second[limit] = second;
	atomic_store_explicit(&budget->used[limit], spent, memory_order_relaxed);
	return spent < budget_limit(budget, limit);
}

void budget_linger(struct budget *budget, int more)
{
	if (budget)
		budget->lingering += (uint32_t)more;
}

uint32_t budget_lingering(const struct budget *budget)
{
	return budget ? budget->lingering : 0;
}

uint64_t budget_used(const struct budget *budget, enum slu_limit limit)
{
	return atomic_load_explicit(&budget->used[limit], memory_order_relaxed);
}

uint64_t budget_limit(const struct budget *budget, enum slu_limit limit)
{
	return atomic_load_explicit(&budget->limits[limit], memory_order_relaxed);
}

uint64_t budget_connections(const struct budget *budget)
{
	return budget_used(budget, SLU_LIMIT_CONNECTIONS) +
	       budget_used(budget, SLU_LIMIT_DATA_CONNECTIONS);
}

/* One that was the largest and has shrunk gives way to the next that grows beyond it. */
struct budget *budgets_largest(struct budgets *budgets, struct budget *grown)
{
	if (!budgets->largest || budget_connections(grown) > budget_connections(budgets->largest))
		budgets->largest = grown;
	return budgets->largest;
}

uint32_t budgets_count(const struct budgets *budgets)
{
	return budgets->count;
}
