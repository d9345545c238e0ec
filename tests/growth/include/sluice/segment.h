/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Segments: regions exported under a name; and remotes: segments opened by an initiator.
 *
 * The name of a remote is SEGMENT or SEGMENT@ADDRESS. Without an address the segment is looked up
 * on this host (abstract Unix socket "sluice/SEGMENT"). An address that starts with '/' is the path
 * of a target's Unix socket, for containers that share nothing else; HOST:PORT or [IPV6]:PORT is a
 * target's TCP address.
 *
 * Over Unix sockets a target and its initiators trust processes of their own user, of root, and of
 * the users in slu_engine_options.allowed_uids; anybody else is refused, by either side. Over TCP
 * the credentials in slu_engine_options.tls count.
 *
 * Whoever can map memory writable can also take its pages away from all who share it. That is
 * survived: operations on the segment then fail with -EFAULT, at the target and at every client,
 * and it has to be exported anew. Still it is a power beyond the right to write, so only processes
 * of the target's own user and of root, who have it anyhow, and of the users in
 * slu_engine_options.shm_writers write in shared memory; with no_shm_writers nobody does. Others
 * who have the right are served over another transport. A segment that nobody may write in shared
 * memory is sealed, so that no other process can ever map it writable or take pages away.
 *
 * A descriptor reaches the whole of its memory, whatever part of it a client maps. So a segment
 * that is a part of it is shared with processes of the target's own user and of root only, and not
 * even with them where it begins or ends within a page, 2 MiB or 4 KiB, since they map whole ones.
 * Of registered and of private memory there is no descriptor. Whom that keeps from shared memory
 * goes another way. Parts of one region may be written or only read; each client has the rights of
 * its own segment there. A part that is only read is not sealed, since another may be written.
 *
 * To survive it takes a handler of SIGBUS, which is installed with the first segment that a process
 * exports, or opens over shared memory, and stays. Signals that have nothing to do with such memory
 * go on to the handler that was there before, or end the process as before. A program that installs
 * one later has to call, for addresses that it does not know, the one that sigaction() gave it; and
 * no thread that reads or writes in a segment, or submits to an inline queue, may block SIGBUS: the
 * kernel ends a process for that.
 *
 * With the transport AUTO the path is chosen when the remote is opened, and stays: shared memory
 * when both ends are on one host and share a Unix socket, else RDMA, else TCP.
 */
#ifndef SLUICE_SEGMENT_H
#define SLUICE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <sluice/engine.h>
#include <sluice/export.h>
#include <sluice/memory.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_SEGMENTS_MAX      1024  /* exported by one engine */
#define SLU_REMOTES_MAX       65536 /* opened by one engine */
#define SLU_SOCKET_PATH_MAX   107   /* bytes of a Unix socket path */
#define SLU_ADDRESS_MAX       261   /* bytes of an address: a host name, a colon and a port */
#define SLU_REMOTE_NAME_MAX   (SLU_NAME_MAX + 1 + SLU_ADDRESS_MAX)
#define SLU_NOTIFICATIONS_MAX 256     /* undelivered, per remote (shm: segment) and poller */
#define SLU_REASON_MAX        320     /* bytes of slu_candidate.reason, with the NUL */
#define SLU_MESSAGE_MAX       4096    /* bytes of a request or an answer that costs no memory */
#define SLU_CALL_MAX          1048576 /* bytes of a request or an answer */
#define SLU_MESSAGES_MAX      256     /* requests received and not answered, per segment */
#define SLU_SERVICE_BURST     32      /* messages that a service gets at once */
#define SLU_CALLS_MAX         16      /* sent and not answered, per segment and poller, over shm */
#define SLU_CANDIDATES_MAX    3       /* shm, verbs, tcp */

struct slu_segment;
struct slu_remote;

/** Rights, a bit set. */
enum slu_right {
	SLU_RIGHT_READ = 1,
	SLU_RIGHT_WRITE = 2,
};

enum slu_transport {
	SLU_TRANSPORT_AUTO,
	SLU_TRANSPORT_SHM,
	SLU_TRANSPORT_VERBS,
	SLU_TRANSPORT_TCP,
	SLU_TRANSPORT_FAKE,
};

/** What a WRITE with notification tells the segment's owner. */
struct slu_notification {
	uint32_t tag;         /* slu_op.tag */
	uint32_t client;      /* which client of the segment: unique among the present ones */
	const char *identity; /* what the target knows it as, such as "user:root": one text, at one
				 address, for all clients that are known so; lives as long as the
				 engine */
};

/**
 * A request of a client (slu_submit_calls()). One that is longer than SLU_MESSAGE_MAX, or may be
 * answered by as much, takes memory of this process until it is answered: of each identity as much
 * as SLU_LIMIT_CALL_BYTES. What goes beyond that waits at its client.
 */
