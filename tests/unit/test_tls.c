/* SPDX-License-Identifier: Apache-2.0 */
/* Handshakes of two ends in one thread, over a socket pair: what is accepted, and what each end
 * says when it is not. */
#include "net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/ssl.h>

#include "base/log.h"
#include "net/net_internal.h"
#include "tests/tap.h"
#include "tests/unit/keys.h"

#define DAY 86400L

/* What became of one end. */
struct end {
	struct stream stream;
	int result; /* 1 shaken, or a negative errno */
	char text[512];
};

static struct end client, server;

static int set_up(void **state)
{
	int fds[2];

	(void)state;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	client = (struct end){.stream = {.fd = fds[0]}};
	server = (struct end){.stream = {.fd = fds[1]}};
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	stream_close(&client.stream);
	stream_close(&server.stream);
	return 0;
}

static void note(struct end *end, int result)
{
	end->result = result;
	if (result < 0)
		strcpy(end->text, slu_last_error());
}

/* A client is sure only when the target has said something. */
static void read_something(struct end *end)
{
	char byte;
	struct iovec iov = {.iov_base = &byte, .iov_len = 1};
	ssize_t got = stream_read(&end->stream, &iov, 1);

	if (got < 0)
		note(end, (int)got);
}

static void step(struct end *end, const struct end *other)
{
	if (end->result == 0)
		note(end, tls_handshake(&end->stream));
	else if (end->result == 1)
		read_something(end);
	if (end->result < 0 && other->result >= 0)
		shutdown(end->stream.fd, SHUT_WR); /* what was sent before still arrives */
}

static void shake_hands(void)
{
	for (int i = 0; i < 20; i++) {
		step(&client, &server);
		step(&server, &client);
	}
}

static void shake(struct tls *with_client, struct tls *with_server, const char *host)
{
	assert_int_equal(tls_start(with_client, &client.stream, host), 0);
	assert_int_equal(tls_start(with_server, &server.stream, NULL), 0);
	shake_hands();
}

static struct tls *made(enum tls_role role, struct slu_tls_options options)
{
	struct tls *tls = NULL;
	int rc = tls_open(role, &options, &tls);

	if (rc < 0)
		fail_msg("tls_open: %d (%s)", rc, slu_last_error());
	return tls;
}

static struct slu_tls_options psk(const char *file, const char *identity)
{
	return (struct slu_tls_options){.psk_file = keys_path(file), .identity = identity};
}

static struct slu_tls_options certificate(const char *name)
{
	char crt[64], key[64];

	snprintf(crt, sizeof(crt), "%s.crt", name);
	snprintf(key, sizeof(key), "%s.key", name);
	return (struct slu_tls_options){.cert_file = keys_path(crt),
					.key_file = keys_path(key),
					.ca_file = keys_path("ca.crt")};
}

static void assert_end(const struct end *end, const char *who, int result, const char *text)
{
	if (end->result != result || (result < 0 && !strstr(end->text, text)))
		fail_msg("%s: %d (%s), not %d (... %s ...)", who, end->result, end->text, result,
			 text ? text : "");
}

/* Shake with @p with_client and @p with_server, expect these ends. */
static void expect(struct slu_tls_options with_client, struct slu_tls_options with_server,
		   const char *host, int client_result, const char *client_text, int server_result,
		   const char *server_text)
{
	struct tls *one = made(TLS_CLIENT, with_client), *other = made(TLS_SERVER, with_server);

	shake(one, other, host);
	assert_end(&client, "client", client_result, client_text);
	assert_end(&server, "server", server_result, server_text);
	tls_close(one); /* before their streams */
	tls_close(other);
}

/* ---- handshakes ---- */

/* Goal: with the same key both ends agree, the target knows the identity, and bytes go both ways.
 */
static void test_key(void **state)
{
	char bytes[8] = "";
	struct iovec out = {.iov_base = "hello", .iov_len = 6};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};

	(void)state;
	expect(psk("bob", NULL), psk("all", NULL), "t", 1, NULL, 1, NULL);
	assert_string_equal(tls_identity(&server.stream), "bob");
	assert_string_equal(stream_describe(&client.stream), "TLS 1.3");
	assert_int_equal(stream_write(&client.stream, &out, 1), 6);
	assert_int_equal(stream_read(&server.stream, &in, 1), 6);
	assert_string_equal(bytes, "hello");
}

