/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Registers of PCI Express devices, read from what sysfs shows of their configuration space. The
 * kernel shows all of it to root only, and 64 bytes to others.
 *
 * Layouts: PCI Express Base Specification 5.0, 7.5.3 (capability 0x10) and 7.7.8 (ACS, 0x000d).
 */
#ifndef COMMON_DOCTOR_PCIE_H
#define COMMON_DOCTOR_PCIE_H

#include <stddef.h>
#include <stdint.h>

#define PCIE_CONFIG_BYTES 4096
#define PCIE_ACS_REDIRECT 0x000c /* control: requests and completions go by way of the root */

/** Device control of the PCI Express capability. @return 0; -ENODATA not shown; -ENOENT none */
int pcie_device_control(const uint8_t *config, size_t length, uint16_t *control);

#define PCIE_RELAXED_ORDERING 0x0010 /* in device control */

/** ACS control. @return 0; -ENODATA not shown; -ENOENT the device has no ACS */
int pcie_acs_control(const uint8_t *config, size_t length, uint16_t *control);

#endif
