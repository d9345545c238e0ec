/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May one more area be shared with a client? It takes a mapping of this process, of which the
 * kernel allows only so many. Some are kept for the process itself, and some for identities that
 * have few sessions. And it takes descriptors, which stay for a while when its client has left.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>

#include "base/log.h"
#include "engine/engine_internal.h"
#include "engine/process.h"

#define MAPPINGS_UNKNOWN 65530u /* Linux's own default */
#define FEW_SESSIONS     256u
#define LINGERING_FEW    32u

static uint32_t mappings_max(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	uint32_t max = MAPPINGS_UNKNOWN;

	if (!file)
		return max;
	if (fscanf(file, "%" SCNu32, &max) != 1)
		max = MAPPINGS_UNKNOWN;
	fclose(file);
	return max;
}

static uint32_t reserve(uint32_t max)
{
	return max / 8 < ENGINE_MAPPINGS_RESERVE ? max / 8 : ENGINE_MAPPINGS_RESERVE;
}

/* A lingering area has two descriptors; those of one identity have at most a quarter of all. */
static int check_lingering(const struct slu_engine *engine, const struct budget *budget)
{
	uint32_t lingering = budget_lingering(budget);
	struct rlimit limit;

	if (lingering < LINGERING_FEW || getrlimit(RLIMIT_NOFILE, &limit) < 0 ||
	    lingering < limit.rlim_cur / 8)
		return 0;
	return fail(-EMFILE,
		    "sessions of this identity come and go so fast that target %s keeps %u areas "
		    "of those that went, of %ju descriptors in all: keep sessions open, or raise "
		    "its limit with ulimit -n",
		    engine->name, lingering, (uintmax_t)limit.rlim_cur);
}

/* Asked anew each time that it matters: it can be raised while we run. */
static int check_mappings(const struct slu_engine *engine, const struct budget *budget)
{
	bool few = !budget || budget_used(budget, SLU_LIMIT_SESSIONS) <= FEW_SESSIONS;
	uint32_t areas = atomic_load(&process_areas);
	uint32_t max;

	if (areas < FEW_SESSIONS)
		return 0;
	max = mappings_max();
	if (areas < max - (few ? 1 : 2) * reserve(max))
		return 0;
	return fail(-ENOSPC,
		    "target %s shares %u areas of memory with clients, and of the %u mappings that "
		    "Linux gives a process the rest is kept for %s: raise it with sysctl "
		    "vm.max_map_count, or use --require tcp",
		    engine->name, areas, max,
		    few ? "the process itself" : "it and for other identities");
}

int admission_check(const struct slu_engine *engine, const struct budget *budget)
{
	int rc = check_lingering(engine, budget);

	return rc < 0 ? rc : check_mappings(engine, budget);
}
