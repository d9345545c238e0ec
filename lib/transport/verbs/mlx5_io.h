/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Order between this CPU and a device, and stores to its registers.
 *
 * Two streams are ordered against each other: what the CPU stores to memory and to the device's
 * write-combining registers, and what the device reads and writes by DMA. C11's fences order
 * threads, not devices, so these are named for their use and written for each architecture.
 */
#ifndef VERBS_MLX5_IO_H
#define VERBS_MLX5_IO_H

#include <stdint.h>

#if defined(__x86_64__)
#include <emmintrin.h>
/* Stores to ordinary memory are not reordered, for a device neither. */
#define mlx5_io_stores() __asm__ volatile("" ::: "memory")
/* Nor are loads. */
#define mlx5_io_loads() __asm__ volatile("" ::: "memory")
#define mlx5_io_flush() __asm__ volatile("sfence" ::: "memory")
#elif defined(__aarch64__)
#define mlx5_io_stores() __asm__ volatile("dmb oshst" ::: "memory")
#define mlx5_io_loads()  __asm__ volatile("dmb oshld" ::: "memory")
#define mlx5_io_flush()  __asm__ volatile("dsb st" ::: "memory")
#else
#error "the order of stores to a device is not known for this architecture"
#endif

/** What was stored to memory is there before what is stored to memory from here on. */
static inline void mlx5_io_order_stores(void)
{
	mlx5_io_stores();
}

/**
 * After an owner bit was read: what the device wrote before it is read after it. Also before a
 * store that lets the device write over what was read.
 */
static inline void mlx5_io_order_loads(void)
{
	mlx5_io_loads();
}

/**
 * Before stores to a register: what is in memory, the doorbell record too, goes first. After them:
 * they leave the write-combining buffer now, and are not combined with later ones.
 */
static inline void mlx5_io_fence_register(void)
{
	mlx5_io_flush();
}

/** One store of 8 bytes that are in the device's order already. */
static inline void mlx5_io_write64(void *to, uint64_t value)
{
	*(volatile uint64_t *)to = value;
}

/** A basic block into a BlueFlame register, in ascending order: no memcpy, which may not be. */
static inline void mlx5_io_write_block(void *to, const void *from)
{
#if defined(__x86_64__)
	__m128i *out = to;
	const __m128i *in = from;

	_mm_stream_si128(&out[0], _mm_load_si128(&in[0]));
	_mm_stream_si128(&out[1], _mm_load_si128(&in[1]));
	_mm_stream_si128(&out[2], _mm_load_si128(&in[2]));
	_mm_stream_si128(&out[3], _mm_load_si128(&in[3]));
#else
	volatile uint64_t *out = to;
	const uint64_t *in = from;

	for (unsigned i = 0; i < 8; i++)
		out[i] = in[i];
#endif
}

#endif
