/* A file that shrinks under its mapping turns a load into SIGBUS. This guard turns it into an error.
 *
 * When the fault lies inside a mapping registered here, the handler puts an anonymous page in its place, marks the
 * handle as broken, and the interrupted instruction goes on with zeros; the operation then sees `broken` and answers
 * SQ_CORRUPT. No setjmp, so the hot path pays nothing. A broken mapping is never unmapped or used again.
 * Faults elsewhere go to whoever handled SIGBUS before us.
 *
 * Residual risk, stated in docs/explanation/memory-model.md: a handler that somebody installs after us and that does not chain
 * takes this guard away (each attach looks and puts it back), and views handed out before the file shrank read zeros.
 */
#ifndef SAGE_RING_GUARD_H
#define SAGE_RING_GUARD_H

#include <sys/mman.h>

#include "ring_alive.h"
#include "ring_atomics.h"

/* Nodes are never freed, only reused, so the handler may walk the list while others change it. */
typedef struct sq_guard {
    _Atomic uintptr_t base; /* 0: not in use */
    _Atomic uintptr_t length;
    sq_word32 *_Atomic broken; /* the handle's mark */
    struct sq_guard *next;
} sq_guard;

static sq_guard *_Atomic sq_guards;
static pthread_mutex_t sq_guards_lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction sq_guard_previous;

/* Another thread may have held the lock when the process forked. */
static void sq_guards_after_fork(void) { pthread_mutex_init(&sq_guards_lock, NULL); }
__attribute__((constructor)) static void sq_guards_watch_forks(void) { pthread_atfork(NULL, NULL, sq_guards_after_fork); }

static void sq_guard_handle(int number, siginfo_t *info, void *context) {
    int error = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    for (sq_guard *guard = sq_guards; guard; guard = guard->next) {
        uintptr_t base = guard->base;
        if (base && address >= base && address - base < guard->length) {
            uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
            void *at = (void *)(address & ~(page - 1));
            sq_store_release32(guard->broken, 1);
            if (mmap(at, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
                errno = error;
                return;
            }
        }
    }
    if (sq_guard_previous.sa_flags & SA_SIGINFO) {
        sq_guard_previous.sa_sigaction(number, info, context);
    } else if (sq_guard_previous.sa_handler != SIG_DFL && sq_guard_previous.sa_handler != SIG_IGN) {
        sq_guard_previous.sa_handler(number);
    } else {
        signal(number, SIG_DFL); /* returning repeats the fault, now with the default action */
    }
    errno = error;
}

/* Registers [base, base + length), to set *broken on a fault; NULL when out of memory. */
static inline sq_guard *sq_guard_add(void *base, size_t length, sq_word32 *broken) {
    pthread_mutex_lock(&sq_guards_lock);
    struct sigaction now;
    if (sigaction(SIGBUS, NULL, &now) == 0 && !((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == sq_guard_handle)) {
        struct sigaction ours = {.sa_sigaction = sq_guard_handle, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
        sigemptyset(&ours.sa_mask);
        sq_guard_previous = now;
        sigaction(SIGBUS, &ours, NULL);
    }
    sq_guard *guard = sq_guards;
    while (guard && guard->base) guard = guard->next;
    if (!guard && (guard = calloc(1, sizeof *guard))) {
        guard->next = sq_guards;
        sq_guards = guard;
    }
    if (guard) {
        guard->broken = broken;
        guard->length = length;
        guard->base = (uintptr_t)base;
    }
    pthread_mutex_unlock(&sq_guards_lock);
    return guard;
}

static inline void sq_guard_remove(sq_guard *guard) { guard->base = 0; }

#endif
