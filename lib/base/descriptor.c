/* SPDX-License-Identifier: Apache-2.0 */
#include "base/descriptor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "base/fork.h"

#define WORD_BITS 64u

/*
 * A bit is set after its descriptor was opened and cleared before it is closed: at worst a child
 * keeps one open, never does it close what is the program's own.
 */
static _Atomic uint64_t noted[DESCRIPTORS_NOTED_MAX / WORD_BITS];

static void close_word(uint32_t index, uint64_t word)
{
	while (word) {
		close((int)(index * WORD_BITS) + __builtin_ctzll(word));
		word &= word - 1;
	}
}

static void close_all(struct fork_hook *hook)
{
	(void)hook;
	for (uint32_t i = 0; i < DESCRIPTORS_NOTED_MAX / WORD_BITS; i++)
		if (atomic_load_explicit(&noted[i], memory_order_relaxed))
			close_word(i, atomic_exchange(&noted[i], 0));
}

static void watch(void)
{
	static struct fork_hook hook = {.in_child = close_all};

	fork_watch(&hook);
}

int descriptor_note(int fd)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch);
	if (fd >= 0 && (uint32_t)fd < DESCRIPTORS_NOTED_MAX)
		atomic_fetch_or(&noted[(uint32_t)fd / WORD_BITS],
				UINT64_C(1) << (uint32_t)fd % WORD_BITS);
	return fd;
}

void descriptor_forget(int fd)
{
	if (fd >= 0 && (uint32_t)fd < DESCRIPTORS_NOTED_MAX)
		atomic_fetch_and(&noted[(uint32_t)fd / WORD_BITS],
				 ~(UINT64_C(1) << (uint32_t)fd % WORD_BITS));
}

void descriptor_close(int fd)
{
	descriptor_forget(fd);
	close(fd);
}
