/* SPDX-License-Identifier: Apache-2.0 */
#include "common/security.h"

#include <errno.h>

#include "base/log.h"

bool security_tls(const struct security *security)
{
	return security->psk || security->tls_cert;
}

int security_check(const struct security *security)
{
	int given = !!security->tls_cert + !!security->tls_key + !!security->tls_ca;

	if (given && given != 3)
		return fail(-EINVAL,
			    "TLS by certificates needs all of --tls-cert, --tls-key and --tls-ca: "
			    "either end shows one and checks the other's");
	if (security->tls_crl && !security->tls_ca)
		return fail(-EINVAL, "--tls-crl goes with --tls-ca: a revocation list is one of an "
				     "authority");
	if (security->tcp_plain && !security_tls(security))
		return fail(-EINVAL, "--tcp-plain goes with --psk or --tls-cert: without TLS "
				     "nothing is encrypted anyway");
	return 0;
}

void security_apply(const struct security *security, struct slu_engine_options *options)
{
	options->tls.psk_file = security->psk;
	options->tls.cert_file = security->tls_cert;
	options->tls.key_file = security->tls_key;
	options->tls.ca_file = security->tls_ca;
	options->tls.crl_file = security->tls_crl;
	options->insecure = security->insecure;
	options->tcp_plain = security->tcp_plain;
}
