/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Segments: regions exported under a name; and remotes: segments opened by an initiator.
 *
 * The name of a remote is SEGMENT or SEGMENT@ADDRESS. Without an address the segment is looked up
 * on this host (abstract Unix socket "sluice/SEGMENT"). An address that starts with '/' is the path
 * of a target's Unix socket, for containers that share nothing else.
 *
 * A target and its initiators trust processes of their own user, of root, and of the users in
 * slu_engine_options.allowed_uids; anybody else is refused, by either side.
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
#define SLU_ADDRESS_MAX       107   /* bytes of a Unix socket path */
#define SLU_REMOTE_NAME_MAX   (SLU_NAME_MAX + 1 + SLU_ADDRESS_MAX)
#define SLU_NOTIFICATIONS_MAX 256 /* undelivered, per remote and poller */

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
	uint32_t tag;    /* slu_op.tag */
	uint32_t client; /* which client of the segment: unique among the present ones */
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

struct slu_remote_options {
	size_t size;
	enum slu_transport transport; /* AUTO, or that one or an error */
	uint32_t rights;              /* wanted; granted in full or the call fails */
	uint64_t timeout_us;          /* of the whole handshake */
};

/** The path that operations on a remote take. Texts live as long as the remote. */
struct slu_remote_info {
	size_t size;
	const char *name;
	const char *target; /* name of the target's engine */
	enum slu_transport transport;
	uint64_t incarnation; /* of the target */
	uint64_t length_bytes;
	uint32_t rights;
	uint64_t page_bytes; /* of the segment */
	int node;            /* of the segment; -1 unknown */
	pid_t pid;           /* of the target; 0 unknown */
	int state;           /* 0 connected, or why not: -ECONNRESET, -ESHUTDOWN */
	uint64_t reads;      /* finished well */
	uint64_t writes;
	uint64_t failed;
	uint64_t bytes_read;
	uint64_t bytes_written;
};

/** What a peer has used since it started. */
struct slu_usage {
	uint64_t cpu_ns; /* user and system, all threads */
};

/**
 * Export @p region under @p name and listen for clients.
 *
 * @param name    1..SLU_NAME_MAX bytes of [A-Za-z0-9._-]
 * @param rights  most that any client may have; without SLU_RIGHT_WRITE the memory is sealed, so
 *                that no other process can ever map it writable
 * @return 0; -EINVAL bad name or rights, or a region that cannot be exported; -EADDRINUSE the name
 *         is taken on this host; -ENOSPC over SLU_SEGMENTS_MAX; -ENOMEM
 */
SLU_API int slu_segment_export(struct slu_engine *engine, const char *name,
			       struct slu_region *region, uint32_t rights,
			       struct slu_segment **segment);

/**
 * Withdraw it: its clients' operations fail from now on with -ESHUTDOWN; accepts NULL.
 *
 * Clients are given up to two seconds to leave. Remotes of it that this same process opened (the
 * fake transport) must be closed before.
 */
SLU_API void slu_segment_close(struct slu_segment *segment);

/** Set @p info.size before. @return 0; -EINVAL */
SLU_API int slu_segment_get_info(struct slu_segment *segment, struct slu_segment_info *info);

/**
 * Take up to @p n notifications. The data of each is visible when it is handed out.
 *
 * Hot: neither blocks nor allocates nor enters the kernel. Thread: one at a time per segment.
 *
 * @return 0..n
 */
SLU_API int slu_segment_poll(struct slu_segment *segment, struct slu_notification *out, uint32_t n);

/** Fill @p options with the defaults: any transport, both rights, 5 seconds. */
SLU_API void slu_remote_options_init(struct slu_remote_options *options);

/**
 * Connect to a segment.
 *
 * @param name  SEGMENT or SEGMENT@ADDRESS
 * @return 0; -EINVAL bad name; -ECONNREFUSED nobody listens there; -ENOENT the target has no such
 *         segment; -EACCES right or user refused; -EOPNOTSUPP the transport asked for is not to be
 *         had; -ETIMEDOUT; -EPROTO, -EPROTONOSUPPORT; -EMFILE, -ENOMEM, -ENOSPC
 */
SLU_API int slu_remote_open(struct slu_engine *engine, const char *name,
			    const struct slu_remote_options *options, struct slu_remote **remote);

/**
 * Disconnect; accepts NULL.
 *
 * Operations taken by pollers are finished first. No thread may submit on it any more, and inline
 * queues must have been reaped of operations on it.
 */
SLU_API void slu_remote_close(struct slu_remote *remote);

/** Set @p info.size before. Any thread. @return 0; -EINVAL */
SLU_API int slu_remote_get_info(struct slu_remote *remote, struct slu_remote_info *info);

/** Bytes in the segment; constant while the remote is open. Any thread. */
SLU_API uint64_t slu_remote_length(const struct slu_remote *remote);

/**
 * Ask the target what it has used. Blocks. Any thread.
 *
 * @return 0; -ETIMEDOUT; -ECONNRESET, -ESHUTDOWN the target has gone; -EOPNOTSUPP
 */
SLU_API int slu_remote_get_usage(struct slu_remote *remote, uint64_t timeout_us,
				 struct slu_usage *usage);

/** "auto", "shm", ... Any thread; the text is static. */
SLU_API const char *slu_transport_name(enum slu_transport transport);

#ifdef __cplusplus
}
#endif

#endif
