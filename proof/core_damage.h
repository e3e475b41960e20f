/* Tests of damage: a changed byte, a shrunk file, a foreign or older file. Answers are typed; nothing crashes. */
#ifndef SAGE_PROOF_CORE_DAMAGE_H
#define SAGE_PROOF_CORE_DAMAGE_H

#include "core_wait.h"

static sq_record_header *first_record(sq_ring *ring) { return (sq_record_header *)ring->map->data; }

/* The ring says SQ_CORRUPT now, to this handle and to others, in each operation. */
static void expect_poisoned(sq_ring *ring, int fd) {
    sq_ring *other = join_ring(fd);
    uint32_t dropped;
    CHECK_IS(put_item(ring, 1, 30), SQ_CORRUPT);
    CHECK_IS(get_item(other), -SQ_CORRUPT);
    CHECK_IS(put_item(other, 1, 30), SQ_CORRUPT);
    CHECK_IS(sq_clear(other, false, &dropped), SQ_CORRUPT);
    CHECK_IS(other->fault.value, getpid()); /* who found it */
}

static void a_wrong_sequence_is_damage(void) {
    for (int bit = 0; bit < 32; bit++) {
        int fd = MAKE_RING(0);
        sq_ring *ring = join_ring(fd);
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        first_record(ring)->sequence ^= 1u << bit;
        CHECK_IS(get_item(ring), -SQ_CORRUPT);
        CHECK(strcmp(ring->fault.field, "record.sequence") == 0);
        CHECK_IS(ring->fault.offset, sizeof(sq_header));
        expect_poisoned(ring, fd);
    }
}

static void a_length_beyond_what_was_published_is_damage(void) {
    const uint32_t lengths[] = {49, 4096, 1u << 20, INT32_MAX, 1u << 31, UINT32_MAX - 15, UINT32_MAX};
    for (size_t at = 0; at < sizeof lengths / sizeof *lengths; at++) {
        int fd = MAKE_RING(0);
        sq_ring *ring = join_ring(fd);
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        first_record(ring)->length = lengths[at];
        CHECK_IS(get_item(ring), -SQ_CORRUPT);
        CHECK_IS(ring->fault.value, lengths[at]);
        expect_poisoned(ring, fd);
    }
}

static void unknown_flags_and_phases_are_damage(void) {
    for (uint32_t change = 0; change < 4; change++) {
        int fd = MAKE_RING(0);
        sq_ring *ring = join_ring(fd);
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        if (change == 0) first_record(ring)->flags |= 4;
        if (change == 1) first_record(ring)->zero = 1;
        if (change == 2) first_record(ring)->lease = SQ_LEASE(SQ_TAKEN, 0, 0);
        if (change == 3) first_record(ring)->lease = SQ_LEASE(200, 0, 0);
        CHECK_IS(get_item(ring), -SQ_CORRUPT);
        expect_poisoned(ring, fd);
    }
}

static void a_zeroed_region_holds_no_items(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    CHECK_IS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, sizeof(sq_header), 4096), 0);
    CHECK_IS(get_item(ring), -SQ_CORRUPT);
    expect_poisoned(ring, fd);
}

static void positions_that_contradict_each_other_are_damage(void) {
    for (int change = 0; change < 7; change++) {
        int fd = MAKE_RING(0);
        sq_ring *ring = join_ring(fd);
        for (uint32_t number = 0; number < 5; number++) CHECK_IS(put_item(ring, number, 30), SQ_OK);
        for (uint32_t number = 0; number < 3; number++) CHECK_IS(get_item(ring), number);
        sq_header *header = ring->header;
        uint64_t head = header->head, tail = header->tail;
        if (change == 0) header->head = sq_advance(tail, 1, 0);
        if (change == 1) header->tail = sq_advance(head, 257, 2);
        if (change == 2) header->head = head - 1;
        if (change == 3) header->tail = sq_advance(tail, 0, 1);
        if (change == 4) header->head = sq_advance(head, 0, 1);
        if (change == 5) header->leases.disordered = 1; /* with a cursor from long ago */
        if (change == 6) header->tail = sq_advance(tail, (uint32_t)-1, 0);
        int64_t got = 0;
        for (int turn = 0; turn < 8 && got >= 0; turn++) got = get_item(ring);
        CHECK_IS(got, -SQ_CORRUPT);
        expect_poisoned(ring, fd);
    }
}

