/* Seldom used operations on the whole ring: clear, shutdown, resize, and reading the figures. */
#ifndef SAGE_RING_CONTROL_H
#define SAGE_RING_CONTROL_H

#include "ring_lease.h"
#include "ring_put.h"

/* Drops every record that nobody holds; *dropped says how many. */
static inline int sq_drop_all(sq_ring *ring, uint32_t *dropped) {
    sq_header *header = ring->header;
    sq_side *side = &header->consumers;
    *dropped = 0;
    if (!sq_load32(&header->leases.disordered)) {
        uint64_t head = sq_load64(&header->head), tail = sq_load_acquire64(&header->tail);
        if (sq_units(tail) - sq_units(head) > ring->map->capacity)
            return sq_poison(ring, "tail", offsetof(sq_header, tail), tail, head);
        *dropped = sq_items(tail) - sq_items(head);
        sq_store64(&side->other_cache, tail);
        sq_exchange_full64(&header->head, tail); /* W2, and F1 where no lock is freed */
        SQ_POINT(take_released);
        sq_store64(&side->count, sq_load64(&side->count) + *dropped);
    } else {
        sq_reader reader = {.ring = ring, .map = ring->map, .tail = sq_load64(&side->other_cache),
                            .at = sq_load64(&header->leases.cursor), .disordered = true};
        sq_record record = {0};
        int status;
        while ((status = sq_read_next(&reader, &record)) == SQ_OK) {
            record.stamp_ns = 0;
            sq_read_take(&reader, &record);
        }
        if (status != SQ_EMPTY && status != SQ_SHUTDOWN) return status;
        *dropped = reader.items;
        sq_store64(&header->leases.cursor, reader.at);
        status = sq_settle(ring, ring->map);
        if (status) return status;
    }
    sq_store64(&side->high_water, sq_load64(&side->high_water) + *dropped);
    return SQ_OK;
}

