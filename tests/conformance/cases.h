/* SPDX-License-Identifier: Apache-2.0 */
/** @file What the files of the suite share: the rig of the column that runs, and their tests. */
#ifndef CONFORMANCE_CASES_H
#define CONFORMANCE_CASES_H

#include "rig.h"

extern struct rig rig;

/* messages.c */
void calls_with_long_bodies(void **state);
void calls_with_many_long_bodies(void **state);
void refuses_calls_that_are_too_long(void **state);
void refuses_longer_answers(void **state);
void drops_late_long_answers(void **state);
void calls_several_threads(void **state);
void calls_a_service(void **state);
void tells_who_has_gone(void **state);

/* vectors.c */
void moves_listed_fragments(void **state);
void moves_strides(void **state);
void moves_pages(void **state);
void moves_the_most_fragments(void **state);
void notifies_after_fragments(void **state);
void shares_a_vector(void **state);
void refuses_bad_lists(void **state);
void refuses_bad_strides_and_pages(void **state);
void refuses_overlaps(void **state);

#endif
