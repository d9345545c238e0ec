/* SPDX-License-Identifier: Apache-2.0 */
/* A poller's buffers: what is lent, what is shared, and what devices know of them. */
#include "transport/buffers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "env/eal.h"
#include "fake_verbs.h"
#include "tests/tap.h"
#include "transport/verbs/verbs_host.h"

static struct transport_env env;
static struct verbs_host *host;
static struct buffers *buffers;

static int open_buffers(void **state)
{
	const struct slu_rdma_options options = {
		.gid_index = -1, .timeout = -1, .retries = -1, .traffic_class = -1};

	(void)state;
	fake_verbs_reset();
	if (eal_start() < 0 || verbs_host_open(&options, &host) < 0)
		return -1;
	env.hosts[SLU_TRANSPORT_VERBS] = host;
	buffers = buffers_create(&env);
	return buffers ? 0 : -1;
}

static int close_buffers(void **state)
{
	(void)state;
	buffers_put(buffers);
	assert_int_equal(fake_verbs.mrs, 0);
	verbs_host_close(host);
	return 0;
}

static struct buffer *lend(uint32_t n, uint32_t shared)
{
	struct buffer *first = NULL;

	if (buffers_lend(buffers, n, shared, &first) < 0)
		fail_msg("%s", slu_last_error());
	return first;
}

static uint32_t length(const struct buffer *first)
{
	uint32_t n = 0;

	for (; first; first = first->next)
		n++;
	return n;
}

/* Goal: there are as many as are asked for, made in pieces, and what was returned is lent again. */
static void test_lends(void **state)
{
	struct buffer *some, *more;
	uint32_t made;

	(void)state;
	assert_int_equal(buffers->made, 0);
	some = lend(10, 0);
	made = buffers->made;
	assert_int_equal(length(some), 10);
	assert_int_equal(buffers_used(buffers), 10);
	more = lend(1000, 0);
	assert_int_equal(length(more), 1000);
	assert_true(buffers->made >= 1010 && buffers->made > made);
	assert_int_equal(buffers_used(buffers), 1010);
	for (struct buffer *buffer = more; buffer; buffer = buffer->next)
		memset(buffer->bytes, 0xff, BUFFER_BYTES);
	made = buffers->made;
	buffers_return(buffers, more, 1000, 0);
	assert_int_equal(buffers_used(buffers), 10);
	more = lend(1000, 0);
	assert_int_equal(buffers->made, made);
	assert_int_equal(buffers->most, 1010);
	buffers_return(buffers, more, 1000, 0);
	buffers_return(buffers, some, 10, 0);
	assert_int_equal(buffers_used(buffers), 0);
}

/* Goal: whoever wants more than there may be gets nothing, and changes nothing. */
static void test_is_bounded(void **state)
{
	struct buffer *some = lend(10, 0), *none = NULL;
	uint32_t made = buffers->made;

	(void)state;
	assert_int_equal(buffers_lend(buffers, BUFFERS_MAX + 1, 0, &none), -ENOSPC);
	assert_null(none);
	assert_int_equal(buffers->made, made);
	assert_int_equal(buffers_used(buffers), 10);
	lend(0, BUFFERS_SHARED);
	lend(0, BUFFERS_SHARED);
	assert_int_equal(buffers->shared, BUFFERS_SHARED);
	buffers_return(buffers, some, 10, 0);
}

/* Goal: all that are promised are there to be taken, each once, and again when they are back. */
static void test_shares_all(void **state)
{
	struct buffer *taken[BUFFERS_SHARED];

	(void)state;
	lend(0, BUFFERS_SHARED);
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < BUFFERS_SHARED; i++) {
			assert_true(buffers_may(buffers, 0));
			buffers_promise(buffers);
			taken[i] = buffers_take(buffers);
			assert_non_null(taken[i]);
			memset(taken[i]->bytes, (int)i, BUFFER_BYTES);
		}
		assert_false(buffers_may(buffers, 0));
		assert_int_equal(buffers_used(buffers), BUFFERS_SHARED);
		for (uint32_t i = 0; i < BUFFERS_SHARED; i++) {
			assert_int_equal((uint8_t)taken[i]->bytes[BUFFER_BYTES - 1], i);
			buffers_give(buffers, taken[i]);
			buffers_release(buffers, 1);
		}
		assert_int_equal(buffers_used(buffers), 0);
	}
	assert_int_equal(buffers->most, BUFFERS_SHARED);
}

/* Goal: whoever hoards leaves half to the others, of which the next leaves half. */
static void test_leaves_half(void **state)
{
	uint32_t left = BUFFERS_SHARED;

	(void)state;
	lend(0, BUFFERS_SHARED);
	while (left > 8) {
		uint32_t has = 0;

		for (; buffers_may(buffers, has); has++)
			buffers_promise(buffers);
		assert_in_range(has, left / 2, left / 2 + 1);
		left -= has;
		assert_true(buffers_may(buffers, 0));
	}
	assert_int_equal(buffers_used(buffers), BUFFERS_SHARED - left);
}

