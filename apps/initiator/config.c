/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "common/users.h"
#include "numa/placement.h"

enum metadata {
	METADATA_P2P,
};

static const char *const metadata_types[] = {"p2p", "etcd", "redis", "http", NULL};
static const char *const workloads[] = {"read", "write", "mix", NULL}; /* enum workload */
static const char *const accesses[] = {"sequential", "random", NULL};  /* enum access_order */
static const char *const pages[] = {"auto", "4K", "2M", NULL};         /* enum slu_page */
static const char *const polls[] = {"adaptive", "busy", NULL};         /* enum slu_poll_mode */
static const char *const connects[] = {"session", "cm", NULL};         /* enum connect */
static const char *const transports[] = {"auto", "shm", "verbs", "tcp", "fake", NULL};

#define FIELD(name) offsetof(struct config, name)

const struct option_spec config_specs[] = {
	{"Where", "remote_segment", 0, OPTION_STRING, FIELD(remote_segment),
	 .argument = "NAME[@HOST:PORT|@PATH]",
	 .help = "segment to read and write, on this host, or at that TCP address or Unix socket; "
		 "required"},
	{NULL, "local_segment", 0, OPTION_STRING, FIELD(local_segment), .argument = "NAME",
	 .help = "export the local buffers under this name while running"},
	{NULL, "metadata_type", 0, OPTION_ENUM, FIELD(metadata_type), "p2p",
	 .values = metadata_types, .help = "directory that knows the segments"},
	{NULL, "metadata_servers", 0, OPTION_STRING, FIELD(metadata_servers), .argument = "LIST",
	 .help = "comma separated; required unless p2p"},
	{NULL, "transport", 0, OPTION_ENUM, FIELD(transport), "auto", .values = transports,
	 .help = "auto: the best there is; a name: that one or an error"},
	{NULL, "require", 0, OPTION_ENUM, FIELD(require), "auto", .values = transports,
	 .help = "the same as --transport"},
	{NULL, "tcp-connections", 0, OPTION_U64, FIELD(tcp_connections), "0", 0,
	 SLU_TCP_CONNECTIONS_MAX, NULL, "N", "data connections of each poller over TCP; 0: chosen"},
	{NULL, "allow-user", 0, OPTION_LIST, FIELD(allow_user), .argument = "USER",
	 .help = "trust a target of this user (name or uid) beside our own and root"},
	{NULL, "connect-timeout", 0, OPTION_DOUBLE, FIELD(connect_timeout), "5", 0, 3600, NULL,
	 "SECONDS", "until the target must have let us in, whatever is tried"},

	SECURITY_FLAGS(struct config, security),
	{NULL, "identity", 0, OPTION_STRING, FIELD(identity), .argument = "NAME",
	 .help = "who we are: which line of --psk; the first when not given"},
	{NULL, "tls-name", 0, OPTION_STRING, FIELD(tls_name), .argument = "NAME",
	 .help = "what the target's certificate must name; its address when not given"},

	RDMA_FLAGS(struct config, rdma),
	{NULL, "rdma-queue-pairs", 0, OPTION_U64, FIELD(rdma_queue_pairs), "0", 0,
	 SLU_RDMA_QUEUE_PAIRS_MAX, NULL, "N",
	 "queue pairs of each poller and target for bulk, beside the one for small operations; 0: "
	 "chosen"},
	{NULL, "connect", 0, OPTION_ENUM, FIELD(connect), "session", .values = connects,
	 .help = "queue pairs are brought together by the authenticated control session, or by "
		 "librdmacm (cm)"},

	{"Work", "workload", 0, OPTION_ENUM, FIELD(workload), "read", .values = workloads,
	 .help = "mix alternates batches of WRITE and READ"},
	{NULL, "size", 0, OPTION_SIZE, FIELD(size), "64K", 1, INT64_C(1) << 40, NULL, "BYTES",
	 "per request; suffixes K, M, G"},
	{NULL, "batch", 0, OPTION_U64, FIELD(batch), "16", 1, SLU_QUEUE_DEPTH_MAX, NULL, "N",
	 "requests per batch"},
	{NULL, "depth", 0, OPTION_U64, FIELD(depth), "2", 1, SLU_QUEUE_DEPTH_MAX, NULL, "N",
	 "batches in flight per thread"},
	{NULL, "threads", 0, OPTION_U64, FIELD(threads), "4", 1, THREADS_MAX, NULL, "N",
	 "worker threads, each with a queue and a slice of the segment of its own"},
	{NULL, "access", 0, OPTION_ENUM, FIELD(access), "sequential", .values = accesses,
	 .help = "order of offsets within a slice"},
	{NULL, "rate", 0, OPTION_RATE, FIELD(rate), NULL, 0, 0, NULL, "N",
	 "open loop: this many requests a second of all threads are due at fixed times, and "
	 "latency counts from when they were due; suffixes k, M, G; 0 for closed loop"},
	{NULL, "duration", 0, OPTION_DOUBLE, FIELD(duration), "10", 0, 1000000, NULL, "SECONDS",
	 "of one measurement"},
	{NULL, "warmup", 0, OPTION_DOUBLE, FIELD(warmup), "1", 0, 1000000, NULL, "SECONDS",
	 "before each measurement, not counted"},
	{NULL, "repeat", 0, OPTION_U64, FIELD(repeat), "1", 1, REPEAT_MAX, NULL, "N",
	 "measurements; the report gives the median and the spread"},
	{NULL, "sweep", 0, OPTION_BOOL, FIELD(sweep), "false",
	 .help = "measure sizes from 64 B to 16 MiB, each four times the last, in place of --size"},
	{NULL, "fill", 0, OPTION_BOOL, FIELD(fill), "false",
	 .help = "write data to what read will read before the clock runs; mix always does"},
	{NULL, "integrity_check", 0, OPTION_BOOL, FIELD(integrity_check), "false",
	 .help = "compare the data: every batch of mix and read, what write wrote, and at the end "
		 "the whole segment"},
	{NULL, "deadline", 0, OPTION_U64, FIELD(deadline_ms), "0", 0, SLU_TIMEOUT_MAX_US / 1000,
	 NULL, "MS", "milliseconds by which each operation must finish; 0 for 30 seconds"},
	{NULL, "seed", 0, OPTION_U64, FIELD(seed), "1", 0, 0, NULL, "N",
	 "of the patterns and of random offsets"},

	{"Memory and cores", "use_dram", 0, OPTION_BOOL, FIELD(use_dram), "true",
	 .help = "buffers in host memory"},
	{NULL, "use_vram", 0, OPTION_BOOL, FIELD(use_vram), "true",
	 .help = "buffers in GPU memory; skipped aloud where that cannot be"},
	{NULL, "shmfs", 0, OPTION_BOOL, FIELD(shmfs), "false",
	 .help = "allocate local buffers in shareable memory (a sealed memfd)"},
	{NULL, "page", 0, OPTION_ENUM, FIELD(page), "auto", .values = pages,
	 .help = "auto: 2 MiB pages when enough are free, else 4 KiB ones; a size: that or an "
		 "error"},
	{NULL, "node", 0, OPTION_INT, FIELD(node), "-1", -1, 1023, NULL, "N",
	 "NUMA node of local buffers and pollers; -1 for any"},
	{NULL, "pollers", 0, OPTION_U64, FIELD(pollers), "0", 0, SLU_POLLERS_MAX, NULL, "N",
	 "polling threads that the queues share; 0: each worker polls its own queue inline"},
	{NULL, "poll", 0, OPTION_ENUM, FIELD(poll), "adaptive", .values = polls,
	 .help = "adaptive pollers sleep when idle, busy ones use a whole core each"},
	{NULL, "cores", 0, OPTION_STRING, FIELD(cores), .argument = "LIST",
	 .help = "CPUs such as 2,3 or 4-7: the first --pollers of them for the pollers, the others "
		 "for the workers in turn; without it workers are not pinned"},

	{"Report", "report_unit", 0, OPTION_ENUM, FIELD(report_unit), "GB", .values = unit_names,
	 .help = "unit of throughput"},
	{NULL, "report_precision", 0, OPTION_U64, FIELD(report_precision), "2", 0, 9, NULL, "N",
	 "decimals of throughput"},
	{NULL, "json", 0, OPTION_STRING, FIELD(json), .argument = "FILE",
	 .help = "write the report there as JSON; - for standard output"},
	{NULL, "progress", 0, OPTION_BOOL, FIELD(progress),
	 .help = "a live line on stderr: rate and p99 so far (default on a terminal)"},
	COMMAND_FLAGS(struct config, flags),
};

