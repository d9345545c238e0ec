/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Set-up of shared memory. The target passes the segment's memfd, an area for notifications and
 * calls, and what wakes the owner. Both memories are sealed against shrinking, which the client
 * checks before it maps them. The sessions of a connection with the same rights on a segment have
 * the same area, and all is mapped once for them.
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
#include "memory/keep.h"
#include "transport/shm/shm.h"

enum { FD_SEGMENT, FD_AREA, FD_WAKE, FD_COUNT };

static struct shm_lane *lane_get(struct shm_mapping *mapping, const struct path_env *env)
{
	struct shm_lane **lane = &mapping->lanes[env->poller];

	if (!*lane) {
		*lane = aligned_alloc(64, sizeof(**lane)); /* others' are on other lines */
		if (!*lane)
			return NULL;
		**lane = (struct shm_lane){0};
		if (mapping->rights & SLU_RIGHT_WRITE)
			notify_attach(&(*lane)->notify, &mapping->waker.area->notifications,
				      env->poller);
		calls_link_init(&(*lane)->calls, &mapping->waker, env);
	}
	(*lane)->users++;
	return *lane;
}

static void lane_put(struct shm_mapping *mapping, struct shm_lane *lane)
{
	if (--lane->users > 0)
		return;
	mapping->lanes[lane->calls.sender.index] = NULL;
	if (lane->notify.lane)
		notify_detach(&lane->notify);
	calls_link_fini(&lane->calls);
	free(lane);
}

static int shm_connect(struct slu_remote *remote, const struct path_env *env, struct path **path)
{
	const struct shm_view *view = remote->view;
	struct shm_mapping *mapping = view->mapping;
	struct shm_lane *lane = lane_get(mapping, env);
	struct shm_path *shm = lane ? aligned_alloc(64, (sizeof(*shm) + 63) / 64 * 64) : NULL;

	if (!shm) {
		if (lane)
			lane_put(mapping, lane);
		return fail(-ENOMEM, "out of memory");
	}
	*shm = (struct shm_path){.path = {.fast = &shm_fast,
					  .slice_bytes = TRANSPORT_SLICE_MAX_BYTES,
					  .immediate = true,
					  .transport = SLU_TRANSPORT_SHM,
					  .remote = remote},
				 .base = mapping->base,
				 .guard = mapping->guard,
				 .lane = lane,
				 .tracker = env->tracker,
				 .waker = &mapping->waker,
				 .session = view->session,
				 .mapping = mapping};
	path_init(&shm->path);
	calls_init(&shm->calls, &shm->path, &lane->calls, view->session);
	*path = &shm->path;
	return 0;
}

static void shm_disconnect(struct path *path)
{
	struct shm_path *shm = (struct shm_path *)path;

	if (!shm)
		return;
	lane_put(shm->mapping, shm->lane);
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
	return reopened < 0
		       ? fail(-EOPNOTSUPP, "cannot reopen %s read-only: %s", path, strerror(errno))
		       : reopened;
}

static int describe(const struct export *export, const struct client_inbox *inbox, uint32_t session,
		    json_t *grant)
{
	const struct slu_region *region = export->region;
	uint64_t offset = (uint64_t)(export->addr - region->addr);
	uint64_t pages = (export->length + region->page_bytes - 1) / region->page_bytes;
	json_t *fields = json_pack("{s:I, s:I, s:b, s:I, s:I}", "offset",
				   (json_int_t)(region->arena.offset + offset), "mapped_bytes",
				   (json_int_t)(pages * region->page_bytes), "barrier",
				   barrier_reaches_others, "area", (json_int_t)inbox->id, "number",
				   (json_int_t)session);
	int rc = fields ? json_object_update(grant, fields) : -1;

	json_decref(fields);
	return rc < 0 ? fail(-ENOMEM, "out of memory") : 0;
}

/* All is passed to each session: whether its client has kept what others got is not known here. */
static int shm_publish(const struct export *export, uint32_t rights,
		       const struct client_inbox *inbox, uint32_t session, json_t *grant,
		       int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask)
{
	int rc = describe(export, inbox, session, grant);

	if (rc < 0)
		return rc;
	fds[FD_SEGMENT] = export->region->arena.fd;
	fds[FD_AREA] = inbox->fd;
	fds[FD_WAKE] = inbox->wake_fd;
	if (rights & SLU_RIGHT_WRITE)
		return FD_COUNT;
	fds[FD_SEGMENT] = reopen_read_only(export->region->arena.fd);
	if (fds[FD_SEGMENT] < 0)
		return fds[FD_SEGMENT];
	*close_mask = 1u << FD_SEGMENT;
	return FD_COUNT;
}

