/* SPDX-License-Identifier: Apache-2.0 */
#include "message/client_area.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/log.h"
#include "memory/keep.h"

/* @return the fd of sealed memory, mapped at @p area; -EMFILE, -ENOMEM */
static int create(struct client_area **area)
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
	memory_keep(addr, CLIENT_AREA_BYTES);
	*area = addr;
	return descriptor_note(fd);
}

void client_area_unmap(struct client_area *area)
{
	if (area)
		munmap(area, CLIENT_AREA_BYTES);
}

/* What a client has that may not notify: no lanes. */
static struct notify_ring no_notifications;

int client_inbox_init(struct client_inbox *inbox, uint32_t id, uint32_t rights, int wake_fd,
		      struct budget *budget)
{
	struct client_area *area = NULL;
	int fd = create(&area);
	int rc;

	if (fd < 0)
		return fd;
	*inbox = (struct client_inbox){.area = area,
				       .notifications = {.ring = rights & SLU_RIGHT_WRITE
									 ? &area->notifications
									 : &no_notifications,
							 .lanes.budget = budget},
				       .calls = {.box = &area->calls, .lanes.budget = budget},
				       .id = id,
				       .fd = fd,
				       .wake_fd = wake_fd};
	rc = guard_add(area, CLIENT_AREA_BYTES, &inbox->guard);
	if (rc < 0)
		client_inbox_fini(inbox);
	return rc;
}

void client_inbox_fini(struct client_inbox *inbox)
{
	guard_remove(inbox->guard);
	lanes_end(&inbox->notifications.lanes);
	lanes_end(&inbox->calls.lanes);
	client_area_unmap(inbox->area);
	descriptor_close(inbox->fd);
}

void client_wake_owner(const struct client_waker *waker)
{
	if (atomic_exchange(&waker->area->armed, 0))
		wake_ring(waker->wake_fd);
}
