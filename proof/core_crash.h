/* Tests of recovery: a child is killed at every fault point of an operation, in several start states; what is left must
 * be what was there before, plus or minus what the operation may have done, and the ring must be as good as new. */
#ifndef SAGE_PROOF_CORE_CRASH_H
#define SAGE_PROOF_CORE_CRASH_H

#include "core_lease.h"

/* Start states. */
enum { STATE_EMPTY, STATE_SOME, STATE_FULL, STATE_WRAPPING, STATE_LEASED, STATE_COUNT };
static const char *const state_names[] = {"empty", "some", "full", "wrapping", "leased"};

#define CRASH_LENGTH 120
#define NEW_ITEM 1000u

/* What one operation may do to the items that nobody holds: take up to `takes` from the front (all of them or none, if
 * `whole_takes` and no lease stands in the way), and append up to `adds` (all that fit or none). */
typedef struct {
    void (*operate)(sq_ring *ring);
    uint32_t takes, adds;
    bool whole_takes, whole_adds, needs_dead_holder, second_dies_too;
    uint32_t mode;
} crash_case;

static const crash_case *crashing;
static uint32_t crash_hit;
static int crash_state;

static void crash_child(int fd) {
    sq_ring *ring = join_ring(fd);
    arm(-1, crash_hit, die);
    crashing->operate(ring);
    disarm();
}

/* The second victim takes the lock over, and dies while it recovers or takes an item. */
static uint32_t second_hit;
static void crash_second(int fd) {
    sq_ring *ring = join_ring(fd);
    arm(-1, second_hit, die);
    int64_t got = get_item(ring);
    disarm();
    CHECK(got >= 0 || got == -SQ_EMPTY || got == -SQ_SHUTDOWN);
}

