/* Sleeping and waking, measured: how long a sleeper can be forgotten, and how exact timeouts are.
 *
 *   waiting cycles COUNT SECONDS SEED   two sides hand a turn back and forth by event counts; some are killed on the way
 *   waiting timeouts CALLS LOAD SEED    timed calls on an empty and on a full ring, LOAD busy processes beside them
 *   waiting clock CALLS SEED            the same, few, under a wall clock that jumps (clock_shim.c)
 *
 * Each ends with a JSON line. Built with -DSQ_FAULT_POINTS, for kills at the worst places.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/wait.h>

__attribute__((noreturn, format(printf, 1, 2))) static void give_up(const char *form, ...) {
    va_list more;
    va_start(more, form);
    vprintf(form, more);
    va_end(more);
    printf("\n");
    fflush(stdout);
    _exit(2);
}

static uint64_t own_random;
static uint64_t random_next(void) {
    own_random ^= own_random << 13;
    own_random ^= own_random >> 7;
    return own_random ^= own_random << 17;
}

static void *shared_memory(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) give_up("no memory");
    return memory;
}
static pid_t start(void (*body)(uint32_t index), uint32_t index) {
    pid_t parent = getpid();
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) give_up("fork: %s", strerror(errno));
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    body(index);
    _exit(0);
}
static int by_value(const void *left, const void *right) {
    int64_t one = *(const int64_t *)left, other = *(const int64_t *)right;
    return one < other ? -1 : one > other;
}

/* -- Cycles -------------------------------------------------------------------------------------------------------- */

#define DEATH_ODDS 8000u /* that a process kills itself at one of the worst places */
/* At any other place, from outside; seldom, for such a kill may end the sleep of one who was forgotten. */
#define KILL_EVERY_NS 250000000ull

typedef struct {
    sq_event events[2];
    _Atomic uint64_t turn; /* whose it is: its lowest bit */
    _Atomic uint64_t given_ns;
    _Atomic uint64_t sleeps, longest_ns, over_ms[64];
    _Atomic uint64_t wanted;
    _Atomic uint32_t incarnation, armed;
} cycle_board;
static cycle_board *cycles;
static bool mortal; /* in the two sides */

static void maybe_die(void) {
    if (mortal && cycles->armed && random_next() % DEATH_ODDS == 0) kill(getpid(), SIGKILL);
}
#ifdef SQ_FAULT_POINTS
void sq_point(int id) {
    (void)id;
    maybe_die();
}
#endif

/* Only a sleeper that was already asleep when the turn was given measures how long it was left asleep. */
static void note_sleep(uint64_t asleep_ns) {
    uint64_t given = cycles->given_ns, now = sq_now_ns(), longest = cycles->longest_ns;
    cycles->sleeps++;
    if (asleep_ns >= given) return;
    uint64_t over = now - given, milliseconds = over / 1000000;
    cycles->over_ms[milliseconds < 63 ? milliseconds : 63]++;
    while (over > longest && !atomic_compare_exchange_weak(&cycles->longest_ns, &longest, over)) continue;
}
static void take_turns(uint32_t side) {
    own_random = 0x9e3779b97f4a7c15ull * ++cycles->incarnation;
    mortal = true;
    while (cycles->turn < cycles->wanted) {
        uint64_t asleep = 0;
        while ((cycles->turn & 1) != side) {
            uint32_t key = sq_event_announce(&cycles->events[side], true);
            if ((cycles->turn & 1) == side) break;
            asleep = sq_now_ns();
            sq_event_sleep(&cycles->events[side], key, asleep + SQ_SLICE_NS);
        }
        if (asleep) note_sleep(asleep);
        cycles->given_ns = sq_now_ns();
        cycles->turn++; /* published */
        maybe_die();
        sq_full_fence();
        sq_event_wake(&cycles->events[1 - side], 1);
    }
}
static int run_cycles(uint64_t count, uint64_t seconds, uint64_t seed) {
    cycles = shared_memory(sizeof *cycles);
    cycles->wanted = count;
    cycles->incarnation = (uint32_t)seed;
    cycles->armed = 1;
    uint64_t started = sq_now_ns(), end = started + seconds * 1000000000ull, kills = 0, last_kill = started;
    own_random = seed + 1;
    pid_t sides[2] = {start(take_turns, 0), start(take_turns, 1)};
    bool finished = false;
    while (!finished && sq_now_ns() < end) {
        usleep(500);
        if (sq_now_ns() - last_kill > KILL_EVERY_NS) {
            kill(sides[random_next() % 2], SIGKILL);
            last_kill = sq_now_ns();
        }
        finished = cycles->turn >= count;
        for (int side = 0; side < 2 && !finished; side++) {
            int how;
            if (waitpid(sides[side], &how, WNOHANG) != sides[side]) continue;
            if (WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL) kills++, sides[side] = start(take_turns, (uint32_t)side);
            else if (cycles->turn < count) give_up("a side ended with wait status %x", how);
        }
    }
    for (int side = 0; side < 2; side++) {
        kill(sides[side], SIGKILL);
        waitpid(sides[side], NULL, 0);
    }
    for (int at = 0; at < 64; at++)
        if (cycles->over_ms[at] && at) printf("    %2d ms late: %llu\n", at, (unsigned long long)cycles->over_ms[at]);
    printf("{\"turns\": %llu, \"sleeps\": %llu, \"kills\": %llu, \"longest_ms\": %.2f, \"seconds\": %.1f}\n",
           (unsigned long long)cycles->turn, (unsigned long long)cycles->sleeps, (unsigned long long)kills,
           (double)cycles->longest_ns / 1e6, (double)(sq_now_ns() - started) / 1e9);
    return 0;
}

