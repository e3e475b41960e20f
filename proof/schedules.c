/* Runs the real core under schedules that a seed decides, kills and stops processes at any step, and accounts for every
 * item.
 *
 *   schedules COUNT SEED                 so many, shared among all scenarios
 *   schedules --first COUNT SEED         the same, up to the first finding
 *   schedules --replay SCENARIO SEED     one again, step by step
 *
 * Built with -DSQ_FAULT_POINTS, for the names of the points in a replay. See world.h for what is real and what is not.
 */
#include "world.h"

#define ITEMS_MOST 64     /* of one process */
#define LENGTH_MOST 1400
#define STEPS_SEEN 4096
#define TURNS_MOST 400
#define LATE_NS 20000000ull /* some thousand steps of others */
#define PATIENCE_NS 40000000ull /* less than a slice */

/* -- What is tried ------------------------------------------------------------------------------------------------- */

typedef struct {
    void (*script)(actor *);
    int amount;
} role;
typedef struct {
    const char *name;
    role roles[ACTORS_MOST];
    uint64_t max_items;
    uint32_t length; /* of the shortest item */
    uint32_t mode;
    uint32_t weight; /* share of the schedules */
} scenario;
static struct {
    const scenario *plan;
    int fd;
    void *header, *data; /* as they were when everybody had attached */
    sq_ring rings[ACTORS_MOST + 1];
    bool died[ACTORS_MOST][STEPS_SEEN];
} bench;

/* -- The account, which no process can take with it ----------------------------------------------------------------- */

enum fate { UNBORN, PERHAPS, PUT, REFUSED };
typedef struct {
    enum fate fate;
    uint8_t taken;
} item;
static struct {
    item items[ACTORS_MOST][ITEMS_MOST];
    int next[ACTORS_MOST];
    int perhaps;                                  /* at most so many were taken by somebody who died before saying so */
    bool perhaps_all;                             /* somebody died while it dropped everything */
    int64_t dropped;
    int last[ACTORS_MOST + 1][ACTORS_MOST];       /* youngest of each producer that a consumer has seen */
} account;

static int self_index(const actor *self) { return (int)(self - world.actors); }
static uint32_t length_of(int producer, int number) {
    return bench.plan->length + (uint32_t)(producer * 7 + number * 11) % 32;
}

static uint32_t make_item(uint8_t *bytes, int producer, int number) {
    uint32_t length = length_of(producer, number);
    for (uint32_t at = 2; at < length; at++) bytes[at] = (uint8_t)(producer * 31 + number * 7 + (int)at);
    bytes[0] = (uint8_t)producer;
    bytes[1] = (uint8_t)number;
    return length;
}
static item *known_item(const uint8_t *bytes, uint32_t length, int *producer, int *number) {
    uint8_t right[LENGTH_MOST];
    *producer = bytes[0], *number = bytes[1];
    if (length < 8 || length > LENGTH_MOST || *producer >= world.count || *number >= account.next[*producer] ||
        make_item(right, *producer, *number) != length || memcmp(right, bytes, length) != 0) {
        wrong("bytes came out that nobody put: %u %u ..., %u long", bytes[0], bytes[1], length);
        return NULL;
    }
    return &account.items[*producer][*number];
}
static void note_order(const actor *self, int producer, int number, bool redelivered) {
    int *last = &account.last[self_index(self)][producer];
    if (!redelivered && number < *last)
        wrong("process %u got item %d of producer %d after item %d", self->thread.id, number, producer, *last);
    if (number > *last) *last = number;
}
static void note_taken(const actor *self, const uint8_t *bytes, uint32_t length, bool redelivered) {
    int producer, number;
    item *one = known_item(bytes, length, &producer, &number);
    if (!one) return;
    note_order(self, producer, number, redelivered);
    if (one->taken++) wrong("item %d of producer %d was taken twice", number, producer);
}

static int birth(actor *self) {
    int producer = self_index(self), number = account.next[producer]++;
    account.items[producer][number].fate = PERHAPS;
    return number;
}
static void born(actor *self, int number, int status) {
    account.items[self_index(self)][number].fate = status == SQ_OK ? PUT : REFUSED;
}
static bool over(const actor *one) { return one->stance == DONE || one->stance == DEAD; }
static bool producing(void);

/* -- Scripts ------------------------------------------------------------------------------------------------------- */

