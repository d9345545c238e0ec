/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A target and an initiator for the conformance suite, whatever the transport: the target is a
 * process of its own, or, for a transport that works within one process, the same engine.
 */
#ifndef CONFORMANCE_RIG_H
#define CONFORMANCE_RIG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <sluice/sluice.h>

#define RIG_SEGMENT_BYTES (UINT64_C(72) << 20) /* the big one; room around 64 MiB */
#define RIG_SMALL_BYTES   UINT64_C(65536)
#define RIG_SMALL_COUNT   24
#define RIG_PARTS         4
#define RIG_IMPORTS       3
#define RIG_SEGMENTS      (2 + RIG_SMALL_COUNT + RIG_PARTS + RIG_IMPORTS)

/* Imported memory: "imported", all of a memfd; "imported-part", those bytes of it, to be read only;
 * and "lost", RIG_SMALL_BYTES of a memfd that cannot be sealed, until rig_target_loses(). */
#define RIG_IMPORT_BYTES (UINT64_C(5) << 16)
#define RIG_PART_OFFSET  (UINT64_C(1) << 16)
#define RIG_PART_BYTES   (UINT64_C(3) << 16)

#define RIG_NOTIFY_STRIDE 256 /* bytes of data that belong to one tag */

/** A segment that is a part of the big one's memory, under a name of its own. */
struct rig_part {
	const char *suffix;
	uint64_t offset;
	uint64_t length;
	uint32_t rights;
	bool registered; /* with the caller's pointer, as if it were any memory */
	const char
		*not_shared; /* a word of the reason why it is not in shared memory; NULL: it is */
};

extern const struct rig_part rig_parts[RIG_PARTS];

/** How the target answers calls. */
enum rig_service {
	RIG_ECHO,      /* each request at once, with its bytes changed by rig_answer_byte() */
	RIG_SLEEPING,  /* the same, but it waits for each on the descriptor */
	RIG_REVERSED,  /* the same, in groups of 8, the last first */
	RIG_LATE,      /* when all have come, 1.5 s later */
	RIG_LONGEST,   /* with SLU_MESSAGE_MAX bytes, whatever was asked */
	RIG_STATUS,    /* with the status that the request begins with, int32_t */
	RIG_THREADS,   /* each as RIG_ECHO, by four threads, which answer for each other */
	RIG_IN_TURN,   /* likewise, by a service in a poller's turn */
	RIG_LEFTOVERS, /* whatever comes, until nothing has come for 0.3 s */
};

/** One column of the suite. */
struct rig_options {
	const char *title;
	enum slu_transport transport;
	uint32_t pollers; /* 0: inline queue */
	enum slu_poll_mode poll;
	const char *fake; /* behaviour, fake transport only */
	bool tls;         /* by pre-shared key, tcp and verbs */
	bool tcp_plain;   /* data in the clear all the same */
	bool cm;          /* queue pairs are connected by librdmacm */
	uint32_t depth;
	slu_clock_fn clock; /* virtual time, or NULL */
	void *clock_arg;
};

struct rig {
	struct rig_options options;
	char prefix[32];
	struct slu_engine *engine;
	struct slu_region *region; /* RIG_SEGMENT_BYTES */
	struct slu_remote *remote; /* of the big segment */
	struct slu_queue *queue;
	/* The target: another process (and a spare one, for when it has ended), or ... */
	pid_t pid;
	int wire;
	uint16_t port; /* its TCP listener; 0: none */
	pid_t spare_pid;
	int spare_wire;
	uint16_t spare_port;
	char psk_file[64]; /* with tls */
	/* ... this one. */
	struct slu_region *regions[RIG_SEGMENTS];
	struct slu_segment *segments[RIG_SEGMENTS];
	pthread_t server; /* of calls; its answer */
	enum rig_service service;
	uint32_t calls;
};

/** Segments are "PREFIX-big", "PREFIX-ro" (read-only, filled with generation 9), "PREFIX-sK", and
 * those of rig_parts. */
void rig_name(const struct rig *rig, const char *suffix, char name[SLU_NAME_MAX + 1]);

/** Export the segments of a target. @return 0 or a negative errno */
int rig_export(struct slu_engine *engine, const char *prefix, struct slu_region **regions,
	       struct slu_segment **segments);

/** At the target: take the pages of "lost" away. @return true */
bool rig_lose(void);

/** What an engine of this column needs to be trusted, the target's or ours. */
void rig_security(const struct rig *rig, struct slu_engine_options *options);

void rig_open(struct rig *rig, const struct rig_options *options);
void rig_close(struct rig *rig);

/** Does this machine have what the column needs? @return NULL, or what is missing */
const char *rig_lacks(const struct rig_options *options);

/** Open a remote of the rig's target with the rig's transport. */
int rig_remote(struct rig *rig, const char *suffix, uint32_t rights, struct slu_remote **remote);

/** Look at the target's memory from the target's side: does it hold the pattern? */
bool rig_target_holds(struct rig *rig, uint64_t offset, uint64_t length, uint64_t generation);

/** Has the target, from its side, only zeros there? */
bool rig_target_is_clear(struct rig *rig, uint64_t offset, uint64_t length);

/** Take the pages of "lost" away. */
void rig_target_loses(struct rig *rig);

/** Zero the target's memory from the target's side. */
void rig_target_clear(struct rig *rig, uint64_t offset, uint64_t length);

/**
 * Let the target take @p n notifications, checking at each that the data of its tag (at tag *
 * RIG_NOTIFY_STRIDE, generation = tag) is there. Begins in the background; rig_notified() ends it.
 */
void rig_expect_notifications(struct rig *rig, uint32_t n);

/** The same with an owner that sleeps. Not for a target in this process. */
void rig_expect_asleep(struct rig *rig, uint32_t n);

/** @return notifications whose data was there; waits up to some seconds for those expected */
uint32_t rig_notified(struct rig *rig);

static inline uint8_t rig_answer_byte(uint8_t byte)
{
	return (uint8_t)(byte * 3 + 1);
}

/** Let the target serve @p n calls, in the background; rig_served() ends it. */
void rig_serve_calls(struct rig *rig, enum rig_service service, uint32_t n);

/** @return calls answered; waits up to some seconds for those expected */
uint32_t rig_served(struct rig *rig);

/**
 * Wait until @p n clients that had sent something have gone, as the target is told; 0: from now on
 * it wants to be told.
 *
 * @return of how many it was told in time, and that they were who we are
 */
uint32_t rig_departed(struct rig *rig, uint32_t n);

/** The target process: kill it or let it close in order. Not for a target in this process. */
void rig_kill_target(struct rig *rig);
void rig_dismiss_target(struct rig *rig);

/** Go on with the spare target; the first one has ended. */
void rig_use_spare(struct rig *rig);

/** Submit all of @p ops, reaping into @p done as needed, until each has completed. */
void rig_run(struct rig *rig, const struct slu_op *ops, uint32_t n, struct slu_completion *done);

/** Submit one and return its status. */
int rig_run_one(struct rig *rig, const struct slu_op *op);

#endif
