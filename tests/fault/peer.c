/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fault/peer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

const char *peer_listen;

int peer_main(int argc, char **argv, const struct peer_role *roles)
{
	if (argc != 3)
		return -1;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (; roles->name; roles++)
		if (strcmp(argv[1], roles->name) == 0)
			return roles->run(argv[2]);
	fprintf(stderr, "no role %s\n", argv[1]);
	return 2;
}

static int spawn(const char *role, const char *arg, int commands, int answers, pid_t *pid)
{
	char *argv[] = {(char *)"/proc/self/exe", (char *)role, (char *)arg, NULL};
	posix_spawn_file_actions_t actions;
	int error = posix_spawn_file_actions_init(&actions);

	if (error)
		return -error;
	posix_spawn_file_actions_adddup2(&actions, commands, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, answers, STDOUT_FILENO);
	error = posix_spawn(pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -error;
}

int peer_start(const char *role, const char *arg, struct peer *peer)
{
	int commands[2], answers[2];
	int ret;

	if (pipe2(commands, O_CLOEXEC) < 0)
		return -errno;
	if (pipe2(answers, O_CLOEXEC) < 0) {
		ret = -errno;
		goto close_commands;
	}
	ret = spawn(role, arg, commands[0], answers[1], &peer->pid);
	close(answers[1]);
	if (ret < 0)
		goto close_answers;
	close(commands[0]);
	peer->to = commands[1];
	peer->from = answers[0];
	return 0;

close_answers:
	close(answers[0]);
close_commands:
	close(commands[0]);
	close(commands[1]);
	return ret;
}

int peer_answer(struct peer *peer, int timeout_ms)
{
	struct pollfd readable = {.fd = peer->from, .events = POLLIN};
	unsigned char answer;

	if (poll(&readable, 1, timeout_ms) != 1 || read(peer->from, &answer, 1) != 1)
		return -1;
	return answer;
}

static int wait_for_end(struct peer *peer)
{
	int status = 0;

	while (waitpid(peer->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(peer->from);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void peer_ask_to_stop(struct peer *peer)
{
	if (peer->to >= 0)
		close(peer->to);
	peer->to = -1;
}

int peer_stop(struct peer *peer)
{
	peer_ask_to_stop(peer);
	return wait_for_end(peer);
}

void peer_kill(struct peer *peer)
{
	kill(peer->pid, SIGKILL);
	peer_ask_to_stop(peer);
	wait_for_end(peer);
}

void peer_say(char answer)
{
	if (write(STDOUT_FILENO, &answer, 1) != 1)
		_exit(1);
}

int peer_is_told_to_stop(int timeout_ms)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

	return poll(&input, 1, timeout_ms) == 1;
}

unsigned peer_open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	if (!dir)
		return 0;
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

unsigned peer_open_files_settled(unsigned expected)
{
	const struct timespec pause = {.tv_nsec = 1000000};
	unsigned seen = peer_open_files();

	for (int i = 0; i < PEER_HANG_MS && seen != expected; i++) {
		nanosleep(&pause, NULL);
		seen = peer_open_files();
	}
	return seen;
}

static int open_engine(uint32_t pollers, enum slu_poll_mode poll, const char *listen,
		       struct slu_engine **engine)
{
	struct slu_engine_options options;

	slu_engine_options_init(&options, sizeof(options));
	options.listen = listen;
	options.pollers = pollers;
	options.poll = poll;
	return slu_engine_open(&options, engine);
}

int peer_open_engine(uint32_t pollers, enum slu_poll_mode poll, struct slu_engine **engine)
{
	return open_engine(pollers, poll, NULL, engine);
}

/* Each request is its own answer. */
static void answer_calls(struct slu_segment *segment)
{
	struct slu_message calls[64];
	int n;

	while ((n = slu_segment_receive(segment, calls, 64)) > 0)
		for (int i = 0; i < n; i++)
			slu_segment_answer(segment, &calls[i], 0, calls[i].data, calls[i].length);
}

int peer_serve(const char *name)
{
	struct slu_notification notifications[64];
	struct slu_region_options options;
	struct slu_segment *segment;
	struct slu_engine *engine;
	struct slu_region *region;

	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	if (open_engine(0, SLU_POLL_ADAPTIVE, peer_listen, &engine) < 0 ||
	    slu_region_alloc(engine, PEER_SEGMENT_BYTES, &options, &region) < 0 ||
	    slu_segment_export(engine, name, region, SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL,
			       &segment) < 0) {
		fprintf(stderr, "peer: %s\n", slu_last_error());
		return 1;
	}
	peer_say(PEER_READY);
	while (!peer_is_told_to_stop(1)) {
		while (slu_segment_poll(segment, notifications, 64) > 0)
			;
		answer_calls(segment);
	}
	slu_engine_close(engine);
	return 0;
}
