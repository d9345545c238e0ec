/* SPDX-License-Identifier: Apache-2.0 */
#include "target/config.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "common/users.h"
#include "directory/p2p.h"
#include "net/address.h"

static const char *const pages[] = {"auto", "4K", "2M", NULL}; /* enum slu_page */
static const char *const polls[] = {"adaptive", "busy", NULL}; /* enum slu_poll_mode */

#define FIELD(name) offsetof(struct config, name)

#define LIMIT_MAX (INT64_C(1) << 40)

const struct option_spec config_specs[] = {
	{"Memory to serve", "segment", 0, OPTION_LIST, FIELD(segment_texts),
	 .argument = "NAME=SIZE[@NODE]",
	 .help = "a segment of that size, bound to that NUMA node; may be given several times"},
	{NULL, "local_segment", 0, OPTION_STRING, FIELD(local_segment), .argument = "NAME",
	 .help = "one segment of that name, of --size and on --node"},
	{NULL, "size", 0, OPTION_SIZE, FIELD(size), "256M", 1, INT64_C(1) << 46, NULL, "BYTES",
	 "of --local_segment; suffixes K, M, G"},
	{NULL, "read-only", 0, OPTION_BOOL, FIELD(read_only), "false",
	 .help = "clients may read and never write; the memory is sealed against it"},
	{NULL, "page", 0, OPTION_ENUM, FIELD(page), "auto", .values = pages,
	 .help = "auto: 2 MiB pages when enough are free, else 4 KiB ones; a size: that or an "
		 "error"},
	{NULL, "node", 0, OPTION_INT, FIELD(node), "-1", -1, 1023, NULL, "N",
	 "NUMA node of pollers and of segments that name none; -1 for any"},
	{NULL, "mlock", 0, OPTION_BOOL, FIELD(mlock), "false", .help = "never swap it out"},
	{"Who may connect", "socket", 0, OPTION_STRING, FIELD(socket), .argument = "PATH",
	 .help = "listen on this Unix socket as well, for containers that share only a directory"},
	{NULL, "allow-user", 0, OPTION_LIST, FIELD(allow_user), .argument = "USER",
	 .help = "serve this user (name or uid) beside our own and root; may be given several "
		 "times"},
	{NULL, "shm-writer", 0, OPTION_LIST, FIELD(shm_writer), .argument = "USER",
	 .help = "let this user, named by --allow-user as well, write in shared memory, where who "
		 "writes can also take memory away from all who share it; others who may write do "
		 "so over TCP or RDMA; may be given several times. none: nobody, our own user and "
		 "root included"},
	{NULL, "listen", 0, OPTION_STRING, FIELD(listen), .argument = "ADDRESS:PORT",
	 .help = "serve over TCP as well; port 0 takes a free one; beyond loopback only with TLS, "
		 "or "
		 "--insecure"},
	SECURITY_FLAGS(struct config, security),
	RDMA_FLAGS(struct config, rdma),
	{"Pollers", "pollers", 0, OPTION_U64, FIELD(pollers), "0", 0, SLU_POLLERS_MAX, NULL, "N",
	 "polling threads; shared memory needs none, and with 0 there is one if TCP is served"},
	{NULL, "poll", 0, OPTION_ENUM, FIELD(poll), "adaptive", .values = polls,
	 .help = "adaptive pollers sleep when idle, busy ones use a whole core each"},
	{NULL, "cores", 0, OPTION_STRING, FIELD(cores), .argument = "LIST",
	 .help = "CPUs for the pollers, such as 2,3 or 4-7; chosen when not given"},
	{"What each identity may have at once", "max-connections", 0, OPTION_U64,
	 FIELD(limits[SLU_LIMIT_CONNECTIONS]), "4096", 1, LIMIT_MAX, NULL, "N",
	 "control connections; this and the following also in [identity NAME], for it alone"},
	{NULL, "max-data-connections", 0, OPTION_U64, FIELD(limits[SLU_LIMIT_DATA_CONNECTIONS]),
	 "1024", 1, LIMIT_MAX, NULL, "N", "data connections over TCP"},
	{NULL, "max-sessions", 0, OPTION_U64, FIELD(limits[SLU_LIMIT_SESSIONS]), "65536", 1,
	 LIMIT_MAX, NULL, "N", "sessions, one for each segment that a client has opened"},
	{NULL, "max-links", 0, OPTION_U64, FIELD(limits[SLU_LIMIT_LINKS]), "1024", 1, LIMIT_MAX,
	 NULL, "N", "links over RDMA"},
	{NULL, "max-response-bytes", 0, OPTION_SIZE, FIELD(limits[SLU_LIMIT_RESPONSE_BYTES]), "64M",
	 1, LIMIT_MAX, NULL, "BYTES", "memory for responses that clients do not read"},
	{NULL, "max-requests", 0, OPTION_U64, FIELD(limits[SLU_LIMIT_REQUESTS]), "1024", 1,
	 LIMIT_MAX, NULL, "N", "requests for a path that are not answered yet"},
	{NULL, "max-descriptors", 0, OPTION_U64, FIELD(limits[SLU_LIMIT_DESCRIPTORS]), "256", 4,
	 LIMIT_MAX, NULL, "N", "descriptors passed over Unix sockets and not received yet"},
	{NULL, "max-call-bytes", 0, OPTION_SIZE, FIELD(limits[SLU_LIMIT_CALL_BYTES]), "64M", 1,
	 LIMIT_MAX, NULL, "BYTES", "memory for calls of over 4 KiB that are not answered yet"},
	{NULL, "max-control-bytes", 0, OPTION_SIZE, FIELD(limits[SLU_LIMIT_CONTROL_BYTES]), "4M", 1,
	 LIMIT_MAX, NULL, "BYTES", "control messages in a second; more of them wait"},
	{"Output", "json", 0, OPTION_STRING, FIELD(json), .argument = "FILE",
	 .help = "write the final report there as JSON; - for standard output"},
	COMMAND_FLAGS(struct config, flags),
};

