/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the command line of sluice-initiator asks for.
 */
#ifndef INITIATOR_CONFIG_H
#define INITIATOR_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/sluice.h>

#include "common/options.h"
#include "common/command.h"
#include "common/rdma.h"
#include "common/security.h"
#include "initiator/units.h"

#define THREADS_MAX 1024
#define REPEAT_MAX  1000

enum workload {
	WORKLOAD_READ,
	WORKLOAD_WRITE,
	WORKLOAD_MIX,
};

enum access_order {
	ACCESS_SEQUENTIAL,
	ACCESS_RANDOM,
};

/** How queue pairs are brought together. */
enum connect {
	CONNECT_SESSION, /* each end tells the other by the control session */
	CONNECT_CM,      /* librdmacm */
};

struct config {
	int metadata_type;
	const char *metadata_servers;
	const char *remote_segment;
	const char *local_segment;
	int transport; /* enum slu_transport */
	int require;   /* likewise: another name of it */
	struct option_list allow_user;
	double connect_timeout;   /* seconds */
	uint64_t tcp_connections; /* 0 = chosen */
	const char *identity;
	const char *tls_name;
	struct security security;
	struct rdma rdma;
	uint64_t rdma_queue_pairs; /* 0 = chosen */
	int connect;               /* enum connect */

	int workload; /* enum workload */
	uint64_t size;
	uint64_t batch;
	uint64_t depth;
	uint64_t threads;
	double duration;
	double warmup;
	uint64_t repeat;
	bool sweep;
	int access;  /* enum access_order */
	double rate; /* requests per second of all threads; 0 = as fast as they complete */
	uint64_t seed;
	uint64_t deadline_ms; /* 0 = the queue's default */
	bool fill;            /* what is read is written first */
	bool integrity_check;

	bool shmfs;
	bool use_dram;
	bool use_vram;
	int page; /* enum slu_page */
	int node;
	uint64_t pollers;
	int poll; /* enum slu_poll_mode */
	const char *cores;

	int report_unit; /* enum unit */
	uint64_t report_precision;
	const char *json;
	bool progress;
	struct command_flags flags;

	uid_t allowed_uids[SLU_ALLOWED_UIDS_MAX];
	uint32_t allowed_uids_count;
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

/** The same, and --remote_segment may be missing. */
int config_check_partial(void *config, const struct options *options);

/** "read", "write", "mix"; "sequential", "random". */
const char *config_workload_name(const struct config *config);
const char *config_access_name(const struct config *config);

/** Is the segment written before the clock runs, with what READs will find? */
static inline bool config_fills(const struct config *config)
{
	if (config->workload == WORKLOAD_READ)
		return config->fill || config->integrity_check;
	return config->workload == WORKLOAD_MIX && !config->integrity_check;
}

/** How the segment is to be opened. */
void config_remote(const struct config *config, struct slu_remote_options *options);

/** Rights on the remote segment that the workload needs: SLU_RIGHT_READ, SLU_RIGHT_WRITE. */
uint32_t config_rights(const struct config *config);

#endif
