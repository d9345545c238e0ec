/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Long texts on a terminal, in lines that end between words. Elsewhere a text stays one line, which
 * is what programs look for.
 */
#ifndef COMMON_WRAP_H
#define COMMON_WRAP_H

#include <stdint.h>
#include <stdio.h>

/** Columns of the terminal that stdout is; 0 = it is none. */
uint32_t wrap_width(void);

/**
 * Write @p text and a newline.
 *
 * @param width   of a line; 0, or too small for a column of text = as one line
 * @param indent  columns that are written already, and are left blank in front of further lines
 */
void wrap_print(FILE *out, uint32_t width, uint32_t indent, const char *text);

#endif