struct slu_message {
	uint64_t id;          /* for slu_segment_answer */
	uint32_t client;      /* as in slu_notification */
	uint32_t length;      /* bytes, 0..SLU_CALL_MAX */
	const char *identity; /* as in slu_notification */
	const void *data;     /* a private copy, valid until it is answered */
	uint8_t reserved[32];
};

/** A client has gone. */
struct slu_departure {
	const char *identity; /* as in slu_notification */
	uint32_t client;      /* likewise; another may have that number from now on */
	bool lost;            /* it vanished without a goodbye */
	uint8_t reserved[19];
};

struct slu_segment_info {
	size_t size;
	const char *name;
	uint64_t length_bytes;
	uint32_t rights;
	uint32_t clients; /* connected now */
	uint64_t clients_total;
	uint64_t clients_lost; /* of them those that vanished without a goodbye */
	uint64_t operations;   /* as reported by the clients, about once a second */
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint64_t notifications; /* handed out by slu_segment_poll */
};

/** Which part of a region a segment is. */
struct slu_segment_options {
	size_t size;
	uint64_t offset_bytes; /* of its first byte in the region */
	uint64_t length_bytes; /* 0 = to the region's end */
};

struct slu_remote_options {
	size_t size;
	enum slu_transport transport; /* AUTO, or that one or an error */
	uint32_t rights;              /* wanted; granted in full or the call fails */
	uint64_t timeout_us;          /* of the whole call, whatever is tried in it */
};

/** A way to a segment that was considered when its remote was opened. */
struct slu_candidate {
	enum slu_transport transport;
	uint32_t memories; /* it moves, a bit for each enum slu_memory */
	bool chosen;
	bool usable; /* it would have worked, had it been chosen */
	uint8_t reserved[62];
	uint64_t latency_ns;       /* of a small operation: an order of magnitude for planning, not
				      measured */
	uint64_t bytes_per_second; /* of one poller, likewise; 0 = unknown */
	char reason[SLU_REASON_MAX]; /* why it was chosen, or why not and what would change that;
				      * one sentence
				      */
};

/** The path that operations on a remote take. Texts live as long as the remote. */
struct slu_remote_info {
	size_t size;
	const char *name;
	const char *target;   /* name of the target's engine */
	const char *identity; /* what the target knows us as */
	const char *address;  /* of the control connection: "unix:..." or "tcp:HOST:PORT" */
	uint64_t incarnation; /* of the target */
	uint64_t length_bytes;
	uint64_t page_bytes; /* of the segment */
	enum slu_transport transport;
	uint32_t rights;
	int node;             /* of the segment; -1 unknown */
	pid_t pid;            /* of the target; 0 unknown */
	int state;            /* 0 connected, or why not: -ECONNRESET, -ESHUTDOWN, -EKEYREVOKED,
				 -EFAULT its memory is lost */
	uint32_t connections; /* data connections of its paths, shared with other remotes; tcp, and
				 queue pairs of verbs */
	uint64_t connect_ns;  /* verbs: what it took to make, connect and try the queue pairs that
				 path begins with, the keys of the segment included; else 0 */
	uint64_t doorbells;   /* verbs: bursts handed to the device */
	uint64_t signalled;   /* verbs: completions that the device wrote */
	uint64_t reads;       /* finished well */
	uint64_t writes;
	uint64_t failed;
	uint64_t bytes_read;
	uint64_t bytes_written;
	char path[1024]; /* verbs: devices, GIDs, MTU, how they were connected, of each rail,
			    after the first one between semicolons; else empty */
	bool encrypted;  /* the bytes of operations are, on their way */
	uint8_t reserved[7];
};

/** What a peer has used since it started. */
struct slu_usage {
	size_t size;
	uint64_t cpu_ns; /* user and system, all threads */
};

/** Fill @p options, of which the caller has @p size bytes, with the defaults: the whole region. */
SLU_API void slu_segment_options_init(struct slu_segment_options *options, size_t size);

/**
 * Export @p region, or a part of it, under @p name and listen for clients. Their offsets count from
 * the first byte of the segment, and reach nothing beyond it.
 *
 * One region may be exported as many segments, which may overlap and have different rights. The
 * memory belongs to the segment until slu_segment_close(): registered memory must stay mapped.
 *
 * Whatever cannot be served in shared memory is still exported: clients go by another transport,
 * and the reason is in their slu_candidate. See the head of this file.
 *
 * @param name     1..SLU_NAME_MAX bytes of [A-Za-z0-9._-]
 * @param rights   most that any client may have; without SLU_RIGHT_WRITE, or with
 *                 slu_engine_options.no_shm_writers, the memory is sealed, so that no other process
 *                 can ever map it writable; a part is sealed only with no_shm_writers
 * @param options  NULL = the whole region
 * @return 0; -EINVAL bad name, rights or options; -ERANGE a part that is not inside the region;
 *         -EBUSY it has to be sealed, but is exported for being written in shared memory already;
 *         -EADDRINUSE the name is taken on this host; -EFAULT its memory is lost; -ENOSPC over
 *         SLU_SEGMENTS_MAX; -EMFILE, -ENOMEM
 */
