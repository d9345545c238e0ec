/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fault/inject.h"

#include <errno.h>
#include <event2/event.h>
#include <hwloc.h>
#include <jansson.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <rte_mempool.h>

static _Atomic long left; /* calls until the failing one; 0 or less: it has come */
static _Atomic bool armed;
static _Atomic bool again;
static _Atomic(const char *) failed;

void inject_arm(unsigned n, bool for_ever)
{
	atomic_store(&left, n);
	atomic_store(&again, for_ever);
	atomic_store(&failed, NULL);
	atomic_store(&armed, true);
}

const char *inject_disarm(void)
{
	atomic_store(&armed, false);
	return atomic_load(&failed);
}

static bool fails(const char *name)
{
	const char *none = NULL;
	long before;

	if (!atomic_load(&armed))
		return false;
	before = atomic_fetch_sub(&left, 1);
	if (before > 1 || (before < 1 && !atomic_load(&again)))
		return false;
	atomic_compare_exchange_strong(&failed, &none, name);
	return true;
}

#define WRAP(type, name, parameters, arguments, failure, error)                                    \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		if (!fails(#name))                                                                 \
			return __real_##name arguments;                                            \
		errno = error;                                                                     \
		return failure;                                                                    \
	}

/* Memory. */
WRAP(void *, malloc, (size_t size), (size), NULL, ENOMEM)
WRAP(void *, calloc, (size_t count, size_t size), (count, size), NULL, ENOMEM)
WRAP(void *, aligned_alloc, (size_t alignment, size_t size), (alignment, size), NULL, ENOMEM)
WRAP(char *, strdup, (const char *text), (text), NULL, ENOMEM)

/* The kernel. */
WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), -1, EMFILE)
WRAP(int, ftruncate, (int fd, off_t length), (fd, length), -1, ENOSPC)
WRAP(void *, mmap, (void *addr, size_t length, int protection, int flags, int fd, off_t offset),
     (addr, length, protection, flags, fd, offset), MAP_FAILED, ENOMEM)
WRAP(int, madvise, (void *addr, size_t length, int advice), (addr, length, advice), -1, ENOMEM)
WRAP(int, eventfd, (unsigned count, int flags), (count, flags), -1, EMFILE)
WRAP(int, epoll_create1, (int flags), (flags), -1, EMFILE)
WRAP(int, timerfd_create, (int clock, int flags), (clock, flags), -1, EMFILE)
WRAP(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1, EMFILE)
WRAP(int, bind, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length),
     -1, EADDRINUSE)
WRAP(int, listen, (int fd, int backlog), (fd, backlog), -1, EADDRINUSE)
WRAP(int, connect, (int fd, const struct sockaddr *address, socklen_t length),
     (fd, address, length), -1, ECONNREFUSED)
WRAP(int, accept4, (int fd, struct sockaddr *address, socklen_t *length, int flags),
     (fd, address, length, flags), -1, ECONNABORTED)
WRAP(int, getsockopt, (int fd, int level, int name, void *value, socklen_t *length),
     (fd, level, name, value, length), -1, ENOBUFS)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags), -1,
     ECONNRESET)
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), -1,
     ECONNRESET)
WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg),
     (thread, attr, start, arg), EAGAIN, EAGAIN)

/* The libraries below. */
WRAP(struct event_base *, event_base_new, (void), (), NULL, ENOMEM)
WRAP(int, event_add, (struct event * event, const struct timeval *timeout), (event, timeout), -1,
     ENOMEM)
WRAP(json_t *, json_object, (void), (), NULL, ENOMEM)
WRAP(json_t *, json_integer, (json_int_t value), (value), NULL, ENOMEM)
WRAP(int, hwloc_topology_init, (hwloc_topology_t * topology), (topology), -1, ENOMEM)
WRAP(int, hwloc_topology_load, (hwloc_topology_t topology), (topology), -1, ENOMEM)
WRAP(hwloc_bitmap_t, hwloc_bitmap_dup, (hwloc_const_bitmap_t bitmap), (bitmap), NULL, ENOMEM)
WRAP(void *, rte_zmalloc_socket, (const char *type, size_t size, unsigned align, int socket),
     (type, size, align, socket), NULL, ENOMEM)
WRAP(struct rte_mempool *, rte_mempool_create_empty,
     (const char *name, unsigned count, unsigned size, unsigned cache, unsigned private_size,
      int socket, unsigned flags),
     (name, count, size, cache, private_size, socket, flags), NULL, ENOMEM)

json_t *__wrap_json_pack(const char *format, ...);
json_t *__wrap_json_pack(const char *format, ...)
{
	json_error_t error;
	json_t *packed;
	va_list values;

	va_start(values, format);
	packed = json_vpack_ex(&error, 0, format, values);
	va_end(values);
	if (!fails("json_pack"))
		return packed;
	json_decref(packed);
	return NULL;
}
