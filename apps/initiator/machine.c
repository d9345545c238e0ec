/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/machine.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define HUGEPAGES "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define NODES_MAX 1024

/* First line of a file without its newline; "unknown" when there is none. */
static void read_line(const char *path, char text[static MACHINE_TEXT])
{
	FILE *file = fopen(path, "r");

	snprintf(text, MACHINE_TEXT, "unknown");
	if (!file)
		return;
	if (fgets(text, MACHINE_TEXT, file))
		text[strcspn(text, "\n")] = '\0';
	else
		snprintf(text, MACHINE_TEXT, "unknown");
	fclose(file);
}

static uint64_t read_number(const char *path)
{
	char text[MACHINE_TEXT];

	read_line(path, text);
	return strtoull(text, NULL, 10);
}

/* "always [madvise] never" to "madvise" */
static void keep_chosen(char text[static MACHINE_TEXT])
{
	char *open = strchr(text, '[');
	char *close = open ? strchr(open, ']') : NULL;

	if (!close)
		return;
	memmove(text, open + 1, (size_t)(close - open - 1));
	text[close - open - 1] = '\0';
}

/* Line by line: "model name : ...", "flags : ... hypervisor ..." of the first CPU. */
static void read_cpuinfo(struct machine *machine)
{
	FILE *file = fopen("/proc/cpuinfo", "r");
	char *line = NULL;
	size_t size = 0;

	snprintf(machine->cpu, sizeof(machine->cpu), "unknown");
	while (file && getline(&line, &size, file) > 1) {
		const char *value = strchr(line, ':');

		if (value && !strncmp(line, "model name", 10))
			snprintf(machine->cpu, sizeof(machine->cpu), "%.*s",
				 (int)strcspn(value + 2, "\n"), value + 2);
		if (!strncmp(line, "flags", 5) && strstr(line, " hypervisor"))
			machine->virtual_machine = true;
	}
	free(line);
	if (file)
		fclose(file);
}

static uint32_t count_nodes(void)
{
	uint32_t count = 0;
	char path[64];

	for (int node = 0; node < NODES_MAX; node++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", node);
		count += access(path, F_OK) == 0;
	}
	return count ? count : 1;
}

static uint32_t count_usable_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 0 : (uint32_t)CPU_COUNT(&set);
}

static int read_numa_balancing(void)
{
	char text[MACHINE_TEXT];

	read_line("/proc/sys/kernel/numa_balancing", text);
	return strcmp(text, "unknown") ? text[0] != '0' : -1;
}

void machine_read(struct machine *machine)
{
	struct utsname names = {0};

	*machine = (struct machine){0};
	uname(&names);
	snprintf(machine->kernel, sizeof(machine->kernel), "%s", names.release);
	snprintf(machine->hostname, sizeof(machine->hostname), "%s", names.nodename);
	read_cpuinfo(machine);
	read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", machine->governor);
	read_line("/sys/kernel/mm/transparent_hugepage/enabled", machine->thp);
	keep_chosen(machine->thp);
	machine->cpus_online = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	machine->cpus_usable = count_usable_cpus();
	machine->nodes = count_nodes();
	machine->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	machine->hugepages_total = read_number(HUGEPAGES "nr_hugepages");
	machine->hugepages_free = read_number(HUGEPAGES "free_hugepages");
	machine->numa_balancing = read_numa_balancing();
}