SLU_API int slu_segment_export(struct slu_engine *engine, const char *name,
			       struct slu_region *region, uint32_t rights,
			       const struct slu_segment_options *options,
			       struct slu_segment **segment);

/**
 * Withdraw it: its clients' operations fail from now on with -ESHUTDOWN; accepts NULL.
 *
 * Clients are given up to two seconds to leave. Remotes of it that this same engine opened (the
 * fake transport) must be closed before.
 */
SLU_API void slu_segment_close(struct slu_segment *segment);

/** Set @p info.size before. @return 0; -EINVAL the size */
SLU_API int slu_segment_get_info(struct slu_segment *segment, struct slu_segment_info *info);

/**
 * Take up to @p n notifications. The data of each is visible when it is handed out.
 *
 * Hot: neither blocks nor allocates; enters the kernel only where more than 32 connections (one
 * with sessions of different rights is two) are or were in shared memory, every 20 us or so. Of one
 * that was idle beside so many what comes is seen then.
 * Thread: any, also several. One at a time takes: the others find nothing meanwhile.
 *
 * @return 0..n
 */
SLU_API int slu_segment_poll(struct slu_segment *segment, struct slu_notification *out, uint32_t n);

/**
 * A descriptor for an event loop: ready for reading (poll, epoll) after slu_segment_arm() when a
 * notification or a request came. It is never read. Owned by the segment.
 */
SLU_API int slu_segment_fd(struct slu_segment *segment);

/**
 * Ask for one wake-up on slu_segment_fd(), and clear the one before. After it has come, poll and
 * receive until there is nothing, then arm again. A wake-up may come for nothing. While
 * SLU_MESSAGES_MAX requests are open, further ones do not count until one is answered.
 * Thread: any, also several, each for itself: a wake-up is for all of those that sleep then.
 *
 * @return 0 armed; 1 something is there already, or another thread is looking just now, not armed;
 *         -EPERM the process was forbidden
 *         membarrier(2) after the engine was opened: only polling is left
 */
SLU_API int slu_segment_arm(struct slu_segment *segment);

/**
 * Take up to @p n requests. Those taken must be answered, soon or later and by whichever thread: at
 * most SLU_MESSAGES_MAX can be open. Each is handed out once.
 *
 * Hot and threads: as slu_segment_poll().
 *
 * @return 0..n
 */
SLU_API int slu_segment_receive(struct slu_segment *segment, struct slu_message *out, uint32_t n);

/**
 * Answer a request; its data is gone afterwards. A client that has left is no error. Of several
 * that answer the same one, one does it. Hot: neither blocks nor allocates, and enters the kernel
 * only to wake a poller. Thread: any.
 *
 * @param status  0 or a negative errno, for slu_completion.status; not -EAGAIN or -ECANCELED, which
 *                mean something else there
 * @param length  bytes at @p data, 0..SLU_CALL_MAX; none are sent when @p status is not 0
 * @return 0; -EINVAL a status or length that cannot be, or not a request that is open
 */
SLU_API int slu_segment_answer(struct slu_segment *segment, const struct slu_message *message,
			       int status, const void *data, uint32_t length);

/**
 * Take up to @p n clients that have gone, of those that had left a notification or a request when
 * they went: each once, after the last of what it left was taken, and within two seconds of that.
 * Requests of it may be open still, and are to be answered as others. Of those that went before the
 * first of these calls nothing is told. Until it is taken a client counts as a session of its
 * identity; what it costs has to do with those that go, not with those that stay.
 *
 * Threads: as slu_segment_poll(). slu_segment_arm() counts them as something that is there.
 *
 * @return 0..n
 */
SLU_API int slu_segment_departures(struct slu_segment *segment, struct slu_departure *out,
				   uint32_t n);

typedef void (*slu_requests_fn)(void *arg, struct slu_segment *segment,
				const struct slu_message *messages, uint32_t n);
typedef void (*slu_notifications_fn)(void *arg, struct slu_segment *segment,
				     const struct slu_notification *notifications, uint32_t n);
typedef void (*slu_departures_fn)(void *arg, struct slu_segment *segment,
				  const struct slu_departure *departures, uint32_t n);

