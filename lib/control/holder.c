/* SPDX-License-Identifier: Apache-2.0 */
#include "control/holder.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/message.h"

#define ANSWER_MS 500

/* @return the first message that comes in time, or NULL */
static json_t *hear(struct stream *stream)
{
	uint64_t until_ns = clock_monotonic_ns(NULL) + ANSWER_MS * UINT64_C(1000000);
	struct message_reader reader = {0};
	json_t *message = NULL;

	while (message_read(&reader, stream, &message) == 0 &&
	       wait_ready(stream->fd, POLLIN, until_ns) == 0)
		;
	message_reader_reset(&reader);
	return message;
}

/* A target welcomes us or says why not. */
static bool answers_as_target(int fd)
{
	struct message_writer writer = {0};
	struct stream stream = {.fd = fd};
	json_t *message = json_pack("{s:s, s:[i,i], s:s}", "type", "hello", "versions",
				    MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH, "name", "target");
	bool answers;

	if (message_send(&writer, &stream, message, NULL, 0) < 0)
		return false;
	message = hear(&stream);
	answers = message && (strcmp(message_type(message), "welcome") == 0 ||
			      strcmp(message_type(message), "refused") == 0);
	json_decref(message);
	message_writer_reset(&writer);
	return answers;
}

/* "process 17 (cat) of user:eve"; no number where it lives in another PID namespace. */
static void describe(const struct ucred *holder, char *text, size_t size)
{
	char identity[SLU_IDENTITY_MAX + 1], path[32], name[32] = "";
	FILE *file;

	if (holder->pid == getpid()) {
		snprintf(text, size, "another engine of this process");
		return;
	}
	credentials_identity(holder->uid, identity);
	snprintf(path, sizeof(path), "/proc/%d/comm", holder->pid);
	file = holder->pid > 0 ? fopen(path, "re") : NULL;
	if (file && fgets(name, sizeof(name), file))
		name[strcspn(name, "\n")] = '\0';
	if (file)
		fclose(file);
	if (holder->pid > 0)
		snprintf(text, size, "process %d (%s) of %s", holder->pid, name[0] ? name : "?",
			 identity);
	else
		snprintf(text, size, "a process of %s in another container", identity);
}

static int explain_peer(int fd, const char *text, const struct trust *trust)
{
	bool target = answers_as_target(fd);
	socklen_t length = sizeof(struct ucred);
	struct ucred holder = {0};
	char who[160];

	if (credentials_check(fd, trust, &holder) == 0) {
		describe(&holder, who, sizeof(who));
		return fail(-EADDRINUSE,
			    "\"%s\" is taken: %s listens there and %s: stop it, or choose another "
			    "name",
			    text, who,
			    target ? "answers as a target does"
				   : "does not answer as a target would");
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &holder, &length) < 0)
		return fail(-EADDRINUSE, "\"%s\" is taken, and who has it cannot be learned: %s",
			    text, strerror(errno));
	describe(&holder, who, sizeof(who));
	return fail(-EPERM,
		    "\"%s\" is taken: %s listens there, a user who is not allowed here, and %s: "
		    "stop that process, or choose another name; with --socket PATH or --listen the "
		    "target goes without this one",
		    text, who,
		    target ? "answers as a target does" : "does not answer as a target would");
}

/* Nobody can be asked. Only a socket is ever taken over. */
static int explain_silence(const char *text, const struct sockaddr_un *address, int error)
{
	struct stat status;

	if (address->sun_path[0] && lstat(address->sun_path, &status) == 0 &&
	    !S_ISSOCK(status.st_mode))
		return fail(-EADDRINUSE,
			    "\"%s\" exists and is no socket: choose another path, or remove it",
			    text);
	return fail(-EADDRINUSE,
		    "\"%s\" is taken by a process that lets nobody in (%s): see \"ss -xap\", "
		    "stop it, or choose another name",
		    text, strerror(error));
}

int holder_explain(const char *text, const struct sockaddr_un *address, socklen_t length,
		   const struct trust *trust)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int rc;

	if (fd < 0)
		return fail(-EADDRINUSE, "\"%s\" is taken", text);
	if (connect(fd, (const struct sockaddr *)address, length) == 0)
		rc = explain_peer(fd, text, trust);
	else
		rc = explain_silence(text, address, errno);
	close(fd);
	return rc;
}
