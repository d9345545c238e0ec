/* SPDX-License-Identifier: Apache-2.0 */
#include "siege.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "client.h"
#include "hostile.h"
#include "report.h"

#define SLICES        15 /* in a slice here: the hostile one gets its turn */
#define FLOOR         0.9
#define NAME_BYTES    96
#define NOTE_BYTES    96
#define WAIT_MS       5000 /* for an answer; one that does not come took as long */
#define NEWCOMERS_MAX 20   /* of a slice: each takes a port */
#define WRITE_BYTES   (64 * KIB)

struct siege {
	struct client client;
	const struct attack *attack;
	struct hostile attacker, neighbour;
	struct bench bench;
	struct door door;       /* of who asks */
	struct visitor insider; /* who has come in before */
	unsigned session;
	double (*measure)(struct siege *siege);
	double answer_ns;
};

static double measure_rate(struct siege *siege)
{
	return lanes_rate(&siege->bench, &siege->client.lane, 1);
}

/* Come in and open the segment. */
static void visit(struct siege *siege)
{
	struct visitor visitor;

	if (visitor_enter(&visitor, &siege->door) &&
	    visitor_ask_open(&visitor, 1, siege->client.rig.names[RIG_CACHED], SLU_RIGHT_READ))
		visitor_hears(&visitor, "opened");
	visitor_leave(&visitor);
}

/* Open the segment once more. */
static void reopen(struct siege *siege)
{
	struct visitor *insider = &siege->insider;

	if (!insider->connected && !visitor_enter(insider, &siege->door))
		return;
	if (!visitor_ask_open(insider, ++siege->session, siege->client.rig.names[RIG_CACHED],
			      SLU_RIGHT_READ) ||
	    !visitor_hears(insider, "opened") || !visitor_close_session(insider, siege->session))
		visitor_leave(insider);
}

static void *ask_run(void *arg)
{
	struct siege *siege = arg;
	bool newcomers = siege->attack->newcomers;
	uint64_t begin_ns = clock_monotonic_ns(NULL), now_ns;
	unsigned answers = 0;

	do {
		if (newcomers)
			visit(siege);
		else
			reopen(siege);
		answers++;
		now_ns = clock_monotonic_ns(NULL);
	} while (now_ns - begin_ns < siege->bench.slice_ns &&
		 (!newcomers || answers < NEWCOMERS_MAX));
	siege->answer_ns = (double)(now_ns - begin_ns) / answers;
	return NULL;
}

/* The mean: one answer that comes late counts. */
static double measure_answer(struct siege *siege)
{
	core_thread_run(&siege->bench, siege->bench.cores[0], ask_run, siege);
	return siege->answer_ns;
}

/* The target's poller spins on the core that the probe needs too. */
static double measure_beside(struct siege *siege, struct hostile *who)
{
	double value;

	target_resume(&siege->client.rig.target);
	hostile_resume(who);
	value = siege->measure(siege);
	hostile_pause(who);
	target_pause(&siege->client.rig.target);
	return value;
}

static double measure_attacked(void *arg)
{
	struct siege *siege = arg;

	return measure_beside(siege, &siege->attacker);
}

static double measure_in_peace(void *arg)
{
	struct siege *siege = arg;

	return measure_beside(siege, &siege->neighbour);
}

static void open_siege(struct siege *siege, const struct bench *bench, const struct attack *attack)
{
	const struct sample sample = {
		.opcode = SLU_WRITE,
		.length = WRITE_BYTES,
		.memory = RIG_CACHED,
		.connections = 1,
		.tls = true,
		.siege = {.on = true,
			  .rogue_rights = attack->rights,
			  .stalled_log = attack->stalled_log},
	};
	struct rig *rig = &siege->client.rig;

	*siege = (struct siege){.attack = attack, .bench = *bench};
	siege->bench.slice_ns *= SLICES;
	client_open(&siege->client, bench, &sample, client_batch(sample.length), CLIENT_DEPTH);
	siege->door = attack->unix_socket
			      ? door_unix(rig->names[RIG_CACHED], WAIT_MS)
			      : door_tcp(rig->target.address, NULL, rig->keys[RIG_PERF], WAIT_MS);
	hostile_start(&siege->attacker, attack, false, rig);
	hostile_start(&siege->neighbour, attack, true, rig);
	target_pause(&rig->target);
}

static void close_siege(struct siege *siege)
{
	hostile_stop(&siege->attacker);
	hostile_stop(&siege->neighbour);
	target_resume(&siege->client.rig.target);
	visitor_leave(&siege->insider);
	client_close(&siege->client);
}

/* The first time is not counted: who holds connections has to open them. */
static void run_row(struct siege *siege, const char *name, bool answers)
{
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	char note[NOTE_BYTES];
	unsigned moved;

	siege->measure = answers ? measure_answer : measure_rate;
	measure_attacked(siege);
	measure_in_peace(siege);
	moved = pair_measure(&siege->bench, &(struct side){measure_attacked, siege},
			     &(struct side){measure_in_peace, siege},
			     answers ? BETTER_LOWER : BETTER_HIGHER, rounds);
	snprintf(note, sizeof(note), "%.0f attempts a second, the neighbour %.0f",
		 hostile_rate(&siege->attacker), hostile_rate(&siege->neighbour));
	report_pair(&(struct row){.name = name,
				  .unit = answers ? "us" : "GB/s",
				  .scale = answers ? 1e3 : 1e9,
				  .reference_name = "Sluice beside a harmless neighbour",
				  .floor = FLOOR,
				  .note = note},
		    rounds, siege->bench.rounds, moved);
}

static void run_rows(const struct bench *bench, const struct attack *attack)
{
	static const char *const formats[] = {"write 64K beside %s", "answer beside %s"};
	static struct siege siege;
	char names[2][NAME_BYTES];
	bool wanted[2];

	for (unsigned i = 0; i < 2; i++) {
		snprintf(names[i], NAME_BYTES, formats[i], attack->name);
		wanted[i] = bench_wants(bench, names[i]);
		if (wanted[i] && attack->other_user && geteuid() != 0) {
			report_skipped(names[i], "only root can be another user");
			wanted[i] = false;
		}
	}
	if (!wanted[0] && !wanted[1])
		return;
	open_siege(&siege, bench, attack);
	for (unsigned i = 0; i < 2; i++)
		if (wanted[i])
			run_row(&siege, names[i], i == 1);
	close_siege(&siege);
}

void siege_run(const struct bench *bench)
{
	for (unsigned i = 0; i < attacks_count; i++)
		run_rows(bench, &attacks[i]);
}
