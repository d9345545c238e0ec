/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The engine: owner of everything below. A process may have several, opened and closed by any
 * threads at any time: each has its own pollers, control thread, identity limits, grants, segments
 * and remotes, and closing one leaves the others as they were. One may be a client of another's
 * segments, over every transport but fake, as of those of another process. A name, a socket and a
 * port belong to one of them. The log is the process's, and so is what follows.
 *
 * Order of calls: slu_engine_options_init, slu_engine_open; then regions and segments (memory.h,
 * segment.h), remotes (segment.h) and queues (queue.h); slu_engine_close at the end.
 *
 * Opening and closing calls may block and allocate and may come from any thread; the hot calls are
 * slu_submit and slu_reap only.
 *
 * DPDK. An engine needs DPDK's EAL, of which a process has one, that cannot be started twice. Where
 * there is none the first engine starts it: on ordinary pages, without files, devices or telemetry;
 * it stays. A host, a program that uses DPDK or SPDK itself, calls rte_eal_init() before it opens
 * an engine: its EAL is used as it is, whatever its memory (hugepages, --in-memory, --no-huge), and
 * must stay until the last engine is closed. Rings and pools then come from its heap; its log and
 * its lcores are left alone. Threads of the engine keep to the CPUs that are no lcores' (EAL gives
 * them to its control threads; where there are none, that of the main lcore), and pollers are put
 * there too where slu_engine_options.cores names no others: start the host with -l or --lcores, and
 * leave some. A program that calls rte_eal_init() after the first engine was opened gets -1 with
 * EALREADY from it, and may use the EAL that is there; one whose rte_eal_init() has failed opens no
 * engine.
 *
 * fork(). What was opened before belongs to the parent, whose transfers go on. In the child, which
 * has neither the threads nor the memory, each call on it fails with -ECHILD, returns NULL or 0,
 * or, where it returns nothing, does nothing: no peer hears of it, and it can be left out. Memory
 * of regions is not mapped there: a child that touches it gets SIGSEGV. Sockets, devices and memory
 * are closed in the child before fork() returns there, so a peer sees the parent's end, though a
 * child lives. The child cannot open an engine, since the EAL cannot be used there: it calls
 * exec(), or the parent opens its first one after the fork. Memory of the caller's own that RDMA
 * devices know (slu_region_register) is there, as a copy, from Linux 5.12 on, and is not before.
 * fork() is not to be called from a signal handler.
 *
 * Structs that can grow begin with their size, so that a program and a library of different
 * releases understand each other:
 *
 *   options  slu_X_options_init(&options, sizeof(options)) fills them, and every call that takes
 *            options takes NULL for the defaults. Fields that the caller's form did not have yet
 * are the defaults. Fields that the library does not have yet, and bytes called reserved, must be
 * zero, as the init function leaves them, else the call fails with -E2BIG and nothing is done:
 * leave them alone, or install a newer library. infos    the caller sets info.size = sizeof(info).
 * The fields that it knows are filled; what the library does not have yet is zeroed.
 *
 * A size below the struct's form in release 1.0, or over SLU_STRUCT_SIZE_MAX, is -EINVAL. Structs
 * that stand in arrays or in others have reserved bytes instead: zero in what is handed in, and
 * what is handed out is zero there until a release gives them a meaning.
 */
#ifndef SLUICE_ENGINE_H
#define SLUICE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <sluice/error.h>
#include <sluice/export.h>
#include <sluice/security.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_POLLERS_MAX         128 /* poller threads and inline queues together */
#define SLU_ALLOWED_UIDS_MAX    16
#define SLU_NAME_MAX            63 /* bytes of a segment's or an engine's name, without the NUL */
#define SLU_TCP_CONNECTIONS_MAX 8
#define SLU_STRUCT_SIZE_MAX     16384 /* bytes of a struct that begins with its size */

#define SLU_RDMA_QUEUE_PAIRS_MAX 16

struct slu_engine;

/**
 * How RDMA is used. What is not set here is chosen, with a reason that slu_remote_explain() gives.
 */
