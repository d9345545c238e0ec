/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each call that opens something is repeated with its 1st, 2nd, ... n-th demand on the system
 * failing, once and for ever, until it is not touched by the failure any more. Each time it either
 * works or returns an error with a cause; nothing crashes and no descriptor is left open.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "base/log.h"
#include "tests/fault/inject.h"
#include "tests/fault/peer.h"
#include "tests/tap.h"

#define CALLS_MAX    2000 /* far more than any of the calls makes */
#define REGION_BYTES (UINT64_C(1) << 20)
#define BOTH_RIGHTS  (SLU_RIGHT_READ | SLU_RIGHT_WRITE)
#define MARK         "nothing has failed yet"

static struct slu_engine *engine;
static struct slu_region *region;
static struct slu_segment *segment;
static char own_name[SLU_NAME_MAX + 1];
static char peer_name[SLU_NAME_MAX + 1];

/* What has lost an answer to a failure waits for so long; a busy machine may need more. */
static uint64_t timeout_us = 200000;

/* What is opened, and how it is closed again. */
struct step {
	int (*open)(void **opened);
	void (*close)(void *opened);
};

static void assert_clear(int error, const char *failed, unsigned n)
{
	if (error >= 0 || strcmp(slu_strerror(error), slu_strerror(-EXDEV)) == 0)
		fail_msg("call %u (%s) failed: %d is not an error that Sluice explains", n, failed,
			 error);
	if (strcmp(slu_last_error(), MARK) == 0)
		fail_msg("call %u (%s) failed: %d, and nothing says why", n, failed, error);
}

/* @return the step was out of reach of the failure */
static bool try_once(const struct step *step, unsigned n, bool for_ever, unsigned files)
{
	void *opened = NULL;
	const char *failed;
	unsigned settled;
	int ret;

	do {
		fail(-EINVAL, MARK);
		inject_arm(n, for_ever);
		ret = step->open(&opened);
		failed = inject_disarm();
		timeout_us *= 1 + (ret == -ETIMEDOUT && !failed);
	} while (ret == -ETIMEDOUT && !failed && timeout_us < PEER_HANG_MS * UINT64_C(1000));
	if (ret == 0)
		step->close(opened);
	else
		assert_clear(ret, failed ? failed : "none", n);
	if (ret != 0 && !failed)
		fail_msg("failed with %d although nothing was failed: %s", ret, slu_last_error());
	settled = peer_open_files_settled(files);
	if (settled != files)
		fail_msg("call %u (%s) failed, result %d: %u descriptors before, %u after", n,
			 failed ? failed : "none", ret, files, settled);
	return !failed;
}

static void run(const struct step *step)
{
	/* Once: later the last connection of the trial before may just be coming in or going. */
	unsigned files = peer_open_files();

	for (int for_ever = 0; for_ever <= 1; for_ever++) {
		unsigned n = 1;

		while (!try_once(step, n, for_ever, files))
			assert_true(++n < CALLS_MAX);
		tap_comment("%u calls failed %s", n - 1, for_ever ? "for ever" : "once");
		assert_true(n > 1);
	}
}

/* ---- the steps ---- */

static int engine_open(void **opened)
{
	return peer_open_engine(2, SLU_POLL_ADAPTIVE, (struct slu_engine **)opened);
}

static void engine_close(void *opened)
{
	slu_engine_close(opened);
}

static int region_open(void **opened)
{
	struct slu_region_options options;

	slu_region_options_init(&options, sizeof(options));
	return slu_region_alloc(engine, 130 * REGION_BYTES, &options, (struct slu_region **)opened);
}

static void region_close(void *opened)
{
	slu_region_close(opened);
}

static int segment_open(void **opened)
{
	char name[SLU_NAME_MAX + 1];

	snprintf(name, sizeof(name), "inject-second-%d", (int)getpid());
	return slu_segment_export(engine, name, region, BOTH_RIGHTS, NULL,
				  (struct slu_segment **)opened);
}

static void segment_close(void *opened)
{
	slu_segment_close(opened);
}

static int remote_open(const char *name, void **opened)
{
	struct slu_remote_options options;

	slu_remote_options_init(&options, sizeof(options));
	options.timeout_us = timeout_us;
	return slu_remote_open(engine, name, &options, (struct slu_remote **)opened);
}

static int own_remote_open(void **opened)
{
	return remote_open(own_name, opened);
}

static int peer_remote_open(void **opened)
{
	return remote_open(peer_name, opened);
}

static void remote_close(void *opened)
{
	slu_remote_close(opened);
}

static int queue_open(int32_t poller, void **opened)
{
	struct slu_queue_options options;

	slu_queue_options_init(&options, sizeof(options));
	options.poller = poller;
	return slu_queue_open(engine, &options, (struct slu_queue **)opened);
}

static int inline_queue_open(void **opened)
{
	return queue_open(SLU_POLLER_INLINE, opened);
}

