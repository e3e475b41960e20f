/* What is swept: operations of the ring, the states they start from, and what must hold after whoever performed one
 * died in the middle. Used instruction by instruction (kill_sweep.c) and fault point by fault point (points.c).
 *
 * A bench is a small ring in a known state with a survivor's handle on it. The victim is a forked child that performs
 * one operation on the handle it inherited. Afterwards the survivor is asked: the items that must be there are whole
 * and in order, the others are gone, nothing leaked, and a full round of filling and draining works.
 */
#ifndef SAGE_PROOF_SWEEP_H
#define SAGE_PROOF_SWEEP_H

#include "core.h"

#include <dirent.h>
#include <sys/prctl.h>

#define ITEM_BYTES 40u /* with its header 4 units of the ring, 5 when sampled */
#define BATCH 3u
#define EXPECTED_MOST 256u /* more than 8192 bytes hold of items */

typedef struct bench bench;

typedef struct {
    const char *name;
    uint32_t queued; /* UINT32_MAX: as many as fit */
    uint64_t start_units, start_items;
    uint32_t mode;
    uint8_t flags;  /* of every record */
    bool held;      /* the survivor leases the first item */
    bool waited;    /* marks of sleepers on both sides */
    bool orphaned;  /* both locks come from dead owners, the counters are those of an unfinished turn */
    bool abandoned; /* a dead party leases the first item */
    bool locked;    /* the survivor holds both locks while the operation runs */
    bool rebooted;  /* the file is from an earlier boot, its locks held by whoever was alive then */
} start_state;

typedef struct {
    const char *name, *role;
    uint32_t puts, takes;
    bool leaves_spilled; /* takes no spilled records: those are leased */
    bool partial; /* with leases in the ring it takes item by item: a victim may have taken a part */
    bool apart;   /* marks item by item in every ring */
    bool fresh;   /* changes what the image does not hold: needs a bench of its own each time */
    void (*prepare)(bench *bench); /* in the victim, before what is swept; NULL: prepare_items() */
    void (*perform)(bench *bench); /* what is swept */
    bool (*judge)(bench *bench, bool completed); /* NULL: judge_items() */
} operation;

struct bench {
    const start_state *state;
    const operation *operation;
    int fd;
    sq_ring *ring, saved; /* the survivor's handle, also inherited by the victim */
    uint8_t *image;       /* the segment before the operation */
    size_t data_bytes;
    uint32_t queued, held;
    uint64_t head, tail;
    sq_record lease; /* the survivor's */
    sq_record own;   /* the victim's */
    char folder[64]; /* where created segments get their name */
};

