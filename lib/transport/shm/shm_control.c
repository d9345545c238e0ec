/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Set-up of shared memory. The target passes the segment's memfd and, to clients that may write, a
 * notification ring; both are sealed against shrinking, which the client checks before it maps
 * them.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/shm/shm.h"

#define RING_BYTES ((sizeof(struct notify_ring) + 4095) / 4096 * 4096)

static void shm_capabilities(struct transport_capabilities *capabilities)
{
	*capabilities = (struct transport_capabilities){.slice_bytes = TRANSPORT_SLICE_MAX_BYTES,
							.immediate = true};
}

static int shm_connect(struct slu_remote *remote, const struct path_env *env, struct path **path)
{
	const struct shm_view *view = remote->view;
	struct shm_path *shm = aligned_alloc(64, (sizeof(*shm) + 63) / 64 * 64);

	if (!shm)
		return fail(-ENOMEM, "out of memory");
	*shm = (struct shm_path){.path = {.fast = &shm_fast,
					  .slice_bytes = TRANSPORT_SLICE_MAX_BYTES,
					  .immediate = true,
					  .transport = SLU_TRANSPORT_SHM,
					  .remote = remote},
				 .base = view->base,
				 .tracker = env->tracker};
	if (view->ring)
		notify_attach(&shm->notify, view->ring, env->poller);
	*path = &shm->path;
	return 0;
}

static void shm_disconnect(struct path *path)
{
	struct shm_path *shm = (struct shm_path *)path;

	if (shm && shm->notify.lane)
		notify_detach(&shm->notify);
	free(shm);
}

static int ring_create(struct notify_ring **ring)
{
	int fd = memfd_create("sluice-notify", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *addr = MAP_FAILED;

	if (fd < 0)
		return fail(-errno, "memfd_create: %s", strerror(errno));
	if (ftruncate(fd, RING_BYTES) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		addr = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (addr == MAP_FAILED) {
		close(fd);
		return fail(-ENOMEM, "a notification ring: %s", strerror(errno));
	}
	*ring = addr;
	return fd;
}

/*
 * A client without the right to write gets a descriptor that cannot be mapped writable. (A process
 * of the same user can reopen it; a read-only segment is sealed and safe from that as well.)
 */
static int reopen_read_only(int fd)
{
	char path[32];
	int reopened;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	reopened = open(path, O_RDONLY | O_CLOEXEC);
	return reopened < 0 ? fail(-errno, "cannot reopen %s read-only: %s", path, strerror(errno))
			    : reopened;
}

static int publish_read_only(const struct export *export, int fds[TRANSPORT_FDS_MAX],
			     uint32_t *close_mask, struct notify_inbox **inbox)
{
	int fd = reopen_read_only(export->region->arena.fd);

	if (fd < 0)
		return fd;
	fds[0] = fd;
	*close_mask = 1u << 0;
	*inbox = NULL;
	return 1;
}

static int publish_writable(const struct export *export, uint32_t client,
			    int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask,
			    struct notify_inbox **out)
{
	struct notify_inbox *inbox = calloc(1, sizeof(*inbox));
	int fd;

	if (!inbox)
		return fail(-ENOMEM, "out of memory");
	fd = ring_create(&inbox->ring);
	if (fd < 0) {
		free(inbox);
		return fd;
	}
	inbox->client = client;
	fds[0] = export->region->arena.fd;
	fds[1] = fd;
	*close_mask = 1u << 1;
	*out = inbox;
	return 2;
}

static int shm_publish(const struct export *export, uint32_t rights, uint32_t client, json_t *grant,
		       int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask,
		       struct notify_inbox **inbox)
{
	json_int_t mapped = (json_int_t) export->region->arena.mapped_bytes;

	if (json_object_set_new(grant, "mapped_bytes", json_integer(mapped)) < 0)
		return fail(-ENOMEM, "out of memory");
	if (rights & SLU_RIGHT_WRITE)
		return publish_writable(export, client, fds, close_mask, inbox);
	return publish_read_only(export, fds, close_mask, inbox);
}

static void shm_withdraw(struct notify_inbox *inbox)
{
	if (!inbox)
		return;
	munmap(inbox->ring, RING_BYTES);
	free(inbox);
}

static uint32_t shm_receive(struct notify_inbox *inbox, struct slu_notification *out, uint32_t n)
{
	return notify_receive(inbox, out, n);
}

/* A file that its owner could shrink would kill us with SIGBUS. */
static int check_fd(int fd, uint64_t length)
{
	struct stat stat;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return fail(-EPROTO,
			    "the target passed memory that is not sealed against shrinking");
	if (fstat(fd, &stat) < 0 || (uint64_t)stat.st_size < length)
		return fail(-EPROTO, "the target passed less memory than it announced");
	return 0;
}

static void *map_fd(int fd, uint64_t length, int protection, int flags)
{
	void *addr = mmap(NULL, length, protection, MAP_SHARED | flags, fd, 0);

	return addr == MAP_FAILED ? NULL : addr;
}

static void shm_release(void *arg)
{
	struct shm_view *view = arg;

	if (!view)
		return;
	if (view->base)
		munmap(view->base, view->mapped_bytes);
	if (view->ring)
		munmap(view->ring, RING_BYTES);
	free(view);
}

static int map_view(struct shm_view *view, uint32_t rights, const int *fds)
{
	bool writes = rights & SLU_RIGHT_WRITE;

	view->base = map_fd(fds[0], view->mapped_bytes, writes ? PROT_READ | PROT_WRITE : PROT_READ,
			    MAP_POPULATE);
	if (!view->base)
		return fail(errno == EPERM || errno == EACCES ? -EACCES : -ENOMEM,
			    "cannot map the segment: %s", strerror(errno));
	if (writes) {
		view->ring = map_fd(fds[1], RING_BYTES, PROT_READ | PROT_WRITE, 0);
		if (!view->ring)
			return fail(-ENOMEM, "cannot map the notification ring: %s",
				    strerror(errno));
	}
	return 0;
}

static int shm_import(const json_t *grant, uint64_t length, uint32_t rights, const int *fds,
		      uint32_t fd_count, void **out)
{
	json_int_t mapped = json_integer_value(json_object_get(grant, "mapped_bytes"));
	uint32_t wanted = rights & SLU_RIGHT_WRITE ? 2 : 1;
	struct shm_view *view;
	int rc;

	if (fd_count != wanted || mapped <= 0 || (uint64_t)mapped < length)
		return fail(-EPROTO, "the target's description of the segment is inconsistent");
	rc = check_fd(fds[0], (uint64_t)mapped);
	if (rc == 0 && wanted == 2)
		rc = check_fd(fds[1], RING_BYTES);
	if (rc < 0)
		return rc;
	view = calloc(1, sizeof(*view));
	if (!view)
		return fail(-ENOMEM, "out of memory");
	view->mapped_bytes = (uint64_t)mapped;
	rc = map_view(view, rights, fds);
	if (rc < 0) {
		shm_release(view);
		return rc;
	}
	*out = view;
	return 0;
}

static const struct transport_control shm_control = {
	.capabilities = shm_capabilities,
	.connect = shm_connect,
	.disconnect = shm_disconnect,
};

static const struct transport_memory shm_memory = {
	.publish = shm_publish,
	.withdraw = shm_withdraw,
	.receive = shm_receive,
	.import = shm_import,
	.release = shm_release,
};

const struct transport shm_transport = {
	.id = SLU_TRANSPORT_SHM,
	.control = &shm_control,
	.memory = &shm_memory,
	.fast = &shm_fast,
};
