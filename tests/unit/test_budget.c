/* SPDX-License-Identifier: Apache-2.0 */
#include "base/budget.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <sluice/error.h>

#include "base/clock.h"
#include "tests/tap.h"

#define THREADS 4
#define ROUNDS  20000

static struct budgets *budgets;

static int set_up(void **state)
{
	(void)state;
	return budgets_create(NULL, &budgets);
}

static int tear_down(void **state)
{
	(void)state;
	budgets_destroy(budgets);
	return 0;
}

/* Goal: every limit has a name, a text and a default. */
static void test_names(void **state)
{
	(void)state;
	for (int i = 0; i < SLU_LIMIT_COUNT; i++) {
		assert_int_equal(strncmp(slu_limit_name(i), "max-", 4), 0);
		assert_true(strlen(slu_limit_text(i)) > 0 && slu_limit_default(i) > 0);
	}
	assert_string_equal(slu_limit_name(SLU_LIMIT_COUNT), "unknown");
}

/* Goal: an identity gets what its limit is, not one more, and again after giving back; another one
 * has its own. The refusal names the identity, the limit and the settings. */
static void test_take_and_give(void **state)
{
	struct budget *alice = budget_find(budgets, "alice"), *bob = budget_find(budgets, "bob");

	(void)state;
	assert_int_equal(budget_take(alice, SLU_LIMIT_SESSIONS, BUDGET_SESSIONS - 1), 0);
	assert_int_equal(budget_take(alice, SLU_LIMIT_SESSIONS, 2), -EDQUOT);
	assert_int_equal(budget_take(alice, SLU_LIMIT_SESSIONS, 1), 0);
	assert_int_equal(budget_take(alice, SLU_LIMIT_SESSIONS, 1), -EDQUOT);
	assert_non_null(strstr(slu_last_error(), "alice has its limit of 65536 sessions"));
	assert_non_null(strstr(slu_last_error(), "--max-sessions"));
	assert_non_null(strstr(slu_last_error(), "[identity alice]"));
	assert_false(budget_try(alice, SLU_LIMIT_SESSIONS, UINT64_MAX));
	assert_int_equal(budget_take(alice, SLU_LIMIT_LINKS, 1), 0);
	assert_int_equal(budget_take(bob, SLU_LIMIT_SESSIONS, 1), 0);
	budget_give(alice, SLU_LIMIT_SESSIONS, 1);
	assert_int_equal(budget_used(alice, SLU_LIMIT_SESSIONS), BUDGET_SESSIONS - 1);
	assert_true(budget_try(alice, SLU_LIMIT_SESSIONS, 1));
	assert_int_equal(budget_take(NULL, SLU_LIMIT_SESSIONS, UINT64_MAX), 0);
	budget_give(NULL, SLU_LIMIT_SESSIONS, 1);
	budget_put(alice);
	budget_put(bob);
	budget_put(NULL);
}

/* Goal: what is limited in each second is all spent or not, and is there again in the next; what
 * has happened counts, however much it was. */
static void test_each_second(void **state)
{
	struct budget *alice = budget_find(budgets, "alice"), *bob = budget_find(budgets, "bob");
	uint64_t now = 5 * NS_PER_SECOND;

	(void)state;
	assert_true(budget_spend(alice, SLU_LIMIT_CONTROL_BYTES, 0, now));
	assert_true(budget_spend(alice, SLU_LIMIT_CONTROL_BYTES, BUDGET_CONTROL_BYTES - 1, now));
	assert_false(budget_spend(alice, SLU_LIMIT_CONTROL_BYTES, 16384, now + 1));
	assert_false(budget_spend(alice, SLU_LIMIT_CONTROL_BYTES, 0, now + NS_PER_SECOND - 1));
	assert_true(budget_spend(bob, SLU_LIMIT_CONTROL_BYTES, 16384, now));
	assert_true(budget_spend(alice, SLU_LIMIT_CONTROL_BYTES, 0, now + NS_PER_SECOND));
	assert_false(budget_spend(alice, SLU_LIMIT_CONTROL_BYTES, BUDGET_CONTROL_BYTES,
				  now + 9 * NS_PER_SECOND));
	assert_true(budget_spend(NULL, SLU_LIMIT_CONTROL_BYTES, UINT64_MAX, now));
	budget_put(alice);
	budget_put(bob);
}

/* Goal: limits of one identity, of all, and the defaults, the most specific first; also for budgets
 * that are in use, which keep what they have. */
