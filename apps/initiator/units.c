/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/units.h"

#include <stdio.h>

const char *const unit_names[] = {"GB",  "GiB", "Gb",  "Gib", "MB",  "MiB", "Mb",
				  "Mib", "KB",  "KiB", "Kb",  "Kib", NULL};

static double unit_bytes(enum unit unit)
{
	static const double decimal[] = {1e9, 1e6, 1e3};
	static const double binary[] = {0x1p30, 0x1p20, 0x1p10};
	double scale = (unit % 2 ? binary : decimal)[unit / 4];

	return unit % 4 >= 2 ? scale / 8 : scale;
}

void unit_format_bytes(double bytes, enum unit unit, int precision, char text[static UNIT_TEXT])
{
	snprintf(text, UNIT_TEXT, "%.*f %s", precision, bytes / unit_bytes(unit), unit_names[unit]);
}

static void format_scaled(double value, const char *const *suffixes, int last,
			  char text[static UNIT_TEXT])
{
	int step = 0;
	int decimals;

	while (value >= 999.5 && step < last) {
		value /= 1000;
		step++;
	}
	decimals = step == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
	snprintf(text, UNIT_TEXT, "%.*f%s", decimals, value, suffixes[step]);
}

void unit_format_duration(uint64_t ns, char text[static UNIT_TEXT])
{
	static const char *const suffixes[] = {" ns", " us", " ms", " s"};

	format_scaled((double)ns, suffixes, 3, text);
}

void unit_format_count(double count, char text[static UNIT_TEXT])
{
	static const char *const suffixes[] = {"", " k", " M", " G"};

	format_scaled(count, suffixes, 3, text);
}
