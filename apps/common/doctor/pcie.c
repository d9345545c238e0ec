/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/pcie.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/doctor/checks.h"
#include "common/doctor/files.h"

/* "0000:3b:00.0", for the commands of pciutils. */
static void find_address(const struct doctor *doctor, const char *device,
			 char address[static FILE_TEXT])
{
	char path[FILE_TEXT + 8];

	snprintf(path, sizeof(path), "%s/uevent", device);
	if (!file_find(doctor, address, path, "PCI_SLOT_NAME="))
		snprintf(address, FILE_TEXT, "ADDRESS");
}

/* Width is lost by bad seating and by slots that are too narrow; speed by either, or by rest. */
static bool check_link(struct doctor *doctor, const char *name, const char *device)
{
	char speed[FILE_TEXT], fastest[FILE_TEXT], address[FILE_TEXT], check[64],
		remedy[DOCTOR_TEXT];
	uint64_t width, widest;

	if (!file_number(doctor, &width, "%s/current_link_width", device) ||
	    !file_number(doctor, &widest, "%s/max_link_width", device) ||
	    !file_line(doctor, speed, "%s/current_link_speed", device) ||
	    !file_line(doctor, fastest, "%s/max_link_speed", device) || !width || !widest)
		return false;
	find_address(doctor, device, address);
	snprintf(check, sizeof(check), "PCIe link of %.40s", name);
	snprintf(remedy, sizeof(remedy),
		 "use a slot of x%" PRIu64
		 " and seat the card anew; sudo lspci -vvs %.40s tells more",
		 widest, address);
	if (width < widest || strcmp(speed, fastest))
		doctor_add(doctor, VERDICT_WARNING, check, remedy,
			   "x%" PRIu64 " at %.40s, and the card can x%" PRIu64 " at %.40s", width,
			   speed, widest, fastest);
	else
		doctor_add(doctor, VERDICT_OK, check, NULL, "x%" PRIu64 " at %.40s", width, speed);
	return true;
}

static void check_ordering(struct doctor *doctor, const char *name, const char *device)
{
	char address[FILE_TEXT], check[64], remedy[DOCTOR_TEXT];
	uint8_t config[PCIE_CONFIG_BYTES];
	size_t length = file_bytes(doctor, config, sizeof(config), "%s/config", device);
	uint16_t control;
	int rc;

	find_address(doctor, device, address);
	snprintf(check, sizeof(check), "relaxed ordering %.40s", name);
	snprintf(remedy, sizeof(remedy), "sudo setpci -s %.40s CAP_EXP+8.w shows it: bit 4",
		 address);
	rc = pcie_device_control(config, length, &control);
	if (rc == -ENOENT)
		doctor_add(doctor, VERDICT_ABSENT, check, NULL,
			   "the device tells of no PCI Express registers");
	else if (rc)
		doctor_add(doctor, VERDICT_SKIPPED, check, remedy,
			   "the configuration space is not readable without root");
	if (rc)
		return;
	snprintf(remedy, sizeof(remedy), "sudo setpci -s %.40s CAP_EXP+8.w=10:10, or in the BIOS",
		 address);
	if (control & PCIE_RELAXED_ORDERING)
		doctor_add(doctor, VERDICT_OK, check, NULL, "on");
	else
		doctor_add(doctor, VERDICT_WARNING, check, remedy,
			   "off: writes wait for each other, which costs speed on AMD and across "
			   "sockets");
}

/* Translation costs a table entry for each page registered, and a miss for each that is far. */
static void check_iommu(struct doctor *doctor, const char *name, const char *device)
{
	char type[FILE_TEXT], check[64];

	snprintf(check, sizeof(check), "IOMMU %.40s", name);
	if (!file_line(doctor, type, "%s/iommu_group/type", device))
		doctor_add(doctor, VERDICT_OK, check, NULL, "none that translates for it");
	else if (!strcmp(type, "identity"))
		doctor_add(doctor, VERDICT_OK, check, NULL, "passed through");
	else
		doctor_add(doctor, VERDICT_WARNING, check,
			   "boot with iommu=pt; not in a machine that gives devices to guests it "
			   "does not trust",
			   "translates (%.40s): registering memory takes longer, and scattered "
			   "transfers miss its cache",
			   type);
}

static bool check_class(struct doctor *doctor, const char *folder, bool rdma)
{
	char device[FILE_TEXT];
	bool found = false;
	char **names;
	int count = file_names(doctor, folder, "", &names);

	for (int i = 0; i < count; i++) {
		snprintf(device, sizeof(device), "%s/%s/device", folder, names[i]);
		if (check_link(doctor, names[i], device)) {
			found = true;
			if (rdma)
				check_ordering(doctor, names[i], device);
		}
		if (rdma && file_exists(doctor, "%s", device))
			check_iommu(doctor, names[i], device);
		free(names[i]);
	}
	free(names);
	return found;
}

void check_pcie(struct doctor *doctor)
{
	bool found = check_class(doctor, "/sys/class/infiniband", true);

	found = check_class(doctor, "/sys/class/net", false) || found;
	if (!found)
		doctor_add(doctor, VERDICT_ABSENT, "PCIe links", NULL,
			   "no network card on a PCI Express link is visible here");
	if (!doctor->rdma_devices)
		doctor_add(doctor, VERDICT_ABSENT, "relaxed ordering", NULL,
			   "matters to RDMA devices, and there is none");
}
