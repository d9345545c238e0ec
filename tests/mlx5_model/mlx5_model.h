/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A software model of an mlx5 device: its send queues, completion queues and reliable connections.
 *
 * A program that links the dependency mlx5_model has the functions of libibverbs and libmlx5 that
 * Sluice calls in its own image, so they win over those of the shared libraries, and sees one
 * device, "mlx5_model0", with an active Ethernet port. A thread of the process is the device: it
 * obeys the doorbells, parses work queue entries, moves memory and writes completion queue entries,
 * all by the layouts that <infiniband/mlx5dv.h> publishes.
 *
 * Processes that were forked or executed from one that has the model share a fabric (fabric.h),
 * over which their queue pairs are connected and by which each reaches the memory of the others.
 *
 * The model is stricter than hardware: what a device would choke on, or would only notice by moving
 * wrong bytes, ends the program with "Bail out! mlx5 model: ..." (a TAP reader fails the test).
 *
 * What it is not: a measure of speed, or a proof that a real card sees the same. Its requests
 * travel in no packets; relaxed ordering, congestion, path migration, atomics and shared receive
 * queues are not there.
 *
 * With MLX5_MODEL_WINDOWS in the environment it has memory windows of type 2, and queue pairs that
 * libibverbs drives (ibv_wr_send, ibv_wr_bind_mw) to bind them. How such a work request lies in the
 * ring is the model's own.
 *
 * The functions here act on this process's device. Any thread may call them.
 */
#ifndef TESTS_MLX5_MODEL_H
#define TESTS_MLX5_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define MLX5_MODEL_DEVICE "mlx5_model0"

/** Any queue pair of this process. */
#define MLX5_MODEL_ANY 0u

/**
 * Can processes reach each other's memory here?
 *
 * @return NULL; or why not, for skipping a test: within one process the model works all the same
 */
const char *mlx5_model_unusable(void);

/**
 * Let a work request fail in place of being carried out, once.
 *
 * @param qpn       number of the queue pair, or MLX5_MODEL_ANY
 * @param after     so many succeed before it, counted from now
 * @param syndrome  MLX5_CQE_SYNDROME_*
 * @param vendor    vendor's part of the syndrome
 */
void mlx5_model_fail(uint32_t qpn, uint32_t after, uint8_t syndrome, uint8_t vendor);

/** Let completions come so much later than the work is done; 0: at once. */
void mlx5_model_delay(uint32_t delay_us);

/** Pull the cable of a queue pair, of this process or another's, or put it back. */
void mlx5_model_cut(uint32_t qpn, bool cut);

/** Let the device not look at what is posted on a queue pair, until it fails or goes on. */
void mlx5_model_stall(uint32_t qpn, bool stalled);

/**
 * Keep this process's queue pairs from becoming ready to receive, as the kernel does while nobody
 * on the network answers to the peer's address: ibv_modify_qp() waits until it is let go, or for
 * ten minutes, and then fails with ETIMEDOUT.
 */
void mlx5_model_hold(bool held);

/** Calls that wait so. */
uint32_t mlx5_model_held(void);

/** While paused the device looks at nothing; when this returns it has stopped. */
void mlx5_model_pause(bool paused);

/** Let ibv_alloc_td() fail: queue pairs created from now on have a register that is shared: only 8
 * bytes at a time go well there. */
void mlx5_model_without_thread_domains(bool without);

/** A device that has no shared receive queues, for contexts opened from now on. */
void mlx5_model_without_shared_receives(bool without);

/** Let the next so many memory windows not be there. */
void mlx5_model_refuse_windows(uint32_t count);

/** The doorbell register of a queue pair as it lies there, both halves; paused. */
const uint64_t *mlx5_model_register(uint32_t qpn, uint32_t *half_bytes);

struct mlx5_model_counts {
	uint64_t bells;     /* rings noticed: some may have come together */
	uint64_t requests;  /* work queue entries carried out */
	uint64_t entries;   /* completion queue entries written */
	uint64_t events;    /* completion events of send queues */
	uint32_t reads_max; /* READs of one queue pair outstanding at once */
};

/** Of this process since its start. */
void mlx5_model_count(struct mlx5_model_counts *counts);

#endif