const uint32_t config_specs_count = sizeof(config_specs) / sizeof(config_specs[0]);

const char config_usage[] =
	"Usage: sluice-target --segment NAME=SIZE[@NODE] [options]\n"
	"       sluice-target doctor [the same options]\n"
	"\n"
	"Exposes memory under names, so that initiators read and write it one-sided. Serves until\n"
	"SIGINT or SIGTERM, then reports what was moved; SIGHUP reads identities and keys again.\n"
	"'-' and '_' in names of flags are the same; a switch is turned off by --no-NAME or\n"
	"--NAME=false. doctor looks at the machine and at what the options ask for, and says what\n"
	"mends it.\n";

const char config_notes[] =
	"\n"
	"Exit codes: 0 served and ended by a signal, 1 failed, or a problem that doctor found,\n"
	"            2 wrong command line or configuration.\n"
	"Example:    sluice-target --segment ram0=4G\n";

static int check_name(const char *where, const char *name, size_t len)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";

	if (!len || len > SLU_NAME_MAX || strspn(name, allowed) < len)
		return fail(-EINVAL,
			    "%s: \"%.*s\" is no segment name: 1 to %d letters, digits, dots, "
			    "dashes and underscores",
			    where, (int)(len > 80 ? 80 : len), name, SLU_NAME_MAX);
	return 0;
}

static int parse_node(const char *text, int *node)
{
	size_t digits = strspn(text, "0123456789");

	if (!digits || digits > 4 || text[digits])
		return fail(-EINVAL, "--segment: \"%.80s\" is no NUMA node number", text);
	*node = 0;
	while (*text)
		*node = *node * 10 + (*text++ - '0');
	return 0;
}

/* "NAME=SIZE[@NODE]" */
static int parse_segment(const char *text, int default_node, struct segment_config *segment)
{
	const char *equals = strchr(text, '=');
	const char *at = equals ? strchr(equals, '@') : NULL;
	char size[32];
	int rc;

	if (!equals)
		return fail(-EINVAL,
			    "--segment: \"%.80s\" has no size: write NAME=SIZE[@NODE], such as "
			    "ram0=4G or ram0=4G@1",
			    text);
	rc = check_name("--segment", text, (size_t)(equals - text));
	if (rc)
		return rc;
	snprintf(segment->name, sizeof(segment->name), "%.*s", (int)(equals - text), text);
	snprintf(size, sizeof(size), "%.*s", at ? (int)(at - equals - 1) : 31, equals + 1);
	if (option_parse_size(size, &segment->length_bytes) || !segment->length_bytes)
		return fail(-EINVAL,
			    "--segment: \"%.80s\": \"%s\" is no size: at least 1, with K, M, G "
			    "or T, such as 4G",
			    text, size);
	segment->node = default_node;
	return at ? parse_node(at + 1, &segment->node) : 0;
}

