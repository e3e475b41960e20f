/* A world in which the ring's own code runs as coroutines of one thread, one step at a time.
 *
 * It stands in for three of the ring's headers' neighbours: the processor (ring_atomics.h: each access to a shared word is
 * a step, and another process may run before it), the kernel (futexes, the robust list, process ids) and the clock, which
 * is virtual and moves on when everybody sleeps. All else is the code that the extension is built from. A process dies by
 * not being run any more; what the kernel then does to its locks, the world does.
 *
 * Which steps interleave, who is stopped, and who dies where follows from a seed alone, so every finding can be repeated.
 *
 * Memory is that of x86 (x86-TSO: Sewell and others, 2010): a store waits in its process, which sees it, until some time
 * later all others do, in order; a locked instruction or a fence waits for that. What still weaker memory may show is the
 * business of the thread sanitizer.
 */
#ifndef SAGE_PROOF_WORLD_H
#define SAGE_PROOF_WORLD_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

/* -- What the ring's headers see ----------------------------------------------------------------------------------- */

static inline void step(void);
static inline const uint64_t *step_and_look(const void *word);
static bool stored_late(void *word, uint64_t value, int bits);
static void sq_full_fence(void);
static long world_futex(long number, void *word, int operation, uint32_t value, const struct timespec *until, ...);
static int world_clock(clockid_t clock, struct timespec *now);
static int world_yield(void);
static int world_pid(void);

#define syscall(...) world_futex(__VA_ARGS__)
#define clock_gettime world_clock
#define sched_yield world_yield
#define getpid world_pid

#define SAGE_RING_ATOMICS_H /* in place of ring_atomics.h */
typedef _Atomic uint32_t sq_word32;
typedef _Atomic uint64_t sq_word64;
#define SQ_HOT static inline __attribute__((always_inline))
#define SQ_VERBS(bits)                                                                                                 \
    static inline uint##bits##_t sq_load##bits(const sq_word##bits *word) {                                            \
        const uint64_t *late = step_and_look((const void *)word);                                                      \
        return late ? (uint##bits##_t)*late : *(sq_word##bits *)word;                                                  \
    }                                                                                                                  \
    static inline uint##bits##_t sq_load_acquire##bits(const sq_word##bits *word) { return sq_load##bits(word); }      \
    static inline void sq_store##bits(sq_word##bits *word, uint##bits##_t value) {                                     \
        step();                                                                                                        \
        if (!stored_late((void *)word, value, bits)) *word = value;                                                    \
    }                                                                                                                  \
    static inline void sq_store_release##bits(sq_word##bits *word, uint##bits##_t value) { sq_store##bits(word, value); } \
    static inline bool sq_compare_exchange##bits(sq_word##bits *word, uint##bits##_t *expected, uint##bits##_t desired) { \
        return sq_full_fence(), atomic_compare_exchange_strong(word, expected, desired);                               \
    }                                                                                                                  \
    static inline uint##bits##_t sq_exchange_full##bits(sq_word##bits *word, uint##bits##_t value) {                   \
        return sq_full_fence(), atomic_exchange(word, value);                                                          \
    }
SQ_VERBS(32)
SQ_VERBS(64)
static inline uint32_t sq_add_full32(sq_word32 *word, uint32_t value) {
    return sq_full_fence(), atomic_fetch_add(word, value);
}
static inline uint32_t sq_or_release32(sq_word32 *word, uint32_t bits) { return sq_full_fence(), atomic_fetch_or(word, bits); }
static inline uint64_t sq_add64(sq_word64 *word, uint64_t value) { return sq_full_fence(), atomic_fetch_add(word, value); }
static inline void sq_crash_fence(void) {}
static inline void sq_pause(void) { step(); }

#define SAGE_RING_ALIVE_H /* in place of ring_alive.h */
typedef struct {
    struct robust_list_head *robust;
    uint32_t id, forks;
} sq_thread;
static const uint32_t sq_forks = 1;
static sq_thread *sq_thread_current(void);
static bool sq_thread_gone(uint32_t id, dev_t device, ino_t inode);
static bool sq_process_gone(uint32_t pid, uint64_t start_ticks, dev_t device, ino_t inode);
static bool sq_process_stat(uint32_t pid, char *state, uint64_t *start_ticks);
static inline bool sq_boot_id(uint8_t id[16]) { return memset(id, 7, 16), true; }
static inline uint64_t sq_pid_namespace(void) { return 7; }

/* A copy is many steps: here it is two. */
static inline void *world_copy(void *to, const void *from, size_t bytes) {
    memmove(to, from, bytes / 2);
    step();
    memmove((char *)to + bytes / 2, (const char *)from + bytes / 2, bytes - bytes / 2);
    return to;
}
#include "ring_status.h"
#define memcpy world_copy
#include "ring.h"
#undef memcpy

