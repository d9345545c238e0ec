/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine_internal.h"

#include "tests/tap.h"

static unsigned open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static struct slu_region *region_of(struct slu_engine *engine, uint64_t length)
{
	struct slu_region_options options;
	struct slu_region *region;

	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	assert_int_equal(slu_region_alloc(engine, length, &options, &region), 0);
	return region;
}

/* Goal: EAL pins the thread that starts it; the caller does not notice. */
static void test_affinity_is_kept(void **state)
{
	struct slu_engine *engine;
	cpu_set_t before, after;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_true(CPU_EQUAL(&before, &after));
	slu_engine_close(engine);
}

/* Goal: an empty list takes no grants away, for without any everybody may do everything; who means
 * that grants it to everybody. */
static void test_grants_stay(void **state)
{
	const struct slu_grant some = {"alice", "ram", SLU_RIGHT_READ};
	const struct slu_grant all = {"*", "*", SLU_RIGHT_READ | SLU_RIGHT_WRITE};
	struct slu_engine *engine;

	(void)state;
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	assert_int_equal(slu_engine_set_grants(engine, NULL, 0), 0);
	assert_int_equal(slu_engine_set_grants(engine, &some, 1), 0);
	assert_int_equal(slu_engine_set_grants(engine, NULL, 0), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "to * on *"));
	assert_int_equal(slu_engine_set_grants(engine, &all, 1), 0);
	assert_int_equal(slu_engine_set_grants(engine, &some, 0), -EINVAL);
	slu_engine_close(engine);
}

/* Goal: options that cannot be met are refused, and the next engine can be opened. */
static void test_bad_options(void **state)
{
	struct slu_engine_options options;
	struct slu_engine *engine = NULL;

	(void)state;
	slu_engine_options_init(&options, sizeof(options));
	options.size = 3;
	assert_int_equal(slu_engine_open(&options, &engine), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "slu_engine_options.size is 3"));
	slu_engine_options_init(&options, sizeof(options));
	options.poll = (enum slu_poll_mode)7;
	assert_int_equal(slu_engine_open(&options, &engine), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "has no poll mode 7"));
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = SLU_POLLERS_MAX;
	assert_int_equal(slu_engine_open(&options, &engine), -EINVAL);
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 2;
	options.cores = "0";
	assert_int_equal(slu_engine_open(&options, &engine), -EINVAL);
	slu_engine_options_init(&options, sizeof(options));
	options.socket = "relative/path";
	assert_int_equal(slu_engine_open(&options, &engine), -EINVAL);
	assert_null(engine);
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	slu_engine_close(engine);
}

/* Each byte that has no meaning yet is set by itself, and refused. */
#define EXPECT_EACH_REFUSED(array, call)                                                           \
	for (size_t i_ = 0; i_ < sizeof(array); i_++) {                                            \
		((unsigned char *)(array))[i_] = 1;                                                \
		assert_int_equal(call, -E2BIG);                                                    \
		assert_non_null(strstr(slu_last_error(), "built for a newer libsluice"));          \
		((unsigned char *)(array))[i_] = 0;                                                \
	}

#define EXPECT_ROOM_REFUSED(limits, call)                                                          \
	for (int i_ = SLU_LIMIT_COUNT; i_ < SLU_LIMITS_MAX; i_++) {                                \
		(limits)[i_] = 1;                                                                  \
		assert_int_equal(call, -E2BIG);                                                    \
		(limits)[i_] = 0;                                                                  \
	}

/* Goal: an engine is not opened with what this library does not know, wherever it stands. */
static void test_unknown_engine_options(void **state)
{
	struct slu_grant grant = {"alice", "ram", SLU_RIGHT_READ};
	struct slu_identity_limits own = {.identity = "alice"};
	struct slu_engine_options options;
	struct slu_engine *engine = NULL;

	(void)state;
	slu_engine_options_init(&options, sizeof(options));
	options.grants = &grant;
	options.identity_limits = &own;
	options.grants_count = options.identity_limits_count = 1;
	EXPECT_EACH_REFUSED(options.reserved, slu_engine_open(&options, &engine));
	EXPECT_EACH_REFUSED(options.rdma.reserved, slu_engine_open(&options, &engine));
	EXPECT_EACH_REFUSED(options.tls.reserved, slu_engine_open(&options, &engine));
	EXPECT_EACH_REFUSED(grant.reserved, slu_engine_open(&options, &engine));
	EXPECT_EACH_REFUSED(own.reserved, slu_engine_open(&options, &engine));
	EXPECT_ROOM_REFUSED(own.limits, slu_engine_open(&options, &engine));
	EXPECT_ROOM_REFUSED(options.limits, slu_engine_open(&options, &engine));
	assert_null(engine);
	assert_int_equal(slu_engine_open(&options, &engine), 0);
	slu_engine_close(engine);
}

