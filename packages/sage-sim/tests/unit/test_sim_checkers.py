"""Checkers against histories made by hand: right ones, and ones with a planted fault each."""

from collections.abc import Sequence

import pytest

from sage_sim.accounts import Account, edge_accounts, item_account
from sage_sim.checkers import (
    Finding,
    Verdict,
    check_damage,
    check_deaths,
    check_duplicates,
    check_faults,
    check_gates,
    check_keys,
    check_leftovers,
    check_loss,
    check_order,
    check_progress,
    check_redeliveries,
    check_unexpected,
    overall,
)
from sage_sim.eventlog import DAMAGED, REPEATED, SETTLING, Kind, Operation
from sage_sim.history import EdgeEnds, History, Process

PRODUCER, MIDDLE, CONSUMER, SECOND_CONSUMER = 1, 2, 3, 4
FIRST_EDGE, SECOND_EDGE = 0, 1
EDGES = (
    EdgeEnds(name="lines", source="reader", target="worker"),
    EdgeEnds(name="words", source="worker", target="counter"),
)
KILLED = {"killed_ns": 1, "exit_ns": 51, "status": -9}


def process(number: int, role: str, **changes: int | bool | None) -> Process:
    fields: dict[str, int | bool | None] = {"exit_ns": 1000, "status": 0}
    return Process(number=number, name=f"{role}-0.{number}", role=role, start_ns=0, **(fields | changes))  # type: ignore[arg-type]


CREW = (
    process(PRODUCER, "reader"),
    process(MIDDLE, "worker"),
    process(CONSUMER, "counter"),
    process(SECOND_CONSUMER, "counter"),
)


def operation(kind: Kind, edge: int, process: int, place: int, **changes: int) -> Operation:
    sender = PRODUCER if edge == FIRST_EDGE else MIDDLE
    made = Operation(
        begin_ns=place + 1,
        end_ns=place + 2,
        due_ns=0,
        sequence=place,
        hop=place,
        origin=0,
        sender=sender,
        edge=edge,
        attempt=0,
        flags=0,
        lane=0,
        kind=kind,
        process=process,
    )
    return made._replace(**changes)


def put(place: int, edge: int = FIRST_EDGE, **changes: int) -> Operation:
    return operation(Kind.PUT, edge, PRODUCER if edge == FIRST_EDGE else MIDDLE, place, **changes)


def take(place: int, edge: int = SECOND_EDGE, process: int = CONSUMER, **changes: int) -> Operation:
    return operation(Kind.TAKE, edge, MIDDLE if edge == FIRST_EDGE else process, place, **changes)


def way(place: int) -> list[Operation]:
    """One item on the whole way from source to sink."""
    return [put(place), take(place, FIRST_EDGE), put(place, SECOND_EDGE), take(place)]


def good_run(items: int = 3) -> list[Operation]:
    return [step for place in range(items) for step in way(place)]


def findings(
    operations: Sequence[Operation], crew: Sequence[Process] = CREW, *, drained: bool = True
) -> dict[str, Finding]:
    history = History.of(EDGES, crew, operations, drained=drained)
    books, items = edge_accounts(history), item_account(history)
    found = [
        check_loss(history, books, items),
        check_duplicates(history, books, items),
        check_order(history, books, items),
        check_unexpected(history, books, items),
        check_redeliveries(history, books),
        check_deaths(history),
        check_progress(items),
    ]
    return {finding.check: finding for finding in found}


def broken(operations: Sequence[Operation], crew: Sequence[Process] = CREW) -> list[str]:
    return [check for check, finding in findings(operations, crew).items() if finding.verdict is not Verdict.VALID]


def test_a_good_run_breaks_no_rule() -> None:
    assert broken(good_run()) == []


def test_a_good_run_is_counted_exactly() -> None:
    history = History.of(EDGES, CREW, good_run(5))

    lines, words = edge_accounts(history)

    assert (lines.confirmed, lines.taken, lines.produced) == (5, 5, {PRODUCER: 5})
    assert (words.confirmed, words.taken, words.produced) == (5, 5, {MIDDLE: 5})
    assert item_account(history).taken == 5


