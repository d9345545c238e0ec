/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * "sluice-initiator explain": every way to a segment, what it would cost, what it does cost, which
 * one is taken and why not the others. As JSON "sluice-explain/1", docs/report.md.
 */
#ifndef INITIATOR_EXPLAIN_H
#define INITIATOR_EXPLAIN_H

#include "common/settings.h"

/** @return exit code: EXIT_DONE there is a way; EXIT_FAILED there is none */
int explain_run(struct settings *settings);

#endif
