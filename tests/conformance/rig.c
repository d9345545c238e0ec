/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include <assert.h>
#include <errno.h>
#include <linux/memfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <infiniband/verbs.h>

#include "pattern.h"
#include "target.h"
#include "tests/calls.h"

/* A target that registers its memory on a busy machine answers late; only a hang takes longer. */
#define OPEN_US UINT64_C(300000000)

/* A rig that cannot be set up is a failed test run, not a failed assertion of one test. */
#define must(call)                                                                                 \
	do {                                                                                       \
		int must_rc = (call);                                                              \
		if (must_rc < 0) {                                                                 \
			printf("Bail out! %s: %s (%s)\n", #call, slu_strerror(must_rc),            \
			       slu_last_error());                                                  \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

void rig_name(const struct rig *rig, const char *suffix, char name[SLU_NAME_MAX + 1])
{
	snprintf(name, SLU_NAME_MAX + 1, "%s-%s", rig->prefix, suffix);
}

static int export_one(struct slu_engine *engine, const char *prefix, const char *suffix,
		      uint64_t bytes, uint32_t rights, struct slu_region **region,
		      struct slu_segment **segment)
{
	struct slu_region_options options;
	char name[SLU_NAME_MAX + 1];
	int rc;

	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY; /* the suite must run where there are no hugepages */
	rc = slu_region_alloc(engine, bytes, &options, region);
	if (rc < 0)
		return rc;
	if (rights == SLU_RIGHT_READ)
		pattern_fill(slu_region_addr(*region), 0, bytes, 9);
	snprintf(name, sizeof(name), "%s-%s", prefix, suffix);
	return slu_segment_export(engine, name, *region, rights, NULL, segment);
}

const struct rig_part rig_parts[RIG_PARTS] = {
	{"part", 1 << 20, 65536, SLU_RIGHT_READ | SLU_RIGHT_WRITE, false, NULL},
	{"part-ro", (1 << 20) + 32768, 65536, SLU_RIGHT_READ, false, NULL},
	{"odd", (2 << 20) + 100, 5000, SLU_RIGHT_READ | SLU_RIGHT_WRITE, false, "page"},
	{"registered", (3 << 20) + 8, 70000, SLU_RIGHT_READ | SLU_RIGHT_WRITE, true, "registered"},
};

static int export_part(struct slu_engine *engine, const char *prefix, const struct rig_part *part,
		       struct slu_region *big, struct slu_region **region,
		       struct slu_segment **segment)
{
	struct slu_segment_options options;
	char name[SLU_NAME_MAX + 1];
	int rc = 0;

	snprintf(name, sizeof(name), "%s-%s", prefix, part->suffix);
	slu_segment_options_init(&options, sizeof(options));
	options.offset_bytes = part->offset;
	options.length_bytes = part->length;
	if (part->registered) {
		rc = slu_region_register(engine, (char *)slu_region_addr(big) + part->offset,
					 part->length, region);
		return rc < 0 ? rc
			      : slu_segment_export(engine, name, *region, part->rights, NULL,
						   segment);
	}
	return slu_segment_export(engine, name, big, part->rights, &options, segment);
}

static int lost_fd = -1;

bool rig_lose(void)
{
	return ftruncate(lost_fd, 0) == 0;
}

static int make_memory(uint64_t bytes, unsigned flags)
{
	int fd = memfd_create("rig", MFD_CLOEXEC | flags);

	must(fd);
	must(ftruncate(fd, (off_t)bytes));
	return fd;
}

static int export_import(struct slu_engine *engine, const char *prefix, const char *suffix, int fd,
			 uint64_t offset, uint64_t length, uint32_t rights,
			 struct slu_region **region, struct slu_segment **segment)
{
	char name[SLU_NAME_MAX + 1];
	int rc = slu_region_import(engine, fd, offset, length, NULL, region);

	snprintf(name, sizeof(name), "%s-%s", prefix, suffix);
	return rc < 0 ? rc : slu_segment_export(engine, name, *region, rights, NULL, segment);
}

static int export_imports(struct slu_engine *engine, const char *prefix,
			  struct slu_region **regions, struct slu_segment **segments)
{
	const uint32_t both = SLU_RIGHT_READ | SLU_RIGHT_WRITE;
	int fd = make_memory(RIG_IMPORT_BYTES, MFD_ALLOW_SEALING);
	int rc = export_import(engine, prefix, "imported", fd, 0, 0, both, &regions[0],
			       &segments[0]);

	if (rc == 0)
		rc = export_import(engine, prefix, "imported-part", fd, RIG_PART_OFFSET,
				   RIG_PART_BYTES, SLU_RIGHT_READ, &regions[1], &segments[1]);
	close(fd);
	lost_fd = make_memory(RIG_SMALL_BYTES, 0);
	if (rc == 0)
		rc = export_import(engine, prefix, "lost", lost_fd, 0, 0, both, &regions[2],
				   &segments[2]);
	return rc;
}

int rig_export(struct slu_engine *engine, const char *prefix, struct slu_region **regions,
	       struct slu_segment **segments)
{
	const uint32_t both = SLU_RIGHT_READ | SLU_RIGHT_WRITE;
	int rc = export_one(engine, prefix, "big", RIG_SEGMENT_BYTES, both, &regions[0],
			    &segments[0]);

	if (rc == 0)
		rc = export_one(engine, prefix, "ro", RIG_SMALL_BYTES, SLU_RIGHT_READ, &regions[1],
				&segments[1]);
	for (int i = 0; rc == 0 && i < RIG_SMALL_COUNT; i++) {
		char suffix[8];

		snprintf(suffix, sizeof(suffix), "s%d", i);
		rc = export_one(engine, prefix, suffix, RIG_SMALL_BYTES, both, &regions[2 + i],
				&segments[2 + i]);
	}
	for (int i = 0; rc == 0 && i < RIG_PARTS; i++)
		rc = export_part(engine, prefix, &rig_parts[i], regions[0],
				 &regions[2 + RIG_SMALL_COUNT + i],
				 &segments[2 + RIG_SMALL_COUNT + i]);
	if (rc == 0)
		rc = export_imports(engine, prefix, &regions[2 + RIG_SMALL_COUNT + RIG_PARTS],
				    &segments[2 + RIG_SMALL_COUNT + RIG_PARTS]);
	return rc;
}

static bool in_process(const struct rig *rig)
{
	return rig->options.transport == SLU_TRANSPORT_FAKE;
}

/* Before this process has an engine: EAL does not survive a fork. */
static pid_t start_target(const struct rig *rig, const char *prefix, int *wire, uint16_t *port)
{
	uint64_t ready = 0;
	int wires[2];
	pid_t pid;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, wires));
	fflush(stdout);
	pid = fork();
	must(pid);
	if (pid == 0) {
		close(wires[0]);
		_exit(target_main(rig, prefix, wires[1]));
	}
	close(wires[1]);
	*wire = wires[0];
	if (read(*wire, &ready, sizeof(ready)) != sizeof(ready) || !ready) {
		printf("Bail out! the target did not start\n");
		exit(1);
	}
	*port = (uint16_t)(ready >> 1);
	return pid;
}