def test_a_message_lost_in_the_last_queue_is_found() -> None:
    operations = good_run()
    operations.remove(take(1))

    found = findings(operations)["nothing lost"]

    assert found.verdict is Verdict.INVALID
    assert found.examples == (
        f"queue words: message 1 of process {MIDDLE}",
        "source to sink: item 1 of source 0",
    )


def test_an_item_that_a_worker_swallowed_is_found() -> None:
    operations = [step for step in good_run() if not (step.edge == SECOND_EDGE and step.sequence == 2)]

    found = findings(operations)["nothing lost"]

    assert found.verdict is Verdict.INVALID
    assert found.sentence == "0 messages lost in queues, 1 items lost between source and sink"


def test_an_item_that_its_source_left_out_is_found() -> None:
    operations = [step for step in good_run() if step.sequence != 1]

    assert findings(operations)["nothing lost"].verdict is Verdict.INVALID


def test_a_put_cut_off_by_a_kill_may_be_missing() -> None:
    crew = (process(PRODUCER, "reader", **KILLED), *CREW[1:])
    operations = [*good_run(), put(3, end_ns=0)]

    assert broken(operations, crew) == []


def test_a_put_cut_off_by_a_kill_may_have_arrived() -> None:
    crew = (process(PRODUCER, "reader", **KILLED), *CREW[1:])
    operations = [*good_run(), put(3, end_ns=0), *way(3)[1:]]

    found = findings(operations, crew)["nothing lost"]

    assert found.verdict is Verdict.VALID
    assert found.sentence == "4 items arrived; of 1 puts cut off, 1 took effect"


def test_what_is_under_way_when_a_run_is_ended_is_not_called_lost() -> None:
    operations = good_run()
    operations.remove(take(2))

    found = findings(operations, drained=False)["nothing lost"]

    assert found.verdict is Verdict.UNKNOWN


def test_a_message_delivered_twice_is_found() -> None:
    operations = [*good_run(), take(2, process=SECOND_CONSUMER)]

    found = findings(operations)["nothing duplicated"]

    assert found.verdict is Verdict.INVALID
    assert found.examples[0] == f"queue words: message 2 of process {MIDDLE}"


def test_an_item_passed_on_twice_is_found() -> None:
    again = [put(2, SECOND_EDGE, hop=3), take(2, hop=3)]

    found = findings([*good_run(), *again])["nothing duplicated"]

    assert found.verdict is Verdict.INVALID
    assert found.sentence == "0 messages in queues and 1 items came again without a mark"


def test_a_marked_copy_of_an_item_is_no_duplicate() -> None:
    again = [put(2, SECOND_EDGE, hop=3, flags=REPEATED), take(2, hop=3, flags=REPEATED)]

    assert broken([*good_run(), *again]) == []


def test_a_redelivery_after_a_death_is_no_duplicate() -> None:
    crew = (*CREW[:3], process(SECOND_CONSUMER, "counter", **KILLED))
    operations = [*good_run(2), *way(2)[:3], take(2, process=SECOND_CONSUMER, end_ns=0), take(2, attempt=1)]

    assert broken(operations, crew) == []


def test_a_redelivery_without_a_death_is_found() -> None:
    operations = [*good_run(2), *way(2)[:3], take(2, process=SECOND_CONSUMER, end_ns=0), take(2, attempt=1)]

    found = findings(operations)["redelivery only after a death"]

    assert found.verdict is Verdict.INVALID
    assert found.examples == ("words: 1 redeliveries after 0 deaths",)


def test_a_death_in_another_role_explains_no_redelivery() -> None:
    crew = (process(PRODUCER, "reader", **KILLED), *CREW[1:])
    operations = [*good_run(2), *way(2)[:3], take(2, process=SECOND_CONSUMER, end_ns=0), take(2, attempt=1)]

    assert broken(operations, crew) == ["redelivery only after a death"]


