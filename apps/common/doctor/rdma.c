/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/rdma.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/doctor/checks.h"
#include "numa/placement.h"

#define VERBS_FILES "/sys/class/infiniband_verbs"
#define NODES       "/sys/devices/system/node"
#define PCI_DEVICES "/sys/bus/pci/devices"
#define CPUS_MAX    (PLACEMENT_CPU_MAX + 1)

/* ---- how a program reaches a device ---- */

/* The name of its file, such as "uverbs0". */
static bool find_file(const struct doctor *doctor, const char *device, char file[static FILE_TEXT])
{
	char of[FILE_TEXT];
	bool found = false;
	char **names;
	int count = file_names(doctor, VERBS_FILES, "uverbs", &names);

	for (int i = 0; i < count; i++) {
		if (!found && file_line(doctor, of, VERBS_FILES "/%s/ibdev", names[i]) &&
		    !strcmp(of, device)) {
			snprintf(file, FILE_TEXT, "%.64s", names[i]);
			found = true;
		}
		free(names[i]);
	}
	free(names);
	return found;
}

static bool check_access(struct doctor *doctor, const char *device)
{
	char file[FILE_TEXT], check[64], remedy[DOCTOR_TEXT];

	snprintf(check, sizeof(check), "RDMA %.40s access", device);
	if (!find_file(doctor, device, file)) {
		doctor_add(doctor, VERDICT_PROBLEM, check, "sudo modprobe ib_uverbs",
			   "the kernel offers no file to use it by: ib_uverbs is not loaded");
		return false;
	}
	if (file_usable(doctor, "/dev/infiniband/%s", file)) {
		doctor_add(doctor, VERDICT_OK, check, NULL, "/dev/infiniband/%s", file);
		return true;
	}
	snprintf(remedy, sizeof(remedy), "sudo chmod 666 /dev/infiniband/%.64s, or a rule of udev",
		 file);
	if (file_exists(doctor, "/dev/infiniband/%s", file))
		doctor_add(doctor, VERDICT_PROBLEM, check, remedy,
			   "/dev/infiniband/%s is not ours to read and write", file);
	else
		doctor_add(doctor, VERDICT_PROBLEM, check,
			   "in a container: --device /dev/infiniband; in a unit: PrivateDevices=no "
			   "and DeviceAllow=char-infiniband_verbs rw",
			   "/dev/infiniband/%s is not there, though the kernel has the device",
			   file);
	return false;
}

/* Only queue pairs that are connected by librdmacm need it. */
static void check_manager(struct doctor *doctor)
{
	static const char check[] = "RDMA connection manager";
	enum verdict missing = doctor->needs.cm ? VERDICT_PROBLEM : VERDICT_ABSENT;

	if (file_usable(doctor, "/dev/infiniband/rdma_cm"))
		doctor_add(doctor, VERDICT_OK, check, NULL, "/dev/infiniband/rdma_cm");
	else if (file_exists(doctor, "/dev/infiniband/rdma_cm"))
		doctor_add(doctor, missing, check, "sudo chmod 666 /dev/infiniband/rdma_cm",
			   "/dev/infiniband/rdma_cm is not ours to read and write; --connect cm "
			   "alone needs it");
	else if (file_exists(doctor, "/sys/class/misc/rdma_cm"))
		doctor_add(doctor, missing, check, "in a container: --device /dev/infiniband",
			   "/dev/infiniband/rdma_cm is not there, though the kernel has it; "
			   "--connect cm alone needs it");
	else
		doctor_add(doctor, missing, check, "sudo modprobe rdma_ucm",
			   "rdma_ucm is not loaded; --connect cm alone needs it");
}

/* ---- where it is ---- */

/* Folder of its card; what is made in software stands over a network interface, or nothing. */
static void find_hardware(const struct doctor *doctor, struct rdma_device *device)
{
	char parent[FILE_TEXT];

	snprintf(device->hardware, FILE_TEXT, RDMA_DEVICES "/%.64s/device", device->name);
	device->software = !file_exists(doctor, "%s", device->hardware);
	if (device->software && file_line(doctor, parent, RDMA_DEVICES "/%s/parent", device->name))
		snprintf(device->hardware, FILE_TEXT, "/sys/class/net/%.64s/device", parent);
}

