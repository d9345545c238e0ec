/* SPDX-License-Identifier: Apache-2.0 */
/* Stands for the set-up of shm: what a target publishes can be imported, and nothing else. */
#include "transport/shm/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/tap.h"

#define BYTES 65536u

static struct export exported;
static struct client_inbox inbox;
static uint32_t areas;
static struct transport_peer peer;
static struct wake_set *wake;
static json_t *grant;
static int fds[TRANSPORT_FDS_MAX];
static uint32_t close_mask;

static void publish_as(uint32_t rights, uint32_t session)
{
	grant = json_object();
	close_mask = 0;
	assert_int_equal(shm_transport.target->publish(&exported, rights, &inbox, session, grant,
						       fds, &close_mask),
			 3);
}

/* In an area of its own. */
static void publish(uint32_t rights)
{
	int wake_fd = wake_set_add(wake, ++areas);

	assert_int_equal(client_inbox_init(&inbox, areas, rights, wake_fd, NULL), 0);
	publish_as(rights, 9);
}

static void forget_grant(void)
{
	for (uint32_t i = 0; i < TRANSPORT_FDS_MAX; i++)
		if (close_mask & 1u << i)
			close(fds[i]);
	json_decref(grant);
}

static void withdraw(void)
{
	wake_set_remove(wake, inbox.wake_fd);
	client_inbox_fini(&inbox);
	forget_grant();
}

static int import(uint32_t rights, uint32_t fd_count, struct shm_view **view)
{
	void *out = NULL;
	int rc = shm_transport.client->import(&peer, grant, BYTES, rights, fds, fd_count, &out);

	*view = out;
	return rc;
}

static int setup(void **state)
{
	struct slu_region_options options;

	(void)state;
	barrier_init();
	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	exported.length = BYTES;
	exported.rights = SLU_RIGHT_READ | SLU_RIGHT_WRITE;
	if (shm_transport.client->meet(&peer.private[SLU_TRANSPORT_SHM]) < 0)
		return -1;
	if (wake_set_create(&wake) < 0 || region_create(BYTES, &options, &exported.region) < 0)
		return -1;
	exported.addr = exported.region->addr;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	region_destroy(exported.region);
	wake_set_destroy(wake);
	shm_transport.client->leave(peer.private[SLU_TRANSPORT_SHM]);
	return 0;
}

/* As if all pages of a mapping were taken away, and none were left. */
static void take_pages(void *addr, uint64_t length, int protection)
{
	int fd = memfd_create("empty", MFD_CLOEXEC);

	assert_ptr_equal(mmap(addr, length, protection, MAP_SHARED | MAP_FIXED, fd, 0), addr);
	close(fd);
}

static void post_one(struct path *path, enum slu_opcode opcode, struct slu_region *region,
		     int status, enum slu_scope scope)
{
	struct slu_completion done = {0};
	struct slu_op op = {.user_data = 5,
			    .remote = path->remote,
			    .region = region,
			    .length = 4096,
			    .opcode = (uint8_t)opcode};

	assert_int_equal(path->fast->copy(path, &op, 1, &done, &path->stats), 1);
	assert_int_equal(done.user_data, 5);
	assert_int_equal(done.status, status);
	assert_int_equal(done.scope, scope);
}

/* Goal: of memory whose pages are taken away, a region's or the segment's, no byte is taken for
 * good; the remote of a segment is dead. (First: cmocka has a handler of its own for each test, the
 * library one for all.) */
