/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/tcp/channel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* What is read beyond a large body: the next head, and a few small frames. */
#define READ_AHEAD_MIN 512u

/*
 * A socket that was just emptied is let alone for so long while more than so much is to come: each
 * look takes the lock from those who fill it, and finds little.
 */
#define PATIENCE_NS    (5 * NS_PER_US)
#define PATIENCE_BYTES 65536u

int channel_open(struct channel *channel, const struct stream *stream)
{
	*channel = (struct channel){.stream = {.fd = -1}, .read_ahead = CHANNEL_BUFFER_BYTES};
	channel->buffer = malloc(CHANNEL_BUFFER_BYTES);
	channel->staging = malloc(CHANNEL_BUFFER_BYTES);
	channel->pieces = calloc(CHANNEL_PIECES, sizeof(channel->pieces[0]));
	channel->owners = calloc(CHANNEL_PIECES, sizeof(channel->owners[0]));
	if (!channel->buffer || !channel->staging || !channel->pieces || !channel->owners) {
		channel_close(channel);
		return fail(-ENOMEM, "out of memory");
	}
	channel->stream = *stream;
	return 0;
}

void channel_close(struct channel *channel)
{
	if (channel->stream.fd >= 0)
		stream_close(&channel->stream);
	channel->stream.fd = -1;
	free(channel->buffer);
	free(channel->staging);
	free(channel->pieces);
	free(channel->owners);
	channel->buffer = channel->staging = NULL;
	channel->pieces = NULL;
	channel->owners = NULL;
}

/* ---- receiving ---- */

/* Room at the end of the buffer: what is left in it, part of a head, moves to the front. */
static void make_room(struct channel *channel)
{
	if (channel->begin == channel->end) {
		channel->begin = channel->end = 0;
	} else if (channel->end + READ_AHEAD_MIN > CHANNEL_BUFFER_BYTES) {
		memmove(channel->buffer, channel->buffer + channel->begin,
			channel->end - channel->begin);
		channel->end -= channel->begin;
		channel->begin = 0;
	}
}

static bool is_too_early(const struct channel *channel)
{
	return channel->body_left > PATIENCE_BYTES &&
	       clock_monotonic_ns(NULL) - channel->drained_ns < PATIENCE_NS;
}

/* It matters where bodies are large, between them as well. */
static void note_drained(struct channel *channel, bool drained)
{
	channel->drained = drained;
	if (drained && (channel->body_left > 0 || channel->read_ahead == READ_AHEAD_MIN))
		channel->drained_ns = clock_monotonic_ns(NULL);
}

/* A body that goes nowhere is read over the free part of the buffer, again and again. */
static ssize_t receive_nowhere(struct channel *channel)
{
	uint32_t free_bytes = CHANNEL_BUFFER_BYTES - channel->end;
	uint32_t wanted = channel->body_left < free_bytes ? channel->body_left : free_bytes;
	struct iovec iov = {channel->buffer + channel->end, wanted};
	ssize_t got = stream_read(&channel->stream, &iov, 1);

	if (got > 0)
		channel->body_left -= (uint32_t)got;
	note_drained(channel, got < (ssize_t)wanted);
	return got;
}

static void received(struct channel *channel, uint32_t got)
{
	uint32_t body = got < channel->body_left ? got : channel->body_left;

	if (body > 0) {
		channel->body += body;
		channel->body_left -= body;
	}
	channel->end += got - body;
}

ssize_t channel_receive(struct channel *channel)
{
	struct iovec iov[2];
	uint32_t ahead, wanted = channel->body_left;
	int count = 0;
	ssize_t got;

	if (is_too_early(channel))
		return 0;
	make_room(channel);
	if (channel->body_left > 0 && !channel->body)
		return receive_nowhere(channel);
	if (channel->body_left > 0)
		iov[count++] = (struct iovec){channel->body, channel->body_left};
	ahead = CHANNEL_BUFFER_BYTES - channel->end;
	if (ahead > channel->read_ahead)
		ahead = channel->read_ahead;
	iov[count++] = (struct iovec){channel->buffer + channel->end, ahead};
	wanted += ahead;
	got = stream_read(&channel->stream, iov, count);
	if (got > 0)
		received(channel, (uint32_t)got);
	note_drained(channel, got < (ssize_t)wanted);
	return got;
}

const void *channel_peek(struct channel *channel, uint32_t n)
{
	if (channel->end - channel->begin >= n)
		return channel->buffer + channel->begin;
	if (channel->read_ahead < n)
		channel->read_ahead = CHANNEL_BUFFER_BYTES;
	return NULL;
}

/* Large bodies are to be read in place, so little is read ahead of them; small ones in bulk. */
static void adapt_read_ahead(struct channel *channel, uint32_t length)
{
	if (length > CHANNEL_STAGE_BYTES)
		channel->read_ahead = READ_AHEAD_MIN;
	else if (channel->read_ahead < CHANNEL_BUFFER_BYTES)
		channel->read_ahead *= 2;
}

bool channel_body(struct channel *channel, void *into, uint32_t length)
{
	uint32_t have = channel->end - channel->begin;
	uint32_t taken = have < length ? have : length;

	adapt_read_ahead(channel, length);
	if (into)
		memcpy(into, channel->buffer + channel->begin, taken);
	channel->begin += taken;
	channel->body = into ? (char *)into + taken : NULL;
	channel->body_left = length - taken;
	return channel->body_left == 0;
}

/* ---- sending ---- */

void *channel_stage(struct channel *channel, uint32_t n)
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

void channel_refer(struct channel *channel, const void *data, uint32_t n, const void *owner)
{
	channel->owners[channel->count] = owner;
	channel->pieces[channel->count++] = (struct iovec){(void *)(uintptr_t)data, n};
}

bool channel_refers(const struct channel *channel, const void *owner)
{
	for (uint32_t i = channel->first; i < channel->count; i++)
		if (channel->owners[i] == owner)
			return true;
	return false;
}

static void sent(struct channel *channel, size_t n)
{
	while (n > 0) {
		struct iovec *piece = &channel->pieces[channel->first];
		size_t part = n < piece->iov_len ? n : piece->iov_len;

		piece->iov_base = (char *)piece->iov_base + part;
		piece->iov_len -= part;
		n -= part;
		if (piece->iov_len == 0)
			channel->first++;
	}
}

/*
 * How many pieces together have @p bytes, or a little more. While the other end takes it in, one
 * call goes on as long as it has something to send, and nobody else would have his turn.
 */
static int pieces_of(const struct channel *channel, size_t bytes)
{
	uint32_t end = channel->first;
	size_t sum = 0;

	while (end < channel->count && sum < bytes)
		sum += channel->pieces[end++].iov_len;
	return (int)(end - channel->first);
}

int64_t channel_send(struct channel *channel, size_t turn_bytes)
{
	size_t total = 0;

	channel->full = channel->stuck = false;
	while (channel_unsent(channel)) {
		ssize_t n;

		if (total >= turn_bytes)
			return (int64_t)total;
		n = stream_write(&channel->stream, channel->pieces + channel->first,
				 pieces_of(channel, turn_bytes - total));
		channel->full = n == 0;
		channel->stuck = n == 0 && total == 0;
		if (n <= 0)
			return n < 0 ? n : (int64_t)total;
		sent(channel, (size_t)n);
		total += (size_t)n;
	}
	channel->first = channel->count = channel->staged = 0;
	return (int64_t)total;
}
