/* Putting records: reserve, copy, publish. One release store of `tail` publishes any number of them. */
#ifndef SAGE_RING_PUT_H
#define SAGE_RING_PUT_H

#include "ring_side.h"

typedef struct {
    const void *data;
    size_t length;
} sq_part;

/* A producer's turn: between sq_write_begin() and sq_write_end() it holds the producers' side. */
typedef struct {
    sq_ring *ring;
    sq_map *map;
    uint64_t tail; /* where the next record starts; not published yet */
    uint64_t head; /* as last seen */
    uint64_t bytes;
    uint32_t items;
    uint32_t units; /* of the record reserved last */
    uint32_t length;
    uint8_t *payload;
} sq_writer;

static inline uint64_t sq_max_length(sq_ring *ring) { return (uint64_t)ring->map->capacity * SQ_UNIT - 2 * SQ_UNIT; }

SQ_HOT int sq_write_begin(sq_ring *ring, sq_writer *writer, bool wait) {
    int status = sq_enter(ring, SQ_PRODUCERS, wait);
    if (__builtin_expect(status, 0)) return status;
    sq_header *header = ring->header;
    uint32_t state = sq_load32(&header->control.state);
    if (__builtin_expect(state != 0, 0)) {
#ifndef SQ_PLANT_LOCK_KEPT_AT_SHUTDOWN
        sq_leave(ring, SQ_PRODUCERS);
#endif
        return state & SQ_STATE_POISONED ? sq_poisoned(ring) : SQ_SHUTDOWN;
    }
    writer->ring = ring;
    writer->map = ring->map;
    writer->tail = sq_load64(&header->tail);
    writer->head = sq_load64(&header->producers.other_cache);
    writer->bytes = 0;
    writer->items = 0;
    return SQ_OK;
}

/* Is there room? Looks at head again only when it seems not. */
SQ_HOT bool sq_write_fits(sq_writer *writer, uint32_t units) {
    uint64_t used = sq_units(writer->tail) - sq_units(writer->head);
    uint32_t items = sq_items(writer->tail) - sq_items(writer->head);
#ifdef SQ_PLANT_MAX_ITEMS_OFF_BY_ONE
    return used + units <= writer->map->capacity && items <= writer->ring->max_items;
#endif
    return used + units <= writer->map->capacity && items < writer->ring->max_items;
}

SQ_HOT int sq_write_look_again(sq_writer *writer, uint32_t units) {
    sq_header *header = writer->ring->header;
#ifdef SQ_PLANT_HEAD_NOT_LOOKED_UP
    uint64_t head = writer->head;
#else
    uint64_t head = sq_load_acquire64(&header->head); /* R2: pairs with W2 */
#endif
    uint32_t used = sq_units(writer->tail) - sq_units(head);
    if (used > writer->map->capacity)
        return sq_poison(writer->ring, "head", offsetof(sq_header, head), used, writer->map->capacity);
    writer->head = head;
    sq_store64(&header->producers.other_cache, head);
    uint64_t depth = sq_items(writer->tail) - sq_items(head);
    if (depth > sq_load64(&header->producers.high_water)) sq_store64(&header->producers.high_water, depth);
    if (sq_write_fits(writer, units)) return SQ_OK;
    return used + (uint64_t)units <= writer->map->capacity &&
                   sq_live_items(header, head, writer->tail) < writer->ring->max_items
               ? SQ_OK
               : SQ_FULL;
}

