"""What a server lets in: garbage, giants, silence and strangers cost one connection and nothing else."""

import os
import pickle
import random
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zmq", reason="needs pip install 'sage-qd[rpc]'")

import zmq

from sage_qd import (
    FrameTooLargeError,
    InsecureQueueError,
    LocalQueueDescriptor,
    MessageTooLargeError,
    ProtocolError,
    QueueMovedError,
    QueueServer,
    QueueUnavailableError,
    RPCQueueDescriptor,
    SageQueueDescriptor,
    ServerLimits,
    ShutDown,
    allow_hosts,
    errors,
    generate_keys,
    read_allow_list,
    read_key_file,
)
from sage_qd.queues.rpc import hosting, wire
from sage_qd.queues.rpc import keys as rpc_keys
from sage_qd.queues.rpc.faults import fault_of, raised
from sage_qd.testing import background, wait_for


def make(name: str, maxsize: int) -> LocalQueueDescriptor:
    return LocalQueueDescriptor(f"rpc-server-{name}", maxsize=maxsize)


@pytest.fixture
def server() -> Iterator[QueueServer]:
    with QueueServer(make=make) as made:
        yield made


class Raw:
    """A client that says what it likes, frame by frame."""

    def __init__(self, port: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def say(self, *entries: Any, done: int = 0) -> None:
        self.send(wire.pack(wire.Requests(done, [], list(entries))))

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def hello(self, client: bytes = b"c" * 16) -> Any:
        self.say(wire.Hello(wire.VERSION, client, False))
        return self.hear()

    def hear(self) -> Any:
        assert self._socket.poll(60_000), "the server says nothing"
        answer = wire.unpack_answers(self._socket.recv(), "the server").entries[0]
        return self.hear() if isinstance(answer, wire.Pong) else answer

    def close(self) -> None:
        self._socket.close()
        self._context.term()


@pytest.fixture
def raw(server: QueueServer) -> Iterator[Raw]:
    made = Raw(server.port)
    yield made
    made.close()


def serves(server: QueueServer) -> bool:
    """Whether a good client is served."""
    with RPCQueueDescriptor("good", port=server.port, enable_pooling=False).open() as queue:
        queue.put("still there")
        return bool(queue.get() == "still there")


# -- Frames ------------------------------------------------------------------------------------------------------------


def test_a_frame_survives_packing() -> None:
    entries: list[Any] = [
        wire.Hello(1, b"c" * 16, True),
        wire.OpenHandle(1, "名", True, 5, "msgpack", None),
        wire.Put(2, 1, [b"raw", (2, b"\x01")], None),
        wire.Take(3, 1, 5, 0, wire.TRY, 0.5, False),
        wire.Settle(4, 1, 3, 2),
        wire.Ask(5, 1, "shutdown", True),
        wire.Wait(6, 1, True, 1.5),
        wire.Cancel(6),
        wire.CloseHandle(7, 1),
        wire.Ping(),
    ]

    again = wire.unpack_requests(wire.pack(wire.Requests(3, [5, 9], entries)), "us")

    assert (again.done, again.ended, again.entries) == (3, [5, 9], entries)


@pytest.mark.parametrize(
    "frame", [b"", b"\xc1", b"\x92\x01", b"\x92\x00\x91\x91\x63", b"\x91" * 5000, b"\xdf" + b"\xff" * 8]
)
def test_what_is_no_frame_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.unpack_requests(frame, "somebody")
    with pytest.raises(ProtocolError):
        wire.unpack_answers(frame, "somebody")


def test_a_frame_beyond_the_limit_is_not_looked_at() -> None:
    with pytest.raises(FrameTooLargeError) as caught:
        wire.unpack_requests(b"\x91" * 101, "somebody", limit=100)

    assert (caught.value.size, caught.value.limit) == (101, 100)


@pytest.mark.parametrize(
    "error",
    [
        errors.Empty("nothing"),
        errors.Full("no room"),
        ShutDown("over"),
        QueueMovedError(name="a", successor="{}"),
        MessageTooLargeError(size=2, limit=1),
        errors.GeometryMismatchError(name="a", wanted={"maxsize": 1}, found={"maxsize": 2}),
        errors.UntrustedPayloadError(codec="pickle", allowed=["raw"]),
        errors.FencedError(pid=1, epoch=2),
        ValueError("no"),
    ],
)
def test_an_exception_arrives_as_its_class_with_its_values(error: Exception) -> None:
    again = raised(*fault_of(error), "the server")

    assert type(again) is type(error)
    assert str(again) == str(error)


@pytest.mark.parametrize(
    "fault", [("SystemExit", {}), ("FencedError", {"pid": 1}), ("__all__", {}), ("Full", {"text": []})]
)
def test_an_exception_that_cannot_be_is_a_protocol_error_or_harmless(fault: tuple[str, dict[str, Any]]) -> None:
    assert isinstance(raised(*fault, "the server"), ProtocolError | errors.Full)


# -- Sessions ----------------------------------------------------------------------------------------------------------


def test_garbage_ends_the_session_of_its_sender_only(server: QueueServer, raw: Raw) -> None:
    raw.hello()

    raw.send(b"\xc1 garbage")

    assert raw.hear().fault == "ProtocolError"
    assert serves(server)


def test_who_does_not_say_hello_is_told_so(server: QueueServer, raw: Raw) -> None:
    for entry in (
        wire.Ping(),
        wire.Put(1, 1, [b"x"], None),
        wire.Hello(99, b"c" * 16, False),
        wire.Hello(1, b"", False),
    ):
        raw.say(entry)
        assert raw.hear().fault == "ProtocolError"


def test_a_request_is_carried_out_once_however_often_it_is_sent(server: QueueServer, raw: Raw) -> None:
    raw.hello()
    raw.say(wire.OpenHandle(1, "once", True, 0, "msgpack", None))
    handle = raw.hear().value["handle"]

    for _ in range(3):
        raw.say(wire.Put(2, handle, [b"x"], None))
        assert raw.hear() == wire.Done(2, 1)
    raw.say(wire.Put(2, handle, [b"x"], None), wire.Ask(3, handle, "qsize", None), done=3)

    assert raw.hear() == wire.Done(3, 1)


def test_a_repeated_take_gets_the_same_message(server: QueueServer, raw: Raw) -> None:
    raw.hello()
    raw.say(wire.OpenHandle(1, "same", True, 0, "msgpack", None))
    handle = raw.hear().value["handle"]
    raw.say(wire.Put(2, handle, [b"a", b"b"], None))
    raw.hear()
    raw.say(wire.Take(3, handle, 1, 0, None, 0, False))
    first = raw.hear()

    raw.say(wire.Take(3, handle, 1, 0, None, 0, False))

    assert raw.hear() == first


@pytest.mark.parametrize(
    "made", [LocalQueueDescriptor("many"), SageQueueDescriptor("many", codec="msgpack")], ids=["memory", "ring"]
)
def test_what_one_take_leased_is_settled_together(made: Any) -> None:
    items: list[Any] = [b"a", (2, b"\x01"), b"c"]
    with QueueServer({"many": made}) as server:
        raw = Raw(server.port)
        raw.hello()

        def asked(request: Any) -> Any:
            raw.say(request)
            return raw.hear()

        handle = asked(wire.OpenHandle(1, "many", False, 0, "msgpack", None)).value["handle"]
        asked(wire.Put(2, handle, items, None))
        assert asked(wire.Take(3, handle, 9, 0, None, 0, False)) == wire.Taken(3, 1, [], items)

        asked(wire.Settle(4, handle, 1, 1))
        asked(wire.Put(5, handle, [b"d"], None))

        assert asked(wire.Take(6, handle, 9, 0, None, 0, False)) == wire.Taken(6, 2, [1, 1, 0], [*items[1:], b"d"])
        assert asked(wire.Settle(7, handle, 1, 1)).fault == "FencedError"
        assert asked(wire.Settle(8, handle, 2, 4)).fault == "ProtocolError"
        raw.close()


def test_a_take_that_was_given_up_takes_nothing(server: QueueServer, raw: Raw) -> None:
    raw.hello()
    raw.say(wire.OpenHandle(1, "given-up", True, 0, "msgpack", None))
    handle = raw.hear().value["handle"]
    raw.say(wire.Take(2, handle, 1, 0, None, 0, False))
    raw.say(wire.Cancel(2))
    assert raw.hear().fault == "QueueUnavailableError"

    raw.say(wire.Put(3, handle, [b"stays"], None), wire.Ask(4, handle, "stats", None))

    assert raw.hear() == wire.Done(3, 1)


def test_verbs_that_are_none_and_foreign_handles_do_no_harm(server: QueueServer, raw: Raw) -> None:
    raw.hello()
    raw.say(wire.Ask(1, 77, "qsize", None))
    assert raw.hear().fault == "QueueClosedError"
    raw.say(wire.OpenHandle(2, "verbs", True, 0, "msgpack", None))
    handle = raw.hear().value["handle"]
    raw.say(wire.Settle(3, handle, 12345, 1))
    assert raw.hear().fault == "FencedError"

    raw.say(wire.Ask(4, handle, "__class__", None))

    assert raw.hear().fault == "ProtocolError"
    assert serves(server)


def test_more_clients_than_allowed_are_sent_away() -> None:
    with QueueServer(make=make, limits=ServerLimits(sessions=1)) as server:
        one, other = Raw(server.port), Raw(server.port)
        one.hello(b"1" * 16)

        assert other.hello(b"2" * 16).fault == "QueueUnavailableError"

        one.close()
        other.close()


def test_a_client_has_its_share_of_memory() -> None:
    with QueueServer(make=make, limits=ServerLimits(client_bytes=1000)) as server:
        queue = RPCQueueDescriptor("share", port=server.port, enable_pooling=False).open()

        with pytest.raises(QueueUnavailableError, match="1,000 bytes"):
            queue.put(b"x" * 2000)

        queue.close()


def test_a_silent_client_is_taken_for_dead_and_its_leases_come_back() -> None:
    with QueueServer(make=make, limits=ServerLimits(dead_seconds=6)) as server:
        silent = Raw(server.port)
        silent.hello()
        silent.say(wire.OpenHandle(1, "silent", True, 0, "msgpack", None))
        handle = silent.hear().value["handle"]
        queue = RPCQueueDescriptor("silent", port=server.port, enable_pooling=False).open()
        queue.put("held")
        silent.say(wire.Take(2, handle, 1, 0, None, 0, False))
        silent.hear()

        with queue.lease() as lease:  # this client pings while it waits
            assert lease.redelivered

        queue.close()
        silent.close()


@pytest.mark.parametrize("number", [0, -1])
def test_a_request_without_a_number_ends_its_session(server: QueueServer, raw: Raw, number: int) -> None:
    raw.hello()
    raw.say(wire.OpenHandle(1, "good", True, 0, "msgpack", None))
    raw.hear()

    raw.say(wire.Take(number, 1, 1, 0, None, 0, False))

    assert raw.hear().fault == "ProtocolError"
    assert serves(server)


def test_a_call_that_waits_does_not_keep_the_answers_of_those_after_it() -> None:
    with QueueServer(make=make, limits=ServerLimits(in_flight=8)) as server:
        queue = RPCQueueDescriptor("busy", port=server.port).open()
        idle = RPCQueueDescriptor("idle", port=server.port).open()
        waiting = background(idle.get)
        for number in range(100):
            queue.put(number)

        assert queue.connection_status()["connections"] == 1
        idle.put("at last")
        assert waiting.result() == "at last"
        queue.close()
        idle.close()


def test_a_lease_that_cannot_be_given_back_ends_no_other_queue() -> None:
    with QueueServer(make=make) as far:
        up = RPCQueueDescriptor("up", port=far.port, connection_timeout=0.5, enable_pooling=False)
        with QueueServer({"up": up, "good": LocalQueueDescriptor("rpc-server-good")}) as near:
            queue = RPCQueueDescriptor("up", port=near.port, enable_pooling=False).open()
            queue.put("leased")
            lease = queue.lease()
            far.stop()

            queue._connection.close()  # as if the client had died
            wait_for(lambda: not near._sessions, "its session has ended")

            assert serves(near)
            assert not lease.settled
            queue.close()


def test_a_message_beyond_the_frame_limit_is_refused_before_it_is_sent() -> None:
    with QueueServer(make=make, limits=ServerLimits(largest_frame=100_000)) as server:
        queue = RPCQueueDescriptor("large", port=server.port, enable_pooling=False).open()

        with pytest.raises(MessageTooLargeError) as caught:
            queue.put(b"x" * 100_000)

        assert caught.value.limit < 100_000
        queue.put(b"x" * 90_000)
        assert len(queue.get()) == 90_000
        queue.close()


def test_a_giant_frame_ends_its_connection_only(server: QueueServer) -> None:
    with QueueServer(make=make, limits=ServerLimits(largest_frame=100_000)) as server:
        giant = Raw(server.port)
        giant.hello()
        giant.send(b"x" * 5_000_000)

        assert serves(server)
        giant.close()


@pytest.mark.parametrize("first", [b"", b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"])
def test_hundreds_of_silent_connections_do_not_hold_up_a_good_client(server: QueueServer, first: bytes) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(300)]
    for each in silent:
        each.sendall(first)

    assert serves(server)

    for each in silent:
        each.close()


def test_random_frames_do_no_harm(server: QueueServer) -> None:
    random_bytes = random.Random(7)
    good = wire.pack(wire.Requests(0, [], [wire.Hello(1, b"h" * 16, False), wire.Put(1, 1, [b"x"], None)]))
    fuzzer = Raw(server.port)
    for _ in range(2000):
        frame = bytearray(good)
        for _ in range(random_bytes.randrange(4)):
            frame[random_bytes.randrange(len(frame))] = random_bytes.randrange(256)
        fuzzer.send(bytes(frame[: random_bytes.randrange(len(frame) + 1)]))

    assert serves(server)
    fuzzer.close()


WATCHED = """
import sys
from sage_qd import LocalQueueDescriptor, read_key_file, read_allow_list, serve

loads = []
sys.addaudithook(lambda event, _: loads.append(event) if event == "pickle.find_class" else None)
serve(
    make=lambda name, maxsize: LocalQueueDescriptor(name, maxsize=maxsize),
    keys=read_key_file(sys.argv[1]), clients=read_allow_list(sys.argv[2]), allow_pickle=True,
    ready=lambda server: print(server.port, flush=True),
)
print("unpickled", len(loads), "pickle" in sys.modules and "zmq" in sys.modules)
"""


def test_a_server_passes_pickles_on_and_opens_none(tmp_path: Path) -> None:
    keys = generate_keys(tmp_path / "server")
    generate_keys(tmp_path / "client")
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED, tmp_path / "server", tmp_path / "client.pub"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    fuzzer = Raw(port)  # has no key: what it sends is not even looked at
    fuzzer.send(pickle.dumps(Path()))
    queue = RPCQueueDescriptor(
        "q",
        port=port,
        server_key=keys.public,
        key_file=str(tmp_path / "client"),
        codec="pickle",
        allow_pickle=True,
        enable_pooling=False,
    ).open()

    queue.put(Path("somewhere"))

    assert queue.peek() == queue.get() == Path("somewhere")
    queue.close()
    fuzzer.close()
    process.terminate()
    assert process.stdout.read().startswith("unpickled 0")
    assert process.wait(60) == 0
    process.stdout.close()


# -- Who may do what ---------------------------------------------------------------------------------------------------


def test_a_server_does_not_bind_beyond_this_machine_without_keys_and_list(tmp_path: Path) -> None:
    keys = generate_keys(tmp_path / "server")
    for settings in ({}, {"keys": keys}):
        with pytest.raises(ValueError, match="reached from other hosts"):
            QueueServer(host="0.0.0.0", **settings)
    with pytest.raises(ValueError, match="needs a key"):
        QueueServer(clients=[keys.public])
    with pytest.raises(ValueError, match="allow_pickle"):
        QueueServer(keys=keys, allow_pickle=True)

    QueueServer(host="0.0.0.0", keys=keys, clients=[keys.public]).start().stop()
    QueueServer(host="0.0.0.0", insecure=True).start().stop()


def test_an_address_that_is_taken_is_told(server: QueueServer) -> None:
    with pytest.raises(QueueUnavailableError, match="cannot listen"):
        QueueServer(port=server.port)


def test_key_files_are_secret_and_whole(tmp_path: Path) -> None:
    keys = generate_keys(tmp_path / "key")

    assert stat.S_IMODE(os.stat(tmp_path / "key").st_mode) == 0o600
    assert read_key_file(tmp_path / "key") == keys
    assert read_allow_list(tmp_path / "key.pub") == {keys.public}
    assert keys.secret not in repr(keys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.pub"]
    with pytest.raises(FileExistsError):
        generate_keys(tmp_path / "key")


def test_key_files_that_others_may_read_are_refused(tmp_path: Path) -> None:
    generate_keys(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(InsecureQueueError, match="others"):
        read_key_file(tmp_path / "key")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(OSError, match="symbolic"):
        read_key_file(tmp_path / "link")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InsecureQueueError, match="regular"):
        read_key_file(tmp_path / "pipe")


def test_what_is_no_key_file_is_refused_without_showing_it(tmp_path: Path) -> None:
    keys, other = generate_keys(tmp_path / "key"), generate_keys(tmp_path / "other")
    bad = tmp_path / "bad"
    for text in ("", "secret = short\npublic = x\n", f"public = {other.public}\nsecret = {keys.secret}\n", keys.secret):
        bad.write_text(text)
        bad.chmod(0o600)
        with pytest.raises(ValueError, match=r"key") as caught:
            read_key_file(bad)
        assert keys.secret not in str(caught.value)


def test_keys_come_from_the_environment_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = generate_keys(tmp_path / "key")
    monkeypatch.setenv("THE_KEY", keys.secret)

    assert rpc_keys.key_from_environment("THE_KEY") == keys
    monkeypatch.setenv("THE_KEY", "no key")
    with pytest.raises(ValueError, match="THE_KEY") as caught:
        rpc_keys.key_from_environment("THE_KEY")
    assert "no key" not in str(caught.value)
    with pytest.raises(ValueError, match="not set"):
        rpc_keys.key_from_environment("NO_SUCH_KEY")


def test_allow_lists_name_the_line_that_is_wrong(tmp_path: Path) -> None:
    keys = generate_keys(tmp_path / "key")
    (tmp_path / "list").write_text(f"# workers\n{keys.public} # the first\n\n")
    assert read_allow_list(tmp_path / "list") == {keys.public}
    (tmp_path / "list").write_text("# workers\nnobody\n")

    with pytest.raises(ValueError, match="line 2"):
        read_allow_list(tmp_path / "list")


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_loopback_is_recognised(host: str, is_loopback: bool) -> None:
    assert rpc_keys.is_loopback(host) is is_loopback


def test_hosts_can_be_allowed_by_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc_keys, "_allowed_hosts", set())
    allow_hosts("192.0.2.7")

    rpc_keys.check_host("192.0.2.7")
    with pytest.raises(errors.DescriptorError):
        rpc_keys.check_host("192.0.2.8")


# -- Descriptors and rings ---------------------------------------------------------------------------------------------


def test_secrets_are_never_part_of_a_descriptor(tmp_path: Path) -> None:
    keys = generate_keys(tmp_path / "key")
    descriptor = RPCQueueDescriptor("q", server_key=keys.public, key_file=str(tmp_path / "key"))

    for text in (repr(descriptor), descriptor.to_json(), descriptor.to_uri(), repr(pickle.dumps(descriptor))):
        assert keys.secret not in text


def test_the_first_design_s_order_of_arguments_is_kept() -> None:
    descriptor = RPCQueueDescriptor("localhost", 9000, 1.5, 2, False, "q")

    assert descriptor.to_uri() == "rpc://localhost:9000/q?connection_timeout=1.5&enable_pooling=false&retry_count=2"
    assert RPCQueueDescriptor.from_uri(descriptor.to_uri()) == descriptor
    assert RPCQueueDescriptor.from_uri("rpc://%3A%3A1:9000/q").host == "::1"


@pytest.mark.parametrize(
    "settings",
    [
        {"port": 0},
        {"port": 70000},
        {"host": ""},
        {"host": "a/b"},
        {"codec": "pickle"},
        {"allow_pickle": True},
        {"ack": "never"},
        {"server_key": "short"},
        {"connection_timeout": -1.0},
        {"connection_timeout": float("1e9")},
        {"key_file": "a", "key_env": "B"},
    ],
)
def test_impossible_settings_are_value_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        RPCQueueDescriptor("q", **settings)


def test_processes_of_the_host_and_clients_see_the_same_messages(server: QueueServer) -> None:
    ring = SageQueueDescriptor(f"rpc-server-{os.getpid()}", codec="msgpack")
    local = ring.open()
    with QueueServer({"jobs": ring}) as serving:
        remote = RPCQueueDescriptor("jobs", port=serving.port, enable_pooling=False).open()
        local.put_many([b"bytes", {"a": [1]}])
        assert remote.get_many(5) == [b"bytes", {"a": [1]}]
        remote.put_many(["文", b""])
        assert local.get_many(5) == ["文", b""]
        local.put("found without being told")
        wait_for(lambda: remote.qsize() == 1, "the client sees it")

        assert remote.get() == "found without being told"

        remote.close()
    local.close()


def test_a_large_message_waits_for_its_room_without_keeping_the_server_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[float] = []
    changed = hosting.Hosted.changed
    monkeypatch.setattr(hosting.Hosted, "changed", lambda self: (looks.append(time.monotonic()), changed(self))[1])
    ring = SageQueueDescriptor(f"rpc-server-room-{os.getpid()}", codec="msgpack", capacity_bytes=4096)
    local = ring.open()
    with QueueServer({"jobs": ring}) as server:
        remote = RPCQueueDescriptor("jobs", port=server.port, enable_pooling=False).open()
        local.put_many([b"x" * 500] * 100, timeout=0)
        local.get()
        putting = background(remote.put, b"y" * 1000)  # there is room for a small one, so the wait ends again and again
        wait_for(lambda: len(looks) > 5, "the server has looked several times")

        assert looks[-1] - looks[0] >= (len(looks) - 2) * hosting.PAUSE_SECONDS

        local.get()
        local.get()
        putting.result()
        assert local.get_many(100)[-1] == b"y" * 1000
        remote.close()
    local.close()


def test_a_server_hosts_queues_of_any_kind_as_those_of_another_server(server: QueueServer) -> None:
    far = RPCQueueDescriptor("far", port=server.port, enable_pooling=False)
    far.open()
    with QueueServer({"near": far}) as between:
        queue = RPCQueueDescriptor("near", port=between.port, enable_pooling=False).open()
        queue.put_many([b"", b"bytes", {"a": "文"}])
        assert queue.peek() == b""
        with queue.lease() as lease:
            assert lease.value == b""
        assert queue.get_many(5) == [b"bytes", {"a": "文"}]
        assert queue.stats().gets == 3
        queue.shutdown()
        with pytest.raises(ShutDown):
            queue.get()
        queue.close()
    far.close()


def test_a_pipeline_keeps_order_and_tells_what_is_in(server: QueueServer) -> None:
    queue = RPCQueueDescriptor("pipe", port=server.port, enable_pooling=False).open()
    with queue.pipeline(window=64) as line:
        for number in range(5000):
            line.put(number)
    assert line.acknowledged == 5000
    assert [queue.get() for _ in range(3)] == [0, 1, 2]
    assert queue.get_many(10_000) == list(range(3, 5000))
    queue.shutdown()

    def after_the_end() -> None:
        with queue.pipeline() as late:
            late.put("too late")

    with pytest.raises(ShutDown):
        after_the_end()
    with pytest.raises(ValueError, match="window"):
        queue.pipeline(0).__enter__()
    queue.close()


def test_a_stream_hands_out_in_order_and_gives_back_the_rest(server: QueueServer) -> None:
    queue = RPCQueueDescriptor("stream", port=server.port, enable_pooling=False).open()
    queue.put_many(range(1000))
    stream = queue.stream(window=64)
    assert [next(stream) for _ in range(50)] == list(range(50))
    stream.close()
    wait_for(lambda: queue.qsize() == 950, "what was on its way came back")
    assert queue.get() == 50

    queue.shutdown()

    assert list(queue.stream()) == list(range(51, 1000))
    with pytest.raises(ValueError, match="window"):
        queue.stream(window=1)
    queue.close()


def test_stop_gives_back_what_clients_hold(server: QueueServer) -> None:
    ring = SageQueueDescriptor(f"rpc-server-stop-{os.getpid()}", codec="msgpack")
    local: Any = ring.open()
    serving = QueueServer({"jobs": ring}).start()
    remote = RPCQueueDescriptor("jobs", port=serving.port, enable_pooling=False, connection_timeout=0.1).open()
    local.put("held")
    lease: Callable[..., Any] = remote.lease()

    serving.stop()

    assert local.lease().redelivered
    del lease
    remote.close()
    local.close()
