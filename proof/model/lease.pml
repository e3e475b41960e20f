/* The lease protocol: records that are READY, LEASED or TAKEN, a head that follows, and everything that can be counted
 * again. Checked with Spin. A number of records is in the ring; consumers lease, acknowledge, return and get them, sweep
 * for the dead, and are killed at any statement, the sweeper and its successor too. A killed consumer comes back as a new
 * party, which may be given the slot of a dead one.
 *
 * One statement is one access to shared memory. Everything happens under the consumers' lock, which is robust.
 *
 * Checked: each record is done exactly once (acknowledged or got), whatever happens; a lease is given back only when its
 * holder is dead; at the end nothing is leased, the head has passed everything, the disorder is over; nobody is stuck.
 *
 * Configuration (-D): CONSUMERS, RECORDS, CRASHES, RETURNS (how often a live holder may give back).
 * Planted errors: PLANT_HEAD_PASSES_LEASE, PLANT_MARK_BEFORE_DISORDER, PLANT_FRONTIER_AFTER_MARK, PLANT_CURSOR_FORGOTTEN,
 * PLANT_SLOT_FREED_FIRST, PLANT_REPAIR_FORGOTTEN, PLANT_EPOCH_IGNORED.
 */
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef RECORDS
#define RECORDS 3
#endif
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef RETURNS
#define RETURNS 1
#endif

#define DIED 99
#define READY 0
#define LEASED 1
#define TAKEN 2
#define SLOTS CONSUMERS
#define LIVES (CONSUMERS + CRASHES + 1) /* every life of a consumer has a number of its own, from 1 */

byte lock;
byte head, frontier, cursor, leased, taken;
bool disordered;
byte phase[RECORDS], holder[RECORDS]; /* one word in the ring: state and slot + 1 */
byte slot_life[SLOTS], slot_epoch[SLOTS];

/* What only the checker knows. */
byte done[RECORDS], owner[RECORDS]; /* how often; the life that really holds it */
bool dead[LIVES], kill[CONSUMERS], over[CONSUMERS];
byte lives, kills, returns;

inline count_again() {
    d_step {
        leased = 0;
        taken = 0;
        at = head;
        do
        :: at < frontier ->
            if
            :: phase[at] == LEASED -> leased++
            :: phase[at] == TAKEN -> taken++
            :: else
            fi;
            at++
        :: else -> break
        od;
        at = 0
    }
}

/* The head moves over what is TAKEN; at the frontier the disorder ends. */
inline settle() {
    d_step {
        at = head;
        do
#ifdef PLANT_HEAD_PASSES_LEASE
        :: at < frontier && phase[at] != READY -> at++
#else
        :: at < frontier && phase[at] == TAKEN -> at++
#endif
        :: else -> break
        od
    };
    if
    :: at != head ->
        taken = taken - (at - head); /* relative to what it was: the model has no use for it beyond counting */
        atomic {
            assert(at <= RECORDS);
            head = at
        };
        if
        :: cursor < at -> cursor = at
        :: else
        fi
    :: else
    fi;
    if
    :: at >= frontier -> disordered = false
    :: else
    fi;
    at = 0
}

inline take_lock() {
    atomic {
        (lock == 0 || lock == DIED);
        inherited = (lock == DIED);
        lock = me + 1
    };
#ifndef PLANT_REPAIR_FORGOTTEN
    if
    :: inherited && disordered -> count_again(); cursor = head; settle()
    :: else
    fi;
#endif
    inherited = false
}

/* Records up to `end` may be in other phases from now on. */
inline disorder(end) {
    if
    :: !disordered ->
        frontier = end;
        cursor = head;
        leased = 0;
        taken = 0;
        disordered = true
    :: disordered && frontier < end -> frontier = end
    :: else
    fi
}

/* Finds the next READY record: `found`, or RECORDS when there is none. */
inline find_next() {
    d_step {
        found = (disordered -> cursor : head);
        do
        :: found < RECORDS && phase[found] != READY ->
            assert(disordered); /* in order, every record from the head on is READY */
            found++
        :: else -> break
        od
    }
}

inline register() {
    if
    :: slot == 0 ->
        atomic {
            slot = 1;
            do
            :: slot <= SLOTS && slot_life[slot - 1] != 0 -> slot++
            :: else -> break
            od
        };
        if
        :: slot <= SLOTS -> slot_epoch[slot - 1]++; slot_life[slot - 1] = life
        :: else -> slot = 0 /* none is free: sweep first */
        fi
    :: else
    fi
}

inline mark_leased(end) {
    atomic {
        assert(phase[found] == READY);
        phase[found] = LEASED;
        holder[found] = slot;
        owner[found] = life
    }
}

inline do_lease() {
    take_lock();
    find_next();
    if
    :: found < RECORDS ->
        register();
        if
        :: slot > 0 ->
#ifdef PLANT_MARK_BEFORE_DISORDER
            mark_leased(found + 1);
            disorder(found + 1);
#else
#ifdef PLANT_FRONTIER_AFTER_MARK
            if
            :: !disordered -> disorder(found + 1)
            :: else
            fi;
            mark_leased(found + 1);
            disorder(found + 1);
#else
            disorder(found + 1);
            mark_leased(found + 1);
#endif
#endif
            leased++;
            mine = found + 1;
            cursor = found + 1;
            settle()
        :: else
        fi
    :: else ->
        if
        :: disordered -> cursor = found
        :: else
        fi
    fi;
    found = 0;
    lock = 0
}