/* Goal: the initiator's identity is the line that it names, else the first. */
static void test_choice_of_identity(void **state)
{
	(void)state;
	expect(psk("all", "bob"), psk("all", NULL), "t", 1, NULL, 1, NULL);
	assert_string_equal(tls_identity(&server.stream), "bob");
	tear_down(NULL);
	set_up(NULL);
	expect(psk("all", NULL), psk("all", NULL), "t", 1, NULL, 1, NULL);
	assert_string_equal(tls_identity(&server.stream), "zoe");
}

/* Goal: another key under a known identity is -EKEYREJECTED at both ends. */
static void test_wrong_key(void **state)
{
	(void)state;
	expect(psk("wrong", NULL), psk("all", NULL), "t", -EKEYREJECTED,
	       "another key for the identity \"alice\"", -EKEYREJECTED, "\"alice\" is not ours");
}

/* Goal: an identity that the target has not is -ENOKEY at both ends, also where the target would
 * take certificates. */
static void test_unknown_identity(void **state)
{
	struct slu_tls_options both = certificate("target");

	(void)state;
	expect(psk("mallory", NULL), psk("all", NULL), "t", -ENOKEY,
	       "does not know the identity \"mallory\"", -ENOKEY, "\"mallory\"");
	tear_down(NULL);
	set_up(NULL);
	both.psk_file = keys_path("all");
	expect(psk("mallory", NULL), both, "target.test", -ENOKEY,
	       "does not know the identity \"mallory\"", -ENOKEY, "\"mallory\"");
}

/* Goal: certificates of one authority agree; the identity is the common name. */
static void test_certificates(void **state)
{
	(void)state;
	expect(certificate("carol"), certificate("target"), "target.test", 1, NULL, 1, NULL);
	assert_string_equal(tls_identity(&server.stream), "carol");
	tear_down(NULL);
	set_up(NULL);
	expect(certificate("carol"), certificate("target"), "127.0.0.1", 1, NULL, 1, NULL);
}

/* Goal: one server takes keys and certificates, each client by what it has. */
static void test_both_kinds(void **state)
{
	struct slu_tls_options both = certificate("target");

	(void)state;
	both.psk_file = keys_path("all");
	expect(certificate("carol"), both, "target.test", 1, NULL, 1, NULL);
	assert_string_equal(tls_identity(&server.stream), "carol");
	tear_down(NULL);
	set_up(NULL);
	expect(psk("bob", NULL), both, "t", 1, NULL, 1, NULL);
	assert_string_equal(tls_identity(&server.stream), "bob");
}

/* Goal: the two ends of a connection have a binding in common, by key or certificate; no two
 * connections have, and without TLS there is none. */
static void test_binding(void **state)
{
	uint8_t seen[5][TLS_BINDING_BYTES], theirs[TLS_BINDING_BYTES];

	(void)state;
	assert_true(tls_binding(&(struct stream){.fd = -1}, seen[4]));
	for (int i = 0; i < 4; i++) {
		if (i > 0) {
			tear_down(NULL);
			set_up(NULL);
		}
		if (i < 2)
			expect(psk("all", "alice"), psk("all", NULL), "t", 1, NULL, 1, NULL);
		else
			expect(certificate("carol"), certificate("target"), "target.test", 1, NULL,
			       1, NULL);
		assert_true(tls_binding(&client.stream, seen[i]));
		assert_true(tls_binding(&server.stream, theirs));
		assert_memory_equal(seen[i], theirs, sizeof(theirs));
		for (int j = 0; j <= 4; j++)
			assert_true((i <= j && j < 4) ||
				    memcmp(seen[i], seen[j], sizeof(theirs)) != 0);
	}
}

/* Goal: a certificate for another name is -EKEYREJECTED; the name can be given. */
static void test_wrong_name(void **state)
{
	struct slu_tls_options named = certificate("carol");

	(void)state;
	expect(certificate("carol"), certificate("target"), "other.test", -EKEYREJECTED,
	       "another name", -EKEYREJECTED, "");
	tear_down(NULL);
	set_up(NULL);
	expect(certificate("carol"), certificate("target"), "127.0.0.2", -EKEYREJECTED,
	       "another name", -EKEYREJECTED, "");
	tear_down(NULL);
	set_up(NULL);
	named.name = "target.test";
	expect(named, certificate("target"), "127.0.0.2", 1, NULL, 1, NULL);
}

