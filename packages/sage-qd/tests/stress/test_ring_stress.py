"""
Producers and consumers under real SIGKILLs: nothing lost, nothing doubled, each producer's order kept.

The seed of a run is printed; ``SAGE_STRESS_SEED`` repeats one, ``SAGE_STRESS_KILLS`` makes it longer. A payload names
its producer and number and carries a check of the rest, so that a torn item is seen as such. Each process says what it
did in a ledger of its own, by one write(2) for each line, so the lines of a killed process are whole.
"""

import multiprocessing
import os
import random
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sage_qd.errors import ShutDown
from sage_qd.ring import Ring, attach

pytestmark = [pytest.mark.stress, pytest.mark.timeout(120)]
SEED = int(os.environ.get("SAGE_STRESS_SEED") or random.SystemRandom().randrange(1 << 32))
KILLS = int(os.environ.get("SAGE_STRESS_KILLS") or 40)
FORK = multiprocessing.get_context("fork")
BATCH = 7


def item(name: str, number: int) -> bytes:
    body = f"{name}:{number}:".encode() + b"." * (number * 37 % 700)
    return body + b"%08x" % zlib.crc32(body)


def key(payload: memoryview | bytes) -> str:
    """Read who put it and as what number; a torn payload ends the process, and with it the test."""
    payload = bytes(payload)
    if zlib.crc32(payload[:-8]) != int(payload[-8:], 16):
        raise ValueError(f"a torn item: {payload!r}")
    return payload[: payload.rindex(b":")].decode()


# -- What the processes do --------------------------------------------------------------------------------------------

Note = Callable[..., None]


def produce(ring: Ring, name: str, note: Note) -> None:
    number = 0
    while True:
        note("try", number)
        ring.put(item(name, number))
        note("put", number)
        number += 1


def produce_batches(ring: Ring, name: str, note: Note) -> None:
    number = 0
    while True:
        note("try", number + BATCH - 1)
        done = ring.put_many([item(name, number + at) for at in range(BATCH)])
        note("put", number + done - 1)  # fewer when the ring was shut down in the middle
        number += done


def take(ring: Ring, name: str, note: Note) -> None:
    while True:
        for payload in ring.get_many(BATCH):
            note("got", key(payload))


def hold(ring: Ring, name: str, note: Note) -> None:
    while True:
        with ring.lease() as lease:
            note("held", key(lease.data), lease.attempt)


def live(work: Callable[[Ring, str, Note], None], namespace: str, name: str, ledger: Path) -> None:
    descriptor = os.open(ledger, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)

    def note(*words: object) -> None:
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())

    with attach("ring", namespace=namespace) as ring, suppress(ShutDown):
        work(ring, name, note)


class Crew:
    """Processes by name. Each life of one after a kill has a name and a ledger of its own, and counts from 0."""

    def __init__(self, namespace: str, folder: Path, roles: dict[str, Callable[[Ring, str, Note], None]]) -> None:
        self.namespace, self.folder, self.roles = namespace, folder, roles
        self.lives: Counter[str] = Counter()
        self.running: dict[str, Any] = {}
        for name in roles:
            self.begin(name)

    def begin(self, name: str) -> None:
        self.lives[name] += 1
        life = f"{name}{self.lives[name]}"
        arguments = (self.roles[name], self.namespace, life, self.folder / life)
        self.running[name] = FORK.Process(target=live, args=arguments, daemon=True)
        self.running[name].start()

    def kill_by_chance(self) -> None:
        chance, names = random.Random(SEED), sorted(self.roles)
        for _ in range(KILLS):
            time.sleep(chance.uniform(0, 0.03))  # how far they get until then is left to chance
            name = chance.choice(names)
            self.running[name].kill()
            self.running[name].join()
            self.begin(name)

    def finish(self) -> None:
        for process in self.running.values():
            process.join(60)
            assert process.exitcode == 0

    def ledgers(self, kind: str) -> dict[str, list[list[str]]]:
        """Return what each life noted, of the names that begin so."""
        return {
            path.name: [line.split() for line in path.read_text().splitlines()]
            for path in sorted(self.folder.iterdir())
            if path.name.startswith(kind)
        }

    def produced(self) -> dict[str, tuple[int, int]]:
        """Return for each life how many items were surely put, and how many at most."""
        bounds = {}
        for life, lines in self.ledgers("p-").items():
            counts = {"put": 0, "try": 0}
            for word, number in lines:
                counts[word] = int(number) + 1
            bounds[life] = counts["put"], counts["try"]
        return bounds


