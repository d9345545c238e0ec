/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/rdma.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GIDS_MAX     256
#define ROCE_HEADERS 96 /* of an RDMA packet in Ethernet's MTU, as the kernel counts them */

struct port {
	const char *device;
	const char *number;
	char check[64];
	bool ethernet;
	char netdev[FILE_TEXT]; /* of Ethernet: the interface that it sends by; or "" */
};

/* What its addresses are good for, and the best one. */
struct gids {
	int count;
	int v2;
	int routable; /* of RoCE v2: not of this link alone */
	int best;     /* index */
	char text[64];
};

static bool read_port(const struct doctor *doctor, const struct port *port, const char *file,
		      char text[static FILE_TEXT])
{
	return file_line(doctor, text, RDMA_DEVICES "/%s/ports/%s/%s", port->device, port->number,
			 file);
}

static bool check_state(struct doctor *doctor, const struct port *port, const char *layer)
{
	char state[FILE_TEXT] = "unknown", physical[FILE_TEXT] = "",
	     rate[FILE_TEXT] = "rate unknown";
	char remedy[DOCTOR_TEXT];

	read_port(doctor, port, "state", state);
	read_port(doctor, port, "phys_state", physical);
	read_port(doctor, port, "rate", rate);
	if (strstr(state, "ACTIVE")) {
		doctor_add(doctor, VERDICT_OK, port->check, NULL, "active, %.60s, %.40s", rate,
			   layer[0] ? layer : "link layer unknown");
		return true;
	}
	snprintf(remedy, sizeof(remedy), "look at the cable and the subnet manager (sminfo)");
	if (port->ethernet && port->netdev[0])
		snprintf(remedy, sizeof(remedy), "sudo ip link set dev %.60s up; look at the cable",
			 port->netdev);
	doctor_add(doctor, VERDICT_WARNING, port->check, remedy, "not active: %.60s%s%.60s", state,
		   physical[0] ? ", link " : "", physical);
	return false;
}

/* "0000:0000:0000:0000:0000:ffff:0a00:0001" as people write it: "10.0.0.1". */
static void format_gid(const char *gid, char text[static 64])
{
	unsigned high, low;

	if (!strncmp(gid, "0000:0000:0000:0000:0000:ffff:", 30) &&
	    sscanf(gid + 30, "%4x:%4x", &high, &low) == 2)
		snprintf(text, 64, "%u.%u.%u.%u", high >> 8, high & 0xff, low >> 8, low & 0xff);
	else
		snprintf(text, 64, "%.60s", gid);
}

static void count_gid(struct gids *gids, int index, const char *gid, const char *type)
{
	bool link_local = !strncmp(gid, "fe80:", 5);

	gids->count++;
	if (!strstr(type, "RoCE v2"))
		return;
	if (!gids->v2++ || (!link_local && !gids->routable)) {
		gids->best = index;
		format_gid(gid, gids->text);
	}
	gids->routable += !link_local;
}

static void read_gids(const struct doctor *doctor, const struct port *port, struct gids *gids)
{
	char gid[FILE_TEXT], type[FILE_TEXT], file[64];

	for (int i = 0; i < GIDS_MAX; i++) {
		snprintf(file, sizeof(file), "gids/%d", i);
		if (!read_port(doctor, port, file, gid))
			break;
		if (strspn(gid, "0:") == strlen(gid))
			continue;
		snprintf(file, sizeof(file), "gid_attrs/types/%d", i);
		if (!read_port(doctor, port, file, type))
			type[0] = '\0';
		count_gid(gids, i, gid, type);
	}
}

static void judge_roce(struct doctor *doctor, const struct port *port, const struct gids *gids)
{
	char remedy[DOCTOR_TEXT];

	snprintf(
		remedy, sizeof(remedy),
		"give the network interface an IP address: sudo ip addr add ADDRESS/BITS dev %.60s",
		port->netdev[0] ? port->netdev : "IF");
	if (!gids->v2)
		doctor_add(doctor, VERDICT_WARNING, port->check, remedy,
			   "%d GIDs, none of RoCE v2: only neighbours on the same link are reached",
			   gids->count);
	else if (!gids->routable)
		doctor_add(doctor, VERDICT_WARNING, port->check, remedy,
			   "%d GIDs, RoCE v2 among them, all of this link: nothing behind a router "
			   "is reached",
			   gids->count);
	else
		doctor_add(doctor, VERDICT_OK, port->check, NULL,
			   "%d GIDs, RoCE v2 among them: index %d is %s", gids->count, gids->best,
			   gids->text);
}

static bool check_gids(struct doctor *doctor, const struct port *port)
{
	struct gids gids = {0};

	read_gids(doctor, port, &gids);
	if (!gids.count)
		doctor_add(doctor, VERDICT_PROBLEM, port->check,
			   port->ethernet
				   ? "give the network interface an address: sudo ip addr add ..."
				   : "start a subnet manager: sudo systemctl start opensm",
			   "no GID: nobody can address this port");
	else if (port->ethernet)
		judge_roce(doctor, port, &gids);
	else
		doctor_add(doctor, VERDICT_OK, port->check, NULL, "%d GIDs", gids.count);
	return gids.count > 0;
}

/* The largest payload that fits. */
static unsigned payload(uint64_t mtu)
{
	unsigned bytes = 4096;

	while (bytes > 256 && bytes + ROCE_HEADERS > mtu)
		bytes /= 2;
	return bytes;
}

static void judge_mtu(struct doctor *doctor, const struct port *port, uint64_t mtu)
{
	char remedy[DOCTOR_TEXT];

	snprintf(remedy, sizeof(remedy),
		 "sudo ip link set dev %.60s mtu 9000, on both hosts and the switch", port->netdev);
	if (payload(mtu) < 4096)
		doctor_add(doctor, VERDICT_WARNING, port->check, remedy,
			   "MTU %" PRIu64
			   " of %.40s: RDMA packets carry %u bytes in place of 4096, which need an "
			   "MTU of 4200",
			   mtu, port->netdev, payload(mtu));
	else
		doctor_add(doctor, VERDICT_OK, port->check, NULL, "MTU %" PRIu64 " of %.40s", mtu,
			   port->netdev);
}

/* A device is seen in every network namespace, the interface below it in one. */
static void check_interface(struct doctor *doctor, const struct port *port)
{
	uint64_t mtu;

	if (!port->ethernet || !port->netdev[0])
		return;
	if (file_number(doctor, &mtu, "/sys/class/net/%s/mtu", port->netdev))
		judge_mtu(doctor, port, mtu);
	else
		doctor_add(doctor, VERDICT_WARNING, port->check,
			   "start the container with the host's network (--network host), or give "
			   "it an RDMA device of its own",
			   "its interface %.40s is not in this network namespace: its addresses "
			   "cannot be used from here",
			   port->netdev);
}

bool rdma_port_check(struct doctor *doctor, const struct rdma_device *device, const char *number)
{
	struct port port = {.device = device->name, .number = number};
	char layer[FILE_TEXT] = "";
	bool active, addressed;

	snprintf(port.check, sizeof(port.check), "RDMA %.40s port %.8s", device->name, number);
	read_port(doctor, &port, "link_layer", layer);
	port.ethernet = !strcmp(layer, "Ethernet");
	read_port(doctor, &port, "gid_attrs/ndevs/0", port.netdev);
	active = check_state(doctor, &port, layer);
	addressed = check_gids(doctor, &port);
	check_interface(doctor, &port);
	return active && addressed;
}
