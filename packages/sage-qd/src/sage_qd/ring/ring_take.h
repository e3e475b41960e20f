/* Taking records: find, copy, release. One release store of `head` takes any number of them, as long as no record is
 * leased; while one is (`disordered`), each record is taken by a store to its own lease word, and head follows. */
#ifndef SAGE_RING_TAKE_H
#define SAGE_RING_TAKE_H

#include "ring_side.h"

/* A record found; `data` points into the ring and is good until the consumers' side is left, or as long as it is leased. */
typedef struct {
    const uint8_t *data;
    sq_record_header *at;
    uint64_t position;
    uint64_t stamp_ns; /* 0: not sampled */
    uint32_t length, units, lease;
    uint32_t crc32c;
    uint8_t tag, flags;
} sq_record;

/* A consumer's turn: between sq_read_begin() and sq_read_end() it holds the consumers' side. */
typedef struct {
    sq_ring *ring;
    sq_map *map;
    uint64_t tail; /* as last seen */
    uint64_t at;   /* where the next record may start */
    uint64_t bytes;
    uint32_t items;
    bool disordered;
} sq_reader;

static int sq_sweep(sq_ring *ring, bool wait);

/* Records that dead parties hold come back before anything younger is taken. Looks at most every 10 ms, and less often
 * where there are so many parties that looking at all of them takes long. SQ_OK: some came back. SQ_AGAIN: there may be
 * some, and the lock could not be had within a slice; who waits for another one would come back too late. */
static __attribute__((noinline)) int sq_reap(sq_ring *ring, bool wait) {
    sq_leases *leases = &ring->header->leases;
    if (!sq_load32(&leases->disordered) || !sq_load32(&leases->leased)) return SQ_EMPTY;
    uint64_t start = sq_now_ns();
    if (start < sq_load64(&ring->next_sweep_ns)) return SQ_EMPTY;
    sq_store64(&ring->next_sweep_ns, start + 10000000ull);
    uint32_t before = sq_load32(&leases->leased);
    int status = sq_sweep(ring, wait);
    if (status == SQ_AGAIN) {
        sq_store64(&ring->next_sweep_ns, start);
        return SQ_AGAIN;
    }
    uint64_t cost = sq_now_ns() - start;
    if (cost > 200000ull) sq_store64(&ring->next_sweep_ns, start + 50 * cost);
    return status == SQ_OK && sq_load32(&leases->leased) < before ? SQ_OK : SQ_EMPTY;
}

SQ_HOT int sq_read_begin(sq_ring *ring, sq_reader *reader, bool wait) {
    sq_header *header = ring->header;
    if (__builtin_expect(sq_load32(&header->leases.disordered), 0) && sq_reap(ring, wait) == SQ_AGAIN) return SQ_AGAIN;
    int status = sq_enter(ring, SQ_CONSUMERS, wait);
    if (__builtin_expect(status, 0)) return status;
    uint32_t state = sq_load32(&header->control.state);
    if (__builtin_expect(state & (SQ_STATE_POISONED | SQ_STATE_IMMEDIATE), 0)) {
        sq_leave(ring, SQ_CONSUMERS);
        return state & SQ_STATE_POISONED ? sq_poisoned(ring) : SQ_SHUTDOWN;
    }
    reader->ring = ring;
    reader->map = ring->map;
    reader->tail = sq_load64(&header->consumers.other_cache);
    reader->disordered = sq_load32(&header->leases.disordered) != 0;
    reader->at = reader->disordered ? sq_load64(&header->leases.cursor) : sq_load64(&header->head);
    reader->bytes = 0;
    reader->items = 0;
    if (__builtin_expect(reader->disordered, 0)) {
        uint32_t head = sq_units(sq_load64(&header->head));
        if (sq_units(reader->at) - head > sq_units(reader->tail) - head) {
            sq_leave(ring, SQ_CONSUMERS);
            return sq_poison(ring, "leases.cursor", offsetof(sq_header, leases.cursor), reader->at, head);
        }
    }
    return SQ_OK;
}

