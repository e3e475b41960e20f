"""
What is done to a queue in shared memory while its lock is held: one method for each change.

A method gets the state, changes it, and stores it as its last step or not at all. Where it touches records as well, it
says so first in the word ``busy``; what :meth:`Store.load` makes of it when its writer died is next to each code.
"""

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from time import monotonic, monotonic_ns
from typing import Final

from sage_qd.errors import CorruptQueueError, FencedError, QueueMovedError, ShutDown
from sage_qd.queues.base import QueueFigures
from sage_qd.queues.shm_layout import (
    AT_ONCE,
    FREE,
    GONE,
    RECORD_BYTES,
    SEALED,
    SHUT,
    Batch,
    Memory,
    Payload,
    Record,
    State,
)

__all__ = ["IDLE", "MESSAGES", "ROOM", "Held", "Store"]

MESSAGES, ROOM, IDLE = range(3)
"""What a call can wait for."""
_WAITERS: Final = ("message_waiters", "room_waiters", "idle_waiters")
_MOST_WOKEN: Final = 1024
_SWEEP_SECONDS: Final = 0.05
_SMALL_MESSAGE: Final = 2 * RECORD_BYTES
_STALE_NS: Final = 1_000_000
"""A put that waited this long writes anew when its messages came."""


class Busy(IntEnum):
    """What a change that touches records is; in a header that nobody works on, what its writer died of."""

    NOTHING = 0
    TAKING = 1
    """Records that say GONE were taken: they left."""
    SETTLING = 2
    """Records that say GONE were acked: they left, and are worked off."""
    DROPPING = 3
    """Records that say GONE were dropped: the same, and counted as dropped."""
    HOLDING = 4
    """Records are leased or given back: whatever their holder says, counts."""


@dataclass(slots=True)
class Held:
    """A message out on lease, as its holder knows it."""

    position: int
    holder: int
    attempt: int
    tag: int
    payload: bytes | bytearray
    settled: bool = False


