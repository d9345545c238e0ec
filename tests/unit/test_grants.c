/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/grants.h"

#include <errno.h>

#include <sluice/error.h>

#include "tests/tap.h"

#define CONNECTION 5u

struct named {
	struct grant *grant;
	uint32_t handle;
	uint32_t generation;
};

static struct named add(struct grants *grants, uint64_t connection)
{
	const struct grant wanted = {.connection = connection, .rights = SLU_RIGHT_READ};
	json_t *description = json_object();
	json_int_t handle, generation;
	struct named named;

	assert_int_equal(grants_add(grants, &wanted, description, &named.grant), 0);
	assert_int_equal(json_unpack(description, "{s:I, s:I!}", "handle", &handle, "generation",
				     &generation),
			 0);
	json_decref(description);
	named.handle = (uint32_t)handle;
	named.generation = (uint32_t)generation;
	assert_int_equal(named.grant->handle, named.handle);
	return named;
}

static int find(const struct grants *grants, uint64_t connection, const struct named *named,
		struct grant **found)
{
	return grants_find(grants, connection, named->handle, named->generation, found);
}

/* Goal: a grant is found by whom it was given to, and by nobody else. */
static void test_found(void **state)
{
	struct grants *grants;
	struct grant *found = NULL;
	struct named one, two;

	(void)state;
	assert_int_equal(grants_create(&grants), 0);
	one = add(grants, CONNECTION);
	two = add(grants, CONNECTION + 1);
	assert_int_not_equal(one.handle, two.handle);
	assert_int_equal(find(grants, CONNECTION, &one, &found), 0);
	assert_ptr_equal(found, one.grant);
	assert_int_equal(find(grants, CONNECTION + 1, &two, &found), 0);
	assert_ptr_equal(found, two.grant);
	found = NULL;
	assert_int_equal(find(grants, CONNECTION + 1, &one, &found), -EACCES);
	assert_int_equal(find(grants, CONNECTION, &two, &found), -EACCES);
	assert_null(found);
	grants_end(grants, one.grant, -ESHUTDOWN);
	grants_free(grants, one.grant);
	grants_end(grants, two.grant, -ESHUTDOWN);
	grants_free(grants, two.grant);
	grants_destroy(grants);
}

/* Goal: into a grant of somebody else nobody looks, since it may have been freed: what is in its
 * memory does not make it his. */
static void test_not_looked_into(void **state)
{
	struct grants *grants;
	struct grant *found = NULL;
	struct named one;

	(void)state;
	assert_int_equal(grants_create(&grants), 0);
	one = add(grants, CONNECTION);
	one.grant->connection = CONNECTION + 1; /* as what came into its place */
	assert_int_equal(find(grants, CONNECTION + 1, &one, &found), -EACCES);
	assert_null(found);
	grants_end(grants, one.grant, -ESHUTDOWN);
	grants_free(grants, one.grant);
	grants_destroy(grants);
}

/* Goal: whatever number is named, there is an answer: none, or never again. */
static void test_any_number(void **state)
{
	static const uint32_t handles[] = {0, 1, 7, GRANTS_MAX - 1};
	static const uint32_t beyond[] = {GRANTS_MAX, GRANTS_MAX + 1, UINT32_MAX};
	struct grants *grants;
	struct grant *found;
	struct named one;

	(void)state;
	assert_int_equal(grants_create(&grants), 0);
	one = add(grants, CONNECTION);
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(grants_find(grants, CONNECTION, handles[i], 0, &found),
				 -EKEYREVOKED);
		assert_int_equal(grants_find(grants, CONNECTION, handles[i], 77, &found),
				 -EKEYREVOKED);
	}
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(grants_find(grants, CONNECTION, beyond[i], one.generation, &found),
				 -EACCES);
	grants_end(grants, one.grant, -ESHUTDOWN);
	grants_free(grants, one.grant);
	grants_destroy(grants);
}

/* Goal: an ended grant tells the reason, for as long as its place is not given to another. */
static void test_reasons(void **state)
{
	static const int reasons[] = {-ESHUTDOWN, -EKEYREVOKED, -ECONNRESET};
	struct grants *grants;
	struct grant *found;

	(void)state;
	assert_int_equal(grants_create(&grants), 0);
	for (size_t i = 0; i < 3; i++) {
		struct named one = add(grants, CONNECTION);

		grants_end(grants, one.grant, reasons[i]);
		assert_int_equal(find(grants, CONNECTION, &one, &found), reasons[i]);
		grants_free(grants, one.grant);
		assert_int_equal(find(grants, CONNECTION, &one, &found), reasons[i]);
	}
	grants_destroy(grants);
}

/* Goal: who names an earlier grant of the same place does not get the new one. */
static void test_generations(void **state)
{
	struct grants *grants;
	struct grant *found;
	struct named old, new;

	(void)state;
	assert_int_equal(grants_create(&grants), 0);
	old = add(grants, CONNECTION);
	grants_end(grants, old.grant, -ESHUTDOWN);
	grants_free(grants, old.grant);
	new = add(grants, CONNECTION);
	assert_int_equal(new.handle, old.handle);
	assert_int_not_equal(new.generation, old.generation);
	assert_int_equal(find(grants, CONNECTION, &old, &found), -EKEYREVOKED);
	assert_int_equal(find(grants, CONNECTION, &new, &found), 0);
	assert_ptr_equal(found, new.grant);
	grants_end(grants, new.grant, -ESHUTDOWN);
	grants_free(grants, new.grant);
	grants_destroy(grants);
}

/* Goal: places that were given back are given again, and those beyond come after. */
static void test_places(void **state)
{
	struct named some[200], more[201];
	struct grants *grants;
	bool taken[201] = {false};

	(void)state;
	assert_int_equal(grants_create(&grants), 0);
	for (int i = 0; i < 200; i++)
		some[i] = add(grants, CONNECTION);
	for (int i = 0; i < 200; i++) {
		grants_end(grants, some[i].grant, -ESHUTDOWN);
		grants_free(grants, some[i].grant);
	}
	for (int i = 0; i < 201; i++) {
		more[i] = add(grants, CONNECTION);
		assert_in_range(more[i].handle, 0, 200);
		assert_false(taken[more[i].handle]);
		taken[more[i].handle] = true;
	}
	for (int i = 0; i < 201; i++) {
		grants_end(grants, more[i].grant, -ESHUTDOWN);
		grants_free(grants, more[i].grant);
	}
	grants_destroy(grants);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_found),   cmocka_unit_test(test_any_number),
		cmocka_unit_test(test_reasons), cmocka_unit_test(test_generations),
		cmocka_unit_test(test_places),  cmocka_unit_test(test_not_looked_into),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
