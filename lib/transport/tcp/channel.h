/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A data connection's two directions. Received are frames: a head that is parsed where it was read,
 * and a body that goes straight to where it belongs. Sent is a queue of pieces: heads and small
 * bodies are staged side by side, large bodies are referred to where they lie; all leaves in as few
 * system calls as the socket permits.
 *
 * One thread at a time. After channel_open() nothing is allocated.
 */
#ifndef TCP_CHANNEL_H
#define TCP_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "net/stream.h"

#define CHANNEL_BUFFER_BYTES 65536u
#define CHANNEL_PIECES       320u
#define CHANNEL_PLACES       64u

/** Received or sent on one connection in a turn: while others wait for theirs, and else. */
#define CHANNEL_TURN_SHARED (UINT64_C(1) << 18)
#define CHANNEL_TURN_ALONE  (UINT64_C(1) << 20)

/** A body up to this is copied beside its head: cheaper than a piece of its own. */
#define CHANNEL_STAGE_BYTES 2048u

struct channel {
	struct stream stream;

	/* Receiving: buffer[begin..end) is read and not consumed. */
	char *buffer;
	uint32_t begin;
	uint32_t end;
	uint32_t read_ahead; /* how much to read beyond a body: little while bodies are large */
	uint32_t body_left;
	char *body;           /* where its next byte goes; NULL: nowhere */
	struct iovec *places; /* of a body that goes to several; NULL: it goes to one */
	uint32_t place_count; /* that are not full */
	bool drained;         /* the last read emptied the socket, */
	uint64_t drained_ns;  /* then; kept while a long body comes */

	/* Sending. */
	char *staging;
	uint32_t staged;
	uint32_t first; /* piece to send next */
	uint32_t count; /* pieces so far, sent ones included */
	bool full;      /* the last channel_send() filled the socket, */
	bool stuck;     /* and could send nothing at all */
	struct iovec *pieces;
	const void **owners; /* of the memory that a piece refers to; NULL: it is the channel's */
};

/** Take over @p stream. @return 0; -ENOMEM, the stream stays the caller's */
int channel_open(struct channel *channel, const struct stream *stream);

/** Close the stream and free everything. Accepts a zeroed one. */
void channel_close(struct channel *channel);

/** One read. @return bytes; 0 nothing there, or not yet worth a look; negative: the connection is
 * over */
ssize_t channel_receive(struct channel *channel);

/**
 * The next @p n bytes, or NULL while fewer were read: then more are read at a time. @p n is at most
 * CHANNEL_BUFFER_BYTES / 2.
 */
static inline const void *channel_peek(struct channel *channel, uint32_t n)
{
	if (channel->end - channel->begin >= n)
		return channel->buffer + channel->begin;
	if (channel->read_ahead < n)
		channel->read_ahead = CHANNEL_BUFFER_BYTES;
	return NULL;
}

/** They have been dealt with. */
static inline void channel_consume(struct channel *channel, uint32_t n)
{
	channel->begin += n;
}

/**
 * The next @p length bytes are a body and go to @p into (NULL: nowhere).
 *
 * @return true: all of it is there; else it arrives by channel_receive() until body_left is 0
 */
bool channel_body(struct channel *channel, void *into, uint32_t length);

/**
 * The same with a body that goes to @p count places, which have @p length bytes together: 1 to
 * CHANNEL_PLACES. They are the channel's until all of it is there.
 */
bool channel_body_to(struct channel *channel, struct iovec *places, uint32_t count,
		     uint32_t length);

/** What arrives of the body goes nowhere from now on. */
static inline void channel_body_nowhere(struct channel *channel)
{
	channel->body = NULL;
	channel->places = NULL;
}

/** Is there room for @p heads staged bytes and @p pieces more pieces? */
static inline bool channel_room(const struct channel *channel, uint32_t heads, uint32_t pieces)
{
	return channel->staged + heads <= CHANNEL_BUFFER_BYTES &&
	       channel->count + pieces <= CHANNEL_PIECES;
}

/** Anything left to send? */
static inline bool channel_unsent(const struct channel *channel)
{
	return channel->first < channel->count;
}

/**
 * Send @p n bytes at @p data, which must stay until they have gone; there is room for a piece.
 *
 * @param owner  for channel_refers()
 */
static inline void channel_refer(struct channel *channel, const void *data, uint32_t n,
				 const void *owner)
{
	channel->owners[channel->count] = owner;
	channel->pieces[channel->count++] = (struct iovec){(void *)(uintptr_t)data, n};
}

/** @p n bytes to fill and send; there is room, for one piece as well. */
static inline void *channel_stage(struct channel *channel, uint32_t n)
{
	char *at = channel->staging + channel->staged;
	struct iovec *last = channel_unsent(channel) ? &channel->pieces[channel->count - 1] : NULL;

	channel->staged += n;
	if (last && (char *)last->iov_base + last->iov_len == at)
		last->iov_len += n;
	else
		channel_refer(channel, at, n, NULL);
	return at;
}

/** Is anything of @p owner still to be sent? */
bool channel_refers(const struct channel *channel, const void *owner);

/**
 * Send what the socket takes, up to about @p turn_bytes.
 *
 * @return bytes; negative: the connection is over
 */
int64_t channel_send(struct channel *channel, size_t turn_bytes);
#endif