static char complaint[512];
__attribute__((format(printf, 1, 2))) static bool complain(const char *form, ...) {
    va_list more;
    va_start(more, form);
    vsnprintf(complaint, sizeof complaint, form, more);
    va_end(more);
    return false;
}
#define EXPECT(got, wanted)                                                                                            \
    do {                                                                                                               \
        long long is_ = (long long)(got), wanted_ = (long long)(wanted);                                               \
        if (is_ != wanted_) return complain("%s is %lld, not %lld (line %d)", #got, is_, wanted_, __LINE__);           \
    } while (0)

/* -- The bench ----------------------------------------------------------------------------------------------------- */

static int put_numbered(sq_ring *ring, uint32_t number, uint8_t flags) {
    uint8_t bytes[ITEM_BYTES];
    fill_item(bytes, number, sizeof bytes);
    sq_part part = {bytes, sizeof bytes};
    return sq_put_parts(ring, &part, 1, (uint8_t)number, flags);
}

/* Takes one item, spilled or not. */
static int take_numbered(sq_ring *ring, uint32_t *number, uint32_t *attempt) {
    uint8_t bytes[ITEM_BYTES];
    sq_record record;
    int status = sq_get(ring, bytes, sizeof bytes, &record);
    if (status == SQ_SPILLED_RECORD) {
        status = sq_lease(ring, false, &record);
        if (status) return status;
        memcpy(bytes, record.data, record.length < sizeof bytes ? record.length : sizeof bytes);
        status = sq_ack(ring, false, &record);
    }
    if (status) return status;
    *attempt = SQ_LEASE_ATTEMPT(record.lease);
    *number = record.length == ITEM_BYTES && whole_item(bytes, record.length) ? item_number(bytes) : UINT32_MAX;
    return SQ_OK;
}

/* How many items an empty ring takes whose next item has this sequence. */
static uint32_t room_for(const sq_ring *ring, uint32_t sequence) {
    uint32_t units = 0, items = 0;
    for (;; items++) {
        bool extended = (sequence + items) % SQ_SAMPLE_EVERY == 0 || (ring->mode & SQ_MODE_CHECKSUM);
        units += sq_record_units(ITEM_BYTES, extended);
        if (units > ring->map->capacity || items >= ring->max_items) return items;
    }
}

static void abandon_lease(int fd) {
    sq_record record;
    CHECK_IS(sq_lease(join_ring(fd), false, &record), SQ_OK);
    kill(getpid(), SIGKILL);
}

static uint64_t extra_units, extra_items; /* where counters start, on top of what the state says */

static void bench_open(bench *bench, const operation *operation, const start_state *state) {
    memset(bench, 0, sizeof *bench);
    bench->operation = operation;
    bench->state = state;
    bench->fd = MAKE_RING(.start_units = state->start_units + extra_units, .mode = state->mode,
                          .start_items = state->start_items + extra_items);
    sq_ring *filler = join_ring(bench->fd);
    while (bench->queued < state->queued && put_numbered(filler, bench->queued, state->flags) == SQ_OK) bench->queued++;
    part_ring(filler);
    if (state->abandoned) {
        CHECK(child_is_killed(abandon_lease, bench->fd));
        bench->held = 1;
    }
    bench->ring = join_ring(bench->fd);
    sq_header *header = bench->ring->header;
    if (state->held) {
        CHECK_IS(sq_lease(bench->ring, false, &bench->lease), SQ_OK);
        bench->held = 1;
    }
    if (state->orphaned) {
        sq_store32(&header->producers.lock, FUTEX_OWNER_DIED);
        sq_store32(&header->consumers.lock, FUTEX_OWNER_DIED | FUTEX_WAITERS);
        sq_store64(&header->producers.count, sq_load64(&header->producers.count) - 1);
        sq_store32(&header->leases.leased, 0);
        if (state->held) sq_store64(&header->leases.cursor, sq_load64(&header->head));
    }
    if (state->waited) {
        sq_store32(&header->not_empty.sleepers, 2);
        sq_store32(&header->not_full.sleepers, 2);
    }
    if (state->rebooted) {
        memset(header->control.boot_id, 1, sizeof header->control.boot_id);
        sq_store32(&header->producers.lock, 4000001);
        sq_store32(&header->consumers.lock, 4000002 | FUTEX_WAITERS);
    }
    CHECK(flock(bench->ring->fd, LOCK_UN) == 0); /* so that judge_attach() sees the victim's alone */
    bench->head = sq_load64(&header->head);
    bench->tail = sq_load64(&header->tail);
    bench->data_bytes = (size_t)bench->ring->map->capacity * SQ_UNIT;
    bench->image = malloc(bench->ring->header_bytes + bench->data_bytes);
    CHECK(bench->image);
    memcpy(bench->image, header, bench->ring->header_bytes);
    memcpy(bench->image + bench->ring->header_bytes, bench->ring->map->data, bench->data_bytes);
    bench->saved = *bench->ring;
    snprintf(bench->folder, sizeof bench->folder, "/dev/shm/sage-sweep-%d", getpid());
}
static void bench_close(bench *bench) {
    part_ring(bench->ring);
    close(bench->fd);
    free(bench->image);
}
/* Back to the state before the operation. */
static void bench_reset(bench *bench) {
    if (bench->operation->fresh) {
        const operation *operation = bench->operation;
        const start_state *state = bench->state;
        bench_close(bench);
        bench_open(bench, operation, state);
        return;
    }
    memcpy(bench->ring->header, bench->image, bench->ring->header_bytes);
    memcpy(bench->ring->map->data, bench->image + bench->ring->header_bytes, bench->data_bytes);
    *bench->ring = bench->saved;
}

/* -- What must hold afterwards ------------------------------------------------------------------------------------- */

/* The items that must come now, and with which attempt. */
typedef struct {
    uint32_t items, number[EXPECTED_MOST];
    uint8_t attempt[EXPECTED_MOST];
} expectation;

static bool drain(sq_ring *ring, const expectation *expected) {
    uint32_t number = 0, attempt = 0;
    for (uint32_t at = 0; at < expected->items; at++) {
        int status = take_numbered(ring, &number, &attempt);
        if (status) return complain("status %d instead of item %u of %u", status, at, expected->items);
        if (number == UINT32_MAX) return complain("item %u is torn", expected->number[at]);
        if (number != expected->number[at]) return complain("item %u came instead of %u", number, expected->number[at]);
        if (attempt != expected->attempt[at])
            return complain("item %u came with attempt %u, not %u", number, attempt, expected->attempt[at]);
    }
    int status = take_numbered(ring, &number, &attempt);
    if (status != SQ_EMPTY)
        return complain("status %d (item %u) after the last of %u", status, number, expected->items);
    return true;
}

/* Reads the lease words as the victim left them. An item's number is its distance from the first one of the start
 * state; those that somebody else than the survivor leased must come back, counted. *gone: items that head passed, or
 * that are marked as taken behind it. */
static void expect_what_is_there(bench *bench, expectation *expected, uint32_t *gone) {
    sq_ring *ring = bench->ring;
    uint64_t at = sq_load64(&ring->header->head), tail = sq_load64(&ring->header->tail);
    *gone = sq_items(at) - sq_items(bench->head);
    expected->items = 0;
    while (sq_units(at) != sq_units(tail)) {
        sq_record_header *record = sq_record_at(ring->map, at);
        uint32_t lease = sq_load32(&record->lease), phase = SQ_LEASE_PHASE(lease);
        if (phase == SQ_TAKEN) {
            ++*gone;
        } else if (phase != SQ_LEASED || SQ_LEASE_SLOT(lease) + 1 != bench->saved.slot) {
            expected->number[expected->items] = sq_items(at) - sq_items(bench->head);
            expected->attempt[expected->items++] = (uint8_t)(SQ_LEASE_ATTEMPT(lease) + (phase == SQ_LEASED));
        }
        at = sq_advance(at, sq_record_units(record->length, record->flags & SQ_RECORD_EXTENDED), 1);
    }
}

/* The survivor takes the roles of a dead holder over, and brings back what dead parties held. */
static bool step_in(bench *bench) {
    EXPECT(sq_wait_lock(bench->ring, SQ_PRODUCERS), SQ_OK);
    EXPECT(sq_wait_lock(bench->ring, SQ_CONSUMERS), SQ_OK);
    EXPECT(sq_sweep(bench->ring, true), SQ_OK);
    return true;
}

/* Nothing leaked: no count, no mark, no slot but the survivor's, and all of the room can be used again, twice. */
static bool works_like_new(sq_ring *ring) {
    sq_header *header = ring->header;
    sq_stats stats;
    sq_stats_read(ring, &stats);
    EXPECT(stats.puts - stats.gets, 0);
    EXPECT(stats.depth, 0);
    EXPECT(stats.leased, 0);
    EXPECT(sq_load64(&header->head), sq_load64(&header->tail));
    EXPECT(sq_load32(&header->leases.disordered), 0);
    for (uint32_t slot = 0; slot < sq_load32(&header->control.participants_used); slot++)
        if (slot + 1 != ring->slot) EXPECT(sq_party_pid(ring, slot), 0);
    for (int round = 0; round < 2; round++) {
        expectation expected = {.items = room_for(ring, sq_items(sq_load64(&header->tail)))};
        for (uint32_t at = 0; at < expected.items; at++) {
            expected.number[at] = 1000 + at;
            int status = put_numbered(ring, 1000 + at, 0);
            if (status) return complain("status %d at item %u of %u while refilling", status, at, expected.items);
        }
        EXPECT(put_numbered(ring, 0, 0), SQ_FULL);
        if (!drain(ring, &expected)) return false;
    }
    return true;
}

/* The words that commit say what was put and what was taken; the survivor must find exactly that. */
static bool judge_items(bench *bench, bool completed) {
    const operation *operation = bench->operation;
    const start_state *state = bench->state;
    sq_ring *ring = bench->ring;
    expectation expected;
    uint32_t gone, visible = bench->queued - bench->held;
    uint32_t put = sq_items(sq_load64(&ring->header->tail)) - sq_items(bench->tail);
    uint32_t takes = operation->takes < visible ? operation->takes : visible, puts = operation->puts;
    if (state->queued == UINT32_MAX) puts = 0;
    if (state->locked) puts = takes = 0;
    if (state->flags & SQ_RECORD_SPILLED && operation->leaves_spilled) takes = 0;
    expect_what_is_there(bench, &expected, &gone);
    if (put != puts && (put != 0 || completed)) return complain("%u of %u items were put", put, puts);
    bool may_be_partial = operation->apart || (operation->partial && bench->held);
    if (gone != takes && (gone != 0 || completed) && !(may_be_partial && !completed && gone < takes))
        return complain("%u of %u items were taken", gone, takes);
    if (!step_in(bench) || !drain(ring, &expected)) return false;
    if (state->held) EXPECT(sq_ack(ring, false, &bench->lease), SQ_OK);
    return works_like_new(ring);
}

/* -- Operations ---------------------------------------------------------------------------------------------------- */

static uint8_t scratch[BATCH][ITEM_BYTES]; /* private to the victim */

static void prepare_items(bench *bench) {
    sq_thread_current();
    /* Looking whether the survivor, who has a lease, is alive takes long and touches nothing that is shared. Where
     * somebody is dead, it is part of what is swept. */
    if (!bench->state->abandoned) sq_store64(&bench->ring->next_sweep_ns, SQ_FOREVER);
    for (uint32_t at = 0; at < BATCH; at++) fill_item(scratch[at], bench->queued + at, ITEM_BYTES);
}
static void perform_put(bench *bench) {
    sq_part part = {scratch[0], ITEM_BYTES};
    sq_put_parts(bench->ring, &part, 1, (uint8_t)bench->queued, bench->state->flags);
}
static void perform_put_many(bench *bench) {
    sq_part parts[BATCH];
    size_t done;
    for (uint32_t at = 0; at < BATCH; at++) parts[at] = (sq_part){scratch[at], ITEM_BYTES};
    sq_put_many(bench->ring, parts, BATCH, 0, false, &done);
}
static void perform_put_wait(bench *bench) {
    sq_put_wait(bench->ring, scratch[0], ITEM_BYTES, (uint8_t)bench->queued, sq_now_ns() + 500000);
}
static void perform_get(bench *bench) {
    sq_record record;
    sq_get(bench->ring, scratch[0], ITEM_BYTES, &record);
}
static void perform_get_wait(bench *bench) {
    sq_record record;
    sq_get_wait(bench->ring, scratch[0], ITEM_BYTES, &record, sq_now_ns() + 500000);
}
static void perform_get_many(bench *bench) {
    sq_reader reader;
    sq_record record;
    if (sq_read_begin(bench->ring, &reader, false)) return;
    while (reader.items < BATCH && sq_read_next(&reader, &record) == SQ_OK && !(record.flags & SQ_RECORD_SPILLED)) {
        memcpy(scratch[reader.items], record.data, ITEM_BYTES);
        sq_read_take(&reader, &record);
    }
    sq_read_end(&reader);
}
static void perform_lease_ack(bench *bench) {
    if (sq_lease(bench->ring, false, &bench->own)) return;
    memcpy(scratch[0], bench->own.data, ITEM_BYTES);
    sq_ack(bench->ring, false, &bench->own);
}
static void perform_lease_many(bench *bench) {
    sq_record records[BATCH];
    uint32_t count, fenced;
    if (sq_lease_many(bench->ring, records, BATCH, SQ_FOREVER, &count) || !count) return;
    for (uint32_t at = 0; at < count; at++) memcpy(scratch[at], records[at].data, ITEM_BYTES);
    sq_settle_many(bench->ring, false, records, count, BATCH - 1, &fenced);
}
static void prepare_lease(bench *bench) {
    prepare_items(bench);
    memset(&bench->own, 0, sizeof bench->own);
    sq_lease(bench->ring, false, &bench->own); /* Empty in an empty ring: then there is nothing to give back */
}
static void perform_nack(bench *bench) {
    sq_nack(bench->ring, false, &bench->own);
}
static void perform_detach(bench *bench) {
    sq_detach(bench->ring);
}
static void perform_sweep(bench *bench) {
    sq_sweep(bench->ring, true);
}
static void perform_clear(bench *bench) {
    uint32_t dropped;
    sq_clear(bench->ring, false, &dropped);
}

/* Attaching changes nothing, whenever it ends, and leaves no lock on the file. */
static void perform_attach(bench *bench) {
    sq_ring *ring = calloc(1, sizeof *ring);
    int fd = reopen(bench->fd);
    if (sq_attach(ring, fd)) _exit(9);
    sq_detach(ring);
    sq_unmap(ring);
    close(fd);
}
static bool judge_attach(bench *bench, bool completed) {
    sq_ring *another = NULL;
    EXPECT(try_join(bench->fd, &another), SQ_OK);
    part_ring(another);
    EXPECT(flock(bench->ring->fd, LOCK_EX | LOCK_NB), 0);
    EXPECT(flock(bench->ring->fd, LOCK_UN), 0);
    return judge_items(bench, completed);
}

/* The file gets its name last: what has the name is a whole ring, and without it nothing stays. */
static void prepare_create(bench *bench) {
    mkdir(bench->folder, 0700);
}
static void perform_create(bench *bench) {
    sq_settings settings = {.capacity_bytes = 4096};
    sq_fault fault;
    char path[40], name[80];
    int fd = open(bench->folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || sq_format(fd, &settings, &fault) != SQ_OK) _exit(9);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    snprintf(name, sizeof name, "%s/ring", bench->folder);
    if (linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW) != 0) _exit(9);
}
static bool judge_create(bench *bench, bool completed) {
    char name[80];
    snprintf(name, sizeof name, "%s/ring", bench->folder);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    sq_ring *made = NULL;
    bool good = true;
    if (fd < 0 && completed) return complain("nothing was created");
    if (fd >= 0) {
        int status = try_join(fd, &made);
        if (status) return complain("the created segment cannot be attached: status %d", status);
        good = works_like_new(made);
        part_ring(made);
        close(fd);
        EXPECT(unlink(name), 0);
    }
    EXPECT(rmdir(bench->folder), 0); /* fails when anything else is left in it */
    return good;
}