/* Of a file that could shrink we would lose what we are granted. */
static int check_fd(int fd, uint64_t end)
{
	struct stat stat;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return fail(-EPROTO,
			    "the target passed memory that is not sealed against shrinking");
	if (fstat(fd, &stat) < 0 || (uint64_t)stat.st_size < end)
		return fail(-EPROTO, "the target passed less memory than it announced");
	return 0;
}

static void *map_fd(int fd, uint64_t offset, uint64_t length, int protection, int flags)
{
	void *addr = mmap(NULL, length, protection, MAP_SHARED | flags, fd, (off_t)offset);

	if (addr == MAP_FAILED)
		return NULL;
	memory_keep(addr, length);
	return addr;
}

static void unmap(struct shm_mapping *mapping)
{
	guard_remove(mapping->guard);
	guard_remove(mapping->area_guard);
	if (mapping->base)
		munmap(mapping->base, mapping->mapped_bytes);
	client_area_unmap(mapping->waker.area);
	if (mapping->waker.wake_fd >= 0)
		close(mapping->waker.wake_fd);
	free(mapping);
}

static int guard_mapping(struct shm_mapping *mapping)
{
	int rc = guard_add(mapping->base, mapping->mapped_bytes, &mapping->guard);

	return rc < 0 ? rc
		      : guard_add(mapping->waker.area, CLIENT_AREA_BYTES, &mapping->area_guard);
}

static bool shm_is_lost(const void *arg)
{
	const struct shm_view *view = arg;

	return guard_is_dead(view->mapping->guard) || guard_is_dead(view->mapping->area_guard);
}

static int map_fds(struct shm_mapping *mapping, const int *fds)
{
	mapping->base =
		map_fd(fds[FD_SEGMENT], mapping->offset, mapping->mapped_bytes,
		       mapping->rights & SLU_RIGHT_WRITE ? PROT_READ | PROT_WRITE : PROT_READ,
		       MAP_POPULATE);
	if (!mapping->base)
		return fail(errno == EPERM || errno == EACCES ? -EACCES : -ENOMEM,
			    "cannot map the segment: %s", strerror(errno));
	mapping->waker.area = map_fd(fds[FD_AREA], 0, CLIENT_AREA_BYTES, PROT_READ | PROT_WRITE, 0);
	if (!mapping->waker.area)
		return fail(-ENOMEM, "cannot map the memory for notifications: %s",
			    strerror(errno));
	mapping->waker.wake_fd = fcntl(fds[FD_WAKE], F_DUPFD_CLOEXEC, 0);
	if (mapping->waker.wake_fd < 0)
		return fail(-errno, "cannot keep the target's descriptor: %s (raise ulimit -n)",
			    strerror(errno));
	return guard_mapping(mapping);
}

static int check_fds(const struct shm_mapping *wanted, const int *fds)
{
	int rc = check_fd(fds[FD_SEGMENT], wanted->offset + wanted->length);

	if (rc == 0)
		rc = check_fd(fds[FD_AREA], CLIENT_AREA_BYTES);
	return rc == 0 ? wake_check(fds[FD_WAKE]) : rc;
}

static int map(const struct shm_mapping *wanted, const int *fds, struct shm_mapping **out)
{
	struct shm_mapping *mapping;
	int rc = check_fds(wanted, fds);

	if (rc < 0)
		return rc;
	mapping = malloc(sizeof(*mapping));
	if (!mapping)
		return fail(-ENOMEM, "out of memory");
	*mapping = *wanted;
	rc = map_fds(mapping, fds);
	if (rc < 0) {
		unmap(mapping);
		return rc;
	}
	*out = mapping;
	return 0;
}

/*
 * One that has the area, used once more; else @p ours, which may be NULL.
 *
 * @return -EPROTO the target calls two things by one name
 */
static int share(struct shm_mapping *ours, const struct shm_mapping *wanted,
		 struct shm_mapping **out)
{
	struct shm_peer *peer = wanted->peer;
	struct shm_mapping *found;
	int rc = 0;

