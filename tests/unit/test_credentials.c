/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a socket, in user namespaces too: each case in a process of its own.
 */
#include "control/credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/tap.h"

#define NOBODY 65534u

static struct trust trust;

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return written;
}

/* A pair of sockets made by the user @p uid: that is who the kernel names at either end. */
static void make_pair(uid_t uid, int pair[2])
{
	uid_t before = geteuid();

	assert_int_equal(seteuid(uid), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(seteuid(before), 0);
}

/* In a user namespace that maps root and @p mapped users after it. @return what the check says */
static int check_in_namespace(uid_t maker, const char *map)
{
	int pair[2], ready[2], go[2], status;
	char path[64], byte = 0;
	pid_t child;

	make_pair(maker, pair);
	assert_int_equal(pipe(ready) | pipe(go), 0);
	child = fork();
	if (child == 0) {
		struct ucred peer;
		int rc = unshare(CLONE_NEWUSER) < 0 ? -ENOTSUP : 0;

		close(go[1]); /* else its own end would keep it waiting */
		if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1)
			_exit(99);
		if (rc == 0)
			rc = credentials_check(pair[0], &trust, &peer);
		if (rc == -EACCES && !strstr(slu_last_error(), "user namespace"))
			rc = -EPERM;
		_exit(-rc);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", (int)child);
	if (!write_file(path, map)) {
		close(go[1]);
		waitpid(child, NULL, 0);
		skip_because("user namespaces cannot be made here");
	}
	assert_int_equal(write(go[1], &byte, 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	for (int i = 0; i < 2; i++) {
		close(pair[i]);
		close(ready[i]);
		close(go[i]);
	}
	if (WEXITSTATUS(status) == ENOTSUP)
		skip_because("user namespaces cannot be made here");
	return -WEXITSTATUS(status);
}

static void need_root(void)
{
	if (geteuid() != 0)
		skip_because("only root can make namespaces that map other users");
}

/* Goal: allowing nobody lets nobody in whom a user namespace does not map, whoever that is; users
 * whom it maps are who they are. */
static void test_unmapped(void **state)
{
	(void)state;
	need_root();
	trust = (struct trust){.count = 2, .uids = {NOBODY, 1}};
	assert_int_equal(check_in_namespace(2, "0 0 1"), -EACCES);
	assert_int_equal(check_in_namespace(NOBODY, "0 0 1"), -EACCES);
	assert_int_equal(check_in_namespace(0, "0 0 1"), 0);
	assert_int_equal(check_in_namespace(7, "0 0 1\n1 7 1"), 0);
}

/* Goal: a number that a namespace maps may stand for others all the same. */
static void test_mapped_and_ambiguous(void **state)
{
	(void)state;
	need_root();
	trust = (struct trust){.count = 1, .uids = {NOBODY}};
	assert_int_equal(check_in_namespace(NOBODY, "0 0 1\n65534 65534 1"), -EACCES);
}

/* Goal: where we are not mapped ourselves, no other such user is taken for us. */
static void test_not_mapped_ourselves(void **state)
{
	(void)state;
	need_root();
	trust = (struct trust){0};
	assert_int_equal(check_in_namespace(2, "0 1 1"), -EACCES);
}

/* Goal: in the first namespace, and in one that maps everybody, nobody is a user like others. */
static void test_everybody_mapped(void **state)
{
	struct ucred peer;
	int pair[2];

	(void)state;
	need_root();
	if (credentials_ambiguous(NOBODY))
		skip_because("this is a user namespace already");
	trust = (struct trust){.count = 1, .uids = {NOBODY}};
	make_pair(NOBODY, pair);
	assert_int_equal(credentials_check(pair[0], &trust, &peer), 0);
	assert_int_equal(peer.uid, NOBODY);
	trust.count = 0;
	assert_int_equal(credentials_check(pair[0], &trust, &peer), -EACCES);
	assert_null(strstr(slu_last_error(), "user namespace"));
	close(pair[0]);
	close(pair[1]);
	trust.count = 1;
	assert_int_equal(check_in_namespace(NOBODY, "0 0 4294967295"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unmapped),
		cmocka_unit_test(test_mapped_and_ambiguous),
		cmocka_unit_test(test_not_mapped_ourselves),
		cmocka_unit_test(test_everybody_mapped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
