/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/options.h"
#include "common/doctor/checks.h"
#include "common/doctor/files.h"
#include "common/doctor/limits.h"

#define BUFFER_BYTES (UINT64_C(4) << 20) /* a round trip of 0.3 ms at 100 Gbit/s */
#define BACKLOG      4096
#define FILES_TARGET 65536
#define FILES_LEAST  1024

/* The third number of tcp_rmem and tcp_wmem is what the kernel grows a connection's buffer to. */
static void check_buffer(struct doctor *doctor, const char *name)
{
	char text[FILE_TEXT], size[OPTION_SIZE_TEXT], remedy[DOCTOR_TEXT], check[64];
	unsigned long least, initial, most;

	snprintf(check, sizeof(check), "socket buffers %s", name);
	if (!file_line(doctor, text, "/proc/sys/net/ipv4/%s", name) ||
	    sscanf(text, "%lu %lu %lu", &least, &initial, &most) != 3) {
		doctor_add(doctor, VERDICT_SKIPPED, check, NULL, "net.ipv4.%s cannot be read",
			   name);
		return;
	}
	option_format_size(most, size);
	snprintf(remedy, sizeof(remedy), "sudo sysctl -w net.ipv4.%s='%lu %lu %" PRIu64 "'", name,
		 least, initial, 4 * BUFFER_BYTES);
	if (most < BUFFER_BYTES)
		doctor_add(doctor, VERDICT_WARNING, check, remedy,
			   "grow to %s: too little for fast links between hosts", size);
	else
		doctor_add(doctor, VERDICT_OK, check, NULL, "grow to %s", size);
}

/* Only what a program sets by hand is bound by these, unlike the kernel's own growing. */
static void check_core_max(struct doctor *doctor, const char *name)
{
	char check[64], size[OPTION_SIZE_TEXT];
	uint64_t bytes;

	snprintf(check, sizeof(check), "net.core.%s", name);
	if (!file_number(doctor, &bytes, "/proc/sys/net/core/%s", name)) {
		doctor_add(doctor, VERDICT_SKIPPED, check, NULL,
			   "cannot be read in this network namespace");
		return;
	}
	option_format_size(bytes, size);
	doctor_add(doctor, VERDICT_OK, check, NULL, "%s; bounds only buffers set by hand", size);
}

static void check_backlog(struct doctor *doctor)
{
	uint64_t backlog;

	if (!file_number(doctor, &backlog, "/proc/sys/net/core/somaxconn"))
		doctor_add(doctor, VERDICT_SKIPPED, "accept backlog", NULL,
			   "net.core.somaxconn cannot be read");
	else if (backlog < BACKLOG)
		doctor_add(doctor, VERDICT_WARNING, "accept backlog",
			   "sudo sysctl net.core.somaxconn=4096",
			   "%" PRIu64 ": when many clients come at once, some wait for a second",
			   backlog);
	else
		doctor_add(doctor, VERDICT_OK, "accept backlog", NULL, "%" PRIu64, backlog);
}

static void check_files(struct doctor *doctor)
{
	uint64_t wanted = doctor->needs.serves ? FILES_TARGET : FILES_LEAST;
	struct limit limit;

	if (!limit_read(doctor, "Max open files", &limit))
		doctor_add(doctor, VERDICT_SKIPPED, "open files", NULL,
			   "/proc/self/limits cannot be read");
	else if (limit.soft < 128)
		doctor_add(doctor, VERDICT_PROBLEM, "open files", "ulimit -n 65536",
			   "at most %" PRIu64 ": too few even for one client", limit.soft);
	else if (limit.soft < wanted)
		doctor_add(doctor, VERDICT_WARNING, "open files",
			   limit.hard >= wanted
				   ? "ulimit -n 65536, or LimitNOFILE=65536 in the unit"
				   : "ulimit -n 65536 as root, or LimitNOFILE=65536 in "
				     "the unit",
			   "at most %" PRIu64 ": one for each connection, and more over shm",
			   limit.soft);
	else
		doctor_add(doctor, VERDICT_OK, "open files", NULL, "at most %" PRIu64, limit.soft);
}

static void check_ktls(struct doctor *doctor)
{
	char text[FILE_TEXT] = "";
	bool known = file_line(doctor, text, "/proc/sys/net/ipv4/tcp_available_ulp");

	if (known && strstr(text, "tls"))
		doctor_add(doctor, VERDICT_OK, "kernel TLS", NULL, "loaded");
	else if (doctor->needs.tls)
		doctor_add(doctor, VERDICT_WARNING, "kernel TLS", "sudo modprobe tls",
			   "not loaded: encrypting takes one more copy in user space");
	else
		doctor_add(doctor, VERDICT_ABSENT, "kernel TLS", NULL,
			   "not loaded, and no TLS is configured");
}

void check_network(struct doctor *doctor)
{
	check_files(doctor);
	check_buffer(doctor, "tcp_rmem");
	check_buffer(doctor, "tcp_wmem");
	check_core_max(doctor, "rmem_max");
	check_core_max(doctor, "wmem_max");
	check_backlog(doctor);
	check_ktls(doctor);
}
