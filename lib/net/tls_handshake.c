/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection under TLS: the handshake, and what its failures mean. The same failure looks
 * different at the two ends: one finds it out, the other gets an alert.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "net/net_internal.h"

/*
 * Reads of a handshake, two for a record that comes whole. One has some tens of them at most; who
 * cuts 128 KiB into records of a byte each would have us busy for a tenth of a second.
 */
#define HANDSHAKE_READS 1024u

struct tls_peer *tls_peer(const SSL *ssl)
{
	return SSL_get_app_data(ssl);
}

void tls_peer_free(struct tls_peer *peer)
{
	if (!peer)
		return;
	free(peer->host);
	free(peer);
}

/* ---- pre-shared keys ---- */

/* TLS_AES_128_GCM_SHA256: for its hash, see CIPHERS in tls.c. */
static SSL_SESSION *session_of(SSL *ssl, const struct psk *psk)
{
	static const uint8_t id[] = {0x13, 0x01};
	const SSL_CIPHER *cipher = SSL_CIPHER_find(ssl, id);
	SSL_SESSION *session = SSL_SESSION_new();

	if (session && cipher && SSL_SESSION_set1_master_key(session, psk->key, psk->length) &&
	    SSL_SESSION_set_cipher(session, cipher) &&
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))
		return session;
	SSL_SESSION_free(session);
	return NULL;
}

static int offer_key(SSL *ssl, const EVP_MD *md, const unsigned char **identity, size_t *length,
		     SSL_SESSION **session)
{
	const struct psk_table *table = tls_keys(SSL_get_SSL_CTX(ssl));
	const struct psk *psk = &table->keys[table->chosen];

	*session = NULL;
	if (md && EVP_MD_get_type(md) != NID_sha256)
		return 1; /* the server insists on another hash: without a key then */
	*session = session_of(ssl, psk);
	if (!*session)
		return 0;
	*identity = (const unsigned char *)psk->identity;
	*length = strlen(psk->identity);
	return 1;
}

/* What is no identity of ours is quoted in logs: only if it can be. */
static void note_identity(struct tls_peer *peer, const unsigned char *identity, size_t length)
{
	char text[SLU_IDENTITY_MAX + 1] = {0};

	if (length <= SLU_IDENTITY_MAX)
		memcpy(text, identity, length);
	strcpy(peer->identity, tls_identity_valid(text) ? text : "(not an identity)");
}

/* An identity that is not known goes on without a key: a client may have a certificate as well. */
static int find_key(SSL *ssl, const unsigned char *identity, size_t length, SSL_SESSION **session)
{
	struct tls_peer *peer = tls_peer(ssl);
	const struct psk *psk;

	*session = NULL;
	peer->offers_key = true;
	note_identity(peer, identity, length);
	psk = psk_find(tls_keys(SSL_get_SSL_CTX(ssl)), peer->identity);
	peer->unknown = !psk;
	if (!psk)
		return 1;
	psk_digest(psk, peer->key_digest);
	*session = session_of(ssl, psk);
	return *session != NULL;
}

void tls_use_keys(SSL_CTX *ctx, enum tls_role role)
{
	if (role == TLS_SERVER)
		SSL_CTX_set_psk_find_session_callback(ctx, find_key);
	else
		SSL_CTX_set_psk_use_session_callback(ctx, offer_key);
}

/* ---- failures ---- */

static const char *other(const struct tls_peer *peer)
{
	return peer->role == TLS_SERVER ? "the client" : peer->host;
}

static int no_tls(const struct tls_peer *peer)
{
	if (peer->role == TLS_SERVER)
		return fail(-EPERM, "the client does not speak TLS: give it --psk or --tls-cert");
	return fail(-EPERM,
		    "the target at %s does not speak TLS: start it with --psk or --tls-cert, or "
		    "connect without",
		    peer->host);
}

static int unknown_to_target(const struct tls_peer *peer)
{
	if (peer->offers_key)
		return fail(
			-ENOKEY,
			"the target at %s does not know the identity \"%s\": add its key to the "
			"target's key file",
			peer->host, peer->identity);
	return fail(-ENOKEY,
		    "the target at %s does not take certificates, or wants another kind: give a "
		    "key with --psk",
		    peer->host);
}