inline do_get() {
    take_lock();
    find_next();
    if
    :: found < RECORDS && !disordered ->
        atomic { done[found]++; head = found + 1 } /* one store of the head takes it */
    :: found < RECORDS && disordered ->
        disorder(found + 1);
        atomic { phase[found] = TAKEN; holder[found] = 0; done[found]++ };
        taken++;
        cursor = found + 1;
        settle()
    :: else ->
        if
        :: disordered -> cursor = found
        :: else
        fi
    fi;
    found = 0;
    lock = 0
}

#define LEASED_TO_ME (phase[mine - 1] == LEASED && holder[mine - 1] == slot)
#define HELD (mine > 0 && mine - 1 >= head && mine - 1 < frontier && LEASED_TO_ME)

inline do_acknowledge() {
    take_lock();
    assert(HELD); /* nobody may take a lease from a live holder */
    atomic { phase[mine - 1] = TAKEN; holder[mine - 1] = 0; owner[mine - 1] = 0; done[mine - 1]++ };
    taken++;
    leased--;
    mine = 0;
    settle();
    lock = 0
}

inline give_back(record) {
#ifndef PLANT_CURSOR_FORGOTTEN
    if
    :: record < cursor -> cursor = record
    :: else
    fi;
#endif
    atomic { phase[record] = READY; holder[record] = 0; owner[record] = 0 };
    leased--
}

inline do_return() {
    take_lock();
    assert(HELD);
    give_back(mine - 1);
    mine = 0;
    lock = 0
}

/* Looks without the lock, acts under it. */
inline do_sweep() {
    looked = 0;
    do
    :: looked < SLOTS ->
        epoch = slot_epoch[looked];
        if
        :: slot_life[looked] != 0 && dead[slot_life[looked]] ->
            take_lock();
            if
#ifdef PLANT_EPOCH_IGNORED
            :: true ->
#else
            :: slot_epoch[looked] == epoch && slot_life[looked] != 0 ->
#endif
#ifdef PLANT_SLOT_FREED_FIRST
                slot_life[looked] = 0;
#endif
                found = head;
                do
                :: disordered && found < frontier ->
                    if
                    :: phase[found] == LEASED && holder[found] == looked + 1 ->
                        assert(dead[owner[found]]);
                        give_back(found)
                    :: else
                    fi;
                    found++
                :: else -> break
                od;
                found = 0;
                slot_life[looked] = 0
            :: else
            fi;
            lock = 0
        :: else
        fi;
        looked++
    :: else -> break
    od;
    atomic { looked = 0; epoch = 0 }
}


/* Is there something to try? If not, wait until there is. A sleeper tries the lock again after each slice, and
 * then repairs what a dead owner left: perhaps the last record is TAKEN, and the head did not move. */
#define WORTH_TRYING ((disordered -> cursor : head) != RECORDS || lock == DIED)
#define DEAD_SLOT(s) (slot_life[s] != 0 && dead[slot_life[s]])
#if CONSUMERS == 2
#define SOMEBODY_DIED (DEAD_SLOT(0) || DEAD_SLOT(1))
#else
#define SOMEBODY_DIED (DEAD_SLOT(0) || DEAD_SLOT(1) || DEAD_SLOT(2))
#endif

proctype consumer(byte me) {
    byte life, slot, mine, at, found, looked, epoch;
    bool inherited;
again:
    atomic { lives++; life = lives };
    {
        do
        :: mine > 0 ->
            if
            :: do_acknowledge()
            :: returns < RETURNS -> returns++; do_return()
            fi
        :: mine == 0 ->
            if
            :: WORTH_TRYING -> do_lease()
            :: WORTH_TRYING -> do_get()
            :: SOMEBODY_DIED -> do_sweep()
            :: head == RECORDS -> break
            fi
        od
    } unless {
        kill[me] ->
            atomic { /* the kernel marks the lock; a new life begins */
                if :: lock == me + 1 -> lock = DIED :: else fi;
                dead[life] = true;
                kill[me] = false;
                slot = 0; mine = 0; at = 0; found = 0; looked = 0; epoch = 0; inherited = false;
                goto again
            }
    };
    atomic { over[me] = true }
}

proctype killer() {
    byte victim;
    do
    :: kills < CRASHES ->
        atomic {
            select(victim : 0 .. CONSUMERS - 1);
            if
            :: !over[victim] && !kill[victim] -> kill[victim] = true; kills++
            :: else
            fi;
            victim = 0
        }
    :: break
    od
}

init {
    byte at;
    bool inherited;
    byte me = 50;
    atomic {
        for (at : 0 .. CONSUMERS - 1) { run consumer(at) };
        at = 0;
#if CRASHES > 0
        run killer()
#endif
    };
    (_nr_pr == 1);
    /* Whoever comes next repairs what the last one left. */
    take_lock();
    assert(head == RECORDS);
    assert(!disordered || leased == 0);
    d_step {
        at = 0;
        do
        :: at < RECORDS -> assert(done[at] == 1); assert(phase[at] != LEASED); at++
        :: else -> break
        od
    }
}
