/* Sleeping and waking, in processes of their own: how late is a sleeper woken while wakers and sleepers are killed
 * (cycles), and how late does a timed call return (timeouts).
 *
 *   waiting cycles SECONDS WANTED SEED     waiting timeouts COUNT BUSY SEED
 *
 * The last line is one JSON object.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "ring.h"

typedef struct {
    _Atomic uint64_t sleeps, over_60ms, worst_ns, handed, taken, ready_ns, early;
    _Atomic uint64_t late_us[1000]; /* of timed calls, by 100 us */
} shared_log;

static shared_log *shared;
static uint64_t noise;

void sq_point(int id) {
    if (id == SQ_POINT_sleep_over) shared->sleeps++;
}

static uint32_t roll(uint32_t below) {
    noise ^= noise << 13, noise ^= noise >> 7, noise ^= noise << 17;
    return (uint32_t)(noise % below);
}

static sq_ring *join(int fd) {
    sq_ring *ring = malloc(sizeof *ring);
    int status = sq_attach(ring, dup(fd));
    if (status) fprintf(stderr, "attach: %d\n", status), _exit(3);
    return ring;
}

static int make(uint64_t max_items) {
    int fd = memfd_create("waiting", MFD_CLOEXEC);
    sq_settings settings = {.capacity_bytes = 4096, .max_items = max_items};
    sq_fault fault;
    if (sq_format(fd, &settings, &fault)) abort();
    return fd;
}

static void pause_ns(uint64_t ns) {
    uint64_t end = sq_now_ns() + ns;
    while (sq_now_ns() < end) sq_pause();
}

static void note_lateness(uint64_t since) {
    uint64_t born = shared->ready_ns, now = sq_now_ns(), from = since > born ? since : born;
    uint64_t late = now > from ? now - from : 0, worst = shared->worst_ns;
    if (late > 60000000) shared->over_60ms++;
    while (late > worst && !atomic_compare_exchange_weak(&shared->worst_ns, &worst, late)) continue;
}

/* Items: the consumer sleeps, the producer hands over one item at a time. */
static void item_sleeper(int fd) {
    sq_ring *ring = join(fd);
    uint64_t stamp;
    sq_record record;
    shared->ready_ns = sq_now_ns();
    for (;;) {
        sq_store32(&ring->yields[SQ_CONSUMERS], 0);
        int status = sq_get_wait(ring, &stamp, sizeof stamp, &record, SQ_FOREVER);
        if (status == SQ_AGAIN) continue;
        if (status) _exit(4);
        note_lateness(stamp);
        shared->taken++;
    }
}
static void item_waker(int fd) {
    sq_ring *ring = join(fd);
    for (;;) {
        uint64_t patience = sq_now_ns() + 2000000; /* the sleeper may have been killed with the last one */
        while (sq_depth(ring) && sq_now_ns() < patience) sq_pause();
        pause_ns(roll(25000));
        uint64_t stamp = sq_now_ns();
        int status = sq_put_wait(ring, &stamp, sizeof stamp, 0, SQ_FOREVER);
        if (status && status != SQ_AGAIN) _exit(5);
    }
}

/* Room: the producer sleeps before a full ring of one item, the consumer makes room now and then. */
static void room_sleeper(int fd) {
    sq_ring *ring = join(fd);
    uint64_t nothing = 0;
    shared->ready_ns = sq_now_ns();
    for (;;) {
        sq_store32(&ring->yields[SQ_PRODUCERS], 0);
        int status = sq_put_wait(ring, &nothing, sizeof nothing, 0, SQ_FOREVER);
        if (status == SQ_AGAIN) continue;
        if (status) _exit(6);
        note_lateness(shared->handed);
    }
}
static void room_waker(int fd) {
    sq_ring *ring = join(fd);
    uint64_t stamp;
    sq_record record;
    for (;;) {
        uint64_t patience = sq_now_ns() + 2000000;
        while (!sq_depth(ring) && sq_now_ns() < patience) sq_pause();
        pause_ns(roll(25000));
        shared->handed = sq_now_ns();
        int status = sq_get_wait(ring, &stamp, sizeof stamp, &record, SQ_FOREVER);
        if (status && status != SQ_AGAIN) _exit(7);
        shared->taken++;
    }
}

static pid_t start(void (*role)(int), int fd) {
    pid_t pid = fork();
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    noise ^= (uint64_t)getpid() << 20;
    role(fd);
    _exit(8);
}