#define UNEXPECTED(call) wrong("process %u: %s answered %d (%s)", self->thread.id, call, status, self->ring->fault.field ? self->ring->fault.field : "")

static void produce(actor *self) {
    uint8_t bytes[LENGTH_MOST];
    for (int done = 0; done < self->amount; done++) {
        int number = birth(self), status;
        uint32_t length = make_item(bytes, self_index(self), number);
        uint64_t deadline = now_ns() + 40 * PATIENCE_NS;
        while ((status = sq_put_wait(self->ring, bytes, length, 0, deadline)) == SQ_AGAIN) continue;
        born(self, number, status);
        if (status == SQ_SHUTDOWN || status == SQ_FULL) return;
        if (status) UNEXPECTED("put");
    }
}
static void produce_many(actor *self) {
    uint8_t bytes[4][LENGTH_MOST];
    for (int turns = 0; self->amount > 0 && turns < TURNS_MOST; turns++) {
        sq_part parts[4];
        int first = account.next[self_index(self)], count = self->amount < 4 ? self->amount : 4;
        for (int at = 0; at < count; at++) {
            int number = birth(self);
            parts[at] = (sq_part){bytes[at], make_item(bytes[at], self_index(self), number)};
        }
        size_t done = 0;
        int status = sq_put_many(self->ring, parts, (size_t)count, 0, true, &done);
        for (int at = 0; at < count; at++) born(self, first + at, at < (int)done ? SQ_OK : SQ_FULL);
        self->amount -= count;
        if (status == SQ_SHUTDOWN) return;
        if (status != SQ_OK && status != SQ_FULL && status != SQ_AGAIN) UNEXPECTED("put_many");
        if (status == SQ_FULL && self->amount > 0) /* likewise: who was woken has to try */
            (void)sq_wait_turn(self->ring, SQ_PRODUCERS, world.units_most, now_ns() + PATIENCE_NS);
    }
}
/* Whether a consumer goes on after this answer. */
static bool goes_on(actor *self, const char *call, int status) {
    if (status == SQ_OK || status == SQ_AGAIN || status == SQ_BUSY) return true;
    if (status == SQ_EMPTY) return producing();
    if (status != SQ_SHUTDOWN) UNEXPECTED(call);
    else if (!world.waits_may_fail && sq_load64(&self->ring->header->head) != sq_load64(&self->ring->header->tail))
        /* Who shuts down does not wait longer than a slice for the lock, and says so: docs/explanation/memory-model.md. */
        wrong("process %u: %s says that the ring was shut down, and there are items", self->thread.id, call);
    return false;
}
static void consume(actor *self) {
    for (int status = SQ_OK, turns = 0; goes_on(self, "get", status) && turns < TURNS_MOST; turns++) {
        uint8_t bytes[LENGTH_MOST];
        sq_record record;
        uint64_t deadline = now_ns() + PATIENCE_NS;
        account.perhaps++;
        while ((status = sq_get_wait(self->ring, bytes, sizeof bytes, &record, deadline)) == SQ_AGAIN) continue;
        account.perhaps--;
        if (now_ns() > deadline + SQ_SLICE_NS + LATE_NS && !self->stops_at)
            wrong("process %u waited for %llu ms beyond its deadline", self->thread.id, (unsigned long long)(now_ns() - deadline) / 1000000);
        if (status == SQ_OK) note_taken(self, bytes, record.length, SQ_LEASE_ATTEMPT(record.lease) > 0);
    }
}
/* Looks at a message on trial; NULL when it is none that may be there. */
static item *hold(actor *self, const sq_record *record) {
    int producer, number;
    item *one = known_item(record->data, record->length, &producer, &number);
    if (!one) return NULL;
    note_order(self, producer, number, SQ_LEASE_ATTEMPT(record->lease) > 0);
    if (one->taken) wrong("item %d of producer %d was leased after it had been taken", number, producer);
    return one;
}
static void settle_one(actor *self, const sq_record *record, item *one) {
    int accept = chance(3) != 0, status;
    account.perhaps += accept;
    do status = accept ? sq_ack(self->ring, true, record) : sq_nack(self->ring, true, record);
    while (status == SQ_AGAIN);
    account.perhaps -= accept;
    if (status) UNEXPECTED(accept ? "ack" : "nack");
    else if (one && accept && one->taken++) wrong("an item was acknowledged twice");
}
static void lease(actor *self) {
    for (int status = SQ_OK, turns = 0; goes_on(self, "lease", status) && turns < TURNS_MOST; turns++) {
        sq_record first, second;
        uint64_t deadline = now_ns() + PATIENCE_NS;
        while ((status = sq_lease_wait(self->ring, &first, deadline)) == SQ_AGAIN) continue;
        if (status) continue;
        item *older = hold(self, &first);
        if (chance(2) && sq_lease(self->ring, false, &second) == SQ_OK) settle_one(self, &second, hold(self, &second));
        settle_one(self, &first, older);
    }
}
static void lease_many(actor *self) {
    for (int status = SQ_OK, turns = 0; goes_on(self, "lease_many", status) && turns < TURNS_MOST; turns++) {
        sq_record records[3];
        item *held[3];
        uint32_t count = 0, fenced;
        status = sq_lease_many(self->ring, records, 3, 1000, &count);
        if (status == SQ_BUSY) (void)sq_wait_lock(self->ring, SQ_CONSUMERS);
        if (status == SQ_EMPTY && (sq_reap(self->ring, true) == SQ_OK ||
                                   sq_wait_turn(self->ring, SQ_CONSUMERS, 0, now_ns() + PATIENCE_NS) == SQ_OK))
            status = SQ_OK; /* who was woken has to try, as all that wait inside the ring do */
        if (!count) continue;
        for (uint32_t at = 0; at < count; at++) held[at] = hold(self, &records[at]);
        int acked = (int)chance(count + 1), settled;
        account.perhaps += acked;
        do settled = sq_settle_many(self->ring, true, records, count, (uint32_t)acked, &fenced);
        while (settled == SQ_AGAIN);
        account.perhaps -= acked;
        if (settled || fenced) wrong("process %u: settle_many answered %d, %u fenced", self->thread.id, settled, fenced);
        for (int at = 0; at < acked; at++)
            if (held[at] && held[at]->taken++) wrong("an item was acknowledged twice");
    }
}
static void detach(actor *self) {
    sq_record records[2];
    for (int at = 0; at < 2; at++) (void)sq_lease_wait(self->ring, &records[at], now_ns() + PATIENCE_NS);
    sq_detach(self->ring);
}
static void clear(actor *self) {
    for (int turn = 0; turn < self->amount; turn++) {
        uint32_t dropped = 0;
        bool before = account.perhaps_all;
        account.perhaps_all = true;
        int status = sq_clear(self->ring, true, &dropped);
        account.perhaps_all = before;
        account.dropped += dropped;
        if (status && status != SQ_AGAIN) UNEXPECTED("clear");
        (void)world_yield();
    }
}
static void shut(actor *self) {
    uint32_t dropped;
    world_sleep(chance(10000000));
    int status = sq_shutdown(self->ring, false, &dropped);
    if (status) UNEXPECTED("shutdown");
}
static void seal(actor *self) {
    uint32_t left;
    int status;
    world_sleep(chance(10000000));
    while ((status = sq_seal(self->ring, &left)) == SQ_AGAIN) continue;
    if (status) UNEXPECTED("seal");
}
static void resize(actor *self) {
    int status = sq_resize(self->ring, 8192, now_ns() + 40 * PATIENCE_NS);
    if (status) UNEXPECTED("resize");
}
static void sweep(actor *self) {
    for (int turn = 0; turn < self->amount; turn++) {
        int status = sq_sweep(self->ring, true);
        if (status && status != SQ_AGAIN) UNEXPECTED("sweep");
        (void)world_yield();
    }
}
/* Those with a single role, and those who take it over when the ones before them have gone. */
static void alone(actor *self, void (*script)(actor *)) {
    script(self);
    sq_detach(self->ring);
}
static void after(actor *self, void (*script)(actor *)) {
    while (!over(self - 1)) world_sleep(SQ_SLICE_NS);
    alone(self, script);
}
static void produce_alone(actor *self) { alone(self, produce); }
static void consume_alone(actor *self) { alone(self, consume); }
static void produce_after(actor *self) { after(self, produce); }
static void consume_after(actor *self) { after(self, consume); }

