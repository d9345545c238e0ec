/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/doctor/checks.h"
#include "common/doctor/files.h"

#define DEVICES  "/sys/class/infiniband"
#define GIDS_MAX 256
#define ROCE_MTU 4200 /* of the Ethernet port: RDMA's largest, 4096 bytes, and its headers */

struct port {
	const char *device;
	const char *port;
	char check[64];
	char layer[FILE_TEXT]; /* "InfiniBand", "Ethernet" */
	char netdev[FILE_TEXT];
};

static bool read_port(const struct doctor *doctor, const struct port *port, const char *file,
		      char text[static FILE_TEXT])
{
	return file_line(doctor, text, DEVICES "/%s/ports/%s/%s", port->device, port->port, file);
}

static void check_state(struct doctor *doctor, const struct port *port)
{
	char state[FILE_TEXT] = "unknown", rate[FILE_TEXT] = "unknown rate", remedy[DOCTOR_TEXT];
	bool ethernet = !strcmp(port->layer, "Ethernet");

	read_port(doctor, port, "state", state);
	read_port(doctor, port, "rate", rate);
	snprintf(remedy, sizeof(remedy), "look at the cable and the subnet manager (sminfo)");
	if (ethernet && port->netdev[0])
		snprintf(remedy, sizeof(remedy), "sudo ip link set dev %.60s up; look at the cable",
			 port->netdev);
	if (strstr(state, "ACTIVE"))
		doctor_add(doctor, VERDICT_OK, port->check, NULL, "active, %.60s, %.40s", rate,
			   port->layer);
	else
		doctor_add(doctor, VERDICT_WARNING, port->check, remedy, "not active: %.60s",
			   state);
}

static void check_gids(struct doctor *doctor, const struct port *port)
{
	bool ethernet = !strcmp(port->layer, "Ethernet"), routable = false;
	char text[FILE_TEXT], file[64];
	int count = 0;

	for (int i = 0; i < GIDS_MAX; i++) {
		snprintf(file, sizeof(file), "gids/%d", i);
		if (!read_port(doctor, port, file, text))
			break;
		if (strspn(text, "0:") == strlen(text))
			continue;
		count++;
		snprintf(file, sizeof(file), "gid_attrs/types/%d", i);
		routable = routable ||
			   (read_port(doctor, port, file, text) && strstr(text, "RoCE v2"));
	}
	if (!count)
		doctor_add(doctor, VERDICT_PROBLEM, port->check,
			   ethernet ? "give the network interface an address: sudo ip addr add ..."
				    : "start a subnet manager: sudo systemctl start opensm",
			   "no GID: nobody can address this port");
	else if (ethernet && !routable)
		doctor_add(doctor, VERDICT_WARNING, port->check,
			   "give the network interface an IP address: sudo ip addr add ...",
			   "%d GIDs, none of RoCE v2: only neighbours on the same link are reached",
			   count);
	else
		doctor_add(doctor, VERDICT_OK, port->check, NULL, "%d GIDs%s", count,
			   ethernet ? ", RoCE v2 among them" : "");
}

static void check_mtu(struct doctor *doctor, const struct port *port)
{
	char remedy[DOCTOR_TEXT];
	uint64_t mtu;

	if (!port->netdev[0] || strcmp(port->layer, "Ethernet") ||
	    !file_number(doctor, &mtu, "/sys/class/net/%s/mtu", port->netdev))
		return;
	snprintf(remedy, sizeof(remedy),
		 "sudo ip link set dev %.60s mtu 9000, on both hosts and "
		 "the switch",
		 port->netdev);
	if (mtu < ROCE_MTU)
		doctor_add(doctor, VERDICT_WARNING, port->check, remedy,
			   "MTU %" PRIu64 " of %.40s: RDMA packets carry %s bytes in place of 4096",
			   mtu, port->netdev,
			   mtu < 1124   ? "512 or less"
			   : mtu < 2148 ? "1024"
					: "2048");
	else
		doctor_add(doctor, VERDICT_OK, port->check, NULL, "MTU %" PRIu64 " of %.40s", mtu,
			   port->netdev);
}

static void check_port(struct doctor *doctor, const char *device, const char *number)
{
	struct port port = {.device = device, .port = number};

	snprintf(port.check, sizeof(port.check), "RDMA %.40s port %.8s", device, number);
	read_port(doctor, &port, "link_layer", port.layer);
	read_port(doctor, &port, "gid_attrs/ndevs/0", port.netdev);
	check_state(doctor, &port);
	check_gids(doctor, &port);
	check_mtu(doctor, &port);
}

static void check_node_file(struct doctor *doctor, const char *device)
{
	char folder[FILE_TEXT], check[64];
	char **names;
	int count;

	snprintf(check, sizeof(check), "RDMA %.40s access", device);
	snprintf(folder, sizeof(folder), DEVICES "/%s/device/infiniband_verbs", device);
	count = file_names(doctor, folder, "uverbs", &names);
	if (!count)
		doctor_add(doctor, VERDICT_PROBLEM, check, "sudo modprobe ib_uverbs",
			   "the kernel offers no file to use it by");
	else if (file_usable(doctor, "/dev/infiniband/%s", names[0]))
		doctor_add(doctor, VERDICT_OK, check, NULL, "/dev/infiniband/%s", names[0]);
	else
		doctor_add(
			doctor, VERDICT_PROBLEM, check,
			"in a container: --device /dev/infiniband; else sudo chmod 666 that file",
			"/dev/infiniband/%s is not there, or not ours to use", names[0]);
	while (count-- > 0)
		free(names[count]);
	free(names);
}

static void check_device(struct doctor *doctor, const char *device)
{
	char folder[FILE_TEXT];
	char **ports;
	int count;

	snprintf(folder, sizeof(folder), DEVICES "/%s/ports", device);
	count = file_names(doctor, folder, "", &ports);
	for (int i = 0; i < count; i++) {
		check_port(doctor, device, ports[i]);
		free(ports[i]);
	}
	free(ports);
	check_node_file(doctor, device);
}

void check_rdma(struct doctor *doctor)
{
	char **names;
	int count = file_names(doctor, DEVICES, "", &names);

	doctor->rdma_devices = (uint32_t)count;
	if (!count)
		doctor_add(doctor, VERDICT_ABSENT, "RDMA devices", NULL,
			   "none: between hosts there is tcp");
	for (int i = 0; i < count; i++) {
		check_device(doctor, names[i]);
		free(names[i]);
	}
	free(names);
	doctor_add(doctor, VERDICT_ABSENT, "transport verbs", NULL, "not in this version%s",
		   count ? ": the RDMA devices are looked at for the next one" : "");
}