static void a_producer_finds_a_head_that_cannot_be(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    while (put_item(ring, 1, 30) == SQ_OK) continue;
    ring->header->head = sq_advance(ring->header->tail, 5, 0);
    CHECK_IS(put_item(ring, 1, 30), SQ_CORRUPT);
    expect_poisoned(ring, fd);
}

static void poison_wakes_who_sleeps(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    sleeper one;
    start_sleeper(&one, join_ring(fd), false);
    wait_until_marked(&ring->header->not_empty, 1);
    uint32_t sequence = sq_load32(&ring->header->not_empty.sequence);
    CHECK_IS(sq_poison(ring, "test", 8, 1, 2), SQ_CORRUPT);
    CHECK_IS(sq_load32(&ring->header->not_empty.sequence), sequence + 1);
    CHECK_IS(end_sleeper(&one), SQ_CORRUPT);
}

static void a_file_that_shrank_is_an_error_and_no_signal(void) {
    for (off_t left = 0; left < 24576; left += 4096) {
        int fd = MAKE_RING(0);
        sq_ring *ring = join_ring(fd);
        uint8_t bytes[100];
        sq_record record;
        uint32_t dropped;
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        CHECK_IS(ftruncate(fd, left), 0);
        for (int turn = 0; turn < 2; turn++) {
            CHECK_IS(get_item(ring), -SQ_CORRUPT);
            CHECK_IS(put_item(ring, 2, 30), SQ_CORRUPT);
        }
        int status = sq_lease(ring, true, &record);
        CHECK(status == SQ_CORRUPT);
        CHECK_IS(sq_get_wait(ring, bytes, sizeof bytes, &record, sq_now_ns() + 1000000), SQ_CORRUPT);
        (void)sq_clear(ring, true, &dropped);
        (void)sq_shutdown(ring, true, &dropped);
        sq_ring *other;
        CHECK_IS(try_join(fd, &other), SQ_CORRUPT);
        part_ring(ring);
        close(fd);
    }
}

/* Others' SIGBUS handlers still get what is theirs. */
static volatile int foreign_faults;
static void count_and_leave(int number) {
    foreign_faults++;
    _exit(number == SIGBUS ? 0 : 1);
}
static void foreign_faults_go_to_the_earlier_handler(void) {
    struct sigaction theirs = {.sa_handler = count_and_leave};
    CHECK_IS(sigaction(SIGBUS, &theirs, NULL), 0);
    (void)join_ring(MAKE_RING(0));
    int fd = memfd_create("foreign", MFD_CLOEXEC);
    volatile char *bytes = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK_IS(bytes[0], 1); /* beyond the end of an empty file */
    CHECK(false);
}

static void every_field_of_the_identity_is_checked(void) {
    for (size_t at = 0; at < sizeof(sq_identity); at++)
        for (int change = 0; change < 4; change++) {
            int fd = MAKE_RING(0);
            uint8_t byte, changed;
            sq_ring *ring;
            CHECK_IS(pread(fd, &byte, 1, (off_t)at), 1);
            const uint8_t others[] = {(uint8_t)~byte, byte ^ 1, byte ^ 0x80, (uint8_t)(byte + 1)};
            changed = others[change];
            CHECK_IS(pwrite(fd, &changed, 1, (off_t)at), 1);
            int status = try_join(fd, &ring);
            CHECK(status == SQ_CORRUPT || status == SQ_INCOMPATIBLE);
            CHECK(ring->fault.field != NULL);
            close(fd);
        }
}

