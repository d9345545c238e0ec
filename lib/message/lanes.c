/* SPDX-License-Identifier: Apache-2.0 */
#include "message/lanes.h"

#include "base/budget.h"
#include "base/log.h"

void lanes_grow(struct lanes *lanes, uint32_t wanted)
{
	if (lanes->count == 0)
		lanes->count = 1;
	while (lanes->count < wanted && budget_try(lanes->budget, SLU_LIMIT_SESSIONS, 1))
		lanes->count++;
	if (lanes->count == wanted || lanes->told)
		return;
	lanes->told = true;
	log_peer(SLU_LOG_WARNING,
		 "what a client sends from some of its pollers is not looked at: each of them "
		 "beyond the first counts as a session, and its identity has its limit of those; "
		 "raise max-sessions");
}

void lanes_end(struct lanes *lanes)
{
	if (lanes->count > 1)
		budget_give(lanes->budget, SLU_LIMIT_SESSIONS, lanes->count - 1);
	lanes->count = 0;
}