/* -- Processes ----------------------------------------------------------------------------------------------------- */

#define ACTORS_MOST 5
#define STACK_BYTES (64 << 10)
#define STEP_NS 10000 /* so long that nobody yields for long before it sleeps */
#define STEPS_MOST 200000
#define FIRST_ID 100

enum stance { READY, SLEEPING, DONE, DEAD };
#define STORES_MOST 8
typedef struct {
    void *word;
    uint64_t value;
    int bits;
} late_store;
typedef struct actor {
    sq_thread thread;
    struct robust_list_head robust;
    sq_ring *ring;
    void (*script)(struct actor *self);
    int amount; /* of whatever the script does */
    enum stance stance;
    size_t sleeps_on;    /* offset of the futex word */
    uint64_t wakes_ns;   /* deadline of its sleep */
    uint64_t stopped_ns; /* not run before */
    bool woken;
    uint32_t steps, dies_at, stops_at; /* counted in its own steps; 0: never */
    late_store stores[STORES_MOST];    /* which nobody else has seen yet, the oldest first */
    int late;
    ucontext_t context;
    char *stack;
} actor;

static struct {
    actor actors[ACTORS_MOST + 1]; /* the last one looks at what is left, when all others are over */
    int count;
    actor *current;
    bool running; /* else steps are only counted */
    uint64_t steps;      /* the clock goes with them */
    uint64_t next_event; /* the step at which something happens: another process runs, or one dies or is stopped */
    uint64_t entered;    /* the step at which the current process went on */
    uint64_t passed_ns;  /* time in which nobody could run */
    uint64_t random, gap;
    uint32_t units_most;  /* of an item without an extension */
    bool calm;            /* nobody died or was stopped, so nobody may have to wait for the end of a slice */
    bool waits_may_fail;  /* somebody was stopped, or the kernel was no help: locks may be waited for so long */
    uint32_t deaths;
    ucontext_t scheduler;
    bool tracing;
    const char *wrong, *title;
    uint64_t seed;
    char words[300];
} world;

static uint64_t now_ns(void) { return world.passed_ns + world.steps * STEP_NS; }

static uint64_t chance(uint64_t below) { /* xorshift64*: Vigna, 2016 */
    world.random ^= world.random >> 12;
    world.random ^= world.random << 25;
    world.random ^= world.random >> 27;
    return (world.random * 2685821657736338717ull >> 33) % below;
}

__attribute__((format(printf, 1, 2))) static void wrong(const char *form, ...) {
    if (world.wrong) return;
    va_list more;
    va_start(more, form);
    vsnprintf(world.words, sizeof world.words, form, more);
    va_end(more);
    world.wrong = world.words;
}
static void trace(const char *what) {
    if (world.tracing) printf("%10llu  process %u  %s\n", (unsigned long long)world.steps, world.current->thread.id, what);
}

static bool alive(uint32_t id) {
    actor *one = &world.actors[id - FIRST_ID];
    return id >= FIRST_ID && one <= &world.actors[world.count] && one->stance != DEAD;
}
static sq_thread *sq_thread_current(void) { return &world.current->thread; }
static bool sq_thread_gone(uint32_t id, dev_t device, ino_t inode) { return (void)device, (void)inode, !alive(id); }
static bool sq_process_gone(uint32_t pid, uint64_t start_ticks, dev_t device, ino_t inode) {
    (void)device, (void)inode;
    return start_ticks == 0 || !alive(pid);
}
static bool sq_process_stat(uint32_t pid, char *state, uint64_t *start_ticks) {
    *state = 'R';
    *start_ticks = pid;
    return alive(pid);
}
static int world_pid(void) { return (int)world.current->thread.id; }
static int world_clock(clockid_t clock, struct timespec *now) {
    (void)clock;
    *now = (struct timespec){.tv_sec = (time_t)(now_ns() / 1000000000ull), .tv_nsec = (long)(now_ns() % 1000000000ull)};
    return 0;
}

/* -- Memory -------------------------------------------------------------------------------------------------------- */

/* The oldest stores of a process reach all others. */
static void settle_stores(actor *one, int count) {
    for (int at = 0; at < count; at++) {
        const late_store *store = &one->stores[at];
        if (store->bits == 32) *(sq_word32 *)store->word = (uint32_t)store->value;
        else *(sq_word64 *)store->word = store->value;
    }
    one->late -= count;
    memmove(one->stores, one->stores + count, (size_t)one->late * sizeof *one->stores);
}
static bool is_shared(const sq_ring *ring, const void *word) {
    const uint8_t *at = word;
    return (size_t)(at - (const uint8_t *)ring->header) < ring->header_bytes ||
           (size_t)(at - ring->map->data) < (size_t)ring->map->capacity * SQ_UNIT;
}
static bool stored_late(void *word, uint64_t value, int bits) {
    actor *self = world.current;
    if (!world.running || !is_shared(self->ring, word)) return false;
    if (self->late == STORES_MOST) settle_stores(self, 1);
    self->stores[self->late++] = (late_store){word, value, bits};
    return true;
}
static void sq_full_fence(void) {
    step();
    settle_stores(world.current, world.current->late);
}
static inline const uint64_t *step_and_look(const void *word) {
    step();
    actor *self = world.current;
    for (int at = self->late - 1; at >= 0; at--)
        if (self->stores[at].word == word) return &self->stores[at].value;
    return NULL;
}