/* Nothing between `at` and the tail last seen: look at the tail itself. */
SQ_HOT int sq_read_look_again(sq_reader *reader) {
    sq_header *header = reader->ring->header;
#ifdef SQ_PLANT_TAIL_BEFORE_STATE
    uint64_t seen_tail = sq_load_acquire64(&header->tail);
    uint32_t state = sq_load32(&header->control.state);
    uint64_t tail = seen_tail;
#else
    /* The state first: a producer that is let in publishes before shutdown is set, so a tail read after it is final. */
    uint32_t state = sq_load_acquire32(&header->control.state);
    uint64_t tail = sq_load_acquire64(&header->tail); /* R1: pairs with W1 */
#endif
    uint64_t head = sq_load64(&header->head);
    uint32_t used = sq_units(tail) - sq_units(head), left = sq_units(tail) - sq_units(reader->at);
    if (used > reader->map->capacity)
        return sq_poison(reader->ring, "tail", offsetof(sq_header, tail), used, reader->map->capacity);
    if (left > used)
        return sq_poison(reader->ring, "leases.cursor", offsetof(sq_header, leases.cursor), reader->at, tail);
    reader->tail = tail;
    sq_store64(&header->consumers.other_cache, tail);
    if (left) return SQ_OK;
    if (sq_items(reader->at) != sq_items(tail))
        return sq_poison(reader->ring, "tail", offsetof(sq_header, tail), tail, reader->at);
    return (state & SQ_STATE_SHUTDOWN) && tail == head ? SQ_SHUTDOWN : SQ_EMPTY;
}

/* Finds the next record that nobody holds. Does not take it. */
SQ_HOT int sq_read_next(sq_reader *reader, sq_record *record) {
    for (;;) {
        uint32_t available = sq_units(reader->tail) - sq_units(reader->at);
        if (__builtin_expect(available - 1 >= reader->map->capacity, 0)) { /* nothing, or an unbelievable amount */
            int status = sq_read_look_again(reader);
            if (status) return status;
            available = sq_units(reader->tail) - sq_units(reader->at);
        }
        sq_seen seen;
        int status = sq_see(reader->ring, reader->map, reader->at, available, &seen);
        if (__builtin_expect(status, 0)) return status;
        if (__builtin_expect(SQ_LEASE_PHASE(seen.lease) != SQ_READY, 0)) {
            if (!reader->disordered)
                return sq_poison(reader->ring, "record.lease", sq_offset_of(reader->map, seen.at), seen.lease, SQ_READY);
            reader->at = sq_advance(reader->at, seen.units, 1);
            continue;
        }
        const uint8_t *data = (const uint8_t *)(seen.at + 1);
        record->stamp_ns = 0;
        if (seen.flags & SQ_RECORD_EXTENDED) {
            const volatile sq_record_extension *extension = (const volatile sq_record_extension *)data;
            record->stamp_ns = extension->stamp_ns;
            record->crc32c = extension->crc32c;
            data += sizeof *extension;
        }
        record->data = data;
        record->at = seen.at;
        record->position = reader->at;
        record->length = seen.length;
        record->units = seen.units;
        record->lease = seen.lease;
        record->tag = seen.tag;
        record->flags = seen.flags;
        SQ_POINT(take_found);
        return SQ_OK;
    }
}

/* Log-linear: eight buckets to each power of two of nanoseconds. */
static inline uint32_t sq_histogram_bucket(uint64_t ns) {
    if (ns < 8) return (uint32_t)ns;
    uint32_t log2 = 63 - (uint32_t)__builtin_clzll(ns);
    uint32_t bucket = (log2 - 2) * 8 + (uint32_t)((ns >> (log2 - 3)) & 7);
    return bucket < SQ_HISTOGRAM_BUCKETS ? bucket : SQ_HISTOGRAM_BUCKETS - 1;
}