class Store:
    """
    The changes, for one handle; whoever calls holds the queue's lock.

    Args:
        memory: The mapped queue.
        name: The queue's name, for errors.
        is_own: Says whether this handle has this number; that of a forked child is another one than its parent's.
        is_alive: Says whether the handle with this number still holds its leases.
        forget: Removes what a dead holder left.
    """

    def __init__(
        self,
        memory: Memory,
        name: str,
        *,
        is_own: Callable[[int], bool],
        is_alive: Callable[[int], bool],
        forget: Callable[[int], None],
    ) -> None:
        self._memory = memory
        self._name = name
        self._is_own = is_own
        self._is_alive = is_alive
        self._forget = forget
        self._swept_at = -1.0
        self._maxsize = memory.settings.maxsize
        self._capacity = memory.settings.capacity_bytes
        self.dropped_leases: deque[Held] = deque()
        """Leases that nobody settled before they were collected as garbage; to be given back at the next chance."""
        self.wakes = [0, 0, 0]
        """How many waiting calls of each kind to wake when the lock is dropped."""

    def load(self) -> State:
        """Return the state, after finishing what somebody died of."""
        state = self._memory.load()
        if self._memory.busy:
            self._recover(state)
        return state

    def _recover(self, state: State) -> None:
        """
        Count the records anew. Killed in here, the next one does it again: only the last store but one counts.

        What a killed change had done to records stays done; see :class:`Busy`.
        """
        memory = self._memory
        change, records = memory.busy, self._records(state)
        live = [record for record in records if record.holder != GONE]
        left = max(state.count - len(live), 0)
        state.count = len(live)
        state.leased = sum(record.holder != FREE for record in live)
        state.bytes_taken = max(state.bytes_put - sum(record.size for record in live), 0)
        state.head = state.scan = live[0].position if live else state.tail
        state.gone = sum(record.holder == GONE and record.position > state.head for record in records)
        if change in (Busy.SETTLING, Busy.DROPPING):
            self._finish(state, left)
        if change == Busy.DROPPING:
            state.dropped += left
        for side in (MESSAGES, ROOM):
            self._wake(state, side, _MOST_WOKEN)
        memory.store(state)
        memory.busy = Busy.NOTHING

    def _records(self, state: State) -> list[Record]:
        """All records, in order; each takes 32 bytes at least, so it ends."""
        records, position = [], state.head
        while position < state.tail:
            records.append(self._memory.record(position, state.tail))
            position = records[-1].end
        return records

    # -- Waiting calls ------------------------------------------------------------------------------------------------

    def register(self, state: State, side: int) -> None:
        """Count a call that is going to wait."""
        setattr(state, _WAITERS[side], getattr(state, _WAITERS[side]) + 1)
        self._memory.store(state)

    def deregister(self, state: State, side: int, *, was_counted: bool, waited_ns: int) -> None:
        """Count it no more; whose count a waker took is counted no more already."""
        if was_counted:
            setattr(state, _WAITERS[side], max(getattr(state, _WAITERS[side]) - 1, 0))
        if side == MESSAGES:
            state.get_blocked_ns += waited_ns
        elif side == ROOM:
            state.put_blocked_ns += waited_ns
        self._memory.store(state)

    def _wake(self, state: State, side: int, count: int) -> None:
        """Let at most so many waiting calls look again; whoever is woken wakes the next while there is reason."""
        waiters: int = getattr(state, _WAITERS[side])
        if waiters:
            woken = min(waiters, count, _MOST_WOKEN)
            setattr(state, _WAITERS[side], waiters - woken)
            self.wakes[side] += woken

    def _finish(self, state: State, count: int) -> None:
        """Count messages as worked off."""
        state.unfinished = max(state.unfinished - count, 0)
        if not state.unfinished:
            self._wake(state, IDLE, _MOST_WOKEN)

    # -- Write side ---------------------------------------------------------------------------------------------------

    def append(self, state: State, batch: Batch, start: int = 0) -> int:
        """
        Append messages from ``start`` on while there is room, and return how many.

        All of them are in the queue with the one store at the end, or none.
        """
        if state.flags:
            raise self._ended(state)
        ends, skipped = batch.ends, batch.ends[start - 1] if start else 0
        stop = bisect_right(ends, skipped + self._capacity - (state.tail - state.head), start)
        if self._maxsize:
            stop = min(stop, start + self._maxsize - state.count)
        done = stop - start
        if done <= 0:
            return 0
        self._memory.write(state.tail, batch, start, stop)
        if (now_ns := monotonic_ns()) - batch.stamp_ns > _STALE_NS:
            for end in (skipped, *ends[start : stop - 1]):
                self._memory.stamp(state.tail + end - skipped, now_ns)
        state.tail += ends[stop - 1] - skipped
        state.bytes_put += batch.sizes[start] if done == 1 else sum(batch.sizes[start:stop])
        state.count += done
        state.puts += done
        state.unfinished += done
        if state.count > state.high_water:
            state.high_water = state.count
        if state.message_waiters:
            self._wake(state, MESSAGES, done)
        if state.room_waiters and self._has_room(state, _SMALL_MESSAGE):
            self._wake(state, ROOM, 1)
        self._memory.store(state)
        return done

    def _has_room(self, state: State, size: int) -> bool:
        if self._maxsize and state.count >= self._maxsize:
            return False
        return state.tail - state.head + size <= self._capacity

    def is_full(self, state: State) -> bool:
        """Whether a small message would have to wait."""
        return not self._has_room(state, _SMALL_MESSAGE)

    def has_answer_for_put(self, state: State) -> bool:
        """Whether a put would not wait; wakes the next who waits for that."""
        if not state.flags and self.is_full(state):
            return False
        if state.room_waiters:
            self._wake(state, ROOM, 1)
            self._memory.store(state)
        return True

    # -- Read side ----------------------------------------------------------------------------------------------------

    def take(self, state: State, max_items: int, max_bytes: int) -> list[Payload]:
        """
        Take messages, oldest first, and return tags and payloads; none when there is none to take.

        They leave with the one store at the end. Killed before it, those that overtook a leased one have left, too.
        """
        if not (state.leased or state.gone or state.flags):
            return self._take_in_order(state, max_items, max_bytes)
        record = self.available(state)
        if record is None:
            return []
        taken: list[Payload] = []
        total = 0
        while record is not None and len(taken) < max_items:
            total += record.size
            if taken and max_bytes and total > max_bytes:
                break
            taken.append((record.tag, self._memory.payload(record)))
            self._remove(state, record, Busy.TAKING)
            record = self._first(state)
        self._removed(state, len(taken))
        return taken

    def _take_in_order(self, state: State, max_items: int, max_bytes: int) -> list[Payload]:
        """The same where every record is free, so that nothing is overtaken."""
        if state.head == state.tail:
            return []
        taken, state.head, size = self._memory.read(state.head, state.tail, max_items, max_bytes)
        state.scan = state.head
        state.count -= len(taken)
        state.bytes_taken += size
        self._removed(state, len(taken))
        return taken

    def peek(self, state: State) -> Payload | None:
        """Tag and payload of the oldest message."""
        record = self.available(state)
        return None if record is None else (record.tag, self._memory.payload(record))

    def has_answer_for_get(self, state: State) -> bool:
        """Whether a get would not wait; wakes the next who waits for that."""
        if self.available(state) is None:
            return False
        if state.message_waiters:
            self._wake(state, MESSAGES, 1)
            self._memory.store(state)
        return True

    def available(self, state: State) -> Record | None:
        """
        The oldest message that nobody holds; None where one may come.

        Raises:
            ShutDown, QueueMovedError: None will come.
        """
        if state.flags & AT_ONCE:
            raise self._ended(state)
        if state.leased:
            self._give_back_dropped(state)
            if monotonic() - self._swept_at > _SWEEP_SECONDS:
                self._sweep(state)
        record = self._first(state)
        if record is None and state.leased and self._sweep(state):
            record = self._first(state)
        if record is None and state.flags and not state.leased:
            raise self._ended(state)
        return record

    def _first(self, state: State) -> Record | None:
        """The oldest free record; the scan goes there."""
        position, tail = state.scan, state.tail
        while position < tail:
            record = self._memory.record(position, tail)
            if record.holder == FREE:
                state.scan = position
                return record
            position = record.end
        state.scan = position
        return None

    def _remove(self, state: State, record: Record, change: Busy) -> None:
        """Let a record leave; with the oldest, all that were taken behind it."""
        if record.position == state.head:
            state.head = record.end
            while state.gone and state.head < state.tail:
                behind = self._memory.record(state.head, state.tail)
                if behind.holder != GONE:
                    break
                state.head = behind.end
                state.gone -= 1
            state.scan = max(state.scan, state.head)
        else:
            self._memory.busy = change
            self._memory.set_holder(record, GONE)
            state.gone += 1
        state.count -= 1
        state.bytes_taken += record.size

    def _removed(self, state: State, count: int) -> None:
        """Wake who waits for room, and the next who waits for a message, and make it so."""
        if state.room_waiters:
            self._wake(state, ROOM, count)
        if state.message_waiters and (state.count > state.leased or (state.flags and not state.leased)):
            self._wake(state, MESSAGES, _MOST_WOKEN if state.flags else 1)
        self._store(state)

    def _store(self, state: State) -> None:
        self._memory.store(state)
        if self._memory.busy:
            self._memory.busy = Busy.NOTHING

    def clear(self, state: State) -> int:
        """Drop every message that nobody holds, and return how many."""
        if state.leased:
            self._give_back_dropped(state)
            self._sweep(state)
        dropped = self._drop_free(state)
        self._removed(state, _MOST_WOKEN)
        return dropped

    def _drop_free(self, state: State) -> int:
        """Let all free records leave; the caller stores."""
        dropped = state.count - state.leased
        if not state.leased:
            state.head = state.scan = state.tail
            state.count = state.gone = 0
            state.bytes_taken = state.bytes_put
        else:
            while (record := self._first(state)) is not None:
                self._remove(state, record, Busy.DROPPING)
        state.dropped += dropped
        self._finish(state, dropped)
        return dropped

    # -- Leases -------------------------------------------------------------------------------------------------------

    def lease(self, state: State, holder_of_handle: Callable[[], int], keep: Callable[[Held], None]) -> bool:
        """
        Let a handle hold the oldest message; its number is asked for when there is one.

        What is held is handed to ``keep`` before it is, so that no interrupt can lose it.
        """
        record = self.available(state)
        if record is None:
            return False
        holder = holder_of_handle()
        keep(Held(record.position, holder, record.attempt, record.tag, self._memory.payload(record)))
        self._memory.busy = Busy.HOLDING
        self._memory.set_holder(record, holder)
        state.leased += 1
        state.scan = record.end
        if state.message_waiters and state.count > state.leased:
            self._wake(state, MESSAGES, 1)
        self._store(state)
        return True

    def ack(self, state: State, held: Held) -> None:
        """Take a held message out."""
        record = self._held_record(state, held)
        self._remove(state, record, Busy.SETTLING)
        state.leased -= 1
        self._finish(state, 1)
        self._removed(state, 1)

    def nack(self, state: State, held: Held) -> None:
        """Give a held message back."""
        self._give_back(state, self._held_record(state, held))
        self._store(state)

    def _held_record(self, state: State, held: Held) -> Record:
        """
        The record that a lease stands for.

        Raises:
            FencedError: It is in other hands.
        """
        if self._is_own(held.holder) and state.head <= held.position < state.tail:
            record = self._memory.record(held.position, state.tail)
            if (record.holder, record.attempt) == (held.holder, held.attempt):
                return record
        raise FencedError(pid=os.getpid(), epoch=held.attempt)

    def _give_back(self, state: State, record: Record) -> None:
        """Free a record, or drop it when the queue was ended at once; the caller stores."""
        state.leased -= 1
        state.redeliveries += 1
        if state.flags & AT_ONCE:
            self._remove(state, record, Busy.DROPPING)
            state.dropped += 1
            self._finish(state, 1)
            return
        self._memory.busy = Busy.HOLDING
        self._memory.set_attempt(record, record.attempt + 1)
        self._memory.set_holder(record, FREE)
        state.scan = min(state.scan, record.position)
        self._wake(state, MESSAGES, 1)

    def _give_back_dropped(self, state: State) -> None:
        """Give back the leases that were thrown away unsettled."""
        while self.dropped_leases:
            held = self.dropped_leases.popleft()
            try:
                record = self._held_record(state, held)
            except FencedError:
                continue  # somebody else took it over, which is what giving it back is for
            self._give_back(state, record)
            self._store(state)

    def collect(self, state: State) -> None:
        """Give back what nobody will settle any more."""
        if state.leased:
            self._give_back_dropped(state)
            self._sweep(state)

    def _sweep(self, state: State) -> bool:
        """Give back what dead handles hold; whether there was any."""
        self._swept_at = monotonic()
        alive: dict[int, bool] = {}
        dead: list[Record] = []
        position, left = state.head, state.leased
        while left and position < state.tail:
            record = self._memory.record(position, state.tail)
            position = record.end
            if record.holder in (FREE, GONE):
                continue
            left -= 1
            if record.holder not in alive:
                alive[record.holder] = self._is_alive(record.holder)
            if not alive[record.holder]:
                dead.append(record)
        if left:
            raise CorruptQueueError(field="leased", value=state.leased, wanted=state.leased - left)
        for record in dead:
            self._give_back(state, record)
        if dead:
            self._store(state)
        for holder in (number for number, lives in alive.items() if not lives):
            self._forget(holder)
        return bool(dead)

    # -- Work done ----------------------------------------------------------------------------------------------------

    def task_done(self, state: State) -> None:
        """
        Count one message as worked off.

        Raises:
            ValueError: There is none.
        """
        if not state.unfinished:
            raise ValueError("task_done() was called more often than there were messages")
        self._finish(state, 1)
        self._memory.store(state)

    def all_done(self, state: State) -> bool:
        """Whether every message was worked off."""
        self.collect(state)
        return state.unfinished == 0

    # -- Inspection and ending ----------------------------------------------------------------------------------------

    def depth(self, state: State) -> int:
        """Messages that nobody holds."""
        self.collect(state)
        return state.count - state.leased

    def figures(self, state: State) -> QueueFigures:
        """The counters."""
        self.collect(state)
        oldest = self._first(state)
        age_ns = 0 if oldest is None else max(monotonic_ns() - oldest.stamp_ns, 0)
        return QueueFigures(
            puts=state.puts,
            gets=state.puts - state.count,
            depth=state.count - state.leased,
            leased=state.leased,
            high_water=state.high_water,
            redeliveries=state.redeliveries,
            dropped=state.dropped,
            put_blocked_ns=state.put_blocked_ns,
            get_blocked_ns=state.get_blocked_ns,
            put_waiters=state.room_waiters,
            get_waiters=state.message_waiters,
            oldest_age_ns=age_ns,
            is_shutdown=bool(state.flags & SHUT),
            bytes_put=state.bytes_put,
            bytes_taken=state.bytes_taken,
        )

    def shutdown(self, state: State, at_once: bool) -> int:
        """End the queue, and return how many messages were dropped."""
        state.flags |= SHUT
        dropped = 0
        if at_once:
            state.flags |= AT_ONCE
            dropped = self._drop_free(state)
        self._wake_all(state)
        self._store(state)
        return dropped

    def seal(self, state: State, successor: bytes) -> int:
        """End the queue in favour of another one; the text counts only with the state that says how long it is."""
        if state.flags:
            raise self._ended(state)
        self.collect(state)
        self._memory.name_successor(successor)
        state.successor_bytes = len(successor)
        state.flags |= SEALED
        self._wake_all(state)
        self._store(state)
        return state.count

    def _wake_all(self, state: State) -> None:
        for side in (MESSAGES, ROOM):
            self._wake(state, side, _MOST_WOKEN)

    def successor(self, state: State) -> str | None:
        """What the queue was sealed with."""
        return self._memory.successor_of(state)

    def _ended(self, state: State) -> ShutDown | QueueMovedError:
        if (successor := self.successor(state)) is not None:
            return QueueMovedError(name=self._name, successor=successor)
        if state.flags & AT_ONCE:
            return ShutDown("the queue was shut down at once")
        return ShutDown("the queue was shut down")
