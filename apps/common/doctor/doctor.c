/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/doctor.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include <sluice/version.h>

#include "base/log.h"
#include "common/doctor/checks.h"
#include "common/exit.h"
#include "common/json_file.h"
#include "common/wrap.h"

#define SEEN_COLUMN 36

static const char *const verdicts[] = {"ok", "warning", "problem", "absent", "skipped"};

/* In the order of the report. */
static const struct {
	const char *title;
	void (*check)(struct doctor *doctor);
} groups[] = {
	{"memory", check_memory},
	{"processors", check_processors},
	{"container", check_container},
	{"network", check_network},
	{"RDMA", check_rdma},
	{"PCI Express", check_pcie},
	{"GPU", check_gpu},
};

void doctor_init(struct doctor *doctor, const char *root, const struct doctor_needs *needs)
{
	*doctor = (struct doctor){.root = root ? root : "", .needs = *needs};
}

bool doctor_is_recorded(const struct doctor *doctor)
{
	return doctor->root[0] != '\0';
}

void doctor_examine(struct doctor *doctor)
{
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		groups[i].check(doctor);
}

void doctor_add(struct doctor *doctor, enum verdict verdict, const char *check, const char *remedy,
		const char *format, ...)
{
	struct finding *findings =
		reallocarray(doctor->findings, doctor->count + 1, sizeof(*findings));
	struct finding *finding;
	va_list args;

	if (!findings) {
		doctor->out_of_memory = true;
		return;
	}
	doctor->findings = findings;
	finding = &findings[doctor->count++];
	finding->verdict = verdict;
	snprintf(finding->check, sizeof(finding->check), "%s", check);
	snprintf(finding->remedy, sizeof(finding->remedy), "%s", remedy ? remedy : "");
	va_start(args, format);
	vsnprintf(finding->seen, sizeof(finding->seen), format, args);
	va_end(args);
}

static uint32_t count_of(const struct doctor *doctor, enum verdict verdict)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < doctor->count; i++)
		count += doctor->findings[i].verdict == verdict;
	return count;
}

static void describe_machine(const struct doctor *doctor, char text[static DOCTOR_TEXT])
{
	struct utsname names = {0};

	uname(&names);
	if (doctor_is_recorded(doctor))
		snprintf(text, DOCTOR_TEXT, "the machine recorded in %s", doctor->root);
	else
		snprintf(text, DOCTOR_TEXT, "%s, Linux %s", names.nodename, names.release);
}

static void print(const struct doctor *doctor, const char *program)
{
	uint32_t width = wrap_width();
	char machine[DOCTOR_TEXT];

	describe_machine(doctor, machine);
	printf("%s doctor %s: %s\n", program, slu_version(), machine);
	for (uint32_t i = 0; i < doctor->count; i++) {
		const struct finding *finding = &doctor->findings[i];

		printf("  %-8s %-24s ", verdicts[finding->verdict], finding->check);
		wrap_print(stdout, width, SEEN_COLUMN, finding->seen);
		if (finding->remedy[0]) {
			printf("  %-8s %-24s -> ", "", "");
			wrap_print(stdout, width, SEEN_COLUMN + 3, finding->remedy);
		}
	}
	printf("%u problem%s, %u warning%s, %u ok\n", count_of(doctor, VERDICT_PROBLEM),
	       count_of(doctor, VERDICT_PROBLEM) == 1 ? "" : "s", count_of(doctor, VERDICT_WARNING),
	       count_of(doctor, VERDICT_WARNING) == 1 ? "" : "s", count_of(doctor, VERDICT_OK));
}

static json_t *finding_json(const struct finding *finding)
{
	/* What was read can be anything; JSON is UTF-8. */
	json_t *seen = json_string(finding->seen);

	return json_pack("{s:s, s:s, s:o, s:s?}", "check", finding->check, "verdict",
			 verdicts[finding->verdict], "seen",
			 seen ? seen : json_string("(not UTF-8)"), "remedy",
			 finding->remedy[0] ? finding->remedy : NULL);
}

static json_t *report_json(const struct doctor *doctor, const char *program)
{
	char machine[DOCTOR_TEXT];
	json_t *findings = json_array();

	describe_machine(doctor, machine);
	for (uint32_t i = 0; i < doctor->count; i++)
		json_array_append_new(findings, finding_json(&doctor->findings[i]));
	return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:o}", "schema", "sluice-doctor/1",
			 "version", slu_version(), "program", program, "machine", machine,
			 "problems", (int)count_of(doctor, VERDICT_PROBLEM), "warnings",
			 (int)count_of(doctor, VERDICT_WARNING), "findings", findings);
}

int doctor_finish(struct doctor *doctor, const char *program, const char *json)
{
	bool problem = count_of(doctor, VERDICT_PROBLEM) > 0;
	int rc = 0;

	if (doctor->out_of_memory)
		rc = fail(-ENOMEM, "out of memory: findings were lost");
	if (!json || strcmp(json, "-"))
		print(doctor, program);
	if (json && !rc)
		rc = json_file_write(report_json(doctor, program), json);
	if (rc)
		exit_explain(rc);
	free(doctor->findings);
	doctor->findings = NULL;
	return rc || problem ? EXIT_FAILED : EXIT_DONE;
}