/* Goal: certificates of another authority are -EKEYREJECTED at both ends, whoever shows one. */
static void test_foreign_authority(void **state)
{
	struct slu_tls_options foreign = certificate("foreign");

	(void)state;
	expect(certificate("carol"), foreign, "target.test", -EKEYREJECTED, "is not trusted",
	       -EKEYREJECTED, "does not trust");
	tear_down(NULL);
	set_up(NULL);
	expect(foreign, certificate("target"), "target.test", -EKEYREJECTED, "does not trust",
	       -EKEYREJECTED, "of the client is not trusted");
}

/* Goal: certificates for keys, and keys for certificates, are -ENOKEY at the initiator. */
static void test_other_kind(void **state)
{
	(void)state;
	expect(certificate("carol"), psk("all", NULL), "t", -ENOKEY, "does not take certificates",
	       -ENOKEY, "shows neither");
	tear_down(NULL);
	set_up(NULL);
	expect(psk("bob", NULL), certificate("target"), "target.test", -ENOKEY, "\"bob\"",
	       -EKEYREJECTED, "");
}

/* Goal: a common name that could pass for another kind of identity is refused. */
static void test_common_name(void **state)
{
	(void)state;
	expect(certificate("posing"), certificate("target"), "target.test", -ECONNRESET, "closed",
	       -EKEYREJECTED, "no common name");
	assert_true(tls_shaken(&server.stream)); /* so the reason can be told */
}

/* OpenSSL without our checks on what it is given. */
static void raw_start(struct end *end, bool is_server, const char *name)
{
	struct slu_tls_options files = certificate(name);
	SSL_CTX *ctx = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
	SSL *ssl;

	assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, files.cert_file), 1);
	assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, files.key_file, SSL_FILETYPE_PEM), 1);
	ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	SSL_set_fd(ssl, end->stream.fd);
	if (is_server)
		SSL_set_accept_state(ssl);
	else
		SSL_set_connect_state(ssl);
	end->stream.ssl = ssl;
	end->stream.ops = &stream_tls;
}

/* Goal: a peer's expired certificate is -EKEYEXPIRED at either end, and that end's alert makes it
 * so at the other. */
static void test_expired_peer(void **state)
{
	struct tls *tls = made(TLS_SERVER, certificate("target"));

	(void)state;
	raw_start(&client, false, "expired");
	assert_int_equal(tls_start(tls, &server.stream, NULL), 0);
	for (int i = 0; i < 20; i++) {
		SSL_do_handshake(client.stream.ssl);
		step(&server, &client);
	}
	assert_end(&server, "server", -EKEYEXPIRED, "of the client has expired");
	tls_close(tls);
	tear_down(NULL);
	set_up(NULL);
	tls = made(TLS_CLIENT, certificate("carol"));
	raw_start(&server, true, "expired");
	assert_int_equal(tls_start(tls, &client.stream, "target.test"), 0);
	for (int i = 0; i < 20; i++) {
		step(&client, &server);
		SSL_do_handshake(server.stream.ssl);
	}
	assert_end(&client, "client", -EKEYEXPIRED, "target.test has expired");
	tls_close(tls);
}

/* Goal: a certificate that expires between loading and the handshake: the owner learns it by the
 * alert. */
static void test_expires_meanwhile(void **state)
{
	struct tls *one, *other;

	(void)state;
	keys_certificate("short", "ca", "shorty", NULL, 2);
	one = made(TLS_CLIENT, certificate("short"));
	other = made(TLS_SERVER, certificate("target"));
	sleep(3);
	shake(one, other, "target.test");
	assert_end(&client, "client", -EKEYEXPIRED, "or its own revocation list, has expired");
	assert_end(&server, "server", -EKEYEXPIRED, "of the client has expired");
	tls_close(one);
	tls_close(other);
}

/* Goal: somebody who does not speak TLS at all is -EPERM, with the flag that would help. */
static void test_no_tls(void **state)
{
	struct tls *tls = made(TLS_CLIENT, psk("bob", NULL));

	(void)state;
	assert_int_equal(tls_start(tls, &client.stream, "t"), 0);
	step(&client, &server);
	assert_int_equal(write(server.stream.fd, "\x40\0\0\0{\"type\":\"refused\"", 20), 20);
	step(&client, &server);
	assert_end(&client, "client", -EPERM, "does not speak TLS");
	tls_close(tls);
	tear_down(NULL);
	set_up(NULL);
	tls = made(TLS_SERVER, psk("all", NULL));
	assert_int_equal(tls_start(tls, &server.stream, NULL), 0);
	assert_int_equal(write(client.stream.fd, "\x40\0\0\0{\"type\":\"hello\"", 18), 18);
	step(&server, &client);
	assert_end(&server, "server", -EPERM, "--psk");
	tls_close(tls);
}