static void crash_fail(const char *what, long long value) {
    failed(__FILE__, __LINE__, "state %s, killed at hit %u (second at %u): %s (%lld)", state_names[crash_state],
           crash_hit, second_hit, what, value);
}
#define EXPECT(condition, value)                                                                                       \
    do {                                                                                                               \
        if (!(condition)) crash_fail(#condition, (long long)(value));                                                  \
    } while (0)

/* One start state, one kill (and perhaps a second). False when the operation ended before the kill. */
static bool crash_once(void) {
    int fd = MAKE_RING(.start_units = crash_state == STATE_WRAPPING ? (1ull << 32) - 20 : 0,
                       .start_items = crash_state == STATE_WRAPPING ? (1ull << 32) - 3 : 1, .mode = crashing->mode);
    sq_ring *ring = join_ring(fd), *holder = join_ring(fd);
    sq_record held;
    uint32_t count = 0, first = 0;
    bool ends_leased = crash_state == STATE_LEASED;
    if (crash_state != STATE_EMPTY)
        for (uint32_t most = crash_state == STATE_FULL ? UINT32_MAX : 6; count < most; count++)
            if (put_item(ring, count, CRASH_LENGTH) != SQ_OK) break;
    if (ends_leased) {
        CHECK_IS(sq_lease(holder, false, &held), SQ_OK);
        first = 1;
    }
    if (crashing->mode) { /* roles are held: let the child have them */
        sq_detach(ring);
    }
    if (crashing->needs_dead_holder) {
        if (count < 4) return false;
        CHECK(child_is_killed(take_two_leases_and_die, fd));
    }
    bool killed = child_is_killed(crash_child, fd), second = killed && crashing->second_dies_too;
    if (second) (void)child_is_killed(crash_second, fd); /* a late point: then it took an item and left */

    sq_stats stats;
    int64_t got;
    uint32_t takes = crashing->takes + (second_hit ? 1 : 0), news = 0, taken = 0, next = 0;
    bool shut;
    settle_locks(ring);
    for (int turn = 0; turn < 2; turn++) CHECK_IS(sq_sweep(ring, true), SQ_OK); /* everybody but `holder` is gone */
    sq_stats_read(ring, &stats);
    shut = stats.state & SQ_STATE_SHUTDOWN;
    EXPECT(stats.leased == (ends_leased ? 1u : 0u), stats.leased);
    EXPECT(stats.puts == sq_items(ring->header->tail) - (uint32_t)ring->first_item, stats.puts);
    EXPECT((uint32_t)ring->header->producers.count == sq_items(ring->header->tail), ring->header->producers.count);
    EXPECT((uint32_t)ring->header->consumers.count == sq_items(ring->header->head), ring->header->consumers.count);
    if (ends_leased) {
        EXPECT(whole_item(held.data, held.length), 0);
        CHECK_IS(sq_nack(holder, true, &held), SQ_OK);
        EXPECT((got = get_item(ring)) == 0, got);
    }
    for (next = first; (got = get_item(ring)) >= 0;) {
        if (got >= NEW_ITEM) {
            EXPECT(got == NEW_ITEM + news, got);
            news++;
            continue;
        }
        EXPECT(news == 0, got);
        /* What is missing was taken from the front; by the second victim perhaps from behind a lease of the first. */
        EXPECT(got >= next && (got == next || next == first || second), got);
        taken += (uint32_t)got - next;
        next = (uint32_t)got + 1;
    }
    EXPECT(got == (shut ? -SQ_SHUTDOWN : -SQ_EMPTY), got);
    EXPECT(next == count || next == first || second, next);
    taken += count - next;
    EXPECT(taken <= takes, taken);
    if (crashing->whole_takes && !ends_leased && !second)
        EXPECT(taken == 0 || taken == crashing->takes || taken == count - first, taken);
    EXPECT(news <= crashing->adds, news);
    if (crashing->whole_adds && crash_state != STATE_FULL) EXPECT(news == 0 || news == crashing->adds, news);
    EXPECT(ring->header->head == ring->header->tail, ring->header->head);
    EXPECT(!sq_load32(&ring->header->leases.disordered), 0);
    EXPECT(slots_in_use(ring) == (ends_leased ? 1u : 0u) + (crashing->mode ? 1u : 0u), slots_in_use(ring));
    for (uint32_t round = 0; round < 3 && !shut; round++) { /* as good as new */
        uint32_t filled = 0;
        while (put_item(ring, filled, CRASH_LENGTH) == SQ_OK) filled++;
        EXPECT(filled >= 27, filled);
        for (uint32_t number = 0; number < filled; number++) EXPECT((got = get_item(ring)) == number, got);
    }
    part_ring(holder);
    part_ring(ring);
    close(fd);
    return killed;
}

static void crash_everywhere(const crash_case *what) {
    uint32_t kills = 0;
    crashing = what;
    for (crash_state = 0; crash_state < STATE_COUNT; crash_state++) {
        if (what->mode && crash_state == STATE_LEASED) continue; /* the holder would have the role */
        second_hit = 0;
        for (crash_hit = 1;; crash_hit++) {
            bool killed;
            if (what->second_dies_too) {
                killed = true;
                for (second_hit = 1; killed && second_hit <= 9; second_hit += 2) killed = crash_once();
            } else {
                killed = crash_once();
            }
            if (!killed) break;
            kills++;
        }
    }
    CHECK(kills >= 4);
}

static void do_put(sq_ring *ring) {
    int status = put_item(ring, NEW_ITEM, CRASH_LENGTH);
    CHECK(status == SQ_OK || status == SQ_FULL);
}
static void do_put_many(sq_ring *ring) {
    static uint8_t bytes[3][CRASH_LENGTH];
    sq_part items[3];
    size_t done;
    for (uint32_t at = 0; at < 3; at++) {
        fill_item(bytes[at], NEW_ITEM + at, CRASH_LENGTH);
        items[at] = (sq_part){bytes[at], CRASH_LENGTH};
    }
    int status = sq_put_many(ring, items, 3, ANY_TAG, true, &done);
    CHECK(status == SQ_OK || status == SQ_FULL);
}
static void do_three_puts(sq_ring *ring) {
    for (uint32_t at = 0; at < 3; at++) {
        int status = put_item(ring, NEW_ITEM + at, CRASH_LENGTH);
        CHECK(status == SQ_OK || status == SQ_FULL);
    }
}
static void do_get(sq_ring *ring) {
    int64_t got = get_item(ring);
    CHECK(got >= 0 || got == -SQ_EMPTY);
}
static void do_get_many(sq_ring *ring) {
    sq_reader reader;
    sq_record record;
    CHECK_IS(sq_read_begin(ring, &reader, true), SQ_OK);
    for (int turn = 0; turn < 3 && sq_read_next(&reader, &record) == SQ_OK; turn++) sq_read_take(&reader, &record);
    CHECK_IS(sq_read_end(&reader), SQ_OK);
}
static void do_lease(sq_ring *ring) {
    sq_record record;
    int status = sq_lease(ring, true, &record);
    CHECK(status == SQ_OK || status == SQ_EMPTY);
}
static void do_lease_and_ack(sq_ring *ring) {
    sq_record first, second;
    if (sq_lease(ring, true, &first) != SQ_OK) return;
    if (sq_lease(ring, true, &second) == SQ_OK) CHECK_IS(sq_ack(ring, true, &second), SQ_OK);
    CHECK_IS(sq_ack(ring, true, &first), SQ_OK);
}
static void do_lease_and_ack_one(sq_ring *ring) {
    sq_record first;
    if (sq_lease(ring, true, &first) != SQ_OK) return;
    CHECK_IS(sq_ack(ring, true, &first), SQ_OK);
}
static void do_lease_and_nack(sq_ring *ring) {
    sq_record first, second;
    if (sq_lease(ring, true, &first) != SQ_OK) return;
    if (sq_lease(ring, true, &second) == SQ_OK) CHECK_IS(sq_nack(ring, true, &first), SQ_OK);
    else CHECK_IS(sq_nack(ring, true, &first), SQ_OK);
}
static void do_lease_and_detach(sq_ring *ring) {
    sq_record record;
    (void)sq_lease(ring, true, &record);
    (void)sq_lease(ring, true, &record);
    sq_detach(ring);
}
static void do_sweep(sq_ring *ring) { CHECK_IS(sq_sweep(ring, true), SQ_OK); }
static void do_clear(sq_ring *ring) {
    uint32_t dropped;
    CHECK_IS(sq_clear(ring, true, &dropped), SQ_OK);
}
static void do_shutdown(sq_ring *ring) {
    uint32_t dropped;
    CHECK_IS(sq_shutdown(ring, false, &dropped), SQ_OK);
}
static void do_resize(sq_ring *ring) { CHECK_IS(sq_resize(ring, 16384, SQ_FOREVER), SQ_OK); }
static void do_resize_twice(sq_ring *ring) {
    do_put(ring);
    do_resize(ring);
    CHECK_IS(sq_resize(ring, 65536, SQ_FOREVER), SQ_OK);
}
static void do_put_and_get(sq_ring *ring) {
    do_put(ring);
    do_get(ring);
}

#define CRASH_TEST(name, ...)                                                                                          \
    static void name(void) { crash_everywhere(&(crash_case){__VA_ARGS__}); }
CRASH_TEST(a_killed_put_leaves_the_whole_item_or_nothing, do_put, .adds = 1)
CRASH_TEST(a_killed_put_many_leaves_the_items_or_nothing, do_put_many, .adds = 3, .whole_adds = true)
CRASH_TEST(killed_puts_leave_a_prefix, do_three_puts, .adds = 3)
CRASH_TEST(a_killed_get_takes_the_item_or_leaves_it, do_get, .takes = 1)
CRASH_TEST(a_killed_get_many_takes_the_items_or_leaves_them, do_get_many, .takes = 3, .whole_takes = true)
CRASH_TEST(the_lease_of_a_killed_process_comes_back, do_lease, .takes = 0)
CRASH_TEST(a_killed_acknowledgement_takes_the_item_or_leaves_it, do_lease_and_ack_one, .takes = 1)
CRASH_TEST(a_killed_return_loses_nothing, do_lease_and_nack, .takes = 0)
CRASH_TEST(a_killed_detach_loses_nothing, do_lease_and_detach, .takes = 0)
CRASH_TEST(a_killed_sweep_loses_nothing, do_sweep, .needs_dead_holder = true)
CRASH_TEST(a_killed_clear_drops_or_leaves, do_clear, .takes = UINT32_MAX - 1)
CRASH_TEST(a_killed_shutdown_loses_nothing, do_shutdown, .takes = 0)
CRASH_TEST(a_killed_resize_loses_nothing, do_resize, .takes = 0)
CRASH_TEST(a_killed_second_resize_loses_nothing, do_resize_twice, .adds = 1)
CRASH_TEST(a_killed_holder_of_single_roles_loses_nothing, do_put_and_get, .takes = 1, .adds = 1, .mode = SPSC)
CRASH_TEST(a_killed_recovery_of_get_loses_nothing, do_get, .takes = 1, .second_dies_too = true)
CRASH_TEST(a_killed_recovery_of_acknowledgement_loses_nothing, do_lease_and_ack_one, .takes = 1, .second_dies_too = true)
CRASH_TEST(a_killed_recovery_of_return_loses_nothing, do_lease_and_nack, .second_dies_too = true)

/* Two leases, the second acknowledged first: items leave in another order, so this is checked as a set. */
static void killed_acknowledgements_out_of_order_lose_nothing(void) {
    for (uint32_t hit = 1;; hit++) {
        int fd = MAKE_RING(0);
        sq_ring *ring = join_ring(fd);
        uint32_t seen = 0;
        int64_t got;
        static const crash_case pair = {.operate = do_lease_and_ack};
        for (uint32_t number = 0; number < 5; number++) CHECK_IS(put_item(ring, number, 50), SQ_OK);
        crashing = &pair;
        crash_hit = hit;
        bool killed = child_is_killed(crash_child, fd);
        settle_locks(ring);
        CHECK_IS(sq_sweep(ring, true), SQ_OK);
        CHECK_IS(leased_count(ring), 0);
        while ((got = get_item(ring)) >= 0) {
            CHECK(!(seen & 1u << got));
            seen |= 1u << got;
        }
        CHECK_IS(got, -SQ_EMPTY);
        CHECK_IS(seen & 0x1c, 0x1c);
        CHECK(!(!(seen & 1) && (seen & 2))); /* the first was acknowledged last */
        CHECK(ring->header->head == ring->header->tail);
        part_ring(ring);
        close(fd);
        if (!killed) break;
    }
}

static void killed_before_publication_nothing_is_seen(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = join_ring(fd);
    static const crash_case put = {.operate = do_put};
    crashing = &put;
    crash_hit = 2; /* lock_taken, put_copied */
    CHECK(child_is_killed(crash_child, fd));
    CHECK_IS(sq_load64(&ring->header->tail), 0);
    CHECK_IS(sq_load32(&ring->header->producers.lock), FUTEX_OWNER_DIED); /* the kernel did that */
    CHECK_IS(put_item(ring, 1, 30), SQ_OK);
    CHECK_IS(get_item(ring), 1);
    sq_stats stats;
    sq_stats_read(ring, &stats);
    CHECK_IS(stats.put_recoveries, 1);
    CHECK_IS(stats.get_recoveries, 0);
}

/* The lock came from a dead owner, but the resized region cannot be mapped now: the next owner still repairs. */
static void lease_after_resize_and_die(int fd) {
    sq_ring *ring = join_ring(fd);
    sq_record record;
    CHECK_IS(sq_resize(ring, 1 << 20, SQ_FOREVER), SQ_OK);
    arm(SQ_POINT_lease_marked, 1, die);
    (void)sq_lease(ring, true, &record);
}
static void recovery_is_not_forgotten_when_mapping_fails(void) {
    int fd = MAKE_RING(0);
    sq_ring *ring = ring_with_three_items(fd);
    struct rlimit before, none;
    CHECK(child_is_killed(lease_after_resize_and_die, fd));
    CHECK_IS(getrlimit(RLIMIT_AS, &before), 0);
    none = before;
    none.rlim_cur = 1 << 20; /* less than is mapped already: every further mapping fails */
    CHECK_IS(setrlimit(RLIMIT_AS, &none), 0);
    int64_t got = get_item(ring);
    CHECK_IS(setrlimit(RLIMIT_AS, &before), 0);
    CHECK_IS(got, -SQ_SYSTEM);
    CHECK_IS(get_item(ring), 1);
    CHECK_IS(leased_count(ring), 1);
    CHECK_IS(sq_sweep(ring, true), SQ_OK);
    CHECK_IS(get_item(ring), 0);
    CHECK_IS(get_item(ring), 2);
}

/* An owner whom the kernel never marked (its thread has gone, or is of an earlier boot) is found by looking. */
static void a_lock_whose_owner_vanished_is_taken_over(void) {
    sq_ring *ring = join_ring(MAKE_RING(0));
    pid_t pid = fork();
    if (!pid) _exit(0);
    CHECK_IS(waitpid(pid, NULL, 0), pid);
    const uint32_t owners[] = {(uint32_t)pid, FUTEX_WAITERS | (uint32_t)pid, FUTEX_WAITERS};
    for (size_t at = 0; at < 3; at++) {
        sq_store32(&ring->header->producers.lock, owners[at]);
        sq_store32(&ring->header->consumers.lock, owners[at]);
        CHECK_IS(put_item(ring, 1, 30), SQ_BUSY);
        settle_locks(ring);
        CHECK_IS(put_item(ring, 1, 30), SQ_OK);
        CHECK_IS(get_item(ring), 1);
    }
}

static void take_lock(int fd) { CHECK_IS(sq_take_lock(join_ring(fd), SQ_PRODUCERS, false), SQ_OK); }
static void the_lock_of_a_stopped_owner_is_left_to_it(void) {
    int fd = MAKE_RING(0), how;
    sq_ring *ring = join_ring(fd);
    uint8_t bytes[10] = {0};
    keeper owner = keep_child(take_lock, fd);
    kill(owner.pid, SIGSTOP);
    CHECK_IS(waitpid(owner.pid, &how, WUNTRACED), owner.pid);
    for (int turn = 0; turn < 3; turn++) CHECK_IS(sq_put_wait(ring, bytes, 10, 0, sq_now_ns() + 100000000), SQ_AGAIN);
    sq_stats stats;
    sq_stats_read(ring, &stats);
    CHECK_IS(stats.put_lock_owner, owner.pid);
    kill_child(&owner);
    CHECK_IS(sq_put(ring, bytes, 10, 0), SQ_OK);
}

/* The numbers of processes that were alive before a boot belong to others now: here, to this very process. */
static void a_file_from_an_earlier_boot_is_adopted(void) {
    int fd = MAKE_RING(0);
    sq_ring *before = ring_with_three_items(fd);
    char state;
    uint64_t start;
    uint8_t now[16];
    CHECK(child_is_killed(take_two_leases_and_die, fd));
    CHECK(sq_process_stat((uint32_t)getpid(), &state, &start));
    before->header->participants[0].start_ticks = start;
    before->header->participants[0].pid = (uint32_t)getpid();
    before->header->producers.lock = (uint32_t)getpid();
    before->header->consumers.lock = (uint32_t)getpid();
    before->header->control.boot_id[3] ^= 0x55;
    CHECK_IS(flock(before->fd, LOCK_UN), 0); /* after a boot nobody has it open */
    sq_ring *ring = join_ring(fd);
    CHECK(sq_boot_id(now));
    CHECK(memcmp(now, ring->header->control.boot_id, 16) == 0);
    CHECK_IS(put_item(ring, 3, 30), SQ_OK);
    CHECK_IS(sq_wait_lock(ring, SQ_CONSUMERS), SQ_OK);
    CHECK_IS(leased_count(ring), 2);
    CHECK_IS(sq_sweep(ring, true), SQ_OK);
    CHECK_IS(leased_count(ring), 0);
    for (uint32_t number = 0; number < 4; number++) CHECK_IS(get_item(ring), number);
}

#endif
