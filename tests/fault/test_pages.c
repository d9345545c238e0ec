/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 2 MiB pages that another process takes at any moment: where ordinary pages would do an engine
 * opens, and says what it runs on.
 */
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/mman.h>
#include <sluice/sluice.h>

#include "env/hugepages.h"
#include "tests/fault/peer.h"
#include "tests/tap.h"

#define OPENS     20
#define PAGES_MAX 4096
#define PAGE      (UINT64_C(2) << 20)

/* Exit codes of who opens. */
enum { ON_HUGEPAGES, ON_ORDINARY_PAGES, NOT_OPENED, NOT_SAID };

/* ---- the thief ---- */

static void *stolen[PAGES_MAX];
static unsigned stolen_count;

static void steal_all(void)
{
	while (stolen_count < PAGES_MAX) {
		void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB |
					  MAP_POPULATE,
				  -1, 0);

		if (page == MAP_FAILED)
			break;
		stolen[stolen_count++] = page;
	}
}

static void give_all_back(void)
{
	while (stolen_count > 0)
		munmap(stolen[--stolen_count], PAGE);
}

/* Role: take what there is and keep it. */
static int keep(const char *arg)
{
	(void)arg;
	steal_all();
	peer_say(PEER_READY);
	while (!peer_is_told_to_stop(1))
		steal_all(); /* also what others give back */
	return 0;
}

/* Role: take it, give it back, and so on. */
static int flap(const char *arg)
{
	(void)arg;
	peer_say(PEER_READY);
	while (!peer_is_told_to_stop(0)) {
		steal_all();
		give_all_back();
	}
	return 0;
}

/* Role: let the others take the first ones, and then take the rest. */
static int pounce(const char *arg)
{
	uint64_t before = hugepages_free();

	(void)arg;
	peer_say(PEER_READY);
	while (!peer_is_told_to_stop(0))
		if (hugepages_free() < before)
			steal_all();
	return 0;
}

/* ---- who opens ---- */

static _Atomic bool said;

static void listen_to_log(void *arg, enum slu_log_level level, const char *text)
{
	(void)level;
	(void)arg;
	if (strstr(text, "rings are on ordinary pages") && strstr(text, "vm.nr_hugepages"))
		atomic_store(&said, true);
}

static int open_all(struct slu_engine *engine)
{
	struct slu_queue_options options;
	struct slu_region *region;
	struct slu_queue *queue;
	struct slu_pool *pool;
	int rc = slu_region_alloc(engine, 4 * PAGE, NULL, &region);

	slu_queue_options_init(&options, sizeof(options));
	if (rc == 0)
		rc = slu_pool_open(region, 0, PAGE, 4096, 64, &pool);
	for (int poller = SLU_POLLER_INLINE; rc == 0 && poller <= 0; poller++) {
		options.poller = poller;
		rc = slu_queue_open(engine, &options, &queue);
	}
	return rc;
}

/* Role: an engine with all that takes memory. */
static int visit(const char *arg)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	struct slu_engine *engine;
	int rc;

	(void)arg;
	slu_log_set(SLU_LOG_INFO, listen_to_log, NULL);
	rc = peer_open_engine(1, SLU_POLL_ADAPTIVE, &engine);
	if (rc == 0)
		rc = open_all(engine);
	if (rc < 0) {
		fprintf(stderr, "%s\n", slu_last_error());
		return NOT_OPENED;
	}
	slu_engine_get_info(engine, &info);
	_exit(info.eal_hugepages == said ? NOT_SAID : said ? ON_ORDINARY_PAGES : ON_HUGEPAGES);
}

static int visits(unsigned count, unsigned outcomes[])
{
	for (unsigned i = 0; i < count; i++) {
		struct peer visitor;
		int outcome;

		assert_int_equal(peer_start("visit", "", &visitor), 0);
		outcome = peer_stop(&visitor);
		if (outcome != ON_HUGEPAGES && outcome != ON_ORDINARY_PAGES)
			return outcome;
		outcomes[outcome]++;
	}
	return 0;
}

/* ---- the tests ---- */

static void steal_beside(const char *role, unsigned count)
{
	unsigned outcomes[2] = {0};
	struct peer thief;
	int bad;

	assert_int_equal(peer_start(role, "", &thief), 0);
	assert_int_equal(peer_answer(&thief, PEER_HANG_MS), PEER_READY);
	bad = visits(count, outcomes);
	assert_int_equal(peer_stop(&thief), 0);
	assert_int_equal(bad, 0);
	tap_comment("%u engines on 2 MiB pages, %u on ordinary ones", outcomes[ON_HUGEPAGES],
		    outcomes[ON_ORDINARY_PAGES]);
}

/* Goal: while another process takes all 2 MiB pages and gives them back, engines open. */
static void test_taken_at_any_moment(void **state)
{
	(void)state;
	if (hugepages_free() == 0)
		skip_because("no free 2 MiB pages");
	steal_beside("flap", OPENS);
}

/* Goal: or takes what is left as soon as the engine has taken the first. */
static void test_taken_meanwhile(void **state)
{
	(void)state;
	if (hugepages_free() == 0)
		skip_because("no free 2 MiB pages");
	for (int i = 0; i < OPENS / 4; i++)
		steal_beside("pounce", 1);
}

/* Goal: and when it keeps them. */
static void test_taken_before(void **state)
{
	(void)state;
	if (hugepages_free() == 0)
		skip_because("no free 2 MiB pages");
	steal_beside("keep", 2);
}

/* Goal: without any, or with some, the same works, and is said. */
static void test_undisturbed(void **state)
{
	unsigned outcomes[2] = {0};

	(void)state;
	assert_int_equal(visits(1, outcomes), 0);
}

static const struct peer_role roles[] = {
	{"keep", keep}, {"flap", flap}, {"pounce", pounce}, {"visit", visit}, {0}};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_undisturbed),
		cmocka_unit_test(test_taken_before),
		cmocka_unit_test(test_taken_meanwhile),
		cmocka_unit_test(test_taken_at_any_moment),
	};
	int ret = peer_main(argc, argv, roles);

	if (ret >= 0)
		return ret;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
