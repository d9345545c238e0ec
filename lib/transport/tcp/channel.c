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
	stream_expect_bulk(&channel->stream);
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

/* TLS takes the time by itself. */
static bool is_too_early(const struct channel *channel)
{
	return !channel->stream.ssl && channel->body_left > PATIENCE_BYTES &&
	       clock_monotonic_ns(NULL) - channel->drained_ns < PATIENCE_NS;
}

/* It matters where bodies are large, between them as well. */
static inline void note_drained(struct channel *channel, bool drained)
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

/* The next @p n bytes have gone to them. */
static void fill_places(struct channel *channel, uint32_t n)
{
	while (n > 0) {
		struct iovec *place = channel->places;
		uint32_t part = n < place->iov_len ? n : (uint32_t)place->iov_len;

		place->iov_base = (char *)place->iov_base + part;
		place->iov_len -= part;
		n -= part;
		if (place->iov_len > 0)
			return;
		channel->places++;
		channel->place_count--;
	}
}

static void received(struct channel *channel, uint32_t got)
{
	uint32_t body = got < channel->body_left ? got : channel->body_left;

	if (channel->places) {
		fill_places(channel, body);
		channel->body_left -= body;
	} else if (body > 0) {
		channel->body += body;
		channel->body_left -= body;
	}
	channel->end += got - body;
}

/* A body in place, and what follows it. */
static ssize_t receive_body(struct channel *channel, uint32_t ahead)
{
	struct iovec iov[] = {{channel->body, channel->body_left},
			      {channel->buffer + channel->end, ahead}};
	uint32_t wanted = channel->body_left + ahead;
	ssize_t got = stream_read(&channel->stream, iov, 2);

	if (got > 0)
		received(channel, (uint32_t)got);
	note_drained(channel, got < (ssize_t)wanted);
	return got;
}

/* The same. */
static ssize_t receive_places(struct channel *channel, uint32_t ahead)
{
	uint32_t wanted = channel->body_left + ahead, count = channel->place_count;
	struct iovec iov[CHANNEL_PLACES + 1];
	ssize_t got;

	memcpy(iov, channel->places, count * sizeof(iov[0]));
	iov[count] = (struct iovec){channel->buffer + channel->end, ahead};
	got = stream_read(&channel->stream, iov, (int)count + 1);
	if (got > 0)
		received(channel, (uint32_t)got);
	note_drained(channel, got < (ssize_t)wanted);
	return got;
}

ssize_t channel_receive(struct channel *channel)
{
	struct iovec iov;
	uint32_t ahead;
	ssize_t got;

	if (is_too_early(channel))
		return 0;
	make_room(channel);
	if (channel->body_left > 0 && !channel->body && !channel->places)
		return receive_nowhere(channel);
	ahead = CHANNEL_BUFFER_BYTES - channel->end;
	if (ahead > channel->read_ahead)
		ahead = channel->read_ahead;
	if (channel->body_left > 0)
		return channel->places ? receive_places(channel, ahead)
				       : receive_body(channel, ahead);
	iov = (struct iovec){channel->buffer + channel->end, ahead};
	got = stream_read(&channel->stream, &iov, 1);
	if (got > 0)
		channel->end += (uint32_t)got;
	note_drained(channel, got < (ssize_t)ahead);
	return got;
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
	channel->places = NULL;
	channel->body_left = length - taken;
	return channel->body_left == 0;
}

bool channel_body_to(struct channel *channel, struct iovec *places, uint32_t count, uint32_t length)
{
	uint32_t have = channel->end - channel->begin;
	uint32_t left = have < length ? have : length;

	adapt_read_ahead(channel, length);
	channel->body = NULL;
	channel->places = places;
	channel->place_count = count;
	channel->body_left = length - left;
	while (left > 0) {
		struct iovec *place = channel->places;
		uint32_t part = left < place->iov_len ? left : (uint32_t)place->iov_len;

		memcpy(place->iov_base, channel->buffer + channel->begin, part);
		channel->begin += part;
		left -= part;
		fill_places(channel, part);
	}
	return channel->body_left == 0;
}

/* ---- sending ---- */

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
 * One write, of pieces that together have @p bytes, or a little more. While the other end takes it
 * in, one call goes on as long as it has something to send, and nobody else would have his turn.
 */
static ssize_t send_some(struct channel *channel, size_t bytes)
{
	struct iovec *pieces = channel->pieces + channel->first;
	uint32_t count = 0, waiting = channel->count - channel->first;
	size_t sum = 0;
	ssize_t n;

	while (count < waiting && sum < bytes)
		sum += pieces[count++].iov_len;
	n = stream_write(&channel->stream, pieces, (int)count);
	if (__builtin_expect(n == (ssize_t)sum, 1))
		channel->first += count;
	else if (n > 0)
		sent(channel, (size_t)n);
	return n;
}

int64_t channel_send(struct channel *channel, size_t turn_bytes)
{
	size_t total = 0;

	channel->full = channel->stuck = false;
	while (channel_unsent(channel)) {
		ssize_t n;

		if (total >= turn_bytes)
			return (int64_t)total;
		n = send_some(channel, turn_bytes - total);
		channel->full = n == 0;
		channel->stuck = n == 0 && total == 0;
		if (n <= 0)
			return n < 0 ? n : (int64_t)total;
		total += (size_t)n;
	}
	channel->first = channel->count = channel->staged = 0;
	return (int64_t)total;
}
