/* The bytes of a segment: the truth that every process which maps it agrees on.
 *
 *   offset 0        128  256     384       512      640  768       896  1024      1152   1280 1536      4096
 *          +--------+----+-------+---------+--------+----+---------+----+---------+------+----+---------+---
 *          |identity| -- |control|not_empty|not_full|tail|producers|head|consumers|leases| -- |histogram|
 *          +--------+----+-------+---------+--------+----+---------+----+---------+------+----+---------+---
 *   offset 4096                              20480 (rounded up to the page)
 *          +---------------------------------+--------------------------------------------+
 *          | participants, 512 x 32 bytes    | data region, mapped twice in a row          |
 *          +---------------------------------+--------------------------------------------+
 *
 * A record lies in the data region, on a boundary of one unit (16 bytes):
 *
 *          0        4        8        12  13  14   16                    (32)
 *          +--------+--------+--------+---+---+----+---------------------+---------------+-----+
 *          | length |sequence| lease  |tag|flg| 0  | stamp, crc (if      | payload       | pad |
 *          |        |        |        |   |   |    | SQ_RECORD_EXTENDED) | length bytes  | ..16|
 *          +--------+--------+--------+---+---+----+---------------------+---------------+-----+
 *
 * A *position* is one 64-bit word: units ever written (or read) in the low half, items in the high half, both modulo
 * 2^32. Publishing bytes and count together in one store is what makes `max_items` exact and leaves nothing to repair
 * when a process dies. The difference of two positions is what is in the ring; it never exceeds 2^31 units (32 GiB).
 *
 * A change of anything here changes SQ_LAYOUT_VERSION, docs/reference/segment-layout.md (a test compares them), and adds
 * an image of the version that was to tests/data/. A new mode bit alone does not: a build that does not know it refuses
 * the segment.
 */
#ifndef SAGE_RING_LAYOUT_H
#define SAGE_RING_LAYOUT_H

#include <stddef.h>

#include "ring_atomics.h"

#define SQ_MAGIC 0x3147525144454753ull /* "SGEDQRG1" in memory order on little-endian machines */
#define SQ_LAYOUT_VERSION 1u
#define SQ_BYTE_ORDER 0x01020304u
#define SQ_UNIT 16u
#define SQ_CACHE_LINE 128 /* two lines: the adjacent-line prefetcher of x86 pulls pairs */

#define SQ_CAPACITY_MIN 4096ull
#define SQ_CAPACITY_MAX (1ull << 34)
#define SQ_ITEMS_MAX ((1ull << 31) - 1)
#define SQ_PARTICIPANTS 512u
#define SQ_HISTOGRAM_BUCKETS 320u /* 40 powers of two of nanoseconds, 8 steps each */
#define SQ_SAMPLE_EVERY 64u       /* one record in so many carries a time stamp; a power of two */

/* identity.mode */
#define SQ_MODE_SINGLE_PRODUCER 1u
#define SQ_MODE_SINGLE_CONSUMER 2u
#define SQ_MODE_CHECKSUM 4u
#define SQ_MODE_KEPT 8u /* outlives all its users, until somebody removes it on purpose */
#define SQ_MODE_ALL 15u

/* control.state: bits are only ever added. */
#define SQ_STATE_SHUTDOWN 1u
#define SQ_STATE_IMMEDIATE 2u
#define SQ_STATE_POISONED 4u
#define SQ_STATE_MOVED 8u /* with SQ_STATE_SHUTDOWN, in one store: the successor is named in the file <name>~moved */

/* record.flags */
#define SQ_RECORD_SPILLED 1u  /* the payload is a reference to a spill file */
#define SQ_RECORD_EXTENDED 2u /* 16 more bytes: time stamp and checksum */
#define SQ_RECORD_FLAGS 3u

/* record.lease: phase in bits 0-7, attempt in 8-15, participant slot in 16-31. One store names state and owner, so a
 * crash can leave no claim without a name. */
#define SQ_READY 0u
#define SQ_LEASED 1u
#define SQ_TAKEN 2u
#define SQ_LEASE(phase, attempt, slot) ((uint32_t)(phase) | ((uint32_t)(attempt) << 8) | ((uint32_t)(slot) << 16))
#define SQ_LEASE_PHASE(word) ((word) & 0xffu)
#define SQ_LEASE_ATTEMPT(word) (((word) >> 8) & 0xffu)
#define SQ_LEASE_SLOT(word) ((word) >> 16)