/* Shutdown can be finished by anyone; until the bit is set, nothing has happened. */
static void perform_shutdown(bench *bench) {
    uint32_t dropped;
    sq_shutdown(bench->ring, false, &dropped);
}
static void perform_shutdown_now(bench *bench) {
    uint32_t dropped;
    sq_shutdown(bench->ring, true, &dropped);
}
static bool judge_shutdown(bench *bench, bool completed) {
    sq_ring *ring = bench->ring;
    uint32_t state = sq_state(ring), dropped = 0, gone, number = 0, attempt = 0;
    bool immediate = bench->operation->perform == perform_shutdown_now;
    expectation expected;
    expect_what_is_there(bench, &expected, &gone);
    if (completed && !state) return complain("the ring was not shut down");
    if (immediate && state && !(state & SQ_STATE_IMMEDIATE)) return complain("shut down by halves: state %u", state);
    if (gone && !(immediate && state)) return complain("%u items are gone", gone);
    if (!step_in(bench)) return false;
    if (!state && put_numbered(ring, bench->queued, 0) == SQ_OK) {
        expected.number[expected.items] = bench->queued;
        expected.attempt[expected.items++] = 0;
    }
    EXPECT(sq_shutdown(ring, immediate, &dropped), SQ_OK);
    EXPECT(put_numbered(ring, 0, 0), SQ_SHUTDOWN);
    for (uint32_t at = 0; at < expected.items && !immediate; at++) {
        EXPECT(take_numbered(ring, &number, &attempt), SQ_OK);
        EXPECT(number, expected.number[at]);
        EXPECT(attempt, expected.attempt[at]);
    }
    if (bench->state->held) EXPECT(sq_ack(ring, false, &bench->lease), SQ_OK);
    EXPECT(take_numbered(ring, &number, &attempt), SQ_SHUTDOWN);
    EXPECT(sq_load64(&ring->header->head), sq_load64(&ring->header->tail));
    return true;
}

