/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What ucx_perftest cannot do: UCX puts and gets that walk through buffers larger than the message,
 * between two processes. One line of JSON; which transport is up to UCX_TLS.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <signal.h>
#include <unistd.h>

#include <ucp/api/ucp.h>

#include "bench.h"
#include "cursor.h"
#include "lanes.h"
#include "report.h"

#define BATCH_BYTES (256 * KIB) /* put or got between two looks at the stop flag */

/* One of the two processes. */
struct side_ucx {
	ucp_context_h context;
	ucp_worker_h worker;
	ucp_mem_h memory;
	char *buffer;
	uint64_t length;
};

/* What the passive side tells the active one, followed by its worker's address and its key. */
struct hello {
	uint64_t buffer;
	uint64_t address_bytes;
	uint64_t key_bytes;
};

struct stream {
	struct side_ucx side;
	ucp_ep_h endpoint;
	ucp_rkey_h key;
	uint64_t remote;
	struct cursor cursor;
	bool put;
};

static void check(ucs_status_t status, const char *what)
{
	if (status != UCS_OK)
		die("%s: %s", what, ucs_status_string(status));
}

static void send_all(int fd, const void *data, size_t length)
{
	if (send(fd, data, length, MSG_NOSIGNAL) != (ssize_t)length)
		die("the other process has gone");
}

static void receive_all(int fd, void *data, size_t length)
{
	if (recv(fd, data, length, MSG_WAITALL) != (ssize_t)length)
		die("the other process has gone");
}

static void side_open(struct side_ucx *side, uint64_t length)
{
	ucp_params_t params = {.field_mask = UCP_PARAM_FIELD_FEATURES, .features = UCP_FEATURE_RMA};
	ucp_worker_params_t worker = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
				      .thread_mode = UCS_THREAD_MODE_SERIALIZED};
	ucp_mem_map_params_t map = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH |
						  UCP_MEM_MAP_PARAM_FIELD_FLAGS,
				    .length = length,
				    .flags = UCP_MEM_MAP_ALLOCATE};
	ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS};

	check(ucp_init(&params, NULL, &side->context), "ucp_init");
	check(ucp_worker_create(side->context, &worker, &side->worker), "ucp_worker_create");
	check(ucp_mem_map(side->context, &map, &side->memory), "ucp_mem_map");
	check(ucp_mem_query(side->memory, &attr), "ucp_mem_query");
	side->buffer = attr.address;
	side->length = length;
	memory_fill(side->buffer, length, getpid());
}

static void side_close(struct side_ucx *side)
{
	ucp_mem_unmap(side->context, side->memory);
	ucp_worker_destroy(side->worker);
	ucp_cleanup(side->context);
}

/* The passive side answers until the connection stands, and then sleeps until the end. */
static void serve(int fd, uint64_t length)
{
	struct pollfd end = {.fd = fd, .events = POLLIN};
	struct side_ucx side;
	ucp_address_t *address;
	struct hello hello;
	void *key;
	char byte;

	side_open(&side, length);
	check(ucp_worker_get_address(side.worker, &address, &hello.address_bytes), "address");
	check(ucp_rkey_pack(side.context, side.memory, &key, &hello.key_bytes), "ucp_rkey_pack");
	hello.buffer = (uintptr_t)side.buffer;
	send_all(fd, &hello, sizeof(hello));
	send_all(fd, address, hello.address_bytes);
	send_all(fd, key, hello.key_bytes);
	while (poll(&end, 1, 0) == 0)
		ucp_worker_progress(side.worker);
	receive_all(fd, &byte, 1);
	if (recv(fd, &byte, 1, 0) != 0)
		die("the other process sent too much");
	ucp_rkey_buffer_release(key);
	ucp_worker_release_address(side.worker, address);
	side_close(&side);
}

