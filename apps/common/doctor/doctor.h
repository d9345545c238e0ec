/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The doctor: looks at the machine, and says what is well, what costs speed, what does not work,
 * and the command that mends it. Needs no root; changes nothing.
 *
 * Order of calls: doctor_init, doctor_examine, and what a program has to add with doctor_add;
 * doctor_finish.
 */
#ifndef COMMON_DOCTOR_DOCTOR_H
#define COMMON_DOCTOR_DOCTOR_H

#include <stdbool.h>
#include <stdint.h>

#define DOCTOR_TEXT 320

enum verdict {
	VERDICT_OK,
	VERDICT_WARNING, /* works, and slower or less safely than it could */
	VERDICT_PROBLEM, /* does not work */
	VERDICT_ABSENT,  /* this machine has no such thing */
	VERDICT_SKIPPED, /* could not be looked at; the text says why */
};

struct finding {
	enum verdict verdict;
	char check[64];
	char seen[DOCTOR_TEXT];
	char remedy[DOCTOR_TEXT]; /* empty: nothing to do */
};

/** What the machine is looked at for. */
struct doctor_needs {
	bool serves;             /* as a target */
	uint64_t memory_bytes;   /* to be allocated; 0 = unknown */
	uint64_t largest_bytes;  /* of them in one piece */
	bool hugepages_required; /* fail without */
	bool hugepages_declined; /* ordinary pages are asked for */
	bool locks;              /* the memory is to be locked */
	uint64_t pinned_bytes;   /* that RDMA would register; 0 = unknown */
	bool no_rdma;            /* it is turned off */
	bool verbs_required;     /* fail without */
	bool cm;                 /* queue pairs are connected by librdmacm */
	int node;                /* of pollers and memory; -1 = any */
	const char *cores;       /* of pollers and workers, a list that is valid; NULL = chosen */
	bool tls;                /* is configured */
};

struct doctor {
	const char *root; /* in front of /proc, /sys and /dev: "", or a recorded machine's */
	struct doctor_needs needs;
	uint32_t nodes;        /* NUMA nodes */
	uint32_t rdma_devices; /* found */
	uint32_t gpus;
	struct finding *findings;
	uint32_t count;
	bool out_of_memory; /* findings were lost */
};

/** @param root  folder of a recorded machine, or NULL for this one */
void doctor_init(struct doctor *doctor, const char *root, const struct doctor_needs *needs);

/** Are we looking at a recorded machine? */
bool doctor_is_recorded(const struct doctor *doctor);

/** Run every check of the machine. */
void doctor_examine(struct doctor *doctor);

/**
 * Add a finding.
 *
 * @param check   what was looked at, a few words
 * @param remedy  command or advice, or NULL
 * @param format  what was seen
 */
void doctor_add(struct doctor *doctor, enum verdict verdict, const char *check, const char *remedy,
		const char *format, ...) __attribute__((format(printf, 5, 6)));

/**
 * Print the findings, as JSON where @p json (a file, or "-" for stdout) is given, and free them.
 *
 * @return EXIT_DONE; EXIT_FAILED a problem was found, or the report could not be made
 */
int doctor_finish(struct doctor *doctor, const char *program, const char *json);

#endif
