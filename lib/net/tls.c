/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: what was read from files of keys and certificates. Connections: tls_handshake.c */
#include "net/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/net_internal.h"
#include "net/secret.h"

/* With a pre-shared key only those of SHA-256 count: its key is bound to that hash. */
#define CIPHERS                                                                                    \
	"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:"                                     \
	"TLS_AES_256_GCM_SHA384"

/*
 * Whoever connects chooses among these what a key exchange costs us. OpenSSL's own list ends in
 * ffdhe8192, which takes a tenth of a second. The second one is for where the first curve is not
 * allowed.
 */
static const char *const groups[] = {"X25519:P-256", "P-256"};

static bool given(const char *text)
{
	return text && *text;
}

bool tls_wanted(const struct slu_tls_options *options)
{
	return given(options->psk_file) || given(options->cert_file);
}

static int check_options(const struct slu_tls_options *options)
{
	bool cert = given(options->cert_file), key = given(options->key_file),
	     ca = given(options->ca_file);

	if ((cert || key || ca) && !(cert && key && ca))
		return fail(-EINVAL,
			    "a certificate, its key and the authority's certificate go together: "
			    "the %s is missing",
			    !cert  ? "certificate"
			    : !key ? "key"
				   : "authority (CA)");
	if (given(options->crl_file) && !ca)
		return fail(-EINVAL,
			    "a revocation list is one of an authority: give its certificate "
			    "(CA) as well");
	if (!cert && !given(options->psk_file))
		return fail(-EINVAL, "TLS needs a key file or a certificate");
	if (given(options->identity) && !given(options->psk_file))
		return fail(-EINVAL, "an identity is one of a key file: give that as well");
	return 0;
}

/* ---- certificates ---- */

/* OpenSSL's own words for the latest failure. */
static const char *reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	return text ? text : "unknown cause";
}

/* Is it there, and may we? OpenSSL's words for that are of no help. */
static int check_file(const char *path)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return fail(-errno, "cannot open %s: %s", path, strerror(errno));
	fclose(file);
	return 0;
}

/* Not by SSL_CTX_use_PrivateKey_file(), which leaves the file's text in ordinary memory. A file can
 * begin with the parameters of a curve. @return NULL: no private key, or one with a passphrase */
static EVP_PKEY *parse_private_key(const struct secret_text *text)
{
	BIO *bio = BIO_new_mem_buf(text->text, (int)text->length);
	EVP_PKEY *key = NULL;
	unsigned char *der;
	char *name, *header;
	long length;

	while (bio && !key &&
	       PEM_read_bio_ex(bio, &name, &header, &der, &length, PEM_FLAG_SECURE)) {
		const unsigned char *at = der;

		if (strstr(name, "PRIVATE KEY") && !*header)
			key = d2i_AutoPrivateKey(NULL, &at, length);
		OPENSSL_secure_free(name);
		OPENSSL_secure_free(header);
		OPENSSL_secure_clear_free(der, (size_t)length);
	}
	BIO_free(bio);
	return key;
}

static int use_private_key(SSL_CTX *ctx, const struct slu_tls_options *files)
{
	struct secret_text text;
	EVP_PKEY *key;
	int rc = secret_read("private key", files->key_file, &text);

	if (rc < 0)
		return rc;
	key = parse_private_key(&text);
	secret_wipe_freed(text.length);
	secret_text_free(&text);
	secret_wipe_stack();
	if (!key)
		return fail(-EINVAL, "%s is no private key in PEM, or one with a passphrase: %s",
			    files->key_file, reason());
	if (SSL_CTX_use_PrivateKey(ctx, key) != 1)
		rc = fail(-EKEYREJECTED, "the key %s is not that of the certificate %s",
			  files->key_file, files->cert_file);
	EVP_PKEY_free(key);
	return rc;
}

