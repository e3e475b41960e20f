/* Kills, stops or delays a process at every fault point of the ring, in every role that comes by, and asks the
 * survivors what they find. Built with -DSQ_FAULT_POINTS.
 *
 *   points TIMES SEED [UNITS ITEMS]     each point x action x role so many times; where the ring's counters start
 *
 * While a victim is stopped or delayed, the survivor looks: nothing may be repaired, and nothing may be seen half done.
 * Then the victim goes on, and must complete what it began.
 */
#include "sweep.h"

enum action { KILL, STOP, DELAY, ACTIONS };
static const char *const action_names[] = {"kill", "stop", "delay"};

#define ROUTES_MOST 8192
#define COMPLAINTS_MOST 10

/* One way to a fault point: the n-th time that an operation from a state comes by. */
typedef struct {
    const operation *operation;
    const start_state *state;
    uint16_t point, hit;
} route;
static route routes[ROUTES_MOST];
static uint32_t routes_known;

/* -- The victim ---------------------------------------------------------------------------------------------------- */

static struct {
    int point;
    uint32_t hit;
    enum action action;
} plan;
static int *reached; /* shared with the parent */

static void act(void) {
    *reached = 1;
    if (plan.action == KILL) kill(getpid(), SIGKILL);
    if (plan.action == STOP) raise(SIGSTOP);
    if (plan.action == DELAY) usleep(200);
}
static void arm_plan(void) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    arm(plan.point, plan.hit, act);
}
static void disarm_plan(void) {
    disarm();
}

/* -- The survivor's look at a stopped or slow victim --------------------------------------------------------------- */

static bool same_leases(const bench *bench, const uint32_t *before, uint32_t count) {
    uint64_t at = bench->head;
    for (uint32_t item = 0; item < count; item++) {
        sq_record_header *record = sq_record_at(bench->ring->map, at);
        if (sq_load32(&record->lease) != before[item])
            return complain("the lease word of item %u changed while its owner was stopped", item);
        at = sq_advance(at, sq_record_units(record->length, record->flags & SQ_RECORD_EXTENDED), 1);
    }
    return true;
}

/* The victim is stopped: a sweep and a look change nothing that is the victim's. */
static bool look_at_stopped(bench *bench) {
    uint32_t leases[EXPECTED_MOST], count = 0;
    uint64_t at = bench->head;
    for (; count < bench->queued; count++) {
        sq_record_header *record = sq_record_at(bench->ring->map, at);
        leases[count] = sq_load32(&record->lease);
        at = sq_advance(at, sq_record_units(record->length, record->flags & SQ_RECORD_EXTENDED), 1);
    }
    uint64_t head = sq_load64(&bench->ring->header->head), tail = sq_load64(&bench->ring->header->tail);
    uint8_t bytes[ITEM_BYTES];
    sq_record record;
    if (!(bench->ring->mode & SQ_MODE_SINGLE_CONSUMER)) {
        int status = sq_peek(bench->ring, bytes, sizeof bytes, &record, false);
        if (status == SQ_CORRUPT) return complain("a look while the victim was stopped says: damaged");
        if (status == SQ_OK && !whole_item(bytes, record.length)) return complain("a look found a torn item");
    }
    int swept = sq_sweep(bench->ring, false); /* busy: the victim detached, and is stopped in the sweep that frees its slot */
    if (!bench->state->abandoned && swept != SQ_OK && swept != SQ_BUSY) return complain("a sweep failed");
    EXPECT(sq_load64(&bench->ring->header->head), head);
    EXPECT(sq_load64(&bench->ring->header->tail), tail);
    return bench->state->abandoned || same_leases(bench, leases, count);
}

/* -- One trial ----------------------------------------------------------------------------------------------------- */

/* False: `complaint`. *was_there says whether the victim came by the point. */
static bool trial(bench *bench, const route *route, enum action action, bool *was_there) {
    bench_reset(bench);
    plan.point = route->point;
    plan.hit = route->hit;
    plan.action = action;
    *reached = 0;
    pid_t pid = start_victim(bench, arm_plan, disarm_plan);
    int status;
    bool good = true;
    CHECK_IS(waitpid(pid, &status, WUNTRACED), pid);
    if (WIFSTOPPED(status)) {
        if (!bench->state->locked) good = look_at_stopped(bench);
        CHECK(kill(pid, SIGCONT) == 0);
        CHECK_IS(waitpid(pid, &status, 0), pid);
    }
    *was_there = *reached;
    bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    if (!killed && !(WIFEXITED(status) && WEXITSTATUS(status) == 0))
        return complain("the victim ended with wait status %x", status);
    return judge(bench, !killed) && good;
}

