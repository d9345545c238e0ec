/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Set-up of shared memory. The target passes the segment's memfd, an area for notifications and
 * calls, and what wakes the owner. Both memories are sealed against shrinking, which the client
 * checks before it maps them.
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

enum { FD_SEGMENT, FD_AREA, FD_WAKE, FD_COUNT };

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
				 .guard = view->guard,
				 .tracker = env->tracker,
				 .waker = &view->waker};
	if (view->writes)
		notify_attach(&shm->notify, &view->waker.area->notifications, env->poller);
	path_init(&shm->path);
	calls_init(&shm->calls, &shm->path, &view->waker, env);
	*path = &shm->path;
	return 0;
}

static void shm_disconnect(struct path *path)
{
	struct shm_path *shm = (struct shm_path *)path;

	if (!shm)
		return;
	if (shm->notify.lane)
		notify_detach(&shm->notify);
	calls_fini(&shm->calls);
	free(shm);
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

static int describe(const struct export *export, json_t *grant)
{
	json_int_t mapped = (json_int_t) export->region->arena.mapped_bytes;

	if (json_object_set_new(grant, "mapped_bytes", json_integer(mapped)) < 0 ||
	    json_object_set_new(grant, "barrier", json_boolean(barrier_reaches_others)) < 0)
		return fail(-ENOMEM, "out of memory");
	return 0;
}

static int publish_area(uint32_t client, uint32_t rights, int wake_fd, struct client_inbox **out)
{
	struct client_inbox *inbox;
	struct client_area *area;
	int fd = client_area_create(&area);
	int rc;

	if (fd < 0)
		return fd;
	inbox = client_inbox_create(area, client, rights, wake_fd);
	rc = inbox ? guard_add(area, CLIENT_AREA_BYTES, &inbox->guard)
		   : fail(-ENOMEM, "out of memory");
	if (rc == 0) {
		*out = inbox;
		return fd;
	}
	if (inbox)
		client_inbox_destroy(inbox);
	else
		client_area_unmap(area);
	close(fd);
	return rc;
}

static int shm_publish(const struct export *export, uint32_t rights, uint32_t client, int wake_fd,
		       json_t *grant, int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask,
		       struct client_inbox **inbox)
{
	bool writes = rights & SLU_RIGHT_WRITE;
	int rc = describe(export, grant);

	if (rc < 0)
		return rc;
	fds[FD_SEGMENT] = export->region->arena.fd;
	fds[FD_WAKE] = wake_fd;
	if (!writes)
		fds[FD_SEGMENT] = reopen_read_only(export->region->arena.fd);
	if (fds[FD_SEGMENT] < 0)
		return fds[FD_SEGMENT];
	fds[FD_AREA] = publish_area(client, rights, wake_fd, inbox);
	if (fds[FD_AREA] < 0) {
		if (!writes)
			close(fds[FD_SEGMENT]);
		return fds[FD_AREA];
	}
	*close_mask = 1u << FD_AREA | (writes ? 0 : 1u << FD_SEGMENT);
	return FD_COUNT;
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

/* What others keep there is in no core dump of ours. */
static void *map_fd(int fd, uint64_t length, int protection, int flags)
{
	void *addr = mmap(NULL, length, protection, MAP_SHARED | flags, fd, 0);

	if (addr == MAP_FAILED)
		return NULL;
	madvise(addr, length, MADV_DONTDUMP);
	return addr;
}

static void shm_release(void *arg)
{
	struct shm_view *view = arg;

	if (!view)
		return;
	guard_remove(view->guard);
	guard_remove(view->area_guard);
	if (view->base)
		munmap(view->base, view->mapped_bytes);
	client_area_unmap(view->waker.area);
	if (view->waker.wake_fd >= 0)
		close(view->waker.wake_fd);
	free(view);
}

static int guard_view(struct shm_view *view)
{
	int rc = guard_add(view->base, view->mapped_bytes, &view->guard);

	return rc < 0 ? rc : guard_add(view->waker.area, CLIENT_AREA_BYTES, &view->area_guard);
}

static bool shm_is_lost(const void *arg)
{
	const struct shm_view *view = arg;

	return guard_is_dead(view->guard) || guard_is_dead(view->area_guard);
}

static int map_view(struct shm_view *view, const int *fds)
{
	view->base = map_fd(fds[FD_SEGMENT], view->mapped_bytes,
			    view->writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_POPULATE);
	if (!view->base)
		return fail(errno == EPERM || errno == EACCES ? -EACCES : -ENOMEM,
			    "cannot map the segment: %s", strerror(errno));
	view->waker.area = map_fd(fds[FD_AREA], CLIENT_AREA_BYTES, PROT_READ | PROT_WRITE, 0);
	if (!view->waker.area)
		return fail(-ENOMEM, "cannot map the memory for notifications: %s",
			    strerror(errno));
	view->waker.wake_fd = fcntl(fds[FD_WAKE], F_DUPFD_CLOEXEC, 0);
	if (view->waker.wake_fd < 0)
		return fail(-errno, "cannot keep the target's descriptor: %s (raise ulimit -n)",
			    strerror(errno));
	return guard_view(view);
}

static int check_fds(uint64_t mapped, const int *fds)
{
	int rc = check_fd(fds[FD_SEGMENT], mapped);

	if (rc == 0)
		rc = check_fd(fds[FD_AREA], CLIENT_AREA_BYTES);
	return rc == 0 ? wake_check(fds[FD_WAKE]) : rc;
}

static int shm_import(const json_t *grant, uint64_t length, uint32_t rights, const int *fds,
		      uint32_t fd_count, void **out)
{
	json_int_t mapped = json_integer_value(json_object_get(grant, "mapped_bytes"));
	bool reached = json_is_true(json_object_get(grant, "barrier")) && barrier_reaches_us;
	struct shm_view *view;
	int rc;

	if (fd_count != FD_COUNT || mapped <= 0 || (uint64_t)mapped < length)
		return fail(-EPROTO, "the target's description of the segment is inconsistent");
	rc = check_fds((uint64_t)mapped, fds);
	if (rc < 0)
		return rc;
	view = calloc(1, sizeof(*view));
	if (!view)
		return fail(-ENOMEM, "out of memory");
	view->mapped_bytes = (uint64_t)mapped;
	view->writes = rights & SLU_RIGHT_WRITE;
	view->waker = (struct client_waker){.wake_fd = -1, .fence = !reached};
	rc = map_view(view, fds);
	if (rc < 0) {
		shm_release(view);
		return rc;
	}
	*out = view;
	return 0;
}

static bool shm_consider(const struct transport_env *env, const struct transport_prospect *with,
			 char *reason)
{
	(void)env;
	if (with->local)
		snprintf(reason, SLU_REASON_MAX,
			 "both ends are on this host and share its Unix socket (%s)", with->local);
	else if (!with->same_host)
		snprintf(reason, SLU_REASON_MAX,
			 "the target is on another host, which shares no memory");
	else if (with->socket[0])
		snprintf(reason, SLU_REASON_MAX,
			 "the target is on this host, but its Unix socket %s is not to be reached "
			 "from here: share that directory",
			 with->socket);
	else
		snprintf(reason, SLU_REASON_MAX,
			 "the target is on this host, but no Unix socket of it can be reached from "
			 "here: start it with --socket PATH in a directory that both see");
	return with->local;
}

static const struct transport_client shm_client = {
	.capabilities = {.slice_bytes = TRANSPORT_SLICE_MAX_BYTES,
			 .immediate = true,
			 .latency_ns = 50,
			 .bytes_per_second = UINT64_C(20000000000)},
	.local = true,
	.consider = shm_consider,
	.import = shm_import,
	.is_lost = shm_is_lost,
	.release = shm_release,
	.connect = shm_connect,
	.disconnect = shm_disconnect,
};

static const struct transport_target shm_target = {
	.publish = shm_publish,
	.withdraw = client_inbox_destroy,
};

const struct transport shm_transport = {
	.id = SLU_TRANSPORT_SHM,
	.client = &shm_client,
	.target = &shm_target,
	.fast = &shm_fast,
};