const uint32_t config_specs_count = sizeof(config_specs) / sizeof(config_specs[0]);

const char config_usage[] =
	"Usage: sluice-initiator --remote_segment NAME [options]\n"
	"       sluice-initiator explain --remote_segment NAME [options]\n"
	"       sluice-initiator doctor [--remote_segment NAME] [options]\n"
	"\n"
	"Reads and writes the memory of a sluice-target and reports how fast that went. "
	"Writing\n"
	"workloads overwrite the segment. '-' and '_' in names of flags are the same; a "
	"switch\n"
	"is turned off by --no-NAME or --NAME=false.\n"
	"explain tells the ways to a segment, which is taken, and why the others are not. doctor\n"
	"looks at this machine, and whether the segment can be reached, and says what mends it.\n";

const char config_notes[] =
	"\n"
	"Exit codes: 0 done, and verified where asked; 1 failed, interrupted or wrong data, no "
	"way\n"
	"            (explain), a problem (doctor); 2 wrong command line or configuration.\n"
	"Example:    sluice-initiator --remote_segment ram0 --workload mix "
	"--integrity_check\n";

static int check_directory(const struct config *config)
{
	if (config->metadata_type == METADATA_P2P)
		return 0;
	if (!config->metadata_servers)
		return fail(-EINVAL, "--metadata_type %s needs --metadata_servers HOST:PORT,...",
			    metadata_types[config->metadata_type]);
	return fail(-EINVAL,
		    "--metadata_type %s is not in this version: use p2p, where the name of the "
		    "segment is its address",
		    metadata_types[config->metadata_type]);
}