/* Sealed or not; in both cases everything is still taken from here, once. */
static void perform_seal(bench *bench) {
    uint32_t left;
    sq_seal(bench->ring, &left);
}
static bool judge_seal(bench *bench, bool completed) {
    sq_ring *ring = bench->ring;
    uint32_t state = sq_state(ring), left = 0, gone, number = 0, attempt = 0;
    expectation expected;
    expect_what_is_there(bench, &expected, &gone);
    if (ring->mode & SQ_MODE_SINGLE_PRODUCER) {
        EXPECT(sq_seal(ring, &left), SQ_INVALID);
        EXPECT(state, 0);
        return true;
    }
    if (completed && !state) return complain("the ring was not sealed");
    if (state && state != (SQ_STATE_SHUTDOWN | SQ_STATE_MOVED)) return complain("sealed by halves: state %u", state);
    if (gone) return complain("%u items are gone", gone);
    if (!step_in(bench)) return false;
    EXPECT(sq_seal(ring, &left), state ? SQ_SHUTDOWN : SQ_OK);
    EXPECT(left, expected.items + bench->state->held);
    EXPECT(put_numbered(ring, 0, 0), SQ_SHUTDOWN);
    for (uint32_t at = 0; at < expected.items; at++) {
        EXPECT(take_numbered(ring, &number, &attempt), SQ_OK);
        EXPECT(number, expected.number[at]);
        EXPECT(attempt, expected.attempt[at]);
    }
    if (bench->state->held) EXPECT(sq_ack(ring, false, &bench->lease), SQ_OK);
    EXPECT(take_numbered(ring, &number, &attempt), SQ_SHUTDOWN);
    return true;
}