static int nothing_to_show(const struct tls_peer *peer)
{
	if (peer->unknown)
		return fail(-ENOKEY,
			    "there is no key of the identity \"%s\" that the client offers: add it "
			    "to the key file",
			    peer->identity);
	return fail(-ENOKEY, "the client shows neither a key nor a certificate that counts here");
}

/* The alert that the peer sent. @return 0: it says nothing to us */
static int explain_alert(const struct tls_peer *peer, int reason)
{
	bool server = peer->role == TLS_SERVER;

	switch (reason) {
	case SSL_R_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY:
	case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return server ? nothing_to_show(peer) : unknown_to_target(peer);
	case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER: /* the proof of the key does not fit */
	case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
		return fail(-EKEYREJECTED,
			    "%s holds another key for the identity \"%s\": the line must be the "
			    "same in both key files",
			    other(peer), peer->identity);
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
		return fail(
			-EKEYEXPIRED,
			"%s says that our certificate, or its own revocation list, has expired: "
			"renew it",
			other(peer));
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
		return fail(-EKEYREJECTED, "%s says that our certificate was revoked: get another",
			    other(peer));
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
		if (server && peer->unknown)
			return nothing_to_show(peer);
		return fail(-EKEYREJECTED,
			    "%s does not trust the authority that signed our certificate: add it "
			    "there, --tls-ca",
			    other(peer));
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
		return fail(-EKEYREJECTED, "%s refuses our certificate", other(peer));
	case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
		return fail(-EPROTO, "%s speaks no TLS 1.3", other(peer));
	default:
		return 0;
	}
}

static int explain_certificate(const SSL *ssl, const struct tls_peer *peer)
{
	long result = SSL_get_verify_result(ssl);

	/* We trust nobody's certificate: a key was to be used. */
	if (peer->role == TLS_CLIENT && peer->offers_key && !peer->has_certificate)
		return unknown_to_target(peer);
	switch (result) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return fail(-EKEYEXPIRED, "the certificate of %s has expired: it must be renewed",
			    other(peer));
	case X509_V_ERR_CERT_REVOKED:
		return fail(-EKEYREJECTED, "the certificate of %s was revoked by its authority",
			    other(peer));
	case X509_V_ERR_CRL_HAS_EXPIRED:
		return fail(-EKEYEXPIRED,
			    "the revocation list has expired, so that nobody's certificate counts: "
			    "renew the file of --tls-crl, and send SIGHUP to a target");
	case X509_V_ERR_UNABLE_TO_GET_CRL:
		return fail(-EKEYREJECTED,
			    "there is no revocation list of the authority that signed the "
			    "certificate of %s: add it to the file of --tls-crl",
			    other(peer));
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		return fail(-EKEYREJECTED,
			    "the certificate of the target at %s is for another name: see "
			    "--tls-name",
			    peer->host);
	default:
		return fail(-EKEYREJECTED, "the certificate of %s is not trusted: %s", other(peer),
			    X509_verify_cert_error_string(result));
	}
}

static int explain_reason(const SSL *ssl, int reason)
{
	const struct tls_peer *peer = tls_peer(ssl);
	int rc = explain_alert(peer, reason);

	if (rc < 0)
		return rc;
	switch (reason) {
	case SSL_R_UNEXPECTED_EOF_WHILE_READING:
		return fail(-ECONNRESET, "%s closed the connection", other(peer));
	case SSL_R_WRONG_VERSION_NUMBER:
	case SSL_R_HTTP_REQUEST:
	case SSL_R_HTTPS_PROXY_REQUEST:
	case SSL_R_PACKET_LENGTH_TOO_LONG:
	case SSL_R_BAD_RECORD_TYPE:
		if (!peer->shaken)
			return no_tls(peer);
		break;
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
		return explain_certificate(ssl, peer);
	case SSL_R_BINDER_DOES_NOT_VERIFY:
		return fail(-EKEYREJECTED, "the client's key for the identity \"%s\" is not ours",
			    peer->identity);
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_NO_SHARED_CIPHER:
		return nothing_to_show(peer);
	case SSL_R_UNSUPPORTED_PROTOCOL:
		return fail(-EPROTO, "%s speaks no TLS 1.3", other(peer));
	}
	return fail(-EPROTO, "TLS with %s failed: %s", other(peer),
		    ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, reason)));
}