static void test_lost_memory(void **state)
{
	static struct slu_remote remote;
	struct slu_region_info info = {.size = sizeof(info)};
	struct slu_region_options options;
	struct path_env env = {.tracker = copy_tracker_create(1 << 20, 0), .epoll_fd = -1};
	struct slu_region *shared, *local;
	struct shm_view *view;
	struct path *path;

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	assert_int_equal(region_create(4096, &options, &shared), 0);
	assert_int_equal(region_create(4096, &options, &local), 0);
	publish(SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &view), 0);
	remote.view = view;
	assert_int_equal(shm_transport.client->connect(&remote, &env, &path), 0);
	assert_int_equal(arena_share(&shared->arena, 0, 4096, ARENA_WRITTEN),
			 ARENA_WRITTEN | ARENA_WHOLE);
	post_one(path, SLU_WRITE, shared, 0, SLU_SCOPE_NONE);
	assert_int_equal(slu_region_get_info(shared, &info), 0);
	assert_false(info.lost);
	take_pages(shared->addr, 4096, PROT_READ | PROT_WRITE);
	post_one(path, SLU_WRITE, shared, -EFAULT, SLU_SCOPE_OPERATION);
	post_one(path, SLU_WRITE, shared, -EFAULT, SLU_SCOPE_OPERATION);
	assert_int_equal(slu_region_get_info(shared, &info), 0);
	assert_true(info.lost);
	post_one(path, SLU_READ, local, 0, SLU_SCOPE_NONE);
	assert_int_equal(atomic_load(&remote.state), 0);
	take_pages(view->mapping->base, BYTES, PROT_READ | PROT_WRITE);
	assert_false(shm_transport.client->is_lost(view));
	post_one(path, SLU_READ, local, -EFAULT, SLU_SCOPE_SESSION);
	assert_true(shm_transport.client->is_lost(view));
	assert_int_equal(atomic_load(&remote.state), -EFAULT);
	post_one(path, SLU_READ, local, -EFAULT, SLU_SCOPE_SESSION);
	shm_transport.client->disconnect(path);
	shm_transport.client->release(view);
	withdraw();
	copy_tracker_destroy(env.tracker);
	region_destroy(local);
	region_destroy(shared);
}

/* Goal: client and target share the segment, the notifications and the calls. */
static void test_shares_all(void **state)
{
	struct mailbox_request request;
	struct slu_notification note;
	struct mailbox_sender calls;
	struct notify_sender notify;
	struct shm_view *view;

	(void)state;
	publish(SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &view), 0);
	strcpy(view->mapping->base, "through the segment");
	assert_string_equal(exported.region->addr, "through the segment");
	notify_attach(&notify, &view->mapping->waker.area->notifications, 0);
	notify_send(&notify, view->session, 77);
	assert_int_equal(notify_receive(&inbox.notifications, &note, 1), 1);
	assert_int_equal(note.tag, 77);
	assert_int_equal(note.client, 9); /* as it says */
	mailbox_attach(&calls, &view->mapping->waker.area->calls, 0);
	assert_int_equal(mailbox_send(&calls, view->session, 0, "ask", 3, 0), 0);
	assert_true(mailbox_receive(&inbox.calls, &request));
	assert_memory_equal(request.data, "ask", 3);
	assert_int_equal(request.session, 9);
	shm_transport.client->release(view);
	withdraw();
}

/* Goal: of a part its pages are mapped, and nothing else; a target that promises pages that are not
 * there is caught. */
static void test_maps_a_part(void **state)
{
	const struct export whole = exported;
	struct slu_region_options options;
	struct slu_region *region;
	struct shm_view *view;

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	assert_int_equal(region_create(4 * BYTES, &options, &region), 0);
	exported = (struct export){.region = region,
				   .addr = region->addr + BYTES,
				   .length = BYTES,
				   .rights = SLU_RIGHT_READ | SLU_RIGHT_WRITE};
	publish(SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &view), 0);
	assert_int_equal(view->mapping->mapped_bytes, BYTES);
	strcpy(view->mapping->base, "through the part");
	assert_string_equal(region->addr + BYTES, "through the part");
	shm_transport.client->release(view);
	json_object_set_new(grant, "offset", json_integer(4 * BYTES));
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &view), -EPROTO);
	json_object_set_new(grant, "offset", json_integer(-1));
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &view), -EPROTO);
	json_object_set_new(grant, "offset", json_integer(INT64_MAX - BYTES + 1));
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &view), -EPROTO);
	withdraw();
	region_destroy(region);
	exported = whole;
}

