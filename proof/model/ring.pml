/* The ring's two-lock protocol: one commit word on each side, robust locks, event counts. Checked with Spin.
 *
 * One statement of this model is one access to shared memory. A process may be killed before any of them (`unless`);
 * then the kernel marks the locks it held. Whoever takes a marked lock repairs the counter that may lag, nothing else.
 *
 * Checked: every item is published and taken once, in the same order, whole (two halves with equal numbers); counters
 * agree with positions whenever a lock is free; nobody is stuck for ever (no invalid end state).
 *
 * Configuration (-D): PRODUCERS, CONSUMERS, ITEMS of each producer, CAPACITY, and one of two halves of the proof:
 *   CRASHES  how often somebody is killed. A sleeper looks again after a slice, so it is not modelled how it is woken: it
 *            waits for what it needs, or for a lock whose owner died.
 *   none     nobody is killed and slices do not exist: every wake-up must come from the event counts. QUOTA: each
 *            consumer takes so many items and leaves, so that no other consumer can do the work of one that was not woken.
 * Planted errors: PLANT_COMMIT_FIRST, PLANT_RELEASE_FIRST, PLANT_LOCK_NOT_ROBUST, PLANT_REPAIR_FORGOTTEN,
 * PLANT_REPAIR_BY_ADDING, PLANT_WAKE_FIRST, PLANT_NO_SECOND_LOOK, PLANT_MARKS_FORGOTTEN,
 * PLANT_MARKS_GIVEN_BACK_LATE.
 */
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef ITEMS
#define ITEMS 2
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef CRASHES
#define CRASHES 0
#endif

#ifdef QUOTA
#define COUNTED 1
#else
#define COUNTED 0
#endif

#define PARTIES (PRODUCERS + CONSUMERS)
#define ALL_ITEMS (PRODUCERS * ITEMS)
#define DIED 99
#define MINE (1 << me)

byte put_lock, get_lock;            /* 0 free, party + 1, or DIED */
byte tail, head;                    /* the commit words */
byte put_count, get_count;          /* follow the commit words; may lag after a kill */
byte first_half[CAPACITY], second_half[CAPACITY];
byte not_empty_marks, not_empty_turn, not_full_marks, not_full_turn;
byte asleep_empty, asleep_full; /* one bit for each party in the kernel's queue of that futex word */

/* What only the checker knows. */
byte order[ALL_ITEMS + 1];  /* items in the order of publication */
bool taken[ALL_ITEMS + 1];
bool killed[PARTIES], gone[PARTIES];
byte kills, producers_left = PRODUCERS;

#define ROOM (tail - head < CAPACITY)
#define CONTENT (tail != head)
#define NO_MORE (producers_left == 0 && tail == head)

inline take_lock(lock, count, position) {
    atomic {
        (lock == 0 || lock == DIED);
        inherited = (lock == DIED);
        lock = me + 1
    };
#ifndef PLANT_REPAIR_FORGOTTEN
    if
#ifdef PLANT_REPAIR_BY_ADDING
    :: inherited -> count = count + 1
#else
    :: inherited -> count = position
#endif
    :: else
    fi;
#endif
    assert(count == position)
}

/* Takes one mark away and moves the turn in one step, wakes one. When nobody was asleep the marks go, unless something
 * moved meanwhile.
 * PLANT_MARKS_GIVEN_BACK_LATE is how the ring first did it; this model found that a second waker can come in between. */
inline wake_one(marks, turn, asleep) {
#if CRASHES == 0
    if
    :: marks > 0 ->
#if defined(PLANT_MARKS_FORGOTTEN) || defined(PLANT_MARKS_GIVEN_BACK_LATE)
        atomic { found = marks; marks = 0 };
#else
        atomic {
            found = marks;
            if
            :: found > 0 -> marks = found - 1; turn++; mine = turn
            :: else
            fi
        };
#endif
        if
        :: found > 0 ->
#if defined(PLANT_MARKS_FORGOTTEN) || defined(PLANT_MARKS_GIVEN_BACK_LATE)
            turn++;
#endif
            atomic {
                if /* any one of them */
                :: asleep & 1 -> asleep = asleep & ~1; woken = 1
                :: asleep & 2 -> asleep = asleep & ~2; woken = 1
                :: asleep & 4 -> asleep = asleep & ~4; woken = 1
                :: asleep & 8 -> asleep = asleep & ~8; woken = 1
                :: asleep == 0 -> woken = 0
                fi
            };
#ifdef PLANT_MARKS_GIVEN_BACK_LATE
            if
            :: woken == 1 && found > 1 -> marks = marks + found - 1
            :: else
            fi;
#else
#ifndef PLANT_MARKS_FORGOTTEN
            atomic {
                if
                :: woken == 0 && found > 1 && turn == mine && marks == found - 1 -> marks = 0
                :: else
                fi
            };
#endif
#endif
            atomic { found = 0; woken = 0; mine = 0 }
        :: else
        fi
    :: else
    fi
#else
    skip
#endif
}

