/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a request holds that is longer than SLU_MESSAGE_MAX, or may be answered by as much: memory
 * of the target's, charged to the identity of its client from its arrival until nobody looks at it
 * any more. Any thread. It is the one thing on a call's way that is allocated: what it carries
 * takes longer.
 */
#ifndef MESSAGE_BODY_H
#define MESSAGE_BODY_H

#include <stdint.h>

struct budget;

struct body {
	struct budget *budget;
	struct body *next; /* whoever has it */
	uint32_t room;     /* bytes */
	_Alignas(64) uint8_t data[];
};

/**
 * @param room  bytes, 1 or more
 * @return      0; -EAGAIN not now; -EDQUOT never: the identity may not have so much at once
 */
int body_create(struct budget *budget, uint32_t room, struct body **body);

/** Accepts NULL. */
void body_destroy(struct body *body);

#endif
