/* What the C proof programs share: rings on memfds, handles, a hook at fault points, children that are killed there.
 *
 * Every test runs in a process of its own (run_tests), so a crash or a hang of one is a failed test with a name, and
 * nothing a test leaves behind reaches the next.
 */
#ifndef SAGE_PROOF_CORE_H
#define SAGE_PROOF_CORE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* -- Checks ------------------------------------------------------------------------------------------------------- */

static const char *current_test = "";

__attribute__((noreturn, format(printf, 3, 4))) static void failed(const char *file, int line, const char *form, ...) {
    va_list more;
    va_start(more, form);
    printf("    %s:%d: ", file, line);
    vprintf(form, more);
    printf("\n");
    fflush(stdout);
    va_end(more);
    _exit(1);
}
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) failed(__FILE__, __LINE__, "%s", #condition);                                                \
    } while (0)
#define CHECK_IS(got, wanted)                                                                                          \
    do {                                                                                                               \
        long long is_ = (long long)(got), wanted_ = (long long)(wanted);                                               \
        if (is_ != wanted_) failed(__FILE__, __LINE__, "%s is %lld, not %s (%lld)", #got, is_, #wanted, wanted_);      \
    } while (0)

/* -- Rings and handles -------------------------------------------------------------------------------------------- */

static int make_ring(sq_settings settings) {
    if (!settings.capacity_bytes) settings.capacity_bytes = 4096;
    int fd = memfd_create("sage-proof", MFD_CLOEXEC);
    sq_fault fault;
    CHECK(fd >= 0);
    CHECK_IS(sq_format(fd, &settings, &fault), SQ_OK);
    return fd;
}
#define MAKE_RING(...) make_ring((sq_settings){__VA_ARGS__})

/* The same file once more, through an open file description of its own, as another process would have it. */
static int reopen(int fd) {
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR | O_CLOEXEC);
    CHECK(again >= 0);
    return again;
}
static int try_join(int fd, sq_ring **ring) {
    *ring = calloc(1, sizeof **ring);
    int own = reopen(fd), status = sq_attach(*ring, own);
    if (status) close(own);
    return status;
}
static sq_ring *join_ring(int fd) {
    sq_ring *ring;
    CHECK_IS(try_join(fd, &ring), SQ_OK);
    return ring;
}
static void part_ring(sq_ring *ring) {
    int fd = ring->fd;
    sq_detach(ring);
    sq_unmap(ring);
    close(fd);
    free(ring);
}

/* -- Items: a number, and bytes that follow from it ---------------------------------------------------------------- */

#define ITEM_ROOM 16384
#define ANY_TAG 255 /* the tag of an item says the end of its number, unless it is this */
typedef struct {
    uint32_t number, length;
} item_head;

static void fill_item(uint8_t *bytes, uint32_t number, uint32_t length) {
    item_head head = {number, length};
    memcpy(bytes, &head, sizeof head);
    for (uint32_t at = sizeof head; at < length; at++) bytes[at] = (uint8_t)(number * 31 + at * 7);
}
static bool whole_item(const uint8_t *bytes, uint32_t length) {
    item_head head;
    if (length < sizeof head) return false;
    memcpy(&head, bytes, sizeof head);
    if (head.length != length) return false;
    for (uint32_t at = sizeof head; at < length; at++)
        if (bytes[at] != (uint8_t)(head.number * 31 + at * 7)) return false;
    return true;
}
static uint32_t item_number(const uint8_t *bytes) { return ((const item_head *)bytes)->number; }

static int put_item(sq_ring *ring, uint32_t number, uint32_t length) {
    static _Thread_local uint8_t bytes[ITEM_ROOM];
    fill_item(bytes, number, length);
    return sq_put(ring, bytes, length, (uint8_t)number);
}
/* Takes the next item, which must be whole; its number, or minus the status. */
static int64_t get_item(sq_ring *ring) {
    static _Thread_local uint8_t bytes[ITEM_ROOM];
    sq_record record;
    int status = sq_get(ring, bytes, sizeof bytes, &record);
    if (status) return -status;
    if (!whole_item(bytes, record.length)) failed(__FILE__, __LINE__, "an item is torn: length %u", record.length);
    if (record.tag != ANY_TAG) CHECK_IS(record.tag, (uint8_t)item_number(bytes));
    return item_number(bytes);
}

static void settle_locks(sq_ring *ring) {
    CHECK_IS(sq_wait_lock(ring, SQ_PRODUCERS), SQ_OK);
    CHECK_IS(sq_wait_lock(ring, SQ_CONSUMERS), SQ_OK);
}

/* -- Fault points -------------------------------------------------------------------------------------------------- */

#ifdef SQ_FAULT_POINTS
/* What happens at a point: the hook is called at the `at_hit`-th hit of `at_point` (-1: any point), once. */
static struct {
    int at_point;
    uint32_t at_hit;
    void (*hook)(void);
} armed;
static const char *const point_names[] = {
#define SQ_POINT_NAME(name) #name,
    SQ_POINTS(SQ_POINT_NAME)};