static void test_settings(void **state)
{
	const uint64_t all[SLU_LIMIT_COUNT] = {[SLU_LIMIT_SESSIONS] = 3, [SLU_LIMIT_LINKS] = 7};
	const struct slu_identity_limits own[] = {
		{"carol", {[SLU_LIMIT_SESSIONS] = 9}},
		{"alice", {[SLU_LIMIT_SESSIONS] = 1, [SLU_LIMIT_REQUESTS] = 5}},
	};
	const struct slu_identity_limits twice[] = {{"bob", {1}}, {"bob", {1}}};
	struct budget *alice = budget_find(budgets, "alice"), *bob;

	(void)state;
	assert_true(budget_try(alice, SLU_LIMIT_SESSIONS, 2));
	assert_int_equal(budgets_set(budgets, all, own, 2), 0);
	bob = budget_find(budgets, "bob");
	assert_int_equal(budget_limit(alice, SLU_LIMIT_SESSIONS), 1);
	assert_int_equal(budget_limit(alice, SLU_LIMIT_REQUESTS), 5);
	assert_int_equal(budget_limit(alice, SLU_LIMIT_LINKS), 7);
	assert_int_equal(budget_limit(bob, SLU_LIMIT_SESSIONS), 3);
	assert_int_equal(budget_limit(bob, SLU_LIMIT_REQUESTS), BUDGET_REQUESTS);
	assert_false(budget_try(alice, SLU_LIMIT_SESSIONS, 1));
	budget_give(alice, SLU_LIMIT_SESSIONS, 2);
	assert_true(budget_try(alice, SLU_LIMIT_SESSIONS, 1));
	assert_int_equal(budgets_set(budgets, NULL, twice, 2), -EINVAL);
	assert_int_equal(budget_limit(bob, SLU_LIMIT_SESSIONS), 3);
	assert_int_equal(budgets_set(budgets, NULL, NULL, 0), 0);
	assert_int_equal(budget_limit(alice, SLU_LIMIT_SESSIONS), BUDGET_SESSIONS);
	budget_put(alice);
	budget_put(bob);
}

/* Goal: an identity has one budget however often it is found; budgets that nobody holds go, so that
 * the table does not grow with identities that were here once, and those that are held stay. */
static void test_table(void **state)
{
	struct budget *held = budget_find(budgets, "held");

	(void)state;
	assert_true(budget_try(held, SLU_LIMIT_LINKS, 3));
	assert_ptr_equal(budget_find(budgets, "held"), held);
	budget_put(held);
	for (int i = 0; i < 20000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "id%d", i);
		budget_put(budget_find(budgets, name));
		assert_true(budgets_count(budgets) < 3000);
	}
	assert_ptr_equal(budget_find(budgets, "held"), held);
	assert_int_equal(budget_used(held, SLU_LIMIT_LINKS), 3);
	budget_put(held);
	budget_put(held);
}

/* Goal: the identity with the most connections is known, also when another has overtaken it, or it
 * has gone. */
static void test_largest(void **state)
{
	struct budget *alice = budget_find(budgets, "alice"), *bob = budget_find(budgets, "bob");

	(void)state;
	assert_true(budget_try(alice, SLU_LIMIT_CONNECTIONS, 2));
	assert_ptr_equal(budgets_largest(budgets, alice), alice);
	assert_true(budget_try(bob, SLU_LIMIT_CONNECTIONS, 1));
	assert_ptr_equal(budgets_largest(budgets, bob), alice);
	assert_true(budget_try(bob, SLU_LIMIT_DATA_CONNECTIONS, 2));
	assert_int_equal(budget_connections(bob), 3);
	assert_ptr_equal(budgets_largest(budgets, bob), bob);
	budget_give(bob, SLU_LIMIT_CONNECTIONS, 1);
	budget_give(bob, SLU_LIMIT_DATA_CONNECTIONS, 2);
	assert_ptr_equal(budgets_largest(budgets, alice), alice);
	budget_give(alice, SLU_LIMIT_CONNECTIONS, 2);
	budget_put(bob);
	budget_put(alice);
	for (int i = 0; i < 2000; i++) {
		char name[16];

		snprintf(name, sizeof(name), "id%d", i);
		budget_put(budget_find(budgets, name));
	}
	bob = budget_find(budgets, "bob");
	assert_ptr_equal(budgets_largest(budgets, bob), bob);
	budget_put(bob);
}

static void *take_and_give(void *arg)
{
	struct budget *budget = arg;

	for (int i = 0; i < ROUNDS; i++) {
		assert_true(budget_try(budget, SLU_LIMIT_RESPONSE_BYTES, 10));
		budget_give(budget, SLU_LIMIT_RESPONSE_BYTES, 10);
	}
	budget_put(budget);
	return NULL;
}

/* Goal: threads that stay within the limit together are never refused, and nothing is left. */
static void test_threads(void **state)
{
	const uint64_t all[SLU_LIMIT_COUNT] = {[SLU_LIMIT_RESPONSE_BYTES] = 10 * THREADS};
	struct budget *budget = budget_find(budgets, "many");
	pthread_t threads[THREADS];

	(void)state;
	assert_int_equal(budgets_set(budgets, all, NULL, 0), 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, take_and_give, budget_get(budget)), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(budget_used(budget, SLU_LIMIT_RESPONSE_BYTES), 0);
	budget_put(budget);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_names, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_take_and_give, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_each_second, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_settings, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_table, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_largest, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
