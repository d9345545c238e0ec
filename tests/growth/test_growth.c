/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of one release on the library of another: the headers that it is compiled against and
 * the library that it is linked with differ, see meson.build. PROGRAM_GROWN: each sized struct has
 * a field "grown" at its end; LIBRARY_GROWN: so has the library's.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "tests/tap.h"

#define RIGHTS (SLU_RIGHT_READ | SLU_RIGHT_WRITE)

/* A struct as this program knows it, and memory behind it that the library must let alone. */
#define GUARDED(type)                                                                              \
	struct {                                                                                   \
		struct type it;                                                                    \
		unsigned char behind[64];                                                          \
	}

static const unsigned char untouched[64] = {[0 ... 63] = 0xa5};

#define INIT(type, guarded)                                                                        \
	do {                                                                                       \
		memset(&(guarded), 0xa5, sizeof(guarded));                                         \
		slu_##type##_init(&(guarded).it, sizeof((guarded).it));                            \
		assert_int_equal((guarded).it.size, sizeof((guarded).it));                         \
		assert_memory_equal((guarded).behind, untouched, sizeof(untouched));               \
		expect_new_zero(guarded);                                                          \
	} while (0)

#define EXPECT_INFO(call, guarded)                                                                 \
	do {                                                                                       \
		memset(&(guarded), 0xa5, sizeof(guarded));                                         \
		(guarded).it.size = sizeof((guarded).it);                                          \
		assert_int_equal(call, 0);                                                         \
		assert_int_equal((guarded).it.size, sizeof((guarded).it));                         \
		assert_memory_equal((guarded).behind, untouched, sizeof(untouched));               \
		expect_new_zero(guarded);                                                          \
	} while (0)

#ifdef PROGRAM_GROWN
#define expect_new_zero(guarded)                                                                   \
	do {                                                                                       \
		assert_int_equal((guarded).it.grown[0], 0);                                        \
		assert_int_equal((guarded).it.grown[1], 0);                                        \
	} while (0)
#else
#define expect_new_zero(guarded)
#endif

/* All that one engine has. */
struct scene {
	char name[64];
	struct slu_engine *engine;
	struct slu_region *exported;
	struct slu_region *local;
	struct slu_segment *segment;
	struct slu_remote *remote;
	struct slu_queue *queue;
};

static void must(int rc)
{
	if (rc < 0)
		fail_msg("%s: %s", slu_strerror(rc), slu_last_error());
}

static void open_engine(struct scene *scene)
{
	GUARDED(slu_engine_options) engine;
	GUARDED(slu_region_options) region;

	snprintf(scene->name, sizeof(scene->name), "growth-%d", (int)getpid());
	INIT(engine_options, engine);
	assert_int_equal(engine.it.node, -1);
	assert_int_equal(engine.it.rdma.gid_index, -1);
	engine.it.rdma.off = true;
	must(slu_engine_open(&engine.it, &scene->engine));
	INIT(region_options, region);
	region.it.page = SLU_PAGE_ORDINARY;
	must(slu_region_alloc(scene->engine, 1 << 20, &region.it, &scene->exported));
	must(slu_region_alloc(scene->engine, 1 << 20, &region.it, &scene->local));
	must(slu_segment_export(scene->engine, scene->name, scene->exported, RIGHTS, NULL,
				&scene->segment));
}

static void open_way(struct scene *scene)
{
	GUARDED(slu_remote_options) remote;
	GUARDED(slu_queue_options) queue;

	INIT(remote_options, remote);
	assert_int_equal(remote.it.rights, RIGHTS);
	must(slu_remote_open(scene->engine, scene->name, &remote.it, &scene->remote));
	INIT(queue_options, queue);
	assert_int_equal(queue.it.depth, 1024);
	queue.it.poller = SLU_POLLER_INLINE;
	must(slu_queue_open(scene->engine, &queue.it, &scene->queue));
}

static void expect_done(struct slu_queue *queue, const struct slu_op *op)
{
	struct slu_completion done;

	assert_int_equal(slu_submit(queue, op, 1), 1);
	assert_int_equal(slu_wait(queue, 1, 5000000), 1);
	assert_int_equal(slu_reap(queue, &done, 1), 1);
	assert_int_equal(done.status, 0);
}

