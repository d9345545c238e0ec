/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/options.h"
#include "common/doctor/checks.h"
#include "common/doctor/files.h"

#define CGROUPS "/sys/fs/cgroup"

/* CPUs in a list such as "0-3,8". */
static unsigned count_list(const char *list)
{
	unsigned count = 0;

	while (*list) {
		char *end;
		unsigned long first = strtoul(list, &end, 10);
		unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;

		if (end == list || last < first)
			return count;
		count += (unsigned)(last - first + 1);
		list = *end == ',' ? end + 1 : end;
	}
	return count;
}

static unsigned count_cpus(const struct doctor *doctor)
{
	char list[FILE_TEXT];

	if (!file_line(doctor, list, "/sys/devices/system/cpu/online"))
		return 0;
	return count_list(list);
}

static void check_cpuset(struct doctor *doctor)
{
	char list[FILE_TEXT];
	unsigned online = count_cpus(doctor), usable;

	if (!file_find(doctor, list, "/proc/self/status", "Cpus_allowed_list:"))
		return;
	usable = count_list(list);
	doctor_add(doctor, VERDICT_OK, "CPUs", NULL, "%u of %u may be used: %.100s", usable, online,
		   list);
}

/* "max 100000", "150000 100000": microseconds of CPU time in each period. */
static void check_quota(struct doctor *doctor, const char *group)
{
	char text[FILE_TEXT];
	unsigned long quota = 0, period = 0;

	if (!file_line(doctor, text, CGROUPS "%s/cpu.max", group) || !strncmp(text, "max", 3))
		doctor_add(doctor, VERDICT_OK, "CPU quota", NULL, "none");
	else if (sscanf(text, "%lu %lu", &quota, &period) != 2 || !period)
		doctor_add(doctor, VERDICT_SKIPPED, "CPU quota", NULL,
			   "\"%.60s\" is not understood", text);
	else
		doctor_add(doctor, quota < period ? VERDICT_PROBLEM : VERDICT_WARNING, "CPU quota",
			   "start the container without --cpus (with --cpuset-cpus), or the unit "
			   "without CPUQuota=",
			   "%.2f CPUs' time in each %lu ms: a poller that has used it up stands "
			   "still for the rest",
			   (double)quota / (double)period, period / 1000);
}

static void check_memory_limit(struct doctor *doctor, const char *group)
{
	char text[OPTION_SIZE_TEXT];
	uint64_t max, current = 0;
	bool too_small;

	if (!file_number(doctor, &max, CGROUPS "%s/memory.max", group)) {
		doctor_add(doctor, VERDICT_OK, "memory limit", NULL, "none");
		return;
	}
	file_number(doctor, &current, CGROUPS "%s/memory.current", group);
	too_small = max < current || max - current < doctor->needs.memory_bytes;
	option_format_size(max, text);
	doctor_add(doctor, too_small ? VERDICT_PROBLEM : VERDICT_OK, "memory limit",
		   too_small ? "start the container with a higher --memory, or the unit with "
			       "MemoryMax="
			     : NULL,
		   "%s, %" PRIu64 " MiB of it used%s", text, current >> 20,
		   too_small ? ": the segments do not fit, and would be killed" : "");
}

void check_container(struct doctor *doctor)
{
	char group[FILE_TEXT];

	check_cpuset(doctor);
	if (!file_find(doctor, group, "/proc/self/cgroup", "0::") ||
	    !file_exists(doctor, CGROUPS "/cgroup.controllers")) {
		doctor_add(doctor, VERDICT_SKIPPED, "limits of the container", NULL,
			   "no control groups of version 2");
		return;
	}
	/* In a container the group is often named as the host sees it, and its files are at the
	 * top. */
	if (!file_exists(doctor, CGROUPS "%s/cgroup.procs", group))
		group[0] = '\0';
	check_quota(doctor, group);
	check_memory_limit(doctor, group);
}
