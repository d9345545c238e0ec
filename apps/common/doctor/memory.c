/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/options.h"
#include "common/doctor/checks.h"
#include "common/doctor/files.h"
#include "common/doctor/limits.h"

#define NODES     "/sys/devices/system/node"
#define HUGEPAGES "hugepages/hugepages-2048kB"
#define PAGE      (UINT64_C(2) << 20)

#define MEMLOCK_REMEDY "ulimit -l unlimited (as root), or LimitMEMLOCK=infinity in the unit"

static void judge_hugepages(struct doctor *doctor, const char *check, const char *file,
			    uint64_t total, uint64_t free_pages)
{
	uint64_t wanted = (doctor->needs.memory_bytes + PAGE - 1) / PAGE;
	char remedy[DOCTOR_TEXT];

	snprintf(remedy, sizeof(remedy), "echo %" PRIu64 " | sudo tee %s",
		 total - free_pages + (wanted > 512 ? wanted : 512), file);
	if (!total)
		doctor_add(doctor, VERDICT_WARNING, check, remedy,
			   "no 2 MiB pages are reserved: ordinary pages cost address translations");
	else if (!free_pages)
		doctor_add(doctor, VERDICT_WARNING, check, remedy,
			   "all %" PRIu64 " 2 MiB pages are in use", total);
	else
		doctor_add(doctor, VERDICT_OK, check, NULL,
			   "%" PRIu64 " of %" PRIu64 " 2 MiB pages are free", free_pages, total);
}

static uint64_t check_node(struct doctor *doctor, const char *node)
{
	uint64_t total = 0, free_pages = 0;
	char check[64], file[256];

	snprintf(check, sizeof(check), "hugepages %s", node);
	snprintf(file, sizeof(file), NODES "/%.40s/" HUGEPAGES "/nr_hugepages", node);
	if (!file_number(doctor, &total, "%s", file) ||
	    !file_number(doctor, &free_pages, NODES "/%s/" HUGEPAGES "/free_hugepages", node))
		doctor_add(doctor, VERDICT_ABSENT, check, NULL,
			   "this kernel has no 2 MiB pages: ordinary ones are used");
	else
		judge_hugepages(doctor, check, file, total, free_pages);
	return free_pages;
}

static void check_enough(struct doctor *doctor, uint64_t free_pages)
{
	bool required = doctor->needs.hugepages_required;
	uint64_t wanted = (doctor->needs.memory_bytes + PAGE - 1) / PAGE;

	if (!wanted || (free_pages >= wanted))
		return;
	doctor_add(doctor, required ? VERDICT_PROBLEM : VERDICT_WARNING, "hugepages for segments",
		   "sudo sysctl vm.nr_hugepages=N with enough for them, soon after boot",
		   "the segments want %" PRIu64 " 2 MiB pages, %" PRIu64 " are free: %s", wanted,
		   free_pages, required ? "--page 2M will fail" : "ordinary pages will be used");
}

/* @return 2 MiB pages that are free */
static uint64_t check_nodes(struct doctor *doctor)
{
	uint64_t free_pages = 0;
	char **names;
	int count = file_names(doctor, NODES, "node", &names);

	for (int i = 0; i < count; i++) {
		free_pages += check_node(doctor, names[i]);
		free(names[i]);
	}
	free(names);
	check_enough(doctor, free_pages);
	doctor->nodes = count > 0 ? (uint32_t)count : 1;
	doctor_add(doctor, VERDICT_OK, "NUMA nodes", NULL, "%u", doctor->nodes);
	return free_pages;
}

/* Does the limit count for us? */
static bool may_lock_all(const struct doctor *doctor)
{
	char text[FILE_TEXT];

	return file_find(doctor, text, "/proc/self/status", "CapEff:") &&
	       strtoull(text, NULL, 16) >> CAP_IPC_LOCK & 1;
}

static bool has_rdma(const struct doctor *doctor)
{
	char **names;
	int count = file_names(doctor, "/sys/class/infiniband", "", &names);

	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
	return count > 0 && !doctor->needs.no_rdma;
}

/* Registered memory is pinned, and counts: the kernel refuses what is over the limit. */
static void judge_pinning(struct doctor *doctor, uint64_t limit)
{
	uint64_t pinned = doctor->needs.pinned_bytes;
	bool short_of = pinned > limit;
	char text[OPTION_SIZE_TEXT], wanted[OPTION_SIZE_TEXT];

	option_format_size(limit, text);
	option_format_size(pinned, wanted);
	if (short_of)
		doctor_add(doctor, doctor->needs.verbs_required ? VERDICT_PROBLEM : VERDICT_WARNING,
			   "memlock limit", MEMLOCK_REMEDY,
			   "%s, and RDMA would pin %s: it cannot be registered", text, wanted);
	else if (pinned)
		doctor_add(doctor, VERDICT_OK, "memlock limit", NULL, "%s, and RDMA would pin %s",
			   text, wanted);
	else
		doctor_add(doctor, VERDICT_WARNING, "memlock limit", MEMLOCK_REMEDY,
			   "%s: RDMA pins what it registers, and may not pin more", text);
}