static int check_expiry(const ASN1_TIME *end, const char *what, const char *path)
{
	char date[64] = "an unknown date";
	BIO *text;

	if (X509_cmp_current_time(end) > 0)
		return 0;
	text = BIO_new(BIO_s_mem());
	if (text && ASN1_TIME_print(text, end) == 1) {
		int length = BIO_read(text, date, sizeof(date) - 1);

		date[length > 0 ? length : 0] = '\0';
	}
	BIO_free(text);
	return fail(-EKEYEXPIRED, "the %s %s has expired on %s: renew it", what, path, date);
}

/* Of each authority of the chain one is wanted from then on: deny by default. */
static int use_revocations(SSL_CTX *ctx, const char *path)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	FILE *file = fopen(path, "re");
	X509_CRL *list;
	int count = 0, rc = 0;

	if (!file)
		return fail(-errno, "cannot open the revocation list %s: %s", path,
			    strerror(errno));
	while (rc == 0 && (list = PEM_read_X509_CRL(file, NULL, NULL, NULL))) {
		const ASN1_TIME *end = X509_CRL_get0_nextUpdate(list);

		count++;
		if (end)
			rc = check_expiry(end, "revocation list", path);
		if (rc == 0 && X509_STORE_add_crl(store, list) != 1)
			rc = fail(-ENOMEM, "cannot keep the revocation list %s: %s", path,
				  reason());
		X509_CRL_free(list);
	}
	if (rc == 0 && (count == 0 || ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE))
		rc = fail(-EINVAL, "%s is no revocation list in PEM: %s", path, reason());
	fclose(file);
	if (rc == 0)
		X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return rc;
}

static int use_certificate(SSL_CTX *ctx, const struct slu_tls_options *files)
{
	int rc = check_file(files->cert_file);

	if (rc == 0)
		rc = check_file(files->ca_file);
	if (rc < 0)
		return rc;
	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(ctx, files->cert_file) != 1)
		return fail(-EINVAL, "%s is no certificate in PEM: %s", files->cert_file, reason());
	rc = use_private_key(ctx, files);
	if (rc < 0)
		return rc;
	if (SSL_CTX_load_verify_file(ctx, files->ca_file) != 1)
		return fail(-EINVAL, "%s holds no certificate in PEM: %s", files->ca_file,
			    reason());
	SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(files->ca_file));
	if (given(files->crl_file))
		rc = use_revocations(ctx, files->crl_file);
	if (rc < 0)
		return rc;
	return check_expiry(X509_get0_notAfter(SSL_CTX_get0_certificate(ctx)), "certificate",
			    files->cert_file);
}

/* ---- contexts ---- */

static int keys_index = -1;

static void free_keys(void *parent, void *table, CRYPTO_EX_DATA *data, int index, long argl,
		      void *argp)
{
	(void)parent;
	(void)data;
	(void)index;
	(void)argl;
	(void)argp;
	psk_table_free(table);
}

static void make_index(void)
{
	keys_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, free_keys);
}

struct psk_table *tls_keys(const SSL_CTX *ctx)
{
	return SSL_CTX_get_ex_data(ctx, keys_index);
}

static int use_psk_file(SSL_CTX *ctx, enum tls_role role, const struct slu_tls_options *files)
{
	struct psk_table *table;
	const struct psk *chosen;
	int rc = psk_table_read(files->psk_file, &table);

	if (rc < 0)
		return rc;
	if (SSL_CTX_set_ex_data(ctx, keys_index, table) != 1) {
		psk_table_free(table);
		return fail(-ENOMEM, "out of memory");
	}
	table->chosen = table->first;
	if (role == TLS_CLIENT && given(files->identity)) {
		chosen = psk_find(table, files->identity);
		if (!chosen)
			return fail(-ENOKEY, "%s has no key of identity \"%.80s\"", files->psk_file,
				    files->identity);
		table->chosen = (uint32_t)(chosen - table->keys);
	}
	tls_use_keys(ctx, role);
	return 0;
}