struct slu_rdma_options {
	const char *device;   /* "NAME" or "NAME:PORT": that one only; NULL = every usable one */
	int gid_index;        /* of the port's table; -1 = chosen */
	uint32_t mtu;         /* bytes: 256, 512, 1024, 2048 or 4096; 0 = what both ports can */
	int timeout;          /* for an acknowledgement: 4.096 us * 2^n, 1..31; -1 = chosen */
	int retries;          /* after that timeout, 0..6; -1 = chosen */
	int traffic_class;    /* 0..255; -1 = chosen */
	uint32_t queue_pairs; /* for bulk, per poller and target; 0 = chosen */
	bool off;             /* use no RDMA device, and serve none */
	bool cm;              /* connect queue pairs by librdmacm instead of the control session */
	bool plain;           /* also for encrypted sessions, whose bytes then go in the clear */
	uint8_t reserved[61]; /* zero */
};

enum slu_poll_mode {
	SLU_POLL_ADAPTIVE, /* spin while there is work and shortly after, then sleep until woken */
	SLU_POLL_BUSY,     /* never sleep: a whole core per poller */
};

/** Time as the engine sees it; replaced by tests that run in virtual time. */
typedef uint64_t (*slu_clock_fn)(void *arg); /* nanoseconds, monotonic */

struct slu_engine_options {
	size_t size;      /* sizeof(struct slu_engine_options), set by the init function */
	const char *name; /* shown to peers and in logs; NULL = the program's name */
	uint32_t pollers; /* poller threads; 0 = inline queues only */
	enum slu_poll_mode poll;
	const char *cores;        /* CPU list for the pollers, "2,3" or "2-5"; NULL = chosen */
	int node;                 /* NUMA node to prefer for the pollers; -1 = any */
	uint32_t tcp_connections; /* data connections per poller and target; 0 = chosen */
	const char *socket; /* also listen on this Unix socket path; NULL = abstract names only */
	const char
		*listen; /* also serve over TCP: ADDRESS:PORT, port 0 = a free one; NULL = do not */
	const uid_t *allowed_uids; /* users other than our own and root whom we serve and trust */
	const uid_t *shm_writers;  /* of them those who may write in shared memory, see segment.h */
	uint32_t allowed_uids_count;
	uint32_t shm_writers_count;
	slu_clock_fn clock; /* NULL = the time stamp counter, or CLOCK_MONOTONIC */
	void *clock_arg;
	uint64_t seed;    /* of every random choice; 0 = from the kernel */
	const char *fake; /* behaviour of the fake transport, see docs/fake.md; NULL = none */
	const struct slu_grant *grants; /* NULL = whoever is let in has the segments' own rights */
	const struct slu_identity_limits *identity_limits; /* of some of their own */
	uint32_t grants_count;
	uint32_t identity_limits_count;
	uint64_t limits[SLU_LIMITS_MAX]; /* of each identity, by enum slu_limit; 0 = default */
	struct slu_tls_options tls;
	struct slu_rdma_options rdma;
	bool no_shm_writers; /* nobody may, not even our own user */
	bool insecure;       /* TCP without TLS may leave this host */
	bool tcp_plain; /* with TLS sessions: data connections are authenticated, not encrypted */
	uint8_t reserved[5]; /* zero */
};

struct slu_poller_info {
	size_t size;
	int core;
	int node;
	enum slu_poll_mode poll;
	uint32_t buffers;         /* for messages, in memory that devices know */
	uint32_t buffers_used;    /* of them: receives, calls, answers */
	uint32_t buffers_most;    /* that were used at a time */
	uint64_t buffers_refused; /* how often a call was not begun for want of one */
	uint64_t loops;           /* passes over all queues */
	uint64_t idle_loops;      /* of them those that found nothing to do */
	uint64_t sleeps;
	uint64_t operations; /* finished */
	uint64_t bytes;
	bool running_inline; /* a queue's own, run by the queue's owner; core is -1 */
	uint8_t reserved[7];
};

/** What the engine runs on. Texts live as long as the engine. */
struct slu_engine_info {
	size_t size;
	const char *name;
	uint64_t incarnation;
	const char *copy;      /* copy kernels in use, e.g. "memcpy, avx2 non-temporal" */
	uint64_t llc_bytes;    /* last-level cache that copies are planned for */
	const char *listen;    /* TCP address served, with the port that was chosen; NULL = none */
	const char *rdma;      /* devices in use, or why there are none */
	uint32_t rdma_devices; /* in use: one for each port */
	uint32_t pollers;      /* poller threads */
	uint32_t connections;  /* control connections of clients, now */
	uint32_t sessions;     /* on them */
	bool eal_hugepages;    /* rings and pools are on hugepages */
	bool tls;              /* TCP is authenticated and encrypted */
	uint8_t reserved[6];
};

