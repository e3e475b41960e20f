/* What the processes of the storm share, and the oracle: every item has a fate, and all fates are accounted for.
 *
 * The board lies in memory that survives any of them. A process notes what it is about to do before it does it, and
 * what came of it afterwards; so when it is killed, the note says which items are in doubt, and no others may be.
 */
#ifndef SAGE_PROOF_STORM_H
#define SAGE_PROOF_STORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "ring.h"

#include <sys/prctl.h>
#include <sys/wait.h>

#define PRODUCERS 3u
#define CONSUMERS 3u
#define ROLES (PRODUCERS + CONSUMERS)
#define BATCH 4u
#define ITEM_MOST 1600u
#define NUMBERS (1u << 20) /* items of one producer in one round, at most */
#define RECOVERIES (1u << 20)

/* The fate of an item, one byte each. */
#define FIRST 1u   /* was delivered as a first attempt */
#define LEFT 2u    /* left the ring: a get returned it, or its lease was acknowledged */
#define UNKNOWN 4u /* its put did not return */
#define MAYBE 8u   /* was in the hands of a consumer that was killed before it could note it */
#define SURE 16u   /* and that consumer had passed the point where it takes the item */

typedef struct {
    uint32_t producer, number, length, check;
} item_head;

typedef struct {
    uint32_t length;
    uint8_t bytes[ITEM_MOST];
} hand; /* what a consumer holds */

enum doing { NOTHING, PUTTING, GETTING, LEASING, ACKNOWLEDGING };

typedef struct {
    _Atomic uint32_t doing;
    _Atomic uint64_t since_ns; /* when the call began; 0 outside of calls */
    _Atomic uint32_t incarnation;
    /* Producers: numbers below `done` are settled, those from there to `begun` are being put. */
    _Atomic uint32_t done, begun;
    /* Consumers. */
    uint32_t next[PRODUCERS]; /* the least number that may come from each as a first attempt */
    _Atomic uint32_t marked;  /* items of this call that are taken for sure; counted at fault points */
    hand hands[BATCH];
} role_log;

typedef struct {
    _Atomic uint32_t stop_putting, stop_taking, delays;
    _Atomic uint64_t torn, doubled, disordered, ghosts, fenced, bad_status, puts, gets;
    _Atomic int first_bad_status;
    _Atomic uint64_t killed_ns[2]; /* when a holder of this side's lock was killed, until somebody succeeds there */
    _Atomic uint32_t recoveries;
    uint32_t recovery_us[RECOVERIES];
    role_log roles[ROLES];
    _Atomic uint8_t fate[PRODUCERS][NUMBERS];
} storm_board;

static storm_board *board;

static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* -- Items --------------------------------------------------------------------------------------------------------- */

static uint32_t item_length(uint32_t producer, uint32_t number) {
    uint32_t mixed = (number * 2654435761u) ^ (producer * 40503u);
    return sizeof(item_head) + (mixed % 61 == 0 ? mixed / 61 % (ITEM_MOST - sizeof(item_head)) : mixed / 61 % 200);
}
static uint32_t item_fill(uint8_t *bytes, uint32_t producer, uint32_t number) {
    uint32_t length = item_length(producer, number);
    item_head head = {producer, number, length, ~(number * 31 + producer)};
    memcpy(bytes, &head, sizeof head);
    for (uint32_t at = sizeof head; at < length; at++) bytes[at] = (uint8_t)(number * 17 + producer * 101 + at * 7);
    return length;
}
static bool item_whole(const uint8_t *bytes, uint32_t length, item_head *head) {
    if (length < sizeof *head) return false;
    memcpy(head, bytes, sizeof *head);
    if (head->producer >= PRODUCERS || head->length != length || head->check != ~(head->number * 31 + head->producer))
        return false;
    for (uint32_t at = sizeof *head; at < length; at++)
        if (bytes[at] != (uint8_t)(head->number * 17 + head->producer * 101 + at * 7)) return false;
    return true;
}

/* -- Notes --------------------------------------------------------------------------------------------------------- */

static void note_call(role_log *log, enum doing doing) {
    log->marked = 0;
    log->since_ns = sq_now_ns();
    log->doing = doing;
}
static void note_return(role_log *log) {
    log->doing = NOTHING;
    log->since_ns = 0;
}
static void note_success(enum sq_which which) {
    uint64_t killed = board->killed_ns[which];
    if (!killed) return;
    uint64_t now = sq_now_ns();
    if (!atomic_compare_exchange_strong(&board->killed_ns[which], &killed, 0)) return;
    uint32_t at = board->recoveries++;
    if (at < RECOVERIES) board->recovery_us[at] = (uint32_t)((now - killed) / 1000);
}
static void note_bad_status(int status) {
    if (!board->bad_status++) board->first_bad_status = status;
}

/* An item was delivered; `left` says whether it is out of the ring. */
static void note_item(role_log *log, const uint8_t *bytes, uint32_t length, uint32_t attempt, bool left) {
    item_head head;
    if (!item_whole(bytes, length, &head)) {
        board->torn++;
        return;
    }
    if (head.number >= board->roles[head.producer].begun) {
        board->ghosts++;
        return;
    }
    uint8_t add = (uint8_t)((attempt ? 0 : FIRST) | (left ? LEFT : 0));
    uint8_t before = atomic_fetch_or(&board->fate[head.producer][head.number], add);
    if ((before & LEFT) || (!attempt && (before & FIRST))) board->doubled++;
    if (attempt) return;
    if (head.number < log->next[head.producer]) board->disordered++;
    log->next[head.producer] = head.number + 1;
}
static void note_acknowledged(const uint8_t *bytes, uint32_t length) {
    item_head head;
    if (!item_whole(bytes, length, &head)) return; /* counted when it was leased */
    if (atomic_fetch_or(&board->fate[head.producer][head.number], LEFT) & LEFT) board->doubled++;
}

/* -- After a kill, by the supervisor ------------------------------------------------------------------------------- */

static void settle_producer(uint32_t producer) {
    role_log *log = &board->roles[producer];
    for (uint32_t number = log->done; number < log->begun; number++)
        atomic_fetch_or(&board->fate[producer][number], UNKNOWN);
    log->done = log->begun;
    note_return(log);
}
/* Only what is whole in its hands can have left the ring: the copy is complete before an item is taken. */
static void settle_consumer(role_log *log) {
    bool takes = log->doing == GETTING || log->doing == ACKNOWLEDGING;
    for (uint32_t at = 0; takes && at < BATCH; at++) {
        item_head head;
        const hand *hand = &log->hands[at];
        memcpy(&head, hand->bytes, sizeof head);
        if (!head.length || !item_whole(hand->bytes, head.length, &head)) continue;
        atomic_fetch_or(&board->fate[head.producer][head.number], log->marked > at ? MAYBE | SURE : MAYBE);
    }
    note_return(log);
}

typedef struct {
    uint64_t items, unknown, lost, gone, doubtful;
} accounts;

/* All producers and consumers have ended and the ring is empty: every number below `begun` has a fate. */
static void settle_round(accounts *all) {
    for (uint32_t producer = 0; producer < PRODUCERS; producer++) {
        uint32_t begun = board->roles[producer].begun;
        all->items += begun;
        for (uint32_t number = 0; number < begun; number++) {
            uint8_t fate = board->fate[producer][number];
            if (fate & UNKNOWN) all->unknown++;
            if (fate & (UNKNOWN | LEFT)) continue;
            if (!(fate & MAYBE)) all->lost++;
            else if (!(fate & SURE)) all->doubtful++;
            else all->gone++;
        }
    }
}

#endif
