/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/process.h"

#include <pthread.h>
#include <stdbool.h>

#include "base/barrier.h"
#include "base/clock.h"
#include "base/environment.h"
#include "base/fork.h"
#include "env/eal.h"
#include "memory/copy.h"
#include "memory/heap.h"

_Atomic uint32_t process_areas;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static bool chosen;                                      /* what is there without EAL */
static bool started;
static bool has_tsc;

/* Once: pollers of another engine go by it. */
static void choose(void)
{
	if (chosen)
		return;
	barrier_init();
	copy_init();
	chosen = true;
}

static int start(void)
{
	int rc = eal_start(); /* each time: an engine needs descriptors */

	if (rc == 0)
		rc = heap_start();
	if (rc < 0 || started)
		return rc;
	has_tsc = clock_tsc_init(eal_tsc_hz(), CLOCK_SOURCE_FILE);
	started = true;
	return 0;
}

int process_start(void)
{
	int rc;

	if (fork_is_child())
		return fork_refuse();
	fork_prepare();
	pthread_mutex_lock(&lock);
	choose();
	rc = start();
	pthread_mutex_unlock(&lock);
	return rc;
}

slu_clock_fn process_clock(void)
{
	return has_tsc && !environment_is_stepped() ? clock_tsc_ns : clock_monotonic_ns;
}