void sq_point(int id) {
    if (!armed.hook || (armed.at_point >= 0 && armed.at_point != id) || --armed.at_hit) return;
    void (*hook)(void) = armed.hook;
    armed.hook = NULL;
    hook();
}
static void arm(int point, uint32_t hit, void (*hook)(void)) {
    armed.at_point = point;
    armed.at_hit = hit;
    armed.hook = hook;
}
static bool disarm(void) {
    bool unused = armed.hook != NULL;
    armed.hook = NULL;
    return unused;
}
static void die(void) { kill(getpid(), SIGKILL); }
#endif

/* -- Children ------------------------------------------------------------------------------------------------------ */

/* Runs `body(fd)` in a child. True when it was killed, false when it returned; any other end fails the test. */
static bool child_is_killed(void (*body)(int fd), int fd) {
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        body(fd);
        _exit(0);
    }
    int how;
    CHECK_IS(waitpid(pid, &how, 0), pid);
    if (WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL) return true;
    CHECK(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    return false;
}

/* A child that does `body(fd)` and then stays, alive, until it is told to end. */
typedef struct {
    pid_t pid;
    int ready, go;
} keeper;
static keeper keep_child(void (*body)(int fd), int fd) {
    int up[2], down[2];
    CHECK(pipe2(up, O_CLOEXEC) == 0 && pipe2(down, O_CLOEXEC) == 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (!pid) {
        char byte = 1;
        close(down[1]);
        body(fd);
        if (write(up[1], &byte, 1) != 1) _exit(2);
        if (read(down[0], &byte, 1) < 0) _exit(3);
        _exit(0);
    }
    close(up[1]);
    close(down[0]);
    char byte;
    CHECK_IS(read(up[0], &byte, 1), 1);
    return (keeper){pid, up[0], down[1]};
}
static void end_child(keeper *child) {
    close(child->go);
    int how;
    CHECK_IS(waitpid(child->pid, &how, 0), child->pid);
    close(child->ready);
}
static void kill_child(keeper *child) {
    int how;
    kill(child->pid, SIGKILL);
    CHECK_IS(waitpid(child->pid, &how, 0), child->pid);
    close(child->go);
    close(child->ready);
}

/* Waits until the thread is asleep in the kernel (state S). */
static void wait_until_asleep(uint32_t thread) {
    char state = 0;
    uint64_t start;
    while (!(sq_process_stat(thread, &state, &start) && state == 'S')) usleep(200);
}

/* -- Running ------------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *name;
    void (*body)(void);
} named_test;

/* Runs all tests, or those named; prints one line each and a JSON line at the end. */
static int run_tests(const named_test *tests, size_t count, int argc, char **argv, unsigned seconds_each) {
    size_t ran = 0, bad = 0;
    char failures[8192] = "";
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t at = 0; at < count; at++) printf("%s\n", tests[at].name);
        return 0;
    }
    for (size_t at = 0; at < count; at++) {
        /* Words choose tests; a word that begins with a minus leaves one out. */
        bool wanted = argc < 2 || argv[1][0] == '-';
        for (int word = 1; word < argc; word++) {
            wanted = wanted || strcmp(argv[word], tests[at].name) == 0;
            if (argv[word][0] == '-' && strcmp(argv[word] + 1, tests[at].name) == 0) wanted = false;
        }
        if (!wanted) continue;
        ran++;
        fflush(stdout);
        pid_t pid = fork();
        if (pid < 0) return 2;
        if (!pid) {
            current_test = tests[at].name;
            setpgid(0, 0);
            tests[at].body();
            fflush(stdout);
            exit(0); /* not _exit: sanitizers report at exit */
        }
        int how, watched = (int)syscall(SYS_pidfd_open, pid, 0);
        struct pollfd end = {.fd = watched, .events = POLLIN};
        bool hangs = watched >= 0 && poll(&end, 1, (int)seconds_each * 1000) == 0;
        if (hangs) kill(pid, SIGKILL);
        while (waitpid(pid, &how, 0) < 0 && errno == EINTR) continue;
        close(watched);
        kill(-pid, SIGKILL); /* children the test left behind are in its group */
        bool good = WIFEXITED(how) && WEXITSTATUS(how) == 0;
        const char *verdict = good ? "ok" : hangs ? "FAILED: hang" : WIFEXITED(how) ? "FAILED" : "FAILED: crash";
        printf("%-80s %s", tests[at].name, verdict);
        if (!good && !hangs && WIFSIGNALED(how)) printf(" (signal %d)", WTERMSIG(how));
        printf("\n");
        if (!good && strlen(failures) + strlen(tests[at].name) + 8 < sizeof failures) {
            if (bad) strcat(failures, ", ");
            strcat(strcat(strcat(failures, "\""), tests[at].name), "\"");
        }
        bad += !good;
    }
    if (!ran) {
        printf("no such test\n");
        return 2;
    }
    printf("{\"tests\": %zu, \"failed\": [%s]}\n", ran, failures);
    return bad != 0;
}

#endif
