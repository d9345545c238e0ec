/* SPDX-License-Identifier: Apache-2.0 */
#include "control/access.h"

#include <errno.h>
#include <string.h>

#include <sluice/segment.h>

#include "base/log.h"
#include "tests/tap.h"

#define NONE 0u
#define READ SLU_RIGHT_READ
#define BOTH (SLU_RIGHT_READ | SLU_RIGHT_WRITE)

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct access *table;

static int drop(void **state)
{
	(void)state;
	access_destroy(table);
	table = NULL;
	return 0;
}

static void make(const struct slu_grant *grants, size_t count)
{
	assert_int_equal(access_create(grants, (uint32_t)count, &table), 0);
}

static void expect(const char *identity, bool owner, const char *segment, uint32_t rights)
{
	uint32_t found = access_rights(table, identity, owner, segment);

	if (found != rights)
		fail_msg("%s on %s: %u, not %u", identity, segment, found, rights);
}

/* Goal: without a grant whoever was let in has all. */
static void test_no_grants(void **state)
{
	(void)state;
	make(NULL, 0);
	expect("anonymous", false, "ram", BOTH);
	expect("alice", false, "ram", BOTH);
}

/* Goal: the most specific grant counts, in the documented order, also when it gives less. */
static void test_specific_wins(void **state)
{
	static const struct slu_grant grants[] = {
		{"*", "*", READ},        {"*", "open", BOTH},  {"alice", "*", BOTH},
		{"alice", "open", NONE}, {"bob", "ram", BOTH}, {"carol", "*", NONE},
	};

	(void)state;
	make(grants, COUNT(grants));
	expect("alice", false, "open", NONE);
	expect("alice", false, "ram", BOTH);
	expect("bob", false, "ram", BOTH);
	expect("bob", false, "open", BOTH);
	expect("bob", false, "other", READ);
	expect("carol", false, "open", NONE);
	expect("zoe", false, "open", BOTH);
	expect("zoe", false, "ram", READ);
}

/* Goal: who is not named has nothing once somebody is. */
static void test_closed_by_default(void **state)
{
	static const struct slu_grant grants[] = {{"alice", "ram", READ}};

	(void)state;
	make(grants, COUNT(grants));
	expect("alice", false, "ram", READ);
	expect("alice", false, "rom", NONE);
	expect("alic", false, "ram", NONE);
	expect("alicea", false, "ram", NONE);
	expect("*", false, "ram", NONE);
	expect("bob", false, "ram", NONE);
	expect("", false, "", NONE);
}

/* Goal: the owner has all, whatever is granted to everybody, unless a grant names it. */
static void test_owner(void **state)
{
	static const struct slu_grant grants[] = {
		{"*", "*", NONE}, {"*", "ram", READ}, {"user:op", "rom", READ}};

	(void)state;
	make(grants, COUNT(grants));
	expect("user:op", true, "ram", BOTH);
	expect("user:op", true, "other", BOTH);
	expect("user:op", true, "rom", READ);
	expect("user:root", true, "ram", BOTH);
	expect("user:op", false, "ram", READ);
}

/* Goal: whether somebody may do anything at all agrees with the rights on each segment. */
static void test_any(void **state)
{
	static const struct slu_grant grants[] = {
		{"alice", "ram", READ}, {"alice", "*", 0},  {"bob", "*", 0},
		{"carol", "ram", 0},    {"*", "rom", READ}, {"*", "ram", 0},
		{"zoe", "rom", BOTH},
	};
	static const struct slu_grant closed[] = {{"alice", "ram", READ}, {"*", "*", 0}};

	(void)state;
	make(grants, COUNT(grants));
	assert_true(access_any(table, "alice", false));
	assert_false(access_any(table, "bob", false) || access_any(table, "bob", true));
	assert_true(access_any(table, "carol", false)); /* rom, as everybody */
	assert_true(access_any(table, "zoe", false) && access_any(table, "stranger", false));
	drop(NULL);
	make(closed, COUNT(closed));
	assert_true(access_any(table, "alice", false) && access_any(table, "user:op", true));
	assert_false(access_any(table, "bob", false) || access_any(table, "zz", false));
	drop(NULL);
	make(NULL, 0);
	assert_true(access_any(table, "bob", false));
}

/* Goal: texts longer than any identity or segment match nothing but the stars. */
static void test_long_texts(void **state)
{
	static const struct slu_grant grants[] = {{"alice", "*", BOTH}, {"*", "*", READ}};
	char text[300];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	make(grants, COUNT(grants));
	expect(text, false, text, READ);
	expect("alice", false, text, BOTH);
}

/* Goal: bad grants are refused with their text, and leave nothing. */
static void test_bad_grants(void **state)
{
	static const struct slu_grant bad[][2] = {
		{{"", "ram", READ}, {"a", "b", READ}},
		{{"al ice", "ram", READ}, {"a", "b", READ}},
		{{NULL, "ram", READ}, {"a", "b", READ}},
		{{"a", NULL, READ}, {"b", "b", READ}},
		{{"a", "", READ}, {"b", "b", READ}},
		{{"a", "r/m", READ}, {"b", "b", READ}},
		{{"a", "**", READ}, {"b", "b", READ}},
		{{"a", "ram", 4}, {"b", "b", READ}},
		{{"a", "ram", READ}, {"a", "ram", BOTH}},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(access_create(bad[i], 2, &table), -EINVAL);
		assert_null(table);
		assert_non_null(strstr(slu_last_error(), "grant"));
	}
	assert_int_equal(access_create(bad[0], SLU_GRANTS_MAX + 1, &table), -EINVAL);
}

#define dropped(test) cmocka_unit_test_teardown(test, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		dropped(test_no_grants),
		dropped(test_specific_wins),
		dropped(test_closed_by_default),
		dropped(test_owner),
		dropped(test_any),
		dropped(test_long_texts),
		dropped(test_bad_grants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
