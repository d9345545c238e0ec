/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What ThreadSanitizer is to be told since it cannot see it: memory that goes from thread to thread
 * by way of a library that is not built with it, or of another process. Nothing in other builds.
 */
#ifndef BASE_TSAN_H
#define BASE_TSAN_H

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define WITH_THREAD_SANITIZER 1
void __tsan_acquire(void *at);
void __tsan_release(void *at);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
#else
#define WITH_THREAD_SANITIZER 0
#endif

/** What this thread did so far comes before what follows tsan_taken() of the same address. */
static inline void tsan_given(void *at)
{
#if WITH_THREAD_SANITIZER
	__tsan_release(at);
#else
	(void)at;
#endif
}

static inline void tsan_taken(void *at)
{
#if WITH_THREAD_SANITIZER
	__tsan_acquire(at);
#else
	(void)at;
#endif
}

/**
 * Until tsan_device_end() what this thread reads and writes is not looked at, as nobody would see a
 * device do it: it stands for one. Its locks and atomics order others as ever.
 */
static inline void tsan_device_begin(void)
{
#if WITH_THREAD_SANITIZER
	AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
	AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
}

static inline void tsan_device_end(void)
{
#if WITH_THREAD_SANITIZER
	AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
	AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
}

#endif
