"""The list of queues: true names, who is there, and one schema for all kinds."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from sage_qd import LocalQueue, QueueFigures, SageQueueDescriptor
from sage_qd.monitor import QueueState, queue_states, register_source, sources, state_of
from sage_qd.monitor.processes import flocked_files
from sage_qd.ring import Ring, clean_segments, directory

pytestmark = pytest.mark.timeout(60)


def only(namespace: str) -> QueueState:
    """The state of the one queue there is."""
    (state,) = queue_states(namespace)
    return state


@pytest.mark.parametrize("queue_id", ["jobs", "结果", "a/b c", "e--not", "x" * 100])
def test_queues_have_the_names_that_users_gave(namespace: str, queue_id: str) -> None:
    queue = SageQueueDescriptor(queue_id, namespace=namespace, maxsize=5).open()

    state = only(namespace)

    assert (state.kind, state.queue_id, state.namespace) == ("sage_queue", queue_id, namespace)
    assert (state.where, state.instance) == (queue.ring.path, queue.instance)
    assert (state.capacity_items, state.capacity_bytes) == (5, 1 << 20)
    queue.close()


def test_namespaces_have_the_names_that_users_gave() -> None:
    namespace = f"名 {os.getpid()}"
    with SageQueueDescriptor("jobs", namespace=namespace).open():
        assert only(namespace).namespace == namespace
    assert queue_states(namespace) == []


def test_figures_are_those_of_the_queue(namespace: str) -> None:
    with SageQueueDescriptor("jobs", namespace=namespace).open() as queue:
        queue.put_many([1, 2, 3])
        queue.get()
        stats = queue.stats()

        figures = only(namespace).figures

        assert figures is not None
        assert (figures.puts, figures.gets, figures.depth) == (3, 1, 2)
        assert figures.bytes_put == stats.bytes_put


def test_json_form_has_the_same_members_for_every_kind(namespace: str) -> None:
    local = LocalQueue[int].open("local", 3)
    with SageQueueDescriptor("jobs", namespace=namespace).open():
        documents = [
            only(namespace).as_dict(),
            state_of(local, kind="local_queue", queue_id="local").as_dict(),
            QueueState(kind="k", queue_id="q", namespace="", where="", in_use=None).as_dict(),
        ]
    local.close()

    assert {tuple(document) for document in documents} == {
        (
            *("kind", "queue_id", "namespace", "where", "in_use", "kept", "instance"),
            *("capacity_items", "capacity_bytes", "problem", "stats"),
        )
    }
    assert [set(document["stats"]) for document in documents[:2]] == [{each.name for each in fields(QueueFigures)}] * 2
    assert json.loads(json.dumps(documents)) == documents


def test_use_is_seen_from_outside(namespace: str, start: Callable) -> None:
    process = start("""
ring = create("ring", namespace=sys.argv[1])
say("ready")
hear()
""")
    process.hear()
    used = only(namespace).in_use
    process.kill()

    assert (used, only(namespace).in_use) == (True, False)
    clean_segments(namespace)


def test_kept_queues_are_marked(namespace: str) -> None:
    descriptor = SageQueueDescriptor("jobs", namespace=namespace, auto_cleanup=False)
    descriptor.open().close()

    state = only(namespace)

    assert (state.in_use, state.kept) == (False, True)
    descriptor.trim()
    descriptor.destroy()


def test_listing_takes_no_lock(ring: Ring, namespace: str, start: Callable) -> None:
    """The lister is stopped at random moments; the last user goes, and takes the segment along every time."""
    lister = start("""
from sage_qd.monitor import queue_states
say("ready")
while True:
    queue_states(sys.argv[1])
""")
    lister.hear()
    path = Path(ring.path or "")
    found = os.stat(path)
    for _ in range(50):
        assert (found.st_dev, found.st_ino) in flocked_files()
    ring.close()

    assert not path.exists()


def test_damaged_and_foreign_files_are_listed_with_their_problem(ring: Ring, namespace: str) -> None:
    folder = Path(directory(), namespace)
    (folder / "text").write_text("no segment")
    (folder / "text").chmod(0o600)
    (folder / "open").write_bytes(Path(ring.path or "").read_bytes())
    (folder / "open").chmod(0o666)

    states = {state.queue_id: state for state in queue_states(namespace)}

    assert "file size" in (states["text"].problem or "")
    assert "lets others in" in (states["open"].problem or "")
    assert states["text"].figures is states["open"].figures is None
    assert states["ring"].problem is None
    (folder / "text").unlink()
    (folder / "open").unlink()


def test_a_queue_that_was_shut_down_says_so(ring: Ring, namespace: str) -> None:
    ring.shutdown()

    assert only(namespace).problem == "shut down"


@pytest.fixture
def other_kind() -> Iterator[str]:
    kind = "kind of others"
    yield kind
    sources._SOURCES.pop(kind, None)


def test_other_kinds_are_listed_by_their_source(namespace: str, ring: Ring, other_kind: str) -> None:
    def source(namespace: str | None) -> list[QueueState]:
        return [QueueState(kind=other_kind, queue_id="q", namespace=namespace or "", where="far", in_use=None)]

    register_source(other_kind, source)

    assert [state.kind for state in queue_states(namespace)] == [other_kind, "sage_queue"]
    assert [state.kind for state in queue_states(namespace, kinds=["sage_queue"])] == ["sage_queue"]
    with pytest.raises(ValueError, match="source already"):
        register_source(other_kind, lambda _: [])
