/* Leases: a record is read in place and leaves the ring only when its holder says so.
 *
 *   READY --lease--> LEASED --ack--> TAKEN --head passes--> (gone)
 *     ^                |
 *     +---- nack, or the holder's death: attempt + 1 ----+
 *
 * One store of the record's lease word is each arrow, and that word names the holder: there is no moment in which a
 * record is claimed by nobody. Everything else (counters, cursor, frontier) can be counted again from the words, and
 * recover() does so. All of it happens under the consumers' lock.
 */
#ifndef SAGE_RING_LEASE_H
#define SAGE_RING_LEASE_H

#include "ring_party.h"

/* Finds the next record; the handle has a slot for what it leases from then on. */
static inline int sq_find_to_lease(sq_reader *reader, sq_record *record) {
    int status = sq_read_next(reader, record);
    return !status && !reader->ring->slot ? sq_register(reader->ring) : status;
}

/* Leases the record that was found last. */
static inline void sq_mark_leased(sq_reader *reader, sq_record *record) {
    sq_ring *ring = reader->ring;
    sq_leases *leases = &ring->header->leases;
    uint64_t end = sq_advance(record->position, record->units, 1);
#ifdef SQ_PLANT_LEASE_BEFORE_DISORDER
    sq_store_release32(&record->at->lease, SQ_LEASE(SQ_LEASED, SQ_LEASE_ATTEMPT(record->lease), ring->slot - 1));
    sq_crash_fence();
#endif
    sq_disorder(ring->header, end);
    reader->disordered = true;
    record->lease = SQ_LEASE(SQ_LEASED, SQ_LEASE_ATTEMPT(record->lease), ring->slot - 1);
    sq_store_release32(&record->at->lease, record->lease);
    SQ_POINT(lease_marked);
    sq_store32(&leases->leased, sq_load32(&leases->leased) + 1);
    SQ_POINT(lease_counted);
    if (record->stamp_ns) sq_note_latency(ring->header, record->stamp_ns);
    reader->at = end;
}

/* Leases the next record. `wait`: for the lock, at most one slice; never for a record. */
static inline int sq_lease(sq_ring *ring, bool wait, sq_record *record) {
    sq_reader reader;
    int status = sq_read_begin(ring, &reader, wait);
    if (status) return status;
    sq_notice_fork(ring);
    status = sq_find_to_lease(&reader, record);
    if (!status && !sq_intact(ring, record, record->data)) {
        status = SQ_CHECKSUM;
        sq_read_take(&reader, record);
    }
    if (!status) sq_mark_leased(&reader, record);
    int ended = sq_read_end(&reader);
    if (status == SQ_NO_SLOT) return sq_make_slot(ring, wait);
    return status ? status : ended;
}

/* Leases up to `room` records of `bytes` together, in one turn, as far as that needs no waiting. Ends before one that
 * sq_lease() has more to do with, spilled or damaged: *count may be 0 then. */
static inline int sq_lease_many(sq_ring *ring, sq_record *records, uint32_t room, uint64_t bytes, uint32_t *count) {
    sq_reader reader;
    *count = 0;
    int status = sq_read_begin(ring, &reader, false);
    if (status) return status;
    sq_notice_fork(ring);
    while (*count < room) {
        sq_record *record = &records[*count];
        status = sq_find_to_lease(&reader, record);
        if (status || record->flags & SQ_RECORD_SPILLED || record->length > bytes) break;
        if (!sq_intact(ring, record, record->data)) break;
        sq_mark_leased(&reader, record);
        bytes -= record->length;
        ++*count;
    }
    int ended = sq_read_end(&reader);
    if (ended || *count) return ended;
    return status == SQ_NO_SLOT ? sq_make_slot(ring, false) : status;
}

static inline int sq_lease_wait(sq_ring *ring, sq_record *record, uint64_t deadline_ns) {
    for (;;) {
        int status = sq_lease(ring, true, record);
        if (status == SQ_EMPTY) {
            if (sq_reap(ring, true) == SQ_OK) continue;
            status = sq_wait_turn(ring, SQ_CONSUMERS, 0, deadline_ns);
            if (status == SQ_OK) continue;
        } else if (status == SQ_AGAIN && sq_now_ns() >= deadline_ns) {
            status = SQ_EMPTY;
        }
        return status;
    }
}