static bool producing(void) {
    for (int at = 0; at < world.count; at++) {
        void (*script)(actor *) = world.actors[at].script;
        bool puts = script == produce || script == produce_many || script == produce_alone || script == produce_after;
        if (puts && !over(&world.actors[at])) return true;
    }
    return false;
}

/* -- Scenarios ----------------------------------------------------------------------------------------------------- */

#define SINGLE (SQ_MODE_SINGLE_PRODUCER | SQ_MODE_SINGLE_CONSUMER)
static const scenario scenarios[] = {
    {"one to one", {{produce, 4}, {consume, 0}}, 2, 8, 0, 10},
    {"two to two", {{produce, 3}, {produce, 3}, {consume, 0}, {consume, 0}}, 2, 8, 0, 20},
    {"large items", {{produce, 4}, {produce, 4}, {consume, 0}, {lease, 0}}, 0, 1300, SQ_MODE_CHECKSUM, 10},
    {"batches", {{produce_many, 8}, {produce, 3}, {consume, 0}, {consume, 0}}, 3, 8, 0, 10},
    {"leases", {{produce, 4}, {lease, 0}, {lease, 0}}, 3, 8, 0, 20},
    {"leases and gets", {{produce, 3}, {produce, 2}, {lease, 0}, {consume, 0}}, 3, 8, 0, 15},
    {"leases of many", {{produce_many, 6}, {lease_many, 0}, {lease_many, 0}}, 4, 8, 0, 10},
    {"detach", {{produce, 5}, {detach, 0}, {lease, 0}, {sweep, 6}}, 3, 8, 0, 10},
    {"clear", {{produce, 4}, {lease, 0}, {clear, 3}}, 3, 8, 0, 10},
    {"shutdown", {{produce, 4}, {produce, 3}, {consume, 0}, {consume, 0}, {shut, 0}}, 2, 8, 0, 15},
    {"shutdown and leases", {{produce, 4}, {lease, 0}, {lease_many, 0}, {shut, 0}}, 3, 8, 0, 10},
    {"seal", {{produce, 4}, {lease, 0}, {consume, 0}, {seal, 0}}, 2, 8, 0, 10},
    {"single roles", {{produce_alone, 3}, {produce_after, 3}, {consume_alone, 0}, {consume_after, 0}}, 2, 8, SINGLE, 15},
    {"resize", {{produce, 5}, {lease, 0}, {consume, 0}, {resize, 0}}, 0, 8, 0, 3},
};
#define SCENARIOS (sizeof scenarios / sizeof *scenarios)

