/* Entering and leaving one side of the ring: lock or role, recovery, damage, waiting.
 *
 * What a crash can leave behind, and what recover() does about it, side by side with the operation that leaves it:
 *
 *   producers' side                                   next owner of the producers' lock
 *     bytes written, tail not moved                     nothing: the bytes are overwritten
 *     tail moved, `count` not                           count := the 64-bit number that ends in tail's items
 *     tail moved, nobody woken                          nothing: sleepers look again after a slice
 *   consumers' side                                   next owner of the consumers' lock
 *     bytes copied out, head not moved                  nothing: the item is delivered to another
 *     head moved, `count` not                           as above
 *     lease fields written, `disordered` still 0        nothing: they mean nothing
 *     `disordered` set, no lease word changed yet       recount finds nothing leased, settle ends the disorder
 *     lease word changed, counters or head not          leased and taken are counted again between head and frontier,
 *                                                       cursor := head, head passes what is TAKEN
 *     cursor lowered, record still LEASED (nack)        nothing: cursor may be too low, never too high
 *   either side
 *     lock freed, nobody woken                          the kernel wakes one (ring_lock.h)
 */
#ifndef SAGE_RING_SIDE_H
#define SAGE_RING_SIDE_H

#include "ring_map.h"

enum sq_which { SQ_PRODUCERS, SQ_CONSUMERS };

static inline sq_side *sq_side_of(sq_ring *ring, enum sq_which which) {
    return which == SQ_PRODUCERS ? &ring->header->producers : &ring->header->consumers;
}
static inline uint32_t sq_role_bit(enum sq_which which) {
    return which == SQ_PRODUCERS ? SQ_MODE_SINGLE_PRODUCER : SQ_MODE_SINGLE_CONSUMER;
}

/* A 64-bit counter that may lag behind the 32 bits that a position carries. */
static inline uint64_t sq_count64(uint64_t count, uint64_t position) {
    return count + (uint64_t)(int64_t)(int32_t)(sq_items(position) - (uint32_t)count);
}

static __attribute__((noinline, cold)) void sq_poison_ring(sq_ring *ring, uint64_t offset) {
    uint64_t none = 0;
    sq_control *control = &ring->header->control;
    if (sq_compare_exchange64(&control->poison, &none, offset + 1)) sq_store32(&control->poisoned_by, (uint32_t)getpid());
    sq_or_release32(&control->state, SQ_STATE_POISONED);
    sq_event_wake_all(&ring->header->not_empty);
    sq_event_wake_all(&ring->header->not_full);
}

/* Somebody found damage: say so to everybody, once, and wake all. Always returns SQ_CORRUPT. */
SQ_HOT int sq_poison(sq_ring *ring, const char *field, uint64_t offset, uint64_t value, uint64_t wanted) {
    sq_fail(&ring->fault, SQ_CORRUPT, field, offset, value, wanted);
    sq_poison_ring(ring, offset);
    return SQ_CORRUPT;
}

static __attribute__((noinline, cold)) void sq_note_poison(sq_ring *ring) {
    sq_control *control = &ring->header->control;
    if (sq_load32(&ring->broken))
        sq_note_fault(&ring->fault, "file size", 0, 0, ring->header_bytes);
    else
        sq_note_fault(&ring->fault, "poisoned", sq_load64(&control->poison) - 1, sq_load32(&control->poisoned_by), 0);
}
/* Somebody found damage earlier, or the file shrank. Always returns SQ_CORRUPT. */
SQ_HOT int sq_poisoned(sq_ring *ring) {
    sq_note_poison(ring);
    return SQ_CORRUPT;
}

static inline sq_record_header *sq_record_at(const sq_map *map, uint64_t position) {
    return (sq_record_header *)(map->data + (uint64_t)(sq_units(position) & map->mask) * SQ_UNIT);
}

/* Offset in the file, for messages. */
static inline uint64_t sq_offset_of(const sq_map *map, const void *at) {
    return sq_geometry_offset_pages(map->word) * sq_page() + (uint64_t)((const uint8_t *)at - map->data);
}

/* One record's fixed part, read once from shared memory and checked; `available` units lie between it and the limit. */
typedef struct {
    sq_record_header *at;
    uint32_t length, units, lease;
    uint8_t tag, flags;
} sq_seen;

