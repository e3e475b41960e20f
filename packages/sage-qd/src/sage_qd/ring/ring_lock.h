/* A lock that survives its owner.
 *
 * One futex word: 0 when free, else the kernel thread id of the owner, plus two bits that the kernel knows:
 * FUTEX_WAITERS ("wake somebody when you free it") and FUTEX_OWNER_DIED ("the owner died; repair before use").
 *
 * Robustness comes from the kernel's robust-futex interface (Documentation/locking/robust-futex-ABI.rst in the Linux
 * sources): every thread has a *private* list head, registered by the C library, whose field `list_op_pending` names
 * the lock that the thread is taking, holding or freeing. When a thread dies, at whatever instruction, the kernel looks
 * there; if the word holds the id of the dead thread, it becomes FUTEX_OWNER_DIED and one waiter is woken.
 *
 * Why not pthread_mutex with PTHREAD_MUTEX_ROBUST: it keeps the pointers of its list inside the mutex, that is, in
 * shared memory, and writes through them. A damaged or hostile segment would then crash us (requirement G6). Here
 * shared memory holds no pointer that we follow. We hold one lock at a time, in a section without any call into
 * the C library's mutexes, so borrowing `list_op_pending` for its length disturbs nobody. The one operation that holds
 * two locks (resize) chains the first one into the list for that time, and restores the list head from a private copy.
 *
 *   L1  taking the lock is an acquire, freeing it a release: what the last owner wrote is visible to the next one.
 *   L2  freeing is an atomic exchange, which is a full fence on every machine we build for (seq_cst): the event counts
 *       of ring_wait.h rely on it (F1).
 *
 * Should the kernel's help fail (a lock file from an earlier boot, a list that could not be registered, a two-lock
 * owner whose entry did not fit), waiters look after each slice whether the owner can still exist (ring_alive.h).
 */
#ifndef SAGE_RING_LOCK_H
#define SAGE_RING_LOCK_H

#include "ring_alive.h"
#include "ring_atomics.h"
#include "ring_layout.h"
#include "ring_points.h"

enum sq_lock_result { SQ_LOCK_TAKEN, SQ_LOCK_INHERITED, SQ_LOCK_BUSY };

static inline long sq_futex(sq_word32 *word, int operation, uint32_t value, uint64_t deadline_ns) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000ull), .tv_nsec = (long)(deadline_ns % 1000000000ull)};
    return syscall(SYS_futex, word, operation, value, deadline_ns == SQ_FOREVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
}
/* Absolute CLOCK_MONOTONIC deadline. Returns 0 when woken, else -1 with errno. */
static inline long sq_futex_wait(sq_word32 *word, uint32_t expected, uint64_t deadline_ns) {
    return sq_futex(word, FUTEX_WAIT_BITSET, expected, deadline_ns);
}
/* Returns how many were woken. */
static inline long sq_futex_wake(sq_word32 *word, uint32_t count) {
    return sq_futex(word, FUTEX_WAKE, count > INT32_MAX ? INT32_MAX : count, SQ_FOREVER);
}

SQ_HOT void sq_lock_announce(sq_thread *self, sq_word32 *lock) {
#ifdef SQ_PLANT_LOCK_NOT_ANNOUNCED
    return;
#endif
    if (self->robust) self->robust->list_op_pending = (void *)((char *)lock - self->robust->futex_offset);
    sq_crash_fence();
}
SQ_HOT void sq_lock_forget(sq_thread *self) {
    sq_crash_fence();
    if (self->robust) self->robust->list_op_pending = NULL;
}

/* Takes the lock if that is possible at once. `extra` is FUTEX_WAITERS when others may sleep on it, else 0. */
SQ_HOT enum sq_lock_result sq_lock_attempt(sq_word32 *lock, sq_thread *self, uint32_t extra) {
    uint32_t found = 0;
    if (__builtin_expect(sq_compare_exchange32(lock, &found, self->id | extra), 1)) {
        SQ_POINT(lock_taken);
        return SQ_LOCK_TAKEN;
    }
    if (found & FUTEX_OWNER_DIED) {
        /* The kernel cleared the id and kept FUTEX_WAITERS. If we die before recovery is complete, the next owner
         * finds the same: recovery may be run any number of times. */
        if (sq_compare_exchange32(lock, &found, self->id | (found & FUTEX_WAITERS) | extra)) {
            SQ_POINT(lock_inherited);
#ifdef SQ_PLANT_OWNER_DIED_IGNORED
            return SQ_LOCK_TAKEN;
#endif
            return SQ_LOCK_INHERITED;
        }
    }
    return SQ_LOCK_BUSY;
}