static void check_software(struct doctor *doctor, const struct rdma_device *device)
{
	char check[64], parent[FILE_TEXT] = "a network interface", remedy[DOCTOR_TEXT];

	if (!device->software)
		return;
	snprintf(check, sizeof(check), "RDMA %.40s kind", device->name);
	snprintf(remedy, sizeof(remedy), "--no-rdma, or sudo rdma link delete %.60s", device->name);
	file_line(doctor, parent, RDMA_DEVICES "/%s/parent", device->name);
	doctor_add(
		doctor, VERDICT_WARNING, check, remedy,
		"done by the kernel over %.40s, without a card: for trying things; tcp is mostly "
		"faster",
		parent);
}

/* How many of @p cores are CPUs of @p node? */
static int count_near(const struct doctor *doctor, uint64_t node, const int *cores, int count)
{
	static int near[CPUS_MAX];
	char list[FILE_TEXT];
	int near_count = 0, found = 0;

	if (file_line(doctor, list, NODES "/node%" PRIu64 "/cpulist", node) && list[0])
		near_count = placement_parse_cores(list, near, CPUS_MAX);
	for (int i = 0; i < count; i++)
		for (int j = 0; j < near_count; j++)
			found += cores[i] == near[j];
	return found;
}

static void judge_cores(struct doctor *doctor, const char *check, uint64_t node)
{
	static int cores[CPUS_MAX];
	char remedy[DOCTOR_TEXT], list[FILE_TEXT] = "of that node";
	int count = placement_parse_cores(doctor->needs.cores, cores, CPUS_MAX);
	int near = count_near(doctor, node, cores, count);

	file_line(doctor, list, NODES "/node%" PRIu64 "/cpulist", node);
	snprintf(remedy, sizeof(remedy), "--cores with CPUs of node %" PRIu64 ": %.100s", node,
		 list);
	if (near == count)
		doctor_add(doctor, VERDICT_OK, check, NULL,
			   "%" PRIu64 ", and all --cores are on it", node);
	else
		doctor_add(doctor, VERDICT_WARNING, check, remedy,
			   "%" PRIu64
			   ", and %d of %d --cores are on another: they reach the device "
			   "across sockets",
			   node, count - near, count);
}

static void judge_node(struct doctor *doctor, const char *check, uint64_t node)
{
	char remedy[DOCTOR_TEXT];

	snprintf(remedy, sizeof(remedy), "--node %" PRIu64, node);
	if (doctor->needs.cores)
		judge_cores(doctor, check, node);
	else if (doctor->needs.node >= 0 && (uint64_t)doctor->needs.node != node)
		doctor_add(doctor, VERDICT_WARNING, check, remedy,
			   "%" PRIu64 ", and --node is %d: pollers and memory are across sockets "
			   "from it",
			   node, doctor->needs.node);
	else
		doctor_add(doctor, VERDICT_OK, check, NULL, "%" PRIu64 "%s", node,
			   doctor->needs.node < 0
				   ? ": memory and pollers are nearest with the same --node"
				   : ", as --node");
}

static void check_place(struct doctor *doctor, const struct rdma_device *device)
{
	char check[64];
	uint64_t node;

	if (doctor->nodes < 2)
		return;
	snprintf(check, sizeof(check), "RDMA %.40s NUMA node", device->name);
	/* The card of a virtual interface is the parent of its virtio device. */
	if (file_number(doctor, &node, "%s/numa_node", device->hardware) ||
	    (device->software && file_number(doctor, &node, "%s/../numa_node", device->hardware)))
		judge_node(doctor, check, node);
	else
		doctor_add(doctor, VERDICT_SKIPPED, check, "lstopo may know",
			   "the firmware does not tell");
}

