"""Programs with queues and descriptors that a strict type checker must accept; run by mypy only."""

from typing import Any, assert_type

from sage_qd import (
    BaseQueueDescriptor,
    Capabilities,
    LocalQueue,
    LocalQueueDescriptor,
    Queue,
    QueueServer,
    QueueStats,
    RPCQueue,
    RPCQueueDescriptor,
    SageQueue,
    SageQueueDescriptor,
    Setting,
    known_queue_types,
    register_queue_type,
    resolve_descriptor,
)


def use_a_typed_queue() -> None:
    queue = LocalQueue[tuple[int, str]](maxsize=3)
    queue.put((1, "one"))
    queue.put((2, "two"), timeout=0.5)
    assert_type(queue.put_many([(3, "three")]), int)
    assert_type(queue.get(), tuple[int, str])
    assert_type(queue.get_many(10, timeout=0), list[tuple[int, str]])
    with queue.lease() as lease:
        assert_type(lease.value, tuple[int, str])
        assert_type(lease.redelivered, bool)
    for message in queue:
        assert_type(message, tuple[int, str])
    assert_type(queue.shutdown(immediate=True), int)


def use_any_queue(queue: Queue[bytes]) -> bytes:
    with queue:
        stats: QueueStats = queue.stats()
        capabilities: Capabilities = queue.capabilities
        return bytes(stats.depth) if capabilities.lease else queue.get(block=False)


def use_descriptors() -> None:
    sage = SageQueueDescriptor("jobs", maxsize=1000, codec="msgpack")
    assert_type(sage.open(), SageQueue[Any])
    assert_type(sage.derive("others"), SageQueueDescriptor)
    assert_type(SageQueueDescriptor.from_json(sage.to_json()), SageQueueDescriptor)
    shipped = SageQueueDescriptor(1000, False, None, True, "jobs")
    local = LocalQueueDescriptor(10, False, "jobs")
    anything: BaseQueueDescriptor = local.to_serializable_descriptor()
    kinds: set[BaseQueueDescriptor] = {sage, shipped, local, anything}
    assert_type(resolve_descriptor({"queue_id": "q", "queue_type": "sage"}), BaseQueueDescriptor)
    assert_type(BaseQueueDescriptor.from_uri("sage://default/jobs"), BaseQueueDescriptor)
    assert_type(sage.put_many([1, 2]), int)
    assert_type(known_queue_types(), list[str])
    assert_type(len(kinds), int)


class TheirDescriptor(BaseQueueDescriptor):
    """A kind of somebody else's."""

    queue_type = "their_queue"
    can_serialize = True
    settings = (Setting(name="lanes", type=int, default=1, low=1),)

    lanes: int

    def _open_queue(self, create: bool) -> LocalQueue[Any]:
        return LocalQueue.open(self.queue_id, self.lanes, create=create)


register_queue_type("their_queue", TheirDescriptor)


def use_a_queue_at_a_server() -> None:
    with QueueServer({"jobs": SageQueueDescriptor("jobs", codec="msgpack")}) as server:
        descriptor = RPCQueueDescriptor("127.0.0.1", server.port, 5.0, queue_id="jobs")
        assert_type(descriptor.open(), RPCQueue[Any])
        with descriptor.attach() as queue:
            with queue.pipeline() as line:
                line.put(b"message")
                assert_type(line.acknowledged, int)
            for message in queue.stream():
                assert_type(message, Any)
        assert_type(descriptor.get_connection_status(), dict[str, Any])