SQ_HOT enum sq_lock_result sq_lock_try(sq_word32 *lock) {
    sq_thread *self = sq_thread_current();
    sq_lock_announce(self, lock);
    enum sq_lock_result result = sq_lock_attempt(lock, self, 0);
    if (__builtin_expect(result == SQ_LOCK_BUSY, 0)) sq_lock_forget(self);
    return result;
}

/* Waits for the lock until the deadline, but not longer than one slice. SQ_LOCK_BUSY: the slice or the deadline ended,
 * or a signal came. Call without the GIL. */
static inline enum sq_lock_result sq_lock_wait(sq_word32 *lock, uint64_t deadline_ns, dev_t device, ino_t inode) {
    sq_thread *self = sq_thread_current();
    uint64_t slice_end = 0;
    uint32_t extra = 0;
    enum sq_lock_result result;
    sq_lock_announce(self, lock);
    for (int spin = 0;; spin++) {
        uint32_t found = sq_load32(lock);
        if (found == 0 || (found & FUTEX_OWNER_DIED)) {
            result = sq_lock_attempt(lock, self, extra);
            if (result != SQ_LOCK_BUSY) return result;
            continue;
        }
        if (spin < 60) {
            sq_pause();
            continue;
        }
        if (spin < 64) {
            sched_yield(); /* the owner is most often a neighbour that lost its core for a moment */
            continue;
        }
        if (!slice_end) {
            slice_end = sq_now_ns() + SQ_SLICE_NS;
            if (slice_end > deadline_ns) slice_end = deadline_ns;
        }
        extra = FUTEX_WAITERS; /* others may sleep behind us: keep the mark when we take it */
        if (!(found & FUTEX_WAITERS) && !sq_compare_exchange32(lock, &found, found | FUTEX_WAITERS)) continue;
        SQ_POINT(lock_wait);
        if (sq_futex_wait(lock, found | FUTEX_WAITERS, slice_end) == 0 || errno == EAGAIN) continue;
#ifndef SQ_PLANT_VANISHED_OWNER_TRUSTED
        if (errno == ETIMEDOUT) {
            found = sq_load32(lock);
            if (found && !(found & FUTEX_OWNER_DIED) && sq_thread_gone(found & FUTEX_TID_MASK, device, inode)) {
                if (sq_compare_exchange32(lock, &found, FUTEX_OWNER_DIED | FUTEX_WAITERS)) continue;
            }
        }
#endif
        sq_lock_forget(self);
        return SQ_LOCK_BUSY;
    }
}

/* `left` is 0, or FUTEX_OWNER_DIED when what a dead owner left behind is still to be repaired. */
SQ_HOT void sq_lock_leave(sq_word32 *lock, uint32_t left) {
    sq_thread *self = sq_thread_current();
    uint32_t found = sq_exchange_full32(lock, left); /* L1, L2 */
    SQ_POINT(lock_freed);
    /* Killed between the exchange and the wake: the kernel still finds the lock in list_op_pending and wakes one; or, if
     * somebody took the lock meanwhile, nobody, and who sleeps looks again at the end of its slice. */
#ifndef SQ_PLANT_LOCK_WAKE_FORGOTTEN
    if (__builtin_expect(found & FUTEX_WAITERS, 0)) sq_futex_wake(lock, 1);
#endif
    sq_lock_forget(self);
}
SQ_HOT void sq_lock_free(sq_word32 *lock) { sq_lock_leave(lock, 0); }

/* Two locks at once. After the first is held it moves from list_op_pending into the list, so that the second can be
 * announced. The entry lies in the free bytes behind the lock; nobody but the kernel reads it. */
typedef struct {
    struct robust_list *saved;
    bool chained;
} sq_lock_chain;

static inline void sq_lock_chain_first(sq_word32 *lock, sq_lock_chain *chain) {
    sq_thread *self = sq_thread_current();
    chain->chained = false;
    if (!self->robust || self->robust->futex_offset > -8 || self->robust->futex_offset < -56) return;
    struct robust_list *entry = (struct robust_list *)((char *)lock - self->robust->futex_offset);
    chain->saved = self->robust->list.next;
    chain->chained = true;
    entry->next = chain->saved;
    sq_crash_fence();
    self->robust->list.next = entry;
    sq_lock_forget(self);
}
/* After the second lock was freed, before the first one is. */
static inline void sq_lock_unchain_first(sq_word32 *lock, sq_lock_chain *chain) {
    sq_thread *self = sq_thread_current();
    sq_lock_announce(self, lock);
    if (chain->chained) self->robust->list.next = chain->saved;
}

#endif
