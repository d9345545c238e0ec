/* SPDX-License-Identifier: Apache-2.0 */
#include "fabric.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "mlx5_model.h"

#define VARIABLE    "MLX5_MODEL_FABRIC" /* "PID:FD" of the process that made it */
#define MAGIC       UINT64_C(0x6d6c78356d6f6465)
#define SPINS_YIELD 64u
#define SPINS_LOOK  16384u
#define ALIVE_NS    UINT64_C(2000000) /* how long an answer is believed */
#define PAIR_BITS   10u
#define GENERATIONS (UINT32_C(1) << (24 - PAIR_BITS)) /* numbers have 24 bits */

static_assert(FABRIC_PAIRS == 1u << PAIR_BITS, "the low bits of a number");

struct fabric *fabric;

static uint32_t self = UINT32_MAX;
static pid_t self_pid;

void fabric_complain(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	printf("Bail out! mlx5 model: ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	fflush(stdout);
	abort();
}

/* ---- the memory ---- */

static bool map(int fd)
{
	struct stat file;
	void *at;

	if (fstat(fd, &file) < 0 || (uint64_t)file.st_size != sizeof(struct fabric))
		return false;
	at = mmap(NULL, sizeof(struct fabric), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		  fd, 0);
	if (at == MAP_FAILED)
		return false;
	if (((struct fabric *)at)->magic != MAGIC) {
		munmap(at, sizeof(struct fabric));
		return false;
	}
	fabric = at;
	return true;
}

/* Inherited; or, where somebody closed what he inherited, taken from who made it. */
static bool find(void)
{
	const char *text = getenv(VARIABLE);
	char path[64];
	int pid, fd;
	bool found;

	if (!text || sscanf(text, "%d:%d", &pid, &fd) != 2)
		return false;
	if (map(fd))
		return true;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, fd);
	fd = open(path, O_RDWR | O_CLOEXEC);
	found = fd >= 0 && map(fd);
	if (fd >= 0)
		close(fd);
	return found;
}

static void make(void)
{
	int fd = memfd_create("mlx5_model", 0);
	uint64_t magic = MAGIC;
	char text[32];

	if (fd < 0 || ftruncate(fd, sizeof(struct fabric)) < 0 ||
	    pwrite(fd, &magic, sizeof(magic), 0) != sizeof(magic) || !map(fd))
		fabric_complain("no memory to share: %s", strerror(errno));
	snprintf(text, sizeof(text), "%d:%d", (int)getpid(), fd);
	setenv(VARIABLE, text, 1);
}

/* Before main(), so that all that main() forks has it. */
__attribute__((constructor)) static void fabric_init(void)
{
	if (!find())
		make();
	/* Where a process may look only into its children's memory, ours may be looked into. */
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
}

/* ---- processes ---- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* @return when it was started, in the kernel's ticks; 0: it runs no longer */
static uint64_t read_start(pid_t pid)
{
	unsigned long long start = 0;
	char path[64], text[1024];
	const char *after;
	size_t length;
	FILE *file;
	char state;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "r");
	if (!file)
		return 0;
	length = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[length] = '\0';
	after = strrchr(text, ')'); /* a name may have any character */
	if (!after ||
	    sscanf(after + 1,
		   " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		   "%*d %llu",
		   &state, &start) != 2 ||
	    state == 'Z' || state == 'X')
		return 0;
	return start;
}

bool fabric_alive(uint32_t process)
{
	static _Thread_local uint64_t asked[FABRIC_PROCESSES];
	static _Thread_local bool answers[FABRIC_PROCESSES];
	const struct fabric_process *entry = &fabric->processes[process];
	pid_t pid = atomic_load(&entry->pid);
	uint64_t now;

	if (pid == 0)
		return false;
	if (pid == getpid())
		return true;
	now = now_ns();
	if (now - asked[process] < ALIVE_NS)
		return answers[process];
	asked[process] = now;
	return answers[process] = read_start(pid) == entry->start;
}

static void forget(uint32_t process)
{
	for (uint32_t i = 0; i < FABRIC_PAIRS; i++)
		if (fabric->pairs[i].number && fabric->pairs[i].process == process)
			fabric_remove_pair(&fabric->pairs[i]);
	for (uint32_t i = 0; i < FABRIC_QUEUES; i++)
		if (fabric->queues[i].used && fabric->queues[i].process == process)
			fabric_remove_queue(i);
	for (uint32_t i = 0; i < FABRIC_SHARED; i++)
		if (fabric->shared[i].process == process)
			fabric->shared[i].used = false;
	for (uint32_t i = 0; i < FABRIC_KEYS; i++)
		if (fabric->keys[i].key && fabric->keys[i].process == process)
			fabric_remove_key(&fabric->keys[i]);
	fabric->processes[process].pid = 0;
}