/* Resized or not, nothing queued is lost, and the next resize succeeds. */
static void perform_resize(bench *bench) {
    sq_resize(bench->ring, 8192, sq_now_ns() + 1000000000ull);
}
static bool judge_resize(bench *bench, bool completed) {
    sq_ring *ring = bench->ring;
    uint32_t number = 0, attempt = 0, gone;
    expectation expected;
    EXPECT(sq_wait_lock(ring, SQ_CONSUMERS), SQ_OK); /* maps the new region, if there is one */
    if (completed) EXPECT((uint64_t)ring->map->capacity * SQ_UNIT, 8192);
    expect_what_is_there(bench, &expected, &gone);
    EXPECT(gone, 0);
    if (!step_in(bench)) return false;
    if (!drain(ring, &expected)) return false;
    EXPECT(put_numbered(ring, 1, 0), SQ_OK);
    EXPECT(sq_resize(ring, 8192, sq_now_ns() + 1000000000ull), SQ_OK);
    EXPECT((uint64_t)ring->map->capacity * SQ_UNIT, 8192);
    EXPECT(take_numbered(ring, &number, &attempt), SQ_OK);
    EXPECT(number, 1);
    if (bench->state->held) EXPECT(sq_ack(ring, false, &bench->lease), SQ_OK);
    return works_like_new(ring);
}

