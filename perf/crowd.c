/* SPDX-License-Identifier: Apache-2.0 */
#include "crowd.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "bench.h"

#define PIPELINED 50 /* requests on their way at a time */

bool crowd_files(unsigned files)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return false;
	if (limit.rlim_cur >= files)
		return true;
	limit.rlim_cur = files;
	if (limit.rlim_max < files)
		limit.rlim_max = files;
	return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static void open_sessions(struct visitor *visitor, const char *segment, unsigned sessions)
{
	unsigned asked = 0, opened = 0;

	while (opened < sessions) {
		for (unsigned i = 0; i < PIPELINED && asked < sessions; i++)
			visitor_ask_open(visitor, ++asked, segment,
					 SLU_RIGHT_READ | SLU_RIGHT_WRITE);
		for (; opened < asked; opened++)
			if (!visitor_hears(visitor, "opened"))
				die("the target has let %u idle sessions in, of %u", opened,
				    sessions);
	}
}

void crowd_come(struct crowd *crowd, const struct door *door, const char *segment, unsigned clients,
		unsigned sessions)
{
	*crowd = (struct crowd){.count = clients,
				.visitors = calloc(clients, sizeof(*crowd->visitors)),
				.data = calloc(clients, sizeof(*crowd->data))};
	if (!crowd->visitors || !crowd->data)
		die("out of memory");
	for (unsigned i = 0; i < clients; i++) {
		struct visitor *visitor = &crowd->visitors[i];

		if (!visitor_enter(visitor, door))
			die("the target has let %u idle clients in, of %u", i, clients);
		open_sessions(visitor, segment, sessions);
		crowd->data[i] = visitor->over_tcp ? visitor_attach(visitor, door) : -1;
		if (visitor->over_tcp && crowd->data[i] < 0)
			die("the target has taken %u idle data connections, of %u", i, clients);
	}
}

void crowd_tend(struct crowd *crowd)
{
	for (unsigned i = 0; i < crowd->count; i++)
		if (!visitor_tend(&crowd->visitors[i]))
			die("the target has closed an idle connection");
}

void crowd_leave(struct crowd *crowd)
{
	for (unsigned i = 0; i < crowd->count; i++) {
		if (crowd->data[i] >= 0)
			close(crowd->data[i]);
		visitor_leave(&crowd->visitors[i]);
	}
	free(crowd->visitors);
	free(crowd->data);
}