SQ_HOT int sq_see(sq_ring *ring, const sq_map *map, uint64_t position, uint32_t available, sq_seen *seen) {
    sq_record_header *at = sq_record_at(map, position);
    uint32_t sequence = *(volatile uint32_t *)&at->sequence;
    uint16_t zero = *(volatile uint16_t *)&at->zero;
    seen->at = at;
    seen->length = *(volatile uint32_t *)&at->length;
    seen->lease = sq_load_acquire32(&at->lease);
    seen->tag = *(volatile uint8_t *)&at->tag;
    seen->flags = *(volatile uint8_t *)&at->flags;
#ifndef SQ_PLANT_SEQUENCE_UNCHECKED
    if (__builtin_expect(sequence != sq_items(position), 0))
        return sq_poison(ring, "record.sequence", sq_offset_of(map, at), sequence, sq_items(position));
#endif
    /* A sampled record is an extended one, so bytes that were zeroed are no record, not even item 0. */
    bool plain_sample = !(sequence & (SQ_SAMPLE_EVERY - 1)) && !(seen->flags & SQ_RECORD_EXTENDED);
    if (__builtin_expect((seen->flags & ~SQ_RECORD_FLAGS) | zero | plain_sample, 0))
        return sq_poison(ring, "record.flags", sq_offset_of(map, at), seen->flags, SQ_RECORD_FLAGS);
#ifdef SQ_PLANT_LENGTH_UNCHECKED
    seen->units = sq_record_units(seen->length, seen->flags & SQ_RECORD_EXTENDED);
    return SQ_OK;
#endif
    uint64_t units = 1ull + (seen->flags & SQ_RECORD_EXTENDED ? 1 : 0) + ((uint64_t)seen->length + SQ_UNIT - 1) / SQ_UNIT;
    if (__builtin_expect(units > available, 0))
        return sq_poison(ring, "record.length", sq_offset_of(map, at), seen->length, (uint64_t)available * SQ_UNIT);
    seen->units = (uint32_t)units;
    return SQ_OK;
}

/* Moves head over what is TAKEN; ends the disorder when everything before the frontier is. Under the consumers' lock. */
static int sq_settle(sq_ring *ring, const sq_map *map) {
    sq_leases *leases = &ring->header->leases;
    uint64_t head = sq_load64(&ring->header->head), frontier = sq_load64(&leases->frontier), start = head;
    uint32_t left = sq_units(frontier) - sq_units(head);
    if (left > map->capacity)
        return sq_poison(ring, "leases.frontier", offsetof(sq_header, leases.frontier), frontier, head);
    while (left) {
        sq_seen seen;
        int status = sq_see(ring, map, head, left, &seen);
        if (status) return status;
#ifndef SQ_PLANT_HEAD_PASSES_LEASE
        if (SQ_LEASE_PHASE(seen.lease) != SQ_TAKEN) break;
#else
        if (SQ_LEASE_PHASE(seen.lease) == SQ_READY) break;
#endif
        head = sq_advance(head, seen.units, 1);
        left -= seen.units;
    }
    if (head != start) {
        /* Counted down first: see sq_live_items(). */
        sq_store32(&leases->taken, sq_load32(&leases->taken) - (sq_items(head) - sq_items(start)));
        sq_exchange_full64(&ring->header->head, head); /* W2, and F1 where no lock is freed */
        SQ_POINT(ack_released);
        uint64_t cursor = sq_load64(&leases->cursor);
        if (sq_units(cursor) - sq_units(start) < sq_units(head) - sq_units(start)) sq_store64(&leases->cursor, head);
        sq_side *side = &ring->header->consumers;
        sq_store64(&side->count, sq_load64(&side->count) + (sq_items(head) - sq_items(start)));
    }
    if (!left) sq_store32(&leases->disordered, 0);
    return SQ_OK;
}