static int poller_queue_open(void **opened)
{
	return queue_open(0, opened);
}

static void queue_close(void *opened)
{
	slu_queue_close(opened);
}

static int pool_open(void **opened)
{
	return slu_pool_open(region, 0, REGION_BYTES, 4096, 16, (struct slu_pool **)opened);
}

static void pool_close(void *opened)
{
	slu_pool_close(opened);
}

/* ---- the tests ---- */

static int open_engine(void **state)
{
	struct slu_region_options options;

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	if (peer_open_engine(1, SLU_POLL_ADAPTIVE, &engine) < 0 ||
	    slu_region_alloc(engine, REGION_BYTES, &options, &region) < 0 ||
	    slu_segment_export(engine, own_name, region, BOTH_RIGHTS, NULL, &segment) < 0) {
		tap_comment("%s", slu_last_error());
		return -1;
	}
	return 0;
}

static int close_engine(void **state)
{
	(void)state;
	slu_engine_close(engine);
	return 0;
}

/* Goal: an engine with two pollers opens or says why not. */
static void test_engine_open(void **state)
{
	(void)state;
	/* The first one starts EAL, which stays, with its descriptors. */
	assert_int_equal(engine_open((void **)&engine), 0);
	slu_engine_close(engine);
	run(&(struct step){engine_open, engine_close});
}

/* Goal: a region of several prefault chunks, on hugepages or falling back. */
static void test_region_alloc(void **state)
{
	(void)state;
	run(&(struct step){region_open, region_close});
}

/* Goal: exporting a segment. */
static void test_segment_export(void **state)
{
	(void)state;
	run(&(struct step){segment_open, segment_close});
}

/* Goal: opening a remote of this very process. */
static void test_remote_of_this_process(void **state)
{
	(void)state;
	run(&(struct step){own_remote_open, remote_close});
}

/* Goal: opening a remote of another process: handshake, mapping, paths. */
static void test_remote_of_a_peer(void **state)
{
	struct peer target;

	(void)state;
	assert_int_equal(peer_start("serve", peer_name, &target), 0);
	assert_int_equal(peer_answer(&target, PEER_HANG_MS), PEER_READY);
	run(&(struct step){peer_remote_open, remote_close});
	assert_int_equal(peer_stop(&target), 0);
}

/* Goal: the target's side of the same: here it is the target whose calls fail. */
static void test_target_under_a_client(void **state)
{
	struct slu_segment_info info = {.size = sizeof(info)};
	unsigned files = peer_open_files(), reached = 0;

	(void)state;
	for (unsigned n = 1; n < 60; n++) {
		struct peer client;

		inject_arm(n, false);
		assert_int_equal(peer_start("knock", own_name, &client), 0);
		assert_in_range(peer_stop(&client), 0, 1);
		reached += inject_disarm() != NULL;
		assert_int_equal(peer_open_files_settled(files), files);
		assert_int_equal(slu_segment_get_info(segment, &info), 0);
		assert_int_equal(info.clients, 0);
	}
	tap_comment("%u calls failed", reached);
	assert_true(reached > 10);
}

/* Goal: an inline queue, which brings a poller of its own. */
static void test_inline_queue(void **state)
{
	(void)state;
	run(&(struct step){inline_queue_open, queue_close});
}

/* Goal: a queue behind a poller thread. */
static void test_poller_queue(void **state)
{
	(void)state;
	run(&(struct step){poller_queue_open, queue_close});
}

/* Goal: a pool of buffers. */
static void test_pool(void **state)
{
	(void)state;
	run(&(struct step){pool_open, pool_close});
}

/* Role: open the segment once. 0 opened, 1 refused with a cause. */
static int knock(const char *name)
{
	struct slu_remote *remote;

	if (peer_open_engine(0, SLU_POLL_ADAPTIVE, &engine) < 0)
		return 2;
	if (remote_open(name, (void **)&remote) < 0)
		return slu_last_error()[0] ? 1 : 3;
	slu_engine_close(engine);
	return 0;
}

#define with_engine(test) cmocka_unit_test_setup_teardown(test, open_engine, close_engine)

int main(int argc, char **argv)
{
	static const struct peer_role roles[] = {{"serve", peer_serve}, {"knock", knock}, {0}};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_engine_open),
		with_engine(test_region_alloc),
		with_engine(test_segment_export),
		with_engine(test_remote_of_this_process),
		with_engine(test_remote_of_a_peer),
		with_engine(test_target_under_a_client),
		with_engine(test_inline_queue),
		with_engine(test_poller_queue),
		with_engine(test_pool),
	};
	int ret = peer_main(argc, argv, roles);

	if (ret >= 0)
		return ret;
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	snprintf(own_name, sizeof(own_name), "inject-own-%d", (int)getpid());
	snprintf(peer_name, sizeof(peer_name), "inject-peer-%d", (int)getpid());
	return cmocka_run_group_tests(tests, NULL, NULL);
}