static void start_targets(struct rig *rig)
{
	char spare[sizeof(rig->prefix) + 8];

	snprintf(spare, sizeof(spare), "%s-spare", rig->prefix);
	rig->pid = start_target(rig, rig->prefix, &rig->wire, &rig->port);
	rig->spare_pid = start_target(rig, spare, &rig->spare_wire, &rig->spare_port);
}

/* A key for both ends, in a file that only we may read. */
static void make_key(struct rig *rig)
{
	static const char line[] = "conformance:00112233445566778899aabbccddeeff\n";
	int fd;

	strcpy(rig->psk_file, "/tmp/sluice-conformance-XXXXXX");
	fd = mkstemp(rig->psk_file);
	must(fd);
	must(write(fd, line, sizeof(line) - 1) == sizeof(line) - 1 ? 0 : -EIO);
	close(fd);
}

void rig_security(const struct rig *rig, struct slu_engine_options *options)
{
	if (rig->options.tls)
		options->tls.psk_file = rig->psk_file;
	options->tcp_plain = rig->options.tcp_plain;
	options->rdma.plain = rig->options.tls;
}

static void open_engine(struct rig *rig)
{
	struct slu_engine_options options;

	slu_engine_options_init(&options, sizeof(options));
	options.pollers = rig->options.pollers;
	options.poll = rig->options.poll;
	options.fake = rig->options.fake;
	options.clock = rig->options.clock;
	options.clock_arg = rig->options.clock_arg;
	options.seed = 42;
	options.rdma.cm = rig->options.cm;
	rig_security(rig, &options);
	must(slu_engine_open(&options, &rig->engine));
}