/* -- Timeouts ------------------------------------------------------------------------------------------------------ */

#define CALLERS 4u
typedef struct {
    _Atomic uint32_t early, wrong, calls;
    uint32_t wanted;
    uint64_t seed;
    int empty, full;
    int64_t late_ns[]; /* of each call */
} timeout_board;
static timeout_board *timeouts;

static sq_ring *join(int fd) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sq_ring *ring = calloc(1, sizeof *ring);
    if (!ring || sq_attach(ring, open(path, O_RDWR | O_CLOEXEC)) != SQ_OK) give_up("cannot attach");
    return ring;
}
static int make(void) {
    sq_settings settings = {.capacity_bytes = 4096};
    sq_fault fault;
    int fd = memfd_create("waiting", MFD_CLOEXEC);
    if (fd < 0 || sq_format(fd, &settings, &fault) != SQ_OK) give_up("no ring");
    return fd;
}
static void busy(uint32_t index) {
    for (volatile uint64_t turns = index;; turns++) continue;
}
static void time_calls(uint32_t caller) {
    sq_ring *empty = join(timeouts->empty), *full = join(timeouts->full);
    uint8_t bytes[256] = {0};
    sq_record record;
    own_random = timeouts->seed * CALLERS + caller + 1;
    for (;;) {
        uint32_t call = timeouts->calls++;
        if (call >= timeouts->wanted) return;
        uint64_t deadline = sq_now_ns() + random_next() % 4000000;
        if (random_next() % 200 == 0) deadline += 110000000; /* over several slices */
        bool gets = random_next() % 2;
        int status;
        do
            status = gets ? sq_get_wait(empty, bytes, sizeof bytes, &record, deadline)
                          : sq_put_wait(full, bytes, sizeof bytes, 0, deadline);
        while (status == SQ_AGAIN);
        uint64_t now = sq_now_ns();
        if (status != (gets ? SQ_EMPTY : SQ_FULL)) timeouts->wrong++;
        if (now < deadline) timeouts->early++;
        timeouts->late_ns[call] = (int64_t)(now - deadline);
    }
}
static void measure_timeouts(uint32_t calls, uint32_t load, uint64_t seed) {
    timeouts = shared_memory(sizeof *timeouts + calls * sizeof(int64_t));
    timeouts->wanted = calls;
    timeouts->seed = seed;
    timeouts->empty = make();
    timeouts->full = make();
    sq_ring *filler = join(timeouts->full);
    uint8_t bytes[256] = {0};
    while (sq_put(filler, bytes, sizeof bytes, 0) == SQ_OK) continue;
    pid_t callers[CALLERS], busy_ones[64];
    if (load > 64) load = 64;
    for (uint32_t at = 0; at < load; at++) busy_ones[at] = start(busy, at);
    for (uint32_t at = 0; at < CALLERS; at++) callers[at] = start(time_calls, at);
    for (uint32_t at = 0; at < CALLERS; at++) {
        int how;
        waitpid(callers[at], &how, 0);
        if (!WIFEXITED(how) || WEXITSTATUS(how)) give_up("a caller ended with wait status %x", how);
    }
    for (uint32_t at = 0; at < load; at++) {
        kill(busy_ones[at], SIGKILL);
        waitpid(busy_ones[at], NULL, 0);
    }
    qsort(timeouts->late_ns, calls, sizeof(int64_t), by_value);
}
static int run_timeouts(uint32_t calls, uint32_t load, uint64_t seed) {
    measure_timeouts(calls, load, seed);
    printf("{\"calls\": %u, \"early\": %u, \"wrong\": %u, \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}\n",
           calls, timeouts->early, timeouts->wrong, (double)timeouts->late_ns[calls / 2] / 1e6,
           (double)timeouts->late_ns[(uint64_t)calls * 99 / 100] / 1e6, (double)timeouts->late_ns[calls - 1] / 1e6);
    return 0;
}

/* -- Jumps of the wall clock --------------------------------------------------------------------------------------- */

static uint64_t wall_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec;
}
static int run_clock(uint32_t calls, uint64_t seed) {
    uint32_t jumps = 0;
    uint64_t last = wall_seconds();
    for (int look = 0; look < 200; look++) { /* the jumps must be seen here, or the row would prove nothing */
        usleep(1000);
        uint64_t now = wall_seconds();
        jumps += now > last + 80000 || now + 80000 < last;
        last = now;
    }
    measure_timeouts(calls, 0, seed);
    printf("{\"calls\": %u, \"jumps\": %u, \"early\": %u, \"wrong\": %u, \"max_ms\": %.3f}\n", calls, jumps,
           timeouts->early, timeouts->wrong, (double)timeouts->late_ns[calls - 1] / 1e6);
    return 0;
}

int main(int argc, char **argv) {
    uint64_t numbers[3] = {0};
    for (int word = 2; word < argc && word < 5; word++) numbers[word - 2] = strtoull(argv[word], NULL, 0);
    if (argc == 5 && strcmp(argv[1], "cycles") == 0) return run_cycles(numbers[0], numbers[1], numbers[2]);
    if (argc == 5 && strcmp(argv[1], "timeouts") == 0)
        return run_timeouts((uint32_t)numbers[0], (uint32_t)numbers[1], numbers[2]);
    if (argc == 4 && strcmp(argv[1], "clock") == 0) return run_clock((uint32_t)numbers[0], numbers[1]);
    give_up("usage: waiting cycles COUNT SECONDS SEED | timeouts CALLS LOAD SEED | clock CALLS SEED");
}
