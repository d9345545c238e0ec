/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/config.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void doctor_check_config(struct doctor *doctor, const struct settings *settings)
{
	char remedy[DOCTOR_TEXT];
	struct stat status;

	if (!settings->path) {
		doctor_add(doctor, VERDICT_ABSENT, "configuration file", NULL,
			   "none: flags, environment and defaults count");
		return;
	}
	snprintf(remedy, sizeof(remedy), "sudo chown root:root %.120s; sudo chmod go-w %.120s",
		 settings->path, settings->path);
	if (stat(settings->path, &status))
		doctor_add(doctor, VERDICT_SKIPPED, "configuration file", NULL, "%s has gone",
			   settings->path);
	else if (status.st_mode & (S_IWGRP | S_IWOTH) && S_ISREG(status.st_mode))
		doctor_add(doctor, VERDICT_PROBLEM, "configuration file", remedy,
			   "%s can be changed by others, who could grant themselves rights",
			   settings->path);
	else if (status.st_uid && status.st_uid != geteuid())
		doctor_add(doctor, VERDICT_WARNING, "configuration file", remedy,
			   "%s belongs to uid %u, neither us nor root", settings->path,
			   (unsigned)status.st_uid);
	else
		doctor_add(doctor, VERDICT_OK, "configuration file", NULL, "%s", settings->path);
}
