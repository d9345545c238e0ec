/* SPDX-License-Identifier: Apache-2.0 */
#include "net/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define HEAP_BYTES     (1u << 20) /* private keys, and what is computed with them: some KiB each */
#define HEAP_PIECE_MIN 32
#define READ_BYTES     4096u
#define STACK_BYTES    16384
#define WIPED_PIECES   32u

void *secret_alloc(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return NULL;
	if (madvise(memory, size, MADV_DONTDUMP) < 0)
		log_debug("keys may be in a core dump: %s", strerror(errno));
	if (mlock(memory, size) < 0)
		log_debug("keys may be swapped out: %zu bytes cannot be locked: %s; raise it with "
			  "ulimit -l",
			  size, strerror(errno));
	return memory;
}

void secret_free(void *memory, size_t size)
{
	if (!memory)
		return;
	OPENSSL_cleanse(memory, size);
	munmap(memory, size);
}

/* @return false: out of memory */
static bool make_room(struct secret_text *text)
{
	size_t size = text->size ? 2 * text->size : READ_BYTES;
	char *larger = secret_alloc(size);

	if (!larger)
		return false;
	if (text->text)
		memcpy(larger, text->text, text->length);
	secret_free(text->text, text->size);
	text->text = larger;
	text->size = size;
	return true;
}

static int read_all(const char *path, int fd, struct secret_text *text)
{
	for (;;) {
		ssize_t got;

		if (text->length > SECRET_MAX_BYTES)
			return fail(-EINVAL, "%s is longer than %u MiB: this is no file of keys",
				    path, SECRET_MAX_BYTES >> 20);
		if (text->length + 1 >= text->size && !make_room(text))
			return fail(-ENOMEM, "out of memory");
		got = read(fd, text->text + text->length, text->size - text->length - 1);
		if (got == 0)
			break;
		if (got < 0 && errno != EINTR)
			return fail(-errno, "cannot read %s: %s", path, strerror(errno));
		text->length += got > 0 ? (size_t)got : 0;
	}
	if (memchr(text->text, 0, text->length))
		return fail(-EINVAL, "%s has a NUL byte: this is no text file", path);
	return 0;
}

static int check_mode(const char *path, int fd)
{
	struct stat stat;

	if (fstat(fd, &stat) < 0)
		return fail(-errno, "cannot look at %s: %s", path, strerror(errno));
	if (S_ISREG(stat.st_mode) && stat.st_mode & 077)
		return fail(-EPERM, "%s can be read by others than its owner: chmod 600 %s", path,
			    path);
	return 0;
}

int secret_read(const char *what, const char *path, struct secret_text *out)
{
	struct secret_text text = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return fail(-errno, "cannot open the %s %s: %s", what, path, strerror(errno));
	rc = check_mode(path, fd);
	if (rc == 0)
		rc = read_all(path, fd, &text);
	close(fd);
	if (rc < 0)
		secret_text_free(&text);
	else
		*out = text;
	return rc;
}

void secret_text_free(struct secret_text *text)
{
	secret_free(text->text, text->size);
	*text = (struct secret_text){0};
}

/* Pieces of one size come out of malloc() last in, first out. */
void secret_wipe_freed(size_t longest)
{
	for (size_t size = 24; size <= longest + 16; size += 16) {
		void *pieces[WIPED_PIECES];

		for (size_t i = 0; i < WIPED_PIECES; i++) {
			pieces[i] = malloc(size);
			if (pieces[i])
				OPENSSL_cleanse(pieces[i], size);
		}
		for (size_t i = 0; i < WIPED_PIECES; i++)
			free(pieces[i]);
	}
}

#if __has_attribute(zero_call_used_regs) /* gcc, and clang from 15 on */
#define LEAVES_NO_REGISTER __attribute__((noinline, zero_call_used_regs("all")))
#else
#define LEAVES_NO_REGISTER __attribute__((noinline))
#endif

LEAVES_NO_REGISTER void secret_wipe_stack(void)
{
	char left[STACK_BYTES];

	OPENSSL_cleanse(left, sizeof(left));
}

static void make_heap(void)
{
	if (!CRYPTO_secure_malloc_initialized() &&
	    CRYPTO_secure_malloc_init(HEAP_BYTES, HEAP_PIECE_MIN) != 1)
		log_debug("private keys may be swapped out, or be in a core dump: OpenSSL has no "
			  "locked memory; raise it with ulimit -l");
}

void secret_heap(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, make_heap);
}