/* Goal: versions below 1.3 are not spoken. */
static void test_old_version(void **state)
{
	struct tls *tls = made(TLS_SERVER, certificate("target"));

	(void)state;
	raw_start(&client, false, "carol");
	SSL_set_max_proto_version(client.stream.ssl, TLS1_2_VERSION);
	assert_int_equal(tls_start(tls, &server.stream, NULL), 0);
	for (int i = 0; i < 5; i++) {
		SSL_do_handshake(client.stream.ssl);
		step(&server, &client);
	}
	assert_end(&server, "server", -EPROTO, "TLS 1.3");
	tls_close(tls);
}

/* Goal: a key exchange that takes very long is refused before it is made, whoever wants it; those
 * that do not are not. */
static void test_groups(void **state)
{
	static const struct {
		const char *group;
		int result;
	} cases[] = {{"ffdhe8192", -EPROTO}, {"ffdhe2048", -EPROTO}, {"P-256", 1}};
	struct tls *tls = made(TLS_SERVER, certificate("target"));

	for (int i = 0; i < 3; i++) {
		tear_down(state);
		assert_int_equal(set_up(state), 0);
		raw_start(&client, false, "carol");
		assert_int_equal(SSL_set1_groups_list(client.stream.ssl, cases[i].group), 1);
		assert_int_equal(tls_start(tls, &server.stream, NULL), 0);
		for (int k = 0; k < 5; k++) {
			SSL_do_handshake(client.stream.ssl);
			step(&server, &client);
		}
		assert_int_equal(server.result, cases[i].result);
	}
	tls_close(tls);
}

/* Goal: a peer that goes in the middle is -ECONNRESET. */
static void test_hang_up(void **state)
{
	struct tls *tls = made(TLS_CLIENT, psk("bob", NULL));

	(void)state;
	assert_int_equal(tls_start(tls, &client.stream, "t"), 0);
	step(&client, &server);
	stream_close(&server.stream);
	step(&client, &server);
	assert_int_equal(client.result, -ECONNRESET);
	tls_close(tls);
}

/* Goal: a handshake that was cut into very many records ends before it has cost much; the first
 * message of one whose client says 128 KiB is to come, a byte in each. */
static void test_handshake_in_pieces(void **state)
{
	static const uint8_t hello[] = {1, 2, 0, 0, 3, 3};
	struct tls *tls = made(TLS_SERVER, certificate("target"));
	uint8_t records[2000][6];
	int left;

	(void)state;
	for (size_t i = 0; i < 2000; i++)
		memcpy(records[i], (uint8_t[]){0x16, 3, 1, 0, 1, i < sizeof(hello) ? hello[i] : 0},
		       6);
	assert_int_equal(tls_start(tls, &server.stream, NULL), 0);
	assert_int_equal(write(client.stream.fd, records, sizeof(records)), sizeof(records));
	step(&server, &client);
	assert_end(&server, "server", -EPROTO, "too many pieces");
	assert_int_equal(ioctl(server.stream.fd, FIONREAD, &left), 0);
	assert_in_range(left, sizeof(records) / 2, sizeof(records));
	tls_close(tls);
}

/* ---- reloading ---- */

/* Goal: new files count from the next connection on; a broken one changes nothing; who has lost or
 * changed the key is not valid any more. */
