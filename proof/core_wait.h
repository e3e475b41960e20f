/* Tests of sleeping and waking, of deadlines, and of what is visible at which moment. */
#ifndef SAGE_PROOF_CORE_WAIT_H
#define SAGE_PROOF_CORE_WAIT_H

#include "core.h"

/* A thread that makes one call of sq_get_wait() or sq_put_wait(): at most one slice. */
typedef struct {
    sq_ring *ring;
    pthread_t thread;
    _Atomic uint32_t id;
    bool puts;
    int status;
    uint8_t bytes[4096];
    sq_record record;
} sleeper;
static void *sleep_once(void *given) {
    sleeper *own = given;
    own->id = (uint32_t)syscall(SYS_gettid);
    own->status = own->puts ? sq_put_wait(own->ring, own->bytes, 4000, ANY_TAG, SQ_FOREVER)
                            : sq_get_wait(own->ring, own->bytes, sizeof own->bytes, &own->record, SQ_FOREVER);
    return NULL;
}
static void start_sleeper(sleeper *own, sq_ring *ring, bool puts) {
    memset(own, 0, sizeof *own);
    own->ring = ring;
    own->puts = puts;
    CHECK_IS(pthread_create(&own->thread, NULL, sleep_once, own), 0);
    while (!own->id) usleep(100);
}
static int end_sleeper(sleeper *own) {
    CHECK_IS(pthread_join(own->thread, NULL), 0);
    return own->status;
}
static void wait_until_marked(sq_event *event, uint32_t count) {
    while (sq_load32(&event->sleepers) < count) usleep(50);
}

static void a_put_wakes_a_sleeping_getter(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    sleeper one;
    for (uint32_t turn = 0; turn < 20; turn++) {
        sq_event *event = &ring->header->not_empty;
        start_sleeper(&one, join_ring(fd), false);
        wait_until_marked(event, 1);
        uint32_t sequence = sq_load32(&event->sequence);
        CHECK_IS(put_item(ring, turn, 30), SQ_OK);
        CHECK_IS(sq_load32(&event->sequence), sequence + 1);
        CHECK_IS(sq_load32(&event->sleepers), 0);
        CHECK_IS(end_sleeper(&one), SQ_OK);
        CHECK_IS(item_number(one.bytes), turn);
    }
}

static void a_get_wakes_a_sleeping_putter(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    sleeper one;
    for (uint32_t turn = 0; turn < 20; turn++) {
        sq_event *event = &ring->header->not_full;
        CHECK_IS(put_item(ring, turn, 4000), SQ_OK);
        start_sleeper(&one, join_ring(fd), true);
        wait_until_marked(event, 1);
        uint32_t sequence = sq_load32(&event->sequence);
        CHECK_IS(get_item(ring), turn);
        CHECK_IS(sq_load32(&event->sequence), sequence + 1);
        CHECK_IS(end_sleeper(&one), SQ_OK);
        uint8_t bytes[4096];
        sq_record record;
        CHECK_IS(sq_get(ring, bytes, sizeof bytes, &record), SQ_OK);
    }
}

/* Records of 4 units fill a region to the last one; what is sampled takes 5. */
static void who_waits_for_room_waits_for_what_a_put_takes(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    uint32_t units = sq_record_units(48, false), both[2] = {0, 0};
    for (uint32_t turn = 0; turn < 1000; turn++) {
        bool worth = sq_worth_trying(ring, SQ_PRODUCERS, units);
        int status = put_item(ring, turn, 48);
        CHECK_IS(worth, status == SQ_OK);
        both[worth]++;
        if (status == SQ_FULL) CHECK(get_item(ring) >= 0);
    }
    CHECK(both[0] > 100 && both[1] > 100);
}

/* Two sleep, one item comes: the other one's mark stays, so that the next put wakes it too. */
static void a_wake_keeps_the_mark_of_those_who_sleep_on(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    bool seen = false;
    for (uint32_t turn = 0; turn < 50 && !seen; turn++) {
        static sleeper two[2];
        sq_event *event = &ring->header->not_empty;
        sq_store32(&event->sleepers, 0);
        start_sleeper(&two[0], join_ring(fd), false);
        start_sleeper(&two[1], join_ring(fd), false);
        wait_until_marked(event, 2);
        wait_until_asleep(two[0].id);
        wait_until_asleep(two[1].id);
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        seen = sq_load32(&event->sleepers) == 1; /* unless a slice ended just then */
        CHECK_IS(put_item(ring, 2, 30), SQ_OK);
        for (int at = 0; at < 2; at++) {
            int status = end_sleeper(&two[at]);
            CHECK(status == SQ_OK || status == SQ_AGAIN);
            if (status == SQ_AGAIN) CHECK(get_item(ring) > 0);
        }
    }
    CHECK(seen);
}