@pytest.mark.parametrize(("killed_ns", "is_right"), [(900, False), (20, True)])
def test_a_later_death_explains_no_redelivery(killed_ns: int, is_right: bool) -> None:
    crew = (*CREW[:3], process(SECOND_CONSUMER, "counter", **KILLED | {"killed_ns": killed_ns}))
    again = take(2, begin_ns=30, end_ns=31, attempt=1)
    operations = [*good_run(2), *way(2)[:3], take(2, process=SECOND_CONSUMER, end_ns=0), again]

    assert broken(operations, crew) == ([] if is_right else ["redelivery only after a death"])


def test_a_death_explains_one_redelivery_in_all_queues_of_a_role() -> None:
    edges = [EdgeEnds(name=name, source="reader", target="counter") for name in ("left", "right")]
    crew = (CREW[0], CREW[2], process(SECOND_CONSUMER, "counter", **KILLED))
    later = {"begin_ns": 60, "end_ns": 61, "attempt": 1, "process": CONSUMER}
    again = [take(0, edge, sender=PRODUCER)._replace(**later) for edge in (FIRST_EDGE, SECOND_EDGE)]

    def verdict(operations: Sequence[Operation]) -> Verdict:
        history = History.of(edges, crew, operations)
        return check_redeliveries(history, edge_accounts(history)).verdict

    assert verdict(again[:1]) is Verdict.VALID
    assert verdict(again) is Verdict.INVALID


def test_a_redelivery_of_what_was_acked_is_found() -> None:
    crew = (*CREW[:3], process(SECOND_CONSUMER, "counter", **KILLED))
    operations = [*good_run(), take(2, attempt=1)]

    assert broken(operations, crew) == ["nothing duplicated"]


def test_a_message_taken_after_a_younger_one_is_found() -> None:
    operations = good_run()
    first, second = operations.index(take(0)), operations.index(take(1))
    operations[first], operations[second] = operations[second], operations[first]

    found = findings(operations)["order kept"]

    assert found.verdict is Verdict.INVALID
    assert found.examples == (f"queue words: message 0 of process {MIDDLE} after 1, in process {CONSUMER}",)


def test_order_is_judged_for_each_consumer_alone() -> None:
    operations = [*way(0)[:3], *way(1)[:3], take(1), take(0, process=SECOND_CONSUMER)]

    assert broken(operations) == []


def test_a_redelivery_may_come_late() -> None:
    crew = (*CREW[:3], process(SECOND_CONSUMER, "counter", **KILLED))
    operations = [*way(0)[:3], take(0, process=SECOND_CONSUMER, end_ns=0), *way(1), take(0, attempt=1)]

    assert broken(operations, crew) == []


def test_a_message_that_nobody_put_is_found() -> None:
    operations = [*good_run(), take(7)]

    found = findings(operations)["nothing unexpected"]

    assert found.verdict is Verdict.INVALID
    assert f"queue words: message 7 of process {MIDDLE}" in found.examples


def test_a_damaged_payload_is_found() -> None:
    operations = [*good_run(2), *way(2)[:3], take(2, flags=DAMAGED)]

    assert broken(operations) == ["nothing unexpected"]


@pytest.mark.parametrize("status", [1, -11, -9])
def test_a_process_that_ended_otherwise_than_planned_is_found(status: int) -> None:
    crew = (process(PRODUCER, "reader", status=status), *CREW[1:])

    assert broken(good_run(), crew) == ["no process failed"]


def test_a_process_without_room_for_its_history_leaves_the_verdict_open() -> None:
    crew = (process(PRODUCER, "reader", status=74), *CREW[1:])

    assert findings(good_run(), crew)["no process failed"].verdict is Verdict.UNKNOWN


def test_a_process_that_was_told_to_stop_has_not_failed() -> None:
    crew = (process(PRODUCER, "reader", status=143, stopped=True), *CREW[1:])

    assert broken(good_run(), crew) == []


