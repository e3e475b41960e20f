/* A storm: producers and consumers of one ring are killed at random moments, stopped, delayed and replaced, and every
 * item is accounted for.
 *
 *   storm KILLS SECONDS SEED
 *
 * Runs in rounds. Each round has a ring of another shape, three producers and three consumers in processes of their
 * own, and a supervisor (this process) that kills about one of them each millisecond. Then the killing stops, the ring
 * is drained, and the fates of all items are settled (storm.h). Ends with a JSON line when KILLS are done or SECONDS
 * are over. Built with -DSQ_FAULT_POINTS there are delays at fault points as well, and what a killed consumer had in
 * its hands is told apart by how far it had come.
 */
#include "storm.h"

#include <stdarg.h>

#define KILLS_PER_ROUND 1000u
#define CALL_NS 20000000ull    /* timeout of each call */
#define HANG_NS 20000000000ull /* a call that takes so much longer than its timeout hangs */
#define KILLS_PER_CHANCE 4000u
#define LEASES 1u              /* the round has a consumer that leases */

#define WRAP (1ull << 32)
typedef struct {
    sq_settings settings;
    uint32_t what;
} shape;
static const shape shapes[] = {
    {{.capacity_bytes = 4096}, 0},
    {{.capacity_bytes = 16384, .max_items = 16}, LEASES},
    {{.capacity_bytes = 4096, .mode = SQ_MODE_CHECKSUM, .start_units = WRAP - 5000, .start_items = WRAP - 500}, 0},
    {{.capacity_bytes = 65536, .start_units = WRAP - 90000, .start_items = UINT64_MAX - 3000}, LEASES},
    {{.capacity_bytes = 8192, .max_items = 1}, 0},
};
#define SHAPES (sizeof shapes / sizeof *shapes)

__attribute__((noreturn, format(printf, 1, 2))) static void give_up(const char *form, ...) {
    va_list more;
    va_start(more, form);
    vprintf(form, more);
    va_end(more);
    printf("\n");
    fflush(stdout);
    _exit(2);
}

static role_log *own_log; /* of this process; NULL in the supervisor */
static uint64_t own_random;

#ifdef SQ_FAULT_POINTS
#define MARKS true
void sq_point(int id) {
    if (!own_log) return;
    if (id == SQ_POINT_take_marked) own_log->marked++;
    if (id == SQ_POINT_take_released) own_log->marked = BATCH;
    if (id == SQ_POINT_ack_marked) own_log->marked = 1;
    if (!board->delays) return;
    uint64_t roll = random_next(&own_random) % 4096;
    if (roll < 4) usleep((useconds_t)(roll * 300));
    else if (roll < 32) sched_yield();
}
#else
#define MARKS false
#endif

/* -- Roles --------------------------------------------------------------------------------------------------------- */

static bool just_later(int status) {
    return status == SQ_AGAIN || status == SQ_BUSY || status == SQ_FULL || status == SQ_EMPTY;
}

static void produce(sq_ring *ring, uint32_t producer) {
    role_log *log = own_log;
    static uint8_t bytes[BATCH][ITEM_MOST];
    while (!board->stop_putting && log->done + BATCH < NUMBERS) {
        uint32_t count = random_next(&own_random) % 8 ? 1 : BATCH;
        sq_part parts[BATCH];
        for (uint32_t at = 0; at < count; at++)
            parts[at] = (sq_part){bytes[at], item_fill(bytes[at], producer, log->done + at)};
        log->begun = log->done + count;
        while (log->done < log->begun) {
            size_t put = 0, first = count - (log->begun - log->done);
            note_call(log, PUTTING);
            int status = count == 1 ? sq_put_wait(ring, parts[0].data, parts[0].length, 7, sq_now_ns() + CALL_NS)
                                    : sq_put_many(ring, parts + first, count - first, 7, true, &put);
            if (status == SQ_OK) {
                log->done += count == 1 ? 1 : (uint32_t)put;
                board->puts++;
                note_success(SQ_PRODUCERS);
            } else if (!just_later(status)) {
                note_bad_status(status);
            }
            note_return(log);
            if (status == SQ_OK) continue;
            if (board->stop_putting) log->begun = log->done; /* said Full: must never be seen */
            else if (count > 1) usleep(100);
        }
    }
}

