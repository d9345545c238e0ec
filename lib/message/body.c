/* SPDX-License-Identifier: Apache-2.0 */
#include "message/body.h"

#include <errno.h>
#include <stdlib.h>

#include "base/budget.h"

int body_create(struct budget *budget, uint32_t room, struct body **out)
{
	struct body *body;

	if (!budget_try(budget, SLU_LIMIT_CALL_BYTES, room))
		return budget_limit(budget, SLU_LIMIT_CALL_BYTES) < room ? -EDQUOT : -EAGAIN;
	body = aligned_alloc(64, (sizeof(*body) + room + 63) / 64 * 64);
	if (!body) {
		budget_give(budget, SLU_LIMIT_CALL_BYTES, room);
		return -EAGAIN;
	}
	body->budget = budget_get(budget);
	body->next = NULL;
	body->room = room;
	*out = body;
	return 0;
}

void body_destroy(struct body *body)
{
	if (!body)
		return;
	budget_give(body->budget, SLU_LIMIT_CALL_BYTES, body->room);
	budget_put(body->budget);
	free(body);
}
