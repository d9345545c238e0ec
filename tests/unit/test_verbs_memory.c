/* SPDX-License-Identifier: Apache-2.0 */
/* Registration: slices, the devices that are used, and what a limit that is reached looks like. */
#include "transport/verbs/verbs_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "fake_verbs.h"
#include "tests/tap.h"

static struct verbs_devices *devices;
static char bytes[8192];
static struct slu_region region = {.addr = bytes, .length = sizeof(bytes)};

static int open_devices(void **state)
{
	const struct slu_rdma_options options = {
		.gid_index = -1, .timeout = -1, .retries = -1, .traffic_class = -1};

	(void)state;
	fake_verbs_reset();
	fake_verbs.devices[1] = fake_verbs.devices[0];
	fake_verbs.devices[1].name = "fake1";
	return verbs_devices_open(&options, &devices);
}

static int close_devices(void **state)
{
	(void)state;
	assert_int_equal(fake_verbs.mrs, 0);
	verbs_devices_close(devices);
	return 0;
}

/* Goal: small memory is one registration, with the rights and relaxed ordering asked for. */
static void test_one(void **state)
{
	struct verbs_registration *made;

	(void)state;
	assert_int_equal(verbs_register(&devices->devices[0], &region, 0, sizeof(bytes),
					IBV_ACCESS_LOCAL_WRITE, &made),
			 0);
	assert_int_equal(made->count, 1);
	assert_int_equal(fake_verbs.mr_length, sizeof(bytes));
	assert_int_equal(fake_verbs.mr_access,
			 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING);
	assert_int_equal(made->slices[0].rkey, made->slices[0].mr->rkey);
	assert_int_equal(made->slices[0].lkey, made->slices[0].mr->lkey);
	verbs_deregister(made);
	verbs_deregister(NULL);
}

/* Goal: long memory is cut into slices of 2 GiB, each of them where it lies. */
static void test_slices(void **state)
{
	const uint64_t length = 2 * VERBS_SLICE_BYTES + 4096;
	struct verbs_registration *made;
	struct slu_region sparse = {0};
	char *at =
		mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	(void)state;
	if (at == MAP_FAILED)
		skip_because("no room for 4 GiB of addresses");
	sparse.addr = at;
	assert_int_equal(verbs_register(&devices->devices[0], &sparse, 0, length, 0, &made), 0);
	assert_int_equal(made->count, 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_ptr_equal(made->slices[i].mr->addr, at + i * VERBS_SLICE_BYTES);
		assert_true(made->slices[i].mr->length ==
			    (i < 2 ? VERBS_SLICE_BYTES : UINT64_C(4096)));
	}
	verbs_deregister(made);
	fake_verbs.mr_room = 2; /* the third one fails: the others go */
	assert_int_equal(verbs_register(&devices->devices[0], &sparse, 0, length, 0, &made),
			 -ENOMEM);
	assert_int_equal(fake_verbs.mrs, 0);
	munmap(at, length);
}

static int register_in_vain(int error)
{
	struct verbs_registration *made = NULL;
	int rc;

	fake_verbs.mr_room = 0;
	fake_verbs.mr_error = error;
	rc = verbs_register(&devices->devices[0], &region, 0, sizeof(bytes), 0, &made);
	assert_null(made);
	assert_non_null(strstr(slu_last_error(), "cannot register 8 KiB with fake0"));
	return rc;
}

/* Goal: a dmabuf is registered by its descriptor, each piece with its place in it; where the device
 * has no way to do it, that is said. */
static void test_dmabuf(void **state)
{
	struct slu_region imported = {.addr = bytes,
				      .length = sizeof(bytes),
				      .arena = {.origin = ARENA_DMABUF, .offset = 65536, .fd = 77}};
	struct verbs_registration *made;

	(void)state;
	assert_int_equal(verbs_register(&devices->devices[0], &imported, 4096, 100, 0, &made), 0);
	assert_int_equal(fake_verbs.dmabuf_fd, 77);
	assert_int_equal(fake_verbs.dmabuf_offset, 65536 + 4096);
	assert_ptr_equal(made->slices[0].mr->addr, bytes + 4096);
	verbs_deregister(made);
	fake_verbs.mr_room = 0;
	fake_verbs.mr_error = EOPNOTSUPP;
	assert_int_equal(verbs_register(&devices->devices[0], &imported, 0, 100, 0, &made),
			 -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "cannot register a dmabuf"));
}

