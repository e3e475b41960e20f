"""Row R32: an old program whose queue is rolled back and forward again and again, while everybody is killed at random.

Four producers put numbered messages, three consumers take them, all through `SageQueue` and each in a mode of its own.
Meanwhile another process flips the way that the queue takes every 20 to 200 ms. Whoever is killed is started anew. At
the end the logs must agree: every message whose put returned was taken, none twice, and each consumer saw each
producer's messages in order. The old interface has no leases, so a consumer that is killed takes along what it was just
handed: one message at most for each kill, counted apart.

Before the storm comes the drill: one flip, killed at every call of a function on its way, in both directions. And there
are three storms, which differ by what the flips meet:

* the seal is refused, or the control page was damaged;
* the file system of the rings is a small one, and full;
* the header of the ring was overwritten. What such a ring held may be missing, if the flip away from it said that it
  could not be moved, and no more than it held: everybody is stopped and counted at that moment. Whoever meets it may be
  told exactly that it is damaged.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import row
from mortals import Found, lines_of
from rolled import NAME, PRODUCERS, Storm, Turner, turn, turn_and_damage, turn_in_a_small_room

from sage_compat import SageQueue, rollback
from sage_compat.moves import flip
from sage_compat.records import NAMESPACE
from sage_qd import ring
from sage_qd.queues.names import segment_name
from sage_sim.namespaces import NotAllowedError
from sage_sim.room import take_own_room

SECONDS = {False: 15.0, True: 60.0}
FAULTY_SECONDS = {False: 5.0, True: 60.0}
"""Of the storms with a full file system, and with damaged rings."""
ROOM_BYTES = 4 << 20
STRIDE = {False: 23, True: 1}
"""Of the drill: every how many-eth step is tried."""


# -- The drill --------------------------------------------------------------------------------------------------------


def flip_and_die(full_name: str, is_new: bool, step: int) -> None:
    """Flip, and be killed at the n-th call of any function on the way."""
    left = step

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal left
        if event in ("call", "c_call"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    flip(full_name, is_new=is_new)
    sys.setprofile(None)
    os._exit(0)


def drill(stride: int) -> tuple[int, int, int]:
    """Steps tried, messages lost, messages doubled."""
    context = multiprocessing.get_context("fork")
    steps = lost = doubled = 0
    for is_new in (True, False):
        queue = SageQueue(f"drill-{is_new}")
        step, number, is_over = 1, 0, False
        while not is_over:
            flip(queue.name, is_new=not is_new)
            queue.put(number)
            child = context.Process(target=flip_and_die, args=(queue.name, is_new, step))
            child.start()
            child.join()
            queue.put(number + 1)
            found = [queue.get_nowait() for _ in range(queue.qsize())]
            lost += len({number, number + 1} - set(found))
            doubled += len(found) - len(set(found))
            is_over = child.exitcode == 0
            steps, step, number = steps + 1, step + stride, number + 2
        queue.close()
        queue.destroy()
    return steps, lost, doubled


# -- One storm --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Account:
    """What one storm came to: the figures for the row, and what was wrong."""

    text: str
    bad: int
    wrong: list[str]


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for the records of compat and for logs, both of this storm alone."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.environ["SAGE_COMPAT_DIR"] = str(Path(name, "compat"))
        (logs := Path(name, "logs")).mkdir()
        yield logs


def weathered(turner: Turner, seed: int, seconds: float, *, spares_turner: bool = False) -> Account:
    """Run one storm, and judge its logs."""
    with own_folder() as logs:
        storm = Storm(logs, seed, turner, spares_turner=spares_turner)
        wrong = storm.run(seconds)
        found, has_shown_sign = Found.of(logs), storm.has_shown_sign()
        lines = [line for path in logs.glob("flips-*") for line in lines_of(path)]
        flips = [line[1:] for line in lines if line[0] == "flip"]
        damages = [line[1:] for line in lines if line[0] == "damage"]
        excused = excuse(found, flips, damages)
        in_hand = found.in_hand(logs, storm.deaths)
        refused = Counter(line[0] for path in logs.glob("refused-*") for line in lines_of(path))
        refused.update(line[2] for path in logs.glob("producer-*") for line in lines_of(path) if line[0] == "refused")
        no_room = sum(line[0] == "full" for line in lines)
        failed = [line[1:] for line in lines if line[0] == "failed"]
        rollback("*")  # whatever killed processes left of rings goes with the last user below
        SageQueue(NAME)._line.close()
        for queue_id, *_ in damages:  # nobody else removes those
            for path in (ring.directory() / NAMESPACE).glob(f"{segment_name(queue_id)}*"):
                path.unlink()
    may_lack_room = turner is not turn_and_damage
    wrong += [
        f"{verb}: {reason}" for verb, reason in failed if not (may_lack_room and is_for_want_of_room(verb, reason))
    ]
    wrong += [f"no {storm.sign} in {seconds} s and the watchdog's time"] * (not has_shown_sign)
    lost = len(found.missing) - in_hand
    parts = [
        f"{lost} / {found.doubled} / {found.reordered} of {found.put:,} in {len(flips)} flips",
        f"{storm.kills.total()} kills, {in_hand} messages in the hands of {storm.kills['consumer']} killed consumers",
    ]
    if no_room:
        parts.append(f"{no_room} decisions without a byte of room, {len(failed)} told so")
    if damages:
        told = ", ".join(f"{count} {name}" for name, count in sorted(refused.items()))
        parts.append(
            f"{len(damages)} rings damaged with {sum(damage[1] for damage in damages):,} messages, {excused} of them "
            f"missing and said to be; calls refused: {told or 'none'}"
        )
    bad = lost + found.doubled + found.reordered + found.invented
    times = sorted(each[1] for each in flips) or [0.0]
    parts.append(
        f"a flip took {quantile(times, 0.5):.0f} ms, p90 {quantile(times, 0.9):.0f} ms, "
        f"p99 {quantile(times, 0.99):.0f} ms, at most {times[-1]:.0f} ms"
    )
    return Account(text=", ".join(parts), bad=bad, wrong=wrong)


def is_for_want_of_room(verb: str, reason: str) -> bool:
    """Whether a decision failed as it may where no ring can be made; a rollback needs none."""
    return verb == "roll_forward" and reason.startswith("QueueNoSpaceError")


def excuse(found: Found, flips: list[list[Any]], damages: list[list[Any]]) -> int:
    """
    Take out of the missing messages what was in damaged rings, and return how many.

    A ring excuses what was put into it between the flip to it and the flip that said that it could not be moved: as
    many as it held when it was damaged, and those of puts under way at that moment or later.
    """
    excused = 0
    said = {not_moved["queue"]["queue_id"]: ended for _, _, not_moved, _, ended in flips if not_moved}
    for queue_id, held, moment, _ in damages:
        if queue_id in said:
            born = max((started for after, *_, started, _ in flips if after == "sage_queue" and started < moment))
            later = sum(moment <= first <= said[queue_id] for first, _ in found.missing.values())
            excused += found.excuse(born, said[queue_id], held + PRODUCERS + later)
    return excused


def apart(answer: Connection, seconds: float, seed: int, turner: Turner, room_bytes: int, spares_turner: bool) -> None:
    """In a process of its own: a storm, on a small file system if need be; or why that cannot be."""
    try:
        if room_bytes:
            take_own_room(room_bytes)
    except NotAllowedError as error:
        answer.send(str(error))
    else:
        answer.send(weathered(turner, seed, seconds, spares_turner=spares_turner))


def weathered_apart(
    turner: Turner, seed: int, seconds: float, *, room_bytes: int = 0, spares_turner: bool = False
) -> Account | str:
    """
    Run a storm in a process that has its own environment and mounts.

    Returns:
        The account; or why there is none, because this system allows no mounts.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=apart, args=(theirs, seconds, seed, turner, room_bytes, spares_turner))
    process.start()
    theirs.close()
    try:
        answer: Account | str = ours.recv()
    except EOFError:
        answer = Account(text="no account", bad=1, wrong=["a storm ended with the error above"])
    process.join()
    return answer


