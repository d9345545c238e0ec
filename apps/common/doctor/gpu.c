/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/doctor/checks.h"
#include "common/doctor/files.h"
#include "common/doctor/pcie.h"

#define DEVICES      "/sys/bus/pci/devices"
#define NVIDIA       "0x10de"
#define CLASS_SCREEN "0x03" /* display controllers, 3D among them */
#define CLASS_BRIDGE "0x0604"

static bool has_class(const struct doctor *doctor, const char *device, const char *class)
{
	char text[FILE_TEXT];

	return file_line(doctor, text, DEVICES "/%s/class", device) &&
	       !strncmp(text, class, strlen(class));
}

static bool is_gpu(const struct doctor *doctor, const char *device)
{
	char vendor[FILE_TEXT];

	return has_class(doctor, device, CLASS_SCREEN) &&
	       file_line(doctor, vendor, DEVICES "/%s/vendor", device) && !strcmp(vendor, NVIDIA);
}

/* What the program itself would find: the user's part of the driver. */
static void check_cuda(struct doctor *doctor)
{
	char why[256] = "";
	int count;

	if (doctor_is_recorded(doctor)) {
		doctor_add(doctor, VERDICT_SKIPPED, "CUDA", NULL,
			   "a recorded machine's driver cannot be asked");
		return;
	}
	count = gpu_count(why, sizeof(why));
	if (count)
		doctor_add(doctor, VERDICT_OK, "CUDA", NULL,
			   "%d devices; this version moves host memory only", count);
	else if (doctor->gpus)
		doctor_add(doctor, VERDICT_PROBLEM, "CUDA",
			   "install the driver's libcuda.so.1; in a container: --gpus all",
			   "%.200s", why);
	else
		doctor_add(doctor, VERDICT_ABSENT, "CUDA", NULL, "%.200s", why);
}

static void check_driver(struct doctor *doctor)
{
	char text[FILE_TEXT];

	if (!file_line(doctor, text, "/proc/driver/nvidia/version"))
		doctor_add(doctor, VERDICT_PROBLEM, "GPU driver", "sudo modprobe nvidia",
			   "%u NVIDIA GPUs, and no driver is loaded", doctor->gpus);
	else
		doctor_add(doctor, VERDICT_OK, "GPU driver", NULL, "%.160s", text);
}

/* Two ways for a NIC into GPU memory: the peer memory module, or a dmabuf of the open modules. */
static void check_peer_memory(struct doctor *doctor)
{
	char text[FILE_TEXT] = "";
	bool is_open = file_line(doctor, text, "/proc/driver/nvidia/version") &&
		       strstr(text, "Open Kernel Module");

	if (!doctor->rdma_devices)
		doctor_add(doctor, VERDICT_ABSENT, "GPU peer memory", NULL,
			   "matters between a GPU and an RDMA device, and there is none");
	else if (file_exists(doctor, "/sys/module/nvidia_peermem") ||
		 file_exists(doctor, "/sys/module/nv_peer_mem"))
		doctor_add(doctor, VERDICT_OK, "GPU peer memory", NULL, "nvidia_peermem is loaded");
	else if (is_open)
		doctor_add(doctor, VERDICT_OK, "GPU peer memory", NULL,
			   "by dmabuf: the driver's open kernel modules");
	else
		doctor_add(
			doctor, VERDICT_WARNING, "GPU peer memory", "sudo modprobe nvidia_peermem",
			"neither nvidia_peermem nor the open modules' dmabuf: a NIC cannot reach "
			"GPU memory");
}

struct bridges {
	int seen;
	int hidden; /* configuration not readable */
	int redirecting;
	char first[64];
};

static void look_at_bridge(const struct doctor *doctor, const char *device, struct bridges *bridges)
{
	uint8_t config[PCIE_CONFIG_BYTES];
	size_t length = file_bytes(doctor, config, sizeof(config), DEVICES "/%s/config", device);
	uint16_t control;

	bridges->seen++;
	if (length <= 64)
		bridges->hidden++;
	else if (!pcie_acs_control(config, length, &control) && control & PCIE_ACS_REDIRECT &&
		 !bridges->redirecting++)
		snprintf(bridges->first, sizeof(bridges->first), "%s", device);
}

static void judge_bridges(struct doctor *doctor, const struct bridges *bridges)
{
	char remedy[DOCTOR_TEXT];

	snprintf(remedy, sizeof(remedy),
		 "sudo setpci -s %.40s ECAP_ACS+6.w=0000, for each bridge; not in a machine that "
		 "gives devices to guests",
		 bridges->first);
	if (!bridges->seen)
		doctor_add(doctor, VERDICT_ABSENT, "ACS", NULL, "no PCI bridge is visible here");
	else if (bridges->redirecting)
		doctor_add(doctor, VERDICT_WARNING, "ACS", remedy,
			   "%d of %d bridges send traffic between devices by way of the processor",
			   bridges->redirecting, bridges->seen);
	else if (bridges->hidden)
		doctor_add(doctor, VERDICT_SKIPPED, "ACS", "sudo lspci -vvv | grep ACSCtl shows it",
			   "the configuration space of %d bridges is not readable without root",
			   bridges->hidden);
	else
		doctor_add(doctor, VERDICT_OK, "ACS", NULL, "no bridge redirects");
}

static void check_acs(struct doctor *doctor, char **names, int count)
{
	struct bridges bridges = {0};

	if (!doctor->gpus || !doctor->rdma_devices) {
		doctor_add(doctor, VERDICT_ABSENT, "ACS", NULL,
			   "matters between a GPU and an RDMA device, and there are not both");
		return;
	}
	for (int i = 0; i < count; i++)
		if (has_class(doctor, names[i], CLASS_BRIDGE))
			look_at_bridge(doctor, names[i], &bridges);
	judge_bridges(doctor, &bridges);
}

void check_gpu(struct doctor *doctor)
{
	char **names;
	int count = file_names(doctor, DEVICES, "", &names);

	for (int i = 0; i < count; i++)
		doctor->gpus += is_gpu(doctor, names[i]);
	if (doctor->gpus) {
		check_driver(doctor);
		check_peer_memory(doctor);
	}
	check_cuda(doctor);
	check_acs(doctor, names, count);
	while (count-- > 0)
		free(names[count]);
	free(names);
}