static void a_mark_of_a_killed_sleeper_is_cleared(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    sq_event *event = &ring->header->not_empty;
    sq_store32(&event->sleepers, 7);
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    CHECK_IS(sq_load32(&event->sleepers), 0);
    uint32_t sequence = sq_load32(&event->sequence);
    CHECK_IS(put_item(ring, 2, 30), SQ_OK);
    CHECK_IS(sq_load32(&event->sequence), sequence);
}

static sq_ring *observed;
static int64_t observed_item;
static int observed_status;
static void hook_get_one(void) { observed_item = get_item(observed); }
static void hook_put_one(void) { observed_status = put_item(observed, 77, 3000); }

static void an_item_is_there_before_anybody_is_woken_for_it(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    observed = join_ring(fd);
    sq_store32(&ring->header->not_empty.sleepers, 1);
    arm(SQ_POINT_wake_claimed, 1, hook_get_one);
    CHECK_IS(put_item(ring, 5, 30), SQ_OK);
    CHECK(!disarm());
    CHECK_IS(observed_item, 5);
}

static void room_is_there_before_anybody_is_woken_for_it(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    observed = join_ring(fd);
    CHECK_IS(put_item(ring, 5, 3000), SQ_OK);
    sq_store32(&ring->header->not_full.sleepers, 1);
    arm(SQ_POINT_wake_claimed, 1, hook_put_one);
    CHECK_IS(get_item(ring), 5);
    CHECK(!disarm());
    CHECK_IS(observed_status, SQ_OK);
}

static void an_item_is_not_seen_before_it_is_complete(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    observed = join_ring(fd);
    for (uint32_t number = 1; number < 100; number++) {
        arm(SQ_POINT_put_copied, 1, hook_get_one);
        CHECK_IS(put_item(ring, number, 200), SQ_OK);
        CHECK(!disarm());
        CHECK_IS(observed_item, -SQ_EMPTY);
        CHECK_IS(get_item(observed), number);
    }
}

static void room_is_not_free_before_the_bytes_were_copied_out(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    observed = join_ring(fd);
    for (uint32_t number = 1; number < 50; number++) {
        CHECK_IS(put_item(ring, number, 3000), SQ_OK);
        arm(SQ_POINT_take_copied, 1, hook_put_one);
        CHECK_IS(get_item(ring), number);
        CHECK(!disarm());
        CHECK_IS(observed_status, SQ_FULL);
    }
}

static void shutdown_wakes_sleepers_on_both_sides(void) {
    for (int immediate = 0; immediate < 2; immediate++) {
        int fd = MAKE_RING(.max_items = 1), full = MAKE_RING(.max_items = 1);
        sq_ring *ring = join_ring(fd), *filled = join_ring(full);
        sleeper getter, putter;
        uint32_t dropped;
        CHECK_IS(put_item(filled, 1, 30), SQ_OK);
        start_sleeper(&getter, join_ring(fd), false);
        start_sleeper(&putter, join_ring(full), true);
        wait_until_marked(&ring->header->not_empty, 1);
        wait_until_marked(&filled->header->not_full, 1);
        uint32_t before = sq_load32(&ring->header->not_empty.sequence);
        uint32_t after = sq_load32(&filled->header->not_full.sequence);
        CHECK_IS(sq_shutdown(ring, immediate, &dropped), SQ_OK);
        CHECK_IS(sq_shutdown(filled, immediate, &dropped), SQ_OK);
        CHECK_IS(sq_load32(&ring->header->not_empty.sequence), before + 1);
        CHECK_IS(sq_load32(&filled->header->not_full.sequence), after + 1);
        CHECK_IS(sq_load32(&ring->header->not_full.sequence), 1);
        CHECK_IS(end_sleeper(&getter), SQ_SHUTDOWN);
        CHECK_IS(end_sleeper(&putter), SQ_SHUTDOWN);
    }
}

/* A lease may come back, so a getter goes on waiting after a shutdown; the acknowledgement tells it that nothing will. */
static void an_acknowledgement_after_a_shutdown_wakes_who_waits(void) {
    for (int many = 0; many < 2; many++) {
        int fd = MAKE_RING(.max_items = 2);
        sq_ring *ring = join_ring(fd);
        sleeper getter;
        sq_record record;
        uint32_t dropped, fenced;
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        CHECK_IS(sq_lease(ring, false, &record), SQ_OK);
        CHECK_IS(sq_shutdown(ring, false, &dropped), SQ_OK);
        start_sleeper(&getter, join_ring(fd), false);
        wait_until_marked(&ring->header->not_empty, 1);
        uint32_t before = sq_load32(&ring->header->not_empty.sequence);
        CHECK_IS(many ? sq_settle_many(ring, true, &record, 1, 1, &fenced) : sq_ack(ring, true, &record), SQ_OK);
        CHECK_IS(sq_load32(&ring->header->not_empty.sequence), before + 1);
        CHECK_IS(end_sleeper(&getter), SQ_SHUTDOWN);
    }
}

