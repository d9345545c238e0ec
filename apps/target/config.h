/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the command line of sluice-target asks for.
 */
#ifndef TARGET_CONFIG_H
#define TARGET_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/sluice.h>

#include "common/options.h"
#include "common/command.h"
#include "common/rdma.h"
#include "common/security.h"

#define TARGET_SEGMENTS_MAX (OPTION_LIST_MAX + 1) /* --segment each, and --local_segment */

/** One segment to make. */
struct segment_config {
	char name[SLU_NAME_MAX + 1];
	uint64_t length_bytes;
	int node; /* -1 = any */
};

struct config {
	struct option_list segment_texts;
	const char *local_segment;
	uint64_t size;
	bool read_only;
	int page; /* enum slu_page */
	bool mlock;
	int node;
	const char *socket;
	struct option_list allow_user;
	struct option_list shm_writer;
	const char *listen;
	struct security security;
	struct rdma rdma;
	uint64_t pollers;
	int poll; /* enum slu_poll_mode */
	const char *cores;
	const char *json;
	uint64_t limits[SLU_LIMITS_MAX]; /* of each identity */
	struct command_flags flags;

	struct segment_config segments[TARGET_SEGMENTS_MAX]; /* from the texts above */
	uint32_t segments_count;
	uid_t allowed_uids[SLU_ALLOWED_UIDS_MAX];
	uint32_t allowed_uids_count;
	uid_t shm_writers[SLU_ALLOWED_UIDS_MAX];
	uint32_t shm_writers_count;
	bool no_shm_writers;
};

/** The table of flags, and --help's text. */
extern const struct option_spec config_specs[];
extern const uint32_t config_specs_count;
extern const char config_usage[];
extern const char config_notes[];

/**
 * Check what was read and fill the fields that follow from it.
 *
 * @param config   a struct config
 * @return         0; -EINVAL, -ENOENT, -E2BIG: a usage error, see slu_last_error()
 */
int config_check(void *config, const struct options *options);

/** The same, and there need be nothing to serve. */
int config_check_partial(void *config, const struct options *options);

#endif
