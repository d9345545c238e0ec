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

/* flags.c */
void keeps_the_order_asked_for(void **state);
void orders_calls_after_writes(void **state);
void ends_in_silence(void **state);
void waits_for_the_silent(void **state);
void tells_of_silent_failures(void **state);
void cancels_what_is_under_way(void **state);
void cancels_what_is_held_back(void **state);
void cancels_nothing_else(void **state);

/* atomics.c */
void adds_and_swaps(void **state);
void adds_many_at_once(void **state);
void refuses_bad_atomics(void **state);

#endif