static int explain_errno(const SSL *ssl, int error)
{
	if (error == 0 || error == ECONNRESET || error == EPIPE)
		return fail(-ECONNRESET, "%s closed the connection", other(tls_peer(ssl)));
	return fail(-error, "the connection to %s broke: %s", other(tls_peer(ssl)),
		    strerror(error));
}

int tls_explain(SSL *ssl, int rc, bool *wants_write)
{
	int error = errno;

	switch (SSL_get_error(ssl, rc)) {
	case SSL_ERROR_WANT_READ:
		return 0;
	case SSL_ERROR_WANT_WRITE:
		*wants_write = true;
		return 0;
	case SSL_ERROR_ZERO_RETURN:
		if (tls_peer(ssl)->asides > TLS_ASIDES_MAX)
			return fail(-EPROTO, "%s changes its keys again and again",
				    other(tls_peer(ssl)));
		return fail(-ECONNRESET, "%s closed the connection", other(tls_peer(ssl)));
	case SSL_ERROR_SYSCALL:
		return explain_errno(ssl, error);
	default:
		return explain_reason(ssl, ERR_GET_REASON(ERR_peek_error()));
	}
}

/* ---- handshake ---- */

static bool is_numeric(const char *host)
{
	uint8_t address[16];

	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static int expect_name(SSL *ssl, const char *name)
{
	if (is_numeric(name))
		return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name);
	SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	return SSL_set1_host(ssl, name) && SSL_set_tlsext_host_name(ssl, name);
}

static SSL *make_ssl(struct tls *tls, int fd, uint64_t *reading)
{
	BIO *bio = stream_bio(fd);
	SSL *ssl = NULL;

	if (!bio)
		return NULL;
	pthread_mutex_lock(&tls->lock);
	ssl = SSL_new(tls->ctx);
	*reading = tls->reading;
	pthread_mutex_unlock(&tls->lock);
	if (ssl)
		SSL_set_bio(ssl, bio, bio);
	else
		BIO_free(bio);
	return ssl;
}

static struct tls_peer *make_peer(const struct tls *tls, SSL *ssl, const char *host)
{
	const struct psk_table *table = tls_keys(SSL_get_SSL_CTX(ssl));
	struct tls_peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		return NULL;
	peer->role = tls->role;
	peer->has_certificate = tls->has_certificate;
	peer->reads = HANDSHAKE_READS;
	if (tls->role == TLS_SERVER)
		return peer;
	peer->host = strdup(host);
	if (!peer->host) {
		free(peer);
		return NULL;
	}
	if (table) {
		peer->offers_key = true;
		strcpy(peer->identity, table->keys[table->chosen].identity);
	}
	return peer;
}

int tls_start(struct tls *tls, struct stream *stream, const char *host)
{
	uint64_t reading;
	SSL *ssl = make_ssl(tls, stream->fd, &reading);
	struct tls_peer *peer = ssl ? make_peer(tls, ssl, host) : NULL;

	if (peer)
		peer->reading = reading;
	if (!peer || SSL_set_app_data(ssl, peer) != 1)
		goto no_memory;
	if (tls->role == TLS_SERVER) {
		SSL_set_accept_state(ssl);
	} else {
		SSL_set_connect_state(ssl);
		if (!expect_name(ssl, tls->files.name ? tls->files.name : host))
			goto no_memory;
	}
	stream->ssl = ssl;
	stream->ops = &stream_tls;
	return 0;
no_memory:
	tls_peer_free(peer);
	SSL_free(ssl);
	ERR_clear_error();
	return fail(-ENOMEM, "out of memory");
}

/* The name in a certificate is an identity like any other, or none. */
static int take_common_name(const SSL *ssl, struct tls_peer *peer)
{
	X509 *certificate = SSL_get0_peer_certificate(ssl);
	char name[SLU_IDENTITY_MAX + 2] = "";
	int length = -1;

	if (certificate)
		length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate),
						   NID_commonName, name, sizeof(name));
	if (length <= 0 || (size_t)length != strlen(name) || !tls_identity_valid(name))
		return fail(
			-EKEYREJECTED,
			"the certificate of %s has no common name that can be an identity: 1 to "
			"%d letters, digits and . _ @ -",
			other(peer), SLU_IDENTITY_MAX);
	strcpy(peer->identity, name);
	return 0;
}

