/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What goes over a data connection once the control plane has let it in: requests one way,
 * responses the other. Little-endian, as all machines that we build for are.
 *
 *   client                                   target
 *   READ  {handle, offset, length}       ->
 *                                        <-  DATA {length} bytes        or DONE with a status
 *   WRITE {handle, offset, length} bytes ->
 *   NOTIFY the same, and a tag           ->
 *   READ_RUNS, WRITE_RUNS {handle, count, length} runs, bytes ->   as READ, WRITE, of many places
 *                                        <-  DONE {count}               the next count requests
 *   FETCH_ADD, COMPARE_SWAP {handle, offset} operands  ->
 *                                        <-  DATA {8} what was there    or DONE with a status
 *   CALL  {handle, slot, room} bytes     ->
 *                                        <-  DONE                       it was handed to the owner
 *                                        <-  ANSWER {slot, length} bytes   when the owner answered
 *
 * Requests are carried out and responded to in their order, ANSWER apart. A handle stands for one
 * granted segment; its generation tells it from an earlier grant in the same place.
 */
#ifndef TCP_WIRE_H
#define TCP_WIRE_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum wire_request_type {
	WIRE_READ = 1,
	WIRE_WRITE,
	WIRE_NOTIFY,
	WIRE_CALL,
	WIRE_READ_RUNS,
	WIRE_WRITE_RUNS,
	WIRE_FETCH_ADD,
	WIRE_COMPARE_SWAP,
};

/** What follows FETCH_ADD and COMPARE_SWAP, of 8 aligned bytes of the segment. */
struct __attribute__((packed)) wire_atomic {
	uint64_t operand;
	uint64_t expected; /* FETCH_ADD: not looked at */
};

/** READ_RUNS and WRITE_RUNS have 1 to so many. */
#define WIRE_RUNS_MAX 64u

/** It may lie anywhere: behind another one's body. */
struct __attribute__((packed)) wire_request {
	uint8_t type;
	uint8_t reserved[3]; /* zero */
	uint32_t length;     /* bytes wanted (READ), or bytes that follow; of all runs */
	uint32_t handle;
	uint32_t generation;
	uint64_t offset;   /* in the segment; CALL: room for the answer; with runs: 0 */
	uint32_t tag;      /* NOTIFY; CALL: the client's slot; with runs: how many there are */
	uint32_t sequence; /* counts the connection's requests */
};

/** Bytes in the segment. They follow the request, and what is written follows them. */
struct __attribute__((packed)) wire_run {
	uint64_t offset;
	uint32_t length; /* 1 or more */
};

enum wire_response_type {
	WIRE_DONE = 1,
	WIRE_DATA,
	WIRE_ANSWER,
};

struct wire_response {
	uint8_t type;
	uint8_t reserved;  /* zero */
	int16_t status;    /* 0 or a negative errno; with one, DONE is about one request */
	uint32_t length;   /* DONE: requests done; else bytes that follow */
	uint32_t sequence; /* of the last request that this is about; ANSWER: the slot */
};

static_assert(sizeof(struct wire_request) == 32, "wire layout");
static_assert(sizeof(struct wire_atomic) == 16, "wire layout");
static_assert(sizeof(struct wire_run) == 12, "wire layout");
static_assert(offsetof(struct wire_request, offset) == 16, "wire layout");
static_assert(sizeof(struct wire_response) == 12, "wire layout");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire order");

#endif
