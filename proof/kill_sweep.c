/* Kills a process at every instruction of an operation of the ring, and asks the survivors what they find.
 *
 *   kill_sweep [--long] [OPERATION [STATE]]
 *
 * A victim performs one operation under ptrace, is run to its k-th instruction, and gets SIGKILL there; so for every k
 * until it reaches the end. Long operations are mostly fast-forwarded: the first victim's instruction addresses are
 * recorded, and later ones run to a breakpoint on an address shortly before the wanted instruction (where that is in a
 * loop, to its n-th hit), and are stepped from there. Needs x86-64 and permission to trace one's own children.
 */
#include "sweep.h"

#if !defined(__x86_64__)
int main(void) {
    printf("{\"not_run\": \"needs x86-64\"}\n");
    return 0;
}
#else

#include <sys/ptrace.h>
#include <sys/user.h>

#define TRACE_MOST 400000u
#define HIT_COST 5u /* a hit of a breakpoint costs as much as so many steps */
#define COMPLAINTS_MOST 5

/* -- One victim under ptrace --------------------------------------------------------------------------------------- */

extern char sweep_end[];

static void trap_before(void) {
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(77);
    __asm__ volatile("int3" ::: "memory");
}
static __attribute__((noinline, noclone)) void trap_after(void) {
    __asm__ volatile(".globl sweep_end\nsweep_end: int3" ::: "memory");
}

static uint64_t peek_address(pid_t pid) {
    errno = 0;
    long address = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), NULL);
    CHECK(errno == 0);
    return (uint64_t)address;
}

/* Lets the victim go on in one way, until it stops again. True when it stopped at a trap, as it must. */
static bool go_on(pid_t pid, int how) {
    int status;
    CHECK(ptrace(how, pid, NULL, NULL) == 0);
    CHECK_IS(waitpid(pid, &status, 0), pid);
    if (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP) return true;
    return complain("the victim ended by itself: wait status %x", status);
}

static void set_address(pid_t pid, uint64_t address) {
    CHECK(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, rip), address) == 0);
}

/* Runs the victim to the n-th time that it comes to an address: a breakpoint in its private copy of the code, which is
 * gone afterwards. False when the end came first. */
static bool run_to(pid_t pid, uint64_t address, uint32_t hits) {
    errno = 0;
    long word = ptrace(PTRACE_PEEKTEXT, pid, address, NULL);
    CHECK(errno == 0);
    for (uint32_t hit = 1;; hit++) {
        CHECK(ptrace(PTRACE_POKETEXT, pid, address, (word & ~0xffl) | 0xcc) == 0);
        if (!go_on(pid, PTRACE_CONT)) failed(__FILE__, __LINE__, "%s", complaint);
        CHECK(ptrace(PTRACE_POKETEXT, pid, address, word) == 0);
        if (peek_address(pid) != address + 1) return false;
        set_address(pid, address);
        if (hit == hits) return true;
        if (!go_on(pid, PTRACE_SINGLESTEP)) failed(__FILE__, __LINE__, "%s", complaint);
    }
}