static void move(const struct scene *scene)
{
	struct slu_op op = {.opcode = SLU_WRITE_NOTIFY,
			    .tag = 7,
			    .length = 6,
			    .remote = scene->remote,
			    .region = scene->local};
	char *buffer = slu_region_addr(scene->local);
	struct slu_notification note[2];

	memcpy(buffer, "sluice", 6);
	expect_done(scene->queue, &op);
	op.opcode = SLU_READ;
	op.local_offset = 4096;
	expect_done(scene->queue, &op);
	assert_memory_equal(buffer + 4096, "sluice", 6);
	memset(note, 0xa5, sizeof(note));
	assert_int_equal(slu_segment_poll(scene->segment, note, 2), 1);
	assert_int_equal(note[0].tag, 7);
	assert_memory_equal(&note[1], untouched, sizeof(note[1]));
}

/* Goal: a program opens all that there is and moves data, whichever of the two is the newer. */
static void test_data_moves(void **state)
{
	struct scene scene;

	(void)state;
	open_engine(&scene);
	open_way(&scene);
	move(&scene);
	slu_engine_close(scene.engine);
}

/* Goal: each info is filled as far as both know it, nothing is written behind it, and what the
 * library has never heard of is zero. */
static void test_infos(void **state)
{
	GUARDED(slu_engine_info) engine;
	GUARDED(slu_poller_info) poller;
	GUARDED(slu_region_info) region;
	GUARDED(slu_segment_info) segment;
	GUARDED(slu_remote_info) remote;
	GUARDED(slu_queue_info) queue;
	GUARDED(slu_usage) usage;
	struct scene scene;

	(void)state;
	open_engine(&scene);
	open_way(&scene);
	move(&scene);
	EXPECT_INFO(slu_engine_get_info(scene.engine, &engine.it), engine);
	assert_int_equal(engine.it.pollers, 0);
	EXPECT_INFO(slu_engine_get_poller(scene.engine, 0, &poller.it), poller);
	assert_true(poller.it.running_inline);
	EXPECT_INFO(slu_region_get_info(scene.local, &region.it), region);
	assert_int_equal(region.it.length_bytes, 1 << 20);
	EXPECT_INFO(slu_segment_get_info(scene.segment, &segment.it), segment);
	assert_int_equal(segment.it.notifications, 1);
	EXPECT_INFO(slu_remote_get_info(scene.remote, &remote.it), remote);
	assert_string_equal(remote.it.name, scene.name);
	assert_int_equal(remote.it.bytes_read, 6);
	EXPECT_INFO(slu_queue_get_info(scene.queue, &queue.it), queue);
	assert_int_equal(queue.it.completed, 2);
	EXPECT_INFO(slu_remote_get_usage(scene.remote, 5000000, &usage.it), usage);
	assert_true(usage.it.cpu_ns > 0);
	slu_engine_close(scene.engine);
}

/* Goal: what stands in arrays has the same place for both. */
static void test_arrays(void **state)
{
	const struct slu_grant grants[] = {
		{.identity = "alice", .segment = "one", .rights = SLU_RIGHT_READ},
		{.identity = "*", .segment = "*", .rights = RIGHTS},
	};
	const struct slu_identity_limits own[] = {
		{.identity = "alice", .limits = {[SLU_LIMIT_LINKS] = 1}},
		{.identity = "bob", .limits = {[SLU_LIMIT_LINKS] = 2}},
	};
	uint64_t limits[SLU_LIMITS_MAX] = {[SLU_LIMIT_SESSIONS] = 10};
	struct slu_candidate candidates[SLU_CANDIDATES_MAX + 1];
	struct scene scene;
	int n;

	(void)state;
	open_engine(&scene);
	open_way(&scene);
	must(slu_engine_set_grants(scene.engine, grants, 2));
	must(slu_engine_set_limits(scene.engine, limits, own, 2));
	memset(candidates, 0xa5, sizeof(candidates));
	n = slu_remote_get_candidates(scene.remote, candidates, SLU_CANDIDATES_MAX);
	assert_in_range(n, 1, SLU_CANDIDATES_MAX);
	for (int i = 0; i < n; i++)
		assert_int_equal(candidates[i].chosen,
				 candidates[i].transport == SLU_TRANSPORT_SHM);
	assert_memory_equal(&candidates[n], untouched, sizeof(untouched));
	slu_engine_close(scene.engine);
}