static const operation operations[] = {
    {"put", "producer", .puts = 1, .perform = perform_put},
    {"get", "consumer", .takes = 1, .leaves_spilled = true, .partial = true, .perform = perform_get},
    {"put_many", "producer", .puts = BATCH, .perform = perform_put_many},
    {"get_many", "consumer", .takes = BATCH, .leaves_spilled = true, .partial = true, .perform = perform_get_many},
    {"lease_ack", "consumer", .takes = 1, .perform = perform_lease_ack},
    {"lease_many", "consumer", .takes = BATCH - 1, .leaves_spilled = true, .apart = true, .perform = perform_lease_many},
    {"nack", "consumer", .prepare = prepare_lease, .perform = perform_nack},
    {"detach", "consumer", .prepare = prepare_lease, .perform = perform_detach},
    {"sweep", "consumer", .perform = perform_sweep},
    {"clear", "consumer", .takes = UINT32_MAX, .partial = true, .perform = perform_clear},
    {"shutdown", "owner", .perform = perform_shutdown, .judge = judge_shutdown},
    {"shutdown_now", "owner", .perform = perform_shutdown_now, .judge = judge_shutdown},
    {"seal", "owner", .perform = perform_seal, .judge = judge_seal},
    {"resize", "owner", .fresh = true, .perform = perform_resize, .judge = judge_resize},
    {"attach", "owner", .perform = perform_attach, .judge = judge_attach},
    {"create", "owner", .prepare = prepare_create, .perform = perform_create, .judge = judge_create},
    {"put_wait", "producer", .puts = 1, .perform = perform_put_wait},
    {"get_wait", "consumer", .takes = 1, .leaves_spilled = true, .partial = true, .perform = perform_get_wait},
};
#define OPERATIONS (sizeof operations / sizeof *operations)