/* Is the lease still ours? Under the consumers' lock. */
static inline int sq_lease_held(sq_ring *ring, const sq_record *record, sq_seen *seen) {
    sq_header *header = ring->header;
    uint64_t head = sq_load64(&header->head), frontier = sq_load64(&header->leases.frontier);
    sq_notice_fork(ring);
    uint32_t left = sq_units(frontier) - sq_units(record->position);
    if (!ring->slot || SQ_LEASE_SLOT(record->lease) != ring->slot - 1 || !sq_load32(&header->leases.disordered) ||
        !sq_before(record->position, frontier, head))
        return SQ_FENCED;
    if (left > ring->map->capacity)
        return sq_poison(ring, "leases.frontier", offsetof(sq_header, leases.frontier), frontier, head);
    sq_record_header *at = sq_record_at(ring->map, record->position);
#ifdef SQ_PLANT_FENCE_FORGOTTEN
    return sq_see(ring, ring->map, record->position, left, seen);
#endif
    if (sq_load_acquire32(&at->lease) != record->lease || *(volatile uint32_t *)&at->sequence != sq_items(record->position))
        return SQ_FENCED;
    return sq_see(ring, ring->map, record->position, left, seen);
}

/* Done with it: head may pass it. Under the consumers' lock, and sq_settle() must follow. */
static inline void sq_mark_taken(sq_ring *ring, const sq_seen *seen) {
    sq_header *header = ring->header;
    sq_store_release32(&seen->at->lease, SQ_LEASE(SQ_TAKEN, SQ_LEASE_ATTEMPT(seen->lease), 0));
    SQ_POINT(ack_marked);
    sq_store32(&header->leases.taken, sq_load32(&header->leases.taken) + 1);
    sq_store32(&header->leases.leased, sq_load32(&header->leases.leased) - 1);
    sq_store64(&header->consumers.bytes, sq_load64(&header->consumers.bytes) + seen->length);
}