/* Goal: likewise what is asked of an engine that is open, and nothing is changed by it. */
static void test_unknown_to_an_engine(void **state)
{
	struct slu_grant grant = {"alice", "ram", SLU_RIGHT_READ};
	struct slu_identity_limits own = {.identity = "alice"};
	uint64_t limits[SLU_LIMITS_MAX] = {0};
	struct slu_region_options region;
	struct slu_queue_options queue;
	struct slu_region *no_region = NULL;
	struct slu_queue *no_queue = NULL;
	struct slu_engine *engine;

	(void)state;
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	slu_region_options_init(&region, sizeof(region));
	slu_queue_options_init(&queue, sizeof(queue));
	EXPECT_EACH_REFUSED(region.reserved, slu_region_alloc(engine, 1, &region, &no_region));
	EXPECT_EACH_REFUSED(queue.reserved, slu_queue_open(engine, &queue, &no_queue));
	EXPECT_EACH_REFUSED(grant.reserved, slu_engine_set_grants(engine, &grant, 1));
	EXPECT_EACH_REFUSED(own.reserved, slu_engine_set_limits(engine, limits, &own, 1));
	EXPECT_ROOM_REFUSED(own.limits, slu_engine_set_limits(engine, limits, &own, 1));
	EXPECT_ROOM_REFUSED(limits, slu_engine_set_limits(engine, limits, NULL, 0));
	assert_null(no_region);
	assert_null(no_queue);
	assert_int_equal(slu_engine_set_grants(engine, NULL, 0), 0); /* there are none yet */
	slu_engine_close(engine);
}

/* Goal: a value of an enum that this library does not have is refused by its number. */
static void test_unknown_values(void **state)
{
	struct slu_region_options region;
	struct slu_remote_options remote;
	struct slu_region *no_region;
	struct slu_remote *no_remote;
	struct slu_engine *engine;

	(void)state;
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	slu_region_options_init(&region, sizeof(region));
	region.page = (enum slu_page)9;
	assert_int_equal(slu_region_alloc(engine, 1, &region, &no_region), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "number 9"));
	slu_remote_options_init(&remote, sizeof(remote));
	remote.transport = (enum slu_transport)77;
	assert_int_equal(slu_remote_open(engine, "unit", &remote, &no_remote), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "no transport number 77"));
	slu_engine_close(engine);
}

/* Goal: one name, one segment, in one process too; private memory is no segment. */
/* Goal: one name, one segment, in one process too. */
static void test_export_is_checked(void **state)
{
	struct slu_segment *segment, *other = NULL;
	struct slu_region *region;
	struct slu_engine *engine;

	(void)state;
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	region = region_of(engine, 8192);
	assert_int_equal(
		slu_segment_export(engine, "unit-engine", region, SLU_RIGHT_READ, NULL, &segment),
		0);
	assert_int_equal(
		slu_segment_export(engine, "unit-engine", region, SLU_RIGHT_READ, NULL, &other),
		-EADDRINUSE);
	assert_int_equal(slu_segment_export(engine, "a/b", region, SLU_RIGHT_READ, NULL, &other),
			 -EINVAL);
	assert_int_equal(slu_segment_export(engine, "rights", region, 0, NULL, &other), -EINVAL);
	assert_null(other);
	slu_segment_close(segment);
	assert_int_equal(
		slu_segment_export(engine, "unit-engine", region, SLU_RIGHT_READ, NULL, &segment),
		0);
	slu_engine_close(engine);
}

static int export_part(struct slu_region *region, uint32_t rights, uint64_t offset, uint64_t length,
		       struct slu_segment **segment)
{
	struct slu_segment_options options;

	slu_segment_options_init(&options, sizeof(options));
	options.offset_bytes = offset;
	options.length_bytes = length;
	return slu_segment_export(region->engine, "unit-part", region, rights, &options, segment);
}

/* Goal: a part is inside its region, to the end where no length is said; none other is exported. */
static void test_parts_are_checked(void **state)
{
	static const uint64_t outside[][2] = {{8192, 0},      {8193, 1},       {0, 8193},
					      {8191, 2},      {UINT64_MAX, 1}, {1, UINT64_MAX},
					      {UINT64_MAX, 0}};
	struct slu_segment_info info = {.size = sizeof(info)};
	struct slu_segment *segment = NULL;
	struct slu_segment_options options;
	struct slu_region *region;
	struct slu_engine *engine;

	(void)state;
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	region = region_of(engine, 8192);
	for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
		assert_int_equal(
			export_part(region, SLU_RIGHT_READ, outside[i][0], outside[i][1], &segment),
			-ERANGE);
	slu_segment_options_init(&options, sizeof(options));
	options.size--;
	assert_int_equal(slu_segment_export(engine, "unit-part", region, 1, &options, &segment),
			 -EINVAL);
	assert_null(segment);
	assert_int_equal(export_part(region, SLU_RIGHT_READ, 8191, 0, &segment), 0);
	assert_int_equal(slu_segment_get_info(segment, &info), 0);
	assert_int_equal(info.length_bytes, 1);
	slu_engine_close(engine);
}

/* Goal: what is sealed stays so whatever part of it is exported later, and of what is written in
 * shared memory no whole is exported that has to be sealed; parts go on beside either. */
