/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A report as a file of JSON.
 */
#ifndef COMMON_JSON_FILE_H
#define COMMON_JSON_FILE_H

#include <jansson.h>

/**
 * Look whether --json's file could be written, before a long run ends without its report. Leaves it
 * as it is, and none where there was none.
 *
 * @param path  NULL and "-" always can
 * @return      0; -EIO it cannot, slu_last_error() says why
 */
int json_file_check(const char *path);

/**
 * Write @p object to --json's file and free it.
 *
 * @param object  NULL (out of memory while it was made) is an error
 * @param path    "-" is standard output
 * @return        0; -ENOMEM; -EIO it could not be written, slu_last_error() says why
 */
int json_file_write(json_t *object, const char *path);

#endif
