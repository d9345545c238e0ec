/* SPDX-License-Identifier: Apache-2.0 */
/** @file JSON that is hardly ever right, made from a seed. */
#ifndef TESTS_FUZZ_ODD_JSON_H
#define TESTS_FUZZ_ODD_JSON_H

#include <jansson.h>

#include "base/random.h"
#include "control/message.h"

/** A value, mostly a number or text at some limit. A new reference. */
json_t *odd_json(struct random *dice);

/** Replace, remove or repeat something within @p value, an object or array. */
void spoil_json(struct random *dice, json_t *value);

/** The version of the control protocol that we speak, as text. */
#define VERSION              TEXT_OF_NUMBER(MESSAGE_VERSION_HIGH)
#define TEXT_OF_NUMBER(name) TEXT_OF(name)
#define TEXT_OF(number)      #number

#endif
