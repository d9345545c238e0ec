/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_device.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/descriptor.h"
#include "base/log.h"

#define GID_TABLE_MAX 256u

/* ---- texts ---- */

bool verbs_gid_is_ipv4(const union ibv_gid *gid)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(gid->raw, mapped, sizeof(mapped)) == 0;
}

const char *verbs_gid_format(const union ibv_gid *gid, char *text)
{
	if (verbs_gid_is_ipv4(gid))
		return inet_ntop(AF_INET, gid->raw + 12, text, VERBS_GID_TEXT);
	return inet_ntop(AF_INET6, gid->raw, text, VERBS_GID_TEXT);
}

static const char *gid_type_name(uint32_t type)
{
	switch (type) {
	case IBV_GID_TYPE_ROCE_V2:
		return "RoCE v2";
	case IBV_GID_TYPE_ROCE_V1:
		return "RoCE v1";
	default:
		return "InfiniBand";
	}
}

const char *verbs_describe(const struct verbs_device *device, const struct verbs_gid *gid,
			   char *text)
{
	char address[VERBS_GID_TEXT];

	snprintf(text, VERBS_PLACE_TEXT, "%s port %u GID %u (%s, %s)", device->name, device->port,
		 gid->index, gid_type_name(gid->type), verbs_gid_format(&gid->gid, address));
	return text;
}

/* Another sentence about what is used, or is not. */
__attribute__((format(printf, 2, 3))) static void say(struct verbs_devices *devices,
						      const char *format, ...)
{
	size_t length = strlen(devices->text);
	va_list args;

	if (length > 0)
		length += (size_t)snprintf(devices->text + length, sizeof(devices->text) - length,
					   "; ");
	if (length >= sizeof(devices->text))
		return;
	va_start(args, format);
	vsnprintf(devices->text + length, sizeof(devices->text) - length, format, args);
	va_end(args);
}

/* ---- options ---- */

static int check_options(const struct slu_rdma_options *options)
{
	uint32_t mtu = options->mtu;

	if (mtu && mtu != 256 && mtu != 512 && mtu != 1024 && mtu != 2048 && mtu != 4096)
		return fail(-EINVAL, "an RDMA MTU is 256, 512, 1024, 2048 or 4096 bytes, not %u",
			    mtu);
	if (options->timeout == 0 || options->timeout > 31)
		return fail(-EINVAL, "the RDMA timeout is 4.096 us * 2^n with n from 1 to 31");
	if (options->retries > VERBS_RETRIES_MAX)
		return fail(-EINVAL,
			    "an RDMA device retries at most %d times here: 7 is for ever to some",
			    VERBS_RETRIES_MAX);
	if (options->traffic_class > 255)
		return fail(-EINVAL, "a traffic class is 0 to 255");
	if (options->queue_pairs > SLU_RDMA_QUEUE_PAIRS_MAX)
		return fail(-EINVAL, "at most %u queue pairs for bulk, not %u",
			    SLU_RDMA_QUEUE_PAIRS_MAX, options->queue_pairs);
	return 0;
}

/* "NAME" or "NAME:PORT". @return the port, 0: any; -EINVAL */
static int parse_name(const char *text, char name[VERBS_NAME_MAX + 1])
{
	const char *colon = strchr(text, ':');
	size_t length = colon ? (size_t)(colon - text) : strlen(text);
	char *end = NULL;
	long port = colon ? strtol(colon + 1, &end, 10) : 0;

	if (length == 0 || length > VERBS_NAME_MAX ||
	    (colon && (end == colon + 1 || *end || port < 1 || port > 255)))
		return fail(-EINVAL, "\"%s\" is not NAME or NAME:PORT of an RDMA device", text);
	memcpy(name, text, length);
	name[length] = '\0';
	return (int)port;
}

/* ---- GIDs ---- */

/* What a router forwards is better than what stays on the link, and RoCE v1 is not IP at all. */
static int rank(const struct verbs_gid *gid)
{
	bool link_local = gid->gid.raw[0] == 0xfe && (gid->gid.raw[1] & 0xc0) == 0x80;

	if (gid->type == IBV_GID_TYPE_ROCE_V1)
		return 0;
	if (gid->type == IBV_GID_TYPE_IB)
		return 4;
	if (verbs_gid_is_ipv4(&gid->gid))
		return 3;
	return link_local ? 1 : 2;
}

static int by_rank(const void *a, const void *b)
{
	const struct verbs_gid *left = a, *right = b;
	int difference = rank(right) - rank(left);

	return difference ? difference : (int)left->index - (int)right->index;
}

static bool is_zero(const union ibv_gid *gid)
{
	static const union ibv_gid zero;

	return memcmp(gid, &zero, sizeof(zero)) == 0;
}

