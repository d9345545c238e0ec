/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The p2p directory: the name is the address.
 *
 *   SEGMENT          abstract Unix socket "sluice/SEGMENT" of this network namespace
 *   SEGMENT@/PATH    the Unix socket at that path
 *   SEGMENT@HOST:PORT, SEGMENT@[IPV6]:PORT
 */
#ifndef DIRECTORY_P2P_H
#define DIRECTORY_P2P_H

#include <sys/socket.h>
#include <sys/un.h>

#include <sluice/segment.h>

#include "net/address.h"

struct p2p_name {
	char segment[SLU_NAME_MAX + 1];
	struct endpoint endpoint;
};

/** Is @p name fit for a segment: 1..SLU_NAME_MAX of [A-Za-z0-9._-]? @return 0; -EINVAL */
int p2p_check_segment(const char *name);

/** @return 0; -EINVAL, slu_last_error() quotes what is wrong */
int p2p_parse(const char *text, struct p2p_name *name);

/** Address of the abstract name of @p segment, which p2p_check_segment() took. */
void p2p_segment_address(const char *segment, struct sockaddr_un *address, socklen_t *length);

/** Address of the socket at @p path. @return 0; -EINVAL not absolute, or too long */
int p2p_path_address(const char *path, struct sockaddr_un *address, socklen_t *length);

#endif
