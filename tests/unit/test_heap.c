/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/heap.h"

#include <stdint.h>
#include <string.h>

#include <numa.h>

#include "base/log.h"
#include "env/eal.h"
#include "numa/placement.h"
#include "tests/tap.h"

#define OBJECTS 200

static bool is_zero(const uint8_t *bytes, size_t length)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

/* Goal: memory is zeroed, aligned to a cache line, and of nobody else, however often the heap has
 * to grow; what was given back is given out again, and zeroed again. */
static void test_grows(void **state)
{
	uint8_t *objects[OBJECTS];

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < OBJECTS; i++) {
			size_t length = (size_t)(i + 1) * 1000;

			objects[i] = heap_alloc(length, -1);
			assert_non_null(objects[i]);
			assert_int_equal((uintptr_t)objects[i] % 64, 0);
			assert_true(is_zero(objects[i], length));
			memset(objects[i], i + 1, length);
		}
		for (int i = 0; i < OBJECTS; i++) {
			assert_int_equal(objects[i][0], i + 1);
			assert_int_equal(objects[i][(size_t)(i + 1) * 1000 - 1], i + 1);
			heap_free(objects[i]);
		}
	}
}

/* Goal: one object may be larger than what the heap grows by. */
static void test_large(void **state)
{
	const size_t length = (size_t)9 << 20;
	uint8_t *object = heap_alloc(length, -1);

	(void)state;
	assert_non_null(object);
	object[length - 1] = 1;
	heap_free(object);
}

/* Goal: memory lies on the node that it is wanted on; of a node that is not there, elsewhere. */
static void test_nodes(void **state)
{
	(void)state;
	for (int node = 0; node <= numa_max_node(); node++) {
		char *object = heap_alloc(4096, node);

		assert_non_null(object);
		if (numa_bitmask_isbitset(numa_all_nodes_ptr, (unsigned)node))
			assert_int_equal(placement_memory_node(object), node);
		heap_free(object);
	}
	for (int node = 14; node < 2000; node += 993) {
		void *object = heap_alloc(4096, node);

		assert_non_null(object);
		heap_free(object);
	}
}

/* Goal: more than there is, is refused with a reason, and what follows is not. */
static void test_too_much(void **state)
{
	void *object;
	int socket;

	(void)state;
	assert_null(heap_alloc(SIZE_MAX / 4, -1));
	assert_non_null(strstr(slu_last_error(), "MiB"));
	heap_enter();
	assert_int_equal(heap_socket((size_t)3 << 20, &socket), 0);
	assert_true(socket >= 0);
	heap_leave();
	object = heap_alloc(1, -1);
	assert_non_null(object);
	heap_free(object);
}

static int start(void **state)
{
	(void)state;
	return eal_start() < 0 || heap_start() < 0 ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grows),
		cmocka_unit_test(test_large),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_too_much),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