/* Up to BATCH items in one turn. */
static int get_some(sq_ring *ring, uint32_t *attempts, uint32_t *count) {
    sq_reader reader;
    sq_record record;
    *count = 0;
    int status = sq_read_begin(ring, &reader, true);
    if (status) return status;
    while (*count < BATCH && (status = sq_read_next(&reader, &record)) == SQ_OK) {
        hand *hand = &own_log->hands[*count];
        hand->length = record.length;
        memcpy(hand->bytes, record.data, record.length < ITEM_MOST ? record.length : ITEM_MOST);
        attempts[(*count)++] = SQ_LEASE_ATTEMPT(record.lease);
        sq_read_take(&reader, &record);
    }
    int ended = sq_read_end(&reader);
    return ended ? ended : *count ? SQ_OK : status;
}

static int get_one(sq_ring *ring, uint32_t *attempts, uint32_t *count) {
    sq_record record = {0};
    int status = sq_get_wait(ring, own_log->hands[0].bytes, ITEM_MOST, &record, sq_now_ns() + CALL_NS);
    own_log->hands[0].length = record.length;
    attempts[0] = SQ_LEASE_ATTEMPT(record.lease);
    *count = 1;
    return status;
}

static void lease_one(sq_ring *ring) {
    role_log *log = own_log;
    sq_record record;
    note_call(log, LEASING);
    int status = sq_lease_wait(ring, &record, sq_now_ns() + CALL_NS);
    note_return(log);
    if (status) {
        if (!just_later(status)) note_bad_status(status);
        return;
    }
    hand *hand = &log->hands[0];
    hand->length = record.length;
    memcpy(hand->bytes, record.data, record.length < ITEM_MOST ? record.length : ITEM_MOST);
    note_item(log, hand->bytes, hand->length, SQ_LEASE_ATTEMPT(record.lease), false);
    note_success(SQ_CONSUMERS);
    uint64_t roll = random_next(&own_random) % 32;
    if (roll == 0) usleep(300);
    bool give_back = roll < 4;
    note_call(log, give_back ? LEASING : ACKNOWLEDGING);
    do
        status = give_back ? sq_nack(ring, true, &record) : sq_ack(ring, true, &record);
    while (just_later(status));
    if (status == SQ_FENCED) board->fenced++;
    else if (status) note_bad_status(status);
    else if (!give_back) note_acknowledged(hand->bytes, hand->length), board->gets++;
    note_return(log);
}

static void consume(sq_ring *ring, bool leases) {
    role_log *log = own_log;
    while (!board->stop_taking) {
        uint64_t roll = random_next(&own_random) % 16;
        uint32_t attempts[BATCH], count = 0;
        for (uint32_t at = 0; at < BATCH; at++) memset(log->hands[at].bytes, 0, sizeof(item_head));
        if (leases) {
            lease_one(ring);
            continue;
        }
        note_call(log, GETTING);
        int status = roll ? get_one(ring, attempts, &count) : get_some(ring, attempts, &count);
        if (status == SQ_OK) {
            for (uint32_t at = 0; at < count; at++)
                note_item(log, log->hands[at].bytes, log->hands[at].length, attempts[at], true);
            board->gets += count;
            note_success(SQ_CONSUMERS);
        } else if (!just_later(status)) {
            note_bad_status(status);
        }
        note_return(log);
    }
}

/* -- The supervisor ------------------------------------------------------------------------------------------------ */

typedef struct {
    pid_t pid; /* 0: ended */
    bool dying;
    uint64_t stopped_until_ns;
} role;
static role roles[ROLES];
static uint64_t kills, stops, killed_with_lock, seed;

static bool round_leases(const shape *shape, uint32_t index) {
    return shape->what & LEASES && index == ROLES - 1;
}

static void start_role(uint32_t index, sq_ring *ring, const shape *shape) {
    pid_t supervisor = getpid();
    role_log *log = &board->roles[index];
    log->incarnation++;
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) give_up("fork: %s", strerror(errno));
    if (pid) {
        roles[index] = (role){.pid = pid};
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != supervisor) _exit(0);
    own_log = log;
    own_random = seed * 0x9e3779b97f4a7c15ull + log->incarnation * ROLES + index + 1;
    static sq_ring own;
    if (log->incarnation & 1) { /* every other one with a handle of its own */
        char path[40];
        snprintf(path, sizeof path, "/proc/self/fd/%d", ring->fd);
        int fd = open(path, O_RDWR | O_CLOEXEC), status = sq_attach(&own, fd);
        if (status) note_bad_status(status);
        else ring = &own;
    }
    if (index < PRODUCERS) produce(ring, index);
    else consume(ring, round_leases(shape, index));
    sq_detach(ring);
    _exit(0);
}