/* -- One schedule -------------------------------------------------------------------------------------------------- */

static void open_bench(const scenario *plan) {
    sq_settings settings = {.capacity_bytes = SQ_CAPACITY_MIN, .max_items = plan->max_items, .mode = plan->mode};
    settings.start_units = UINT32_MAX - 9; /* all counters wrap within the first items */
    settings.start_items = UINT32_MAX - 3;
    sq_fault fault;
    memset(bench.died, 0, sizeof bench.died);
    bench.plan = plan;
    world.next_event = UINT64_MAX; /* nobody runs yet */
    world.units_most = sq_record_units(plan->length + 31, false);
    bench.fd = memfd_create("sage-proof", MFD_CLOEXEC);
    world.count = 0;
    while (world.count < ACTORS_MOST && plan->roles[world.count].script) world.count++;
    world.current = &world.actors[world.count];
    world.current->thread.id = FIRST_ID;
    if (bench.fd < 0 || sq_format(bench.fd, &settings, &fault)) exit(2);
    for (int at = 0; at <= world.count; at++) {
        actor *one = &world.actors[at];
        char path[40];
        snprintf(path, sizeof path, "/proc/self/fd/%d", bench.fd);
        if (!one->stack) one->stack = malloc(STACK_BYTES);
        one->ring = calloc(1, sizeof *one->ring);
        if (!one->stack || !one->ring || sq_attach(one->ring, open(path, O_RDWR | O_CLOEXEC))) exit(2);
        bench.rings[at] = *one->ring;
    }
    bench.header = malloc(sizeof(sq_header));
    bench.data = malloc(SQ_CAPACITY_MIN);
    if (!bench.header || !bench.data) exit(2);
    memcpy(bench.header, world.actors[0].ring->header, sizeof(sq_header));
    memcpy(bench.data, world.actors[0].ring->map->data, SQ_CAPACITY_MIN);
}
static void close_bench(void) {
    for (int at = 0; at <= world.count; at++) {
        int fd = world.actors[at].ring->fd;
        sq_unmap(world.actors[at].ring);
        close(fd);
        free(world.actors[at].ring);
    }
    free(bench.header);
    free(bench.data);
    close(bench.fd);
}

