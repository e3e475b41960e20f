/* The verbs of shared memory: the only file that spells a memory order.
 *
 * Every word that two parties may touch at the same time is read and written through these functions.
 * Ordered operations on the variable itself are used instead of free-standing fences wherever possible:
 * they are easier to read, and thread sanitizers understand them.
 */
#ifndef SAGE_RING_ATOMICS_H
#define SAGE_RING_ATOMICS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint32_t sq_word32;
typedef _Atomic uint64_t sq_word64;

/* A lock-based "atomic" would not work between processes. */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "32-bit atomics must be lock-free");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "64-bit atomics must be lock-free");
_Static_assert(sizeof(sq_word32) == 4 && sizeof(sq_word64) == 8, "atomics must have no hidden part");

#define SQ_RELAXED memory_order_relaxed

static inline uint32_t sq_load32(const sq_word32 *word) { return atomic_load_explicit((sq_word32 *)word, SQ_RELAXED); }
static inline uint64_t sq_load64(const sq_word64 *word) { return atomic_load_explicit((sq_word64 *)word, SQ_RELAXED); }
static inline void sq_store32(sq_word32 *word, uint32_t value) { atomic_store_explicit(word, value, SQ_RELAXED); }
static inline void sq_store64(sq_word64 *word, uint64_t value) { atomic_store_explicit(word, value, SQ_RELAXED); }

static inline uint32_t sq_load_acquire32(const sq_word32 *word) {
    return atomic_load_explicit((sq_word32 *)word, memory_order_acquire);
}
static inline uint64_t sq_load_acquire64(const sq_word64 *word) {
    return atomic_load_explicit((sq_word64 *)word, memory_order_acquire);
}
static inline void sq_store_release32(sq_word32 *word, uint32_t value) {
    atomic_store_explicit(word, value, memory_order_release);
}
static inline void sq_store_release64(sq_word64 *word, uint64_t value) {
    atomic_store_explicit(word, value, memory_order_release);
}

/* Replaces *expected by desired; on failure *expected holds what was found. Acquire on success. */
static inline bool sq_compare_exchange32(sq_word32 *word, uint32_t *expected, uint32_t desired) {
    return atomic_compare_exchange_strong_explicit(word, expected, desired, memory_order_acq_rel, memory_order_relaxed);
}
static inline bool sq_compare_exchange64(sq_word64 *word, uint64_t *expected, uint64_t desired) {
    return atomic_compare_exchange_strong_explicit(word, expected, desired, memory_order_acq_rel, memory_order_relaxed);
}
/* Sequentially consistent: doubles as the full fence that sleep and wake need (see ring_wait.h, F1). */
static inline uint32_t sq_exchange_full32(sq_word32 *word, uint32_t value) {
    return atomic_exchange_explicit(word, value, memory_order_seq_cst);
}
static inline uint64_t sq_exchange_full64(sq_word64 *word, uint64_t value) {
    return atomic_exchange_explicit(word, value, memory_order_seq_cst);
}
static inline uint32_t sq_add_full32(sq_word32 *word, uint32_t value) {
    return atomic_fetch_add_explicit(word, value, memory_order_seq_cst);
}
static inline uint32_t sq_or_release32(sq_word32 *word, uint32_t bits) {
    return atomic_fetch_or_explicit(word, bits, memory_order_acq_rel);
}
static inline uint64_t sq_add64(sq_word64 *word, uint64_t value) {
    return atomic_fetch_add_explicit(word, value, SQ_RELAXED);
}

/* The hot path is one straight line of code: a call for each layer would cost a fifth of an uncontended put. */
#define SQ_HOT static inline __attribute__((always_inline))

/* Orders everything before against everything after, for all parties. */
static inline void sq_full_fence(void) { atomic_thread_fence(memory_order_seq_cst); }

/* A process that is killed stops between two instructions, and what it had stored till then is what survives.
 * This keeps the compiler from moving stores across the line; the processor never shows the survivors of a
 * killed thread its stores out of order with respect to a lock hand-over. */
static inline void sq_crash_fence(void) { atomic_signal_fence(memory_order_seq_cst); }

static inline void sq_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("isb" ::: "memory");
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

#endif