/* Notes what became of processes that ended; those that were killed are replaced when `again`. */
static void reap(sq_ring *ring, const shape *shape, bool again) {
    pid_t pid;
    int how;
    while ((pid = waitpid(-1, &how, WNOHANG)) > 0) {
        uint32_t index = 0;
        while (index < ROLES && roles[index].pid != pid) index++;
        if (index == ROLES) give_up("an unknown process %d ended", pid);
        bool killed = WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL && roles[index].dying;
        if (!killed && !(WIFEXITED(how) && WEXITSTATUS(how) == 0))
            give_up("role %u ended with wait status %x", index, how);
        roles[index].pid = 0;
        if (!killed) continue;
        if (index < PRODUCERS) settle_producer(index);
        else settle_consumer(&board->roles[index]);
        if (again) start_role(index, ring, shape);
    }
}

static void resume(bool all) {
    uint64_t now = sq_now_ns();
    for (uint32_t index = 0; index < ROLES; index++) {
        role *role = &roles[index];
        if (!role->stopped_until_ns || (!all && now < role->stopped_until_ns)) continue;
        role->stopped_until_ns = 0;
        board->roles[index].since_ns = board->roles[index].since_ns ? now : 0; /* its time stood still */
        if (role->pid) kill(role->pid, SIGCONT);
    }
}

static void hit_one(sq_ring *ring, uint64_t *random) {
    uint32_t index = random_next(random) % ROLES;
    role *role = &roles[index];
    if (!role->pid || role->dying) return;
    if (random_next(random) % 16 == 0 && !role->stopped_until_ns) {
        role->stopped_until_ns = sq_now_ns() + random_next(random) % 5000000;
        kill(role->pid, SIGSTOP);
        stops++;
        return;
    }
    enum sq_which which = index < PRODUCERS ? SQ_PRODUCERS : SQ_CONSUMERS;
    role->dying = true;
    kills++;
    bool holder = (sq_load32(&sq_side_of(ring, which)->lock) & FUTEX_TID_MASK) == (uint32_t)role->pid;
    if (holder) killed_with_lock++, board->killed_ns[which] = sq_now_ns();
    kill(role->pid, SIGKILL);
}

static bool hangs(void) {
    uint64_t now = sq_now_ns();
    for (uint32_t index = 0; index < ROLES; index++) {
        uint64_t since = board->roles[index].since_ns;
        if (!roles[index].pid || roles[index].stopped_until_ns || !since || now < since + HANG_NS) continue;
        printf("    role %u has been in one call (%u) for %.1f s\n", index, board->roles[index].doing,
               (double)(now - since) / 1e9);
        return true;
    }
    return false;
}

/* True when all roles of [first, end) ended by themselves. */
static bool await_end(uint32_t first, uint32_t end, sq_ring *ring, const shape *shape) {
    for (bool running = true; running;) {
        reap(ring, shape, true);
        running = false;
        for (uint32_t index = first; index < end; index++) running = running || roles[index].pid;
        if (running && hangs()) return false;
        usleep(500);
    }
    return true;
}

/* The producers have ended; what is left must come out. False: nothing came for too long. */
static bool await_empty(sq_ring *ring, const shape *shape) {
    uint64_t head = 0, since = sq_now_ns();
    while (sq_load64(&ring->header->head) != sq_load64(&ring->header->tail)) {
        reap(ring, shape, true);
        if (hangs()) return false;
        if (head != sq_load64(&ring->header->head)) head = sq_load64(&ring->header->head), since = sq_now_ns();
        if (sq_now_ns() - since > HANG_NS) {
            printf("    %u items stay in the ring\n", sq_items(sq_load64(&ring->header->tail)) - sq_items(head));
            return false;
        }
        usleep(500);
    }
    return true;
}

static void end_all(void) {
    for (uint32_t index = 0; index < ROLES; index++) {
        if (!roles[index].pid) continue;
        kill(roles[index].pid, SIGKILL);
        while (waitpid(roles[index].pid, NULL, 0) < 0 && errno == EINTR) continue;
        roles[index].pid = 0;
    }
}