static int check_unique(const struct config *config)
{
	const struct segment_config *last = &config->segments[config->segments_count - 1];

	for (const struct segment_config *other = config->segments; other < last; other++)
		if (!strcmp(other->name, last->name))
			return fail(-EINVAL,
				    "segment \"%s\" is asked for twice: give each its own name",
				    last->name);
	return 0;
}

static int add_local_segment(struct config *config)
{
	struct segment_config *segment = &config->segments[config->segments_count++];
	int rc =
		check_name("--local_segment", config->local_segment, strlen(config->local_segment));

	if (rc)
		return rc;
	snprintf(segment->name, sizeof(segment->name), "%s", config->local_segment);
	segment->length_bytes = config->size;
	segment->node = config->node;
	return check_unique(config);
}

static int collect_segments(struct config *config)
{
	for (uint32_t i = 0; i < config->segment_texts.count; i++) {
		int rc = parse_segment(config->segment_texts.items[i], config->node,
				       &config->segments[config->segments_count++]);

		if (!rc)
			rc = check_unique(config);
		if (rc)
			return rc;
	}
	if (config->local_segment)
		return add_local_segment(config);
	return 0;
}

static bool is_let_in(const struct config *config, uid_t uid)
{
	if (uid == geteuid() || uid == 0)
		return true;
	for (uint32_t i = 0; i < config->allowed_uids_count; i++)
		if (config->allowed_uids[i] == uid)
			return true;
	return false;
}

/* After those of --allow-user. */
static int resolve_writers(struct config *config)
{
	const struct option_list *writers = &config->shm_writer;
	int rc;

	for (uint32_t i = 0; i < writers->count; i++)
		config->no_shm_writers |= strcmp(writers->items[i], "none") == 0;
	if (config->no_shm_writers && writers->count > 1)
		return fail(-EINVAL,
			    "--shm-writer: none stands alone: leave out the others, or it");
	if (config->no_shm_writers)
		return 0;
	rc = users_resolve("shm-writer", writers, config->shm_writers, SLU_ALLOWED_UIDS_MAX);
	for (int i = 0; i < rc; i++)
		if (!is_let_in(config, config->shm_writers[i]))
			return fail(
				-EINVAL,
				"--shm-writer: user %.80s is not let in: name it with --allow-user "
				"as well",
				writers->items[i]);
	if (rc < 0)
		return rc;
	config->shm_writers_count = (uint32_t)rc;
	return 0;
}

static int check_places(const struct config *config)
{
	struct sockaddr_un path;
	struct host_port at;
	socklen_t length;
	int rc = 0;

	if (config->socket && strlen(config->socket) > SLU_SOCKET_PATH_MAX)
		return fail(-EINVAL, "--socket: the path is longer than %d bytes",
			    SLU_SOCKET_PATH_MAX);
	if (config->socket)
		rc = p2p_path_address(config->socket, &path, &length);
	if (!rc && config->listen)
		rc = address_parse(config->listen, &at);
	return rc;
}

int config_check_partial(void *values, const struct options *options)
{
	struct config *config = values;
	int rc = collect_segments(config);

	if (rc)
		return rc;
	if (options_given(options, "size") && !config->local_segment)
		return fail(-EINVAL, "--size goes with --local_segment: write --segment NAME=SIZE "
				     "otherwise");
	rc = check_places(config);
	if (!rc)
		rc = security_check(&config->security);
	if (!rc)
		rc = rdma_check(&config->rdma);
	if (rc)
		return rc;
	rc = users_resolve("allow-user", &config->allow_user, config->allowed_uids,
			   SLU_ALLOWED_UIDS_MAX);
	if (rc < 0)
		return rc;
	config->allowed_uids_count = (uint32_t)rc;
	return resolve_writers(config);
}

int config_check(void *values, const struct options *options)
{
	struct config *config = values;
	int rc = config_check_partial(config, options);

	if (!rc && !config->segments_count)
		rc = fail(-EINVAL, "nothing to serve: name memory with --segment NAME=SIZE, or one "
				   "segment with --local_segment NAME");
	return rc;
}