/**
 * What a poller thread does for a segment. Each that is not NULL is called on that thread with what
 * was taken for it, 1..SLU_SERVICE_BURST at a time; the array is good for the call. A request is
 * answered in it, or later, by whichever thread. Between two calls the poller's queues and
 * connections have their turn.
 *
 * It must not block, nor wait for anything of the engine's, and must not call what says that it
 * waits or blocks, slu_segment_serve(), slu_segment_unserve() and all that opens or closes: while
 * it runs nobody else has that poller. What takes long is for another thread.
 */
struct slu_service {
	size_t size;
	void *arg;
	slu_requests_fn requests;
	slu_notifications_fn notifications;
	slu_departures_fn departures;
};

/**
 * Have poller thread @p poller take what comes for the segment, from now on. It sleeps when there
 * is nothing, and is woken, as for its other work. Other threads may go on taking as well.
 *
 * Waits for the poller's turn. Any thread but a poller.
 *
 * @param service  copied; set its size
 * @return         0; -EINVAL the size, no such poller thread, nothing to be called; -EBUSY it has a
 *                 service; -ENOMEM, -ENOSPC
 */
SLU_API int slu_segment_serve(struct slu_segment *segment, uint32_t poller,
			      const struct slu_service *service);

/**
 * End that: when it returns nothing of the service is called or will be. What was not taken stays
 * for others. At any time; without a service nothing happens. slu_segment_close() does it as well.
 *
 * Waits for the poller's turn. Any thread but a poller.
 *
 * @return 0; -EDEADLK a poller called it, and nothing was done
 */
SLU_API int slu_segment_unserve(struct slu_segment *segment);

/** Fill @p options with the defaults: any transport, both rights, 5 seconds. */
SLU_API void slu_remote_options_init(struct slu_remote_options *options, size_t size);

/**
 * Connect to a segment. Waits for its target, and holds up nobody who opens, closes or uses others.
 *
 * @param name  SEGMENT or SEGMENT@ADDRESS
 * @return 0; -EINVAL bad name or option; -E2BIG an option that this library does not know; -EACCES
 *         right or user refused; -ECONNREFUSED nobody listens there; -EHOSTUNREACH, -EADDRNOTAVAIL
 *         the address; -ENOENT the target has no such segment; -EPERM, -ENOKEY, -EKEYREJECTED,
 *         -EKEYEXPIRED, see error.h; -EOPNOTSUPP the transport asked for is not to be had;
 *         -ETIMEDOUT; -EPROTO, -EPROTONOSUPPORT; -EMFILE, -ENOMEM, -ENOSPC
 */
SLU_API int slu_remote_open(struct slu_engine *engine, const char *name,
			    const struct slu_remote_options *options, struct slu_remote **remote);

/**
 * Disconnect; accepts NULL.
 *
 * Operations taken by pollers are finished first; what is not done within a second ends with
 * -ECANCELED, and an attempt to reach it that has begun is over within ten, so that a target that
 * does not answer cannot hold it up: five of them are the target's, the rest devices may take, to
 * resolve its address and to give back what they have. No thread may submit on it any more, and
 * inline queues must have been reaped of operations on it.
 */
SLU_API void slu_remote_close(struct slu_remote *remote);

/** Set @p info.size before. Any thread. @return 0; -EINVAL the size */
SLU_API int slu_remote_get_info(struct slu_remote *remote, struct slu_remote_info *info);

/**
 * What was considered when it was opened, in the order of preference. Any thread.
 *
 * @return candidates written, 0..@p n
 */
SLU_API int slu_remote_get_candidates(struct slu_remote *remote, struct slu_candidate *out,
				      uint32_t n);

/**
 * Would it open, and by which path? As slu_remote_open(), but nothing stays open; a candidate is
 * also written when none can be used, with the reason.
 *
 * @return candidates written, 0..@p n; as slu_remote_open() where not even a session came about
 */
SLU_API int slu_remote_explain(struct slu_engine *engine, const char *name,
			       const struct slu_remote_options *options, struct slu_candidate *out,
			       uint32_t n);

/** Bytes in the segment; constant while the remote is open. Any thread. */
SLU_API uint64_t slu_remote_length(const struct slu_remote *remote);

/**
 * Ask the target what it has used. Set @p usage.size before. Blocks. Any thread.
 *
 * @return 0; -EINVAL the size; -ETIMEDOUT; -ECONNRESET, -ESHUTDOWN the target has gone; -EOPNOTSUPP
 */
SLU_API int slu_remote_get_usage(struct slu_remote *remote, uint64_t timeout_us,
				 struct slu_usage *usage);

/** "auto", "shm", ... Any thread; the text is static. */
SLU_API const char *slu_transport_name(enum slu_transport transport);

#ifdef __cplusplus
}
#endif

#endif
