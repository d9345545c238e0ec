/* SPDX-License-Identifier: Apache-2.0 */
#include "directory/p2p.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define ABSTRACT_PREFIX "sluice/"

static_assert(SLU_SOCKET_PATH_MAX == sizeof(((struct sockaddr_un *)0)->sun_path) - 1,
	      "a path and its NUL fill sun_path");

int p2p_check_segment(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > SLU_NAME_MAX)
		return fail(-EINVAL, "a segment's name has 1 to %d bytes, \"%.80s\" has %zu",
			    SLU_NAME_MAX, name, length);
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			return fail(-EINVAL,
				    "segment name \"%.80s\": only letters, digits and . _ - are "
				    "allowed",
				    name);
	return 0;
}

void p2p_segment_address(const char *segment, struct sockaddr_un *address, socklen_t *length)
{
	int written;

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	/* A leading NUL makes the name abstract: it leaves no file and dies with its socket. */
	written = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1,
			   ABSTRACT_PREFIX "%s", segment);
	*length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)written);
}

int p2p_path_address(const char *path, struct sockaddr_un *address, socklen_t *length)
{
	if (path[0] != '/')
		return fail(-EINVAL, "socket path \"%.80s\" is not absolute", path);
	if (strlen(path) > SLU_SOCKET_PATH_MAX)
		return fail(-EINVAL, "socket path of %zu bytes, at most %d are possible",
			    strlen(path), SLU_SOCKET_PATH_MAX);
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	strcpy(address->sun_path, path);
	*length = sizeof(*address);
	return 0;
}

/* Port 0 is a free one to a target; nobody listens there. */
static int parse_host_port(const char *text, struct endpoint *endpoint)
{
	if (address_parse(text, &endpoint->tcp) == 0 && endpoint->tcp.port > 0)
		return 0;
	return fail(-EINVAL,
		    "address \"%.280s\": the absolute path of a socket, HOST:PORT and [IPV6]:PORT "
		    "are possible",
		    text);
}

int p2p_parse(const char *text, struct p2p_name *name)
{
	const char *at = strchr(text, '@');
	size_t length = at ? (size_t)(at - text) : strlen(text);
	int rc;

	if (length > SLU_NAME_MAX)
		return fail(-EINVAL, "a segment's name has at most %d bytes, \"%.80s\" has %zu",
			    SLU_NAME_MAX, text, length);
	memcpy(name->segment, text, length);
	name->segment[length] = '\0';
	rc = p2p_check_segment(name->segment);
	if (rc < 0)
		return rc;
	memset(&name->endpoint, 0, sizeof(name->endpoint));
	if (at && at[1] != '/')
		return parse_host_port(at + 1, &name->endpoint);
	name->endpoint.is_unix = true;
	if (at)
		return p2p_path_address(at + 1, &name->endpoint.path, &name->endpoint.path_length);
	p2p_segment_address(name->segment, &name->endpoint.path, &name->endpoint.path_length);
	return 0;
}