def in_order(numbers: dict[str, list[int]]) -> bool:
    return all(each == sorted(set(each)) for each in numbers.values())


@pytest.mark.parametrize("settings", [{"capacity_bytes": 1 << 14}, {"max_items": 7}, {"checksum": True}], ids=str)
def test_holders_lose_nothing_and_see_every_repetition_marked(
    new_ring: Callable[..., Ring], namespace: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    print(f"SAGE_STRESS_SEED={SEED}")
    ring = new_ring(**settings)
    roles = {"p-a": produce, "p-b": produce_batches, "c-a": hold, "c-b": hold, "c-c": hold}
    crew = Crew(namespace, tmp_path, roles)

    crew.kill_by_chance()
    ring.shutdown()
    crew.finish()

    first: Counter[str] = Counter()
    again: Counter[str] = Counter()
    for lines in crew.ledgers("c-").values():
        fresh: dict[str, list[int]] = defaultdict(list)
        for _, delivered, attempt in lines:
            if int(attempt):
                again[delivered] += 1
            else:
                first[delivered] += 1
                life, number = delivered.split(":")
                fresh[life].append(int(number))
        assert in_order(fresh)
    assert set(first.values()) == {1}, "an item was delivered twice without being marked"
    numbers: dict[str, list[int]] = defaultdict(list)
    for delivered in set(first) | set(again):
        life, number = delivered.split(":")
        numbers[life].append(int(number))
    for life, (surely, most) in crew.produced().items():
        assert sorted(numbers[life]) == list(range(len(numbers[life]))), "there is a gap"
        assert surely <= len(numbers[life]) <= most
    stats, total = ring.stats(), sum(map(len, numbers.values()))
    recoveries = stats.put_recoveries + stats.get_recoveries
    print(f"{KILLS} kills, {total} items, {sum(again.values())} redelivered, {recoveries} recoveries")
    assert (stats.puts, stats.gets, stats.leased, stats.depth) == (total, total, 0, 0)


@pytest.mark.parametrize("settings", [{"capacity_bytes": 1 << 14}, {"max_items": 7}], ids=str)
def test_takers_lose_only_what_a_killed_one_had_taken_and_get_nothing_twice(
    new_ring: Callable[..., Ring], namespace: str, tmp_path: Path, settings: dict[str, Any]
) -> None:
    print(f"SAGE_STRESS_SEED={SEED}")
    ring = new_ring(**settings)
    roles = {"p-a": produce, "p-b": produce_batches, "c-a": take, "c-b": take, "c-c": take}
    crew = Crew(namespace, tmp_path, roles)

    crew.kill_by_chance()
    ring.shutdown()
    crew.finish()

    got: Counter[str] = Counter()
    for lines in crew.ledgers("c-").values():
        numbers: dict[str, list[int]] = defaultdict(list)
        for _, delivered in lines:
            got[delivered] += 1
            life, number = delivered.split(":")
            numbers[life].append(int(number))
        assert in_order(numbers)
    assert set(got.values()) == {1}
    stats, bounds = ring.stats(), crew.produced().values()
    consumers_killed = sum(crew.lives[name] - 1 for name in roles if name.startswith("c-"))
    print(f"{KILLS} kills, {stats.puts} items, {stats.puts - len(got)} gone with {consumers_killed} killed consumers")
    assert sum(surely for surely, _ in bounds) <= stats.puts <= sum(most for _, most in bounds)
    assert (stats.puts, stats.depth) == (stats.gets, 0)
    assert 0 <= stats.puts - len(got) <= BATCH * consumers_killed