#define WRAP (1ull << 32)
static const start_state states[] = {
    {.name = "empty"},
    {.name = "full", .queued = UINT32_MAX},
    {.name = "wrapping", .queued = 5, .start_units = WRAP - 2, .start_items = WRAP - 3},
    {.name = "wrapping_tail", .queued = 5, .start_units = WRAP - 22, .start_items = 2 * WRAP - 5},
    {.name = "spilling", .queued = 3, .flags = SQ_RECORD_SPILLED},
    {.name = "waited", .queued = 5, .waited = true},
    {.name = "leased", .queued = 5, .held = true, .start_items = 62},
    {.name = "orphaned", .queued = 5, .held = true, .orphaned = true},
    {.name = "abandoned", .queued = 5, .abandoned = true},
    {.name = "single", .queued = 5, .mode = SQ_MODE_SINGLE_PRODUCER | SQ_MODE_SINGLE_CONSUMER},
    {.name = "checked", .queued = 5, .mode = SQ_MODE_CHECKSUM},
    {.name = "locked", .queued = 5, .locked = true},
    {.name = "rebooted", .queued = 5, .rebooted = true},
};
#define STATES (sizeof states / sizeof *states)

/* Does it say anything new to start this operation from that state? */
static bool worth_sweeping(const operation *operation, const start_state *state) {
    if (state->rebooted) return operation->perform == perform_attach;
    bool waits = operation->perform == perform_put_wait || operation->perform == perform_get_wait;
    if (operation->perform == perform_create) return !state->queued && !state->mode;
    if (operation->perform == perform_sweep) return state->abandoned;
    if (operation->perform == perform_resize && state->mode & SQ_MODE_SINGLE_PRODUCER) return false;
    return waits || !state->locked;
}

/* Forks a victim that prepares and then performs the operation, between two calls of its own. */
static pid_t start_victim(bench *bench, void (*before)(void), void (*after)(void)) {
    fflush(stdout);
    if (bench->state->locked) {
        CHECK_IS(sq_lock_try(&bench->ring->header->consumers.lock), SQ_LOCK_TAKEN);
        CHECK_IS(sq_lock_try(&bench->ring->header->producers.lock), SQ_LOCK_TAKEN);
    }
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid) return pid;
    (bench->operation->prepare ? bench->operation->prepare : prepare_items)(bench);
    before();
    bench->operation->perform(bench);
    after();
    _exit(0);
}
/* After the victim ended. False: `complaint` says what is wrong. */
static bool judge(bench *bench, bool completed) {
    if (bench->state->locked) {
        sq_lock_free(&bench->ring->header->producers.lock);
        sq_lock_free(&bench->ring->header->consumers.lock);
    }
    return (bench->operation->judge ? bench->operation->judge : judge_items)(bench, completed);
}

#endif