static void test_reload_keys(void **state)
{
	struct tls *one, *other;

	(void)state;
	keys_write("changing", "alice:" KEY_ALICE "\nbob:" KEY_BOB "\n");
	one = made(TLS_CLIENT, psk("bob", NULL));
	other = made(TLS_SERVER, psk("changing", NULL));
	shake(one, other, "t");
	assert_end(&server, "server", 1, NULL);
	assert_true(tls_still_valid(other, &server.stream));
	keys_write("changing", "alice:" KEY_ALICE "\nbob:short\n");
	assert_int_equal(tls_reload(other), -EINVAL);
	assert_true(tls_still_valid(other, &server.stream));
	keys_write("changing", "bob:" KEY_BOB "\nzoe:" KEY_ALICE "\n");
	assert_int_equal(tls_reload(other), 0);
	assert_true(tls_still_valid(other, &server.stream));
	keys_write("changing", "bob:" KEY_WRONG "\n");
	assert_int_equal(tls_reload(other), 0);
	assert_false(tls_still_valid(other, &server.stream));
	keys_write("changing", "alice:" KEY_ALICE "\n");
	assert_int_equal(tls_reload(other), 0);
	assert_false(tls_still_valid(other, &server.stream));
	tear_down(NULL);
	set_up(NULL);
	shake(one, other, "t");
	assert_end(&server, "server", -ENOKEY, "\"bob\"");
	tls_close(one);
	tls_close(other);
}

