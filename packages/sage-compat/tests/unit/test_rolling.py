"""Rollback and roll-forward of queues that are used: in this process, in others, with a broken new way, and killed."""

import contextlib
import errno
import json
import multiprocessing
import os
import queue as standard
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_compat import SageQueue, create_queue, lines, records, roll_forward, rollback, set_mode
from sage_compat.legacy.file_queue import FileQueue
from sage_compat.moves import flip
from sage_compat.rules import Mode, decide
from sage_qd import CorruptQueueError, QueueNoSpaceError, SageQueueError, ring
from sage_qd.descriptors import migration
from sage_qd.testing import background, wait_for

FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")


def kind(queue: Any) -> str:
    return str(queue.descriptor.queue_type)


def test_what_is_queued_is_taken_first_and_then_what_came_after() -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put(1)
    queue.put(2)

    done = rollback("orders")
    queue.put(3)

    assert [(flip.before, flip.after, flip.moved) for flip in done.flips] == [("sage_queue", "legacy_queue", 2)]
    assert kind(queue) == "legacy_queue"
    assert queue.qsize() == 3
    assert [queue.get() for _ in range(3)] == [1, 2, 3]


def put_one_and_leave(queue: Any, number: int) -> None:
    queue.put(number)


def test_children_forked_while_something_is_decided_can_use_and_leave_the_queue() -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    over = threading.Event()

    def decide_all_the_time() -> None:
        while not over.is_set():
            set_mode("shadow", "others")
            lines.refresh_all()
            with records.changing(lines.open_lines()[0].full_name):
                os.sched_yield()

    deciding = background(decide_all_the_time)
    for start in range(0, 120, 4):
        children = [FORK.Process(target=put_one_and_leave, args=(queue, start + number)) for number in range(4)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
    over.set()
    deciding.result()
    assert sorted(queue.get(timeout=0) for _ in range(120)) == list(range(120))


def test_doing_it_again_does_nothing_more() -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put(1)

    assert len(rollback("orders").flips) == 1
    assert rollback("orders").flips == []
    assert len(roll_forward("orders").flips) == 1
    assert roll_forward("orders").flips == []
    assert queue.get() == 1


def test_a_dry_run_changes_nothing_and_says_what_would_be_done() -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put(1)

    done = rollback("*", dry_run=True)

    assert [(flip.after, flip.moved) for flip in done.flips] == [("legacy_queue", 1)]
    assert kind(queue) == "sage_queue"
    assert decide("orders").mode is Mode.DESCRIPTOR


def test_a_dry_run_leaves_what_a_move_that_was_cut_off_has_left() -> None:
    queue = SageQueue("orders")
    record = records.read(queue.name)
    assert record is not None
    record.chain.append(records.descriptor_for(record, is_new=True).to_json())
    record.number += 1
    record.save()
    left = record.descriptors[-1]
    left.open().leave_behind()

    flip(queue.name, is_new=False, dry_run=True)

    left.attach().close()  # it is there
    left.destroy()


def test_only_the_names_that_match_are_moved() -> None:
    set_mode("descriptor")
    orders, bills = SageQueue("orders"), SageQueue("bills")

    rollback("ord*")
    orders.put(1)

    assert (kind(orders), kind(bills)) == ("legacy_queue", "sage_queue")


def test_whoever_starts_later_obeys_and_the_configuration_says_so() -> None:
    path = Path("sage-compat.toml")
    path.write_text('# ours\nmode = "descriptor"  # all\n\n[[rules]]\nmatch = "bills"\nmode = "shadow"\n')

    done = rollback("orders")

    assert done.configuration == str(path.absolute())
    text = path.read_text()
    assert "# ours" in text
    assert "# all" in text
    assert text.index('"orders"') < text.index('"bills"')
    assert rollback("orders").configuration is None
    assert kind(SageQueue("orders")) == "legacy_queue"
    assert kind(SageQueue("letters")) == "sage_queue"
    rollback("*")
    assert decide("bills").mode is Mode.LEGACY
    assert path.read_text().index('"*"') < path.read_text().index('"orders"')


FORMS = {
    "a section on one line": '[tool]\nsage-compat = {mode = "descriptor", quirks = ["pid_in_name"]}\n',
    "rules on one line": '[tool.sage-compat]\nmode = "descriptor"\nrules = [{match = "bills", mode = "shadow"}]\n',
    "no section": "[tool.other]\nx = 1\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_configuration_of_any_form_is_brought_in_line(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("pyproject.toml").absolute()
    path.write_text(FORMS[form])
    monkeypatch.setenv("SAGE_COMPAT_CONFIG", str(path))

    done = rollback("*")

    assert (done.configuration, done.failed) == (str(path), {})
    assert decide("orders").mode is Mode.LEGACY
    settings = tomllib.loads(path.read_text())["tool"]
    assert settings["sage-compat"]["rules"][0]["match"] == "*"
    before = tomllib.loads(FORMS[form])["tool"]
    assert {**settings, "sage-compat": {**settings["sage-compat"], "rules": []}} == {
        **before, "sage-compat": {**before.get("sage-compat", {}), "rules": []}
    }  # fmt: skip


def test_a_linked_configuration_is_changed_where_it_is() -> None:
    real = Path("shared.toml")
    real.write_text('mode = "descriptor"\n')
    real.chmod(0o640)
    Path("sage-compat.toml").symlink_to(real)

    rollback("*")

    assert Path("sage-compat.toml").is_symlink()
    assert '"legacy"' in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_who_only_takes_sees_what_others_put_behind_a_move() -> None:
    queue = SageQueue("orders")
    for number in range(5):
        queue.put(number)
    ours, theirs = FORK.Pipe()
    taker = FORK.Process(target=take_until_empty, args=(theirs,))
    taker.start()
    ours.recv()

    roll_forward("orders")
    for number in range(5, 8):
        queue.put(number)
    ours.send("moved")

    assert ours.recv() == (8, list(range(8)))
    taker.join()


def take_until_empty(pipe: Any) -> None:
    queue = SageQueue("orders")
    pipe.send("open")
    pipe.recv()
    found, taken = queue.qsize(), []
    while not queue.empty():
        taken.append(queue.get())
    pipe.send((found, taken))


def test_waiting_calls_go_over() -> None:
    set_mode("descriptor")
    queue = SageQueue("orders", maxsize=4096)
    taking = background(queue.get)
    rollback("orders")
    queue.put("found")
    assert taking.result() == "found"

    roll_forward("orders")
    with contextlib.suppress(standard.Full):
        while True:
            queue.put(b"x" * 900, block=False)
    putting = background(lambda: queue.put(b"late" * 225))
    assert putting.is_waiting()
    rollback("orders")
    putting.result()
    while queue.qsize() > 1:
        queue.get()
    assert queue.get() == b"late" * 225


def test_methods_that_somebody_kept_go_on() -> None:
    queue, threads = SageQueue("orders"), create_queue("python", name="orders")
    kept = [(queue.put, queue.get), (threads.put, threads.get)]
    for move in (roll_forward, rollback, roll_forward):
        move("orders")
        for _ in range(3):
            for put, get in kept:
                put("found")
                assert get() == "found"

    assert len(queue._line.queues) == 1
    assert kind(queue) == "sage_queue"


def test_handles_of_descriptors_find_their_way_through_any_number_of_moves() -> None:
    queue = SageQueue("orders")
    direct = queue.descriptor.attach()
    for move in (roll_forward, rollback, roll_forward, rollback):
        move("orders")
    direct.put("from a descriptor")

    assert queue.get(timeout=60) == "from a descriptor"
    queue.put("to a descriptor")
    assert direct.get(timeout=60) == "to a descriptor"
    direct.close()


def test_queues_that_everybody_left_are_removed(compat_folder: Path) -> None:
    queue = SageQueue("orders")
    for _ in range(3):
        roll_forward("orders")
        rollback("orders")
        wait_for(lambda: len(queue._line.queues) == 1 and kind(queue) == "legacy_queue", "the watch went on")
    rollback("orders")
    record = records.read(queue.name)

    assert record is not None
    assert len(record.chain) <= 3
    assert len(list((compat_folder / "queues").glob("*~lock"))) <= 2


def test_a_timeout_counts_on_through_a_move() -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    started = time.monotonic()
    taking = background(lambda: queue.get(timeout=0.3))
    rollback("orders")

    with pytest.raises(standard.Empty, match="timed out"):
        taking.result()
    assert time.monotonic() - started >= 0.3


def test_queues_between_threads_go_over_too() -> None:
    set_mode("descriptor")
    queue = create_queue("python", name="orders", maxsize=3)
    queue.put(1)
    taking = create_queue("python", name="orders")
    waiting = background(taking.get)

    rollback("orders")
    wait_for(lambda: not queue._queue.is_new and not taking._queue.is_new, "both noticed")
    queue.put(2)
    taking.put("found")

    assert (queue.descriptor, queue.get_stats()["size"]) == (None, 2)
    assert [queue.get(), queue.get(), waiting.result()] == [1, 2, "found"]


def echo(names: tuple[str, str], count: int) -> None:
    source, target = (SageQueue(name) for name in names)
    for _ in range(count):
        target.put(source.get(timeout=60))


@pytest.mark.parametrize("context", [FORK, SPAWN], ids=["fork", "spawn"])
def test_other_processes_go_over_with_us(context: Any) -> None:
    there, back = SageQueue("there"), SageQueue("back")
    child = context.Process(target=echo, args=(("there", "back"), 300))
    child.start()
    for number in range(300):
        there.put(number)
        if number % 50 == 25:
            roll_forward("*") if number % 100 == 25 else rollback("*")

    assert [back.get(timeout=60) for _ in range(300)] == list(range(300))
    child.join()
    assert child.exitcode == 0


def test_processes_in_different_modes_share_one_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    there, back = SageQueue("there"), SageQueue("back")
    monkeypatch.setenv("SAGE_COMPAT_MODE", "descriptor")
    child = SPAWN.Process(target=echo, args=(("there", "back"), 20))
    child.start()
    for number in range(20):
        there.put(number)

    assert [back.get(timeout=60) for _ in range(20)] == list(range(20))
    child.join()


def test_what_a_process_left_before_the_move_is_not_lost() -> None:
    def leave() -> None:
        SageQueue("orders").put("from a child")

    queue = SageQueue("orders")
    roll_forward("*")
    child = FORK.Process(target=leave)
    child.start()
    child.join()
    rollback("*")

    assert queue.get(timeout=60) == "from a child"


# -- A new way that is broken ------------------------------------------------------------------------------------------


def test_no_room_for_the_seal_still_goes_over_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put(1)
    waiting_elsewhere = SageQueue("empty")
    taking = background(waiting_elsewhere.get)

    def full(*_: Any, **__: Any) -> None:
        raise QueueNoSpaceError(wanted=4096, free=0)

    monkeypatch.setattr(migration, "_sealed", full)
    done = rollback("*")
    queue.put(2)
    waiting_elsewhere.put("found")

    assert done.failed == {}
    assert done.not_moved == []
    assert sorted(flip.moved for flip in done.flips) == [0, 1]
    assert kind(queue) == "legacy_queue"
    assert [queue.get(), queue.get(), taking.result()] == [1, 2, "found"]


def is_left(queue: SageQueue) -> bool:
    """Whether the ring can no longer be put into, or something else is put into already."""
    ring = queue._line.sink
    try:
        return ring.closed or ring.is_shutdown or isinstance(ring, FileQueue)
    except SageQueueError:
        return True


@pytest.mark.parametrize("damaged_bytes", [64, 4096])
def test_a_damaged_ring_is_left_at_once_and_told(damaged_bytes: int) -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put("before")
    path = queue.get_shared_memory_info()["shm_path"]
    with open(path, "r+b") as file:
        file.write(b"\xff" * damaged_bytes)

    done = rollback("orders")
    (flip,) = done.not_moved
    wait_for(lambda: is_left(queue), "the watch left the damaged ring")
    assert queue.qsize() <= 1
    queue.put("after")
    found = [queue.get()]
    if found == ["before"]:
        found.append(queue.get())

    assert found[-1] == "after"
    assert flip.after == "legacy_queue"
    assert flip.not_moved["messages"] == "unknown"
    assert "Incompatible" in flip.not_moved["reason"] or "Corrupt" in flip.not_moved["reason"]
    Path(path).unlink(missing_ok=True)


@pytest.mark.parametrize("has_gone_on", [False, True])
def test_a_ring_that_is_damaged_while_it_is_drained_is_told_to_its_consumers_and_led_past(has_gone_on: bool) -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put("lost")
    path = queue.get_shared_memory_info()["shm_path"]
    rollback("orders")
    if has_gone_on:
        queue.put("after")
    with open(path, "r+b") as file:
        file.seek(640)  # the tail
        file.write(b"\xff" * 8)
    with pytest.raises(CorruptQueueError):
        queue.get()

    (flip,) = rollback("orders").not_moved
    if not has_gone_on:
        queue.put("after")

    assert queue.get() == "after"
    assert (flip.after, flip.not_moved["messages"]) == ("legacy_queue", "unknown")
    assert "Corrupt" in flip.not_moved["reason"]
    assert rollback("orders").flips == []
    remove_left(path)


def test_what_waits_before_a_damaged_ring_is_taken_all_the_same() -> None:
    set_mode("legacy")
    queue = SageQueue("orders")
    queue.put("before")
    roll_forward("orders")
    queue.put("lost")
    path = queue.get_shared_memory_info()["shm_path"]
    with open(path, "r+b") as file:
        file.seek(640)  # the tail
        file.write(b"\xff" * 8)

    (flip,) = rollback("orders").not_moved
    queue.put("after")
    record = records.read(queue.name)
    line = lines.NamedLine(record) if record else None  # as a process that comes now
    assert line is not None
    taken = line.source.get_nowait()
    next_queue = line.next_source(line.source, raised_by(line.source.get_nowait))

    assert taken == "before"
    assert next_queue.get_nowait() == "after"
    assert flip.not_moved["messages"] == "unknown"
    line.close()
    remove_left(path)


def remove_left(path: str) -> None:
    """Remove a damaged ring, which nobody else does, and where it was moved to."""
    for each in Path(path).parent.glob(f"{Path(path).name}*"):
        each.unlink()


def raised_by(call: Callable[[], object]) -> Exception:
    try:
        call()
    except SageQueueError as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_ring_whose_file_is_gone_is_drained_by_those_who_have_it_open() -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put(1)
    os.unlink(queue.get_shared_memory_info()["shm_path"])

    done = rollback("orders")
    wait_for(lambda: queue._line.sink.is_shutdown or kind(queue) == "legacy_queue", "the watch looked")
    queue.put(2)

    assert done.not_moved[0].not_moved["reason"] == "its files are gone"
    assert kind(queue) == "legacy_queue"
    assert [queue.get(), queue.get()] == [1, 2]


def test_where_no_ring_can_be_made_everything_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = SageQueue("orders")
    queue.put(1)
    from sage_qd import BackendUnavailableError, SageQueueDescriptor

    def missing(self: Any, **_: Any) -> None:
        raise BackendUnavailableError(backend="sage_queue", missing="Linux", install="get one")

    monkeypatch.setattr(SageQueueDescriptor, "_opened_ring", missing)
    done = roll_forward("orders")
    queue.put(2)

    assert "Linux" in next(iter(done.failed.values()))
    assert kind(queue) == "legacy_queue"
    assert [queue.get(), queue.get()] == [1, 2]
    with pytest.warns(UserWarning, match="stays on the way it takes"):
        set_mode("descriptor", "bills")
    with pytest.warns(UserWarning, match="takes the old path"):
        assert kind(SageQueue("bills")) == "legacy_queue"


# -- Killed at every step ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("is_new", [True, False], ids=["roll-forward", "rollback"])
def test_a_move_that_is_killed_at_any_step_is_all_old_or_all_new(is_new: bool) -> None:
    queue = SageQueue("orders")
    step, number, ends = 1, 0, set()
    while True:
        flip(queue.name, is_new=not is_new)
        queue.put(number)
        child = FORK.Process(target=flip_and_die, args=(queue.name, is_new, step))
        child.start()
        child.join()
        queue.put(number + 1)
        opened_anew = kind_in_record(queue.name)

        assert kind(queue) == opened_anew
        assert [queue.get_nowait(), queue.get_nowait()] == [number, number + 1]
        ends.add(opened_anew)
        number += 2
        if child.exitcode == 0:
            break
        step += max(1, step // 12)

    assert ends == {"legacy_queue", "sage_queue"}


def kind_in_record(full_name: str) -> str:
    """Where somebody who opens the name now would put."""
    record = records.read(full_name)
    assert record is not None
    for descriptor in record.descriptors:
        with contextlib.suppress(FileNotFoundError), records.attached(descriptor) as queue:
            if not records.ended(queue):
                return descriptor.queue_type
    return "none"


def test_the_result_is_a_document() -> None:
    set_mode("descriptor")
    SageQueue("orders").put(1)

    document = json.loads(json.dumps(rollback("orders").as_dict()))

    assert document["schema"] == "sage-compat.rolled/1"
    assert document["flips"][0]["moved"] == 1


def test_records_and_rings_are_gone_with_the_last_user(compat_folder: Path) -> None:
    set_mode("descriptor")
    queue = SageQueue("orders")
    queue.put(1)
    rollback("*")
    roll_forward("*")
    full_name = queue.name
    queue._line.close()

    assert list((compat_folder / "records").glob("*orders*")) == []
    assert list((compat_folder / "queues").iterdir()) == []
    assert list((ring.directory() / records.NAMESPACE).glob(f"{full_name}*")) == []


FULL = """
import os
from sage_compat import SageQueue, rollback, set_mode
set_mode("descriptor")
queue = SageQueue("orders", maxsize=4096)
queue.put(1)
with open("/dev/shm/filler", "wb", buffering=0) as filler:
    try:
        while filler.write(b"x" * 4096):
            pass
    except OSError as error:
        print(error.errno)
done = rollback("*")
queue.put(2)
print(queue.get(), queue.get(), queue.descriptor.queue_type, done.failed, len(done.not_moved))
"""


def test_a_file_system_of_the_rings_that_is_full_does_not_keep_anybody_there() -> None:
    prefix = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("namespaces cannot be made here")
    mount = 'mount -t tmpfs -o size=512k tmpfs /dev/shm && exec "$0" -c "$1"'

    ran = subprocess.run([*prefix, mount, sys.executable, FULL], capture_output=True, text=True, timeout=120)

    assert ran.stdout == f"{errno.ENOSPC}\n1 2 legacy_queue {{}} 0\n", ran.stderr


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"no page", None], ids=["cut", "largest", "text", "gone"])
def test_a_damaged_control_page_ends_nobody_and_the_next_decision_is_noticed(
    damage: bytes | None, compat_folder: Path
) -> None:
    set_mode("legacy")
    between_threads = create_queue("python_queue", name="threads")
    queue = SageQueue("orders")
    roll_forward()
    page = compat_folder / "control"

    if damage is None:
        page.unlink()
    else:
        page.write_bytes(damage)
    rollback()

    wait_for(lambda: not between_threads._queue.is_new, "the watch notices")
    roll_forward()
    wait_for(lambda: between_threads._queue.is_new, "the watch notices")
    assert kind(queue) == "sage_queue"