static int configure(SSL_CTX *ctx, enum tls_role role, const struct slu_tls_options *files)
{
	int rc = 0;

	SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION);
	SSL_CTX_set_ciphersuites(ctx, CIPHERS);
	if (SSL_CTX_set1_groups_list(ctx, groups[0]) != 1 &&
	    SSL_CTX_set1_groups_list(ctx, groups[1]) != 1)
		return fail(-EOPNOTSUPP, "OpenSSL has no curve for a key exchange: %s", reason());
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_ENABLE_KTLS |
					 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	/* One message of the handshake's kind, then SSL_read() returns, unless more was read ahead
	 * (stream_expect_bulk()): of the change of keys there can be any number, and each takes
	 * longer than to send it. */
	SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	/* Without one, OpenSSL lets a server that verifies its peers take no pre-shared key. */
	if (role == TLS_SERVER)
		SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"sluice", 6);
	if (given(files->cert_file))
		rc = use_certificate(ctx, files);
	if (rc == 0 && given(files->psk_file))
		rc = use_psk_file(ctx, role, files);
	return rc;
}

static int make_context(enum tls_role role, const struct slu_tls_options *files, SSL_CTX **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	SSL_CTX *ctx;
	int rc;

	pthread_once(&once, make_index);
	secret_heap();
	ctx = SSL_CTX_new(role == TLS_SERVER ? TLS_server_method() : TLS_client_method());
	if (!ctx)
		return fail(-ENOMEM, "cannot make a TLS context: %s", reason());
	rc = configure(ctx, role, files);
	ERR_clear_error();
	if (rc < 0) {
		SSL_CTX_free(ctx);
		return rc;
	}
	*out = ctx;
	return 0;
}

/* @return false: out of memory */
static bool copy_text(const char **to, const char *from)
{
	*to = given(from) ? strdup(from) : NULL;
	return *to || !given(from);
}

static bool copy_files(struct slu_tls_options *to, const struct slu_tls_options *from)
{
	return copy_text(&to->psk_file, from->psk_file) &&
	       copy_text(&to->identity, from->identity) &&
	       copy_text(&to->cert_file, from->cert_file) &&
	       copy_text(&to->key_file, from->key_file) && copy_text(&to->ca_file, from->ca_file) &&
	       copy_text(&to->crl_file, from->crl_file) && copy_text(&to->name, from->name);
}

static uint64_t next_reading(void)
{
	static _Atomic uint64_t readings;

	return ++readings;
}

int tls_open(enum tls_role role, const struct slu_tls_options *options, struct tls **out)
{
	int rc = check_options(options);
	struct tls *tls;

	if (rc < 0)
		return rc;
	tls = calloc(1, sizeof(*tls));
	if (!tls)
		return fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&tls->lock, NULL);
	tls->role = role;
	tls->has_certificate = given(options->cert_file);
	tls->reading = next_reading();
	rc = copy_files(&tls->files, options) ? make_context(role, options, &tls->ctx)
					      : fail(-ENOMEM, "out of memory");
	if (rc < 0) {
		tls_close(tls);
		return rc;
	}
	*out = tls;
	return 0;
}

void tls_close(struct tls *tls)
{
	if (!tls)
		return;
	SSL_CTX_free(tls->ctx); /* lives on while connections use it */
	free((char *)(uintptr_t)tls->files.psk_file);
	free((char *)(uintptr_t)tls->files.identity);
	free((char *)(uintptr_t)tls->files.cert_file);
	free((char *)(uintptr_t)tls->files.key_file);
	free((char *)(uintptr_t)tls->files.ca_file);
	free((char *)(uintptr_t)tls->files.crl_file);
	free((char *)(uintptr_t)tls->files.name);
	pthread_mutex_destroy(&tls->lock);
	free(tls);
}

int tls_reload(struct tls *tls)
{
	SSL_CTX *fresh, *old;
	int rc = make_context(tls->role, &tls->files, &fresh);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&tls->lock);
	old = tls->ctx;
	tls->ctx = fresh;
	tls->reading = next_reading();
	pthread_mutex_unlock(&tls->lock);
	SSL_CTX_free(old);
	return 0;
}
