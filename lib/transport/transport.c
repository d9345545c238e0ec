/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/transport.h"

#include <string.h>

static const char *const names[] = {"auto", "shm", "verbs", "tcp", "fake"};

const char *slu_transport_name(enum slu_transport transport)
{
	return (unsigned)transport < sizeof(names) / sizeof(names[0]) ? names[transport]
								      : "unknown";
}

int transport_parse(const char *name)
{
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0)
			return (int)i;
	return -1;
}

const struct transport *transport_find(enum slu_transport id)
{
	switch (id) {
	case SLU_TRANSPORT_SHM:
		return &shm_transport;
	case SLU_TRANSPORT_VERBS:
		return &verbs_transport;
	case SLU_TRANSPORT_TCP:
		return &tcp_transport;
	case SLU_TRANSPORT_FAKE:
		return &fake_transport;
	default:
		return NULL;
	}
}

uint32_t transport_permitted(uint32_t rights)
{
	uint32_t opcodes = 0;

	if (rights & SLU_RIGHT_READ)
		opcodes |= 1u << SLU_READ;
	if (rights & SLU_RIGHT_WRITE)
		opcodes |= 1u << SLU_WRITE | 1u << SLU_WRITE_NOTIFY;
	if (opcodes)
		opcodes |= 1u << SLU_CALL;
	return opcodes;
}

/* Of all engines: whoever looks for nothing has lost a look. */
static _Atomic uint64_t changes;

void transport_changed(void)
{
	atomic_fetch_add(&changes, 1);
}

uint64_t transport_changes(void)
{
	return atomic_load_explicit(&changes, memory_order_acquire);
}

void remote_fail(struct slu_remote *remote, int error)
{
	int connected = 0;

	atomic_compare_exchange_strong(&remote->state, &connected, error);
	atomic_store_explicit(&remote->permitted, 0, memory_order_release);
	transport_changed();
}
