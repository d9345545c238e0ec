/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A second process for a test: the test program run again in a role, with an engine of its own.
 * Commands come to the peer on its standard input, whose end tells it to stop, and its answers,
 * single bytes, leave on its standard output.
 */
#ifndef TESTS_FAULT_PEER_H
#define TESTS_FAULT_PEER_H

#include <sys/types.h>

#include <sluice/sluice.h>

#define PEER_SEGMENT_BYTES (UINT64_C(16) << 20) /* of what peer_serve() exports */
#define PEER_READY         'r'

/** Within that a peer answers on any machine, however busy it is: only a hang takes longer. */
#define PEER_HANG_MS 300000

/** TCP address that engines of peer_serve() listen on; RDMA is served with it. NULL: none */
extern const char *peer_listen;

struct peer {
	pid_t pid;
	int to;
	int from;
};

/** A role: what the peer runs with its one argument; the result is its exit code. */
struct peer_role {
	const char *name;
	int (*run)(const char *arg);
};

/**
 * First thing in main().
 *
 * @param roles  ends with a NULL name
 * @return       -1 this is not a peer, go on; else main's result
 */
int peer_main(int argc, char **argv, const struct peer_role *roles);

/** Start one. @return 0; -errno */
int peer_start(const char *role, const char *arg, struct peer *peer);

/** Wait for one byte from the peer. @return it; -1 the peer has gone or @p timeout_ms passed */
int peer_answer(struct peer *peer, int timeout_ms);

/** End its input, by which it is told to stop. */
void peer_ask_to_stop(struct peer *peer);

/** The same, and wait for it. @return its exit code; 128 + signal that killed it */
int peer_stop(struct peer *peer);

/** SIGKILL it and wait for it. */
void peer_kill(struct peer *peer);

/** In the peer: send one byte. */
void peer_say(char answer);

/** In the peer: has the input ended? Waits for up to @p timeout_ms. */
int peer_is_told_to_stop(int timeout_ms);

/** A role: export a segment named @p name, say PEER_READY, take notifications and answer calls
 * until told to stop.
 */
int peer_serve(const char *name);

/** Descriptors of this process. */
unsigned peer_open_files(void);

/**
 * The same, once it is @p expected or has not become so for minutes: what a peer has left is closed
 * in its own time, and the number can be right for a moment and go up once more.
 */
unsigned peer_open_files_settled(unsigned expected);

/** Open an engine with @p pollers threads. @return as slu_engine_open() */
int peer_open_engine(uint32_t pollers, enum slu_poll_mode poll, struct slu_engine **engine);

#endif