/* Goal: a peer has one of its own whatever others have, and keeps one. */
static void test_own(void **state)
{
	struct sending sending = {.own = lend(1, 1)};
	struct buffer *one = sending_take(&sending, buffers), *other;

	(void)state;
	assert_non_null(one);
	buffers_promise(buffers);
	assert_false(buffers_may(buffers, 0));
	other = sending_take(&sending, buffers);
	assert_non_null(other);
	assert_ptr_not_equal(one, other);
	sending_give(&sending, buffers, one);
	buffers_release(buffers, 1);
	assert_null(sending.own);
	sending_give(&sending, buffers, other);
	assert_ptr_equal(sending.own, other);
	other->next = NULL;
	buffers_return(buffers, other, 1, 0);
	assert_int_equal(buffers_used(buffers), 0);
}

/* Goal: a poller's peer is destroyed by another thread with what it has taken: none is lost. */
static void test_returned_with_it(void **state)
{
	struct buffer *own = lend(1, 4), *taken;

	(void)state;
	buffers_promise(buffers);
	taken = buffers_take(buffers);
	assert_int_equal(buffers_used(buffers), 2);
	taken->next = own;
	own->next = NULL;
	buffers_return(buffers, taken, 1, 1);
	assert_int_equal(buffers_used(buffers), 0);
	for (uint32_t i = 0; i < 4; i++) {
		assert_true(buffers_may(buffers, 0));
		buffers_promise(buffers);
		assert_non_null(buffers_take(buffers));
	}
	assert_false(buffers_may(buffers, 0));
}

/* Goal: a device knows them from when it is first used on, and those that are made later. */
static void test_registered(void **state)
{
	const struct verbs_device *device = &host->devices->devices[0];
	struct buffer *before = lend(1, 0), *after;

	(void)state;
	assert_int_equal(fake_verbs.mrs, 0);
	assert_int_equal(verbs_memory_use(&host->buffers, device), 0);
	assert_int_equal(fake_verbs.mrs, 1);
	assert_int_equal(fake_verbs.mr_access,
			 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING);
	after = lend(100, 0);
	assert_true(fake_verbs.mrs > 1);
	(void)verbs_buffer_key(before, device->index);
	(void)verbs_buffer_key(after, device->index);
}

/* Goal: where a device has no registration left there are no more, with its reason; later there
 * are. */
static void test_not_registered(void **state)
{
	struct buffer *none = NULL;

	(void)state;
	assert_int_equal(verbs_memory_use(&host->buffers, &host->devices->devices[0]), 0);
	fake_verbs.mr_error = ENOMEM;
	fake_verbs.mr_room = 0;
	assert_int_equal(buffers_lend(buffers, 1, 1, &none), -ENOMEM);
	assert_non_null(strstr(slu_last_error(), "cannot register"));
	assert_null(none);
	assert_int_equal(buffers->made, 0);
	assert_int_equal(buffers_used(buffers), 0);
	assert_false(buffers_may(buffers, 0));
	fake_verbs.mr_room = 10;
	assert_int_equal(length(lend(1, 1)), 1);
	assert_true(buffers_may(buffers, 0));
}

static void *lend_and_return(void *arg)
{
	for (int round = 0; round < 300; round++) {
		struct buffer *first = lend(70, 0);

		for (struct buffer *buffer = first; buffer; buffer = buffer->next)
			memset(buffer->bytes, 1, 64);
		buffers_return(buffers, first, 70, 0);
	}
	return arg;
}

/* Goal: while others borrow, all that the poller was promised is there. */
static void test_beside_lenders(void **state)
{
	struct buffer *taken[BUFFERS_SHARED];
	pthread_t lender;

	(void)state;
	lend(0, BUFFERS_SHARED);
	assert_int_equal(pthread_create(&lender, NULL, lend_and_return, NULL), 0);
	for (int round = 0; round < 300; round++) {
		for (uint32_t i = 0; i < BUFFERS_SHARED; i++) {
			buffers_promise(buffers);
			while (!(taken[i] = buffers_take(buffers)))
				; /* the other is giving some back */
			memset(taken[i]->bytes, 2, 64);
		}
		for (uint32_t i = 0; i < BUFFERS_SHARED; i++) {
			assert_int_equal(taken[i]->bytes[63], 2);
			buffers_give(buffers, taken[i]);
			buffers_release(buffers, 1);
		}
	}
	pthread_join(lender, NULL);
	assert_int_equal(buffers_used(buffers), 0);
}

int main(void)
{
#define WITH_BUFFERS(test) cmocka_unit_test_setup_teardown(test, open_buffers, close_buffers)
	const struct CMUnitTest tests[] = {
		WITH_BUFFERS(test_lends),
		WITH_BUFFERS(test_is_bounded),
		WITH_BUFFERS(test_shares_all),
		WITH_BUFFERS(test_leaves_half),
		WITH_BUFFERS(test_own),
		WITH_BUFFERS(test_returned_with_it),
		WITH_BUFFERS(test_registered),
		WITH_BUFFERS(test_not_registered),
		WITH_BUFFERS(test_beside_lenders),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