/* The last owner of this side died in the middle. May itself die anywhere and be run again. */
static __attribute__((noinline, cold)) int sq_recover(sq_ring *ring, enum sq_which which) {
    sq_header *header = ring->header;
    sq_side *side = sq_side_of(ring, which);
#ifdef SQ_PLANT_NO_RECOVERY
    return SQ_OK;
#endif
    sq_store64(&side->recoveries, sq_load64(&side->recoveries) + 1);
    uint64_t position = sq_load64(which == SQ_PRODUCERS ? &header->tail : &header->head);
    sq_store64(&side->count, sq_count64(sq_load64(&side->count), position));
    if (which == SQ_PRODUCERS || !sq_load32(&header->leases.disordered)) return SQ_OK;
    const sq_map *map = ring->map;
    uint64_t at = position, frontier = sq_load64(&header->leases.frontier);
    uint32_t left = sq_units(frontier) - sq_units(at), leased = 0, taken = 0;
    if (left > map->capacity) { /* killed between moving head and ending the disorder, long ago: frontier is behind */
        return sq_poison(ring, "leases.frontier", offsetof(sq_header, leases.frontier), frontier, at);
    }
    for (sq_seen seen; left; left -= seen.units, at = sq_advance(at, seen.units, 1)) {
        int status = sq_see(ring, map, at, left, &seen);
        if (status) return status;
        leased += SQ_LEASE_PHASE(seen.lease) == SQ_LEASED;
        taken += SQ_LEASE_PHASE(seen.lease) == SQ_TAKEN;
    }
    sq_store32(&header->leases.leased, leased);
    sq_store32(&header->leases.taken, taken);
    sq_store64(&header->leases.cursor, position);
    return sq_settle(ring, map);
}

SQ_HOT void sq_leave(sq_ring *ring, enum sq_which which) {
    /* With a role there is no lock to free; who moved a position has made the full fence (F1) with it. */
    if (__builtin_expect(!(ring->mode & sq_role_bit(which)), 1)) sq_lock_free(&sq_side_of(ring, which)->lock);
}

/* The lock is not free, or its last owner died, or the ring was resized. */
static __attribute__((noinline)) int sq_take_lock_slow(sq_ring *ring, enum sq_which which, enum sq_lock_result result,
                                                       bool wait) {
    sq_side *side = sq_side_of(ring, which);
    if (result == SQ_LOCK_BUSY) {
        if (!wait) return SQ_BUSY;
        result = sq_lock_wait(&side->lock, SQ_FOREVER, ring->device, ring->inode);
        if (result == SQ_LOCK_BUSY) return SQ_AGAIN;
    }
    int status = SQ_OK;
    if (sq_load64(&ring->header->control.geometry) != ring->map->word) status = sq_remap(ring);
    if (status) { /* without the mapping nothing can be repaired: that stays for the next owner */
        sq_lock_leave(&side->lock, result == SQ_LOCK_INHERITED ? FUTEX_OWNER_DIED : 0);
        return status;
    }
    /* Where a role replaces the lock, its holder may be at work: only who takes the role over may repair. */
    if (result == SQ_LOCK_INHERITED && !(ring->mode & sq_role_bit(which))) status = sq_recover(ring, which);
    if (status) sq_lock_free(&side->lock);
    return status;
}

/* The lock itself, also on a ring with single roles. `wait`: up to one slice (without the GIL). */
SQ_HOT int sq_take_lock(sq_ring *ring, enum sq_which which, bool wait) {
    enum sq_lock_result result = sq_lock_try(&sq_side_of(ring, which)->lock);
#ifdef SQ_PLANT_REMAP_FORGOTTEN
    if (result == SQ_LOCK_TAKEN) return SQ_OK;
#endif
    if (__builtin_expect(result == SQ_LOCK_TAKEN && sq_load64(&ring->header->control.geometry) == ring->map->word, 1))
        return SQ_OK;
    return sq_take_lock_slow(ring, which, result, wait);
}

static int sq_claim_role(sq_ring *ring, enum sq_which which, bool wait);

/* Enters one side: with its lock, or with the role that makes the lock unnecessary. */
SQ_HOT int sq_enter(sq_ring *ring, enum sq_which which, bool wait) {
    if (__builtin_expect(!(ring->mode & sq_role_bit(which)), 1)) return sq_take_lock(ring, which, wait);
    if (__builtin_expect(!(ring->roles & sq_role_bit(which)) || ring->forks != sq_forks, 0)) {
        int status = sq_claim_role(ring, which, wait);
        if (status) return status;
    }
    return SQ_OK; /* resize is refused with single roles, so the mapping is still the right one */
}

/* Where the next READY record can be, when head was there: a moment's estimate. */
static inline uint64_t sq_next_position(sq_header *header, uint64_t head) {
    return __builtin_expect(sq_load32(&header->leases.disordered) != 0, 0) ? sq_load64(&header->leases.cursor) : head;
}

/* Items between head and tail, without those that are taken but cannot be passed yet because an older one is leased: what
 * max_items bounds. May be too many for a moment, never too few: what is taken is read after head, and grows before head
 * moves over it. */