static void test_parts_and_seals(void **state)
{
	const uint32_t both = SLU_RIGHT_READ | SLU_RIGHT_WRITE;
	struct slu_segment *part, *whole;
	struct slu_region *region;
	struct slu_engine *engine;

	(void)state;
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	region = region_of(engine, 8192);
	assert_int_equal(
		slu_segment_export(engine, "unit-ro", region, SLU_RIGHT_READ, NULL, &whole), 0);
	assert_int_equal(export_part(region, both, 4096, 4096, &part), 0);
	assert_false(part->written_in_memory);
	assert_true(part->partial);
	assert_false(whole->partial);
	slu_segment_close(part);
	slu_segment_close(whole);
	region = region_of(engine, 8192);
	assert_int_equal(export_part(region, both, 4096, 4096, &part), 0);
	assert_true(part->written_in_memory);
	assert_int_equal(
		slu_segment_export(engine, "unit-ro", region, SLU_RIGHT_READ, NULL, &whole),
		-EBUSY);
	slu_segment_close(part);
	assert_int_equal(export_part(region, SLU_RIGHT_READ, 0, 4096, &part), 0);
	assert_true(part->partial);
	slu_engine_close(engine);
}

struct opening {
	struct slu_engine *engine;
	const char *name;
	uint32_t rights;
	bool owner;
	char why[SLU_REASON_MAX];
};

/* Control thread: as a client over a Unix socket that asks for shared memory. */
static int ask_for_memory(void *arg)
{
	struct opening *opening = arg;
	const struct peer_info peer = {
		.identity = "somebody", .is_unix = true, .owner = opening->owner, .uid = 12345};
	json_t *transports = json_pack("[s]", "shm"), *opened = json_object();
	int fds[MESSAGE_FDS_MAX];
	uint32_t close_mask = 0;
	void *client;
	int rc = segment_callbacks.open(opening->engine, &peer, opening->name, opening->rights,
					transports, opened, fds, &close_mask, &client);

	if (rc < 0)
		snprintf(opening->why, sizeof(opening->why), "%s", slu_last_error());
	for (uint32_t i = 0; rc >= 0 && i < (uint32_t)rc; i++)
		if (close_mask & 1u << i)
			close(fds[i]);
	if (rc >= 0)
		segment_leave(client, false);
	json_decref(transports);
	json_decref(opened);
	return rc;
}

/* Goal: a descriptor that reaches more than the segment goes to nobody but our own user and root.
 */
static void test_parts_are_for_ourselves(void **state)
{
	struct opening part = {.name = "unit-part", .rights = SLU_RIGHT_READ};
	struct opening whole = {.name = "unit-all", .rights = SLU_RIGHT_READ};
	struct slu_segment *segment;
	struct slu_region *region;
	struct slu_engine *engine;

	(void)state;
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	part.engine = whole.engine = engine;
	region = region_of(engine, 8192);
	assert_int_equal(export_part(region, SLU_RIGHT_READ, 0, 4096, &segment), 0);
	assert_int_equal(
		slu_segment_export(engine, "unit-all", region, SLU_RIGHT_READ, NULL, &segment), 0);
	assert_true(control_call(engine->control, ask_for_memory, &whole) >= 0);
	assert_int_equal(control_call(engine->control, ask_for_memory, &part), -EOPNOTSUPP);
	assert_non_null(strstr(part.why, "a part of its memory"));
	part.owner = true;
	assert_true(control_call(engine->control, ask_for_memory, &part) >= 0);
	slu_engine_close(engine);
}

/* Goal: 1000 engines, each with everything opened, leave no descriptor behind. */
static void test_thousand_engines_leave_nothing(void **state)
{
	struct slu_engine_options options;
	unsigned before = 0;

	(void)state;
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	for (int i = 0; i < 1000; i++) {
		struct slu_remote_options fake;
		struct slu_engine *engine;
		struct slu_segment *segment;
		struct slu_remote *remote;
		struct slu_queue *queue;

		slu_remote_options_init(&fake, sizeof(fake));
		fake.transport = SLU_TRANSPORT_FAKE;
		assert_int_equal(slu_engine_open(&options, &engine), 0);
		assert_int_equal(slu_segment_export(engine, "unit-many", region_of(engine, 4096), 3,
						    NULL, &segment),
				 0);
		assert_int_equal(slu_remote_open(engine, "unit-many", &fake, &remote), 0);
		assert_int_equal(slu_queue_open(engine, NULL, &queue), 0);
		slu_engine_close(engine);
		if (i == 0) /* EAL, started once, keeps its own */
			before = open_descriptors();
	}
	assert_int_equal(open_descriptors(), before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_affinity_is_kept),
		cmocka_unit_test(test_grants_stay),
		cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_unknown_engine_options),
		cmocka_unit_test(test_unknown_to_an_engine),
		cmocka_unit_test(test_unknown_values),
		cmocka_unit_test(test_export_is_checked),
		cmocka_unit_test(test_parts_are_checked),
		cmocka_unit_test(test_parts_and_seals),
		cmocka_unit_test(test_parts_are_for_ourselves),
		cmocka_unit_test(test_thousand_engines_leave_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