static void open_queue(struct rig *rig)
{
	struct slu_queue_options options;

	slu_queue_options_init(&options, sizeof(options));
	if (rig->options.depth)
		options.depth = rig->options.depth;
	must(slu_queue_open(rig->engine, &options, &rig->queue));
}

const char *rig_lacks(const struct rig_options *options)
{
	struct ibv_device **list;
	int n = 0;

	if (options->transport != SLU_TRANSPORT_VERBS)
		return NULL;
	list = ibv_get_device_list(&n);
	if (list) /* NULL: the kernel has no verbs */
		ibv_free_device_list(list);
	if (n == 0)
		return "no RDMA device: the lab has one (tests/lab/run sluice-conformance)";
	if (options->cm && access("/dev/infiniband/rdma_cm", R_OK | W_OK) < 0)
		return "no /dev/infiniband/rdma_cm for us: the lab has it";
	return NULL;
}

void rig_open(struct rig *rig, const struct rig_options *options)
{
	memset(rig, 0, sizeof(*rig));
	rig->options = *options;
	snprintf(rig->prefix, sizeof(rig->prefix), "conf%d", getpid());
	if (rig->options.tls)
		make_key(rig);
	if (!in_process(rig))
		start_targets(rig);
	open_engine(rig);
	if (in_process(rig))
		must(rig_export(rig->engine, rig->prefix, rig->regions, rig->segments));
	must(slu_region_alloc(rig->engine, RIG_SEGMENT_BYTES, NULL, &rig->region));
	must(rig_remote(rig, "big", SLU_RIGHT_READ | SLU_RIGHT_WRITE, &rig->remote));
	open_queue(rig);
}

void rig_close(struct rig *rig)
{
	slu_queue_close(rig->queue);
	slu_remote_close(rig->remote);
	if (rig->pid)
		rig_dismiss_target(rig);
	if (rig->spare_pid)
		kill(rig->spare_pid, SIGKILL);
	if (rig->options.tls)
		unlink(rig->psk_file);
	slu_engine_close(rig->engine);
}

void rig_use_spare(struct rig *rig)
{
	char prefix[sizeof(rig->prefix)];

	slu_remote_close(rig->remote);
	rig->remote = NULL;
	snprintf(prefix, sizeof(prefix), "%.20s-spare", rig->prefix);
	strcpy(rig->prefix, prefix);
	rig->pid = rig->spare_pid;
	rig->wire = rig->spare_wire;
	rig->port = rig->spare_port;
	rig->spare_pid = 0;
	must(rig_remote(rig, "big", SLU_RIGHT_READ | SLU_RIGHT_WRITE, &rig->remote));
}

int rig_remote(struct rig *rig, const char *suffix, uint32_t rights, struct slu_remote **remote)
{
	struct slu_remote_options options;
	char segment[SLU_NAME_MAX + 1], name[SLU_REMOTE_NAME_MAX + 1];

	rig_name(rig, suffix, segment);
	if (rig->port)
		snprintf(name, sizeof(name), "%s@127.0.0.1:%u", segment, rig->port);
	else
		strcpy(name, segment);
	slu_remote_options_init(&options, sizeof(options));
	options.transport = rig->options.transport;
	options.rights = rights;
	options.timeout_us = OPEN_US;
	return slu_remote_open(rig->engine, name, &options, remote);
}

static void question(struct rig *rig, const struct target_question *question)
{
	if (write(rig->wire, question, sizeof(*question)) != sizeof(*question))
		printf("# the target has gone\n");
}

