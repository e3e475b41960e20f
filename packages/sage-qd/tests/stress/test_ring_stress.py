"""
Producers and consumers under real SIGKILLs: nothing lost, nothing doubled, each producer's order kept.

The seed of a run is printed; ``SAGE_STRESS_SEED`` repeats one, ``SAGE_STRESS_KILLS`` makes it longer.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sage_qd.ring import Ring

pytestmark = [pytest.mark.stress, pytest.mark.timeout(120)]
SEED = int(os.environ.get("SAGE_STRESS_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("SAGE_STRESS_KILLS") or 10)

# Every payload names its producer and number and carries a check of the rest, so that a torn item is seen as such. Each
# process says what it did in a ledger of its own, by one write(2) a line: a killed process's lines are whole.
COMMON = """
import zlib
ring = attach("ring", namespace=sys.argv[1])
name, ledger = sys.argv[2], os.open(sys.argv[3], os.O_CREAT | os.O_WRONLY | os.O_APPEND)

def item(number):
    body = f"{name}:{number}:".encode() + b"." * (number * 37 % 700)
    return body + b"%08x" % zlib.crc32(body)

def key(payload):
    payload = bytes(payload)
    assert zlib.crc32(payload[:-8]) == int(payload[-8:], 16), "a torn item"
    return payload[: payload.rindex(b":")].decode()

def note(*words):
    os.write(ledger, (" ".join(map(str, words)) + "\\n").encode())

say("ready")
"""
PRODUCER = COMMON + """
number = 0
try:
    while True:
        note("try", number)
        ring.put(item(number))
        note("put", number)
        number += 1
except errors.ShutDown:
    say("done")
"""
BATCH_PRODUCER = COMMON + """
number = 0
try:
    while True:
        note("try", number + 6)
        done = ring.put_many([item(number + at) for at in range(7)])
        note("put", number + done - 1)  # fewer when the ring was shut down in the middle
        number += done
except errors.ShutDown:
    say("done")
"""
TAKER = COMMON + """
try:
    while True:
        for payload in ring.get_many(5):
            note("got", key(payload))
except errors.ShutDown:
    say("done")
"""
HOLDER = COMMON + """
try:
    while True:
        with ring.lease() as lease:
            note("held", key(lease.data), lease.attempt)
        note("acked")
except errors.ShutDown:
    say("done")
"""


class Crew:
    """Processes by name. Each life of one after a kill has a name and a ledger of its own, and counts from 0."""

    def __init__(self, start: Callable[..., Any], folder: Any, roles: dict[str, str]) -> None:
        self.start, self.folder, self.roles = start, folder, roles
        self.lives: Counter[str] = Counter()
        self.running: dict[str, Any] = {}
        for name in roles:
            self.begin(name)

    def begin(self, name: str) -> None:
        self.lives[name] += 1
        life = f"{name}{self.lives[name]}"
        self.running[name] = self.start(self.roles[name], life, self.folder / life)
        assert self.running[name].hear() == "ready"

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.begin(name)

    def finish(self) -> None:
        for process in self.running.values():
            assert process.hear() == "done", process.errors
            process.finish()

    def lines(self, kind: str) -> dict[str, list[list[str]]]:
        """What each life noted, for the names that begin so."""
        return {
            path.name: [line.split() for line in path.read_text().splitlines()]
            for path in sorted(self.folder.iterdir())
            if path.name.startswith(kind)
        }


def produced(lines: list[list[str]]) -> tuple[int, int]:
    """How many items were surely put, and how many at most."""
    surely = max((int(number) + 1 for word, number in lines if word == "put"), default=0)
    most = max((int(number) + 1 for word, number in lines if word == "try"), default=0)
    return surely, most


def kill_by_chance(crew: Crew) -> None:
    chance, names = random.Random(SEED), sorted(crew.roles)
    for _ in range(KILLS):
        time.sleep(chance.uniform(0, 0.05))  # how far they get until then is left to chance
        crew.kill(chance.choice(names))


@pytest.mark.parametrize("settings", [{"capacity_bytes": 1 << 14}, {"max_items": 7}, {"checksum": True}], ids=str)
def test_holders_lose_nothing_and_get_everything_in_order(
    new_ring: Callable[..., Ring], start: Callable, tmp_path: Any, settings: dict[str, Any]
) -> None:
    """Consumers hold by lease, so whatever was put is delivered; twice only if its holder was killed."""
    print(f"SAGE_STRESS_SEED={SEED}")
    ring = new_ring(**settings)
    roles = {"p-a": PRODUCER, "p-b": BATCH_PRODUCER, "p-c": PRODUCER, "c-a": HOLDER, "c-b": HOLDER}
    crew = Crew(start, tmp_path, roles)

    kill_by_chance(crew)
    ring.shutdown()
    crew.finish()

    first: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for lines in crew.lines("c-").values():
        last: dict[str, int] = {}
        for line in lines:
            if line[0] != "held":
                continue
            (again if int(line[2]) else first)[line[1]] += 1
            producer, number = line[1].split(":")
            if not int(line[2]):  # what comes back comes before younger ones, but after what this one had taken
                assert last.get(producer, -1) < int(number), line
                last[producer] = int(number)
    delivered = set(first) | set(again)
    assert set(first.values()) <= {1}, "an item was delivered twice without being marked"
    total = 0
    for life, lines in crew.lines("p-").items():
        surely, most = produced(lines)
        numbers = sorted(int(item.split(":")[1]) for item in delivered if item.startswith(f"{life}:"))
        assert numbers == list(range(len(numbers)))
        assert surely <= len(numbers) <= most
        total += len(numbers)
    stats = ring.stats()
    recoveries = stats.put_recoveries + stats.get_recoveries
    print(f"{KILLS} kills, {total} items, {sum(again.values())} redelivered, {recoveries} recoveries")
    assert (stats.puts, stats.gets, stats.leased, stats.depth) == (total, total, 0, 0)


@pytest.mark.parametrize("settings", [{"capacity_bytes": 1 << 14}, {"max_items": 7}], ids=str)
def test_takers_lose_only_what_a_killed_one_had_taken(
    new_ring: Callable[..., Ring], start: Callable, tmp_path: Any, settings: dict[str, Any]
) -> None:
    """A consumer killed between get and its note takes at most one batch with it; nothing comes twice."""
    print(f"SAGE_STRESS_SEED={SEED}")
    ring = new_ring(**settings)
    crew = Crew(start, tmp_path, {"p-a": PRODUCER, "p-b": BATCH_PRODUCER, "c-a": TAKER, "c-b": TAKER, "c-c": TAKER})

    kill_by_chance(crew)
    ring.shutdown()
    crew.finish()

    got: Counter[str] = Counter()
    for lines in crew.lines("c-").values():
        last: dict[str, int] = {}
        for _, item in lines:
            got[item] += 1
            producer, number = item.split(":")
            assert last.get(producer, -1) < int(number), item
            last[producer] = int(number)
    assert set(got.values()) <= {1}
    surely = sum(produced(lines)[0] for lines in crew.lines("p-").values())
    most = sum(produced(lines)[1] for lines in crew.lines("p-").values())
    stats = ring.stats()
    consumers_killed = sum(crew.lives[name] - 1 for name in crew.roles if name.startswith("c-"))
    print(f"{KILLS} kills, {stats.puts} items, {stats.puts - len(got)} gone with {consumers_killed} killed consumers")
    assert surely <= stats.puts <= most
    assert stats.puts == stats.gets
    assert 0 <= stats.puts - len(got) <= 5 * consumers_killed