/* A new region that a resize mapped, and did not live to put in force, stays mapped: there are few of them. */
static void set_up(const scenario *plan, uint64_t seed) {
    memset(&account, 0, sizeof account);
    for (int at = 0; at <= ACTORS_MOST; at++)
        for (int producer = 0; producer < ACTORS_MOST; producer++) account.last[at][producer] = -1;
    world.random = seed * 0x9E3779B97F4A7C15ull + 0x632BE59BD9B4E019ull;
    if (!world.random) world.random = 1;
    for (int warm = 0; warm < 4; warm++) (void)chance(2);
    world.passed_ns = 1000000000ull;
    world.steps = 0;
    world.deaths = 0;
    world.wrong = NULL;
    world.title = plan->name;
    world.seed = seed;
    world.waits_may_fail = false;
    world.gap = 1ull << chance(8); /* from a switch at every step to one in a hundred */
    world.calm = true;
    for (int at = 0; at <= world.count; at++) {
        actor *one = &world.actors[at];
        for (sq_map *map = one->ring->map, *next; map != bench.rings[at].map; map = next) {
            next = map->next;
            sq_guard_remove(map->guard);
            munmap(map->data, 2ull * map->capacity * SQ_UNIT);
            free(map);
        }
        *one->ring = bench.rings[at];
        one->robust = (struct robust_list_head){.list = {&one->robust.list}, .futex_offset = -32};
        one->thread = (sq_thread){&one->robust, (uint32_t)(FIRST_ID + at), sq_forks};
        one->script = at < world.count ? plan->roles[at].script : NULL;
        one->amount = at < world.count ? plan->roles[at].amount : 0;
        one->stance = READY;
        one->stopped_ns = 0;
        one->late = 0;
        one->steps = one->dies_at = one->stops_at = 0;
    }
    memcpy(world.actors[0].ring->header, bench.header, sizeof(sq_header));
    memcpy(world.actors[0].ring->map->data, bench.data, SQ_CAPACITY_MIN);
    /* None, one or two die, and perhaps one is stopped; a script takes some hundred steps. */
    for (uint64_t deaths = chance(3); deaths; deaths--) {
        world.actors[chance((uint64_t)world.count)].dies_at = 1 + (uint32_t)chance(64ull << chance(5));
    }
    if (chance(3) == 0) world.actors[chance((uint64_t)world.count)].stops_at = 1 + (uint32_t)chance(64ull << chance(5));
}

/* Those who died take their leases with them until somebody looks; then everything that is left comes out. */
static void drain(void) {
    actor *self = &world.actors[world.count];
    int status;
    uint64_t deadline = now_ns() + 20 * SQ_SLICE_NS;
    do {
        uint8_t bytes[LENGTH_MOST];
        sq_record record;
        status = sq_get_wait(self->ring, bytes, sizeof bytes, &record, deadline);
        if (status == SQ_OK) note_taken(self, bytes, record.length, true);
    } while (status == SQ_OK || status == SQ_AGAIN);
    if (status != SQ_EMPTY && status != SQ_SHUTDOWN) wrong("who looked at what was left got %d (%s)", status, self->ring->fault.field);
    sq_stats stats;
    sq_stats_read(self->ring, &stats);
    if (stats.depth || stats.leased || stats.puts != stats.gets)
        wrong("%llu items and %llu leases remain in an empty ring, after %llu puts and %llu gets", (unsigned long long)stats.depth,
              (unsigned long long)stats.leased, (unsigned long long)stats.puts, (unsigned long long)stats.gets);
}

static void balance(void) {
    int64_t missing = 0, extra = 0;
    for (int producer = 0; producer < world.count; producer++) {
        for (int number = 0; number < account.next[producer]; number++) {
            item *one = &account.items[producer][number];
            if (one->fate == REFUSED && one->taken) wrong("item %d of producer %d was refused, and came out", number, producer);
            if (one->fate == PUT && !one->taken) missing++;
            if (one->fate == PERHAPS && !one->taken) extra++; /* may have been put, and dropped */
        }
    }
    int64_t most = account.dropped + account.perhaps, least = account.dropped - extra;
    if (account.perhaps_all) return;
    if (missing > most) wrong("%lld items are lost", (long long)(missing - most));
    if (missing < least) wrong("%lld items were dropped or acknowledged that were not there", (long long)(least - missing));
}

