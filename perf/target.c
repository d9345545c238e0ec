/* SPDX-License-Identifier: Apache-2.0 */
#include "target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "bench.h"

#define CALLS_MAX 16 /* taken at a time */

/* A segment starts with its name, by which target_map() knows it. */
static struct slu_segment *export_segment(struct slu_engine *engine,
					  const struct target_segment *segment)
{
	struct slu_region_options options;
	struct slu_region *region;
	struct slu_segment *exported;

	slu_region_options_init(&options, sizeof(options));
	if (slu_region_alloc(engine, segment->length, &options, &region) != 0)
		die("target: %s", slu_last_error());
	memcpy(slu_region_addr(region), segment->name, TARGET_NAME_BYTES);
	if (slu_segment_export(engine, segment->name, region, SLU_RIGHT_READ | SLU_RIGHT_WRITE,
			       NULL, &exported) != 0)
		die("target: %s", slu_last_error());
	return exported;
}

/* Who answers the calls of a segment. */
struct owner {
	struct slu_segment *segment;
	atomic_bool stop;
	pthread_t thread;
};

static void *owner_run(void *arg)
{
	struct owner *owner = arg;
	struct slu_message calls[CALLS_MAX];

	while (!atomic_load_explicit(&owner->stop, memory_order_relaxed)) {
		int n = slu_segment_receive(owner->segment, calls, CALLS_MAX);

		for (int i = 0; i < n; i++)
			if (slu_segment_answer(owner->segment, &calls[i], 0, NULL, 0) != 0)
				die("target: %s", slu_last_error());
	}
	return NULL;
}

static void owner_start(struct owner *owner, int core)
{
	const struct bench bench = {.cores = {core, core}};

	owner->thread = core_thread_start(&bench, core, owner_run, owner);
}

static void owner_stop(struct owner *owner)
{
	atomic_store_explicit(&owner->stop, true, memory_order_relaxed);
	core_thread_join(owner->thread);
}

/* Nobody reads what it logs, and there is no room for more. */
static void stall_log(void)
{
	char line[4096] = "";
	int pipe[2];

	if (pipe2(pipe, O_NONBLOCK) != 0)
		die("pipe: %s", strerror(errno));
	while (write(pipe[1], line, sizeof(line)) > 0)
		;
	fcntl(pipe[1], F_SETFL, 0);
	dup2(pipe[1], STDERR_FILENO);
}

/* @return its address, or an empty text */
static const char *open_engine(const struct target_options *wanted, struct slu_engine **engine)
{
	static struct slu_engine_info info = {.size = sizeof(info)};
	struct slu_engine_options options;
	const struct slu_grant grants[] = {
		{"rogue", "*", wanted->siege.rogue_rights},
		{"*", "*", SLU_RIGHT_READ | SLU_RIGHT_WRITE},
	};
	char core[16];

	slu_engine_options_init(&options, sizeof(options));
	options.name = "perf-target";
	if (wanted->siege.on) {
		options.grants = grants;
		options.grants_count = sizeof(grants) / sizeof(grants[0]);
		options.tcp_plain = true;
	}
	if (wanted->siege.stalled_log)
		stall_log();
	else if (wanted->tcp)
		slu_log_set(SLU_LOG_ERROR, NULL, NULL); /* hostile clients are not news here */
	if (wanted->tcp) {
		snprintf(core, sizeof(core), "%d", wanted->core);
		options.listen = "127.0.0.1:0";
		options.pollers = 1;
		options.poll = SLU_POLL_BUSY;
		options.cores = core;
		options.tls.psk_file = wanted->psk_file;
	}
	if (slu_engine_open(&options, engine) != 0 || slu_engine_get_info(*engine, &info) != 0)
		die("target: %s", slu_last_error());
	return info.listen ? info.listen : "";
}

static void serve(const struct target_segment *segments, unsigned count,
		  const struct target_options *options, int ready, int hold)
{
	char address[TARGET_ADDRESS_BYTES] = "";
	struct slu_engine *engine;
	struct owner owner = {0};
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(address, sizeof(address), "%s", open_engine(options, &engine));
	for (unsigned i = count; i-- > 0;)
		owner.segment = export_segment(engine, &segments[i]);
	if (options->answers)
		owner_start(&owner, options->core);
	if (write(ready, address, sizeof(address)) != sizeof(address))
		die("target: %s", strerror(errno));
	while (read(hold, &byte, 1) < 0 && errno == EINTR)
		;
	if (options->answers)
		owner_stop(&owner);
	slu_engine_close(engine);
	exit(0);
}

void target_start(struct target *target, struct target_segment *segments, unsigned count,
		  const struct target_options *options)
{
	static unsigned number;
	int ready[2], hold[2];

	for (unsigned i = 0; i < count; i++)
		snprintf(segments[i].name, TARGET_NAME_BYTES, "perf.%d.%u", (int)getpid(),
			 number++);
	if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(hold, O_CLOEXEC) != 0)
		die("pipe: %s", strerror(errno));
	target->pid = fork();
	if (target->pid < 0)
		die("fork: %s", strerror(errno));
	if (target->pid == 0) {
		close(ready[0]);
		close(hold[1]);
		serve(segments, count, options, ready[1], hold[0]);
	}
	close(ready[1]);
	close(hold[0]);
	if (read(ready[0], target->address, sizeof(target->address)) != sizeof(target->address))
		die("the target did not start");
	close(ready[0]);
	target->hold = hold[1];
}

void target_pause(const struct target *target)
{
	int status;

	if (kill(target->pid, SIGSTOP) != 0 ||
	    waitpid(target->pid, &status, WUNTRACED) != target->pid || !WIFSTOPPED(status))
		die("the target did not pause");
}

void target_resume(const struct target *target)
{
	kill(target->pid, SIGCONT);
}

void target_stop(struct target *target)
{
	int status;

	close(target->hold);
	if (waitpid(target->pid, &status, 0) != target->pid || status != 0)
		die("the target failed");
}

/* The segment's memory if it is behind @p path, else NULL. */
static void *map_if_segment(const char *path, const struct target_segment *segment)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *memory = MAP_FAILED;
	struct stat status;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) == 0 && (uint64_t)status.st_size == segment->length)
		memory = mmap(NULL, segment->length, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_POPULATE, fd, 0);
	close(fd);
	if (memory == MAP_FAILED)
		return NULL;
	if (memcmp(memory, segment->name, TARGET_NAME_BYTES) == 0)
		return memory;
	munmap(memory, segment->length);
	return NULL;
}

static bool is_memfd(const char *path)
{
	char link[32];
	ssize_t length = readlink(path, link, sizeof(link));

	return length > 7 && memcmp(link, "/memfd:", 7) == 0;
}

void *target_map(const struct target *target, const struct target_segment *segment)
{
	char folder[32], path[320];
	void *memory = NULL;
	struct dirent *entry;
	DIR *dir;

	snprintf(folder, sizeof(folder), "/proc/%d/fd", (int)target->pid);
	dir = opendir(folder);
	if (!dir)
		die("%s: %s", folder, strerror(errno));
	while (!memory && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		if (is_memfd(path))
			memory = map_if_segment(path, segment);
	}
	closedir(dir);
	if (!memory)
		die("the memory of segment %s is not among the target's memfds", segment->name);
	return memory;
}
