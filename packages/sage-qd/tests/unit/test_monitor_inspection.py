"""One queue in full, by every way to name it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sage_qd import LocalQueueDescriptor, SageQueueDescriptor
from sage_qd.errors import DescriptorError, NotShareableError, QueueNotFoundError
from sage_qd.monitor import inspect_queue
from sage_qd.ring import Ring, clean_segments

pytestmark = pytest.mark.timeout(60)


def test_every_way_to_name_a_queue_leads_to_it(namespace: str) -> None:
    descriptor = SageQueueDescriptor("结果", namespace=namespace)
    with descriptor.open() as queue:
        names = [f"{namespace}/结果", descriptor.to_uri(), descriptor.to_json()]

        found = [inspect_queue(name) for name in names]

        assert [each["instance"] for each in found] == [queue.instance] * 3
        assert [(each["queue_id"], each["namespace"]) for each in found] == [("结果", namespace)] * 3


def test_a_name_alone_must_fit_one_queue(namespace: str) -> None:
    name = f"only-{os.getpid()}"
    with SageQueueDescriptor(name, namespace=namespace).open() as queue:
        assert inspect_queue(name)["instance"] == queue.instance
        with (
            SageQueueDescriptor(name, namespace=namespace + "-2").open(),
            pytest.raises(ValueError, match=f"queues: sage_queue {namespace}/{name}, sage_queue {namespace}-2/{name}"),
        ):
            inspect_queue(name)


@pytest.mark.parametrize("name", ["never-made", "no/where", "sage://never/made", '{"queue_type": "sage_queue"}'])
def test_what_is_not_there_is_an_error(name: str) -> None:
    with pytest.raises((QueueNotFoundError, DescriptorError)):
        inspect_queue(name)


def test_a_queue_of_one_process_cannot_be_seen_from_another() -> None:
    with pytest.raises(NotShareableError, match=r"queue\.stats\(\)"):
        inspect_queue(json.dumps(LocalQueueDescriptor("local").to_dict()))


def test_settings_and_counters_are_shown(namespace: str) -> None:
    descriptor = SageQueueDescriptor("jobs", namespace=namespace, maxsize=9, codec="json", checksum=True)
    with descriptor.open() as queue:
        for _ in range(200):
            queue.put([1, 2])
            queue.get()
        queue.put("left")

        found = inspect_queue(f"{namespace}/jobs")

        assert found["schema"] == "sage-qd.inspection/1"
        assert found["settings"] == {
            "max_items": 9,
            "capacity_bytes": 1 << 20,
            "spill_threshold": queue.ring.spill_threshold,
            "single_producer": False,
            "single_consumer": False,
            "checksum": True,
            "codec": "json",
            "kept": False,
        }
        assert (found["counters"]["puts"], found["counters"]["depth"]) == (201, 1)
        assert found["latency_samples"] == 4
        assert found["latency_ns"]["p50"] == queue.stats().latency_ns(0.5)
        assert json.loads(json.dumps(found)) == found


def test_users_and_holders_are_shown(namespace: str, ring: Ring, start: Callable, eventually: Callable) -> None:
    ring.put_many([b"a", b"b"])
    holder = start("""
ring = attach("ring", namespace=sys.argv[1])
leases = [ring.lease(), ring.lease()]
say("leased")
ring.get()
""")
    holder.hear()

    def waiting() -> dict[str, object] | None:
        found = inspect_queue(f"{namespace}/ring")
        return found if any(each["waits"] for each in found["users"]) else None

    found = eventually(waiting)

    users = {each["pid"]: each["waits"] for each in found["users"]}
    assert users == {os.getpid(): [], holder.pid: [{"tid": holder.pid, "for": "get"}]}
    assert [(each["pid"], each["leases"], each["gone"]) for each in found["participants"]] == [(holder.pid, 2, False)]
    holder.kill()
    assert [each["gone"] for each in inspect_queue(f"{namespace}/ring")["participants"]] == [True]


def test_files_of_large_messages_are_shown(namespace: str, ring: Ring) -> None:
    ring.put(bytes(500_000))

    (file,) = inspect_queue(f"{namespace}/ring")["spill_files"]

    assert file["size_bytes"] == 500_000
    assert Path(file["path"]).exists()


def test_a_damaged_queue_is_shown_with_its_problem(namespace: str, ring: Ring) -> None:
    path = Path(ring.path or "")
    with path.open("r+b") as file:
        file.seek(64)
        file.write(b"\xff")

    found = inspect_queue(f"{namespace}/ring")

    assert found["stats"] is None
    assert "checksum" in found["problem"]
    assert "settings" not in found
    ring.close()
    clean_segments(namespace)
