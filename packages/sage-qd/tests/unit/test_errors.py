"""The exceptions: what they inherit, what they carry, what they say, and that they survive a process boundary."""

import copy
import errno
import inspect
import os
import pickle
import queue
import sys

import pytest

from sage_qd import errors

EXAMPLES = [
    errors.SageQueueError("anything"),
    errors.Empty("nothing within 0.5 s"),
    errors.Full(),
    errors.ShutDown("shut down"),
    errors.QueueClosedError(name="jobs"),
    errors.InvalidQueueNameError(name="../x", rule="it may not hold '/'"),
    errors.QueueExistsError(name="jobs"),
    errors.QueueNotFoundError(name="jobs"),
    errors.QueueNoSpaceError(wanted=4096, free=12),
    errors.GeometryMismatchError(wanted={"capacity_bytes": 8192}, found={"capacity_bytes": 4096}, name="jobs"),
    errors.IncompatibleQueueError(field="version", wanted=2, found=1),
    errors.CorruptQueueError(field="tail", offset=64, value=17, wanted=16, poisoned_by=41),
    errors.InsecureQueueError(path="/dev/shm/x", reason="it is a symbolic link", stat=os.stat("/")),
    errors.MessageTooLargeError(size=9000, limit=8000),
    errors.TooManyParticipantsError(limit=1024, live_pids=list(range(100, 120))),
    errors.NamespaceMismatchError(ours=1, theirs=2),
    errors.RoleClaimedError(role="producer", pid=77),
    errors.FencedError(pid=77, epoch=3),
    errors.NotShareableError(what="a thread queue"),
    errors.QueueMovedError(name="jobs", successor='{"queue_id": "jobs"}'),
    errors.StaleDescriptorError(wanted="aa", found="bb"),
    errors.DescriptorError(pointer="/capacity_bytes", reason="it must be positive, not -1"),
    errors.UnknownQueueTypeError(queue_type="carrier pigeon", known=["local", "sage_ring"]),
    errors.DescriptorVersionError(found=9, supported=[1]),
    errors.PayloadError(tag=3, payload=b"\x80", items=["another"]),
    errors.UntrustedPayloadError(codec="pickle", allowed=["raw"]),
    errors.NoBackendError(needs=["hosts", "ack"], rejected={"local": "one process only"}),
    errors.BackendUnavailableError(backend="sage_ring", missing="Linux", install="run it on Linux"),
    errors.AuthenticationError(peer="10.0.0.1:5"),
    errors.ProtocolError(peer="10.0.0.1:5", reason="frame 3 came twice"),
    errors.FrameTooLargeError(peer="10.0.0.1:5", size=70000, limit=65536),
    errors.QueueUnavailableError(endpoint="tcp://127.0.0.1:1"),
    errors.OutcomeUnknownError(request_id="r-1"),
    errors.QueueLostError(endpoint="actor jobs", items_lost=None),
    errors.GraphError(node="map", reason="nothing is connected to it"),
    errors.JobNotFoundError(name="words", known=["sums", "text"]),
    errors.LostPacketsError(path=1, wanted=3, found=5),
    errors.TaskDiedError(task="map_0", exit_code=-9, restarts=2),
]
STANDARD_BASES = {
    errors.Empty: queue.Empty,
    errors.Full: queue.Full,
    errors.QueueClosedError: ValueError,
    errors.InvalidQueueNameError: ValueError,
    errors.QueueExistsError: FileExistsError,
    errors.QueueNotFoundError: FileNotFoundError,
    errors.QueueNoSpaceError: OSError,
    errors.InsecureQueueError: PermissionError,
    errors.MessageTooLargeError: ValueError,
    errors.DescriptorError: ValueError,
    errors.PayloadError: ValueError,
    errors.UnknownQueueTypeError: errors.DescriptorError,
    errors.DescriptorVersionError: errors.DescriptorError,
    errors.NotShareableError: TypeError,
    errors.JobNotFoundError: LookupError,
    errors.BackendUnavailableError: ImportError,
}
each_example = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)


def test_every_exception_has_an_example_here() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.SageQueueError) and value.__module__ == errors.__name__
    }

    assert {type(error) for error in EXAMPLES} == defined
    assert sorted(cls.__name__ for cls in defined) == errors.__all__


