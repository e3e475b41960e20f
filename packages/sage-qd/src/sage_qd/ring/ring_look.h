/* Looking into a ring from outside: no lock, no slot, no store. The mapping is read-only, so even a mistake in here
 * cannot change the ring, and a watcher that is killed leaves nothing behind.
 *
 * Others are at work meanwhile. Each word is right by itself; whatever is computed from two of them is checked before it
 * is used as an address or as a bound, and is an estimate.
 */
#ifndef SAGE_RING_LOOK_H
#define SAGE_RING_LOOK_H

#include "ring_control.h"

#define SQ_LOOK_RECORDS (1u << 20) /* records walked at most, so that a look always ends */

typedef struct {
    sq_stats stats;
    uint64_t pid_namespace, poison;
    uint32_t mode, codec, poisoned_by, generation;
    uint32_t producer_role, consumer_role; /* participant slot + 1; 0: nobody */
    bool this_boot;                        /* whether the locks are of this boot */
    bool walked;                           /* whether `leases` below counts every lease */
    uint32_t pids[SQ_PARTICIPANTS], epochs[SQ_PARTICIPANTS], leases[SQ_PARTICIPANTS];
    uint64_t start_ticks[SQ_PARTICIPANTS];
} sq_sight;

/* What the file says it is, without mapping it. */
static inline int sq_look_identity(int fd, sq_identity *identity, sq_fault *fault) {
    sq_ring nobody; /* only its fault is written */
    memset(&nobody, 0, sizeof nobody);
    struct stat st;
    if (fstat(fd, &st) != 0) return sq_fail(fault, SQ_SYSTEM, "fstat", 0, 0, 0);
    ssize_t length = pread(fd, identity, sizeof *identity, 0);
    if (length < 0) return sq_fail(fault, SQ_SYSTEM, "pread", 0, 0, 0);
    if (length != (ssize_t)sizeof *identity)
        return sq_fail(fault, SQ_CORRUPT, "file size", 0, (uint64_t)length, sizeof *identity);
    int status = sq_check_identity(&nobody, identity, (uint64_t)st.st_size);
    *fault = nobody.fault;
    return status;
}

/* How many leases each slot holds; false when the walk met a record that changed under it. */
static inline bool sq_look_leases(sq_ring *ring, uint32_t *leases) {
    const sq_map *map = ring->map;
    sq_leases *shared = &ring->header->leases;
    if (!sq_load32(&shared->disordered)) return true;
    uint64_t at = sq_load_acquire64(&ring->header->head), frontier = sq_load64(&shared->frontier);
    uint32_t left = sq_units(frontier) - sq_units(at);
    if (left > map->capacity || sq_load64(&ring->header->control.geometry) != map->word) return false;
    for (uint32_t looked = 0; left; looked++) {
        const volatile sq_record_header *record = sq_record_at(map, at);
        if (looked == SQ_LOOK_RECORDS || record->sequence != sq_items(at)) return false;
        uint32_t lease = sq_load_acquire32((const sq_word32 *)&record->lease);
        bool extended = record->flags & SQ_RECORD_EXTENDED;
        uint64_t units = 1ull + extended + ((uint64_t)record->length + SQ_UNIT - 1) / SQ_UNIT;
        if (units > left) return false;
        if (SQ_LEASE_PHASE(lease) == SQ_LEASED && SQ_LEASE_SLOT(lease) < SQ_PARTICIPANTS) leases[SQ_LEASE_SLOT(lease)]++;
        left -= (uint32_t)units;
        at = sq_advance(at, (uint32_t)units, 1);
    }
    return true;
}

/* Whether the file shrank while it was looked at, so that zeros were read. */
static inline bool sq_is_broken(sq_ring *ring) { return sq_load32(&ring->broken); }

/* Everything worth seeing. `ring` was opened by sq_open(), writable or not. */
static inline void sq_look(sq_ring *ring, sq_sight *sight) {
    sq_header *header = ring->header;
    uint8_t boot[16];
    memset(sight, 0, sizeof *sight);
    sq_stats_read(ring, &sight->stats);
    sight->pid_namespace = header->identity.pid_namespace;
    sight->mode = ring->mode;
    sight->codec = ring->codec;
    sight->poison = sq_load64(&header->control.poison);
    sight->poisoned_by = sq_load32(&header->control.poisoned_by);
    sight->generation = sq_geometry_generation(ring->map->word);
    sight->this_boot = sq_boot_id(boot) && memcmp(boot, header->control.boot_id, sizeof boot) == 0;
    uint32_t used = sq_load32(&header->control.participants_used);
    if (used > SQ_PARTICIPANTS) used = SQ_PARTICIPANTS;
    for (uint32_t slot = 0; slot < used; slot++) {
        sq_participant *party = &header->participants[slot];
        sight->pids[slot] = sq_load_acquire32(&party->pid);
        sight->epochs[slot] = sq_load32(&party->epoch);
        sight->start_ticks[slot] = sq_load64(&party->start_ticks);
    }
    uint32_t producer = sq_load32(&header->control.producer_role), consumer = sq_load32(&header->control.consumer_role);
    sight->producer_role = producer <= SQ_PARTICIPANTS ? producer : 0;
    sight->consumer_role = consumer <= SQ_PARTICIPANTS ? consumer : 0;
    sight->walked = sq_look_leases(ring, sight->leases);
}

#endif