def main() -> int:
    """Run the drill and the storms, and report the row; 1 when it failed."""
    options = row.arguments(__doc__ or "")
    proof = row.Row.begin(
        options, "R32", "a rollback killed at every step, and storms of them: lost / doubled / reordered", "0 / 0 / 0"
    )
    with own_folder():
        steps, drill_lost, drill_doubled = drill(STRIDE[options.long])
    faulty = FAULTY_SECONDS[options.long]
    storms = {
        "storm": weathered_apart(turn, options.seed, SECONDS[options.long]),
        "with damaged rings": weathered_apart(turn_and_damage, options.seed, faulty, spares_turner=True),
        "with a full file system": weathered_apart(turn_in_a_small_room, options.seed, faulty, room_bytes=ROOM_BYTES),
    }
    told = [f"drill: {drill_lost} / {drill_doubled} in {steps} steps"]
    bad, wrong = drill_lost + drill_doubled, []
    for name, account in storms.items():
        if isinstance(account, str):
            told.append(f"{name}: not run, {account}")
            continue
        told.append(f"{name}: {account.text}")
        bad += account.bad
        wrong += [f"{name}: {text}" for text in account.wrong]
    for text in wrong:
        print(text)
    return not proof.report("; ".join(told + wrong), not bad and not wrong)


def quantile(times: list[float], share: float) -> float:
    """The time that this share of the sorted times does not exceed."""
    return times[min(int(len(times) * share), len(times) - 1)]


if __name__ == "__main__":
    sys.exit(main())