static __attribute__((noinline)) void sq_note_latency(sq_header *header, uint64_t stamp_ns) {
    uint64_t now = sq_now_ns();
    sq_word64 *bucket = &header->histogram[sq_histogram_bucket(now > stamp_ns ? now - stamp_ns : 0)];
    sq_store64(bucket, sq_load64(bucket) + 1);
}

static inline bool sq_before(uint64_t position, uint64_t limit, uint64_t origin) {
    return sq_units(position) - sq_units(origin) < sq_units(limit) - sq_units(origin);
}

/* Records may now be in other phases than READY, up to and including the one that ends at `end`. The order of the stores
 * is what recover() counts on. */
static inline void sq_disorder(sq_header *header, uint64_t end) {
    sq_leases *leases = &header->leases;
    if (!sq_load32(&leases->disordered)) {
        sq_store64(&leases->frontier, end);
        sq_store64(&leases->cursor, sq_load64(&header->head));
        sq_store32(&leases->leased, 0);
        sq_store32(&leases->taken, 0);
        sq_crash_fence();
        SQ_POINT(lease_frontier);
        sq_store_release32(&leases->disordered, 1);
        sq_crash_fence();
        SQ_POINT(lease_disordered);
#ifndef SQ_PLANT_FRONTIER_FORGOTTEN
    } else if (sq_before(sq_load64(&leases->frontier), end, sq_load64(&header->head))) {
#else
    } else if (false) {
#endif
        sq_store64(&leases->frontier, end);
        sq_crash_fence();
        SQ_POINT(lease_frontier);
    }
}

/* The record's bytes were copied out (or are not wanted): it leaves the ring at the latest with sq_read_end(). */
SQ_HOT void sq_read_take(sq_reader *reader, const sq_record *record) {
    sq_header *header = reader->ring->header;
    uint64_t end = sq_advance(record->position, record->units, 1);
    SQ_POINT(take_copied);
    if (__builtin_expect(reader->disordered, 0)) {
        sq_disorder(header, end);
        sq_store_release32(&record->at->lease, SQ_LEASE(SQ_TAKEN, SQ_LEASE_ATTEMPT(record->lease), 0));
        SQ_POINT(take_marked);
        sq_store32(&header->leases.taken, sq_load32(&header->leases.taken) + 1);
    }
    if (__builtin_expect(record->stamp_ns != 0, 0)) sq_note_latency(header, record->stamp_ns);
    reader->at = end;
    reader->bytes += record->length;
    reader->items++;
}

/* Wakes producers, for room; and, when the last item left a ring that was shut down, consumers: they wait as long as a
 * lease may come back. */
SQ_HOT void sq_wake_after_settling(sq_header *header, uint32_t freed) {
    sq_event_wake(&header->not_full, freed);
    if (__builtin_expect(sq_load32(&header->control.state) != 0, 0) && sq_load64(&header->head) == sq_load64(&header->tail))
        sq_event_wake_all(&header->not_empty);
}

/* Releases what was taken, leaves the consumers' side, wakes producers. */
SQ_HOT int sq_read_end(sq_reader *reader) {
    sq_ring *ring = reader->ring;
    sq_header *header = ring->header;
    int status = SQ_OK;
    uint32_t freed = reader->items;
    if (__builtin_expect(sq_load32(&ring->broken), 0)) {
        sq_leave(ring, SQ_CONSUMERS);
        return sq_poisoned(ring);
    }
    if (__builtin_expect(reader->disordered, 0)) {
        uint32_t start = sq_items(sq_load64(&header->head));
        sq_store64(&header->leases.cursor, reader->at);
        status = sq_settle(ring, reader->map);
        freed = sq_items(sq_load64(&header->head)) - start;
        if (freed < reader->items) freed = reader->items; /* room in max_items, if not in bytes */
        if (reader->items) sq_store64(&header->consumers.bytes, sq_load64(&header->consumers.bytes) + reader->bytes);
    } else if (reader->items) {
#ifdef SQ_PLANT_RELAXED_RELEASE
        sq_store64(&header->head, reader->at);
#else
        if (__builtin_expect(ring->mode & SQ_MODE_SINGLE_CONSUMER, 0))
            sq_exchange_full64(&header->head, reader->at); /* W2, and F1 where no lock is freed */
        else
            sq_store_release64(&header->head, reader->at); /* W2 */
#endif
        SQ_POINT(take_released);
        sq_store64(&header->consumers.count, sq_load64(&header->consumers.count) + reader->items);
        sq_store64(&header->consumers.bytes, sq_load64(&header->consumers.bytes) + reader->bytes);
    }
    sq_leave(ring, SQ_CONSUMERS);
    SQ_POINT(take_unlocked);
    if (__builtin_expect(freed && reader->disordered, 0)) sq_wake_after_settling(header, freed);
    else if (freed) sq_event_wake(&header->not_full, freed);
    return status;
}