/* Makes room for one record and writes its fixed part; the caller fills writer->payload. */
SQ_HOT int sq_write_reserve(sq_writer *writer, uint64_t length, uint8_t tag, uint8_t flags) {
    sq_ring *ring = writer->ring;
    uint32_t sequence = sq_items(writer->tail);
    bool sampled = (sequence & (SQ_SAMPLE_EVERY - 1)) == 0;
    bool extended = sq_is_extended(ring, sequence);
    if (__builtin_expect(length > sq_max_length(ring), 0))
        return sq_fail(&ring->fault, SQ_TOO_LARGE, "length", 0, length, sq_max_length(ring));
    uint32_t units = sq_record_units(length, extended);
    if (__builtin_expect(!sq_write_fits(writer, units) || sampled, 0)) {
        int status = sq_write_look_again(writer, units);
        if (status) return status;
    }
    sq_record_header *at = sq_record_at(writer->map, writer->tail);
    at->length = (uint32_t)length;
    at->sequence = sequence;
    sq_store32(&at->lease, SQ_LEASE(SQ_READY, 0, 0));
    at->tag = tag;
    at->flags = (uint8_t)(flags | (extended ? SQ_RECORD_EXTENDED : 0));
    at->zero = 0;
    uint8_t *payload = (uint8_t *)(at + 1);
    if (__builtin_expect(extended, 0)) {
        sq_record_extension *extension = (sq_record_extension *)payload;
        extension->stamp_ns = sampled ? sq_now_ns() : 0;
        extension->crc32c = 0;
        extension->zero = 0;
        payload += sizeof *extension;
    }
    writer->units = units;
    writer->length = (uint32_t)length;
    writer->payload = payload;
    return SQ_OK;
}

/* The payload is complete: count the record in. Not published before sq_write_end(). */
SQ_HOT void sq_write_next(sq_writer *writer) {
    if (__builtin_expect(writer->ring->mode & SQ_MODE_CHECKSUM, 0))
        ((sq_record_extension *)(writer->payload - SQ_UNIT))->crc32c = sq_crc32c(writer->payload, writer->length);
    SQ_POINT(put_copied);
#ifndef SQ_PLANT_POSITION_CARRY
    writer->tail = sq_advance(writer->tail, writer->units, 1);
#else
    writer->tail += writer->units + (1ull << 32);
#endif
    writer->bytes += writer->length;
    writer->items++;
}

/* Publishes what was counted in, leaves the producers' side, wakes consumers. */
SQ_HOT int sq_write_end(sq_writer *writer) {
    sq_ring *ring = writer->ring;
    sq_header *header = ring->header;
    if (__builtin_expect(sq_load32(&ring->broken), 0)) {
        sq_leave(ring, SQ_PRODUCERS);
        return sq_poisoned(ring);
    }
    /* Only where sq_shutdown() could not have the lock (we were stopped with it, or a role replaces it) can this have
     * changed since sq_write_begin(). Consumers may be gone already: what is published now would never be taken. */
    if (__builtin_expect(sq_load32(&header->control.state) != 0, 0)) {
        writer->items = 0;
        sq_leave(ring, SQ_PRODUCERS);
        return sq_load32(&header->control.state) & SQ_STATE_POISONED ? sq_poisoned(ring) : SQ_SHUTDOWN;
    }
    if (writer->items) {
#ifdef SQ_PLANT_WAKE_BEFORE_PUBLISH
        sq_event_wake(&header->not_empty, writer->items);
#endif
#ifdef SQ_PLANT_RELAXED_PUBLISH
        sq_store64(&header->tail, writer->tail);
#else
#ifndef SQ_PLANT_PUBLISH_UNFENCED
        if (__builtin_expect(ring->mode & SQ_MODE_SINGLE_PRODUCER, 0))
            sq_exchange_full64(&header->tail, writer->tail); /* W1, and F1 where no lock is freed */
        else
#endif
            sq_store_release64(&header->tail, writer->tail); /* W1 */
#endif
        SQ_POINT(put_published);
        sq_store64(&header->producers.count, sq_load64(&header->producers.count) + writer->items);
        sq_store64(&header->producers.bytes, sq_load64(&header->producers.bytes) + writer->bytes);
    }
    sq_leave(ring, SQ_PRODUCERS);
    SQ_POINT(put_unlocked);
    if (writer->items) sq_event_wake(&header->not_empty, writer->items);
    return SQ_OK;
}

