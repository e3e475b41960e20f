/* Sleeping until the other side did something: event counts on futexes.
 *
 *   sleeper                                 waker
 *   key = sequence                          publish (release store of a position)
 *   sleepers += 1, full fence        (F1)   full fence: the exchange that freed the lock (L2)
 *   look at the condition again             if sleepers != 0:
 *   futex_wait(sequence, key)                   {sleepers -= k; sequence += 1} in one step
 *                                               futex_wake(k)
 *
 * Either the sleeper's second look sees what was published, or the waker's look sees the sleeper; then `sequence`
 * has moved and futex_wait returns at once, or the wake finds it asleep.
 *
 * `sleepers` never says less than are asleep and not about to be woken: what is not woken keeps its mark all the time, so
 * that another waker, at the same moment, wakes the next one.
 *
 * Kills. A sleeper that dies leaves its mark: a wake that finds nobody clears all marks. A waker that
 * dies between publishing and waking leaves sleepers who look again after at most one slice (50 ms): the only bound
 * that holds without trusting anybody. No pthread condition variable: those lose wake-ups across processes.
 */
#ifndef SAGE_RING_WAIT_H
#define SAGE_RING_WAIT_H


#include "ring_lock.h"

/* Both words at once. An event lies on a boundary of 8 bytes: see the offsets in ring_layout.h. */
typedef union {
    sq_event event;
    sq_word64 both;
} sq_event_pair;

static __attribute__((noinline)) void sq_event_wake_slow(sq_event *event, uint32_t count) {
    sq_word64 *both = &((sq_event_pair *)event)->both;
    uint64_t found = sq_load64(both), woke;
    uint32_t left;
    SQ_POINT(wake_claimed);
    do {
        sq_event_pair pair = {.both = found};
        uint32_t marked = sq_load32(&pair.event.sleepers);
        if (!marked) return;
#ifdef SQ_PLANT_SLEEPERS_FORGOTTEN
        left = 0;
#else
        left = marked > count ? marked - count : 0;
#endif
        sq_event_pair after = {.event = {.sequence = sq_load32(&pair.event.sequence) + 1, .sleepers = left}};
        woke = sq_load64(&after.both);
    } while (!sq_compare_exchange64(both, &found, woke));
    SQ_POINT(wake_bumped);
    long woken = sq_futex_wake(&event->sequence, count);
    /* Fewer woken than asked for: nobody who announced itself before was asleep, whatever the marks say. They go, unless
     * somebody came since, or another waker took marks away: then the pair is not what we left. */
    if (left && woken < (long)count) {
        sq_event_pair cleared = {.both = woke};
        sq_store32(&cleared.event.sleepers, 0);
        sq_compare_exchange64(both, &woke, sq_load64(&cleared.both));
    }
}

/* Wakes up to `count` sleepers. A full fence must lie between publishing and this call. */
static inline void sq_event_wake(sq_event *event, uint32_t count) {
#ifdef SQ_PLANT_NO_WAKE
    return;
#endif
    if (__builtin_expect(sq_load32(&event->sleepers) != 0, 0)) sq_event_wake_slow(event, count);
}

/* Wakes everybody, marked or not (shutdown, poison). */
static inline void sq_event_wake_all(sq_event *event) {
    sq_exchange_full32(&event->sleepers, 0);
    sq_add_full32(&event->sequence, 1);
    sq_futex_wake(&event->sequence, UINT32_MAX);
}

/* Announces a sleeper; the caller looks at its condition again afterwards, then calls sq_event_sleep(key). */
static inline uint32_t sq_event_announce(sq_event *event, bool first) {
    uint32_t key = sq_load_acquire32(&event->sequence);
#ifdef SQ_PLANT_ANNOUNCED_UNFENCED
    sq_store32(&event->sleepers, sq_load32(&event->sleepers) + 1);
    return key;
#endif
    if (first || sq_load32(&event->sleepers) == 0) sq_add_full32(&event->sleepers, 1);
    sq_full_fence(); /* F1 */
    SQ_POINT(sleep_announced);
    return key;
}
static inline long sq_event_sleep(sq_event *event, uint32_t key, uint64_t deadline_ns) {
    long result = sq_futex_wait(&event->sequence, key, deadline_ns);
    /* Not woken: take our mark back, so that `sleepers` does not grow with every slice. A waker that is just between its two
     * steps has taken it already; then this may take somebody else's, who looks again after a slice. */
    uint32_t marked = sq_load32(&event->sleepers);
    if (result != 0 && sq_load32(&event->sequence) == key && marked) sq_compare_exchange32(&event->sleepers, &marked, marked - 1);
    SQ_POINT(sleep_over);
    return result;
}

#endif