/* The ring is as good as new: as many items as it may hold go in, no more, and come out. */
static void try_again(const scenario *plan) {
    actor *self = &world.actors[world.count];
    uint8_t bytes[LENGTH_MOST] = {0};
    uint32_t limit = plan->max_items ? (uint32_t)plan->max_items : 8;
    sq_record record;
    if (sq_load32(&self->ring->header->control.state)) return;
    for (uint32_t at = 0; at <= limit; at++) {
        int status;
        uint64_t deadline = now_ns() + 3 * SQ_SLICE_NS; /* the lock may be that of a dead process, and nobody was told */
        while ((status = sq_put_wait(self->ring, bytes, 8, 0, deadline)) == SQ_AGAIN) continue;
        if (status != (at < limit || !plan->max_items ? SQ_OK : SQ_FULL)) wrong("put %u of %u into an emptied ring answered %d", at, limit, status);
    }
    for (uint32_t at = 0; at < limit; at++) {
        int status = sq_get(self->ring, bytes, sizeof bytes, &record);
        if (status) wrong("get %u of %u out of a ring that was filled again answered %d", at, limit, status);
    }
}

static bool run_schedule(const scenario *plan, uint64_t seed) {
    set_up(plan, seed);
    if (!run_world()) return false;
    for (int at = 0; at < world.count; at++)
        if (world.actors[at].stance == DEAD && world.actors[at].steps < STEPS_SEEN) bench.died[at][world.actors[at].steps] = true;
    drain();
    if (!world.wrong) balance();
    if (!world.wrong) try_again(plan);
    return !world.wrong;
}

/* -- All of them --------------------------------------------------------------------------------------------------- */

static const scenario *named(const char *name) {
    for (size_t at = 0; at < SCENARIOS; at++)
        if (strcmp(scenarios[at].name, name) == 0) return &scenarios[at];
    fprintf(stderr, "there is no scenario %s\n", name);
    exit(2);
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--replay") == 0) {
        const scenario *plan = named(argv[2]);
        open_bench(plan);
        world.tracing = true;
        bool good = run_schedule(plan, strtoull(argv[3], NULL, 10));
        printf("%s\n", good ? "nothing is wrong" : world.wrong);
        return !good;
    }
    bool first = argc == 4 && strcmp(argv[1], "--first") == 0;
    if (argc != 3 + first) {
        fprintf(stderr, "usage: schedules [--first] COUNT SEED | --replay SCENARIO SEED\n");
        return 2;
    }
    uint64_t count = strtoull(argv[1 + first], NULL, 10), seed = strtoull(argv[2 + first], NULL, 10), weights = 0;
    uint64_t ran = 0, steps = 0, deaths = 0, places = 0, bad = 0, rounds = first ? 50 : 1; /* all scenarios soon */
    for (size_t at = 0; at < SCENARIOS; at++) weights += scenarios[at].weight;
    for (uint64_t turn = 0; turn < rounds * SCENARIOS; turn++) {
        const scenario *plan = &scenarios[turn % SCENARIOS];
        uint64_t own = count * plan->weight / weights / rounds, from = turn / SCENARIOS * own;
        uint64_t before = steps, died = deaths, here = 0;
        open_bench(plan);
        for (uint64_t number = from; number < from + own; number++) {
            ran++;
            uint64_t this_seed = seed * 1000003 + number;
            bool good = run_schedule(plan, this_seed);
            steps += world.steps;
            deaths += world.deaths;
            if (good) continue;
            bad++;
            printf("%s: %s\n    again: schedules --replay '%s' %llu\n", plan->name, world.wrong, plan->name,
                   (unsigned long long)this_seed);
            if (first) return 1;
            break; /* the next ones would say the same */
        }
        for (size_t place = 0; place < sizeof bench.died; place++) here += ((bool *)bench.died)[place];
        places += here;
        close_bench();
        if (first) continue;
        printf("%-18s %9llu schedules %11llu steps %8llu deaths at %5llu places\n", plan->name, (unsigned long long)own,
               (unsigned long long)(steps - before), (unsigned long long)(deaths - died), (unsigned long long)here);
        fflush(stdout);
    }
    printf("{\"schedules\": %llu, \"steps\": %llu, \"deaths\": %llu, \"places\": %llu, \"scenarios\": %zu, \"bad\": %llu}\n", (unsigned long long)ran,
           (unsigned long long)steps, (unsigned long long)deaths, (unsigned long long)places, SCENARIOS, (unsigned long long)bad);
    return bad != 0;
}