/* Goal: sessions with one area have one mapping, and a poller's paths to them one lane, of which
 * each says whose it is; it goes with the last. */
static void test_shares_mapping(void **state)
{
	static struct slu_remote remotes[2];
	struct path_env env = {.tracker = copy_tracker_create(1 << 20, 0), .epoll_fd = -1};
	struct slu_notification notes[3];
	struct shm_view *views[2];
	struct path *paths[2];

	(void)state;
	publish(SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	for (uint32_t i = 0; i < 2; i++) {
		if (i > 0)
			publish_as(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 10);
		assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &views[i]), 0);
		remotes[i].view = views[i];
		assert_int_equal(shm_transport.client->connect(&remotes[i], &env, &paths[i]), 0);
		if (i == 0)
			forget_grant();
	}
	assert_ptr_equal(views[0]->mapping, views[1]->mapping);
	post_one(paths[0], SLU_WRITE_NOTIFY, exported.region, 0, SLU_SCOPE_NONE);
	post_one(paths[1], SLU_WRITE_NOTIFY, exported.region, 0, SLU_SCOPE_NONE);
	shm_transport.client->disconnect(paths[0]);
	shm_transport.client->release(views[0]);
	post_one(paths[1], SLU_WRITE_NOTIFY, exported.region, 0, SLU_SCOPE_NONE);
	assert_int_equal(notify_receive(&inbox.notifications, notes, 3), 3);
	assert_int_equal(notes[0].client, 9);
	assert_int_equal(notes[1].client, 10);
	assert_int_equal(notes[2].client, 10);
	shm_transport.client->disconnect(paths[1]);
	shm_transport.client->release(views[1]);
	withdraw();
	copy_tracker_destroy(env.tracker);
}

/* Goal: a target that calls two things by one name is caught. */
static void test_refuses_confused_areas(void **state)
{
	struct shm_view *view, *other;

	(void)state;
	publish(SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &view), 0);
	assert_int_equal(import(SLU_RIGHT_READ, 3, &other), -EPROTO);
	json_object_set_new(grant, "mapped_bytes", json_integer(2 * BYTES));
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &other), -EPROTO);
	json_object_set_new(grant, "number", json_integer(-1));
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &other), -EPROTO);
	json_object_del(grant, "area");
	assert_int_equal(import(SLU_RIGHT_READ | SLU_RIGHT_WRITE, 3, &other), -EPROTO);
	shm_transport.client->release(view);
	withdraw();
}

static bool woken(int timeout_ms)
{
	struct pollfd ready = {.fd = wake_set_fd(wake), .events = POLLIN};

	return poll(&ready, 1, timeout_ms) == 1;
}

/* Goal: a client wakes the owner if it is armed, and once. */
static void test_wakes_the_owner(void **state)
{
	uint32_t numbers[WAKE_TAKEN];
	struct shm_view *view;

	(void)state;
	publish(SLU_RIGHT_READ);
	assert_int_equal(import(SLU_RIGHT_READ, 3, &view), 0);
	client_stored(&view->mapping->waker);
	assert_false(woken(0));
	atomic_store(&inbox.area->armed, 1);
	client_stored(&view->mapping->waker);
	client_stored(&view->mapping->waker);
	assert_int_equal(atomic_load(&inbox.area->armed), 0);
	assert_true(woken(10000));
	assert_int_equal(wake_set_take(wake, numbers), 1);
	assert_int_equal(numbers[0], areas);
	assert_false(woken(0));
	shm_transport.client->release(view);
	withdraw();
}