static void take_gids(struct verbs_device *device, const struct ibv_gid_entry *entries, ssize_t n,
		      int wanted)
{
	for (ssize_t i = 0; i < n && device->gid_count < VERBS_GIDS_MAX; i++) {
		if (entries[i].port_num != device->port || is_zero(&entries[i].gid) ||
		    (wanted >= 0 && entries[i].gid_index != (uint32_t)wanted))
			continue;
		device->gids[device->gid_count++] =
			(struct verbs_gid){.gid = entries[i].gid,
					   .index = entries[i].gid_index,
					   .type = entries[i].gid_type};
	}
	qsort(device->gids, device->gid_count, sizeof(device->gids[0]), by_rank);
}

/* @return 0; or why the port is of no use, said to fail() */
static int find_gids(struct verbs_device *device, int wanted)
{
	struct ibv_gid_entry entries[GID_TABLE_MAX];
	ssize_t n = ibv_query_gid_table(device->context, entries, GID_TABLE_MAX, 0);

	if (n < 0)
		return fail((int)n, "its GID table cannot be read: %s", strerror((int)-n));
	if (wanted >= device->port_attr.gid_tbl_len)
		return fail(-EINVAL, "its GID table has indexes 0 to %d, and %d was asked for",
			    device->port_attr.gid_tbl_len - 1, wanted);
	take_gids(device, entries, n, wanted);
	if (device->gid_count > 0)
		return 0;
	if (wanted >= 0)
		return fail(-EINVAL, "its GID %d is empty (see ibv_devinfo -v)", wanted);
	return fail(-ENODEV,
		    "it has no GID: give its network interface an address (ip address add)");
}

/* ---- ports ---- */

static int check_port(struct verbs_device *device, const struct slu_rdma_options *options)
{
	uint32_t most = verbs_mtu_bytes(device->port_attr.active_mtu);

	if (device->port_attr.state != IBV_PORT_ACTIVE)
		return fail(-ENODEV,
			    "it is %s: bring its link up (ip link set, cable, switch, subnet "
			    "manager)",
			    ibv_port_state_str(device->port_attr.state));
	if (options->mtu > most)
		return fail(-EINVAL,
			    "MTU %u was asked for and its active MTU is %u: raise the MTU of its "
			    "network interface (RoCE takes about 100 bytes of it) or ask for less",
			    options->mtu, most);
	device->mtu = device->port_attr.active_mtu;
	while (options->mtu && verbs_mtu_bytes(device->mtu) > options->mtu)
		device->mtu--;
	return find_gids(device, options->gid_index);
}

static int read_node(const char *name)
{
	char path[sizeof("/sys/class/infiniband//device/numa_node") + VERBS_NAME_MAX];
	FILE *file;
	int node = -1;

	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/device/numa_node", name);
	file = fopen(path, "re");
	if (!file)
		return -1;
	if (fscanf(file, "%d", &node) != 1)
		node = -1;
	fclose(file);
	return node;
}

static void close_port(struct verbs_device *device)
{
	if (device->pd)
		ibv_dealloc_pd(device->pd);
	if (device->context) {
		descriptor_forget(device->context->cmd_fd);
		ibv_close_device(device->context);
	}
	memset(device, 0, sizeof(*device));
}

static int open_context(struct ibv_device *ibv, struct verbs_device *device)
{
	device->context = ibv_open_device(ibv);
	if (!device->context)
		return fail(-errno,
			    "it cannot be opened: %s (are ib_uverbs loaded and "
			    "/dev/infiniband/uverbs* ours to write?)",
			    strerror(errno));
	descriptor_note(device->context->cmd_fd);
	if (ibv_query_device(device->context, &device->attr))
		return fail(-EIO, "it does not tell its limits");
	device->pd = ibv_alloc_pd(device->context);
	if (device->pd)
		return 0;
	return fail(-errno,
		    "it has no protection domain for us: %s (its limit: %d; are others, or the "
		    "control group's rdma.max, using them up?)",
		    strerror(errno), device->attr.max_pd);
}

/* Each port has a context of its own: nearly every card has one device per port anyway. */
static int open_port(struct verbs_devices *devices, struct ibv_device *ibv, uint8_t port)
{
	struct verbs_device *device = &devices->devices[devices->count];
	int rc;

	strncpy(device->name, ibv_get_device_name(ibv), VERBS_NAME_MAX);
	device->index = devices->count;
	device->port = port;
	rc = open_context(ibv, device);
	if (rc == 0 && ibv_query_port(device->context, port, &device->port_attr))
		rc = fail(-ENODEV, "it has no such port: rdma link lists them");
	if (rc == 0)
		rc = check_port(device, &devices->options);
	if (rc < 0) {
		say(devices, "%s port %u: %s", ibv_get_device_name(ibv), port, slu_last_error());
		close_port(device);
		return rc;
	}
	device->ethernet = device->port_attr.link_layer == IBV_LINK_LAYER_ETHERNET;
	device->windows = device->attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B &&
			  device->attr.max_mw > 0;
	device->node = read_node(device->name);
	devices->count++;
	return 0;
}