/* RDMA pins what it registers; nothing else does without --mlock. */
static void check_memlock(struct doctor *doctor)
{
	const struct doctor_needs *needs = &doctor->needs;
	char text[OPTION_SIZE_TEXT];
	struct limit limit;

	if (!limit_read(doctor, "Max locked memory", &limit)) {
		doctor_add(doctor, VERDICT_SKIPPED, "memlock limit", NULL,
			   "/proc/self/limits cannot be read");
		return;
	}
	option_format_size(limit.soft, text);
	if (limit.soft == LIMIT_NONE)
		doctor_add(doctor, VERDICT_OK, "memlock limit", NULL, "unlimited");
	else if (may_lock_all(doctor))
		doctor_add(doctor, VERDICT_OK, "memlock limit", NULL,
			   "%s, which does not count for us (CAP_IPC_LOCK)", text);
	else if (needs->locks && limit.soft < needs->memory_bytes)
		doctor_add(doctor, VERDICT_PROBLEM, "memlock limit", MEMLOCK_REMEDY,
			   "%s, and --mlock locks more", text);
	else if (has_rdma(doctor))
		judge_pinning(doctor, limit.soft);
	else
		doctor_add(doctor, VERDICT_OK, "memlock limit", NULL,
			   "%s: nothing is pinned without RDMA and --mlock", text);
}

static void check_balancing(struct doctor *doctor)
{
	uint64_t on;

	if (!file_number(doctor, &on, "/proc/sys/kernel/numa_balancing"))
		doctor_add(doctor, VERDICT_ABSENT, "NUMA balancing", NULL,
			   "this kernel cannot move pages between nodes by itself");
	else if (!on)
		doctor_add(doctor, VERDICT_OK, "NUMA balancing", NULL, "off");
	else if (doctor->nodes < 2)
		doctor_add(doctor, VERDICT_OK, "NUMA balancing", NULL,
			   "on, and with one node nothing moves");
	else
		doctor_add(doctor, VERDICT_WARNING, "NUMA balancing",
			   "sudo sysctl kernel.numa_balancing=0",
			   "on: it unmaps pages to watch who uses them, and polling cores fault");
}

static void check_transparent(struct doctor *doctor)
{
	char text[FILE_TEXT];

	if (!file_line(doctor, text, "/sys/kernel/mm/transparent_hugepage/enabled"))
		doctor_add(doctor, VERDICT_ABSENT, "transparent hugepages", NULL,
			   "this kernel has none");
	else if (strstr(text, "[always]"))
		doctor_add(doctor, VERDICT_WARNING, "transparent hugepages",
			   "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
			   "always: the kernel may stop a thread to compact memory for them");
	else
		doctor_add(doctor, VERDICT_OK, "transparent hugepages", NULL, "%s",
			   strstr(text, "[madvise]") ? "madvise" : "never");
}

/*
 * A segment is on pages of one kind, so the largest has to fit in either; which of the others go
 * where depends on their order.
 */
static enum verdict judge_available(const struct doctor_needs *needs, uint64_t available,
				    uint64_t reserved)
{
	if (needs->memory_bytes <= available || needs->memory_bytes <= reserved)
		return VERDICT_OK;
	if (needs->memory_bytes > available + reserved)
		return VERDICT_PROBLEM;
	return needs->largest_bytes > available && needs->largest_bytes > reserved
		       ? VERDICT_PROBLEM
		       : VERDICT_WARNING;
}

static void check_available(struct doctor *doctor, uint64_t hugepages_free)
{
	const struct doctor_needs *needs = &doctor->needs;
	uint64_t reserved = needs->hugepages_declined ? 0 : hugepages_free * PAGE;
	char text[FILE_TEXT], want[OPTION_SIZE_TEXT], have[OPTION_SIZE_TEXT];
	enum verdict verdict;
	uint64_t available;

	if (!needs->memory_bytes || needs->hugepages_required ||
	    !file_find(doctor, text, "/proc/meminfo", "MemAvailable:"))
		return;
	available = strtoull(text, NULL, 10) << 10;
	option_format_size(needs->memory_bytes, want);
	option_format_size(available >> 20 << 20, have);
	verdict = judge_available(needs, available, reserved);
	doctor_add(doctor, verdict, "memory",
		   verdict == VERDICT_OK ? NULL : "serve less, or from reserved hugepages",
		   "%s for segments, %s available on ordinary pages%s", want, have,
		   verdict == VERDICT_PROBLEM ? ": serving would fail" : "");
}

void check_memory(struct doctor *doctor)
{
	check_available(doctor, check_nodes(doctor));
	check_memlock(doctor);
	check_balancing(doctor);
	check_transparent(doctor);
}
