/* SPDX-License-Identifier: Apache-2.0 */
#include "cipher.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "cursor.h"
#include "lanes.h"

#define TEXT_BYTES   MIB /* is walked, as bulk walks its buffer */
#define RECORD_BYTES SSL3_RT_MAX_PLAIN_LENGTH
#define NONCE_BYTES  12
#define TAG_BYTES    16

struct sealer {
	EVP_CIPHER_CTX *context;
	unsigned char *text;
	struct cursor cursor;
	unsigned char nonce[NONCE_BYTES];
	unsigned char sealed[RECORD_BYTES + 1 + TAG_BYTES];
};

/* As RFC 8446 has it: its header is authenticated, and the type follows the text. */
static uint64_t seal(void *arg)
{
	static const unsigned char header[] = {SSL3_RT_APPLICATION_DATA, 3, 3, 0x40, 0x11};
	static const unsigned char type[] = {SSL3_RT_APPLICATION_DATA};
	struct sealer *sealer = arg;
	const unsigned char *text = sealer->text + cursor_next(&sealer->cursor);
	EVP_CIPHER_CTX *context = sealer->context;
	unsigned char *to = sealer->sealed;
	int n;

	for (unsigned i = NONCE_BYTES; i-- > 0 && ++sealer->nonce[i] == 0;)
		;
	if (EVP_EncryptInit_ex(context, NULL, NULL, NULL, sealer->nonce) != 1 ||
	    EVP_EncryptUpdate(context, NULL, &n, header, sizeof(header)) != 1 ||
	    EVP_EncryptUpdate(context, to, &n, text, RECORD_BYTES) != 1 ||
	    EVP_EncryptUpdate(context, to + RECORD_BYTES, &n, type, sizeof(type)) != 1 ||
	    EVP_EncryptFinal_ex(context, to + RECORD_BYTES + 1, &n) != 1 ||
	    EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, TAG_BYTES, to + RECORD_BYTES + 1) !=
		    1)
		die("a record cannot be sealed");
	return RECORD_BYTES;
}

double cipher_rate(const struct bench *bench, const SSL *ssl)
{
	const SSL_CIPHER *negotiated = SSL_get_current_cipher(ssl);
	const EVP_CIPHER *cipher = EVP_get_cipherbynid(SSL_CIPHER_get_cipher_nid(negotiated));
	struct sealer sealer = {
		.context = EVP_CIPHER_CTX_new(),
		.text = memory_map(TEXT_BYTES, false),
		.cursor = {.size = RECORD_BYTES, .count = TEXT_BYTES / RECORD_BYTES}};
	struct lane lane = {.core = bench->cores[0], .step = seal, .arg = &sealer};
	unsigned char key[EVP_MAX_KEY_LENGTH];
	double rate;

	memory_fill(sealer.text, TEXT_BYTES, 0);
	if (!cipher || !sealer.context || RAND_bytes(key, sizeof(key)) != 1 ||
	    EVP_EncryptInit_ex(sealer.context, cipher, NULL, key, NULL) != 1)
		die("%s cannot be used by itself", SSL_CIPHER_get_name(negotiated));
	rate = lanes_rate(bench, &lane, 1);
	EVP_CIPHER_CTX_free(sealer.context);
	memory_unmap(sealer.text, TEXT_BYTES);
	return rate;
}
