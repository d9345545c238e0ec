/* SPDX-License-Identifier: Apache-2.0 */
#include "message/client_area.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"

int client_area_create(struct client_area **area)
{
	int fd = memfd_create("sluice-client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *addr = MAP_FAILED;

	if (fd < 0)
		return fail(-errno, "memfd_create: %s", strerror(errno));
	if (ftruncate(fd, CLIENT_AREA_BYTES) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		addr = mmap(NULL, CLIENT_AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED) {
		close(fd);
		return fail(-ENOMEM, "memory shared with a client: %s", strerror(errno));
	}
	madvise(addr, CLIENT_AREA_BYTES, MADV_DONTDUMP);
	*area = addr;
	return fd;
}

int client_area_create_private(struct client_area **area)
{
	void *addr = mmap(NULL, CLIENT_AREA_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (addr == MAP_FAILED)
		return fail(-ENOMEM, "memory shared with a client: %s", strerror(errno));
	*area = addr;
	return 0;
}

void client_area_unmap(struct client_area *area)
{
	if (area)
		munmap(area, CLIENT_AREA_BYTES);
}

/* What a client has that may not notify: no lanes. */
static struct notify_ring no_notifications;

struct client_inbox *client_inbox_create(struct client_area *area, uint32_t client, uint32_t rights,
					 int wake_fd)
{
	struct client_inbox *inbox = calloc(1, sizeof(*inbox));

	if (!inbox)
		return NULL;
	inbox->area = area;
	inbox->wake_fd = wake_fd;
	inbox->notifications.ring =
		rights & SLU_RIGHT_WRITE ? &area->notifications : &no_notifications;
	inbox->notifications.client = client;
	inbox->calls.box = &area->calls;
	return inbox;
}

void client_inbox_destroy(struct client_inbox *inbox)
{
	if (!inbox)
		return;
	guard_remove(inbox->guard);
	lanes_end(&inbox->notifications.lanes);
	lanes_end(&inbox->calls.lanes);
	client_area_unmap(inbox->area);
	free(inbox);
}

void client_wake_owner(const struct client_waker *waker)
{
	if (atomic_exchange(&waker->area->armed, 0))
		wake_ring(waker->wake_fd);
}