/* Goal: without the right to write the segment's descriptor cannot be mapped writable. */
static void test_read_only(void **state)
{
	(void)state;
	publish(SLU_RIGHT_READ);
	assert_ptr_equal(mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0),
			 MAP_FAILED);
	withdraw();
}

/* Goal: what a client without the right to write leaves as notifications is nothing to the owner.
 */
static void test_read_only_cannot_notify(void **state)
{
	struct slu_notification note;
	struct notify_sender forged;
	struct shm_view *view;

	(void)state;
	publish(SLU_RIGHT_READ);
	assert_int_equal(import(SLU_RIGHT_READ, 3, &view), 0);
	notify_attach(&forged, &view->mapping->waker.area->notifications, 0);
	notify_send(&forged, 9, 666);
	assert_int_equal(notify_receive(&inbox.notifications, &note, 1), 0);
	assert_false(notify_pending(&inbox.notifications));
	shm_transport.client->release(view);
	withdraw();
}

/* Goal: a client does without fences only if the target can reach it and it has registered. */
static void test_decides_on_fences(void **state)
{
	const bool reaches_us = barrier_reaches_us, reaches_others = barrier_reaches_others;
	struct shm_view *view;

	(void)state;
	for (int i = 0; i < 4; i++) {
		barrier_reaches_others = i & 1;
		publish(SLU_RIGHT_READ);
		barrier_reaches_us = i & 2;
		assert_int_equal(import(SLU_RIGHT_READ, 3, &view), 0);
		assert_int_equal(view->mapping->waker.fence, i != 3);
		shm_transport.client->release(view);
		withdraw();
	}
	publish(SLU_RIGHT_READ);
	json_object_del(grant, "barrier");
	assert_int_equal(import(SLU_RIGHT_READ, 3, &view), 0);
	assert_true(view->mapping->waker.fence);
	shm_transport.client->release(view);
	withdraw();
	barrier_reaches_us = reaches_us;
	barrier_reaches_others = reaches_others;
}

static int memory(uint64_t bytes, unsigned seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* Take @p fd for the one at @p index: that must not go well. @p fd is closed. */
static void refused(uint32_t index, int fd, const char *why)
{
	struct shm_view *view;
	int before;

	publish(SLU_RIGHT_READ);
	before = fds[index];
	fds[index] = fd;
	assert_int_equal(import(SLU_RIGHT_READ, 3, &view), -EPROTO);
	assert_null(view);
	assert_non_null(strstr(slu_last_error(), why));
	fds[index] = before;
	close(fd);
	withdraw();
}

/* Goal: descriptors that could hurt are refused. */
static void test_refuses_bad_descriptors(void **state)
{
	struct shm_view *view;
	int ends[2];

	(void)state;
	refused(0, memory(BYTES, 0), "sealed");
	refused(0, memory(BYTES / 2, F_SEAL_SHRINK), "less memory");
	refused(1, memory(CLIENT_AREA_BYTES, 0), "sealed");
	refused(1, memory(CLIENT_AREA_BYTES - 1, F_SEAL_SHRINK), "less memory");
	refused(2, memory(8, 0), "timer");
	refused(2, eventfd(0, EFD_CLOEXEC), "timer"); /* its flags would be the target's */
	assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
	refused(2, ends[1], "timer");
	close(ends[0]);
	publish(SLU_RIGHT_READ);
	assert_int_equal(import(SLU_RIGHT_READ, 2, &view), -EPROTO);
	assert_int_equal(import(SLU_RIGHT_READ, 4, &view), -EPROTO);
	withdraw();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost_memory),
		cmocka_unit_test(test_shares_all),
		cmocka_unit_test(test_maps_a_part),
		cmocka_unit_test(test_shares_mapping),
		cmocka_unit_test(test_refuses_confused_areas),
		cmocka_unit_test(test_wakes_the_owner),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_read_only_cannot_notify),
		cmocka_unit_test(test_decides_on_fences),
		cmocka_unit_test(test_refuses_bad_descriptors),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
