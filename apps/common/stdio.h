/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Standard streams of a program that must outlive its terminal or its pipe.
 */
#ifndef COMMON_STDIO_H
#define COMMON_STDIO_H

/**
 * Make the standard streams safe; first thing in main().
 *
 * A closed descriptor 0, 1 or 2 is taken by /dev/null, opened so that using it still fails: memory
 * or a socket opened later can never be mistaken for it. SIGPIPE is ignored and stdout is
 * line-buffered.
 */
void stdio_guard(void);

/**
 * From now on a reader of stdout that stalls holds nobody up for more than two seconds, and then
 * not at all until it reads again: what is written meanwhile is lost, and stdio_finish() says so.
 */
void stdio_bound(void);

/** Flush stdout; when something written to it was lost, say so on stderr. Last thing in main(). */
void stdio_finish(void);

#endif