/* Goal: each limit is an error of its own, with a remedy. */
static void test_limits(void **state)
{
	(void)state;
	assert_int_equal(register_in_vain(ENOSPC), -ENOSPC);
	assert_non_null(strstr(slu_last_error(), "the device's 100 registrations"));
	assert_non_null(strstr(slu_last_error(), "use fewer or smaller regions"));
	assert_int_equal(register_in_vain(EAGAIN), -ENOSPC);
	assert_non_null(strstr(slu_last_error(), "rdma.max"));
	assert_int_equal(register_in_vain(EFAULT), -EFAULT);
	assert_non_null(strstr(slu_last_error(), "Bad address"));
}

/* Goal: the memlock limit is named where it is what stands in the way, and only there. */
static void test_memlock(void **state)
{
	struct rlimit before, low;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &before), 0);
	low = (struct rlimit){.rlim_cur = 4096, .rlim_max = before.rlim_max};
	if (before.rlim_max < low.rlim_cur)
		skip_because("the memlock limit is below a page already");
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &low), 0);
	assert_int_equal(register_in_vain(ENOMEM), -ENOMEM);
	assert_non_null(strstr(slu_last_error(), "the memlock limit is 4 KiB: raise it"));
	assert_int_equal(register_in_vain(ENOSPC), -ENOSPC);
	assert_null(strstr(slu_last_error(), "raise it"));
	assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &before), 0);
}

static const void *known(const struct slu_region *region, uint32_t device)
{
	const struct verbs_region *by = region->private[SLU_TRANSPORT_VERBS];

	return by->registered[device];
}

/* Goal: regions are registered with the devices that are used, whichever came first. */
static void test_regions(void **state)
{
	struct slu_region first = {.addr = bytes, .length = 4096};
	struct slu_region second = {.addr = bytes + 4096, .length = 4096};
	struct verbs_memory memory = {.devices = NULL};

	(void)state;
	verbs_memory_init(&memory, devices);
	assert_int_equal(verbs_memory_add(&memory, &first), 0);
	assert_int_equal(fake_verbs.mrs, 0);
	assert_int_equal(verbs_memory_use(&memory, &devices->devices[1]), 0);
	assert_int_equal(fake_verbs.mrs, 1);
	assert_null(known(&first, 0));
	assert_non_null(known(&first, 1));
	assert_int_equal(verbs_memory_use(&memory, &devices->devices[1]), 0);
	assert_int_equal(verbs_memory_add(&memory, &second), 0);
	assert_int_equal(fake_verbs.mrs, 2);
	assert_int_equal(verbs_memory_use(&memory, &devices->devices[0]), 0);
	assert_int_equal(fake_verbs.mrs, 4);
	verbs_memory_remove(&memory, &first);
	assert_int_equal(fake_verbs.mrs, 2);
	assert_null(first.private[SLU_TRANSPORT_VERBS]);
	verbs_memory_remove(&memory, &second);
	verbs_memory_fini(&memory);
}

/* Goal: a region that cannot be registered is not taken, and nothing of it stays; a device that
 * cannot know all regions is not used, and can be tried again. */
static void test_no_room(void **state)
{
	struct slu_region first = {.addr = bytes, .length = 4096};
	struct slu_region second = {.addr = bytes + 4096, .length = 4096};
	struct verbs_memory memory = {.devices = NULL};

	(void)state;
	verbs_memory_init(&memory, devices);
	assert_int_equal(verbs_memory_use(&memory, &devices->devices[0]), 0);
	assert_int_equal(verbs_memory_use(&memory, &devices->devices[1]), 0);
	fake_verbs.mr_room = 1;
	assert_int_equal(verbs_memory_add(&memory, &first), -ENOMEM);
	assert_int_equal(fake_verbs.mrs, 0);
	verbs_memory_fini(&memory);

	memory = (struct verbs_memory){.devices = NULL};
	verbs_memory_init(&memory, devices);
	assert_int_equal(verbs_memory_add(&memory, &first), 0);
	assert_int_equal(verbs_memory_add(&memory, &second), 0);
	assert_int_equal(verbs_memory_use(&memory, &devices->devices[0]), -ENOMEM);
	fake_verbs.mr_room = 2;
	assert_int_equal(verbs_memory_use(&memory, &devices->devices[0]), 0);
	assert_non_null(known(&first, 0));
	assert_non_null(known(&second, 0));
	verbs_memory_remove(&memory, &first);
	verbs_memory_remove(&memory, &second);
	verbs_memory_fini(&memory);
}

#define test(name) cmocka_unit_test_setup_teardown(name, open_devices, close_devices)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_one),     test(test_slices),  test(test_limits),
		test(test_one),     test(test_dmabuf),  test(test_limits),
		test(test_memlock), test(test_regions), test(test_no_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