/* Written once by sq_format() before anybody else can see the file, and never again. Covered by `checksum`. */
typedef struct {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t byte_order;
    uint32_t header_bytes; /* where the first data region starts; a multiple of page_bytes */
    uint32_t page_bytes;
    uint32_t word_bits;
    uint32_t unit_bytes;
    uint8_t instance[16];   /* random: tells this segment from an earlier one of the same name */
    uint64_t created_ns;    /* wall clock */
    uint64_t pid_namespace; /* inode: thread ids in the locks have a meaning only inside it */
    uint64_t max_items;     /* 0: bounded by bytes alone */
    uint64_t spill_threshold;
    uint64_t first_item; /* where the item counters started; not zero only in tests */
    uint64_t first_unit;
    uint32_t mode;
    uint32_t codec;
    uint64_t reserved[2];
    uint32_t zero;
    uint32_t checksum; /* crc32c of everything before it */
} sq_identity;

/* Read on every operation, written hardly ever, so it stays in every core's cache. */
typedef struct {
    sq_word32 state;         /* SQ_STATE_*; shutdown is set under the producers' lock: no put succeeds after it returned */
    sq_word32 poisoned_by;   /* process id of whoever found damage first */
    sq_word64 geometry;      /* data region in force: see sq_geometry_*; stored by resize under both locks */
    sq_word64 poison;        /* offset of the field found damaged + 1, so 0 is "none" */
    sq_word32 producer_role; /* participant slot + 1 that claimed SQ_MODE_SINGLE_PRODUCER; under the producers' lock */
    sq_word32 consumer_role;
    uint8_t boot_id[16];   /* of the boot in which the locks were last valid; replaced under flock(LOCK_EX) */
    sq_word32 participants_used; /* slots ever used, to bound scans; under the consumers' lock */
} sq_control;

/* An event count: see ring_wait.h. */
typedef struct {
    sq_word32 sequence; /* futex word; grows by one per wake */
    sq_word32 sleepers; /* upper bound of those asleep; a killed sleeper costs a useless wake, which clears it */
} sq_event;

/* Everything here is written under the producers' lock only, unless it says otherwise. */
typedef struct {
    /* Futex word of the robust lock (ring_lock.h). The 60 bytes behind it stay free: the kernel may find the list
     * entry of a two-lock operation there. */
    sq_word32 lock;
    uint32_t lock_room[15];
    sq_word64 other_cache;  /* producers: `head` as last seen; consumers: `tail` as last seen. May be old, never ahead. */
    sq_word64 count;        /* items ever put (taken), 64-bit; may lag behind the position after a crash: sq_count64() */
    sq_word64 bytes;        /* payload bytes ever put (taken) */
    sq_word64 blocked_ns;   /* added to without the lock */
    sq_word64 blocked;      /* added to without the lock */
    sq_word64 recoveries;   /* times the lock came from a dead owner */
    sq_word64 spills;       /* producers: spill records put; consumers: redeliveries */
    sq_word64 high_water;   /* producers: most items seen in the ring (sampled); consumers: items dropped by clear */
} sq_side;

/* Written under the consumers' lock only. See ring_lease.h. */
typedef struct {
    sq_word32 disordered; /* 0: every record from head on is READY, and the fields below mean nothing */
    sq_word32 leased;     /* records in phase LEASED; exact after recover() */
    sq_word64 cursor;     /* no READY record lies before it */
    sq_word64 frontier;   /* only records before it can be LEASED or TAKEN */
    sq_word32 taken;      /* records in phase TAKEN that head has not passed yet */
    uint32_t zero;
    uint64_t reserved;
} sq_leases;

/* One handle that leases or holds a role. Changed under the consumers' lock only. */
typedef struct {
    sq_word32 pid; /* 0: free. Stored last when registering, cleared last when freeing. */
    sq_word32 epoch; /* grows before `pid` is stored */
    /* Field 22 of /proc/<pid>/stat: tells a reused pid. 0: the handle was closed without the lock, so its leases are
     * given back as those of a dead one. */
    sq_word64 start_ticks;
    uint64_t reserved[2];
} sq_participant;

