"""Word count and blobs: the same input in every process, and a result that a kill cannot change."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from sage_sim.message import Message
from sage_sim.payload import Payload
from sage_sim.workloads import Blobs, WordCount, WorkloadSettings
from sage_sim.workloads.words import TEXT, merged, words_of

SETTINGS = WorkloadSettings(seed=3, payload=Payload(size_bytes=100))
SLOTS = ["counter-0", "counter-1"]


def item(sequence: int, line: str, *, origin: int = 0) -> Message:
    return Message(origin=origin, sequence=sequence, repeats=0, sender=1, hop=0, payload=words_of(line))


def test_the_text_is_long_enough_to_be_worth_counting() -> None:
    assert sum(words_of(TEXT.read_text(encoding="utf-8")).values()) >= 2000


def test_words_are_counted_in_lower_case_without_punctuation() -> None:
    assert words_of("The lamp, the letter's lamp; 12 letters!") == {
        "the": 2,
        "lamp": 2,
        "letter's": 1,
        "letters": 1,
    }


def test_a_reader_hands_out_every_line_once_in_each_pass() -> None:
    workload = WordCount(SETTINGS)
    lines = [line for line in TEXT.read_text(encoding="utf-8").splitlines() if line]

    first_pass = list(islice(workload.payloads(0, 0), len(lines)))

    assert first_pass != lines
    assert sorted(first_pass) == sorted(lines)


@pytest.mark.parametrize("start", [1, 100, 500, 1000])
@pytest.mark.parametrize("kind", [WordCount, Blobs])
def test_a_source_can_go_on_anywhere(kind: type[WordCount] | type[Blobs], start: int) -> None:
    whole = islice(kind(SETTINGS).payloads(1, 0), start, start + 50)
    resumed = islice(kind(SETTINGS).payloads(1, start), 50)

    assert list(resumed) == list(whole)


def test_seeds_and_origins_change_the_order() -> None:
    other = WorkloadSettings(seed=4, payload=Payload(size_bytes=100))

    streams = [WordCount(SETTINGS).payloads(0, 0), WordCount(SETTINGS).payloads(1, 0), WordCount(other).payloads(0, 0)]
    beginnings = {tuple(islice(stream, 10)) for stream in streams}

    assert len(beginnings) == 3


def test_counting_alone_counts_what_was_handed_out() -> None:
    workload, produced = WordCount(SETTINGS), [400, 37]

    expected: Counter[str] = Counter()
    for origin, items in enumerate(produced):
        for line in islice(workload.payloads(origin, 0), items):
            expected.update(words_of(str(line)))

    assert workload.counted_alone(produced) == expected


def count_all(workload: WordCount, folder: Path, items: int) -> None:
    """Let two counters take turns."""
    sinks = [workload.sink(folder, slot, 0) for slot in SLOTS]
    for sequence, line in enumerate(islice(workload.payloads(0, 0), items)):
        sinks[sequence % 2].absorb(item(sequence, str(line)), marked=False)
    for sink in sinks:
        sink.finish()


def test_a_right_count_is_called_right(tmp_path: Path) -> None:
    workload = WordCount(SETTINGS)
    count_all(workload, tmp_path, 300)

    answer = workload.judge(tmp_path, SLOTS, [300])

    assert answer.right is True
    assert "as a single process counts" in answer.sentence


@pytest.mark.parametrize("produced", [299, 301])
def test_a_count_that_differs_by_one_line_is_called_wrong(tmp_path: Path, produced: int) -> None:
    workload = WordCount(SETTINGS)
    count_all(workload, tmp_path, 300)

    answer = workload.judge(tmp_path, SLOTS, [produced])

    assert answer.right is False


def test_a_missing_tally_leaves_the_answer_open(tmp_path: Path) -> None:
    workload = WordCount(SETTINGS)
    workload.sink(tmp_path, "counter-0", 0).finish()

    answer = workload.judge(tmp_path, SLOTS, [0])

    assert answer.right is None
    assert "counter-1" in answer.sentence


def test_a_new_counter_takes_over_from_those_that_were_killed(tmp_path: Path) -> None:
    workload = WordCount(SETTINGS)
    workload.sink(tmp_path, "counter-0", 0).absorb(item(0, "one letter"), marked=False)
    workload.sink(tmp_path, "counter-0", 1).absorb(item(1, "two letters"), marked=False)
    # Incarnation 2 was killed before it began.

    last = workload.sink(tmp_path, "counter-0", 3)
    last.absorb(item(2, "one lamp"), marked=False)
    last.finish()

    assert found(tmp_path, ["counter-0"]) == Counter(one=2, letter=1, two=1, letters=1, lamp=1)


def test_a_journal_line_cut_off_by_a_kill_does_not_count(tmp_path: Path) -> None:
    workload = WordCount(SETTINGS)
    first = workload.sink(tmp_path, "counter-0", 0)
    first.absorb(item(0, "whole"), marked=False)
    first.absorb(item(1, "torn"), marked=False)
    journal = tmp_path / "counter-0.0.journal"
    journal.write_bytes(journal.read_bytes()[:-3])

    workload.sink(tmp_path, "counter-0", 1).finish()

    assert found(tmp_path, ["counter-0"]) == Counter(whole=1)


def test_a_marked_item_counts_only_when_no_other_copy_did(tmp_path: Path) -> None:
    workload = WordCount(SETTINGS)
    first, second = (workload.sink(tmp_path, slot, 0) for slot in SLOTS)
    first.absorb(item(0, "both"), marked=False)
    second.absorb(item(0, "both"), marked=True)
    second.absorb(item(1, "marked only"), marked=True)
    first.absorb(item(1, "marked only"), marked=True)
    first.finish()
    second.finish()

    assert found(tmp_path, SLOTS) == Counter(both=1, marked=1, only=1)


def test_an_unmarked_copy_shows_in_the_result(tmp_path: Path) -> None:
    workload = WordCount(SETTINGS)
    sinks = [workload.sink(tmp_path, slot, 0) for slot in SLOTS]
    for sink in sinks:
        sink.absorb(item(0, "twice"), marked=False)
        sink.finish()

    assert found(tmp_path, SLOTS) == Counter(twice=2)


def found(folder: Path, slots: list[str]) -> Counter[str]:
    return merged([json.loads((folder / f"{slot}.tally.json").read_bytes()) for slot in slots])


def test_a_blob_is_intact_only_for_its_own_number() -> None:
    workload = Blobs(SETTINGS)
    payload = workload.content(2, 7)
    right = Message(origin=2, sequence=7, repeats=0, sender=1, hop=0, payload=payload)

    assert len(payload) == 100
    assert workload.intact(right)
    assert not workload.intact(right._replace(sequence=8))
    assert not workload.intact(right._replace(origin=1))
    assert not workload.intact(right._replace(payload=payload[:-1] + b"?"))
