/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Telling the service manager how we are: datagrams to NOTIFY_SOCKET, as sd_notify(3) describes
 * them. Without that variable, which a manager sets, nothing happens.
 */
#ifndef COMMON_NOTIFY_H
#define COMMON_NOTIFY_H

/**
 * Send one message: lines such as "READY=1\nSTATUS=serving".
 *
 * @return 0 sent, or nobody asked; -errno, which nobody has to act on
 */
int notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** "RELOADING=1" with the time that it must carry. @return as notify_send() */
int notify_reloading(void);

#endif