/* Items that clear() had to take one by one, because they have spill files. */
static inline int sq_note_dropped(sq_ring *ring, bool wait, uint64_t dropped) {
    int status = sq_enter(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    sq_side *side = &ring->header->consumers;
    sq_store64(&side->high_water, sq_load64(&side->high_water) + dropped);
    sq_leave(ring, SQ_CONSUMERS);
    return SQ_OK;
}

static inline int sq_clear(sq_ring *ring, bool wait, uint32_t *dropped) {
    *dropped = 0;
    int status = sq_enter(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    if (sq_load32(&ring->header->control.state) & SQ_STATE_POISONED) status = sq_poisoned(ring);
    if (!status) status = sq_drop_all(ring, dropped);
    sq_leave(ring, SQ_CONSUMERS);
    sq_event_wake(&ring->header->not_full, UINT32_MAX);
    return status;
}

/* No put succeeds after this returned. The bit is set under the producers' lock, so that no put is under way. A lock that
 * cannot be had within a slice (its owner is stopped) is not waited for, and with a single producer there is none: such a
 * put looks again just before it publishes. With `immediate`, what is queued is dropped; *dropped says how many. */
static inline int sq_shutdown(sq_ring *ring, bool immediate, uint32_t *dropped) {
    sq_header *header = ring->header;
    *dropped = 0;
    bool single = ring->mode & SQ_MODE_SINGLE_PRODUCER;
    int status = single ? SQ_BUSY : sq_take_lock(ring, SQ_PRODUCERS, true);
    sq_or_release32(&header->control.state, SQ_STATE_SHUTDOWN | (immediate ? SQ_STATE_IMMEDIATE : 0));
    SQ_POINT(shutdown_set);
    if (status == SQ_OK) sq_lock_free(&header->producers.lock);
#ifndef SQ_PLANT_SHUTDOWN_NO_WAKE
    sq_event_wake_all(&header->not_empty);
    sq_event_wake_all(&header->not_full);
#endif
    SQ_POINT(shutdown_woken);
    if (!immediate || !sq_may_sweep(ring)) return SQ_OK;
    /* Getters answer ShutDown from now on, whether or not this part is reached. */
    status = sq_take_lock(ring, SQ_CONSUMERS, true);
    if (status) return status == SQ_AGAIN ? SQ_OK : status;
    status = sq_drop_all(ring, dropped);
    sq_lock_free(&header->consumers.lock);
    return status;
}

/* Ends the ring in favour of another one: a shutdown that says so, in one store. Unlike a shutdown it needs the producers'
 * lock: an item that a stopped producer publishes afterwards would never be taken, and it would not know. That is why a
 * ring whose single producer works without the lock is refused. Killed before the store: nothing has happened. Killed
 * after it: sleepers look again after a slice. *left says how many items remain to be taken here. */
static inline int sq_seal(sq_ring *ring, uint32_t *left) {
    sq_header *header = ring->header;
    if (ring->mode & SQ_MODE_SINGLE_PRODUCER) return sq_fail(&ring->fault, SQ_INVALID, "single_producer", 0, 1, 0);
    int status = sq_take_lock(ring, SQ_PRODUCERS, true);
    if (status) return status;
    uint32_t state = sq_load32(&header->control.state);
    if (state & SQ_STATE_POISONED) status = sq_poisoned(ring);
    else if (state) status = SQ_SHUTDOWN;
    else sq_or_release32(&header->control.state, SQ_STATE_SHUTDOWN | SQ_STATE_MOVED);
    SQ_POINT(shutdown_set);
    *left = sq_live_items(header, sq_load_acquire64(&header->head), sq_load64(&header->tail));
    sq_lock_free(&header->producers.lock);
    sq_event_wake_all(&header->not_empty);
    sq_event_wake_all(&header->not_full);
    SQ_POINT(shutdown_woken);
    return status;
}

static inline int sq_take_lock_until(sq_ring *ring, enum sq_which which, uint64_t deadline_ns) {
    int status;
    while ((status = sq_take_lock(ring, which, true)) == SQ_AGAIN && sq_now_ns() < deadline_ns) continue;
    return status;
}

/* Both locks are held. The new region starts where the one in force ends, so that a resize which was killed before its
 * store leaves only room that the next one uses. */
static inline int sq_resize_locked(sq_ring *ring, uint64_t capacity) {
    sq_header *header = ring->header;
    sq_map *old = ring->map;
    uint64_t page = sq_page(), old_bytes = (uint64_t)old->capacity * SQ_UNIT;
    uint64_t old_at = sq_geometry_offset_pages(old->word) * page, at = old_at + old_bytes;
    uint64_t head = sq_load64(&header->head), tail = sq_load64(&header->tail);
    uint32_t used = sq_units(tail) - sq_units(head);
    if (used > old->capacity) return sq_poison(ring, "tail", offsetof(sq_header, tail), used, old->capacity);
    if (sq_reserve_pages(ring->fd, at, capacity)) return sq_fail(&ring->fault, SQ_SYSTEM, "posix_fallocate", at, capacity, 0);
    SQ_POINT(resize_reserved);
    int status = SQ_OK;
    uint64_t word = sq_geometry(at / page, (uint32_t)__builtin_ctzll(capacity / SQ_UNIT),
                                sq_geometry_generation(old->word) + 1);
    sq_map *map = sq_map_region(ring, word, &status);
    if (!map) return status;
#ifdef SQ_PLANT_RESIZE_STORED_BEFORE_COPY
    sq_store_release64(&header->control.geometry, word);
    SQ_POINT(resize_stored);
#endif
    memcpy(sq_record_at(map, head), sq_record_at(old, head), (uint64_t)used * SQ_UNIT);
    SQ_POINT(resize_copied);
    pthread_mutex_lock(&ring->remapping);
    sq_store_release64(&header->control.geometry, word); /* W3: pairs with R3; positions mean the same in both regions */
    SQ_POINT(resize_stored);
    map->next = old;
    ring->map = map;
    pthread_mutex_unlock(&ring->remapping);
    /* Leased views may still look at the old region; without any, its pages go back. Failing costs memory only. */
    if (!sq_load32(&header->leases.disordered))
        (void)fallocate(ring->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)old_at, (off_t)old_bytes);
    return SQ_OK;
}

/* Grows the data region. SQ_AGAIN: the locks could not be had before the deadline. Without the GIL. */
static inline int sq_resize(sq_ring *ring, uint64_t capacity_bytes, uint64_t deadline_ns) {
    if (ring->mode & (SQ_MODE_SINGLE_PRODUCER | SQ_MODE_SINGLE_CONSUMER))
        return sq_fail(&ring->fault, SQ_INVALID, "single roles", 0, ring->mode, 0);
    if (capacity_bytes == 0 || capacity_bytes > SQ_CAPACITY_MAX)
        return sq_fail(&ring->fault, SQ_INVALID, "capacity_bytes", 0, capacity_bytes, SQ_CAPACITY_MAX);
    sq_header *header = ring->header;
    uint64_t capacity = sq_round_capacity(capacity_bytes);
    int status = sq_take_lock_until(ring, SQ_PRODUCERS, deadline_ns);
    if (status) return status;
    sq_lock_chain chain;
    sq_lock_chain_first(&header->producers.lock, &chain);
    status = sq_take_lock_until(ring, SQ_CONSUMERS, deadline_ns);
    if (!status) {
        uint64_t found = (uint64_t)ring->map->capacity * SQ_UNIT;
        if (sq_load32(&header->control.state) & SQ_STATE_POISONED) status = sq_poisoned(ring);
        else if (capacity < found) status = sq_fail(&ring->fault, SQ_INVALID, "capacity_bytes below", 0, capacity, found);
        else if (capacity > found) status = sq_resize_locked(ring, capacity);
        sq_lock_free(&header->consumers.lock);
    }
    sq_lock_unchain_first(&header->producers.lock, &chain);
    sq_lock_free(&header->producers.lock);
    if (!status) sq_event_wake(&header->not_full, UINT32_MAX);
    return status;
}

typedef struct {
    uint64_t puts, gets, bytes_put, bytes_taken, depth, depth_bytes, high_water, dropped, spills, redeliveries, leased;
    uint64_t put_blocked_ns, put_blocked, get_blocked_ns, get_blocked;
    uint64_t put_recoveries, get_recoveries, put_waiters, get_waiters, oldest_age_ns, capacity_bytes, state;
    uint32_t put_lock_owner, get_lock_owner; /* thread id of whoever holds the lock at this moment; 0: nobody */
} sq_stats;

/* When the first sampled record in the ring was put; 0: none of the first ones is sampled. Others may be at work: what is
 * read is checked as far as it is used, and anything odd ends the search. */
static inline uint64_t sq_first_stamp(sq_ring *ring, uint64_t head, uint64_t tail) {
    const sq_map *map = ring->map;
    uint32_t left = sq_units(tail) - sq_units(head);
    for (uint32_t looked = 0; looked < SQ_SAMPLE_EVERY && left && left <= map->capacity; looked++) {
        const volatile sq_record_header *at = sq_record_at(map, head);
        if (at->sequence != sq_items(head)) return 0;
        bool extended = at->flags & SQ_RECORD_EXTENDED;
        uint64_t units = 1ull + extended + ((uint64_t)at->length + SQ_UNIT - 1) / SQ_UNIT;
        uint64_t stamp = extended ? ((const volatile sq_record_extension *)(at + 1))->stamp_ns : 0;
        if (units > left) return 0;
        if (stamp) return stamp;
        left -= (uint32_t)units;
        head = sq_advance(head, (uint32_t)units, 1);
    }
    return 0;
}

/* A moment's picture, taken without a lock; each figure is right by itself. */
static inline void sq_stats_read(sq_ring *ring, sq_stats *stats) {
    sq_header *header = ring->header;
    uint64_t head = sq_load_acquire64(&header->head), tail = sq_load_acquire64(&header->tail);
    /* head was read first and tail only grows, so the difference is never negative; it may be more than ever was. */
    uint64_t depth = sq_items(tail) - sq_items(head);
    uint32_t leased = sq_load32(&header->leases.disordered) ? sq_load32(&header->leases.leased) : 0;
    uint32_t taken = sq_load32(&header->leases.disordered) ? sq_load32(&header->leases.taken) : 0;
    bool resized = sq_load64(&header->control.geometry) != ring->map->word;
    uint64_t stamp = resized ? 0 : sq_first_stamp(ring, head, tail), now = sq_now_ns();
    sq_side *put = &header->producers, *get = &header->consumers;
    *stats = (sq_stats){
        .puts = sq_count64(sq_load64(&put->count), tail) - ring->first_item,
        .gets = sq_count64(sq_load64(&get->count), head) - ring->first_item + taken,
        .bytes_put = sq_load64(&put->bytes),
        .bytes_taken = sq_load64(&get->bytes),
        .depth = depth > (uint64_t)leased + taken ? depth - leased - taken : 0,
        .depth_bytes = (uint64_t)(sq_units(tail) - sq_units(head)) * SQ_UNIT,
        .high_water = sq_load64(&put->high_water) > depth ? sq_load64(&put->high_water) : depth,
        .dropped = sq_load64(&get->high_water),
        .spills = sq_load64(&put->spills),
        .redeliveries = sq_load64(&get->spills),
        .leased = leased,
        .put_blocked_ns = sq_load64(&put->blocked_ns),
        .put_blocked = sq_load64(&put->blocked),
        .get_blocked_ns = sq_load64(&get->blocked_ns),
        .get_blocked = sq_load64(&get->blocked),
        .put_recoveries = sq_load64(&put->recoveries),
        .get_recoveries = sq_load64(&get->recoveries),
        .put_waiters = sq_load32(&header->not_full.sleepers),
        .get_waiters = sq_load32(&header->not_empty.sleepers),
        .oldest_age_ns = depth && stamp && now > stamp ? now - stamp : 0,
        .capacity_bytes = (uint64_t)ring->map->capacity * SQ_UNIT,
        .state = sq_load32(&header->control.state),
        .put_lock_owner = sq_load32(&put->lock) & FUTEX_TID_MASK,
        .get_lock_owner = sq_load32(&get->lock) & FUTEX_TID_MASK,
    };
}

static inline uint64_t sq_histogram_count(sq_ring *ring, uint32_t bucket) {
    return bucket < SQ_HISTOGRAM_BUCKETS ? sq_load64(&ring->header->histogram[bucket]) : 0;
}
static inline uint32_t sq_state(sq_ring *ring) { return sq_load32(&ring->header->control.state); }
static inline uint32_t sq_party_pid(sq_ring *ring, uint32_t slot) {
    return slot < SQ_PARTICIPANTS ? sq_load32(&ring->header->participants[slot].pid) : 0;
}

/* Tells the holders of a slot apart. */
static inline uint32_t sq_party_epoch(sq_ring *ring, uint32_t slot) {
    return slot < SQ_PARTICIPANTS ? sq_load32(&ring->header->participants[slot].epoch) : 0;
}

/* The first words of all spill references in the ring, leased or not; *found may exceed `room`: ask again with more. */
static inline int sq_spilled(sq_ring *ring, bool wait, uint64_t *ids, size_t room, size_t *found) {
    *found = 0;
    if (ring->mode & SQ_MODE_SINGLE_CONSUMER) /* which moves on without the lock */
        return sq_fail(&ring->fault, SQ_INVALID, "single consumer", 0, ring->mode, 0);
    int status = sq_take_lock(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    uint64_t at = sq_load64(&ring->header->head), tail = sq_load_acquire64(&ring->header->tail);
    uint32_t left = sq_units(tail) - sq_units(at);
    if (left > ring->map->capacity) status = sq_poison(ring, "tail", offsetof(sq_header, tail), tail, at);
    for (sq_seen seen; left && !status; left -= seen.units, at = sq_advance(at, seen.units, 1)) {
        status = sq_see(ring, ring->map, at, left, &seen);
        if (status) break;
        if (!(seen.flags & SQ_RECORD_SPILLED) || SQ_LEASE_PHASE(seen.lease) == SQ_TAKEN || seen.length < sizeof *ids) continue;
        const uint8_t *payload = (const uint8_t *)(seen.at + 1) + (seen.flags & SQ_RECORD_EXTENDED ? SQ_UNIT : 0);
        if (*found < room) memcpy(&ids[*found], payload, sizeof *ids);
        ++*found;
    }
    sq_lock_free(&ring->header->consumers.lock);
    return status;
}

/* Is there something to get, or a reason for get() to raise? */
static inline bool sq_ready(sq_ring *ring) { return sq_worth_trying(ring, SQ_CONSUMERS, 0); }

/* The same, but not deceived by a cursor that is too low, which sq_ready() is until somebody looks: between the cursor and
 * tail there may be nothing but records that others hold or took. True as well while somebody else is at work. */
static inline bool sq_ready_indeed(sq_ring *ring) {
    sq_reader reader;
    sq_record record;
    if (!sq_ready(ring) || !sq_load32(&ring->header->leases.disordered)) return sq_ready(ring);
    if (sq_read_begin(ring, &reader, false) != SQ_OK) return true;
    int status = sq_read_next(&reader, &record);
    (void)sq_read_end(&reader); /* the cursor is right from here on; damage is told by the status, or by get() */
    return status != SQ_EMPTY;
}

/* Waits for the lock of one side (or for the role's), not for room or records. SQ_OK: try again. Without the GIL. */
static inline int sq_wait_lock(sq_ring *ring, enum sq_which which) {
    if (ring->mode & sq_role_bit(which)) return sq_claim_role(ring, which, true);
    int status = sq_take_lock(ring, which, true);
    if (status == SQ_OK) sq_lock_free(&sq_side_of(ring, which)->lock);
    return status;
}

#define SQ_WAIT_ANY_MAX 128 /* of futex_waitv(2) */

/* Sleeps until one of the rings is ready, at most one slice. SQ_OK: one is. Needs Linux 5.16. Without the GIL. */
static inline int sq_wait_any(sq_ring **rings, uint32_t count, uint64_t deadline_ns) {
    struct futex_waitv waiters[SQ_WAIT_ANY_MAX];
    if (count > SQ_WAIT_ANY_MAX) return SQ_INVALID;
    uint64_t start = sq_now_ns(), until = start + SQ_SLICE_NS < deadline_ns ? start + SQ_SLICE_NS : deadline_ns;
    for (uint32_t at = 0; at < count; at++) {
        sq_event *event = &rings[at]->header->not_empty;
        if (sq_ready(rings[at])) return SQ_OK;
        waiters[at] = (struct futex_waitv){.val = sq_event_announce(event, true), .uaddr = (uintptr_t)&event->sequence,
                                           .flags = FUTEX_32};
        bool shared = !(rings[at]->mode & SQ_MODE_SINGLE_CONSUMER); /* else another thread of ours may be in get(), lockless */
        if (sq_ready(rings[at]) || (shared && sq_reap(rings[at], true) == SQ_OK && sq_ready(rings[at]))) return SQ_OK;
    }
    if (start >= deadline_ns) return SQ_EMPTY;
    struct timespec timeout = {.tv_sec = (time_t)(until / 1000000000ull), .tv_nsec = (long)(until % 1000000000ull)};
    if (syscall(SYS_futex_waitv, waiters, count, 0, &timeout, CLOCK_MONOTONIC) < 0 && errno == ENOSYS)
        return sq_fail(&rings[0]->fault, SQ_SYSTEM, "futex_waitv", 0, count, 0);
    for (uint32_t at = 0; at < count; at++)
        if (sq_ready(rings[at])) return SQ_OK;
    return SQ_AGAIN;
}

/* Records that may be taken now: a moment's estimate, exact when nobody else is active. */
static inline uint64_t sq_depth(sq_ring *ring) {
    sq_header *header = ring->header;
    uint64_t head = sq_load_acquire64(&header->head), tail = sq_load_acquire64(&header->tail);
    uint32_t depth = sq_items(tail) - sq_items(head), away = 0;
    if (sq_load32(&header->leases.disordered)) away = sq_load32(&header->leases.leased) + sq_load32(&header->leases.taken);
    depth = depth > away ? depth - away : 0;
    return depth < ring->max_items ? depth : ring->max_items;
}

#endif
