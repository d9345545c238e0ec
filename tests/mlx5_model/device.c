/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that is the device, and completion channels. */
#include "device.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/tsan.h"

#define IDLE_ROUNDS 50u   /* with nothing to do before it sleeps shortly */
#define IDLE_LONG   1000u /* before it sleeps longer */
#define SLEEP_MIN   10u
#define SLEEP_MAX   100u /* us: what a doorbell may have to wait */

struct device device = {.lock = PTHREAD_MUTEX_INITIALIZER};

void device_lock(void)
{
	atomic_fetch_add(&device.waiting, 1);
	pthread_mutex_lock(&device.lock);
	atomic_fetch_sub(&device.waiting, 1);
}

void device_unlock(void)
{
	pthread_mutex_unlock(&device.lock);
}

/* The thread takes the lock most of the time, and mutexes are not fair. */
static void let_others(void)
{
	while (atomic_load(&device.waiting) > 0)
		sched_yield();
}

static void *run(void *arg)
{
	uint32_t idle = 0;
	bool stopping = false;

	(void)arg;
	while (!stopping) {
		bool busy;

		let_others();
		pthread_mutex_lock(&device.lock);
		tsan_device_begin();
		busy = engine_run();
		tsan_device_end();
		stopping = device.stopping;
		pthread_mutex_unlock(&device.lock);
		idle = busy ? 0 : idle + 1;
		/* Who slept goes before who spins; who yields comes back after all that spin. */
		if (idle > IDLE_ROUNDS)
			usleep(idle < IDLE_LONG ? SLEEP_MIN : SLEEP_MAX);
	}
	return NULL;
}

int device_start(void)
{
	sigset_t all, before;
	int error = 0;

	fabric_self();
	device_lock();
	if (device.users++ == 0) {
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &before);
		device.stopping = false;
		error = pthread_create(&device.thread, NULL, run, NULL);
		pthread_sigmask(SIG_SETMASK, &before, NULL);
		if (error)
			device.users--;
	}
	device_unlock();
	return error;
}

void device_stop(void)
{
	bool last;

	device_lock();
	last = --device.users == 0;
	device.stopping = last;
	device_unlock();
	if (last)
		pthread_join(device.thread, NULL);
}

/* ---- completion channels ---- */

void device_send_event(struct model_cq *cq)
{
	struct model_channel *channel = (struct model_channel *)cq->cq.channel;
	uint64_t one = 1;

	if (!channel)
		return;
	pthread_mutex_lock(&channel->lock);
	cq->unread++;
	if (write(channel->channel.fd, &one, sizeof(one)) != sizeof(one))
		fabric_complain("a completion channel cannot be written: %s", strerror(errno));
	pthread_mutex_unlock(&channel->lock);
}

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
	struct model_channel *channel = calloc(1, sizeof(*channel));

	if (!channel)
		return NULL;
	channel->channel.context = context;
	channel->channel.fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
	if (channel->channel.fd < 0) {
		free(channel);
		return NULL;
	}
	pthread_mutex_init(&channel->lock, NULL);
	return &channel->channel;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *ibv)
{
	struct model_channel *channel = (struct model_channel *)ibv;

	if (ibv->refcnt > 0)
		return EBUSY;
	close(ibv->fd);
	pthread_mutex_destroy(&channel->lock);
	free(channel);
	return 0;
}

static struct model_cq *take_event(struct ibv_comp_channel *ibv)
{
	struct model_channel *channel = (struct model_channel *)ibv;
	struct model_cq *cq;

	device_lock();
	pthread_mutex_lock(&channel->lock);
	LIST_FOREACH (cq, &device.queues, link)
		if (cq->cq.channel == ibv && cq->unread > 0)
			break;
	if (cq)
		cq->unread--;
	pthread_mutex_unlock(&channel->lock);
	device_unlock();
	return cq;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq, void **context)
{
	struct model_cq *found;
	uint64_t one;

	do {
		if (read(channel->fd, &one, sizeof(one)) != sizeof(one))
			return -1;
		found = take_event(channel);
	} while (!found); /* that of a queue that was destroyed meanwhile */
	*cq = &found->cq;
	*context = found->cq.cq_context;
	return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned n)
{
	pthread_mutex_lock(&cq->mutex);
	cq->comp_events_completed += n;
	pthread_mutex_unlock(&cq->mutex);
}
