/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Descriptors that somebody else notices, or that cost much, as long as any process has them: a
 * socket, whose end is not seen by its peer before, and whose address is not free; memory; a
 * device. A child of a fork closes its copies at once. All others are closed when it calls exec(),
 * or ends.
 */
#ifndef BASE_DESCRIPTOR_H
#define BASE_DESCRIPTOR_H

#define DESCRIPTORS_NOTED_MAX (1u << 20) /* numbers beyond are left to the child */

/** Not a child's, from now until descriptor_close(). Any thread. @return @p fd, also a negative one
 */
int descriptor_note(int fd);

/** It will be closed by somebody else. Any thread. */
void descriptor_forget(int fd);

/** Also one that was not noted. Any thread. */
void descriptor_close(int fd);

#endif
