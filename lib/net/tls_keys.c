/* SPDX-License-Identifier: Apache-2.0 */
/* Files of pre-shared keys: a line IDENTITY:HEX each, blank lines, and comments after '#'. */
#include <ctype.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "net/net_internal.h"
#include "net/secret.h"

#define LINE_MAX_BYTES (SLU_IDENTITY_MAX + 1 + 2 * SLU_PSK_BYTES_MAX + 256)
#define KEYS_MAX       1000000u

bool tls_identity_valid(const char *identity)
{
	size_t length = strlen(identity);

	if (length == 0 || length > SLU_IDENTITY_MAX)
		return false;
	for (const char *c = identity; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("._@-", *c))
			return false;
	return true;
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* @return 0; -EINVAL */
static int parse_key(const char *hex, struct psk *psk)
{
	size_t digits = strlen(hex);

	if (digits % 2 || digits / 2 < SLU_PSK_BYTES_MIN || digits / 2 > SLU_PSK_BYTES_MAX)
		return -EINVAL;
	for (size_t i = 0; i < digits / 2; i++) {
		int high = nibble(hex[2 * i]), low = nibble(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		psk->key[i] = (uint8_t)(high << 4 | low);
	}
	psk->length = (uint8_t)(digits / 2);
	return 0;
}

static char *strip(char *line)
{
	char *end;

	line[strcspn(line, "#\r\n")] = '\0';
	while (isspace((unsigned char)*line))
		line++;
	end = line + strlen(line);
	while (end > line && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return line;
}

/* The key itself is never quoted. @return 1 a key, 0 nothing on this line, -EINVAL */
static int parse_line(const char *path, uint32_t number, char *line, struct psk *psk)
{
	char *colon;

	line = strip(line);
	if (!*line)
		return 0;
	colon = strchr(line, ':');
	if (!colon)
		return fail(-EINVAL, "%s:%u: IDENTITY:HEX is expected, there is no colon", path,
			    number);
	*colon = '\0';
	if (!tls_identity_valid(line))
		return fail(-EINVAL,
			    "%s:%u: an identity has 1 to %d letters, digits and . _ @ -, not "
			    "\"%.80s\"",
			    path, number, SLU_IDENTITY_MAX, line);
	memset(psk, 0, sizeof(*psk));
	strcpy(psk->identity, line);
	psk->line = number;
	if (parse_key(colon + 1, psk) < 0)
		return fail(-EINVAL,
			    "%s:%u: the key of %s is not %d to %d bytes in hexadecimal: make one "
			    "with openssl rand -hex 32",
			    path, number, line, SLU_PSK_BYTES_MIN, SLU_PSK_BYTES_MAX);
	return 1;
}

static int add_key(struct psk_table *table, const struct psk *psk)
{
	if (table->count == table->room) {
		uint32_t room = table->room ? 2 * table->room : 16;
		struct psk *keys = secret_alloc(room * sizeof(*keys));

		if (!keys)
			return fail(-ENOMEM, "out of memory");
		if (table->keys)
			memcpy(keys, table->keys, table->count * sizeof(*keys));
		secret_free(table->keys, table->room * sizeof(*keys));
		table->keys = keys;
		table->room = room;
	}
	table->keys[table->count++] = *psk;
	return 0;
}

static int read_lines(const char *path, char *text, struct psk_table *table)
{
	struct psk psk;
	uint32_t number = 0;
	int rc = 0;

	while (rc >= 0 && text) {
		char *line = strsep(&text, "\n");

		number++;
		if (strlen(line) > LINE_MAX_BYTES)
			rc = fail(-EINVAL, "%s:%u: a line of over %d bytes", path, number,
				  LINE_MAX_BYTES);
		else
			rc = parse_line(path, number, line, &psk);
		if (rc == 1 && table->count == KEYS_MAX)
			rc = fail(-EINVAL, "%s has over %u keys", path, KEYS_MAX);
		if (rc == 1)
			rc = add_key(table, &psk);
	}
	OPENSSL_cleanse(&psk, sizeof(psk));
	if (rc >= 0 && table->count == 0)
		rc = fail(-EINVAL, "%s holds no key: write lines IDENTITY:HEX into it", path);
	return rc < 0 ? rc : 0;
}

static int by_identity(const void *one, const void *other)
{
	return strcmp(((const struct psk *)one)->identity, ((const struct psk *)other)->identity);
}

static int order(const char *path, struct psk_table *table)
{
	char first[SLU_IDENTITY_MAX + 1];

	strcpy(first, table->keys[0].identity);
	qsort(table->keys, table->count, sizeof(table->keys[0]), by_identity);
	for (uint32_t i = 1; i < table->count; i++) {
		const struct psk *one = &table->keys[i - 1], *other = &table->keys[i];

		if (strcmp(one->identity, other->identity) == 0)
			return fail(-EINVAL, "%s:%u: identity %s has a key already, in line %u",
				    path, one->line > other->line ? one->line : other->line,
				    one->identity,
				    one->line < other->line ? one->line : other->line);
	}
	table->first = (uint32_t)(psk_find(table, first) - table->keys);
	return 0;
}

int psk_table_read(const char *path, struct psk_table **out)
{
	struct secret_text text;
	struct psk_table *table;
	int rc = secret_read("key file", path, &text);

	if (rc < 0)
		return rc;
	table = calloc(1, sizeof(*table));
	rc = table ? read_lines(path, text.text, table) : fail(-ENOMEM, "out of memory");
	if (rc == 0)
		rc = order(path, table);
	secret_text_free(&text);
	secret_wipe_stack();
	if (rc < 0) {
		psk_table_free(table);
		return rc;
	}
	*out = table;
	return 0;
}

void psk_table_free(struct psk_table *table)
{
	if (!table)
		return;
	secret_free(table->keys, table->room * sizeof(table->keys[0]));
	free(table);
}

const struct psk *psk_find(const struct psk_table *table, const char *identity)
{
	struct psk wanted;

	if (strlen(identity) > SLU_IDENTITY_MAX)
		return NULL;
	strcpy(wanted.identity, identity);
	return bsearch(&wanted, table->keys, table->count, sizeof(wanted), by_identity);
}

void psk_digest(const struct psk *psk, uint8_t digest[KEY_DIGEST_BYTES])
{
	EVP_Digest(psk->key, psk->length, digest, NULL, EVP_sha256(), NULL);
}
