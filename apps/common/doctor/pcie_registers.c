/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "common/doctor/pcie.h"

#define STATUS          0x06
#define STATUS_LIST     0x0010 /* there are capabilities */
#define FIRST_POINTER   0x34
#define SHOWN_TO_USERS  64
#define CAP_EXPRESS     0x10
#define EXPRESS_CONTROL 8
#define EXTENDED        0x100
#define EXTENDED_ACS    0x000d
#define ACS_CONTROL     6
#define CAPS_MAX        64 /* a list that is longer runs in a circle */

static uint16_t word(const uint8_t *config, size_t at)
{
	return (uint16_t)(config[at] | config[at + 1] << 8);
}

int pcie_device_control(const uint8_t *config, size_t length, uint16_t *control)
{
	size_t at;

	if (length < SHOWN_TO_USERS)
		return -ENODATA;
	if (!(word(config, STATUS) & STATUS_LIST))
		return -ENOENT;
	at = config[FIRST_POINTER] & 0xfc;
	for (int i = 0; i < CAPS_MAX && at; i++) {
		if (at + EXPRESS_CONTROL + 2 > length)
			return -ENODATA;
		if (config[at] == CAP_EXPRESS) {
			*control = word(config, at + EXPRESS_CONTROL);
			return 0;
		}
		at = config[at + 1] & 0xfc;
	}
	return -ENOENT;
}

int pcie_acs_control(const uint8_t *config, size_t length, uint16_t *control)
{
	size_t at = EXTENDED;

	if (length <= SHOWN_TO_USERS)
		return -ENODATA;
	for (int i = 0; i < CAPS_MAX && at >= EXTENDED && at + ACS_CONTROL + 2 <= length; i++) {
		if (word(config, at) == EXTENDED_ACS) {
			*control = word(config, at + ACS_CONTROL);
			return 0;
		}
		at = (size_t)(word(config, at + 2) >> 4) & 0xffc;
	}
	return -ENOENT;
}
