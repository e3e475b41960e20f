/* Dead or slow? Only facts from the kernel, never elapsed time: a stopped, swapped-out or debugged process is alive.
 *
 * Two questions are asked, both only on suspicion, off the hot path:
 *   - is the thread that a lock names able to finish its operation? (sq_thread_gone)
 *   - is the process that a participant slot names still using this segment? (sq_process_gone)
 */
#ifndef SAGE_RING_ALIVE_H
#define SAGE_RING_ALIVE_H

#include <errno.h>
#include <sched.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "ring_atomics.h"
#include "ring_status.h"

/* What this thread tells the kernel and others about itself. Private memory. */
typedef struct {
    struct robust_list_head *robust; /* the C library's, registered with the kernel */
    uint32_t id;                     /* kernel thread id */
    uint32_t forks;                  /* sq_forks when the two above were read */
} sq_thread;

/* Grows in every forked child: what a handle knows about "this process" holds only while it is unchanged. */
static volatile uint32_t sq_forks = 1;
static void sq_count_fork(void) { sq_forks++; }
__attribute__((constructor)) static void sq_watch_forks(void) { pthread_atfork(NULL, NULL, sq_count_fork); }

/* initial-exec: one instruction instead of a call; the 16 bytes fit the room that loaders keep for this. */
static _Thread_local sq_thread sq_self __attribute__((tls_model("initial-exec")));

static __attribute__((noinline, cold)) void sq_thread_look_up(void) {
    size_t size = 0;
    sq_self.robust = NULL;
    sq_self.id = (uint32_t)syscall(SYS_gettid);
    if (syscall(SYS_get_robust_list, 0, &sq_self.robust, &size) != 0) sq_self.robust = NULL;
    sq_self.forks = sq_forks;
}

SQ_HOT sq_thread *sq_thread_current(void) {
    if (__builtin_expect(sq_self.forks != sq_forks, 0)) sq_thread_look_up();
    return &sq_self;
}

/* Reads a small file of /proc whole; returns its length, or -1 with errno. */
static inline ssize_t sq_read_proc(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, buffer, size - 1);
    int error = errno;
    close(fd);
    errno = error;
    if (length >= 0) buffer[length] = 0;
    return length;
}

/* State letter and start time of a process or thread; false when there is no such thing (any more). */
static inline bool sq_process_stat(uint32_t pid, char *state, uint64_t *start_ticks) {
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    if (sq_read_proc(path, text, sizeof text) <= 0) return false;
    char *at = strrchr(text, ')'); /* the name may contain anything, even ") R 1" */
    if (!at || at[1] != ' ') return false;
    *state = at[2];
    at += 2;
    for (int field = 3; field < 22 && at; field++) {
        at = strchr(at, ' ');
        if (at) at++;
    }
    if (!at) return false;
    *start_ticks = strtoull(at, NULL, 10);
    return true;
}

/* Does the process map the file? Says yes when it may not look, or when there is nothing to see because the first thread
 * has ended and others go on: only a certain "no" may end somebody's rights. */
static inline bool sq_process_maps(uint32_t pid, dev_t device, ino_t inode) {
    char path[32], line[512];
    snprintf(path, sizeof path, "/proc/%u/maps", pid);
    FILE *maps = fopen(path, "re");
    if (!maps) return true;
    bool found = false, any = false;
    while (!found && fgets(line, sizeof line, maps)) {
        unsigned major_number, minor_number;
        unsigned long long number;
        any = true;
        if (sscanf(line, "%*s %*s %*s %x:%x %llu", &major_number, &minor_number, &number) == 3)
            found = number == (unsigned long long)inode && makedev(major_number, minor_number) == device;
        while (!strchr(line, '\n') && fgets(line, sizeof line, maps)) continue; /* a long path: skip its rest */
    }
    fclose(maps);
    return found || !any;
}

static inline bool sq_thread_gone(uint32_t id, dev_t device, ino_t inode) {
    char state;
    uint64_t start;
    if (id == 0 || id > FUTEX_TID_MASK) return true;
    if (!sq_process_stat(id, &state, &start)) return errno == ENOENT || errno == ESRCH;
    if (state == 'Z' || state == 'X') return true;
    return !sq_process_maps(id, device, inode);
}

/* `start_ticks` was read by the process itself; a different one now means that the pid was reused, and 0 that the handle
 * was closed. */
static inline bool sq_process_gone(uint32_t pid, uint64_t start_ticks, dev_t device, ino_t inode) {
#ifdef SQ_PLANT_KILL_ZERO_LIVENESS
    return kill((pid_t)pid, 0) != 0;
#endif
    char state;
    uint64_t start;
    if (start_ticks == 0) return true;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0 && errno == ESRCH) return true;
    bool gone = false;
    if (!sq_process_stat(pid, &state, &start)) {
        gone = errno == ENOENT || errno == ESRCH;
    } else if (start != start_ticks) {
        gone = true;
    } else if (fd >= 0) {
        struct pollfd exited = {.fd = fd, .events = POLLIN}; /* readable: all its threads ended, reaped or not */
        gone = poll(&exited, 1, 0) == 1;
    } else {
        gone = state == 'Z' || state == 'X'; /* no descriptor to spare, or an old kernel */
    }
    if (!gone) gone = !sq_process_maps(pid, device, inode); /* it has exec'd: same pid, but the segment is not its own */
    if (fd >= 0) close(fd);
    return gone;
}

/* The boot this kernel is in: participants and lock owners of another one are dead. */
static inline bool sq_boot_id(uint8_t id[16]) {
    char text[64];
    if (sq_read_proc("/proc/sys/kernel/random/boot_id", text, sizeof text) < 36) return false;
    int filled = 0;
    for (const char *at = text; *at && filled < 16; at++) {
        unsigned byte;
        if (*at == '-' || *at == '\n') continue;
        if (sscanf(at, "%2x", &byte) != 1) return false;
        id[filled++] = (uint8_t)byte;
        at++;
    }
    return filled == 16;
}

static inline uint64_t sq_pid_namespace(void) {
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

#endif