/* Done with it: it leaves the ring. SQ_FENCED: it was given to somebody else. */
static inline int sq_ack(sq_ring *ring, bool wait, const sq_record *record) {
    sq_header *header = ring->header;
    int status = sq_enter(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    sq_seen seen;
    uint32_t freed = 0;
    status = sq_lease_held(ring, record, &seen);
    if (!status) {
        uint32_t start = sq_items(sq_load64(&header->head));
        sq_mark_taken(ring, &seen);
        status = sq_settle(ring, ring->map);
        freed = sq_items(sq_load64(&header->head)) - start;
        if (!freed) freed = 1; /* room in max_items, if not in bytes */
    }
    sq_leave(ring, SQ_CONSUMERS);
    if (freed) sq_wake_after_settling(header, freed);
    return status;
}

/* Back to READY, for whoever comes next. Under the consumers' lock. */
static inline void sq_give_back(sq_ring *ring, uint64_t position, sq_record_header *at, uint32_t lease) {
    sq_leases *leases = &ring->header->leases;
    uint32_t attempt = SQ_LEASE_ATTEMPT(lease);
    /* The cursor first: too low costs a few steps, too high would lose the record. */
#ifndef SQ_PLANT_CURSOR_FORGOTTEN
    if (sq_before(position, sq_load64(&leases->cursor), sq_load64(&ring->header->head))) sq_store64(&leases->cursor, position);
#endif
    sq_crash_fence();
    SQ_POINT(nack_cursor);
#ifdef SQ_PLANT_NACK_FORGETS_ATTEMPT
    sq_store_release32(&at->lease, SQ_LEASE(SQ_READY, 0, 0));
#else
    sq_store_release32(&at->lease, SQ_LEASE(SQ_READY, attempt < 255 ? attempt + 1 : 255, 0));
#endif
    SQ_POINT(nack_marked);
    sq_store32(&leases->leased, sq_load32(&leases->leased) - 1);
    sq_store64(&ring->header->consumers.spills, sq_load64(&ring->header->consumers.spills) + 1);
}

/* Gives it back, marked as redelivered; it comes before everything younger. */
static inline int sq_nack(sq_ring *ring, bool wait, const sq_record *record) {
    int status = sq_enter(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    sq_seen seen;
    status = sq_lease_held(ring, record, &seen);
    if (!status) sq_give_back(ring, record->position, seen.at, seen.lease);
    sq_leave(ring, SQ_CONSUMERS);
    if (!status) sq_event_wake(&ring->header->not_empty, 1);
    return status;
}

/* Settles many in one turn: the first `acked` leave the ring, the others come back. *fenced counts those that were given
 * to somebody else; all others are settled. */
static inline int sq_settle_many(sq_ring *ring, bool wait, const sq_record *records, uint32_t count, uint32_t acked,
                                 uint32_t *fenced) {
    sq_header *header = ring->header;
    *fenced = 0;
    int status = sq_enter(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    uint32_t start = sq_items(sq_load64(&header->head)), taken = 0, returned = 0;
    for (uint32_t at = 0; at < count && !status; at++) {
        sq_seen seen;
        status = sq_lease_held(ring, &records[at], &seen);
        if (status == SQ_FENCED) {
            ++*fenced;
            status = SQ_OK;
        } else if (!status && at < acked) {
            sq_mark_taken(ring, &seen);
            taken++;
        } else if (!status) {
            sq_give_back(ring, records[at].position, seen.at, seen.lease);
            returned++;
        }
    }
    if (taken && !status) status = sq_settle(ring, ring->map);
    uint32_t freed = sq_items(sq_load64(&header->head)) - start;
    sq_leave(ring, SQ_CONSUMERS);
    if (taken) sq_wake_after_settling(header, freed > taken ? freed : taken); /* room in max_items, if not in bytes */
    if (returned) sq_event_wake(&header->not_empty, returned);
    return status;
}

/* Gives back every lease of the slots marked in `gone`. Under the consumers' lock. */
static inline int sq_give_back_of(sq_ring *ring, const bool gone[SQ_PARTICIPANTS], uint32_t *returned) {
    sq_header *header = ring->header;
    *returned = 0;
    if (!sq_load32(&header->leases.disordered)) return SQ_OK;
    uint64_t at = sq_load64(&header->head), frontier = sq_load64(&header->leases.frontier);
    uint32_t left = sq_units(frontier) - sq_units(at);
    if (left > ring->map->capacity)
        return sq_poison(ring, "leases.frontier", offsetof(sq_header, leases.frontier), frontier, at);
    for (sq_seen seen; left; left -= seen.units, at = sq_advance(at, seen.units, 1)) {
        int status = sq_see(ring, ring->map, at, left, &seen);
        if (status) return status;
        uint32_t slot = SQ_LEASE_SLOT(seen.lease);
        if (SQ_LEASE_PHASE(seen.lease) != SQ_LEASED) continue;
        if (slot >= SQ_PARTICIPANTS)
            return sq_poison(ring, "record.lease", sq_offset_of(ring->map, seen.at), seen.lease, SQ_PARTICIPANTS);
        if (!gone[slot]) continue;
        sq_give_back(ring, at, seen.at, seen.lease);
        SQ_POINT(sweep_returned);
        ++*returned;
    }
    return SQ_OK;
}

static inline bool sq_may_sweep(sq_ring *ring) {
    return !(ring->mode & SQ_MODE_SINGLE_CONSUMER) || ((ring->roles & SQ_MODE_SINGLE_CONSUMER) && ring->forks == sq_forks);
}

/* A single consumer is the only one who may hold leases: whoever takes the role over gives back all that are not its
 * own, whatever became of the slots they name. Under the consumers' lock. */
static __attribute__((noinline, cold)) int sq_give_back_others(sq_ring *ring) {
    bool gone[SQ_PARTICIPANTS];
    uint32_t returned;
    memset(gone, true, sizeof gone);
    return sq_give_back_of(ring, gone, &returned); /* nobody else may take them, so there is nobody to wake */
}

/* Gives back what dead parties hold and frees their slots; *freed says how many. Looks for them without the lock; acts
 * under it, and only on slots that did not change in between. May die anywhere and be run again. */
static __attribute__((noinline)) int sq_sweep_count(sq_ring *ring, bool wait, uint32_t *freed) {
    sq_header *header = ring->header;
    *freed = 0;
    bool gone[SQ_PARTICIPANTS] = {false};
    uint32_t epochs[SQ_PARTICIPANTS], found = 0, returned = 0;
    uint32_t used = sq_load32(&header->control.participants_used), own = (uint32_t)getpid();
#ifdef SQ_PLANT_NO_SWEEP
    return SQ_OK;
#endif
    if (used > SQ_PARTICIPANTS) used = SQ_PARTICIPANTS;
    for (uint32_t slot = 0; slot < used; slot++) {
        sq_participant *party = &header->participants[slot];
        /* The epoch first: with the epoch of a new party, the process id of an old one could not be read any more. */
        epochs[slot] = sq_load_acquire32(&party->epoch);
        uint32_t pid = sq_load_acquire32(&party->pid);
        if (pid && (pid != own || !sq_load64(&party->start_ticks)) && sq_party_gone(ring, slot)) gone[slot] = true, found++;
    }
    if (!found) return SQ_OK;
    int status = sq_take_lock(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    for (uint32_t slot = 0; slot < used; slot++) {
        sq_participant *party = &header->participants[slot];
#ifndef SQ_PLANT_SLOT_EPOCH_IGNORED
        if (gone[slot] && (sq_load32(&party->epoch) != epochs[slot] || !sq_load32(&party->pid))) gone[slot] = false;
#endif
    }
#ifdef SQ_PLANT_SLOT_FREED_FIRST
    for (uint32_t slot = 0; slot < used; slot++) {
        if (gone[slot]) sq_store_release32(&header->participants[slot].pid, 0);
    }
    SQ_POINT(sweep_freed);
#endif
    /* The leases of a single consumer are given back by whoever takes its role over. */
    if (sq_may_sweep(ring)) status = sq_give_back_of(ring, gone, &returned);
    for (uint32_t slot = 0; slot < used && !status; slot++) {
        if (!gone[slot]) continue;
        /* Whoever takes a role over replaces the word; only then may the slot go. */
        if (sq_load32(&header->control.producer_role) == slot + 1 || sq_load32(&header->control.consumer_role) == slot + 1)
            continue;
        sq_store_release32(&header->participants[slot].pid, 0);
        SQ_POINT(sweep_freed);
        ++*freed;
    }
    sq_lock_free(&header->consumers.lock);
    if (returned) sq_event_wake(&header->not_empty, returned);
    return status;
}
static int sq_sweep(sq_ring *ring, bool wait) {
    uint32_t freed;
    return sq_sweep_count(ring, wait, &freed);
}

/* No slot was free. SQ_AGAIN: one is now. */
static int sq_make_slot(sq_ring *ring, bool wait) {
    uint32_t freed;
    int status = sq_sweep_count(ring, wait, &freed);
    if (status) return status;
    return freed ? SQ_AGAIN : SQ_NO_SLOT;
}

/* The handle is about to go: its leases, roles and slot are given back, with the lock if that can be had within a slice,
 * else by whoever sweeps next. */
static inline void sq_detach(sq_ring *ring) {
    if (!ring->slot || ring->forks != sq_forks || sq_load32(&ring->broken)) return;
    sq_participant *party = &ring->header->participants[ring->slot - 1];
    bool gone[SQ_PARTICIPANTS] = {false};
    uint32_t returned = 0;
    gone[ring->slot - 1] = true;
    bool may_sweep = sq_may_sweep(ring);
    if (may_sweep && sq_take_lock(ring, SQ_CONSUMERS, true) == SQ_OK) {
        (void)sq_give_back_of(ring, gone, &returned); /* a damaged ring is poisoned by now: nothing is left to give */
        sq_lock_free(&ring->header->consumers.lock);
        if (returned) sq_event_wake(&ring->header->not_empty, returned);
    }
    sq_store64(&party->start_ticks, 0);
    sq_give_up_role(ring, SQ_PRODUCERS);
    sq_give_up_role(ring, SQ_CONSUMERS);
    ring->slot = 0;
    (void)sq_sweep(ring, true); /* frees the slot, now marked; busy: the next one does */
}

#endif