static inline uint32_t sq_live_items(sq_header *header, uint64_t head, uint64_t tail) {
    uint32_t items = sq_items(tail) - sq_items(head);
    if (__builtin_expect(!sq_load_acquire32(&header->leases.disordered), 1)) return items;
    uint32_t taken = sq_load_acquire32(&header->leases.taken);
    return taken <= items ? items - taken : items;
}

/* Whether the record with that sequence carries an extension: one more unit. */
SQ_HOT bool sq_is_extended(sq_ring *ring, uint32_t sequence) {
    return (sequence & (SQ_SAMPLE_EVERY - 1)) == 0 || (ring->mode & SQ_MODE_CHECKSUM);
}

/* `plain_units`: of the record to put, without the extension that it may need where it comes to lie. */
static inline bool sq_worth_trying(sq_ring *ring, enum sq_which which, uint32_t plain_units) {
    sq_header *header = ring->header;
    uint32_t state = sq_load32(&header->control.state);
    uint64_t tail = sq_load_acquire64(&header->tail), head = sq_load_acquire64(&header->head);
    if (state & (SQ_STATE_POISONED | SQ_STATE_IMMEDIATE) || sq_load32(&ring->broken)) return true;
    if (which == SQ_CONSUMERS) /* of one look at head: with two, the last item could leave in between, and no end be seen */
        return sq_units(tail) != sq_units(sq_next_position(header, head)) || ((state & SQ_STATE_SHUTDOWN) && tail == head);
    uint64_t units = (uint64_t)plain_units + sq_is_extended(ring, sq_items(tail));
    return state != 0 || (sq_units(tail) - sq_units(head) + units <= ring->map->capacity &&
                          sq_live_items(header, head, tail) < ring->max_items) ||
           sq_load64(&header->control.geometry) != ring->map->word;
}

/* About 40 pauses: what a busy partner needs to answer. Comes before a wait and is no part of it, because it may be called
 * with the GIL: giving that up takes longer. */
static inline bool sq_spin(sq_ring *ring, enum sq_which which, uint32_t plain_units) {
    for (int turn = 0; turn < 40; turn++) {
        if (sq_worth_trying(ring, which, plain_units)) return true;
        sq_pause();
    }
    return false;
}

#define SQ_YIELDING_NS 50000ull
#define SQ_SHORT_WAIT_NS 200000ull /* a sleep and a wake-up on each side, with a neighbour on the core */

/* Waits until an operation is worth trying again. SQ_OK: try. SQ_AGAIN: a slice ended or a signal came.
 * SQ_EMPTY/SQ_FULL: the deadline passed. Without the GIL. */
static int sq_wait_turn(sq_ring *ring, enum sq_which which, uint32_t plain_units, uint64_t deadline_ns) {
    sq_event *event = which == SQ_PRODUCERS ? &ring->header->not_full : &ring->header->not_empty;
    if (sq_worth_trying(ring, which, plain_units)) return SQ_OK;
    uint64_t start = sq_now_ns();
    if (start >= deadline_ns) return which == SQ_PRODUCERS ? SQ_FULL : SQ_EMPTY;
    int status = SQ_AGAIN;
    sq_word32 *budget = &ring->yields[which];
    for (uint32_t turn = 0, turns = sq_load32(budget); turn < turns && status == SQ_AGAIN; turn++) {
        sched_yield(); /* the partner may want this core */
        if (sq_worth_trying(ring, which, plain_units)) status = SQ_OK;
        else if (sq_now_ns() - start > SQ_YIELDING_NS) break; /* others want it: each turn may cost their whole slice */
    }
    if (status == SQ_AGAIN) {
        uint32_t key = sq_event_announce(event, true);
        if (sq_worth_trying(ring, which, plain_units)) {
            status = SQ_OK;
        } else {
            uint64_t slice_end = start + SQ_SLICE_NS;
            sq_event_sleep(event, key, slice_end < deadline_ns ? slice_end : deadline_ns);
            if (sq_worth_trying(ring, which, plain_units)) status = SQ_OK;
        }
    }
    uint64_t waited = sq_now_ns() - start;
    /* Yielding pays when the wait is short, whether or not it was long enough this time: two partners who put each other to
     * sleep would otherwise never find back. A long wait: try fewer next time. */
    uint32_t turns = sq_load32(budget);
    sq_store32(budget, status == SQ_OK && waited < SQ_SHORT_WAIT_NS ? SQ_YIELDS : turns > 1 ? turns / 2 : 1);
    sq_side *side = sq_side_of(ring, which);
    sq_add64(&side->blocked_ns, waited);
    sq_add64(&side->blocked, 1);
    return status;
}

#endif
