/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the devices of several processes share: queue pairs, their receives, completion queues of
 * receives, memory keys.
 *
 * It lies in a memfd that is made before main() and found again by processes that were forked or
 * executed, through an environment variable. One lock guards it; what an application's thread
 * touches when it posts a receive or polls needs no lock: it is a ring with one writer at each end.
 * What a process that died has left is taken away by the next that looks for room.
 */
#ifndef TESTS_MLX5_MODEL_FABRIC_H
#define TESTS_MLX5_MODEL_FABRIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <infiniband/verbs.h>

#define FABRIC_PROCESSES 256u
#define FABRIC_PAIRS     1024u /* a power of two: the low bits of a queue pair's number */
#define FABRIC_QUEUES    512u
#define FABRIC_KEYS      4096u /* a power of two: the middle bits of a key */
#define FABRIC_SHARED    16u
#define FABRIC_RECEIVES  8192u  /* in one queue of them; a power of two */
#define FABRIC_ENTRIES   16384u /* of a completion queue; a power of two */

struct fabric_process {
	_Atomic pid_t pid; /* 0: free */
	uint64_t start;    /* when it began, as the kernel says: pids come again */
};

struct fabric_receive {
	uint64_t id;
	uint64_t addr;
	uint32_t length;
	uint32_t lkey;
};

struct fabric_receives {
	uint32_t max;
	_Atomic uint32_t posted; /* by its owner's threads; of a shared one under the lock */
	_Atomic uint32_t taken;  /* under the lock */
	struct fabric_receive ring[FABRIC_RECEIVES];
};

struct fabric_pair {
	_Atomic uint32_t number; /* 0: free */
	_Atomic uint32_t state;  /* enum ibv_qp_state */
	_Atomic bool cut;
	_Atomic bool stalled;
	uint32_t process;
	uint32_t domain;  /* protection domain */
	uint32_t queue;   /* of receives, in fabric.queues */
	uint32_t access;  /* enum ibv_access_flags */
	uint32_t peer;    /* number */
	uint32_t psn_in;  /* expected first */
	uint32_t psn_out; /* sent first */
	uint32_t reads_in;
	uint32_t reads_in_max;
	uint32_t generation;
	uint8_t rnr_timer;
	bool reachable; /* by the GID that it was given */

	uint32_t takes_from; /* a shared queue of receives, counted from 1; 0: its own */
	struct fabric_receives receives;
};

/** Receives for several queue pairs. */
struct fabric_shared {
	_Atomic bool used;
	uint32_t process;
	uint32_t domain;
	struct fabric_receives receives;
};

struct fabric_entry {
	struct ibv_wc wc;
	_Atomic bool void_; /* its queue pair has gone */
};

/** A completion queue of receives. */
struct fabric_queue {
	_Atomic bool used;
	uint32_t process;
	uint32_t capacity;
	_Atomic bool armed;
	_Atomic uint32_t produced; /* under the lock */
	_Atomic uint32_t consumed; /* by its owner */
	struct fabric_entry entries[FABRIC_ENTRIES];
};

struct fabric_key {
	_Atomic uint32_t key; /* 0: free */
	uint32_t process;
	uint32_t domain;
	uint32_t access;
	uint32_t pair; /* number of the only one that it is good on; 0: any; UINT32_MAX: none */
	uint8_t tag;
	uint64_t iova;
	uint64_t addr;
	uint64_t length;
};

struct fabric {
	uint64_t magic;
	_Atomic pid_t lock;
	_Atomic uint32_t domains; /* numbers given so far */
	struct fabric_process processes[FABRIC_PROCESSES];
	struct fabric_key keys[FABRIC_KEYS];
	struct fabric_pair pairs[FABRIC_PAIRS];
	struct fabric_queue queues[FABRIC_QUEUES];
	struct fabric_shared shared[FABRIC_SHARED];
};

extern struct fabric *fabric;

/** End the program: the text says which rule of the device was broken. */
_Noreturn void fabric_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

void fabric_lock(void);
void fabric_unlock(void);

/** This process's number; entered when first asked for. */
uint32_t fabric_self(void);

/** Is it there still? A killed one is not, from then on, even if nobody has waited for it. */
bool fabric_alive(uint32_t process);

/* Under the lock. NULL, or UINT32_MAX: no room. */
struct fabric_pair *fabric_add_pair(uint32_t domain);
void fabric_remove_pair(struct fabric_pair *pair);
uint32_t fabric_add_queue(uint32_t capacity);
void fabric_remove_queue(uint32_t queue);
struct fabric_shared *fabric_add_shared(uint32_t domain, uint32_t max);
struct fabric_key *fabric_add_key(uint32_t domain);
struct fabric_key *fabric_find_key(uint32_t key); /* whatever its tag */
void fabric_remove_key(struct fabric_key *key);

/** Where it takes its receives from. */
static inline struct fabric_receives *fabric_receives_of(struct fabric_pair *pair)
{
	return pair->takes_from ? &fabric->shared[pair->takes_from - 1].receives : &pair->receives;
}

/** Under the lock or, for one of our own, without. @return NULL: there is none */
struct fabric_pair *fabric_find_pair(uint32_t number);

/**
 * Under the lock: where does @p addr lie in the memory of the process of @p pair?
 *
 * @param access  what must be granted; 0: reading by the owner's device
 * @return        false: no such key of its domain, not good on it, out of its range, or not granted
 */
bool fabric_resolve(const struct fabric_pair *pair, uint32_t key, uint64_t addr, uint64_t length,
		    uint32_t access, uint64_t *to);

/** Under the lock: leave a completion of a receive. */
void fabric_complete(uint32_t queue, const struct ibv_wc *wc);

/**
 * Copy between our memory and that of @p process.
 *
 * @return 0; -ESRCH it has gone; -EFAULT its memory is not there
 */
int fabric_move(uint32_t process, const struct iovec *ours, uint32_t count, uint64_t theirs,
		bool write);

#endif