SQ_HOT bool sq_intact(const sq_ring *ring, const sq_record *record, const void *copy) {
#ifdef SQ_PLANT_CHECKSUM_IGNORED
    return true;
#endif
    if (__builtin_expect(!(ring->mode & SQ_MODE_CHECKSUM), 1)) return true;
    return (record->flags & SQ_RECORD_EXTENDED) && sq_crc32c(copy, record->length) == record->crc32c;
}

/* Copies the next record into the caller's buffer and takes it. SQ_TOO_SMALL: record->length says how much it needs.
 * SQ_CHECKSUM: it is damaged, and was taken. `wait`: for the lock, at most one slice; never for a record. */
static inline int sq_get_once(sq_ring *ring, void *buffer, size_t size, sq_record *record, bool wait, bool take) {
    sq_reader reader;
    int status = sq_read_begin(ring, &reader, wait);
    if (__builtin_expect(status, 0)) return status;
    status = sq_read_next(&reader, record);
    if (__builtin_expect(status == SQ_OK, 1)) {
        if (record->flags & SQ_RECORD_SPILLED) {
            status = SQ_SPILLED_RECORD;
        } else if (record->length > size) {
            status = SQ_TOO_SMALL;
        } else {
#ifdef SQ_PLANT_RELEASE_BEFORE_COPY
            if (!reader.disordered) {
                sq_store_release64(&ring->header->head, sq_advance(record->position, record->units, 1));
                SQ_POINT(take_copied);
            }
#endif
            memcpy(buffer, record->data, record->length);
            if (take) {
                if (!sq_intact(ring, record, buffer)) status = SQ_CHECKSUM;
                sq_read_take(&reader, record);
            }
        }
    }
    int ended = sq_read_end(&reader);
    return ended ? ended : status;
}

static inline int sq_get(sq_ring *ring, void *buffer, size_t size, sq_record *record) {
    return sq_get_once(ring, buffer, size, record, false, true);
}
/* As sq_get(), but the record stays. */
static inline int sq_peek(sq_ring *ring, void *buffer, size_t size, sq_record *record, bool wait) {
    return sq_get_once(ring, buffer, size, record, wait, false);
}

/* Waits for the lock and for a record. SQ_AGAIN: look at signals and call again with the same deadline. Without the GIL. */
static inline int sq_get_wait(sq_ring *ring, void *buffer, size_t size, sq_record *record, uint64_t deadline_ns) {
    for (;;) {
        int status = sq_get_once(ring, buffer, size, record, true, true);
        if (status == SQ_EMPTY) {
            if (sq_reap(ring, true) == SQ_OK) continue;
            status = sq_wait_turn(ring, SQ_CONSUMERS, 0, deadline_ns);
            if (status == SQ_OK) continue;
        } else if (status == SQ_AGAIN && sq_now_ns() >= deadline_ns) {
            status = SQ_EMPTY; /* the lock could not be had: its owner is stopped, or starved of its core */
        }
        return status;
    }
}

#endif
