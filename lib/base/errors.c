/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include <sluice/error.h>
#include <sluice/version.h>

static const struct {
	int number;
	const char *text;
} meanings[] = {
	{0, "success"},
	{EINVAL, "malformed argument or operation"},
	{E2BIG, "unknown to this libsluice: the program was built for a newer one"},
	{ERANGE, "outside the region or the segment"},
	{EACCES, "right not granted"},
	{EPERM, "forbidden: TCP without TLS, or only one end uses TLS"},
	{ENOKEY, "identity unknown or not shown"},
	{EKEYREJECTED, "wrong key or certificate"},
	{EKEYEXPIRED, "a certificate has expired"},
	{EKEYREVOKED, "the right was withdrawn"},
	{ENOENT, "no such segment"},
	{ECONNREFUSED, "no target listens there"},
	{EHOSTUNREACH, "there is no way to that address"},
	{EADDRNOTAVAIL, "host name unknown, or not an address of this host"},
	{EADDRINUSE, "name, socket or port taken by another target"},
	{EPROTO, "the peer broke the protocol"},
	{EPROTONOSUPPORT, "no protocol version in common with the peer"},
	{EOPNOTSUPP, "not supported by the transport"},
	{ECONNRESET, "the peer died"},
	{EFAULT, "the memory was taken away"},
	{ESHUTDOWN, "the peer or the engine is closing"},
	{ETIMEDOUT, "the deadline passed"},
	{EMSGSIZE, "the answer to a call is longer than the room for it"},
	{ECANCELED, "given up because its queue or remote was closed"},
	{EBUSY, "still in use"},
	{ECHILD, "opened before fork(), by the parent"},
	{ENOMEM, "out of memory, of hugepages or over the memlock limit"},
	{ENOSPC, "a limit of Sluice was reached"},
	{EDQUOT, "a limit of this identity at the target was reached"},
	{ENOBUFS, "the pool is empty"},
	{EMFILE, "too many open files"},
	{ETOOMANYREFS, "too many descriptors were passed and not received"},
	{EAGAIN, "a resource of the system is exhausted for now"},
	{EINTR, "interrupted by a signal"},
	{EIO, "the device or the system failed"},
};

const char *slu_strerror(int error)
{
	int number = abs(error);

	for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++)
		if (meanings[i].number == number)
			return meanings[i].text;
	return "unexpected system error";
}

const char *slu_scope_name(enum slu_scope scope)
{
	static const char *const names[] = {"none",    "operation", "path",
					    "session", "device",    "process"};

	return (unsigned)scope < sizeof(names) / sizeof(names[0]) ? names[scope] : "unknown";
}

const char *slu_version(void)
{
	return SLU_VERSION;
}
