/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/keys.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char directory[64];

int keys_open(void)
{
	strcpy(directory, "/tmp/sluice-keys-XXXXXX");
	return mkdtemp(directory) ? 0 : -1;
}

void keys_close(void)
{
	DIR *dir = opendir(directory);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(directory);
}

const char *keys_path(const char *name)
{
	static char paths[256][128];
	static unsigned next;
	char *path = paths[next++ % 256];

	snprintf(path, sizeof(paths[0]), "%s/%s", directory, name);
	return path;
}

const char *keys_write(const char *name, const char *text)
{
	const char *path = keys_path(name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		abort();
	close(fd);
	return path;
}

/* ---- certificates ---- */

static FILE *create(const char *name, const char *suffix)
{
	char file_name[64];
	FILE *file;
	int fd;

	snprintf(file_name, sizeof(file_name), "%s%s", name, suffix);
	fd = open(keys_path(file_name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file)
		abort();
	return file;
}

static void save(const char *name, X509 *certificate, EVP_PKEY *key)
{
	FILE *file = create(name, ".crt");

	PEM_write_X509(file, certificate);
	fclose(file);
	file = create(name, ".key");
	PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
	fclose(file);
}

static void load(const char *name, X509 **certificate, EVP_PKEY **key)
{
	char file_name[64];
	FILE *file;

	snprintf(file_name, sizeof(file_name), "%s.crt", name);
	file = fopen(keys_path(file_name), "re");
	*certificate = file ? PEM_read_X509(file, NULL, NULL, NULL) : NULL;
	fclose(file);
	snprintf(file_name, sizeof(file_name), "%s.key", name);
	file = fopen(keys_path(file_name), "re");
	*key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;
	fclose(file);
	if (!*certificate || !*key)
		abort();
}

static X509 *begin(EVP_PKEY *key, const char *common_name, long seconds)
{
	static long serial;
	X509 *certificate = X509_new();

	X509_set_version(certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(certificate), -86400);
	X509_gmtime_adj(X509_getm_notAfter(certificate), seconds);
	X509_set_pubkey(certificate, key);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
				   (const unsigned char *)common_name, -1, -1, 0);
	return certificate;
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509_EXTENSION *extension;
	X509V3_CTX context;

	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	if (!extension)
		abort();
	X509_add_ext(certificate, extension, -1);
	X509_EXTENSION_free(extension);
}

void keys_authority(const char *name)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = begin(key, name, 86400);

	X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
	add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE");
	X509_sign(certificate, key, EVP_sha256());
	save(name, certificate, key);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

void keys_certificate(const char *name, const char *authority, const char *common_name,
		      const char *names, long seconds)
{
	EVP_PKEY *key = EVP_EC_gen("P-256"), *authority_key;
	X509 *certificate = begin(key, common_name, seconds), *issuer;

	load(authority, &issuer, &authority_key);
	X509_set_issuer_name(certificate, X509_get_subject_name(issuer));
	if (names)
		add_extension(certificate, issuer, NID_subject_alt_name, names);
	X509_sign(certificate, authority_key, EVP_sha256());
	save(name, certificate, key);
	X509_free(issuer);
	EVP_PKEY_free(authority_key);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static void put_on_list(X509_CRL *list, const char *name)
{
	X509_REVOKED *entry = X509_REVOKED_new();
	X509 *certificate;
	EVP_PKEY *key;

	load(name, &certificate, &key);
	X509_REVOKED_set_serialNumber(entry, X509_get_serialNumber(certificate));
	X509_REVOKED_set_revocationDate(entry, (ASN1_TIME *)X509_CRL_get0_lastUpdate(list));
	X509_CRL_add0_revoked(list, entry);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

void keys_revocations(const char *name, const char *authority, const char *revoked, long seconds)
{
	ASN1_TIME *begin = X509_gmtime_adj(NULL, -86400), *end = X509_gmtime_adj(NULL, seconds);
	X509_CRL *list = X509_CRL_new();
	EVP_PKEY *key;
	X509 *issuer;
	FILE *file;

	load(authority, &issuer, &key);
	X509_CRL_set_version(list, 1);
	X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer));
	X509_CRL_set1_lastUpdate(list, begin);
	X509_CRL_set1_nextUpdate(list, end);
	if (revoked)
		put_on_list(list, revoked);
	X509_CRL_sign(list, key, EVP_sha256());
	file = create(name, ".crl");
	PEM_write_X509_CRL(file, list);
	fclose(file);
	X509_free(issuer);
	EVP_PKEY_free(key);
	X509_CRL_free(list);
	ASN1_TIME_free(begin);
	ASN1_TIME_free(end);
}