static uint64_t answer(struct rig *rig)
{
	uint64_t answer = 0;

	if (read(rig->wire, &answer, sizeof(answer)) != sizeof(answer))
		return 0;
	return answer;
}

static uint64_t ask(struct rig *rig, const struct target_question *what)
{
	if (in_process(rig))
		return target_answer(rig->segments[0], slu_region_addr(rig->regions[0]), what);
	question(rig, what);
	return answer(rig);
}

bool rig_target_holds(struct rig *rig, uint64_t offset, uint64_t length, uint64_t generation)
{
	return ask(rig, &(struct target_question){TARGET_HOLDS, offset, length, generation});
}

bool rig_target_is_clear(struct rig *rig, uint64_t offset, uint64_t length)
{
	return ask(rig, &(struct target_question){TARGET_IS_CLEAR, offset, length, 0});
}

void rig_target_loses(struct rig *rig)
{
	must(ask(rig, &(struct target_question){TARGET_LOSES, 0, 0, 0}) ? 0 : -EIO);
}

void rig_target_clear(struct rig *rig, uint64_t offset, uint64_t length)
{
	ask(rig, &(struct target_question){TARGET_CLEAR, offset, length, 0});
}

static uint32_t expected_in_process;

void rig_expect_notifications(struct rig *rig, uint32_t n)
{
	if (in_process(rig))
		expected_in_process = n;
	else
		question(rig, &(struct target_question){TARGET_NOTIFICATIONS, 0, n, 0});
}

uint32_t rig_notified(struct rig *rig)
{
	if (in_process(rig))
		return target_take_notifications(rig->segments[0], slu_region_addr(rig->regions[0]),
						 expected_in_process, false);
	return (uint32_t)answer(rig);
}

void rig_expect_asleep(struct rig *rig, uint32_t n)
{
	question(rig, &(struct target_question){TARGET_NOTIFICATIONS, 0, n, true});
}

static void *serve_in_process(void *arg)
{
	struct rig *rig = arg;

	rig->calls = target_serve_calls(rig->segments[0], rig->service, rig->calls);
	return NULL;
}

void rig_serve_calls(struct rig *rig, enum rig_service service, uint32_t n)
{
	if (!in_process(rig)) {
		question(rig, &(struct target_question){TARGET_CALLS, service, n, 0});
		return;
	}
	rig->service = service;
	rig->calls = n;
	must(-pthread_create(&rig->server, NULL, serve_in_process, rig));
}

uint32_t rig_served(struct rig *rig)
{
	if (!in_process(rig))
		return (uint32_t)answer(rig);
	pthread_join(rig->server, NULL);
	return rig->calls;
}

uint32_t rig_departed(struct rig *rig, uint32_t n)
{
	return (uint32_t)ask(rig, &(struct target_question){TARGET_DEPARTED, 0, n, 0});
}

void rig_kill_target(struct rig *rig)
{
	kill(rig->pid, SIGKILL);
	waitpid(rig->pid, NULL, 0);
	close(rig->wire);
	rig->pid = 0;
}

void rig_dismiss_target(struct rig *rig)
{
	question(rig, &(struct target_question){TARGET_LEAVE, 0, 0, 0});
	answer(rig);
	waitpid(rig->pid, NULL, 0);
	close(rig->wire);
	rig->pid = 0;
}

void rig_run(struct rig *rig, const struct slu_op *ops, uint32_t n, struct slu_completion *done)
{
	uint32_t submitted = 0, reaped = 0;

	while (reaped < n) {
		int rc = submitted < n ? submit_any(rig->queue, ops + submitted, n - submitted) : 0;

		must(rc);
		submitted += (uint32_t)rc;
		rc = slu_reap(rig->queue, done + reaped, n - reaped);
		must(rc);
		reaped += (uint32_t)rc;
		if (rc == 0)
			must(slu_wait(rig->queue, 1, 100000));
	}
}

int rig_run_one(struct rig *rig, const struct slu_op *op)
{
	struct slu_completion done;

	rig_run(rig, op, 1, &done);
	assert(done.user_data == op->user_data);
	return done.status;
}
