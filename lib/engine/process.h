/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a process has once, whatever the number of its engines: EAL, the copies chosen for its CPU,
 * its barriers, the rate of its clock, mappings. It is begun with the first engine and stays.
 * Everything else is an engine's own.
 */
#ifndef ENGINE_PROCESS_H
#define ENGINE_PROCESS_H

#include <stdatomic.h>
#include <stdint.h>

#include <sluice/engine.h>

/** Any thread, before anything of an engine. @return 0; -ECHILD; as eal_start(), heap_start() */
int process_start(void);

/** What engines that were given no clock go by. */
slu_clock_fn process_clock(void);

/** Areas that its engines share with clients, each of them a mapping. */
extern _Atomic uint32_t process_areas;

#endif