static void sweep(void)
{
	for (uint32_t i = 0; i < FABRIC_PROCESSES; i++) {
		const struct fabric_process *entry = &fabric->processes[i];

		if (entry->pid && entry->pid != getpid() && read_start(entry->pid) != entry->start)
			forget(i);
	}
}

uint32_t fabric_self(void)
{
	if (self_pid == getpid())
		return self;
	fabric_lock();
	sweep();
	for (uint32_t i = 0; i < FABRIC_PROCESSES && self_pid != getpid(); i++) {
		if (fabric->processes[i].pid)
			continue;
		fabric->processes[i].start = read_start(getpid());
		fabric->processes[i].pid = getpid();
		self = i;
		self_pid = getpid();
	}
	fabric_unlock();
	if (self_pid != getpid())
		fabric_complain("more than %u processes", FABRIC_PROCESSES);
	return self;
}

/* ---- the lock ---- */

/* A holder that died is passed over: what it was about is its own, or a copy half done. */
void fabric_lock(void)
{
	for (uint32_t spins = 1;; spins++) {
		pid_t holder = 0;

		if (atomic_compare_exchange_weak_explicit(&fabric->lock, &holder, getpid(),
							  memory_order_acquire,
							  memory_order_relaxed))
			return;
		if (spins % SPINS_YIELD == 0)
			sched_yield();
		if (spins % SPINS_LOOK == 0 && holder && read_start(holder) == 0 &&
		    atomic_compare_exchange_strong(&fabric->lock, &holder, getpid()))
			return;
	}
}

void fabric_unlock(void)
{
	atomic_store_explicit(&fabric->lock, 0, memory_order_release);
}

/* ---- queue pairs, completion queues, keys ---- */

static struct fabric_pair *free_pair(void)
{
	for (uint32_t i = 0; i < FABRIC_PAIRS; i++)
		if (!fabric->pairs[i].number)
			return &fabric->pairs[i];
	return NULL;
}

struct fabric_pair *fabric_add_pair(uint32_t domain)
{
	struct fabric_pair *pair = free_pair();
	uint32_t index;

	if (!pair) {
		sweep();
		pair = free_pair();
	}
	if (!pair)
		return NULL;
	index = (uint32_t)(pair - fabric->pairs);
	pair->state = IBV_QPS_RESET;
	pair->cut = pair->stalled = false;
	pair->process = fabric_self();
	pair->domain = domain;
	pair->peer = pair->reads_in = 0;
	pair->reachable = false;
	pair->takes_from = 0;
	pair->receives.posted = pair->receives.taken = 0;
	/* A place that is used again has another number, so that nobody takes it for the old one.
	 */
	pair->generation++;
	atomic_store(&pair->number, pair->generation << PAIR_BITS | index);
	return pair;
}

void fabric_remove_pair(struct fabric_pair *pair)
{
	struct fabric_queue *queue = &fabric->queues[pair->queue];

	for (uint32_t i = queue->consumed; i != queue->produced; i++) {
		struct fabric_entry *entry = &queue->entries[i % FABRIC_ENTRIES];

		if (entry->wc.qp_num != pair->number)
			continue;
		if (pair->takes_from && pair->process == self)
			fabric_complain("a queue pair was destroyed before what it took of a "
					"shared receive queue was polled: it is lost");
		entry->void_ = true;
	}
	atomic_store(&pair->number, 0);
}

struct fabric_pair *fabric_find_pair(uint32_t number)
{
	struct fabric_pair *pair = &fabric->pairs[number % FABRIC_PAIRS];

	return number && atomic_load(&pair->number) == number ? pair : NULL;
}

static uint32_t free_queue(void)
{
	for (uint32_t i = 0; i < FABRIC_QUEUES; i++)
		if (!fabric->queues[i].used)
			return i;
	return UINT32_MAX;
}

uint32_t fabric_add_queue(uint32_t capacity)
{
	uint32_t index = free_queue();
	struct fabric_queue *queue;

	if (index == UINT32_MAX) {
		sweep();
		index = free_queue();
	}
	if (index == UINT32_MAX)
		return index;
	queue = &fabric->queues[index];
	queue->process = fabric_self();
	queue->capacity = capacity;
	queue->armed = false;
	queue->produced = queue->consumed = 0;
	queue->used = true;
	return index;
}

void fabric_remove_queue(uint32_t queue)
{
	fabric->queues[queue].used = false;
}

static struct fabric_shared *free_shared(void)
{
	for (uint32_t i = 0; i < FABRIC_SHARED; i++)
		if (!fabric->shared[i].used)
			return &fabric->shared[i];
	return NULL;
}

struct fabric_shared *fabric_add_shared(uint32_t domain, uint32_t max)
{
	struct fabric_shared *shared = free_shared();