/* Once the connection's own keys have been derived, the session's copy is needed no more. */
static void forget_key(SSL *ssl)
{
	SSL_SESSION *session = SSL_get_session(ssl);
	const uint8_t nothing[SLU_PSK_BYTES_MAX] = {0};

	if (session)
		SSL_SESSION_set1_master_key(session, nothing, sizeof(nothing));
}

static int finish(struct stream *stream)
{
	struct tls_peer *peer = tls_peer(stream->ssl);
	int rc = 0;

	peer->shaken = true;
	forget_key(stream->ssl);
	peer->by_key = SSL_session_reused(stream->ssl);
	if (!peer->by_key && peer->role == TLS_SERVER)
		rc = take_common_name(stream->ssl, peer);
	return rc < 0 ? rc : 1;
}

int tls_handshake(struct stream *stream)
{
	int rc;

	stream->wants_write = false;
	ERR_clear_error();
	rc = stream_shake(stream->ssl, &tls_peer(stream->ssl)->reads);
	if (rc != 1 && tls_peer(stream->ssl)->reads == 0)
		return fail(-EPROTO, "TLS with %s failed: its handshake is in too many pieces",
			    other(tls_peer(stream->ssl)));
	return rc == 1 ? finish(stream) : tls_explain(stream->ssl, rc, &stream->wants_write);
}

bool tls_shaken(const struct stream *stream)
{
	return tls_peer(stream->ssl)->shaken;
}

const char *tls_identity(const struct stream *stream)
{
	return tls_peer(stream->ssl)->identity;
}

/* ---- afterwards ---- */

static bool key_is_valid(SSL_CTX *ctx, const struct tls_peer *peer)
{
	const struct psk_table *table = tls_keys(ctx);
	const struct psk *psk = table ? psk_find(table, peer->identity) : NULL;
	uint8_t digest[KEY_DIGEST_BYTES];

	if (!psk)
		return false;
	psk_digest(psk, digest);
	return CRYPTO_memcmp(digest, peer->key_digest, sizeof(digest)) == 0;
}

static bool certificate_is_valid(SSL_CTX *ctx, const SSL *ssl)
{
	X509 *certificate = SSL_get0_peer_certificate(ssl);
	X509_STORE_CTX *verify = X509_STORE_CTX_new();
	bool valid = false;

	if (verify && certificate &&
	    X509_STORE_CTX_init(verify, SSL_CTX_get_cert_store(ctx), certificate,
				SSL_get_peer_cert_chain(ssl)) == 1 &&
	    X509_STORE_CTX_set_default(verify, "ssl_client") == 1)
		valid = X509_verify_cert(verify) == 1;
	X509_STORE_CTX_free(verify);
	ERR_clear_error();
	return valid;
}

static bool has_expired(const SSL *ssl)
{
	const X509 *certificate = SSL_get0_peer_certificate(ssl);

	return !certificate || X509_cmp_current_time(X509_get0_notAfter(certificate)) <= 0;
}

bool tls_binding(const struct stream *stream, uint8_t binding[static TLS_BINDING_BYTES])
{
	static const char label[] = "EXPORTER-Channel-Binding";

	memset(binding, 0, TLS_BINDING_BYTES);
	return !stream->ssl ||
	       SSL_export_keying_material(stream->ssl, binding, TLS_BINDING_BYTES, label,
					  sizeof(label) - 1, NULL, 0, 0) == 1;
}

/* Asked often: only what was read since then is looked at closely. */
bool tls_still_valid(struct tls *tls, const struct stream *stream)
{
	struct tls_peer *peer = tls_peer(stream->ssl);
	uint64_t reading;
	SSL_CTX *ctx;
	bool valid;

	pthread_mutex_lock(&tls->lock);
	ctx = tls->ctx;
	reading = tls->reading;
	SSL_CTX_up_ref(ctx);
	pthread_mutex_unlock(&tls->lock);
	if (reading == peer->reading)
		valid = peer->by_key || !has_expired(stream->ssl);
	else
		valid = peer->by_key ? key_is_valid(ctx, peer)
				     : certificate_is_valid(ctx, stream->ssl);
	if (valid)
		peer->reading = reading;
	SSL_CTX_free(ctx);
	return valid;
}