/* -- The kernel ---------------------------------------------------------------------------------------------------- */

static uint32_t wake(size_t offset, uint32_t most) {
    uint32_t woken = 0;
    for (int at = 0; at < world.count && woken < most; at++) {
        actor *one = &world.actors[at];
        if (one->stance != SLEEPING || one->sleeps_on != offset) continue;
        one->stance = READY;
        one->woken = true;
        woken++;
    }
    return woken;
}

/* What the kernel does with a word on the robust list of a thread that died (kernel/futex, handle_futex_death). */
static void inherit(actor *dead, struct robust_list *entry, bool pending) {
    sq_word32 *word = (sq_word32 *)((char *)entry + dead->robust.futex_offset);
    size_t offset = (size_t)((char *)word - (char *)dead->ring->header);
    uint32_t found = *word;
    if (pending && !found) {
        wake(offset, 1);
    } else if ((found & FUTEX_TID_MASK) == dead->thread.id) {
        *word = (found & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        if (found & FUTEX_WAITERS) wake(offset, 1);
    }
}
static void die(actor *one) {
    trace("dies");
    settle_stores(one, one->late); /* the processor's, and it lives on */
    one->stance = DEAD;
    world.deaths++;
    world.calm = false;
    if (chance(8) == 0) { /* the kernel's help fails, as where a list could not be registered */
        world.waits_may_fail = true;
        return;
    }
    struct robust_list *pending = one->robust.list_op_pending;
    for (struct robust_list *entry = one->robust.list.next; entry != &one->robust.list; entry = entry->next)
        if (entry != pending) inherit(one, entry, false);
    if (pending) inherit(one, pending, true);
}

static void leave(void) { swapcontext(&world.current->context, &world.scheduler); }

/* Steps that the process has taken, this one included. */
static uint32_t steps_of(const actor *one) { return one->steps + (uint32_t)(world.steps - world.entered); }

/* Another process runs, or this one dies or is stopped; or who looks afterwards finds no end. */
static __attribute__((noinline)) void turn_of_events(void) {
    actor *self = world.current;
    if (!world.running) {
        printf("%s: no end of the look at what is left\n    again: schedules --replay '%s' %llu\n", world.title, world.title,
               (unsigned long long)world.seed);
        exit(1);
    }
    if (steps_of(self) == self->dies_at) {
        die(self);
    } else if (steps_of(self) == self->stops_at) {
        trace("is stopped");
        world.calm = false;
        world.waits_may_fail = true;
        self->stopped_ns = now_ns() + 10000000ull * (1 + chance(30));
    }
    leave();
}

/* Where another process may run, and where this one may die. */
static inline void step(void) {
    if (__builtin_expect(++world.steps >= world.next_event, 0)) turn_of_events();
}

/* The next event of a process that is about to run. */
static void plan_event(const actor *one) {
    uint64_t next = 1 + chance(world.gap);
    if (one->dies_at > one->steps && one->dies_at - one->steps < next) next = one->dies_at - one->steps;
    if (one->stops_at > one->steps && one->stops_at - one->steps < next) next = one->stops_at - one->steps;
    world.entered = world.steps;
    world.next_event = world.steps + next;
}
void sq_point(int id) {
    static const char *const names[] = {
#define NAME(name) #name,
        SQ_POINTS(NAME)};
    if (world.tracing) trace(names[id]);
    step();
}
static int world_yield(void) {
    if (world.running) leave();
    return 0;
}

static void world_sleep(uint64_t ns) {
    world.current->stopped_ns = now_ns() + ns;
    leave();
}

static long world_futex(long number, void *word, int operation, uint32_t value, const struct timespec *until, ...) {
    actor *self = world.current;
    if (number != SYS_futex) return errno = ENOSYS, -1;
    size_t offset = (size_t)((char *)word - (char *)self->ring->header);
    sq_full_fence();
    if (operation == FUTEX_WAKE) return wake(offset, value);
    if (*(sq_word32 *)word != value) return errno = EAGAIN, -1;
    self->wakes_ns = until ? (uint64_t)until->tv_sec * 1000000000ull + (uint64_t)until->tv_nsec : UINT64_MAX;
    if (!world.running) { /* nobody is there who could wake us */
        if (now_ns() < self->wakes_ns) world.passed_ns += self->wakes_ns - now_ns();
        return errno = ETIMEDOUT, -1;
    }
    trace("sleeps");
    self->sleeps_on = offset;
    self->woken = false;
    self->stance = SLEEPING;
    leave();
    trace(self->woken ? "was woken" : "has slept in vain");
    return self->woken ? 0 : (errno = ETIMEDOUT, -1);
}

/* -- The scheduler ------------------------------------------------------------------------------------------------- */

static void enter_script(void) {
    actor *self = world.current;
    self->script(self);
    sq_full_fence();
    self->stance = DONE;
    trace("is done");
    leave();
}

/* Whether somebody sleeps on a lock that nobody will free, although the kernel could do its part. After a death, a free lock
 * may be slept on to the end of the slice: see sq_lock_leave(). */
static bool is_forgotten(const actor *one) {
    sq_header *header = one->ring->header;
    bool producers = one->sleeps_on == offsetof(sq_header, producers.lock);
    if (!producers && one->sleeps_on != offsetof(sq_header, consumers.lock)) return false;
    return world.calm || (!world.waits_may_fail && (producers ? header->producers.lock : header->consumers.lock) != 0);
}

/* Nobody can run: time passes. That must not be needed by anybody who could have what it waits for. */
static bool pass_time(void) {
    uint64_t next = UINT64_MAX;
    for (int at = 0; at < world.count; at++) settle_stores(&world.actors[at], world.actors[at].late);
    for (int at = 0; at < world.count; at++) {
        actor *one = &world.actors[at];
        if (one->stance == READY && one->stopped_ns < next) next = one->stopped_ns;
        if (one->stance != SLEEPING) continue;
        if (one->wakes_ns < next) next = one->wakes_ns;
        if (is_forgotten(one)) wrong("process %u sleeps on a lock that nobody will free", one->thread.id);
        if (!world.calm) continue;
        uint64_t steps = world.steps, event = world.next_event;
        world.next_event = UINT64_MAX; /* a look takes no steps */
        world.current = one;
        bool may_get = sq_depth(one->ring) || (sq_state(one->ring) && sq_worth_trying(one->ring, SQ_CONSUMERS, 0));
        if (one->sleeps_on == offsetof(sq_header, not_empty.sequence) && may_get)
            wrong("process %u sleeps although there is something to get: a lost wake-up", one->thread.id);
        if (one->sleeps_on == offsetof(sq_header, not_full.sequence) && sq_worth_trying(one->ring, SQ_PRODUCERS, world.units_most))
            wrong("process %u sleeps although there is room: a lost wake-up", one->thread.id);
        world.steps = steps;
        world.next_event = event;
    }
    if (next == UINT64_MAX) return false;
    if (next > now_ns()) world.passed_ns += next - now_ns();
    for (int at = 0; at < world.count; at++) {
        actor *one = &world.actors[at];
        if (one->stance == SLEEPING && one->wakes_ns <= now_ns()) one->stance = READY;
    }
    return true;
}

/* Runs all scripts to their ends. False: something is wrong, and world.wrong says what. */
static bool run_world(void) {
    for (int at = 0; at < world.count; at++) {
        actor *one = &world.actors[at];
        getcontext(&one->context);
        one->context.uc_stack.ss_sp = one->stack;
        one->context.uc_stack.ss_size = STACK_BYTES;
        one->context.uc_link = NULL;
        makecontext(&one->context, enter_script, 0);
    }
    world.running = true;
    while (!world.wrong) {
        actor *able[ACTORS_MOST];
        int ables = 0, over = 0;
        for (int at = 0; at < world.count; at++) {
            actor *one = &world.actors[at];
            over += one->stance == DONE || one->stance == DEAD;
            if (one->late) settle_stores(one, (int)chance((uint64_t)one->late + 1));
            if (one->stance == SLEEPING && one->wakes_ns <= now_ns()) one->stance = READY;
            if (one->stance == READY && one->stopped_ns <= now_ns()) able[ables++] = one;
        }
        if (over == world.count) break;
        if (!ables) {
            if (!pass_time()) wrong("everybody sleeps for ever");
            continue;
        }
        if (world.steps > STEPS_MOST) wrong("no end after %d steps", STEPS_MOST);
        world.current = able[chance((uint64_t)ables)];
        plan_event(world.current);
        swapcontext(&world.scheduler, &world.current->context);
        world.current->steps = steps_of(world.current);
    }
    world.running = false;
    world.next_event = world.steps + STEPS_MOST;
    world.current = &world.actors[world.count];
    return !world.wrong;
}

#endif
