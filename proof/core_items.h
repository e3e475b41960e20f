/* Tests of putting and taking: bytes, bounds, wraps, batches, clear, shutdown, resize, checksums. */
#ifndef SAGE_PROOF_CORE_ITEMS_H
#define SAGE_PROOF_CORE_ITEMS_H

#include "core.h"

static void get_returns_the_bytes_and_the_tag_that_were_put(void) {
    sq_ring *ring = join_ring(MAKE_RING(.capacity_bytes = 8192));
    for (uint32_t length = 0; length < 700; length++) {
        uint8_t bytes[700], copy[700] = {0};
        sq_record record;
        for (uint32_t at = 0; at < length; at++) bytes[at] = (uint8_t)(at * 13 + length);
        CHECK_IS(sq_put(ring, bytes, length, (uint8_t)length), SQ_OK);
        CHECK_IS(sq_get(ring, copy, sizeof copy, &record), SQ_OK);
        CHECK_IS(record.length, length);
        CHECK_IS(record.tag, (uint8_t)length);
        CHECK(memcmp(bytes, copy, length) == 0);
    }
}

static void items_leave_in_the_order_of_arrival(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint32_t next_put = 0, next_got = 0;
    for (int round = 0; round < 3000; round++) {
        while (put_item(ring, next_put, 8 + next_put % 90) == SQ_OK) next_put++;
        for (int take = 0; take < 1 + round % 60; take++) {
            int64_t got = get_item(ring);
            if (got == -SQ_EMPTY) break;
            CHECK_IS(got, next_got++);
        }
    }
    CHECK(next_got > 10000);
}

static void get_from_an_empty_ring_says_empty(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    for (int turn = 0; turn < 3; turn++) {
        CHECK_IS(get_item(ring), -SQ_EMPTY);
        CHECK_IS(put_item(ring, 5, 20), SQ_OK);
        CHECK_IS(get_item(ring), 5);
    }
}

