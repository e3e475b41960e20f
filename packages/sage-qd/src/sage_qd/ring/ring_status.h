/* What an operation can answer, and what it says about the reason. */
#ifndef SAGE_RING_STATUS_H
#define SAGE_RING_STATUS_H

#include <stdint.h>
#include <time.h>

enum sq_status {
    SQ_OK = 0,
    SQ_EMPTY,          /* nothing to take (now, or until the deadline) */
    SQ_FULL,           /* no room (now, or until the deadline) */
    SQ_SHUTDOWN,       /* put: the ring was shut down; get: and it is drained */
    SQ_BUSY,           /* another party holds the lock: wait with sq_lock_wait() */
    SQ_AGAIN,          /* a slice of waiting ended or a signal came: look at signals, then call again */
    SQ_TOO_LARGE,      /* can never fit: fault.value is the length, fault.wanted the limit */
    SQ_TOO_SMALL,      /* the caller's buffer is too small; the record stays */
    SQ_SPILLED_RECORD, /* the next record refers to a spill file: lease it */
    SQ_CORRUPT,        /* damage was found: fault.field, offset, value, wanted */
    SQ_CHECKSUM,       /* this one payload is damaged; it was taken out */
    SQ_INCOMPATIBLE,   /* made by another version, byte order, page size, ... */
    SQ_NAMESPACE,      /* made in another PID namespace */
    SQ_SYSTEM,         /* a system call failed: fault.error, fault.field names the call */
    SQ_FENCED,         /* the lease is not ours any more */
    SQ_NO_SLOT,        /* no participant slot is free */
    SQ_ROLE_TAKEN,     /* a live party holds the role: fault.value is its pid */
    SQ_INVALID,        /* the argument or the ring's mode does not allow it */
};

typedef struct {
    const char *field; /* static string */
    uint64_t offset, value, wanted;
    int error; /* errno */
} sq_fault;

#define SQ_SLICE_NS 50000000ull /* nobody sleeps longer without looking again */
#define SQ_FOREVER UINT64_MAX

static inline uint64_t sq_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

#endif