static int cycles(double seconds, uint64_t wanted) {
    void (*roles[2][2])(int) = {{item_sleeper, item_waker}, {room_sleeper, room_waker}};
    uint64_t killed = 0, died = 0, total = 0;
    for (int kind = 0; kind < 2; kind++) {
        int fd = make(1);
        pid_t pids[2] = {start(roles[kind][0], fd), start(roles[kind][1], fd)};
        uint64_t end = sq_now_ns() + (uint64_t)(seconds * 5e8);
        while (sq_now_ns() < end && shared->sleeps < wanted * (uint64_t)(kind + 1) / 2) {
            usleep(1000 + roll(8000));
            int victim = (int)roll(2);
            int status;
            if (waitpid(pids[victim], &status, WNOHANG) == pids[victim]) {
                fprintf(stderr, "a process ended by itself: %d\n", status), died++;
            } else {
                kill(pids[victim], SIGKILL);
                waitpid(pids[victim], NULL, 0);
                killed++;
            }
            pids[victim] = start(roles[kind][victim], fd);
        }
        for (int at = 0; at < 2; at++) kill(pids[at], SIGKILL), waitpid(pids[at], NULL, 0);
        total += shared->taken;
        shared->taken = 0;
        close(fd);
    }
    printf("{\"sleeps\": %llu, \"handed\": %llu, \"killed\": %llu, \"died\": %llu, \"worst_ms\": %.1f, \"over_60ms\": %llu}\n",
           (unsigned long long)shared->sleeps, (unsigned long long)total, (unsigned long long)killed,
           (unsigned long long)died, (double)shared->worst_ns / 1e6, (unsigned long long)shared->over_60ms);
    return 0;
}

/* Timed calls on an empty, and on a full ring. */
static void timed(int fd, uint64_t count) {
    sq_ring *ring = join(fd);
    uint64_t word = 0;
    sq_record record;
    bool full = roll(2);
    if (full && sq_put(ring, &word, sizeof word, 0)) _exit(9);
    for (uint64_t call = 0; call < count; call++) {
        uint64_t deadline = sq_now_ns() + roll(6000000);
        int status, wanted = full ? SQ_FULL : SQ_EMPTY;
        do {
            status = full ? sq_put_wait(ring, &word, sizeof word, 0, deadline)
                          : sq_get_wait(ring, &word, sizeof word, &record, deadline);
        } while (status == SQ_AGAIN);
        if (status != wanted) _exit(10);
        uint64_t now = sq_now_ns();
        if (now < deadline) {
            shared->early++;
        } else {
            uint64_t late = (now - deadline) / 100000;
            shared->late_us[late < 1000 ? late : 999]++;
            uint64_t worst = shared->worst_ns;
            while (now - deadline > worst && !atomic_compare_exchange_weak(&shared->worst_ns, &worst, now - deadline)) continue;
        }
    }
    _exit(0);
}

static int timeouts(uint64_t count, int busy) {
    pid_t hogs[16], pids[8];
    int failed = 0;
    for (int at = 0; at < busy; at++) {
        if (!(hogs[at] = fork())) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;) sq_pause();
        }
    }
    for (int at = 0; at < 8; at++) {
        int fd = make(1);
        noise += 0x9E3779B97F4A7C15ull;
        if (!(pids[at] = fork())) timed(fd, count / 8);
    }
    for (int at = 0; at < 8; at++) {
        int status;
        waitpid(pids[at], &status, 0);
        failed += status != 0;
    }
    for (int at = 0; at < busy; at++) kill(hogs[at], SIGKILL), waitpid(hogs[at], NULL, 0);
    uint64_t total = 0, seen = 0, p99 = 0;
    for (int at = 0; at < 1000; at++) total += shared->late_us[at];
    for (int at = 0; at < 1000 && seen * 100 < total * 99; at++) seen += shared->late_us[at], p99 = (uint64_t)at + 1;
    printf("{\"calls\": %llu, \"early\": %llu, \"failed\": %d, \"late_p99_ms\": %.1f, \"late_worst_ms\": %.1f}\n",
           (unsigned long long)total, (unsigned long long)shared->early, failed, (double)p99 / 10,
           (double)shared->worst_ns / 1e6);
    return failed != 0;
}

int main(int count, char **words) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (count != 5 || shared == MAP_FAILED) return fprintf(stderr, "see the top of waiting.c\n"), 2;
    noise = strtoull(words[4], NULL, 10) * 2 + 88172645463325252ull;
    if (strcmp(words[1], "cycles") == 0) return cycles(atof(words[2]), strtoull(words[3], NULL, 10));
    return timeouts(strtoull(words[2], NULL, 10), atoi(words[3]));
}
