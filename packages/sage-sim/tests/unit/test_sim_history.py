"""Event logs that survive a kill, and the history that is made of them."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from sage_sim.eventlog import DAMAGED, REPEATED, EventLog, Kind, Operation, last_operation, read_log
from sage_sim.history import EdgeEnds, History, Process, read_history, write_history
from sage_sim.message import Message

EDGE = EdgeEnds(name="items", source="producer", target="consumer")


def message(sequence: int, *, repeats: int = 0) -> Message:
    return Message(origin=5, sequence=sequence, repeats=repeats, sender=1, hop=sequence, payload=b"")


def log_with(path: Path, puts: int) -> EventLog:
    log = EventLog(path)
    for sequence in range(puts):
        log.end(log.begin(Kind.PUT, 0, message(sequence)))
    return log


def test_a_log_gives_back_what_was_recorded(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")

    log.end(log.begin(Kind.PUT, 0, message(0)))
    log.begin(Kind.TAKE, 1, message(1, repeats=2), attempt=3, damaged=True)
    put, take = read_log(tmp_path / "log", 9)

    assert (put.kind, put.edge, put.origin, put.sequence, put.hop, put.sender, put.process) == (1, 0, 5, 0, 0, 1, 9)
    assert put.ended
    assert put.begin_ns <= put.end_ns
    assert (take.kind, take.edge, take.attempt, take.flags, take.ended) == (2, 1, 3, REPEATED | DAMAGED, False)


def test_a_log_can_be_read_while_it_is_open_as_after_a_kill(tmp_path: Path) -> None:
    log_with(tmp_path / "log", 3)

    assert [one.sequence for one in read_log(tmp_path / "log", 1)] == [0, 1, 2]


def test_a_log_grows_beyond_its_first_size(tmp_path: Path) -> None:
    log_with(tmp_path / "log", 20_000).close()

    assert [one.sequence for one in read_log(tmp_path / "log", 1)] == list(range(20_000))
    assert os.path.getsize(tmp_path / "log") == 20_000 * 56


def test_a_record_without_its_last_byte_does_not_count(tmp_path: Path) -> None:
    log_with(tmp_path / "log", 2)
    with (tmp_path / "log").open("r+b") as file:
        file.seek(2 * 56 - 1)
        file.write(b"\0")

    assert [one.sequence for one in read_log(tmp_path / "log", 1)] == [0]


@pytest.mark.parametrize("puts", [1, 2, 3, 2047, 2048, 2049])
def test_the_last_operation_is_found(tmp_path: Path, puts: int) -> None:
    log_with(tmp_path / "log", puts)

    found = last_operation(tmp_path / "log", 1)

    assert found is not None
    assert found.sequence == puts - 1


def test_a_log_that_was_never_begun_holds_nothing(tmp_path: Path) -> None:
    log_with(tmp_path / "empty", 0)

    assert last_operation(tmp_path / "empty", 1) is None
    assert last_operation(tmp_path / "missing", 1) is None
    assert list(read_log(tmp_path / "missing", 1)) == []


def a_history() -> History:
    processes = (
        Process(
            number=1, name="producer-0.0", role="producer", start_ns=1, ready_ns=4, exit_ns=90, status=-9, killed_ns=80
        ),
        Process(
            number=2, name="consumer-0.0", role="consumer", start_ns=2, exit_ns=99, status=143, stopped=True, excused=76
        ),
        Process(number=3, name="consumer-1.0", role="consumer", start_ns=3),
    )
    operations = (
        Operation(10, 11, 9, 0, 0, 0, 1, 0, 0, 0, 0, Kind.PUT, 1),
        Operation(12, 13, 9, 0, 0, 0, 1, 0, 0, 0, 0, Kind.TAKE, 2),
        Operation(20, 0, 0, 1, 1, 0, 1, 0, 0, REPEATED, 1, Kind.PUT, 1),
        Operation(30, 31, 0, 1, 1, 0, 1, 0, 1, DAMAGED, 1, Kind.TAKE, 3),
    )
    return History.of((EDGE,), processes, operations, drained=False, arrivals=[2], from_ns=5)


def test_reading_a_written_history_gives_the_same(tmp_path: Path) -> None:
    history = a_history()
    logs = [[one for one in history.read() if one.process == process.number] for process in history.processes]

    written = write_history(tmp_path / "history.jsonl", history, logs)
    again = read_history(tmp_path / "history.jsonl")

    assert written == 4
    assert replace(again, read=history.read) == history
    assert list(again.read()) == list(history.read())


def test_a_history_is_in_the_order_of_time(tmp_path: Path) -> None:
    history = a_history()
    logs = [[one for one in history.read() if one.process == process.number] for process in history.processes]

    write_history(tmp_path / "history.jsonl", history, logs)
    events = [line.split('"')[3] for line in (tmp_path / "history.jsonl").read_text().splitlines()]

    assert events == ["history", "edge", *["start"] * 3, "ready", "put", "take", "put", "take", "kill", "exit", "exit"]


def test_a_line_that_is_no_event_is_named(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(
        '{"event":"history","drained":true,"arrivals":[],"from_ns":0}\n{"event":"nonsense"}\n'
    )

    with pytest.raises(ValueError, match=r"line 2 is no event"):
        read_history(tmp_path / "history.jsonl")


def test_a_reply_ends_items_without_making_its_target_a_sink() -> None:
    request, reply = (
        EdgeEnds(name="requests", source="client", target="server"),
        EdgeEnds(name="replies", source="server", target="client", reply=True),
    )
    history = History.of((request, reply), (), ())

    assert (history.source_roles, history.entries, history.exits) == ({"client"}, {0}, {1})


def test_roles_at_the_ends_follow_from_the_edges() -> None:
    second = EdgeEnds(name="rest", source="consumer", target="archive")
    history = History.of((EDGE, second), (), ())

    assert history.source_roles == {"producer"}
    assert history.sink_roles == {"archive"}