	pthread_mutex_lock(&peer->lock);
	LIST_FOREACH (found, &peer->mappings, link)
		if (found->id == wanted->id)
			break;
	if (found && (found->rights != wanted->rights || found->offset != wanted->offset ||
		      found->mapped_bytes != wanted->mapped_bytes)) {
		rc = fail(-EPROTO, "the target's areas are confused");
	} else {
		if (!found && ours)
			LIST_INSERT_HEAD(&peer->mappings, ours, link);
		if (!found)
			found = ours;
		if (found)
			found->users++;
		*out = found;
	}
	pthread_mutex_unlock(&peer->lock);
	return rc;
}

/* Mapped without the lock: it can take long. */
static int get_mapping(const struct shm_mapping *wanted, const int *fds, struct shm_mapping **out)
{
	struct shm_mapping *ours = NULL;
	int rc = share(NULL, wanted, out);

	if (rc < 0 || *out)
		return rc;
	rc = map(wanted, fds, &ours);
	if (rc < 0)
		return rc;
	rc = share(ours, wanted, out);
	if (rc < 0 || *out != ours)
		unmap(ours);
	return rc;
}

static void put_mapping(struct shm_mapping *mapping)
{
	struct shm_peer *peer = mapping->peer;
	bool last;

	pthread_mutex_lock(&peer->lock);
	last = --mapping->users == 0;
	if (last)
		LIST_REMOVE(mapping, link);
	pthread_mutex_unlock(&peer->lock);
	if (last)
		unmap(mapping);
}

static void shm_release(void *arg)
{
	struct shm_view *view = arg;

	if (!view)
		return;
	put_mapping(view->mapping);
	free(view);
}

static int shm_import(struct transport_peer *peer, const json_t *grant, uint64_t length,
		      uint32_t rights, const int *fds, uint32_t fd_count, void **out)
{
	json_int_t offset, mapped, area, number;
	struct shm_mapping wanted = {.rights = rights,
				     .peer = peer->private[SLU_TRANSPORT_SHM],
				     .waker = {.wake_fd = -1}};
	struct shm_view *view;
	int rc;

	if (json_unpack((json_t *)(uintptr_t)grant, "{s:I, s:I, s:I, s:I}", "offset", &offset,
			"mapped_bytes", &mapped, "area", &area, "number", &number) < 0 ||
	    fd_count != FD_COUNT || offset < 0 || mapped <= 0 || (uint64_t)mapped < length ||
	    area < 0 || area > UINT32_MAX || number < 0 || number > INT32_MAX)
		return fail(-EPROTO, "the target's description of the segment is inconsistent");
	wanted.id = (uint32_t)area;
	wanted.offset = (uint64_t)offset;
	wanted.length = length;
	wanted.mapped_bytes = (uint64_t)mapped;
	wanted.waker.fence =
		!json_is_true(json_object_get(grant, "barrier")) || !barrier_reaches_us;
	view = malloc(sizeof(*view));
	if (!view)
		return fail(-ENOMEM, "out of memory");
	view->session = (uint32_t)number;
	rc = get_mapping(&wanted, fds, &view->mapping);
	if (rc < 0) {
		free(view);
		return rc;
	}
	*out = view;
	return 0;
}

static int shm_meet(void **private)
{
	struct shm_peer *peer = malloc(sizeof(*peer));

	if (!peer)
		return fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&peer->lock, NULL);
	LIST_INIT(&peer->mappings);
	*private = peer;
	return 0;
}

static void shm_leave(void *arg)
{
	struct shm_peer *peer = arg;

	pthread_mutex_destroy(&peer->lock);
	free(peer);
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
			 .atomics = true,
			 .call_bytes = SLU_CALL_MAX,
			 .latency_ns = 50,
			 .bytes_per_second = UINT64_C(20000000000),
			 .memories = 1u << SLU_MEMORY_HOST},
	.local = true,
	.consider = shm_consider,
	.meet = shm_meet,
	.leave = shm_leave,
	.import = shm_import,
	.is_lost = shm_is_lost,
	.release = shm_release,
	.connect = shm_connect,
	.disconnect = shm_disconnect,
};

static const struct transport_target shm_target = {
	.publish = shm_publish,
};

const struct transport shm_transport = {
	.id = SLU_TRANSPORT_SHM,
	.client = &shm_client,
	.target = &shm_target,
	.fast = &shm_fast,
};