/* ---- devices ---- */

/* @return can it be used? */
static bool check_device(struct doctor *doctor, const char *name)
{
	struct rdma_device device = {.name = name};
	char folder[FILE_TEXT];
	bool port = false, access;
	char **ports;
	int count;

	find_hardware(doctor, &device);
	check_software(doctor, &device);
	snprintf(folder, sizeof(folder), RDMA_DEVICES "/%.64s/ports", name);
	count = file_names(doctor, folder, "", &ports);
	for (int i = 0; i < count; i++) {
		port = rdma_port_check(doctor, &device, ports[i]) || port;
		free(ports[i]);
	}
	free(ports);
	access = check_access(doctor, name);
	check_place(doctor, &device);
	return port && access;
}

/* Cards by the classes of PCI, and by a maker of Ethernet cards that all do RDMA. */
static bool is_card(const struct doctor *doctor, const char *address)
{
	char class[FILE_TEXT], vendor[FILE_TEXT] = "";

	if (!file_line(doctor, class, PCI_DEVICES "/%s/class", address))
		return false;
	file_line(doctor, vendor, PCI_DEVICES "/%s/vendor", address);
	return !strncmp(class, "0x0207", 6) ||
	       (!strncmp(class, "0x02", 4) && !strcmp(vendor, "0x15b3"));
}

static int count_cards(const struct doctor *doctor, char first[static FILE_TEXT])
{
	int cards = 0;
	char **names;
	int count = file_names(doctor, PCI_DEVICES, "", &names);

	for (int i = 0; i < count; i++) {
		if (is_card(doctor, names[i]) && !cards++)
			snprintf(first, FILE_TEXT, "%.64s", names[i]);
		free(names[i]);
	}
	free(names);
	return cards;
}

static void say_none(struct doctor *doctor)
{
	bool required = doctor->needs.verbs_required;
	char first[FILE_TEXT];
	int cards = count_cards(doctor, first);

	if (cards) {
		doctor_add(
			doctor, required ? VERDICT_PROBLEM : VERDICT_WARNING, "RDMA devices",
			"load the driver: sudo modprobe mlx5_ib (ConnectX-4 and later), mlx4_ib, "
			"hfi1, ...; in a container the host does that",
			"none, though there is a card that can be one (%d of them, the first is "
			"%.40s)",
			cards, first);
		return;
	}
	doctor_add(doctor, required ? VERDICT_PROBLEM : VERDICT_ABSENT, "RDMA devices",
		   "load the driver of the card (modprobe mlx5_ib, irdma, bnxt_re, ...); without a "
		   "card, to try it: sudo rdma link add rxe0 type rxe netdev IF",
		   "none: between hosts there is tcp%s",
		   required ? ", and --require verbs fails" : "");
}

static void judge_devices(struct doctor *doctor, int count, int usable)
{
	if (!count)
		say_none(doctor);
	else if (usable)
		doctor_add(doctor, VERDICT_OK, "RDMA devices", NULL, "%d, and %d can be used",
			   count, usable);
	else
		doctor_add(doctor, doctor->needs.verbs_required ? VERDICT_PROBLEM : VERDICT_WARNING,
			   "RDMA devices", "what is said of their ports and access above",
			   "%d, and none can be used: between hosts there is tcp", count);
}

void check_rdma(struct doctor *doctor)
{
	char **names;
	int count = file_names(doctor, RDMA_DEVICES, "", &names);
	int usable = 0;

	doctor->rdma_devices = (uint32_t)count;
	for (int i = 0; i < count; i++) {
		if (!doctor->needs.no_rdma)
			usable += check_device(doctor, names[i]);
		free(names[i]);
	}
	free(names);
	if (doctor->needs.no_rdma) {
		doctor_add(doctor, VERDICT_SKIPPED, "RDMA devices", NULL,
			   "--no-rdma: %d are not used, nor looked at", count);
		return;
	}
	if (count)
		check_manager(doctor);
	judge_devices(doctor, count, usable);
}
