"""
Word count of a real text: readers hand out its lines, workers turn a line into words, counters add them up.

A counter may be killed at any moment and still counts every word once. It writes each item into a journal before it is
acked, one line of JSON for each; a new process of the same slot takes over from there. Items that may be second copies
are set aside with their number, and only the final sum, which sees all counters, decides about them.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import cast

from sage_sim.message import Message
from sage_sim.workloads.base import Answer, Sink, Workload, WorkloadSettings

TEXT = Path(__file__).parents[1] / "data" / "sorting_house.txt"
WORD = re.compile(r"[^\W\d_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W\d_]+)*")

ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def words_of(line: str) -> dict[str, int]:
    """The words of a line, in lower case, with how often each stands there."""
    return dict(Counter(WORD.findall(line.lower())))


class WordCount(Workload):
    """Endless passes over the text, each with its lines in another order that follows from the seed."""

    name = "word-count"

    def __init__(self, settings: WorkloadSettings) -> None:
        super().__init__(settings)
        text = TEXT if settings.text is None else Path(settings.text)
        self._lines = [line for line in text.read_text(encoding="utf-8").splitlines() if line]
        if not self._lines:
            raise ValueError(f"{text} has no line with anything in it")

    def payloads(self, origin: int, start: int) -> Iterator[str]:
        """See `Workload.payloads`; each reader goes through the whole text in an order of its own."""
        skipped, at = divmod(start, len(self._lines))
        while True:
            for index in self._order(origin, skipped)[at:]:
                yield self._lines[index]
            skipped, at = skipped + 1, 0

    def _order(self, origin: int, skipped: int) -> list[int]:
        everything = range(len(self._lines))
        return Random(f"{self.settings.seed}/{origin}/{skipped}").sample(everything, len(everything))

    def transform(self, payload: object) -> object:
        """Turn a line into its words."""
        return words_of(cast(str, payload))

    def intact(self, message: Message) -> bool:
        """Whether it is a count of words; whether it is the right one, the final comparison tells."""
        return isinstance(message.payload, dict)

    def sink(self, folder: Path, slot: str, incarnation: int) -> Sink:
        """See `Workload.sink`."""
        return _Counter(folder, slot, incarnation)

    def judge(self, folder: Path, slots: Sequence[str], produced: Sequence[int]) -> Answer:
        """Count again, alone and in order, and compare word by word."""
        missing = [slot for slot in slots if not _tally_path(folder, slot).exists()]
        if missing:
            return Answer(right=None, sentence=f"no word count from {', '.join(missing)}")
        found = merged([json.loads(_tally_path(folder, slot).read_bytes()) for slot in slots])
        wanted = self.counted_alone(produced)
        total, distinct = wanted.total(), len(wanted)
        if found == wanted:
            return Answer(right=True, sentence=f"{total:,} words, {distinct:,} distinct, as a single process counts")
        wrong = [word for word in wanted | found if wanted[word] != found[word]]
        shown = ", ".join(f"{word!r} {found[word]:,} instead of {wanted[word]:,}" for word in sorted(wrong)[:3])
        return Answer(
            right=False,
            sentence=f"{found.total():,} words instead of {total:,}; {len(wrong):,} words are wrong: {shown}",
        )

    def counted_alone(self, produced: Sequence[int]) -> Counter[str]:
        """What one process counts in the lines that all readers handed out."""
        handed_out: Counter[int] = Counter()
        for origin, items in enumerate(produced):
            passes, rest = divmod(items, len(self._lines))
            for index in range(len(self._lines)):
                handed_out[index] += passes
            handed_out.update(self._order(origin, passes)[:rest])
        total: Counter[str] = Counter()
        for index, times in handed_out.items():
            for word, count in words_of(self._lines[index]).items():
                total[word] += count * times
        return +total


def merged(tallies: Sequence[Mapping[str, object]]) -> Counter[str]:
    """
    The sum of what all counters found, each item once.

    Args:
        tallies: The final states of all counters.
    """
    total: Counter[str] = Counter()
    counted: set[tuple[int, int]] = set()
    for tally in tallies:
        total.update(cast(dict[str, int], tally["words"]))
        for text, sequences in cast(dict[str, list[int]], tally["items"]).items():
            counted.update((int(text), sequence) for sequence in sequences)
    for tally in tallies:
        for origin, sequence, words in cast(list[tuple[int, int, dict[str, int]]], tally["set_aside"]):
            if (origin, sequence) not in counted:
                counted.add((origin, sequence))
                total.update(words)
    return total


def _tally_path(folder: Path, slot: str) -> Path:
    return folder / f"{slot}.tally.json"


def _state_path(folder: Path, slot: str, incarnation: int) -> Path:
    return folder / f"{slot}.{incarnation}.state.json"


def _journal_path(folder: Path, slot: str, incarnation: int) -> Path:
    return folder / f"{slot}.{incarnation}.journal"


class _Counter(Sink):
    """
    The words that one counter slot found.

    Each incarnation begins with a file of the whole state, so that the next one reads that file and one journal only.
    """

    def __init__(self, folder: Path, slot: str, incarnation: int) -> None:
        self._folder = folder
        self._slot = slot
        self._words: Counter[str] = Counter()
        self._items: dict[int, list[int]] = {}
        self._set_aside: list[tuple[int, int, dict[str, int]]] = []
        with_state = [one for one in range(incarnation) if _state_path(folder, slot, one).exists()]
        if with_state:
            self._restore(_state_path(folder, slot, with_state[-1]))
            self._replay(_journal_path(folder, slot, with_state[-1]))
        self._write(_state_path(folder, slot, incarnation))
        self._journal = os.open(
            _journal_path(folder, slot, incarnation), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600
        )

    def absorb(self, message: Message, *, marked: bool) -> None:
        """See `Sink.absorb`: one system call, after which the kernel keeps the line whatever happens to us."""
        words = cast(dict[str, int], message.payload)
        entry = _encoded([message.origin, message.sequence, marked, words])
        if os.write(self._journal, entry) != len(entry):
            raise OSError(f"the journal of {self._slot} could not be written whole")
        self._add(message.origin, message.sequence, marked, words)

    def finish(self) -> None:
        """See `Sink.finish`."""
        self._write(_tally_path(self._folder, self._slot))
        os.close(self._journal)

    def _add(self, origin: int, sequence: int, marked: bool, words: dict[str, int]) -> None:
        if marked:
            self._set_aside.append((origin, sequence, words))
            return
        self._items.setdefault(origin, []).append(sequence)
        counts = self._words
        for word, count in words.items():
            counts[word] += count

    def _restore(self, path: Path) -> None:
        """Take over the state that an earlier incarnation began with."""
        state = json.loads(path.read_bytes())
        self._words.update(state["words"])
        self._items = {int(origin): sequences for origin, sequences in state["items"].items()}
        self._set_aside = state["set_aside"]

    def _replay(self, path: Path) -> None:
        """Read the journal of a process that was killed; a line without its end was not acked, and comes again."""
        if not path.exists():
            return  # killed before it began
        whole, _, _ = path.read_bytes().rpartition(b"\n")
        for line in whole.splitlines():
            self._add(*json.loads(line))

    def _write(self, path: Path) -> None:
        """Write the state; it comes into place whole or not at all."""
        state = {"words": self._words, "items": self._items, "set_aside": self._set_aside}
        unfinished = path.with_suffix(".part")
        unfinished.write_text(json.dumps(state), encoding="utf-8")
        unfinished.replace(path)


def _encoded(entry: list[object]) -> bytes:
    return f"{ENCODER.encode(entry)}\n".encode()