static void deadlines_are_never_early(void) {
    sq_ring *ring = join_ring(MAKE_RING(.max_items = 1));
    uint8_t bytes[100];
    sq_record record;
    for (uint64_t wait = 1000; wait < 200000000; wait *= 7) {
        uint64_t deadline = sq_now_ns() + wait;
        int status;
        while ((status = sq_get_wait(ring, bytes, sizeof bytes, &record, deadline)) == SQ_AGAIN) continue;
        CHECK_IS(status, SQ_EMPTY);
        CHECK(sq_now_ns() >= deadline);
    }
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    for (uint64_t wait = 1000; wait < 200000000; wait *= 7) {
        uint64_t deadline = sq_now_ns() + wait;
        int status;
        while ((status = sq_put_wait(ring, bytes, 30, 0, deadline)) == SQ_AGAIN) continue;
        CHECK_IS(status, SQ_FULL);
        CHECK(sq_now_ns() >= deadline);
    }
    CHECK_IS(sq_get_wait(ring, bytes, sizeof bytes, &record, 0), SQ_OK); /* past already: tried once */
    CHECK_IS(sq_get_wait(ring, bytes, sizeof bytes, &record, 0), SQ_EMPTY);
}

/* A thread that waits for the lock is woken when it is freed; or its slice ended first, so this looks at many. */
static void *wait_for_lock(void *given) {
    sleeper *own = given;
    own->id = (uint32_t)syscall(SYS_gettid);
    own->status = (int)sq_lock_wait(&own->ring->header->producers.lock, SQ_FOREVER, own->ring->device, own->ring->inode);
    if (own->status != SQ_LOCK_BUSY) sq_lock_free(&own->ring->header->producers.lock);
    return NULL;
}
static void freeing_the_lock_wakes_who_waits_for_it(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    sq_word32 *lock = &ring->header->producers.lock;
    int taken = 0;
    for (int turn = 0; turn < 40 && !taken; turn++) {
        sleeper one = {.ring = ring};
        CHECK_IS(sq_lock_try(lock), SQ_LOCK_TAKEN);
        CHECK_IS(pthread_create(&one.thread, NULL, wait_for_lock, &one), 0);
        while (!(sq_load32(lock) & FUTEX_WAITERS)) usleep(50);
        wait_until_asleep(one.id);
        sq_lock_free(lock);
        taken += end_sleeper(&one) == SQ_LOCK_TAKEN;
        CHECK_IS(sq_load32(lock), 0);
    }
    CHECK(taken);
}

static void nothing_is_kept_when_an_operation_is_refused(void) {
    sq_ring *ring = join_ring(MAKE_RING(.max_items = 1));
    uint8_t tiny[2];
    sq_record record;
    uint32_t dropped;
    for (int turn = 0; turn < 3; turn++) {
        CHECK_IS(get_item(ring), -SQ_EMPTY);
        CHECK_IS(put_item(ring, 1, 5000), SQ_TOO_LARGE);
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        CHECK_IS(put_item(ring, 1, 30), SQ_FULL);
        CHECK_IS(sq_get(ring, tiny, sizeof tiny, &record), SQ_TOO_SMALL);
        CHECK_IS(get_item(ring), 1);
        CHECK_IS(sq_load32(&ring->header->producers.lock), 0);
        CHECK_IS(sq_load32(&ring->header->consumers.lock), 0);
    }
    CHECK_IS(sq_shutdown(ring, false, &dropped), SQ_OK);
    for (int turn = 0; turn < 3; turn++) {
        CHECK_IS(put_item(ring, 1, 30), SQ_SHUTDOWN);
        CHECK_IS(get_item(ring), -SQ_SHUTDOWN);
        CHECK_IS(sq_load32(&ring->header->producers.lock), 0);
        CHECK_IS(sq_load32(&ring->header->consumers.lock), 0);
    }
}

static void one_of_many_rings_is_found_ready(void) {
    sq_ring *rings[5];
    for (int at = 0; at < 5; at++) rings[at] = join_ring(MAKE_RING(0));
    CHECK_IS(sq_wait_any(rings, 5, 0), SQ_EMPTY);
    CHECK_IS(sq_wait_any(rings, 5, SQ_FOREVER), SQ_AGAIN);
    CHECK_IS(put_item(rings[3], 1, 30), SQ_OK);
    CHECK_IS(sq_wait_any(rings, 5, SQ_FOREVER), SQ_OK);
    CHECK_IS(get_item(rings[3]), 1);
}

#endif