typedef struct {
    sq_identity identity;
    _Alignas(SQ_CACHE_LINE * 2) sq_control control;
    _Alignas(SQ_CACHE_LINE) sq_event not_empty;
    _Alignas(SQ_CACHE_LINE) sq_event not_full;
    /* Position after the last record ever published. Written under the producers' lock only.
     *   I1  head <= tail <= head + capacity, in units and in items
     *   W1  release store in sq_write_end(), pairs with R1: the records are complete before a consumer can see the
     *       position that covers them. A producer killed before it leaves bytes nobody will ever look at.
     *   The producers' own load is relaxed: nobody else stores here, and taking the lock is an acquire (L1). */
    _Alignas(SQ_CACHE_LINE) sq_word64 tail;
    _Alignas(SQ_CACHE_LINE) sq_side producers;
    /* Position of the first record whose bytes are still needed. Written under the consumers' lock only.
     *   W2  release store in sq_read_end() and sq_settle(), pairs with R2: the bytes were copied out before a producer can see that
     *       they may be overwritten. A consumer killed before it never had the item. */
    _Alignas(SQ_CACHE_LINE) sq_word64 head;
    _Alignas(SQ_CACHE_LINE) sq_side consumers;
    _Alignas(SQ_CACHE_LINE) sq_leases leases;
    _Alignas(512) sq_word64 histogram[SQ_HISTOGRAM_BUCKETS]; /* latency of sampled records; under the consumers' lock */
    _Alignas(4096) sq_participant participants[SQ_PARTICIPANTS];
} sq_header;

typedef struct {
    uint32_t length;   /* payload bytes */
    uint32_t sequence; /* items half of the position it starts at: tells a record from an older one at its place */
    sq_word32 lease;   /* SQ_LEASE() */
    uint8_t tag;       /* whatever the caller gave; the ring does not look at it */
    uint8_t flags;     /* SQ_RECORD_* */
    uint16_t zero;
} sq_record_header;

typedef struct {
    uint64_t stamp_ns; /* CLOCK_MONOTONIC when it was put; 0: not sampled */
    uint32_t crc32c;   /* of the payload, when the ring has SQ_MODE_CHECKSUM */
    uint32_t zero;
} sq_record_extension;

_Static_assert(sizeof(sq_identity) == 128, "identity");
_Static_assert(offsetof(sq_identity, checksum) == 124, "identity checksum");
_Static_assert(offsetof(sq_header, control) == 256, "control");
_Static_assert(offsetof(sq_header, not_empty) == 384, "not_empty");
_Static_assert(offsetof(sq_header, not_full) == 512, "not_full");
_Static_assert(offsetof(sq_header, tail) == 640, "tail");
_Static_assert(offsetof(sq_header, producers) == 768, "producers");
_Static_assert(offsetof(sq_header, head) == 896, "head");
_Static_assert(offsetof(sq_header, consumers) == 1024, "consumers");
_Static_assert(offsetof(sq_header, leases) == 1152, "leases");
_Static_assert(offsetof(sq_header, histogram) == 1536, "histogram");
_Static_assert(offsetof(sq_header, participants) == 4096, "participants");
_Static_assert(sizeof(sq_header) == 20480, "header");
_Static_assert(sizeof(sq_side) == 128, "a side is one pair of lines");
_Static_assert(sizeof(sq_participant) == 32, "participant");
_Static_assert(sizeof(sq_record_header) == SQ_UNIT, "record header is one unit");
_Static_assert(sizeof(sq_record_extension) == SQ_UNIT, "record extension is one unit");

/* Positions. */
static inline uint64_t sq_position(uint32_t units, uint32_t items) { return ((uint64_t)items << 32) | units; }
static inline uint32_t sq_units(uint64_t position) { return (uint32_t)position; }
static inline uint32_t sq_items(uint64_t position) { return (uint32_t)(position >> 32); }
static inline uint64_t sq_advance(uint64_t position, uint32_t units, uint32_t items) {
    return sq_position(sq_units(position) + units, sq_items(position) + items);
}

/* Units that a record of `length` payload bytes takes; the caller has bounded length by the capacity. */
static inline uint32_t sq_record_units(uint64_t length, bool extended) {
    return (uint32_t)(1 + (extended ? 1 : 0) + (length + SQ_UNIT - 1) / SQ_UNIT);
}

/* Geometry word: offset of the data region in pages (40 bits), log2 of its units (8 bits), generation (16 bits). */
static inline uint64_t sq_geometry(uint64_t offset_pages, uint32_t log2_units, uint32_t generation) {
    return (offset_pages << 24) | ((uint64_t)(log2_units & 0xffu) << 16) | (generation & 0xffffu);
}
static inline uint64_t sq_geometry_offset_pages(uint64_t word) { return word >> 24; }
static inline uint32_t sq_geometry_log2_units(uint64_t word) { return (uint32_t)(word >> 16) & 0xffu; }
static inline uint32_t sq_geometry_generation(uint64_t word) { return (uint32_t)word & 0xffffu; }

#endif