/* A header whose checksum is right, and which lies all the same. */
static int attach_with(void (*change)(sq_identity *identity)) {
    int fd = MAKE_RING(0);
    sq_identity identity;
    sq_ring *ring;
    CHECK_IS(pread(fd, &identity, sizeof identity, 0), sizeof identity);
    change(&identity);
    identity.checksum = sq_crc32c(&identity, offsetof(sq_identity, checksum));
    CHECK_IS(pwrite(fd, &identity, sizeof identity, 0), sizeof identity);
    return try_join(fd, &ring);
}
static void lie_header(sq_identity *identity) { identity->header_bytes = 4096; }
static void lie_header_odd(sq_identity *identity) { identity->header_bytes = 20481; }
static void lie_header_long(sq_identity *identity) { identity->header_bytes = 1u << 30; }
static void lie_mode(sq_identity *identity) { identity->mode = SQ_MODE_ALL + 1; }
static void lie_items(sq_identity *identity) { identity->max_items = SQ_ITEMS_MAX + 1; }
static void lie_namespace(sq_identity *identity) { identity->pid_namespace ^= 1; }
static void lie_version(sq_identity *identity) { identity->layout_version++; }
static void lie_page(sq_identity *identity) { identity->page_bytes *= 2; }
static void a_signed_lie_is_found(void) {
    CHECK_IS(attach_with(lie_header), SQ_CORRUPT);
    CHECK_IS(attach_with(lie_header_odd), SQ_CORRUPT);
    CHECK_IS(attach_with(lie_header_long), SQ_CORRUPT);
    CHECK_IS(attach_with(lie_mode), SQ_INCOMPATIBLE);
    CHECK_IS(attach_with(lie_items), SQ_CORRUPT);
    CHECK_IS(attach_with(lie_namespace), SQ_NAMESPACE);
    CHECK_IS(attach_with(lie_version), SQ_INCOMPATIBLE);
    CHECK_IS(attach_with(lie_page), SQ_INCOMPATIBLE);
}

static void a_geometry_outside_the_file_is_damage(void) {
    const uint64_t words[] = {0, ~0ull, sq_geometry(5, 9, 0), sq_geometry(4, 8, 0), sq_geometry(6, 8, 0),
                              sq_geometry(5, 7, 0), sq_geometry(5, 31, 0), sq_geometry((1ull << 40) - 1, 8, 0), sq_geometry(0, 8, 0)};
    for (size_t at = 0; at < sizeof words / sizeof *words; at++) {
        int fd = MAKE_RING(0);
        sq_ring *ring = join_ring(fd), *other;
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        ring->header->control.geometry = words[at];
        CHECK_IS(get_item(ring), -SQ_CORRUPT);
        CHECK_IS(put_item(ring, 1, 30), SQ_CORRUPT);
        CHECK_IS(try_join(fd, &other), SQ_CORRUPT);
        ring->header->control.geometry = sq_geometry(5, 8, 0);
        CHECK_IS(get_item(ring), 1);
    }
}

static void short_and_empty_files_are_refused(void) {
    for (off_t size = 0; size < 20480; size += 1024) {
        int fd = memfd_create("short", MFD_CLOEXEC);
        sq_ring *ring;
        CHECK_IS(ftruncate(fd, size), 0);
        CHECK_IS(try_join(fd, &ring), SQ_CORRUPT);
        close(fd);
    }
}

static void lease_slots_and_roles_out_of_range_are_damage(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    sq_record record;
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
    first_record(ring)->lease = SQ_LEASE(SQ_LEASED, 0, 600);
    sq_detach(ring);
    CHECK(sq_state(ring) & SQ_STATE_POISONED);
    fd = MAKE_RING(.mode = SQ_MODE_SINGLE_PRODUCER);
    ring = join_ring(fd);
    ring->header->control.producer_role = 700;
    CHECK_IS(put_item(ring, 1, 30), SQ_CORRUPT);
    fd = MAKE_RING(0);
    ring = join_ring(fd);
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    ring->header->control.participants_used = 513;
    CHECK_IS(sq_lease(ring, false, &record), SQ_CORRUPT);
}

#endif