static uint8_t port_count(struct ibv_device *ibv)
{
	struct ibv_context *context = ibv_open_device(ibv);
	struct ibv_device_attr attr = {.phys_port_cnt = 1};

	if (!context)
		return 1; /* opening the port says why */
	ibv_query_device(context, &attr);
	ibv_close_device(context);
	return attr.phys_port_cnt;
}

static int open_ports(struct verbs_devices *devices, struct ibv_device *ibv, uint8_t port)
{
	uint8_t last = port ? port : port_count(ibv);
	int rc = 0;

	for (uint8_t i = port ? port : 1; i <= last && devices->count < VERBS_DEVICES_MAX; i++)
		rc = open_port(devices, ibv, i);
	return rc;
}

/* ---- all of them ---- */

static bool kernel_has_devices(void)
{
	DIR *directory = opendir("/sys/class/infiniband");
	struct dirent *entry;
	bool found = false;

	if (!directory)
		return false;
	while (!found && (entry = readdir(directory)))
		found = entry->d_name[0] != '.';
	closedir(directory);
	return found;
}

static void say_none(struct verbs_devices *devices)
{
	if (kernel_has_devices())
		say(devices, "the kernel has RDMA devices and libibverbs does not: load ib_uverbs, "
			     "and install ibverbs-providers");
	else
		say(devices, "this host has no RDMA device (/sys/class/infiniband is empty)");
}

static void say_used(struct verbs_devices *devices)
{
	char used[sizeof(devices->text)] = "", place[VERBS_PLACE_TEXT];

	for (uint32_t i = 0; i < devices->count; i++) {
		const struct verbs_device *device = &devices->devices[i];
		size_t length = strlen(used);

		snprintf(used + length, sizeof(used) - length, "%s%s MTU %u", i ? ", " : "",
			 verbs_describe(device, &device->gids[0], place),
			 verbs_mtu_bytes(device->mtu));
	}
	memcpy(devices->text, used, sizeof(used));
}

static int open_named(struct verbs_devices *devices, struct ibv_device **list, int n)
{
	char name[VERBS_NAME_MAX + 1];
	int port = parse_name(devices->options.device, name);

	if (port < 0)
		return port;
	for (int i = 0; i < n; i++) {
		if (strcmp(ibv_get_device_name(list[i]), name) != 0)
			continue;
		if (open_ports(devices, list[i], (uint8_t)port) < 0 && devices->count == 0)
			return fail(-ENODEV,
				    "the RDMA device that was asked for cannot be used: %s",
				    devices->text);
		return 0;
	}
	say_none(devices);
	return fail(-ENODEV, "there is no RDMA device \"%s\": %s", name,
		    n ? "see ibv_devices" : devices->text);
}

static int open_all(struct verbs_devices *devices, struct ibv_device **list, int n)
{
	int rc = 0;

	for (int i = 0; i < n && devices->count < VERBS_DEVICES_MAX; i++) {
		int opened = open_ports(devices, list[i], 0);

		if (opened == -EINVAL) /* what was asked for cannot be */
			rc = opened;
	}
	if (n == 0)
		say_none(devices);
	return devices->count == 0 && rc < 0
		       ? fail(rc, "no RDMA device can be used: %s", devices->text)
		       : 0;
}

/*
 * A fork has the parent copy each page that it then writes, also those that a device has pinned,
 * and the device goes on with the old ones. From Linux 5.12 on pinned pages are copied for the
 * child at once; before, libibverbs has to keep them from it, queues included, and has to be told
 * before it knows any.
 */
static void survive_forks(void)
{
	int error = ibv_fork_init();

	if (error)
		log_warning("RDMA: when this process forks its transfers may go astray: %s; set "
			    "RDMAV_FORK_SAFE=1 before it starts",
			    strerror(error));
}

int verbs_devices_open(const struct slu_rdma_options *options, struct verbs_devices **out)
{
	struct verbs_devices *devices;
	struct ibv_device **list;
	int n = 0, rc = check_options(options);

	if (rc < 0)
		return rc;
	devices = calloc(1, sizeof(*devices));
	if (!devices)
		return fail(-ENOMEM, "out of memory");
	devices->options = *options;
	if (options->off) {
		say(devices, "RDMA is switched off (--no-rdma)");
		*out = devices;
		return 0;
	}
	survive_forks();
	list = ibv_get_device_list(&n);
	rc = options->device ? open_named(devices, list, n) : open_all(devices, list, n);
	if (list)
		ibv_free_device_list(list);
	if (rc < 0) {
		verbs_devices_close(devices);
		return rc;
	}
	if (devices->count > 0)
		say_used(devices);
	devices->options.device = NULL;
	*out = devices;
	return 0;
}

void verbs_devices_close(struct verbs_devices *devices)
{
	if (!devices)
		return;
	while (devices->count > 0)
		close_port(&devices->devices[--devices->count]);
	free(devices);
}
