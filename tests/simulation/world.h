/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Several engines in one process, one thread and virtual time, all chance from one seed: loops,
 * pollers, repairs and a network of TCP take their turns in an order that the seed decides. What
 * is simulated is what engine, control and transport stand on; their code runs as it is.
 *
 * The bytes of a connection go through a pair of sockets at each end, of which the world has the
 * other halves and moves the bytes in its own time: so descriptors are ready when they would be.
 */
#ifndef TESTS_SIMULATION_WORLD_H
#define TESTS_SIMULATION_WORLD_H

#include <stdbool.h>
#include <stdint.h>

struct slu_engine;
struct slu_engine_options;

struct world_options {
	uint64_t seed;
	uint64_t delay_max_ns; /* of bytes on their way */
	double cut;            /* chance that a read or a write is short */
	double reset;          /* that what a connection delivers is its end instead */
};

/** Before any engine is opened. */
void world_begin(const struct world_options *options);

/** Connections are not cut, nor reset, from now on. */
void world_calm(void);

/** All engines are closed. @return the hash of all that has happened */
uint64_t world_end(void);

/** As slu_engine_open(), and it takes its turns. */
int world_open(const struct slu_engine_options *options, struct slu_engine **engine);

void world_close(struct slu_engine *engine);

/** One turn of somebody, or time passes. */
void world_step(void);

uint64_t world_now_ns(void);

/** 0..bound-1, for the work. */
uint64_t world_chance(uint64_t bound);

/** Something that belongs to the history. */
void world_note(uint64_t what);

struct world_counts {
	uint64_t steps;
	uint64_t connections;
	uint64_t resets;
	uint64_t short_calls; /* reads and writes */
	uint64_t bytes;
};

const struct world_counts *world_counts(void);

#endif
