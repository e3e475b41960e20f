/* Who takes part: slots that name the holders of leases and roles. Plain put and get need none, and recovery of the
 * ring never looks here.
 *
 * A slot is filled and freed under the consumers' lock. It is freed only after every lease that names it was given back
 * (sq_detach, sq_sweep), so a new holder never inherits claims of an old one; the epoch tells the two apart for anybody
 * who looked before and acts later.
 */
#ifndef SAGE_RING_PARTY_H
#define SAGE_RING_PARTY_H

#include "ring_take.h"

/* In a forked child the handle is a new party: slot and roles stay the parent's. */
static inline void sq_notice_fork(sq_ring *ring) {
#ifdef SQ_PLANT_FORK_UNNOTICED
    return;
#endif
    if (ring->forks == sq_forks) return;
    ring->forks = sq_forks;
    ring->slot = 0;
    ring->roles = 0;
}

static inline bool sq_party_gone(sq_ring *ring, uint32_t slot) {
    sq_participant *party = &ring->header->participants[slot];
    uint32_t pid = sq_load_acquire32(&party->pid);
    return !pid || sq_process_gone(pid, sq_load64(&party->start_ticks), ring->device, ring->inode);
}

/* Gives the handle a slot. Under the consumers' lock. */
static __attribute__((noinline)) int sq_register(sq_ring *ring) {
    sq_notice_fork(ring);
    if (ring->slot) return SQ_OK;
    sq_header *header = ring->header;
    char state;
    uint64_t start;
    if (!sq_process_stat((uint32_t)getpid(), &state, &start)) return sq_fail(&ring->fault, SQ_SYSTEM, "/proc/self/stat", 0, 0, 0);
    uint32_t used = sq_load32(&header->control.participants_used);
    if (used > SQ_PARTICIPANTS)
        return sq_poison(ring, "participants_used", offsetof(sq_header, control.participants_used), used, SQ_PARTICIPANTS);
    for (uint32_t slot = 0; slot < SQ_PARTICIPANTS; slot++) {
        sq_participant *party = &header->participants[slot];
        if (sq_load32(&party->pid)) continue;
        if (slot >= used) sq_store32(&header->control.participants_used, slot + 1);
        sq_store64(&party->start_ticks, start);
        sq_store_release32(&party->epoch, sq_load32(&party->epoch) + 1);
        sq_crash_fence();
        SQ_POINT(register_filled);
        sq_store_release32(&party->pid, (uint32_t)getpid()); /* killed before: the slot is still free */
        SQ_POINT(register_done);
        ring->slot = slot + 1;
        return SQ_OK;
    }
    return sq_fail(&ring->fault, SQ_NO_SLOT, "participants", offsetof(sq_header, participants), SQ_PARTICIPANTS, SQ_PARTICIPANTS);
}

static inline sq_word32 *sq_role_word(sq_ring *ring, enum sq_which which) {
    sq_control *control = &ring->header->control;
    return which == SQ_PRODUCERS ? &control->producer_role : &control->consumer_role;
}

static int sq_make_slot(sq_ring *ring, bool wait);
static int sq_give_back_others(sq_ring *ring);

/* Claims the role that makes the lock of this side unnecessary. The word is changed under that lock. */
static __attribute__((noinline, cold)) int sq_claim_role(sq_ring *ring, enum sq_which which, bool wait) {
    sq_notice_fork(ring);
    int status = sq_take_lock(ring, SQ_CONSUMERS, wait);
    if (status) return status;
    status = sq_register(ring);
    sq_lock_free(&ring->header->consumers.lock);
    if (status == SQ_NO_SLOT) return sq_make_slot(ring, wait);
    if (status) return status;
    status = sq_take_lock(ring, which, wait);
    if (status) return status;
    sq_word32 *word = sq_role_word(ring, which);
    uint32_t holder = sq_load32(word);
    if (holder > SQ_PARTICIPANTS) {
        status = sq_poison(ring, "role", (uint64_t)((uint8_t *)word - (uint8_t *)ring->header), holder, SQ_PARTICIPANTS);
    } else if (holder && holder != ring->slot && !sq_party_gone(ring, holder - 1)) {
        status = sq_fail(&ring->fault, SQ_ROLE_TAKEN, which == SQ_PRODUCERS ? "producer" : "consumer", 0,
                         sq_load32(&ring->header->participants[holder - 1].pid), 0);
    } else {
        sq_store_release32(word, ring->slot);
        ring->roles |= sq_role_bit(which);
        status = sq_recover(ring, which); /* the last holder may have died in the middle */
        if (!status && which == SQ_CONSUMERS && holder != ring->slot) status = sq_give_back_others(ring);
        if (status) ring->roles &= ~sq_role_bit(which);
    }
    sq_lock_free(&sq_side_of(ring, which)->lock);
    return status;
}

/* Gives a role back; the lock could not be had: the word stays, and names a slot that is about to be given up. */
static inline void sq_give_up_role(sq_ring *ring, enum sq_which which) {
    if (!(ring->roles & sq_role_bit(which))) return;
    ring->roles &= ~sq_role_bit(which);
    if (sq_take_lock(ring, which, true) != SQ_OK) return;
    if (sq_load32(sq_role_word(ring, which)) == ring->slot) sq_store_release32(sq_role_word(ring, which), 0);
    sq_lock_free(&sq_side_of(ring, which)->lock);
}

#endif
