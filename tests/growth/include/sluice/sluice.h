/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Sluice: moves bytes between memories. This header brings all of the public interface.
 *
 * A process opens an engine, or several. A target exports regions as segments; an initiator opens them as
 * remotes and reads and writes them one-sided, in batches:
 *
 *   slu_engine_open -> slu_region_alloc -> slu_segment_export                          (target)
 *   slu_engine_open -> slu_region_alloc -> slu_remote_open -> slu_queue_open
 *                   -> slu_submit / slu_reap ...                                    (initiator)
 */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H

#include <sluice/cache.h>
#include <sluice/engine.h>
#include <sluice/error.h>
#include <sluice/memory.h>
#include <sluice/queue.h>
#include <sluice/security.h>
#include <sluice/segment.h>
#include <sluice/version.h>

#endif