/* Finds every way to every point: the n-th hit of each point, for growing n, till the operation ends without it. */
static void explore(void) {
    for (size_t at = 0; at < OPERATIONS; at++) {
        for (size_t from = 0; from < STATES; from++) {
            if (!worth_sweeping(&operations[at], &states[from])) continue;
            bench bench;
            bench_open(&bench, &operations[at], &states[from]);
            for (uint16_t point = 0; point < SQ_POINT_COUNT; point++) {
                bool there = true;
                for (uint16_t hit = 1; there && hit < 16; hit++) {
                    route route = {&operations[at], &states[from], point, hit};
                    if (!trial(&bench, &route, KILL, &there))
                        failed(__FILE__, __LINE__, "%s from %s, killed at %s: %s", operations[at].name,
                               states[from].name, point_names[point], complaint);
                    CHECK(routes_known < ROUTES_MOST);
                    if (there) routes[routes_known++] = route;
                }
            }
            bench_close(&bench);
        }
    }
}

/* -- All of them --------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *role;
    uint32_t point, hits[ACTIONS], ways;
} cell;
static cell cells[SQ_POINT_COUNT * 4];
static uint32_t cells_known;

static cell *cell_of(const route *route) {
    for (uint32_t at = 0; at < cells_known; at++)
        if (cells[at].point == route->point && cells[at].role == route->operation->role) return &cells[at];
    cells[cells_known] = (cell){.role = route->operation->role, .point = route->point};
    return &cells[cells_known++];
}

int main(int argc, char **argv) {
    CHECK(argc == 3 || argc == 5);
    uint32_t times = (uint32_t)atoi(argv[1]);
    srandom((unsigned)atoi(argv[2]));
    if (argc == 5) extra_units = strtoull(argv[3], NULL, 0), extra_items = strtoull(argv[4], NULL, 0);
    reached = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(reached != MAP_FAILED);
    explore();
    for (uint32_t at = 0; at < routes_known; at++) cell_of(&routes[at])->ways++;
    uint64_t trials = 0, bad = 0, missed = 0;
    /* In rounds over all ways, in one order per operation and state, so that a bench serves many trials; a way is used
     * until its point has been hit often enough in its role. */
    for (bool wanted = true; wanted && bad < COMPLAINTS_MOST;) {
        wanted = false;
        uint32_t first = (uint32_t)random() % routes_known;
        bench bench;
        bool open = false;
        for (uint32_t turn = 0; turn < routes_known && bad < COMPLAINTS_MOST; turn++) {
            const route *route = &routes[(first + turn) % routes_known];
            cell *cell = cell_of(route);
            uint32_t share = times / cell->ways + 1; /* so that all ways are used */
            bool fits = open && bench.operation == route->operation && bench.state == route->state;
            if (open && !fits) bench_close(&bench);
            if (!fits) bench_open(&bench, route->operation, route->state);
            open = true;
            for (int action = 0; action < ACTIONS; action++) {
                for (uint32_t once = 0; once < share && cell->hits[action] < times; once++) {
                    bool there;
                    wanted = true;
                    if (!trial(&bench, route, action, &there)) {
                        printf("    %s from %s, %s at %s, hit %u: %s\n", route->operation->name, route->state->name,
                               action_names[action], point_names[route->point], route->hit, complaint);
                        bench_close(&bench);
                        bench_open(&bench, route->operation, route->state);
                        bad++;
                    }
                    trials++;
                    cell->hits[action] += there;
                    missed += !there;
                }
            }
        }
        if (open) bench_close(&bench);
    }
    uint32_t fewest = UINT32_MAX, points_hit = 0;
    for (uint32_t point = 0; point < SQ_POINT_COUNT; point++) {
        bool hit = false;
        for (uint32_t at = 0; at < cells_known; at++) {
            if (cells[at].point != point) continue;
            printf("%-18s %-9s %5u ways", point_names[point], cells[at].role, cells[at].ways);
            for (int action = 0; action < ACTIONS; action++) {
                printf("  %s %u", action_names[action], cells[at].hits[action]);
                if (cells[at].hits[action] < fewest) fewest = cells[at].hits[action];
            }
            printf("\n");
            hit = true;
        }
        if (!hit) printf("%-18s never hit\n", point_names[point]);
        points_hit += hit;
    }
    printf("{\"points\": %d, \"points_hit\": %u, \"cells\": %u, \"fewest\": %u, \"trials\": %llu, \"missed\": %llu, "
           "\"bad\": %llu}\n",
           SQ_POINT_COUNT, points_hit, cells_known, fewest, (unsigned long long)trials, (unsigned long long)missed,
           (unsigned long long)bad);
    return bad != 0;
}