static int check_load(const struct config *config)
{
	if (config->duration <= 0)
		return fail(-EINVAL, "--duration: give more than 0 seconds");
	if (config->connect_timeout <= 0)
		return fail(-EINVAL, "--connect-timeout: give more than 0 seconds");
	if (config->batch * config->depth > SLU_QUEUE_DEPTH_MAX)
		return fail(
			-EINVAL,
			"--batch %llu times --depth %llu is over the %u operations that a queue "
			"holds: lower one of them",
			(unsigned long long)config->batch, (unsigned long long)config->depth,
			SLU_QUEUE_DEPTH_MAX);
	if (!config->pollers && config->threads > SLU_POLLERS_MAX)
		return fail(-EINVAL,
			    "--threads %llu: at most %d inline queues; use --pollers 1 or more to "
			    "share polling threads",
			    (unsigned long long)config->threads, SLU_POLLERS_MAX);
	return 0;
}

static int check_fill(const struct config *config)
{
	if (config->fill && config->workload != WORKLOAD_READ)
		return fail(-EINVAL,
			    "--fill goes with --workload read: mix writes what it reads before the "
			    "clock runs, and write reads nothing. Leave it out");
	return 0;
}

static int check_cores(const struct config *config)
{
	int cores[THREADS_MAX];
	int count;

	if (!config->cores)
		return 0;
	count = placement_parse_cores(config->cores, cores, THREADS_MAX);
	if (count < 0)
		return count;
	if ((uint64_t)count < config->pollers)
		return fail(-EINVAL,
			    "--cores: %d CPUs for %llu pollers: list one for each at least", count,
			    (unsigned long long)config->pollers);
	return 0;
}

static int check_transport(struct config *config)
{
	int rc;

	if (config->require != SLU_TRANSPORT_AUTO && config->transport != SLU_TRANSPORT_AUTO &&
	    config->require != config->transport)
		return fail(-EINVAL, "--require %s and --transport %s are two: give one of them",
			    transports[config->require], transports[config->transport]);
	if (config->require != SLU_TRANSPORT_AUTO)
		config->transport = config->require;
	if (config->identity && !config->security.psk)
		return fail(-EINVAL, "--identity names a line of --psk, which is not given");
	if (config->tls_name && !config->security.tls_cert)
		return fail(-EINVAL, "--tls-name goes with --tls-cert: only certificates carry "
				     "names");
	if (!config->rdma.on && config->transport == SLU_TRANSPORT_VERBS)
		return fail(-EINVAL, "--no-rdma leaves no device for the transport verbs, which is "
				     "required: leave one of the two out");
	rc = security_check(&config->security);
	return rc ? rc : rdma_check(&config->rdma);
}

static int check(struct config *config)
{
	int rc = check_directory(config);

	if (!rc)
		rc = check_transport(config);

	if (!rc && !config->use_dram && !config->use_vram)
		rc = fail(-EINVAL,
			  "--use_dram and --use_vram are both off: no memory is left to use");
	if (!rc)
		rc = check_load(config);
	if (!rc)
		rc = check_fill(config);
	if (!rc)
		rc = check_cores(config);
	if (rc)
		return rc;
	rc = users_resolve("allow-user", &config->allow_user, config->allowed_uids,
			   SLU_ALLOWED_UIDS_MAX);
	if (rc < 0)
		return rc;
	config->allowed_uids_count = (uint32_t)rc;
	return 0;
}

int config_check_partial(void *values, const struct options *options)
{
	struct config *config = values;

	if (config->sweep && options_given(options, "size"))
		return fail(-EINVAL, "--sweep chooses the sizes: leave --size out");
	if (!options_given(options, "progress"))
		config->progress = isatty(STDERR_FILENO);
	return check(config);
}

int config_check(void *values, const struct options *options)
{
	const struct config *config = values;

	if (!config->remote_segment)
		return fail(-EINVAL,
			    "--remote_segment is required: the name that sluice-target serves");
	return config_check_partial(values, options);
}

const char *config_workload_name(const struct config *config)
{
	return workloads[config->workload];
}

const char *config_access_name(const struct config *config)
{
	return accesses[config->access];
}

void config_remote(const struct config *config, struct slu_remote_options *options)
{
	slu_remote_options_init(options, sizeof(*options));
	options->transport = (enum slu_transport)config->transport;
	options->rights = config_rights(config);
	options->timeout_us = (uint64_t)(config->connect_timeout * 1e6);
}

uint32_t config_rights(const struct config *config)
{
	if (config->integrity_check || config->fill || config->workload == WORKLOAD_MIX)
		return SLU_RIGHT_READ | SLU_RIGHT_WRITE;
	return config->workload == WORKLOAD_READ ? SLU_RIGHT_READ : SLU_RIGHT_WRITE;
}