def test_a_run_without_items_proves_nothing() -> None:
    assert findings([])["items arrived"].verdict is Verdict.UNKNOWN


def test_a_run_whose_faults_did_not_strike_proves_nothing() -> None:
    spared = History.of(EDGES, CREW, good_run())
    struck = History.of(EDGES, (process(PRODUCER, "reader", **KILLED), *CREW[1:]), good_run())

    assert check_faults(spared).verdict is Verdict.UNKNOWN
    assert check_faults(struck).verdict is Verdict.VALID


def test_a_server_out_of_reach_explains_as_many_redeliveries_as_it_has_consumers() -> None:
    operations = [*good_run(2), *way(2)[:3], take(2, process=SECOND_CONSUMER, end_ns=0), take(2, attempt=1)]
    history = History.of(EDGES, CREW, operations)
    books = edge_accounts(history)

    assert check_redeliveries(history, books).verdict is Verdict.INVALID
    assert check_redeliveries(history, books, cuts=1).sentence == (
        "1 redeliveries, 0 deaths, the server out of reach 1 times"
    )


def test_what_is_left_behind_is_found() -> None:
    assert check_leftovers([], []).verdict is Verdict.VALID
    assert check_leftovers(["segment"], []).verdict is Verdict.INVALID
    assert check_leftovers([], ["reader-0.0"]).verdict is Verdict.INVALID


def test_rate_counts_different_messages_from_first_put_to_last_take() -> None:
    account = Account(taken=12, timed=10, first_ns=1_000_000_000, last_ns=3_000_000_000)

    assert account.rate == 5.0
    assert Account().rate == 0.0


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [
        ([], Verdict.UNKNOWN),
        ([Verdict.VALID], Verdict.VALID),
        ([Verdict.VALID, Verdict.UNKNOWN], Verdict.UNKNOWN),
        ([Verdict.UNKNOWN, Verdict.INVALID, Verdict.VALID], Verdict.INVALID),
    ],
)
def test_the_worst_finding_decides(verdicts: list[Verdict], wanted: Verdict) -> None:
    found = [Finding(check="rule", verdict=verdict, sentence="") for verdict in verdicts]

    assert overall(found) is wanted


def test_a_message_that_a_dead_consumer_took_along_is_found() -> None:
    operations = [one._replace(end_ns=0) if one == take(1) else one for one in good_run()]

    found = findings(operations)["nothing lost"]

    assert found.verdict is Verdict.INVALID
    assert (
        found.examples[0]
        == f"queue words: message 1 of process {MIDDLE}, which was taken, not settled, and not given back"
    )


def test_a_message_that_was_perhaps_settled_is_not_lost() -> None:
    operations = [one._replace(end_ns=SETTLING) if one == take(1) else one for one in good_run()]

    assert broken(operations) == []


def test_an_item_with_two_ways_has_to_come_on_both() -> None:
    edges = (EdgeEnds(name="left", source="a", target="b"), EdgeEnds(name="right", source="a", target="b"))
    crew = (process(1, "a"), process(2, "b"))
    operations = [
        one._replace(lane=edge, edge=edge, sender=1, process=who)
        for edge in (0, 1)
        for one, who in ((put(0), 1), (take(0), 2))
    ]

    def lost(kept: Sequence[Operation]) -> Finding:
        history = History.of(edges, crew, kept, arrivals=[2])
        return check_loss(history, edge_accounts(history), item_account(history))

    assert lost(operations).sentence == "2 items arrived"
    assert lost(operations[:-1]).examples == (
        "queue right: message 0 of process 1",
        "source to sink: item 0 of source 0, copy 1",
    )


def test_the_wait_of_every_64th_message_is_measured() -> None:
    operations = [step for place in range(130) for step in (put(place), take(place, FIRST_EDGE, begin_ns=place + 11))]
    history = History.of(EDGES, CREW, operations)

    lines, _ = edge_accounts(history)

    assert lines.waits(0.0, 1.0) == [10, 10]
    assert len(lines.waits_ns) == 3