static void finish(struct stream *stream, ucs_status_ptr_t request)
{
	ucs_status_t status;

	if (UCS_PTR_IS_ERR(request))
		die("UCX: %s", ucs_status_string(UCS_PTR_STATUS(request)));
	if (!request)
		return;
	do {
		ucp_worker_progress(stream->side.worker);
		status = ucp_request_check_status(request);
	} while (status == UCS_INPROGRESS);
	ucp_request_free(request);
	check(status, "UCX");
}

static void flush(void *arg)
{
	struct stream *stream = arg;
	ucp_request_param_t none = {0};

	finish(stream, ucp_worker_flush_nbx(stream->side.worker, &none));
}

static uint64_t stream_step(void *arg)
{
	struct stream *stream = arg;
	ucp_request_param_t none = {0};
	uint64_t size = stream->cursor.size, done = 0;

	do {
		uint64_t offset = cursor_next(&stream->cursor);
		char *local = stream->side.buffer + offset;
		uint64_t remote = stream->remote + offset;

		finish(stream, stream->put ? ucp_put_nbx(stream->endpoint, local, size, remote,
							 stream->key, &none)
					   : ucp_get_nbx(stream->endpoint, local, size, remote,
							 stream->key, &none));
		done += size;
	} while (done < BATCH_BYTES);
	return done;
}

static void stream_open(struct stream *stream, int fd, uint64_t length)
{
	ucp_ep_params_t params = {.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS};
	struct hello hello;
	void *address, *key;

	side_open(&stream->side, length);
	receive_all(fd, &hello, sizeof(hello));
	address = malloc(hello.address_bytes);
	key = malloc(hello.key_bytes);
	if (!address || !key)
		die("out of memory");
	receive_all(fd, address, hello.address_bytes);
	receive_all(fd, key, hello.key_bytes);
	params.address = address;
	stream->remote = hello.buffer;
	check(ucp_ep_create(stream->side.worker, &params, &stream->endpoint), "ucp_ep_create");
	check(ucp_ep_rkey_unpack(stream->endpoint, key, &stream->key), "ucp_ep_rkey_unpack");
	stream_step(stream);
	flush(stream);
	send_all(fd, "", 1);
	free(key);
	free(address);
}

static void stream_close(struct stream *stream)
{
	ucp_request_param_t none = {0};

	ucp_rkey_destroy(stream->key);
	finish(stream, ucp_ep_close_nbx(stream->endpoint, &none));
	side_close(&stream->side);
}

static void run(const struct bench *bench, int fd, bool put, uint64_t size, uint64_t length)
{
	struct stream stream = {.put = put, .cursor = {.size = size, .count = length / size}};
	struct lane lane = {
		.core = bench->cores[0], .step = stream_step, .finish = flush, .arg = &stream};

	stream_open(&stream, fd, length);
	report_sample(&(struct row){.name = put ? "put" : "get", .unit = "GB/s", .scale = 1e9},
		      lanes_rate(bench, &lane, 1));
	stream_close(&stream);
}

/* Fork first: UCX does not survive one. */
static void run_both(const struct bench *bench, bool put, uint64_t size, uint64_t length)
{
	int sync;
	pid_t twin = twin_start(&sync);

	if (twin == 0) {
		serve(sync, length);
		exit(0);
	}
	run(bench, sync, put, size, length);
	close(sync);
	twin_join(twin);
}

int main(int argc, char **argv)
{
	struct bench bench;
	int first = bench_options(argc, argv, &bench);
	uint64_t size, length;

	if (argc - first != 3 || (strcmp(argv[first], "put") && strcmp(argv[first], "get"))) {
		fputs("usage: ucx_stream [options] put|get MESSAGE_BYTES BUFFER_BYTES\n", stderr);
		return 2;
	}
	size = strtoull(argv[first + 1], NULL, 10);
	length = strtoull(argv[first + 2], NULL, 10);
	if (size == 0 || length < size || length % size != 0)
		die("a buffer of whole messages is wanted");
	run_both(&bench, strcmp(argv[first], "put") == 0, size, length);
	return 0;
}