static void end_victim(pid_t pid) {
    int status;
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK_IS(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* A victim that stands before the first instruction; -1 when tracing is not allowed. */
static pid_t traced_victim(bench *bench) {
    pid_t pid = start_victim(bench, trap_before, trap_after);
    int status;
    CHECK_IS(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return -1;
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    CHECK(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL) == 0);
    return pid;
}

/* -- The instructions of an operation ------------------------------------------------------------------------------ */

static uint64_t trace[TRACE_MOST]; /* trace[k]: address after k instructions */
static uint32_t nth[TRACE_MOST];   /* it is the nth[k]-th time that trace[k] occurs */
static uint32_t from[TRACE_MOST];  /* where to run to by breakpoint on the way to k; 0: step from the start */
static uint32_t trace_length;

static int by_address_and_time(const void *left, const void *right) {
    uint32_t one = *(const uint32_t *)left, other = *(const uint32_t *)right;
    if (trace[one] != trace[other]) return trace[one] < trace[other] ? -1 : 1;
    return one < other ? -1 : one > other;
}
static void record_trace(bench *bench) {
    pid_t pid = traced_victim(bench);
    for (trace_length = 0;; trace_length++) {
        CHECK(trace_length < TRACE_MOST);
        trace[trace_length] = peek_address(pid);
        if (trace[trace_length] == (uint64_t)sweep_end) break;
        if (!go_on(pid, PTRACE_SINGLESTEP)) failed(__FILE__, __LINE__, "%s", complaint);
    }
    end_victim(pid);
    uint32_t *order = malloc((trace_length + 1) * sizeof *order);
    CHECK(order);
    for (uint32_t at = 0; at < trace_length; at++) order[at] = at;
    qsort(order, trace_length, sizeof *order, by_address_and_time);
    for (uint32_t at = 0; at < trace_length; at++)
        nth[order[at]] = at && trace[order[at - 1]] == trace[order[at]] ? nth[order[at - 1]] + 1 : 1;
    free(order);
    from[0] = 0;
    for (uint32_t at = 1, cost = 0; at < trace_length; at++) {
        bool here = nth[at] * HIT_COST < ++cost;
        from[at] = here ? at : from[at - 1];
        if (here) cost = nth[at] * HIT_COST;
    }
}

/* Brings a victim to its k-th instruction, by breakpoint where that is faster. False when the end came before that. */
static bool bring_to(pid_t pid, uint32_t k, bool fast) {
    uint32_t at = 0;
    if (fast && k < trace_length && from[k]) {
        at = from[k];
        if (!run_to(pid, trace[at], nth[at])) return false;
    }
    for (; at < k; at++) {
        if (peek_address(pid) == (uint64_t)sweep_end) return false;
        if (!go_on(pid, PTRACE_SINGLESTEP)) failed(__FILE__, __LINE__, "%s", complaint);
    }
    return true;
}

/* -- Sweeping ------------------------------------------------------------------------------------------------------ */

typedef struct {
    uint64_t kills, sweeps, bad;
    uint64_t shorter; /* victims that ended a little earlier than the recorded one: text read from /proc differs */
} totals;

/* Every k of one operation from one state. */
static void sweep(const operation *operation, const start_state *state, totals *totals) {
    bench bench;
    bench_open(&bench, operation, state);
    record_trace(&bench);
    judge(&bench, false); /* gives the locks back where the survivor held them */
    uint64_t started = sq_now_ns();
    uint32_t kills = 0, bad = 0;
    for (uint32_t k = 0; k <= trace_length && bad < COMPLAINTS_MOST; k++) {
        bench_reset(&bench);
        pid_t pid = traced_victim(&bench);
        if (!bring_to(pid, k, true)) { /* it went another way than the first one: walk with it */
            end_victim(pid);
            judge(&bench, true);
            bench_reset(&bench);
            pid = traced_victim(&bench);
            totals->shorter += !bring_to(pid, k, false);
        }
        uint64_t address = peek_address(pid);
        bool completed = address == (uint64_t)sweep_end;
        end_victim(pid);
        kills++;
        if (!judge(&bench, completed)) {
            printf("    %s from %s, killed after %u instructions, at %#llx: %s\n", operation->name, state->name, k,
                   (unsigned long long)address, complaint);
            bad++;
            bench_close(&bench); /* nothing of it can be trusted any more */
            bench_open(&bench, operation, state);
        }
    }
    bench_close(&bench);
    printf("%-14s %-14s %6u instructions, each killed: %s  (%.1f s)\n", operation->name, state->name, trace_length,
           bad ? "WRONG" : "all well", (double)(sq_now_ns() - started) / 1e9);
    fflush(stdout);
    totals->kills += kills;
    totals->bad += bad;
    totals->sweeps++;
}

/* One processor for both: a step is a switch between victim and tracer, and those are slow across processors. */
static void stay_on_one_processor(void) {
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET(sched_getcpu(), &here);
    CHECK(sched_setaffinity(0, sizeof here, &here) == 0);
}

static bool may_trace(void) {
    bench bench;
    bench_open(&bench, &operations[0], &states[0]);
    pid_t pid = traced_victim(&bench);
    if (pid > 0) end_victim(pid);
    bench_close(&bench);
    return pid > 0;
}

int main(int argc, char **argv) {
    bool all = argc > 1 && strcmp(argv[1], "--long") == 0;
    const char *only = argc > 1 + all ? argv[1 + all] : NULL, *from = argc > 2 + all ? argv[2 + all] : NULL;
    totals totals = {0};
    stay_on_one_processor();
    if (!may_trace()) {
        printf("{\"not_run\": \"tracing is not permitted here\"}\n");
        return 0;
    }
    for (size_t at = 0; at < OPERATIONS; at++) {
        const operation *operation = &operations[at];
        bool waits = operation->perform == perform_put_wait || operation->perform == perform_get_wait;
        if (waits) continue; /* no two runs of them are alike; see points.c */
        if (only ? strcmp(only, operation->name) != 0 : !all && at > 1) continue;
        for (size_t state = 0; state < STATES; state++)
            if (worth_sweeping(operation, &states[state]) && !(from && strcmp(from, states[state].name)))
                sweep(operation, &states[state], &totals);
    }
    printf("{\"kills\": %llu, \"sweeps\": %llu, \"bad\": %llu, \"shorter\": %llu}\n", (unsigned long long)totals.kills,
           (unsigned long long)totals.sweeps, (unsigned long long)totals.bad, (unsigned long long)totals.shorter);
    return totals.bad || !totals.sweeps;
}
#endif