	if (!shared) {
		sweep();
		shared = free_shared();
	}
	if (!shared)
		return NULL;
	shared->process = fabric_self();
	shared->domain = domain;
	shared->receives.max = max;
	shared->receives.posted = shared->receives.taken = 0;
	shared->used = true;
	return shared;
}

static struct fabric_key *free_key(void)
{
	for (uint32_t i = 1; i < FABRIC_KEYS; i++)
		if (!fabric->keys[i].key)
			return &fabric->keys[i];
	return NULL;
}

struct fabric_key *fabric_add_key(uint32_t domain)
{
	struct fabric_key *key = free_key();

	if (!key) {
		sweep();
		key = free_key();
	}
	if (!key)
		return NULL;
	key->process = fabric_self();
	key->domain = domain;
	key->pair = 0;
	key->key = (uint32_t)(key - fabric->keys) << 8 | key->tag++;
	return key;
}

void fabric_remove_key(struct fabric_key *key)
{
	atomic_store(&key->key, 0);
}

struct fabric_key *fabric_find_key(uint32_t key)
{
	return &fabric->keys[key >> 8 & (FABRIC_KEYS - 1)];
}

bool fabric_resolve(const struct fabric_pair *pair, uint32_t key, uint64_t addr, uint64_t length,
		    uint32_t access, uint64_t *to)
{
	const struct fabric_key *found = fabric_find_key(key);

	if (key == 0 || found->key != key || found->process != pair->process ||
	    found->domain != pair->domain || (found->pair && found->pair != pair->number))
		return false;
	if (addr < found->iova || addr - found->iova > found->length ||
	    length > found->length - (addr - found->iova))
		return false;
	*to = found->addr + (addr - found->iova);
	return (found->access & access) == access;
}

void fabric_complete(uint32_t index, const struct ibv_wc *wc)
{
	struct fabric_queue *queue = &fabric->queues[index];
	uint32_t produced = atomic_load_explicit(&queue->produced, memory_order_relaxed);
	struct fabric_entry *entry = &queue->entries[produced % FABRIC_ENTRIES];

	/* Pairs with the release in the poll: what was read there may be written here. */
	if (produced - atomic_load_explicit(&queue->consumed, memory_order_acquire) >=
	    queue->capacity)
		fabric_complain("a completion queue of %u receives overran", queue->capacity);
	entry->wc = *wc;
	atomic_store_explicit(&entry->void_, false, memory_order_relaxed);
	/* Pairs with the acquire in the poll: the data that was moved, then the entry. */
	atomic_store_explicit(&queue->produced, produced + 1, memory_order_release);
}

/* ---- memory of others ---- */

static int move_here(const struct iovec *ours, uint32_t count, uint64_t theirs, bool write)
{
	for (uint32_t i = 0; i < count; i++) {
		void *there = (void *)(uintptr_t)theirs;

		if (write)
			memmove(there, ours[i].iov_base, ours[i].iov_len);
		else
			memmove(ours[i].iov_base, there, ours[i].iov_len);
		theirs += ours[i].iov_len;
	}
	return 0;
}

static size_t total(const struct iovec *pieces, uint32_t count)
{
	size_t length = 0;

	for (uint32_t i = 0; i < count; i++)
		length += pieces[i].iov_len;
	return length;
}

int fabric_move(uint32_t process, const struct iovec *ours, uint32_t count, uint64_t theirs,
		bool write)
{
	size_t length = total(ours, count);
	struct iovec there = {.iov_base = (void *)(uintptr_t)theirs, .iov_len = length};
	pid_t pid = atomic_load(&fabric->processes[process].pid);
	ssize_t moved;

	if (pid == getpid())
		return move_here(ours, count, theirs, write);
	if (length == 0)
		return 0;
	moved = write ? process_vm_writev(pid, ours, count, &there, 1, 0)
		      : process_vm_readv(pid, ours, count, &there, 1, 0);
	if (moved == (ssize_t)length)
		return 0;
	if (moved < 0 && errno == EPERM)
		fabric_complain("no access to the memory of process %d: skip these tests where "
				"mlx5_model_unusable() says so",
				(int)pid);
	return moved < 0 && errno == ESRCH ? -ESRCH : -EFAULT;
}

/* A process of ours that may not be read would have to be asked; the call itself can be tried. */
const char *mlx5_model_unusable(void)
{
	static const char *reason;
	static bool asked;
	char from = 1, to = 0;
	struct iovec ours = {&to, 1}, theirs = {&from, 1};

	if (asked)
		return reason;
	if (process_vm_readv(getpid(), &ours, 1, &theirs, 1, 0) != 1)
		reason = "process_vm_readv is refused here: the model cannot reach other processes";
	asked = true;
	return reason;
}