def test_tree_in_the_module_docstring_names_every_exception() -> None:
    assert errors.__doc__ is not None
    drawn = {line.split("── ")[1].split()[0] for line in errors.__doc__.splitlines() if "── " in line}

    assert drawn | {"SageQueueError"} == set(errors.__all__)


@pytest.mark.parametrize(("cls", "base"), STANDARD_BASES.items(), ids=lambda cls: cls.__name__)
def test_old_except_clauses_keep_working(cls: type[Exception], base: type[Exception]) -> None:
    assert issubclass(cls, base)


@pytest.mark.skipif(sys.version_info < (3, 13), reason="queue.ShutDown came with Python 3.13")
def test_shutdown_is_the_standard_one_where_it_exists() -> None:
    assert issubclass(errors.ShutDown, getattr(queue, "ShutDown"))  # noqa: B009  (absent from older stubs)


@each_example
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_keeps_class_message_and_attributes(error: errors.SageQueueError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert vars(again) == vars(error)


@each_example
def test_copy_keeps_notes(error: errors.SageQueueError) -> None:
    original = copy.copy(error)
    original.add_note("seen in worker 3")

    assert pickle.loads(pickle.dumps(original)).__notes__ == ["seen in worker 3"]
    assert copy.deepcopy(original).__notes__ == ["seen in worker 3"]


@each_example
def test_what_is_carried_is_an_attribute_and_a_keyword(error: errors.SageQueueError) -> None:
    assert set(error.carried) <= set(vars(error))
    if error.carried:
        keywords = inspect.signature(type(error)).parameters

        assert set(keywords) == set(error.carried)
        assert {parameter.kind for parameter in keywords.values()} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.QueueExistsError(name="jobs"), errno.EEXIST),
        (errors.QueueNotFoundError(name="jobs"), errno.ENOENT),
        (errors.QueueNoSpaceError(wanted=2, free=1), errno.ENOSPC),
        (errors.InsecureQueueError(path="/x", reason="it is a directory"), errno.EACCES),
    ],
    ids=lambda value: type(value).__name__,
)
def test_operating_system_errors_carry_their_number(error: OSError, code: int) -> None:
    assert error.errno == code
    assert pickle.loads(pickle.dumps(error)).errno == code


def test_messages_show_value_limit_and_next_step() -> None:
    message = str(errors.MessageTooLargeError(size=9000, limit=8000))

    assert message == "the message takes 9,000 bytes and the limit is 8,000; send it in parts, or make a larger queue"


def test_geometry_message_shows_only_what_differs() -> None:
    error = errors.GeometryMismatchError(
        wanted={"capacity_bytes": 8192, "codec": "raw"}, found={"capacity_bytes": 4096, "codec": "raw"}, name="jobs"
    )

    assert "capacity_bytes is 4096, wanted 8192" in str(error)
    assert "codec" not in str(error)


def test_unknown_queue_type_lists_the_known_ones() -> None:
    error = errors.UnknownQueueTypeError(queue_type="pigeon", known=["sage_ring", "local"])

    assert "known are: local, sage_ring" in str(error)
    assert error.pointer == "/queue_type"


def test_long_values_from_outside_are_cut() -> None:
    error = errors.InvalidQueueNameError(name="x" * 10_000, rule="at most 128 characters")

    assert len(str(error)) < 200
    assert len(str(error.name)) == 10_000


def test_participant_message_counts_the_pids_it_does_not_show() -> None:
    error = errors.TooManyParticipantsError(limit=20, live_pids=range(20))

    assert "and 12 more" in str(error)
    assert error.live_pids == tuple(range(20))


@pytest.mark.parametrize(
    ("items_lost", "end"),
    [
        (True, "its items are lost; make the queue anew"),
        (False, "its items are safe; open its descriptor again to go on with them"),
        (None, "open its descriptor again to see, or make the queue anew"),
    ],
)
def test_a_lost_queue_is_made_anew_only_where_its_items_are_lost(items_lost: bool | None, end: str) -> None:
    assert str(errors.QueueLostError(endpoint="actor jobs", items_lost=items_lost)).endswith(end)


def test_an_unknown_outcome_advises_nothing_that_no_call_can_do() -> None:
    error = errors.OutcomeUnknownError(request_id="r-1")

    assert "same request id" not in f"{error} {type(error).__doc__}"
    assert str(error).endswith("call again only where twice is harmless")