/* One record from several buffers. `wait`: for the lock, at most one slice; never for room. */
SQ_HOT int sq_put_once(sq_ring *ring, const sq_part *parts, size_t count, uint64_t length, uint8_t tag, uint8_t flags,
                              bool wait) {
    sq_writer writer;
    int status = sq_write_begin(ring, &writer, wait);
    if (__builtin_expect(status, 0)) return status;
    status = sq_write_reserve(&writer, length, tag, flags);
    if (__builtin_expect(status == SQ_OK, 1)) {
#ifdef SQ_PLANT_COMMIT_BEFORE_COPY
        sq_store_release64(&ring->header->tail, sq_advance(writer.tail, writer.units, 1));
        SQ_POINT(put_copied);
#endif
        uint8_t *to = writer.payload;
        for (size_t part = 0; part < count; part++) {
            memcpy(to, parts[part].data, parts[part].length);
            to += parts[part].length;
        }
        sq_write_next(&writer);
        if (__builtin_expect(flags & SQ_RECORD_SPILLED, 0))
            sq_store64(&ring->header->producers.spills, sq_load64(&ring->header->producers.spills) + 1);
    }
    int ended = sq_write_end(&writer);
    return status ? status : ended;
}

static inline uint64_t sq_parts_length(const sq_part *parts, size_t count) {
    uint64_t length = 0;
    for (size_t part = 0; part < count; part++) length += parts[part].length;
    return length;
}

static inline int sq_put_parts(sq_ring *ring, const sq_part *parts, size_t count, uint8_t tag, uint8_t flags) {
    return sq_put_once(ring, parts, count, sq_parts_length(parts, count), tag, flags, false);
}

SQ_HOT int sq_put(sq_ring *ring, const void *data, size_t length, uint8_t tag) {
    sq_part part = {data, length};
    return sq_put_once(ring, &part, 1, length, tag, 0, false);
}

/* Waits for lock and room. SQ_AGAIN: look at signals and call again with the same deadline. Without the GIL. */
static inline int sq_put_parts_wait(sq_ring *ring, const sq_part *parts, size_t count, uint8_t tag, uint8_t flags,
                                    uint64_t deadline_ns) {
    uint64_t length = sq_parts_length(parts, count);
    for (;;) {
        int status = sq_put_once(ring, parts, count, length, tag, flags, true);
        if (status == SQ_FULL) {
            status = sq_wait_turn(ring, SQ_PRODUCERS, sq_record_units(length, false), deadline_ns);
            if (status == SQ_OK) continue;
        } else if (status == SQ_AGAIN && sq_now_ns() >= deadline_ns) {
            status = SQ_FULL; /* the lock could not be had: its owner is stopped, or starved of its core */
        }
        return status;
    }
}
static inline int sq_put_wait(sq_ring *ring, const void *data, size_t length, uint8_t tag, uint64_t deadline_ns) {
    sq_part part = {data, length};
    return sq_put_parts_wait(ring, &part, 1, tag, 0, deadline_ns);
}

/* As many of `items` as fit, in one publication; *done says how many. SQ_OK: at least one. Nothing is put when any
 * could never fit. */
static inline int sq_put_many(sq_ring *ring, const sq_part *items, size_t count, uint8_t tag, bool wait, size_t *done) {
    *done = 0;
    for (size_t item = 0; item < count; item++)
        if (items[item].length > sq_max_length(ring))
            return sq_fail(&ring->fault, SQ_TOO_LARGE, "length", item, items[item].length, sq_max_length(ring));
    sq_writer writer;
    int status = sq_write_begin(ring, &writer, wait);
    if (status) return status;
    for (size_t item = 0; item < count && status == SQ_OK; item++) {
        status = sq_write_reserve(&writer, items[item].length, tag, 0);
        if (status) break;
        memcpy(writer.payload, items[item].data, items[item].length);
        sq_write_next(&writer);
    }
    int ended = sq_write_end(&writer);
    if (ended) return ended;
    *done = writer.items;
    return writer.items ? SQ_OK : status;
}

#endif
