/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Errors and the log.
 *
 * Every call returns 0 or a count, or a negative errno. The same numbers stand in
 * slu_completion.status. What an errno means to Sluice:
 *
 *   -EINVAL        malformed argument or operation
 *   -E2BIG         something that this library does not know is asked for: the program was built
 *                  for a newer one (engine.h), or did not call the options' init function
 *   -ERANGE        an operation reaches outside its region or its segment
 *   -EACCES        the right (read, write) was not granted, or the peer's user is not allowed
 *   -EPERM         TCP without TLS would leave this host, or one end uses TLS and the other not
 *   -ENOKEY        the target does not know our identity, or the peer shows none
 *   -EKEYREJECTED  the key or certificate is not the one the peer expects
 *   -EKEYEXPIRED   a certificate has expired
 *   -EKEYREVOKED   a right that the session had is no longer granted
 *   -ENOENT        no such segment at that target
 *   -ECONNREFUSED  no target listens at that address
 *   -EHOSTUNREACH  there is no way to that address
 *   -EADDRNOTAVAIL the host name is not known, or the address is not one of this host
 *   -EADDRINUSE    another target has that segment name, socket or port
 *   -EPROTO        the peer sent what the protocol forbids
 *   -EPROTONOSUPPORT  the peer speaks no protocol version that we speak
 *   -EOPNOTSUPP    the transport asked for cannot do it here
 *   -ECONNRESET    the peer died
 *   -EFAULT        memory was lost: pages of it were taken away by a process that may write to it
 *   -ESHUTDOWN     the peer, or this engine, is closing
 *   -ETIMEDOUT     the deadline passed
 *   -EMSGSIZE      the answer to a call is longer than the room for it
 *   -ECANCELED     given up because its queue or remote was closed
 *   -EBUSY         something is still in use
 *   -ECHILD        opened before fork(), by the parent: see engine.h
 *   -ENOMEM        out of memory, of hugepages, or over the memlock limit
 *   -ENOSPC        a named limit is reached: of segments, remotes, queues, clients or sessions
 *   -EDQUOT        a limit of this identity at the target is reached (enum slu_limit)
 *   -EMFILE        out of file descriptors
 *   -ETOOMANYREFS  too many descriptors of the target's user were passed and not received
 *   -EAGAIN        no further thread can be started
 */
#ifndef SLUICE_ERROR_H
#define SLUICE_ERROR_H

#include <sluice/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How much a failure has taken with it. */
enum slu_scope {
	SLU_SCOPE_NONE,
	SLU_SCOPE_OPERATION, /* this operation; the next may succeed */
	SLU_SCOPE_PATH,      /* the path from one poller to one remote */
	SLU_SCOPE_SESSION,   /* the relation with the target: open the remote again */
	SLU_SCOPE_DEVICE,    /* a device of this host */
	SLU_SCOPE_PROCESS,   /* this engine */
};

enum slu_log_level {
	SLU_LOG_ERROR,
	SLU_LOG_WARNING,
	SLU_LOG_INFO,
	SLU_LOG_DEBUG,
};

/**
 * @p text is one line without a newline, valid during the call.
 *
 * Called by a thread of the log's own, one line at a time and in order, shortly after it was said.
 * It may wait: no other thread of Sluice waits for it, and lines that find no room meanwhile are
 * counted and told of. Where that thread cannot be started (-EAGAIN), closing calls it.
 */
typedef void (*slu_log_fn)(void *arg, enum slu_log_level level, const char *text);

/**
 * Say what a negative errno means to Sluice. Any thread; the text is static.
 *
 * @param error  a negative (or positive) errno
 */
SLU_API const char *slu_strerror(int error);

/**
 * The cause, and the remedy where there is one, of the latest failure on this thread.
 *
 * Any thread; valid until the next Sluice call of this thread. Empty when nothing has failed.
 * slu_submit() sets it where it takes nothing because the first operation is not right.
 */
SLU_API const char *slu_last_error(void);

/** "operation", "path", ... Any thread; the text is static. */
SLU_API const char *slu_scope_name(enum slu_scope scope);

/**
 * Direct the log. Process-wide; call it before slu_engine_open(), or at any time from any thread
 * that holds nothing its receivers wait for.
 *
 * What was said before goes to the former receiver, which is not called any more after the return:
 * waits for a call of it that is in progress. The end of the process, and slu_engine_close(), give
 * the receiver, or the reader of stderr, up to a second to take what was said.
 *
 * @param level  the most talkative level that is let through (default SLU_LOG_WARNING)
 * @param log    receiver, or NULL for lines on stderr
 */
SLU_API void slu_log_set(enum slu_log_level level, slu_log_fn log, void *arg);

#ifdef __cplusplus
}
#endif

#endif