static void put_into_a_full_ring_says_full_and_changes_nothing(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint32_t count = 0;
    while (put_item(ring, count, 100) == SQ_OK) count++;
    uint64_t head = ring->header->head, tail = ring->header->tail;
    for (int turn = 0; turn < 5; turn++) CHECK_IS(put_item(ring, 9999, 100), SQ_FULL);
    CHECK(ring->header->head == head && ring->header->tail == tail);
    for (uint32_t number = 0; number < count; number++) CHECK_IS(get_item(ring), number);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void room_is_found_again_after_a_full_ring_was_drained(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    for (int round = 0; round < 20; round++) {
        uint32_t count = 0;
        while (put_item(ring, count, 60) == SQ_OK) count++;
        CHECK(count >= 40);
        for (uint32_t number = 0; number < count; number++) CHECK_IS(get_item(ring), number);
    }
}

static void longest_item_fits_and_one_byte_more_is_too_large(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    for (uint32_t turn = 0; turn < 200; turn++) { /* also at every place of the sampled records, which take a unit more */
        CHECK_IS(put_item(ring, turn, (uint32_t)sq_max_length(ring)), SQ_OK);
        CHECK_IS(put_item(ring, turn, 8), SQ_FULL);
        CHECK_IS(get_item(ring), turn);
    }
    CHECK_IS(put_item(ring, 1, (uint32_t)sq_max_length(ring) + 1), SQ_TOO_LARGE);
    CHECK_IS(ring->fault.value, sq_max_length(ring) + 1);
    CHECK_IS(ring->fault.wanted, sq_max_length(ring));
    CHECK_IS(put_item(ring, 1, 4096), SQ_TOO_LARGE);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void items_wrap_at_every_offset(void) {
    for (uint32_t offset = 0; offset < 256; offset++) {
        int fd = MAKE_RING(.start_units = offset, .start_items = offset);
        sq_ring *ring = join_ring(fd);
        for (uint32_t length = 8; length <= 4064; length += 507) {
            CHECK_IS(put_item(ring, length, length), SQ_OK);
            CHECK_IS(get_item(ring), length);
        }
        part_ring(ring);
        close(fd);
    }
}

/* Counters that start just below the end of 32 and 64 bits behave as those that start at 0. */
static void counters_wrap_without_effect(void) {
    const uint64_t starts[] = {(1ull << 16) - 3,   (1ull << 31) - 3, (1ull << 32) - 3,
                               (1ull << 32) - 200, ~0ull - 2,        ~0ull - 90};
    for (size_t units = 0; units < 6; units++)
        for (size_t items = 0; items < 6; items++) {
            int fd = MAKE_RING(.start_units = starts[units], .start_items = starts[items], .max_items = 20);
            sq_ring *ring = join_ring(fd), *other = join_ring(fd);
            for (uint32_t round = 0; round < 30; round++) {
                sq_record record;
                for (uint32_t number = 0; number < 20; number++) CHECK_IS(put_item(ring, number, 40), SQ_OK);
                CHECK_IS(put_item(ring, 99, 8), SQ_FULL);
                CHECK_IS(sq_depth(other), 20);
                CHECK_IS(sq_lease(other, false, &record), SQ_OK);
                CHECK_IS(item_number(record.data), 0);
                for (uint32_t number = 1; number < 20; number++) CHECK_IS(get_item(other), number);
                CHECK_IS(get_item(other), -SQ_EMPTY);
                CHECK_IS(sq_ack(other, false, &record), SQ_OK);
                CHECK_IS(sq_depth(other), 0);
            }
            sq_stats stats;
            sq_stats_read(other, &stats);
            CHECK_IS(stats.puts, 600);
            CHECK_IS(stats.gets, 600);
            part_ring(ring);
            part_ring(other);
            close(fd);
        }
}

static void max_items_is_exact(void) {
    for (uint64_t limit = 1; limit < 100; limit = limit * 2 + 1) {
        int fd = MAKE_RING(.max_items = limit, .capacity_bytes = 16384);
        sq_ring *ring = join_ring(fd);
        for (int round = 0; round < 10; round++) {
            for (uint32_t number = 0; number < limit; number++) CHECK_IS(put_item(ring, number, 8), SQ_OK);
            CHECK_IS(put_item(ring, 77, 8), SQ_FULL);
            CHECK_IS(sq_depth(ring), limit);
            CHECK_IS(get_item(ring), 0);
            CHECK_IS(put_item(ring, 78, 8), SQ_OK);
            CHECK_IS(put_item(ring, 79, 8), SQ_FULL);
            for (uint32_t number = 1; number < limit; number++) CHECK_IS(get_item(ring), number);
            CHECK_IS(get_item(ring), 78);
            CHECK_IS(get_item(ring), -SQ_EMPTY);
        }
        part_ring(ring);
        close(fd);
    }
}

static void put_many_puts_a_prefix_and_says_how_many(void) {
    sq_ring *ring = join_ring(MAKE_RING(.max_items = 10));
    uint8_t bytes[16][24];
    sq_part items[16];
    size_t done;
    for (uint32_t number = 0; number < 16; number++) {
        fill_item(bytes[number], number, 24);
        items[number] = (sq_part){bytes[number], 24};
    }
    CHECK_IS(sq_put_many(ring, items, 0, 0, false, &done), SQ_OK);
    CHECK_IS(done, 0);
    CHECK_IS(sq_put_many(ring, items, 16, 0, false, &done), SQ_OK);
    CHECK_IS(done, 10);
    CHECK_IS(sq_put_many(ring, items + 10, 6, 0, false, &done), SQ_FULL);
    CHECK_IS(done, 0);
    for (uint32_t number = 0; number < 10; number++) {
        uint8_t copy[64];
        sq_record record;
        CHECK_IS(sq_get(ring, copy, sizeof copy, &record), SQ_OK);
        CHECK(whole_item(copy, record.length) && item_number(copy) == number);
    }
}

static void put_many_puts_nothing_when_one_item_can_never_fit(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    static uint8_t bytes[8000];
    sq_part items[3] = {{bytes, 10}, {bytes, 10}, {bytes, 4065}};
    size_t done;
    CHECK_IS(sq_put_many(ring, items, 3, 0, false, &done), SQ_TOO_LARGE);
    CHECK_IS(ring->fault.offset, 2);
    CHECK_IS(sq_depth(ring), 0);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void put_parts_joins_its_parts(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint8_t bytes[300], copy[300];
    sq_record record;
    fill_item(bytes, 7, 300);
    sq_part parts[] = {{bytes, 1}, {bytes + 1, 0}, {bytes + 1, 150}, {bytes + 151, 149}};
    CHECK_IS(sq_put_parts(ring, parts, 4, 9, 0), SQ_OK);
    CHECK_IS(sq_get(ring, copy, sizeof copy, &record), SQ_OK);
    CHECK(whole_item(copy, record.length));
    CHECK_IS(record.length, 300);
    CHECK_IS(record.tag, 9);
}

static void get_with_a_small_buffer_leaves_the_item(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint8_t small[10];
    sq_record record;
    CHECK_IS(put_item(ring, 1, 50), SQ_OK);
    CHECK_IS(sq_get(ring, small, sizeof small, &record), SQ_TOO_SMALL);
    CHECK_IS(record.length, 50);
    CHECK_IS(get_item(ring), 1);
}

static void get_leaves_a_spilled_record_for_a_lease(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint8_t bytes[50];
    sq_part part = {bytes, sizeof bytes};
    sq_record record;
    fill_item(bytes, 1, sizeof bytes);
    CHECK_IS(sq_put_parts(ring, &part, 1, 1, SQ_RECORD_SPILLED), SQ_OK);
    CHECK_IS(get_item(ring), -SQ_SPILLED_RECORD);
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    CHECK(record.flags & SQ_RECORD_SPILLED);
    CHECK_IS(sq_ack(ring, false, &record), SQ_OK);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void peek_leaves_the_item(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint8_t copy[100];
    sq_record record;
    CHECK_IS(sq_peek(ring, copy, sizeof copy, &record, false), SQ_EMPTY);
    CHECK_IS(put_item(ring, 3, 30), SQ_OK);
    for (int turn = 0; turn < 3; turn++) {
        CHECK_IS(sq_peek(ring, copy, sizeof copy, &record, false), SQ_OK);
        CHECK_IS(item_number(copy), 3);
    }
    CHECK_IS(get_item(ring), 3);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void one_turn_takes_many_items(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    sq_reader reader;
    sq_record record;
    for (uint32_t number = 0; number < 30; number++) CHECK_IS(put_item(ring, number, 20), SQ_OK);
    CHECK_IS(sq_read_begin(ring, &reader, false), SQ_OK);
    for (uint32_t number = 0; number < 10; number++) {
        CHECK_IS(sq_read_next(&reader, &record), SQ_OK);
        CHECK_IS(item_number(record.data), number);
        sq_read_take(&reader, &record);
    }
    CHECK_IS(sq_depth(ring), 30); /* nothing has left before the turn ends */
    CHECK_IS(sq_read_end(&reader), SQ_OK);
    CHECK_IS(sq_depth(ring), 20);
    for (uint32_t number = 10; number < 30; number++) CHECK_IS(get_item(ring), number);
}

static void clear_drops_what_is_queued_and_counts_it(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint32_t dropped;
    for (int round = 0; round < 50; round++) {
        for (uint32_t number = 0; number < 7; number++) CHECK_IS(put_item(ring, number, 100), SQ_OK);
        CHECK_IS(get_item(ring), 0);
        CHECK_IS(sq_clear(ring, false, &dropped), SQ_OK);
        CHECK_IS(dropped, 6);
        CHECK_IS(get_item(ring), -SQ_EMPTY);
        CHECK_IS(sq_clear(ring, false, &dropped), SQ_OK);
        CHECK_IS(dropped, 0);
    }
    sq_stats stats;
    sq_stats_read(ring, &stats);
    CHECK_IS(stats.dropped, 300);
    CHECK_IS(stats.puts, 350);
    CHECK_IS(stats.gets, 350);
}

static void clear_leaves_leased_items_to_their_holders(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    sq_record record;
    uint32_t dropped;
    for (uint32_t number = 0; number < 5; number++) CHECK_IS(put_item(ring, number, 50), SQ_OK);
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    CHECK_IS(sq_clear(ring, false, &dropped), SQ_OK);
    CHECK_IS(dropped, 4);
    CHECK_IS(sq_nack(ring, false, &record), SQ_OK);
    CHECK_IS(get_item(ring), 0);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void shutdown_refuses_puts_and_drains(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    uint32_t dropped;
    CHECK_IS(put_item(ring, 1, 50), SQ_OK);
    CHECK_IS(put_item(ring, 2, 50), SQ_OK);
    CHECK_IS(sq_shutdown(other, false, &dropped), SQ_OK);
    CHECK_IS(dropped, 0);
    for (int turn = 0; turn < 3; turn++) CHECK_IS(put_item(ring, 3, 50), SQ_SHUTDOWN);
    CHECK_IS(get_item(ring), 1);
    CHECK_IS(get_item(ring), 2);
    for (int turn = 0; turn < 3; turn++) CHECK_IS(get_item(ring), -SQ_SHUTDOWN);
}

static void shutdown_waits_for_leased_items(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    sq_record record;
    uint32_t dropped;
    CHECK_IS(put_item(ring, 1, 50), SQ_OK);
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    CHECK_IS(sq_shutdown(ring, false, &dropped), SQ_OK);
    CHECK_IS(get_item(ring), -SQ_EMPTY); /* it may come back */
    CHECK_IS(sq_nack(ring, false, &record), SQ_OK);
    CHECK_IS(get_item(ring), 1);
    CHECK_IS(get_item(ring), -SQ_SHUTDOWN);
}

static void a_sealed_ring_refuses_puts_and_drains(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    uint32_t left;
    CHECK_IS(put_item(ring, 1, 50), SQ_OK);
    CHECK_IS(put_item(ring, 2, 50), SQ_OK);
    CHECK_IS(get_item(ring), 1);
    CHECK_IS(sq_seal(other, &left), SQ_OK);
    CHECK_IS(left, 1);
    CHECK_IS(sq_state(ring), SQ_STATE_SHUTDOWN | SQ_STATE_MOVED);
    CHECK_IS(put_item(ring, 3, 50), SQ_SHUTDOWN);
    CHECK_IS(sq_seal(ring, &left), SQ_SHUTDOWN);
    CHECK_IS(get_item(ring), 2);
    CHECK_IS(get_item(ring), -SQ_SHUTDOWN);
    sq_ring *single = join_ring(MAKE_RING(.mode = SQ_MODE_SINGLE_PRODUCER));
    CHECK_IS(sq_seal(single, &left), SQ_INVALID);
    CHECK_IS(sq_state(single), 0);
}

static void immediate_shutdown_drops_and_counts(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint32_t dropped;
    for (uint32_t number = 0; number < 9; number++) CHECK_IS(put_item(ring, number, 50), SQ_OK);
    CHECK_IS(sq_shutdown(ring, true, &dropped), SQ_OK);
    CHECK_IS(dropped, 9);
    CHECK_IS(get_item(ring), -SQ_SHUTDOWN);
    CHECK_IS(put_item(ring, 1, 50), SQ_SHUTDOWN);
}

/* A getter that is told "shut down" has seen every item: one thread puts and shuts down while another takes. Fewer turns
 * where each of them costs time slices, because others have the cores. */
#define RACE_NS 6000000000ull
static struct {
    sq_ring *ring;
    _Atomic uint32_t turn, turns;
} race;
static void await_turn(uint32_t turn) {
    for (uint32_t looks = 1; race.turn != turn; looks++) looks % 256 ? sq_pause() : (void)sched_yield();
}
static void *put_and_shut_down(void *given) {
    for (uint32_t turn = 1; turn <= race.turns; turn++) {
        uint32_t dropped;
        await_turn(2 * turn - 1);
        for (uint32_t pause = turn % 97; pause; pause--) sq_pause();
        CHECK_IS(put_item(race.ring, turn, 20), SQ_OK);
        CHECK_IS(sq_shutdown(race.ring, false, &dropped), SQ_OK);
        race.turn = 2 * turn;
    }
    return NULL;
}
static void no_item_is_missed_when_shutdown_is_seen(void) {
    int fd = MAKE_RING(0);
    sq_ring *taker = join_ring(fd);
    pthread_t thread;
    race.ring = join_ring(fd);
    race.turns = 60000;
    CHECK_IS(pthread_create(&thread, NULL, put_and_shut_down, NULL), 0);
    uint64_t end = sq_now_ns() + RACE_NS;
    for (uint32_t turn = 1; turn <= race.turns; turn++) {
        int64_t got;
        if (sq_now_ns() > end) race.turns = turn; /* the last one */
        race.turn = 2 * turn - 1;
        while ((got = get_item(taker)) == -SQ_EMPTY || got == -SQ_BUSY) continue;
        CHECK_IS(got, turn);
        await_turn(2 * turn);
        sq_store32(&race.ring->header->control.state, 0); /* open again, for the next turn */
    }
    CHECK_IS(pthread_join(thread, NULL), 0);
}

static void resize_keeps_what_is_queued(void) {
    for (uint32_t offset = 0; offset < 256; offset += 5) {
        int fd = MAKE_RING(.start_units = offset);
        sq_ring *ring = join_ring(fd), *other = join_ring(fd);
        uint32_t count = 0, number = 0;
        while (put_item(ring, count, 150) == SQ_OK) count++;
        CHECK_IS(sq_resize(other, 32768, SQ_FOREVER), SQ_OK);
        for (uint32_t more = 0; more < 100; more++) CHECK_IS(put_item(ring, count++, 150), SQ_OK);
        CHECK_IS(sq_resize(ring, 65536, SQ_FOREVER), SQ_OK);
        CHECK_IS(put_item(other, count++, 16000), SQ_OK);
        for (; number < count; number++) CHECK_IS(get_item(number % 2 ? ring : other), number);
        CHECK_IS(get_item(ring), -SQ_EMPTY);
        part_ring(ring);
        part_ring(other);
        close(fd);
    }
}

static void resize_keeps_leases(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd), *other = join_ring(fd);
    sq_record first, second;
    for (uint32_t number = 0; number < 10; number++) CHECK_IS(put_item(ring, number, 200), SQ_OK);
    CHECK_IS(sq_lease(ring, false, &first), SQ_OK);
    CHECK_IS(sq_lease(other, false, &second), SQ_OK);
    CHECK_IS(sq_resize(other, 16384, SQ_FOREVER), SQ_OK);
    CHECK(whole_item(first.data, first.length)); /* the view is still good */
    CHECK(whole_item(second.data, second.length));
    CHECK_IS(sq_ack(ring, false, &first), SQ_OK);
    CHECK_IS(sq_nack(other, false, &second), SQ_OK);
    for (uint32_t number = 1; number < 10; number++) CHECK_IS(get_item(ring), number);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void resize_refuses_to_shrink_and_single_roles(void) {
    sq_ring *ring = join_ring(MAKE_RING(.capacity_bytes = 16384));
    CHECK_IS(sq_resize(ring, 8192, SQ_FOREVER), SQ_INVALID);
    CHECK_IS(sq_resize(ring, 16384, SQ_FOREVER), SQ_OK);
    CHECK_IS(sq_resize(ring, 0, SQ_FOREVER), SQ_INVALID);
    CHECK_IS(sq_resize(ring, SQ_CAPACITY_MAX + 1, SQ_FOREVER), SQ_INVALID);
    ring = join_ring(MAKE_RING(.mode = SQ_MODE_SINGLE_CONSUMER));
    CHECK_IS(sq_resize(ring, 65536, SQ_FOREVER), SQ_INVALID);
}

static void format_refuses_what_it_cannot_make(void) {
    sq_fault fault;
    int fd = memfd_create("sage-proof", MFD_CLOEXEC);
    CHECK_IS(sq_format(fd, &(sq_settings){.capacity_bytes = 0}, &fault), SQ_INVALID);
    CHECK_IS(sq_format(fd, &(sq_settings){.capacity_bytes = SQ_CAPACITY_MAX + 1}, &fault), SQ_INVALID);
    CHECK_IS(sq_format(fd, &(sq_settings){.capacity_bytes = 1, .max_items = 1ull << 31}, &fault), SQ_INVALID);
    CHECK_IS(sq_format(fd, &(sq_settings){.capacity_bytes = 1, .mode = SQ_MODE_ALL + 1}, &fault), SQ_INVALID);
    struct stat st;
    CHECK(fstat(fd, &st) == 0 && st.st_size == 0);
}

static void a_changed_payload_byte_is_found_by_the_checksum(void) {
    sq_ring *ring = join_ring(MAKE_RING(.mode = SQ_MODE_CHECKSUM));
    sq_record record;
    for (uint32_t number = 0; number < 3; number++) CHECK_IS(put_item(ring, number, 100), SQ_OK);
    uint8_t *second = ring->map->data + sq_record_units(100, true) * SQ_UNIT + 2 * SQ_UNIT;
    CHECK_IS(item_number(second), 1);
    second[50] ^= 1;
    CHECK_IS(get_item(ring), 0);
    CHECK_IS(get_item(ring), -SQ_CHECKSUM); /* that one is gone, the others are not harmed */
    CHECK_IS(get_item(ring), 2);
    CHECK_IS(put_item(ring, 4, 100), SQ_OK);
    uint8_t *fourth = ring->map->data + 3 * sq_record_units(100, true) * SQ_UNIT + 2 * SQ_UNIT;
    fourth[99] ^= 0x80;
    CHECK_IS(sq_lease(ring, false, &record), SQ_CHECKSUM);
    CHECK_IS(get_item(ring), -SQ_EMPTY);
}

static void crc32c_is_that_of_rfc_3720(void) {
    uint8_t zeros[32] = {0}, ones[32], up[32];
    memset(ones, 0xff, sizeof ones);
    for (int at = 0; at < 32; at++) up[at] = (uint8_t)at;
    CHECK_IS(sq_crc32c(zeros, 32), 0x8a9136aau);
    CHECK_IS(sq_crc32c(ones, 32), 0x62a8ab43u);
    CHECK_IS(sq_crc32c(up, 32), 0x46dd794eu);
    CHECK_IS(~sq_crc_plain(~0u, up, 32), 0x46dd794eu);
}

static void figures_count_what_happened(void) {
    sq_ring *ring = join_ring(MAKE_RING(.capacity_bytes = 65536));
    sq_stats stats;
    sq_record record;
    uint64_t sampled = 0;
    for (uint32_t number = 0; number < 200; number++) CHECK_IS(put_item(ring, number, 20), SQ_OK);
    for (uint32_t number = 0; number < 150; number++) CHECK_IS(get_item(ring), number);
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    sq_stats_read(ring, &stats);
    CHECK_IS(stats.puts, 200);
    CHECK_IS(stats.gets, 150);
    CHECK_IS(stats.bytes_put, 4000);
    CHECK_IS(stats.bytes_taken, 3000);
    CHECK_IS(stats.depth, 49);
    CHECK_IS(stats.leased, 1);
    CHECK_IS(sq_nack(ring, false, &record), SQ_OK);
    sq_stats_read(ring, &stats);
    CHECK_IS(stats.redeliveries, 1);
    CHECK_IS(stats.depth, 50);
    for (uint32_t bucket = 0; bucket < SQ_HISTOGRAM_BUCKETS; bucket++) sampled += sq_histogram_count(ring, bucket);
    CHECK_IS(sampled, 3); /* items 0, 64 and 128 carried a stamp */
}

#endif