#ifndef PROGRAM_GROWN
#define EXPECT_TOO_SMALL(type, sized, call)                                                        \
	do {                                                                                       \
		(sized)->size = sizeof(struct type) - 1;                                           \
		assert_int_equal(call, -EINVAL);                                                   \
		assert_non_null(strstr(slu_last_error(), #type ".size"));                          \
	} while (0)

/* Goal: below its form in 1.0 no struct is taken, however much it has grown. */
static void test_too_small(void **state)
{
	struct slu_engine_options engine_options = {0};
	struct slu_region_options region_options = {0};
	struct slu_remote_options remote_options = {0};
	struct slu_queue_options queue_options = {0};
	struct slu_engine_info engine = {0};
	struct slu_poller_info poller = {0};
	struct slu_region_info region = {0};
	struct slu_segment_info segment = {0};
	struct slu_remote_info remote = {0};
	struct slu_queue_info queue = {0};
	struct slu_usage usage = {0};
	struct scene scene, none = {0};

	(void)state;
	EXPECT_TOO_SMALL(slu_engine_options, &engine_options,
			 slu_engine_open(&engine_options, &none.engine));
	open_engine(&scene);
	open_way(&scene);
	EXPECT_TOO_SMALL(slu_region_options, &region_options,
			 slu_region_alloc(scene.engine, 1, &region_options, &none.local));
	EXPECT_TOO_SMALL(slu_remote_options, &remote_options,
			 slu_remote_open(scene.engine, scene.name, &remote_options, &none.remote));
	EXPECT_TOO_SMALL(slu_queue_options, &queue_options,
			 slu_queue_open(scene.engine, &queue_options, &none.queue));
	EXPECT_TOO_SMALL(slu_engine_info, &engine, slu_engine_get_info(scene.engine, &engine));
	EXPECT_TOO_SMALL(slu_poller_info, &poller, slu_engine_get_poller(scene.engine, 0, &poller));
	EXPECT_TOO_SMALL(slu_region_info, &region, slu_region_get_info(scene.local, &region));
	EXPECT_TOO_SMALL(slu_segment_info, &segment, slu_segment_get_info(scene.segment, &segment));
	EXPECT_TOO_SMALL(slu_remote_info, &remote, slu_remote_get_info(scene.remote, &remote));
	EXPECT_TOO_SMALL(slu_queue_info, &queue, slu_queue_get_info(scene.queue, &queue));
	EXPECT_TOO_SMALL(slu_usage, &usage, slu_remote_get_usage(scene.remote, 5000000, &usage));
	slu_engine_close(scene.engine);
}
#endif

#ifdef PROGRAM_GROWN
static void expect_answer(int rc)
{
#ifdef LIBRARY_GROWN
	must(rc);
#else
	assert_int_equal(rc, -E2BIG);
	assert_non_null(strstr(slu_last_error(), "built for a newer libsluice"));
#endif
}

/* Goal: an option that the library does not have is refused by name, and nothing is opened; a
 * library that has it takes it. */
static void test_new_options(void **state)
{
	GUARDED(slu_engine_options) engine_options;
	GUARDED(slu_region_options) region_options;
	GUARDED(slu_remote_options) remote_options;
	GUARDED(slu_queue_options) queue_options;
	struct slu_candidate candidates[SLU_CANDIDATES_MAX];
	struct slu_engine *engine = NULL;
	struct slu_region *region = NULL;
	struct slu_remote *remote = NULL;
	struct slu_queue *queue = NULL;
	struct scene scene;

	(void)state;
	INIT(engine_options, engine_options);
	engine_options.it.grown[1] = 1;
	expect_answer(slu_engine_open(&engine_options.it, &engine));
	slu_engine_close(engine);
	open_engine(&scene);
	INIT(region_options, region_options);
	region_options.it.page = SLU_PAGE_ORDINARY;
	region_options.it.grown[0] = UINT64_C(1) << 63;
	expect_answer(slu_region_alloc(scene.engine, 4096, &region_options.it, &region));
	INIT(remote_options, remote_options);
	remote_options.it.grown[1] = 1;
	expect_answer(slu_remote_open(scene.engine, scene.name, &remote_options.it, &remote));
	expect_answer(slu_remote_explain(scene.engine, scene.name, &remote_options.it, candidates,
					 SLU_CANDIDATES_MAX));
	INIT(queue_options, queue_options);
	queue_options.it.grown[0] = 1;
	expect_answer(slu_queue_open(scene.engine, &queue_options.it, &queue));
#ifndef LIBRARY_GROWN
	assert_null(engine);
	assert_null(region);
	assert_null(remote);
	assert_null(queue);
#endif
	slu_engine_close(scene.engine);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_data_moves),
		cmocka_unit_test(test_infos),
		cmocka_unit_test(test_arrays),
#ifdef PROGRAM_GROWN
		cmocka_unit_test(test_new_options),
#else
		cmocka_unit_test(test_too_small),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