/* `ready` is what the sleeper waits for. */
inline sleep_until_woken(marks, turn, asleep, ready, lock) {
#if CRASHES > 0
    (ready || lock == DIED)
#else
    key = turn;
    marks++;
    if
#ifndef PLANT_NO_SECOND_LOOK
    :: ready
#endif
    :: else ->
        atomic {
            if
            :: turn == key -> asleep = asleep | MINE
            :: else
            fi
        };
        (!(asleep & MINE) || NO_MORE) /* when all is done, it may go home */
    fi;
    key = 0
#endif
}

inline put_one(item) {
    /* Whole turns, until the item is in. */
    do
    :: take_lock(put_lock, put_count, tail);
       if
       :: tail - head >= CAPACITY ->
           put_lock = 0;
           sleep_until_woken(not_full_marks, not_full_turn, asleep_full, ROOM, put_lock)
       :: else ->
#ifdef PLANT_COMMIT_FIRST
           atomic { order[tail] = item; tail++ };
           first_half[(tail - 1) % CAPACITY] = item;
           second_half[(tail - 1) % CAPACITY] = item;
#else
           first_half[tail % CAPACITY] = item;
           second_half[tail % CAPACITY] = item;
#ifdef PLANT_WAKE_FIRST
           wake_one(not_empty_marks, not_empty_turn, asleep_empty);
#endif
           atomic { order[tail] = item; tail++ };
#endif
           put_count = put_count + 1;
           put_lock = 0;
#ifndef PLANT_WAKE_FIRST
           wake_one(not_empty_marks, not_empty_turn, asleep_empty);
#endif
           break
       fi
    od
}

inline finish_taking() {
    atomic {
        assert(copy_first == copy_second);      /* not torn */
        assert(copy_first == order[head]);      /* in order */
        assert(copy_first > 0 && !taken[copy_first]); /* once */
        taken[copy_first] = true;
        head++
    }
}

/* Dies: the kernel marks what it held, wakes nobody who sleeps on an event. */
inline die() {
    atomic {
#ifndef PLANT_LOCK_NOT_ROBUST
        if :: put_lock == me + 1 -> put_lock = DIED :: else fi;
        if :: get_lock == me + 1 -> get_lock = DIED :: else fi;
#endif
        asleep_empty = asleep_empty & ~MINE;
        asleep_full = asleep_full & ~MINE;
        gone[me] = true
    }
}

proctype producer(byte me) {
    byte number, found, woken, key, mine;
    bool inherited;
    {
        do
        :: number < ITEMS -> put_one(me * ITEMS + number + 1); number++
        :: else -> break
        od
    } unless { killed[me] -> die() };
    producers_left--
}

proctype consumer(byte me) {
    byte copy_first, copy_second, found, woken, key, mine, own;
    bool inherited;
    {
        do
#ifdef QUOTA
        :: own == QUOTA -> break
        :: own < QUOTA ->
#else
        ::
#endif
           take_lock(get_lock, get_count, head);
           if
           :: tail == head ->
               get_lock = 0;
               if
               :: NO_MORE -> break
               :: else -> sleep_until_woken(not_empty_marks, not_empty_turn, asleep_empty, (CONTENT || NO_MORE), get_lock)
               fi
           :: else ->
#ifdef PLANT_RELEASE_FIRST
               atomic { copy_first = order[head]; taken[copy_first] = true; head++ };
               atomic { assert(first_half[(head - 1) % CAPACITY] == copy_first); copy_first = 0 };
#else
               copy_first = first_half[head % CAPACITY];
               copy_second = second_half[head % CAPACITY];
               finish_taking();
#endif
               get_count = get_count + 1;
               get_lock = 0;
               atomic { copy_first = 0; copy_second = 0; own = own + COUNTED };
               wake_one(not_full_marks, not_full_turn, asleep_full)
           fi
        od
    } unless { killed[me] -> die() }
}

/* Kills whom and when it likes. Consumers: all but one, or the ring would stay full for ever. */
proctype killer() {
    byte victim;
    do
    :: kills < CRASHES ->
        atomic {
            select(victim : 0 .. PARTIES - 2);
            if :: !gone[victim] && !killed[victim] -> killed[victim] = true :: else fi;
            kills++;
            victim = 0
        }
    :: break
    od
}

init {
    byte party;
    atomic {
        for (party : 0 .. PARTIES - 1) {
            if
            :: party < PRODUCERS -> run producer(party)
            :: else -> run consumer(party)
            fi
        };
#if CRASHES > 0
        run killer()
#endif
    };
    /* All have ended, one way or another: everything published was taken. */
    atomic {
        (_nr_pr == 1) -> assert(head == tail)
    }
}