/* Goal: with another authority, those of the old one are not valid any more. */
static void test_reload_authority(void **state)
{
	struct slu_tls_options files = certificate("target");
	char text[4096] = "";
	struct tls *one, *other;
	int fd = open(keys_path("ca.crt"), O_RDONLY | O_CLOEXEC);

	(void)state;
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	files.ca_file = keys_write("some.crt", text);
	one = made(TLS_CLIENT, certificate("carol"));
	other = made(TLS_SERVER, files);
	shake(one, other, "target.test");
	assert_end(&server, "server", 1, NULL);
	assert_true(tls_still_valid(other, &server.stream));
	memset(text, 0, sizeof(text));
	fd = open(keys_path("ca2.crt"), O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	close(fd);
	keys_write("some.crt", text);
	assert_int_equal(tls_reload(other), 0);
	assert_false(tls_still_valid(other, &server.stream));
	tls_close(one);
	tls_close(other);
}

static struct slu_tls_options with_list(const char *name, const char *list)
{
	struct slu_tls_options options = certificate(name);

	options.crl_file = keys_path(list);
	return options;
}

/* Goal: who is on the list is refused, by either end, and told so; others are let in. */
static void test_revoked(void **state)
{
	(void)state;
	keys_revocations("of-carol", "ca", "carol", DAY);
	keys_revocations("of-target", "ca", "target", DAY);
	expect(certificate("carol"), with_list("target", "of-carol.crl"), "target.test",
	       -EKEYREJECTED, "our certificate was revoked", -EKEYREJECTED, "was revoked by its");
	tear_down(NULL);
	set_up(NULL);
	expect(with_list("carol", "of-target.crl"), certificate("target"), "target.test",
	       -EKEYREJECTED, "was revoked by its", -EKEYREJECTED, "our certificate was revoked");
	tear_down(NULL);
	set_up(NULL);
	expect(with_list("carol", "of-carol.crl"), with_list("target", "of-target.crl"),
	       "target.test", 1, NULL, 1, NULL);
}

/* Goal: a list of another authority lets nobody in; nor one that expires while it is in use. */
static void test_list_does_not_fit(void **state)
{
	struct tls *one, *other;

	(void)state;
	keys_revocations("of-ca2", "ca2", NULL, DAY);
	expect(certificate("carol"), with_list("target", "of-ca2.crl"), "target.test",
	       -EKEYREJECTED, "", -EKEYREJECTED, "no revocation list of the authority");
	tear_down(NULL);
	set_up(NULL);
	keys_revocations("brief", "ca", NULL, 2);
	one = made(TLS_CLIENT, certificate("carol"));
	other = made(TLS_SERVER, with_list("target", "brief.crl"));
	sleep(3);
	shake(one, other, "target.test");
	assert_end(&server, "server", -EKEYEXPIRED, "the revocation list has expired");
	assert_end(&client, "client", -EKEYEXPIRED, "revocation list, has expired");
	tls_close(one);
	tls_close(other);
}

/* Goal: whoever is put onto the list is not valid any more once it is read again; a list that
 * cannot be used leaves the old one in force. */
static void test_reload_list(void **state)
{
	struct tls *one, *other;

	(void)state;
	keys_revocations("some", "ca", NULL, DAY);
	one = made(TLS_CLIENT, certificate("carol"));
	other = made(TLS_SERVER, with_list("target", "some.crl"));
	shake(one, other, "target.test");
	assert_end(&server, "server", 1, NULL);
	assert_true(tls_still_valid(other, &server.stream));
	keys_write("some.crl", "");
	assert_int_equal(tls_reload(other), -EINVAL);
	assert_true(tls_still_valid(other, &server.stream));
	keys_revocations("some", "ca", "carol", -10);
	assert_int_equal(tls_reload(other), -EKEYEXPIRED);
	assert_true(tls_still_valid(other, &server.stream));
	keys_revocations("some", "ca", "carol", DAY);
	assert_int_equal(tls_reload(other), 0);
	assert_false(tls_still_valid(other, &server.stream));
	tls_close(one);
	tls_close(other);
}

/* ---- files ---- */

static void refuse(struct slu_tls_options options, int error, const char *text)
{
	struct tls *tls = NULL;
	int rc = tls_open(TLS_CLIENT, &options, &tls);

	if (rc != error || !strstr(slu_last_error(), text))
		fail_msg("%d (%s), not %d (... %s ...)", rc, slu_last_error(), error, text);
	assert_null(tls);
}

static void refuse_keys(const char *text, int error, const char *expected)
{
	keys_write("bad", text);
	refuse(psk("bad", NULL), error, expected);
	if (strstr(slu_last_error(), KEY_ALICE))
		fail_msg("a key is quoted: %s", slu_last_error());
}

/* Goal: every way in which a key file can be wrong is told, with its line. */
static void test_key_files(void **state)
{
	(void)state;
	refuse_keys("", -EINVAL, "holds no key");
	refuse_keys("# nothing\n\n  \n", -EINVAL, "holds no key");
	refuse_keys("\n\nalice\n", -EINVAL, "bad:3: IDENTITY:HEX");
	refuse_keys("al ice:" KEY_ALICE "\n", -EINVAL, "bad:1: an identity");
	refuse_keys(":" KEY_ALICE "\n", -EINVAL, "bad:1: an identity");
	refuse_keys("user:" KEY_ALICE ":" KEY_ALICE "\n", -EINVAL, "bad:1");
	refuse_keys("alice:" KEY_ALICE "x\n", -EINVAL, "openssl rand");
	refuse_keys("alice:616161616161616161616161616161\n", -EINVAL, "16 to 64 bytes");
	refuse_keys("alice:" KEY_ALICE KEY_ALICE "61\n", -EINVAL, "16 to 64 bytes");
	refuse_keys("alice:" KEY_ALICE "\nbob:" KEY_BOB "\nalice:" KEY_BOB "\n", -EINVAL,
		    "bad:3: identity alice has a key already, in line 1");
	refuse((struct slu_tls_options){.psk_file = "/dev/zero"}, -EINVAL, "no file of keys");
	refuse(psk("absent", NULL), -ENOENT, "absent");
	refuse(psk("all", "nobody"), -ENOKEY, "nobody");
	refuse((struct slu_tls_options){.identity = "alice",
					.cert_file = keys_path("carol.crt"),
					.key_file = keys_path("carol.key"),
					.ca_file = keys_path("ca.crt")},
	       -EINVAL, "key file");
}

/* Goal: keys that others can read are refused with the command that mends it. */
static void test_key_file_mode(void **state)
{
	const char *path = keys_write("open", "alice:" KEY_ALICE "\n");

	(void)state;
	chmod(path, 0640);
	refuse(psk("open", NULL), -EPERM, "chmod 600");
	chmod(path, 0604);
	refuse(psk("open", NULL), -EPERM, "chmod 600");
	chmod(path, 0400);
	tls_close(made(TLS_CLIENT, psk("open", NULL)));
	chmod(keys_path("carol.key"), 0640);
	refuse(certificate("carol"), -EPERM, "chmod 600");
	chmod(keys_path("carol.key"), 0604);
	refuse(certificate("carol"), -EPERM, "chmod 600");
	chmod(keys_path("carol.key"), 0600);
}

/* Goal: a long key file is read; each of its keys is found. */
static void test_many_keys(void **state)
{
	char *text = malloc(200000), *end = text;

	(void)state;
	for (int i = 0; i < 3000; i++)
		end += sprintf(end, "id-%d:%032x%s", i, i + 1, i % 2 ? "\n" : " # odd\r\n");
	keys_write("many", text);
	free(text);
	for (int i = 0; i < 3000; i += 499) {
		char identity[16];

		snprintf(identity, sizeof(identity), "id-%d", i);
		expect(psk("many", identity), psk("many", NULL), "t", 1, NULL, 1, NULL);
		assert_string_equal(tls_identity(&server.stream), identity);
		tear_down(NULL);
		set_up(NULL);
	}
}

/* Goal: every way in which certificates can be wrong is told. */
static void test_certificate_files(void **state)
{
	struct slu_tls_options options = certificate("carol");

	(void)state;
	refuse(certificate("expired"), -EKEYEXPIRED, "expired.crt has expired on");
	options.key_file = keys_path("target.key");
	refuse(options, -EKEYREJECTED, "not that of the certificate");
	options = certificate("carol");
	options.ca_file = NULL;
	refuse(options, -EINVAL, "authority (CA) is missing");
	options = certificate("carol");
	options.key_file = "";
	refuse(options, -EINVAL, "key is missing");
	options = certificate("carol");
	options.cert_file = keys_path("all");
	refuse(options, -EINVAL, "no certificate in PEM");
	options = certificate("carol");
	options.key_file = keys_path("all");
	refuse(options, -EINVAL, "no private key in PEM");
	options = certificate("carol");
	options.ca_file = keys_path("all");
	refuse(options, -EINVAL, "holds no certificate");
	options.ca_file = keys_path("absent");
	refuse(options, -ENOENT, "absent");
	refuse(with_list("carol", "absent"), -ENOENT, "absent");
	refuse(with_list("carol", "all"), -EINVAL, "no revocation list in PEM");
	keys_write("empty", "");
	refuse(with_list("carol", "empty"), -EINVAL, "no revocation list in PEM");
	keys_revocations("old", "ca", NULL, -10);
	refuse(with_list("carol", "old.crl"), -EKEYEXPIRED, "old.crl has expired on");
	options = psk("all", NULL);
	options.crl_file = keys_path("old.crl");
	refuse(options, -EINVAL, "give its certificate");
	options = certificate("carol");
	options.ca_file = keys_path("empty");
	refuse(options, -EINVAL, "holds no certificate");
	options = certificate("carol");
	options.key_file = keys_path("empty");
	refuse(options, -EINVAL, "no private key");
	refuse((struct slu_tls_options){.psk_file = ""}, -EINVAL, "needs a key file");
}

static int make_files(void **state)
{
	(void)state;
	if (keys_open() < 0)
		return -1;
	keys_write("all",
		   "zoe:" KEY_WRONG "\nalice:" KEY_ALICE "\n# bob is next\nbob:" KEY_BOB "\n");
	keys_write("bob", "bob:" KEY_BOB);
	keys_write("wrong", "alice:" KEY_WRONG "\n");
	keys_write("mallory", "mallory:" KEY_WRONG "\n");
	keys_authority("ca");
	keys_authority("ca2");
	keys_certificate("target", "ca", "target", "DNS:target.test,IP:127.0.0.1", DAY);
	keys_certificate("carol", "ca", "carol", NULL, DAY);
	keys_certificate("posing", "ca", "user:root", NULL, DAY);
	keys_certificate("expired", "ca", "old", "DNS:target.test", -10);
	keys_certificate("foreign", "ca2", "foreign", "DNS:target.test", DAY);
	return 0;
}

static int remove_files(void **state)
{
	(void)state;
	keys_close();
	return 0;
}

#define with_pair(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(test_key),
		with_pair(test_choice_of_identity),
		with_pair(test_wrong_key),
		with_pair(test_unknown_identity),
		with_pair(test_certificates),
		with_pair(test_both_kinds),
		with_pair(test_binding),
		with_pair(test_wrong_name),
		with_pair(test_foreign_authority),
		with_pair(test_other_kind),
		with_pair(test_common_name),
		with_pair(test_expired_peer),
		with_pair(test_expires_meanwhile),
		with_pair(test_no_tls),
		with_pair(test_old_version),
		with_pair(test_groups),
		with_pair(test_hang_up),
		with_pair(test_handshake_in_pieces),
		with_pair(test_reload_keys),
		with_pair(test_reload_authority),
		with_pair(test_revoked),
		with_pair(test_list_does_not_fit),
		with_pair(test_reload_list),
		cmocka_unit_test(test_key_files),
		cmocka_unit_test(test_key_file_mode),
		with_pair(test_many_keys),
		cmocka_unit_test(test_certificate_files),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, make_files, remove_files);
}