def test_latency_counts_from_the_moment_an_item_was_due() -> None:
    operations = [one._replace(due_ns=1, end_ns=101) for one in good_run()]

    assert item_account(History.of(EDGES, CREW, operations)).waits(0.5) == [100]


def test_warm_up_counts_for_the_books_but_not_for_speed() -> None:
    operations = [one._replace(begin_ns=one.sequence * 100, end_ns=one.sequence * 100 + 1) for one in good_run(10)]

    account = item_account(History.of(EDGES, CREW, operations, from_ns=500))

    assert (account.taken, account.timed, account.first_ns, account.last_ns) == (10, 5, 500, 901)


def keyed(*slots: str) -> Finding:
    """The keys of items that each of these processes took one of."""
    edges = (EdgeEnds(name="parts.0", source="a", target="b", edge="parts", keyed=True),)
    crew = [Process(number=at + 10, name=f"{slot}.0", role="b", start_ns=0) for at, slot in enumerate(slots)]
    operations = [take(at, 0)._replace(process=at + 10) for at in range(len(slots))]
    return check_keys(History.of(edges, crew, operations), lambda origin, sequence: 7)


def test_a_key_at_two_consumers_is_found() -> None:
    assert keyed("b-0", "b-0").verdict is Verdict.VALID
    assert keyed("b-0", "b-1").examples == ("key 7 of edge parts: taken by b-0, and by b-1",)


def test_damage_has_to_be_noticed_by_everybody_who_uses_the_queue() -> None:
    def seen(*statuses: int) -> Finding:
        crew = [process(at + 1, "reader" if at else "worker", status=status) for at, status in enumerate(statuses)]
        return check_damage(History.of(EDGES, crew, ()), "lines", {"reader-0", "worker-0"})

    assert seen(75, 75).verdict is Verdict.VALID
    assert seen(75, 143).examples == ("reader-0.2 did not notice",)
    assert seen(0).verdict is Verdict.INVALID


@pytest.mark.parametrize(
    ("begin_ns", "end_ns", "verdict"),
    [(10, 11, Verdict.VALID), (10, 0, Verdict.INVALID), (2000, 2001, Verdict.INVALID)],
    ids=["before it", "never ended", "after others had noticed"],
)
def test_who_passes_on_is_blind_when_it_puts_into_what_is_damaged(begin_ns: int, end_ns: int, verdict: Verdict) -> None:
    crew = [process(1, "reader"), process(MIDDLE, "worker", status=143), process(3, "counter", status=75)]
    put = operation(Kind.PUT, SECOND_EDGE, MIDDLE, 0, begin_ns=begin_ns, end_ns=end_ns)

    found = check_damage(History.of(EDGES, crew, [put]), "words", {"worker-0", "counter-0"})

    assert found.verdict is verdict
    assert found.sentence.endswith("had nothing to put there") == (verdict is Verdict.VALID)


def test_gates_are_compared_with_what_was_measured() -> None:
    assert check_gates(100.0, 5.0, lowest_rate=99.0, highest_p99_ms=6.0).verdict is Verdict.VALID
    assert check_gates(100.0, 5.0, lowest_rate=101.0, highest_p99_ms=None).sentence == "100 items/s, below 101"
    assert check_gates(100.0, None, lowest_rate=None, highest_p99_ms=1.0).verdict is Verdict.INVALID


def test_each_kind_of_fault_that_was_asked_for_has_to_strike() -> None:
    history = History.of(EDGES, [process(1, "reader", **KILLED)], ())

    assert check_faults(history, ["kill", "stop"], ["stop"]).sentence == "1 kill, 1 stop"
    assert (
        check_faults(history, ["kill", "cut", "full"], ["kill"], seconds=0.6).sentence
        == "no cut and no full in the 0.6 s of the run; let it go on for longer, with --duration in place of --items, "
        "or say when, as in cut@0.3"
    )