/* One round; false when it hung. */
static bool run_round(const shape *shape, uint64_t kills_wanted, uint64_t end_ns, uint64_t *random, accounts *all) {
    static sq_ring ring;
    sq_fault fault;
    int fd = memfd_create("storm", MFD_CLOEXEC);
    if (fd < 0 || sq_format(fd, &shape->settings, &fault) || sq_attach(&ring, fd)) give_up("no ring");
    memset(board->roles, 0, sizeof board->roles);
    memset(board->fate, 0, sizeof board->fate);
    board->stop_putting = board->stop_taking = 0;
    board->delays = MARKS;
    memset(roles, 0, sizeof roles);
    for (uint32_t index = 0; index < ROLES; index++) start_role(index, &ring, shape);
    uint64_t round_end = kills + kills_wanted;
    bool good = true;
    while (good && kills < round_end && sq_now_ns() < end_ns) {
        usleep(50 + random_next(random) % 700);
        reap(&ring, shape, true);
        resume(false);
        hit_one(&ring, random);
        good = !hangs();
    }
    resume(true);
    board->stop_putting = 1;
    board->killed_ns[0] = board->killed_ns[1] = 0; /* nobody has to put any more */
    good = good && await_end(0, PRODUCERS, &ring, shape) && await_empty(&ring, shape);
    board->stop_taking = 1;
    good = good && await_end(PRODUCERS, ROLES, &ring, shape);
    end_all();
    settle_round(all);
    sq_detach(&ring);
    sq_unmap(&ring);
    close(fd);
    return good;
}

static int by_value(const void *left, const void *right) {
    uint32_t one = *(const uint32_t *)left, other = *(const uint32_t *)right;
    return one < other ? -1 : one > other;
}

/* Prints what came of it all; true when nothing was wrong. */
static bool report(accounts all, uint64_t hung, uint64_t rounds, double seconds) {
    /* Gone with a consumer that was killed, as far as its marks tell, before it took the item. The mark follows the
     * store that takes by an instruction or two, so a kill exactly there is counted here too: one in so many, when all
     * is well. kill_sweep.c looks at each of those instructions. Without marks nothing tells. */
    uint64_t vanished = MARKS ? all.doubtful : 0;
    if (!MARKS || vanished <= kills / KILLS_PER_CHANCE) all.gone += all.doubtful, vanished = 0;
    printf("%llu rounds, %.0f kills/s, %llu items, %llu of unknown outcome, %llu gone with a killed consumer\n",
           (unsigned long long)rounds, (double)kills / seconds, (unsigned long long)all.items,
           (unsigned long long)all.unknown, (unsigned long long)all.gone);
    if (board->bad_status) printf("    first unexpected status: %d\n", board->first_bad_status);
    const struct {
        const char *name;
        uint64_t value;
        bool wrong; /* unless it is zero */
    } counts[] = {
        {"hangs", hung, true},
        {"lost", all.lost, true},
        {"vanished", vanished, true},
        {"duplicates", board->doubled, true},
        {"torn", board->torn, true},
        {"ghosts", board->ghosts, true},
        {"disordered", board->disordered, true},
        {"fenced", board->fenced, true},
        {"bad_status", board->bad_status, true},
        {"kills", kills, false},
        {"stops", stops, false},
        {"items", all.items, false},
        {"holders_killed", killed_with_lock, false},
    };
    bool good = true;
    printf("{");
    for (size_t at = 0; at < sizeof counts / sizeof *counts; at++) {
        printf("\"%s\": %llu, ", counts[at].name, (unsigned long long)counts[at].value);
        good = good && !(counts[at].wrong && counts[at].value);
    }
    uint32_t times = board->recoveries < RECOVERIES ? board->recoveries : RECOVERIES, *sorted = board->recovery_us;
    qsort(sorted, times, sizeof *sorted, by_value);
    printf("\"recoveries\": %u, \"p50_ms\": %.2f, \"p99_ms\": %.2f, \"max_ms\": %.2f, \"seconds\": %.1f}\n", times,
           times ? sorted[times / 2] / 1e3 : 0, times ? sorted[(uint64_t)times * 99 / 100] / 1e3 : 0,
           times ? sorted[times - 1] / 1e3 : 0, seconds);
    return good;
}

int main(int argc, char **argv) {
    if (argc != 4) give_up("usage: storm KILLS SECONDS SEED");
    uint64_t wanted = strtoull(argv[1], NULL, 0), start = sq_now_ns();
    uint64_t end = start + strtoull(argv[2], NULL, 0) * 1000000000ull;
    seed = strtoull(argv[3], NULL, 0);
    uint64_t random = seed * 2862933555777941757ull + 3037000493ull, hung = 0, rounds = 0;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED) give_up("no memory");
    accounts all = {0};
    for (; kills < wanted && !hung && sq_now_ns() < end; rounds++) {
        uint64_t left = wanted - kills, share = left < KILLS_PER_ROUND ? left : KILLS_PER_ROUND;
        hung += !run_round(&shapes[rounds % SHAPES], share, end, &random, &all);
        if (rounds % 100 == 99) printf("%llu kills so far\n", (unsigned long long)kills), fflush(stdout);
    }
    return !report(all, hung, rounds, (double)(sq_now_ns() - start) / 1e9);
}
