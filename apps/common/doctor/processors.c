/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/doctor/checks.h"
#include "common/doctor/files.h"

#define CPUS "/sys/devices/system/cpu"

/* A list of CPUs; "" and "(null)" are none. */
static bool read_list(const struct doctor *doctor, const char *name, char text[static FILE_TEXT])
{
	return file_line(doctor, text, CPUS "/%s", name) && text[0] && text[0] != '(';
}

static void check_isolation(struct doctor *doctor)
{
	char isolated[FILE_TEXT], tickless[FILE_TEXT];
	bool has_isolated = read_list(doctor, "isolated", isolated);
	bool has_tickless = read_list(doctor, "nohz_full", tickless);

	if (!has_isolated)
		doctor_add(
			doctor, VERDICT_WARNING, "CPU isolation",
			"boot with isolcpus=LIST nohz_full=LIST for the CPUs of --cores",
			"no CPU is isolated: other work can stop a polling core for milliseconds");
	else if (!has_tickless)
		doctor_add(doctor, VERDICT_WARNING, "CPU isolation",
			   "boot with nohz_full= for the same CPUs",
			   "CPUs %.100s are isolated, and the timer still interrupts them",
			   isolated);
	else
		doctor_add(doctor, VERDICT_OK, "CPU isolation", NULL,
			   "CPUs %.100s are isolated, %.100s without timer ticks", isolated,
			   tickless);
}

static void check_governor(struct doctor *doctor)
{
	char governor[FILE_TEXT], slow[FILE_TEXT] = "";
	int known = 0, slow_count = 0;
	char **names;
	int count = file_names(doctor, CPUS, "cpu", &names);

	for (int i = 0; i < count; i++) {
		if (file_line(doctor, governor, CPUS "/%s/cpufreq/scaling_governor", names[i])) {
			known++;
			if (strcmp(governor, "performance") && !slow_count++)
				snprintf(slow, sizeof(slow), "%s", governor);
		}
		free(names[i]);
	}
	free(names);
	if (!known)
		doctor_add(doctor, VERDICT_ABSENT, "frequency governor", NULL,
			   "this system does not set frequencies (a virtual machine, often)");
	else if (slow_count)
		doctor_add(doctor, VERDICT_WARNING, "frequency governor",
			   "sudo cpupower frequency-set -g performance",
			   "%.40s on %d of %d CPUs: a core is slow when work comes", slow,
			   slow_count, known);
	else
		doctor_add(doctor, VERDICT_OK, "frequency governor", NULL, "performance");
}

/* These are read in user space, by way of the vDSO. */
static bool is_cheap(const char *clock)
{
	return !strcmp(clock, "tsc") || !strcmp(clock, "kvm-clock") ||
	       !strcmp(clock, "hyperv_clocksource_tsc_page") || !strcmp(clock, "arch_sys_counter");
}

static void check_clock(struct doctor *doctor)
{
	char current[FILE_TEXT], available[FILE_TEXT] = "";
	bool has_tsc;

	if (!file_line(doctor, current,
		       "/sys/devices/system/clocksource/clocksource0/current_clocksource")) {
		doctor_add(doctor, VERDICT_SKIPPED, "clock source", NULL,
			   "the system does not tell");
		return;
	}
	file_line(doctor, available,
		  "/sys/devices/system/clocksource/clocksource0/available_clocksource");
	has_tsc = strstr(available, "tsc") != NULL;
	if (is_cheap(current))
		doctor_add(doctor, VERDICT_OK, "clock source", NULL, "%.40s", current);
	else
		doctor_add(doctor, VERDICT_WARNING, "clock source",
			   has_tsc ? "echo tsc | sudo tee /sys/devices/system/clocksource/"
				     "clocksource0/current_clocksource"
				   : "dmesg | grep -i tsc tells why the kernel dropped it",
			   "%.40s: each look at the time is a system call", current);
}

void check_processors(struct doctor *doctor)
{
	check_isolation(doctor);
	check_governor(doctor);
	check_clock(doctor);
}