/**
 * Fill @p options with the defaults. Any thread.
 *
 * @param size  the caller's sizeof(*options): so many bytes are written, and options->size is it;
 *              likewise in every call of that name
 */
SLU_API void slu_engine_options_init(struct slu_engine_options *options, size_t size);

/**
 * Start an engine: with the first one DPDK's EAL, unless the process has one, and then pollers and
 * the control thread.
 *
 * Pollers are put on cores that have the fewest pollers of this process, unless options name them.
 * The calling thread keeps its CPU affinity. Any thread, several at a time.
 *
 * @param options  NULL for the defaults; likewise in every call that takes options
 * @return 0; -ECHILD the parent has opened an engine before fork(); -EIO EAL does not start, or the
 *         process's own has failed; -EINVAL bad option (size, cores, socket, fake,
 *         listen, tls, rdma); -E2BIG an option that this library does not know; -ENODEV the RDMA
 *         device that was named is not there or cannot be used; -EADDRINUSE the socket or port is
 *         served by another process or engine; -EADDRNOTAVAIL not an address of this host; -EPERM
 * listening beyond loopback needs TLS, or insecure; -EKEYEXPIRED, -EKEYREJECTED, -ENOKEY
 * credentials that cannot be used; -ENOMEM
 */
SLU_API int slu_engine_open(const struct slu_engine_options *options, struct slu_engine **engine);

/**
 * Close it and everything that was opened on it; accepts NULL.
 *
 * Connected clients of its segments are told, and given up to two seconds to leave. No other thread
 * may be inside a call on the engine or its objects. All handles die with it.
 */
SLU_API void slu_engine_close(struct slu_engine *engine);

/**
 * Stop serving: exported segments take no new clients, the present ones are told to leave.
 *
 * @return clients still connected after at most @p timeout_us
 */
SLU_API int slu_engine_drain(struct slu_engine *engine, uint64_t timeout_us);

/**
 * Replace the grants. Sessions that have a right which is not granted any more end within a second
 * with -EKEYREVOKED. Any thread.
 *
 * An engine without any grants lets everybody do everything, and none becomes one of those by an
 * empty list: where that is meant, grant every right to "*" on "*".
 *
 * @return 0; -EINVAL a bad identity, segment or right, or no grant where there were some; -E2BIG
 *         reserved bytes that are not zero; nothing was changed; -ENOMEM
 */
SLU_API int slu_engine_set_grants(struct slu_engine *engine, const struct slu_grant *grants,
				  uint32_t count);

/**
 * Replace the limits: those of each identity and those of some of their own. Nothing that an
 * identity has already is taken away. Any thread.
 *
 * @param limits  by enum slu_limit, 0 = default; NULL = the defaults
 * @return        0; -EINVAL an identity twice or a name too long, -E2BIG a kind of limit that this
 *                library does not know: nothing was changed; -ENOMEM
 */
SLU_API int slu_engine_set_limits(struct slu_engine *engine, const uint64_t limits[SLU_LIMITS_MAX],
				  const struct slu_identity_limits *own, uint32_t count);

/**
 * Read the files of slu_engine_options.tls again: keys and certificates may have changed. Sessions
 * whose identity has lost its key end as with slu_engine_set_grants(). Any thread.
 *
 * @return 0; as slu_engine_open(), the old credentials stay in force
 */
SLU_API int slu_engine_reload_tls(struct slu_engine *engine);

/** Set @p info.size before. Any thread. @return 0; -EINVAL the size */
SLU_API int slu_engine_get_info(struct slu_engine *engine, struct slu_engine_info *info);

/**
 * Read poller @p index (threads first, then inline queues in the order of their opening).
 *
 * Counters are plain and read without stopping the poller. Set @p info.size before. Any thread.
 *
 * @return 0; -ENOENT no such poller; -EINVAL the size
 */
SLU_API int slu_engine_get_poller(struct slu_engine *engine, uint32_t index,
				  struct slu_poller_info *info);

#ifdef __cplusplus
}
#endif

#endif
