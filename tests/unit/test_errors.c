/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include <sluice/sluice.h>

#include "tests/tap.h"

/* Goal: every errno that error.h promises has a text of its own. */
static void test_each_promised_errno_has_its_text(void **state)
{
	static const int promised[] = {
		EINVAL,       ERANGE,        EACCES,      EPERM,     ENOKEY,
		EKEYREJECTED, EKEYEXPIRED,   EKEYREVOKED, ENOENT,    ECONNREFUSED,
		EHOSTUNREACH, EADDRNOTAVAIL, EADDRINUSE,  EPROTO,    EPROTONOSUPPORT,
		EOPNOTSUPP,   ECONNRESET,    ESHUTDOWN,   ETIMEDOUT, EMSGSIZE,
		ECANCELED,    EBUSY,         ENOMEM,      ENOSPC,    EMFILE,
		EAGAIN,       E2BIG,
	};
	const char *unexpected = slu_strerror(-EXDEV);

	(void)state;
	for (size_t i = 0; i < sizeof(promised) / sizeof(promised[0]); i++) {
		assert_string_not_equal(slu_strerror(-promised[i]), unexpected);
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(slu_strerror(-promised[i]),
						slu_strerror(-promised[j]));
	}
}

/* Goal: the sign of the errno does not matter, and any number is answered. */
static void test_sign_and_unknown_numbers(void **state)
{
	(void)state;
	assert_string_equal(slu_strerror(ETIMEDOUT), slu_strerror(-ETIMEDOUT));
	assert_string_equal(slu_strerror(0), "success");
	assert_non_null(slu_strerror(123456));
	assert_non_null(slu_strerror(-123456));
}

/* Goal: every scope has a name, and a value outside the enum is answered too. */
static void test_scope_names(void **state)
{
	(void)state;
	assert_string_equal(slu_scope_name(SLU_SCOPE_NONE), "none");
	assert_string_equal(slu_scope_name(SLU_SCOPE_OPERATION), "operation");
	assert_string_equal(slu_scope_name(SLU_SCOPE_PATH), "path");
	assert_string_equal(slu_scope_name(SLU_SCOPE_SESSION), "session");
	assert_string_equal(slu_scope_name(SLU_SCOPE_DEVICE), "device");
	assert_string_equal(slu_scope_name(SLU_SCOPE_PROCESS), "process");
	assert_string_equal(slu_scope_name((enum slu_scope)77), "unknown");
}

/* Goal: the loaded library says the version that the headers state. */
static void test_version_matches_headers(void **state)
{
	char version[32];

	(void)state;
	snprintf(version, sizeof(version), "%d.%d.%d", SLU_VERSION_MAJOR, SLU_VERSION_MINOR,
		 SLU_VERSION_PATCH);
	assert_string_equal(slu_version(), version);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_promised_errno_has_its_text),
		cmocka_unit_test(test_sign_and_unknown_numbers),
		cmocka_unit_test(test_scope_names),
		cmocka_unit_test(test_version_matches_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
