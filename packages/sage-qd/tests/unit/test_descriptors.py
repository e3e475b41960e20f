"""Descriptors: constructors, texts of the built-in kinds, the registry, kinds of others, and what no text may do."""

import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import sage_qd
from sage_qd import (
    BaseQueueDescriptor,
    DescriptorError,
    InvalidQueueNameError,
    LocalQueue,
    LocalQueueDescriptor,
    RPCQueueDescriptor,
    SageQueueDescriptor,
    Setting,
    UnknownQueueTypeError,
    register_queue_type,
    resolve_descriptor,
)
from sage_qd.descriptors import registry
from sage_qd.testing import background

# -- Constructors -----------------------------------------------------------------------------------------------------


def test_a_text_alone_is_the_queue_id() -> None:
    assert SageQueueDescriptor("jobs") == SageQueueDescriptor(queue_id="jobs")
    assert LocalQueueDescriptor("jobs") == LocalQueueDescriptor(queue_id="jobs")


def test_positional_arguments_have_the_shipped_order() -> None:
    assert SageQueueDescriptor(10, False, "team", True, "jobs") == SageQueueDescriptor(
        queue_id="jobs", maxsize=10, auto_cleanup=False, namespace="team"
    )
    assert LocalQueueDescriptor(10, False, "jobs") == LocalQueueDescriptor(queue_id="jobs", maxsize=10)
    assert SageQueueDescriptor(10).maxsize == LocalQueueDescriptor(10).maxsize == 10


def test_the_rpc_kind_declares_the_delivery_of_its_default() -> None:
    declared = RPCQueueDescriptor.capabilities

    assert RPCQueueDescriptor("jobs").ack == "lease"
    assert declared is not None
    assert declared.delivery.value.startswith("get: at least once, ")


def test_max_items_is_maxsize() -> None:
    assert SageQueueDescriptor("jobs", max_items=7) == SageQueueDescriptor("jobs", maxsize=7)
    assert SageQueueDescriptor("jobs", maxsize=7).max_items == 7
    with pytest.raises(TypeError, match="the same"):
        SageQueueDescriptor("jobs", max_items=7, maxsize=7)


@pytest.mark.parametrize(
    "call",
    [
        lambda: SageQueueDescriptor(1, True, None, True, "jobs", "more"),
        lambda: SageQueueDescriptor("jobs", queue_id="jobs"),
        lambda: LocalQueueDescriptor(1, maxsize=1),
        lambda: SageQueueDescriptor("jobs", capacity=5),
        lambda: SageQueueDescriptor("jobs", 5),
        lambda: SageQueueDescriptor("jobs", capacity_bytes=1.5),
        lambda: SageQueueDescriptor("jobs", checksum=1),
        lambda: SageQueueDescriptor("jobs", namespace=7),
        lambda: SageQueueDescriptor("jobs", spill_threshold="big"),
        lambda: SageQueueDescriptor(queue_id=b"jobs"),
    ],
)
def test_malformed_arguments_are_type_errors(call: Any) -> None:
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"capacity_bytes": 0}, "capacity_bytes must be at least 1, not 0"),
        ({"capacity_bytes": -1}, "at least 1, not -1"),
        ({"capacity_bytes": 2**64}, "at most 17,179,869,184, not 18446744073709551616"),
        ({"capacity_bytes": 10**50}, "a number of more than 128 bits"),
        ({"maxsize": 2**31}, "at most 2,147,483,647"),
        ({"codec": "yaml"}, "json, msgpack, pickle, raw"),
        ({"namespace": ""}, "it is empty"),
        ({"namespace": "x" * 300}, "the limit is 128"),
        ({"spill_threshold": 0}, "spill_threshold"),
        ({"namespace": "team", "enable_multi_tenant": False}, "needs enable_multi_tenant=True"),
    ],
)
def test_values_beyond_their_limits_are_value_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SageQueueDescriptor("jobs", **settings)


def test_a_sage_queue_needs_a_name_that_fits_a_file_name() -> None:
    with pytest.raises(InvalidQueueNameError, match="the limit is 128"):
        SageQueueDescriptor("x" * 129)
    assert LocalQueueDescriptor("x" * 129).queue_id == "x" * 129


def test_the_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseQueueDescriptor("jobs")  # type: ignore[abstract]


def test_two_threads_open_one_queue() -> None:
    descriptor = LocalQueueDescriptor(f"threads-{time.monotonic_ns()}")
    barrier = threading.Barrier(4)

    def opened() -> Any:
        barrier.wait()
        return descriptor.open()

    queues = [call.result() for call in [background(opened) for _ in range(4)]]

    assert {id(queue) for queue in queues} == {id(descriptor.open())}


def test_verbs_of_an_open_descriptor_are_the_queues_own() -> None:
    descriptor = SageQueueDescriptor(f"verbs-{time.monotonic_ns()}")
    queue = descriptor.open()

    assert descriptor.put == queue.put
    assert descriptor.get == queue.get
    descriptor.close()


# -- Texts ------------------------------------------------------------------------------------------------------------

CANONICAL = (
    '{"can_serialize":true,"class_name":"SageQueueDescriptor","created_timestamp":1.5,"metadata":{"auto_cleanup":true,'
    '"capacity_bytes":1048576,"checksum":false,"codec":"pickle","enable_multi_tenant":true,"maxsize":7,"namespace":'
    '"default","single_consumer":false,"single_producer":false,"spill_threshold":null},"queue_id":"任务","queue_type":'
    '"sage_queue","version":1}'
)


def test_version_1_is_read_and_written_for_ever() -> None:
    descriptor = BaseQueueDescriptor.from_json(CANONICAL)

    assert descriptor == SageQueueDescriptor("任务", maxsize=7)
    assert descriptor.created_timestamp == 1.5
    assert descriptor.to_json() == CANONICAL


@pytest.mark.parametrize(
    ("descriptor", "uri"),
    [
        (SageQueueDescriptor("jobs"), "sage://default/jobs"),
        (SageQueueDescriptor("jobs", maxsize=1000), "sage://default/jobs?max_items=1000"),
        (
            SageQueueDescriptor("a/b ?#", namespace="组", codec="raw", checksum=True, spill_threshold=5),
            "sage://%E7%BB%84/a%2Fb%20%3F%23?checksum=true&codec=raw&spill_threshold=5",
        ),
        (SageQueueDescriptor("jobs", auto_cleanup=False), "sage://default/jobs?auto_cleanup=false"),
        (LocalQueueDescriptor("jobs"), "local:///jobs"),
        (LocalQueueDescriptor("jobs", maxsize=3), "local:///jobs?max_items=3"),
    ],
)
def test_uris(descriptor: BaseQueueDescriptor, uri: str) -> None:
    assert descriptor.to_uri() == uri
    assert BaseQueueDescriptor.from_uri(uri) == descriptor
    assert type(descriptor).from_uri(uri) == descriptor


def test_the_uri_of_an_open_queue_names_the_instance() -> None:
    with SageQueueDescriptor(f"uri-{time.monotonic_ns()}").open() as queue:
        assert queue.descriptor is not None
        bound: Any = queue.descriptor

        assert bound.to_uri().endswith(f"#{queue.instance}")
        assert BaseQueueDescriptor.from_uri(bound.to_uri()).instance == queue.instance
        assert BaseQueueDescriptor.from_json(bound.to_json()).instance == queue.instance


@pytest.mark.parametrize("scheme", ["sage", "sage_queue", "local", "python_queue"])
def test_schemes_may_be_any_spelling_of_the_kind(scheme: str) -> None:
    namespace = "default" if scheme.startswith("sage") else ""

    assert BaseQueueDescriptor.from_uri(f"{scheme}://{namespace}/jobs").queue_id == "jobs"


@pytest.mark.parametrize(
    ("uri", "pointer"),
    [
        ("", ""),
        ("jobs", ""),
        ("sage:/jobs", ""),
        ("sage://default/", ""),
        ("sage://default/a/b", ""),
        ("sage://default/a?", ""),
        ("sage://default/a#0", ""),
        ("sage://default/a\n", "/queue_id"),
        (" sage://default/a", ""),
        ("SAGE://default/a", ""),
        ("sage://default/" + "a" * 20_000, ""),
        ("sage://default/a b", "/queue_id"),
        ("sage://default/%2", "/queue_id"),
        ("sage://default/%ff", "/queue_id"),
        ("sage://default/%FF", "/queue_id"),
        ("sage://default/" + "a" * 129, "/queue_id"),
        ("sage://%00%FF/a", "/metadata/namespace"),
        ("sage://" + "n" * 129 + "/a", "/metadata/namespace"),
        ("sage://default/a?max_items", "/metadata/max_items"),
        ("sage://default/a?max_items=1&max_items=1", "/metadata/max_items"),
        ("sage://default/a?max_items=-1", "/metadata/maxsize"),
        ("sage://default/a?max_items=1e3", "/metadata/maxsize"),
        ("sage://default/a?max_items=" + "9" * 5000, "/metadata/maxsize"),
        ("sage://default/a?checksum=True", "/metadata/checksum"),
        ("sage://default/a?codec=yaml", "/metadata/codec"),
        ("sage://default/a?namespace=b", "/metadata/namespace"),
        ("sage://default/a?colour=red", "/metadata/colour"),
        ("sage://default/a?" + "&".join(f"x{number}=1" for number in range(65)), "/metadata"),
        ("sage://team/a?enable_multi_tenant=false", "/metadata"),
        ("local://default/a", "/metadata/namespace"),
        ("pigeon:///a", "/queue_type"),
    ],
)
def test_wrong_uris_are_told_by_their_place(uri: str, pointer: str) -> None:
    with pytest.raises(DescriptorError) as caught:
        BaseQueueDescriptor.from_uri(uri)

    assert caught.value.pointer == pointer


def test_a_uri_of_another_kind_is_refused_by_a_kind() -> None:
    with pytest.raises(DescriptorError, match="LocalQueueDescriptor"):
        LocalQueueDescriptor.from_uri("sage://default/a")
    with pytest.raises(TypeError, match="URI"):
        BaseQueueDescriptor.from_uri(7)  # type: ignore[arg-type]


def spoiled(old: str, new: str) -> str:
    assert old in CANONICAL
    return CANONICAL.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "pointer", "reason"),
    [
        ("", "", "JSON"),
        ("null", "", "object"),
        ("[]", "", "object"),
        ("{}", "/version", "missing"),
        (CANONICAL + "x", "", "no JSON"),
        (CANONICAL + "{}", "", "JSON"),
        (CANONICAL[:-1], "", "JSON"),
        (CANONICAL + "}", "", "JSON"),
        ("\ufeff" + CANONICAL, "", "no JSON"),
        (CANONICAL + " " * 17_000, "", "the limit is 16,384"),
        ("[" * 5 + "]" * 5, "/0/0/0/0", "deeper than 4"),
        ("[" * 8000, "/0/0/0/0", "deeper than 4"),
        ('{"a":' * 2000, "/a/a/a/a", "deeper than 4"),
        ("[" + "1," * 64 + "1]", "", "more than 64"),
        ('{"metadata":{' + ",".join(f'"k{n}":1' for n in range(65)) + "}}", "/metadata", "more than 64"),
        (spoiled('"version":1', '"version":1,"version":1'), "/version", "twice"),
        (spoiled('"version":1', '"version":1,"\\u0076ersion":1'), "/version", "twice"),
        (spoiled('"maxsize":7', '"maxsize":7,"maxsize":8'), "/metadata/maxsize", "twice"),
        (spoiled('"maxsize":7', '"maxsize":NaN'), "/metadata/maxsize", "no JSON"),
        (spoiled('"maxsize":7', '"maxsize":-Infinity'), "/metadata/maxsize", "no JSON"),
        (spoiled('"maxsize":7', '"maxsize":9007199254740993'), "/metadata/maxsize", r"2\^53"),
        (spoiled('"maxsize":7', '"maxsize":-9007199254740993'), "/metadata/maxsize", r"2\^53"),
        (spoiled('"maxsize":7', f'"maxsize":{"9" * 5000}'), "/metadata/maxsize", "20 digits"),
        (spoiled('"maxsize":7', '"maxsize":1e999'), "/metadata/maxsize", "too large"),
        (spoiled('"maxsize":7', '"maxsize":07'), "", "JSON"),
        (spoiled('"maxsize":7', '"maxsize":+7'), "/metadata/maxsize", "no JSON"),
        (spoiled('"maxsize":7', '"maxsize":7.0'), "/metadata/maxsize", "integer"),
        (spoiled('"maxsize":7', '"maxsize":true'), "/metadata/maxsize", "integer"),
        (spoiled('"maxsize":7', '"maxsize":-1'), "/metadata/maxsize", "at least 0"),
        (spoiled('"checksum":false', '"checksum":0'), "/metadata/checksum", "true or false"),
        (spoiled('"codec":"pickle"', '"codec":"__import__"'), "/metadata/codec", "raw"),
        (spoiled('"namespace":"default"', '"namespace":"\\ud800"'), "", "JSON"),
        (spoiled('"queue_type":"sage_queue"', '"queue_type":"pigeon"'), "/queue_type", "unknown"),
        (spoiled('"queue_type":"sage_queue"', '"queue_type":"local_queue"'), "/class_name", "LocalQueueDescriptor"),
        (spoiled('"class_name":"SageQueueDescriptor"', '"class_name":"os.system"'), "/class_name", "SageQueue"),
        (spoiled('"can_serialize":true', '"can_serialize":false'), "/can_serialize", "True"),
        (spoiled('"created_timestamp":1.5', '"created_timestamp":-1'), "/created_timestamp", "1970"),
        (
            spoiled('"namespace":"default"', '"namespace":"a"').replace('_tenant":true', '_tenant":false'),
            "/metadata",
            "team|needs",
        ),
        (spoiled('"version":1', '"version":1,"__class__":"x"'), "/__class__", "no such member"),
        (spoiled('"checksum"', '"__class__":1,"checksum"'), "/metadata/__class__", "no such setting"),
    ],
)
def test_wrong_texts_are_told_by_their_place(text: str, pointer: str, reason: str) -> None:
    with pytest.raises(DescriptorError, match=reason) as caught:
        BaseQueueDescriptor.from_json(text)

    assert caught.value.pointer == pointer


@pytest.mark.parametrize("text", [b"\xff", b'{"a":"\xff"}', "\ud800"])
def test_what_is_no_unicode_is_told(text: Any) -> None:
    with pytest.raises(DescriptorError, match="Unicode"):
        BaseQueueDescriptor.from_json(text)


@pytest.mark.parametrize("text", [None, 7, {}, ["{}"]])
def test_what_is_no_text_is_a_type_error(text: Any) -> None:
    with pytest.raises(TypeError, match="JSON must be"):
        BaseQueueDescriptor.from_json(text)


@pytest.mark.parametrize(
    "value", [float("nan"), object(), {1: 2}, 10**400, "\ud800", [[[[[[]]]]]], {"deep": {"er": {"and": {"deeper": 1}}}}]
)
def test_own_members_must_be_json_within_the_limits(value: Any) -> None:
    document = SageQueueDescriptor("jobs").to_dict()

    with pytest.raises(DescriptorError):
        resolve_descriptor(document | {"x-own": value})


def test_a_setting_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="namespace must be Unicode text"):
        SageQueueDescriptor("jobs", namespace="\ud800")
    with pytest.raises(ValueError, match="key_file must be Unicode text"):
        RPCQueueDescriptor("jobs", key_file="\ud800")


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), -0.5, 2**53 + 1])
def test_a_time_that_is_none_is_told(value: Any) -> None:
    with pytest.raises(DescriptorError, match="/created_timestamp"):
        resolve_descriptor(SageQueueDescriptor("jobs").to_dict() | {"created_timestamp": value})


def test_own_members_that_hold_themselves_are_told() -> None:
    knot: list[Any] = []
    knot.append(knot)

    with pytest.raises(DescriptorError, match="/x-knot"):
        resolve_descriptor(SageQueueDescriptor("jobs").to_dict() | {"x-knot": knot})


def test_member_names_must_be_text() -> None:
    with pytest.raises(DescriptorError, match="no text"):
        resolve_descriptor(SageQueueDescriptor("jobs").to_dict() | {7: 1})  # type: ignore[dict-item]


def test_documents_of_earlier_releases_are_read() -> None:
    shipped = {
        "queue_id": "input_map",
        "queue_type": "python_queue",
        "class_name": "PythonQueueDescriptor",
        "metadata": {"maxsize": 10},
        "can_serialize": False,
        "created_timestamp": 1_700_000_000,
    }

    assert resolve_descriptor(shipped) == LocalQueueDescriptor("input_map", maxsize=10)
    assert resolve_descriptor({"queue_id": "q", "queue_type": "sage", "metadata": {"maxsize": 5}}) == (
        SageQueueDescriptor("q", maxsize=5)
    )


AUDIT = """
import sys
from sage_qd import BaseQueueDescriptor, SageQueueDescriptor, DescriptorError, known_queue_types
texts = sys.stdin.read().split("\\x1e")
seen = []
WATCHED = {"import", "exec", "compile", "open", "socket", "os", "subprocess", "pickle", "ctypes", "marshal", "shutil"}
def hook(event, arguments):
    if watching and event.split(".")[0] in WATCHED:
        seen.append((event, str(arguments)[:200]))
watching = False
known_queue_types()  # what is installed is looked up once, before a text names something that nobody knows
sys.addaudithook(hook)
watching = True
read = refused = 0
for text in texts:
    for reader in (BaseQueueDescriptor.from_json, BaseQueueDescriptor.from_uri):
        try:
            reader(text)
            read += 1
        except DescriptorError:
            refused += 1
watching = False
print(read, refused, seen)
"""


def test_reading_runs_no_code_and_opens_nothing() -> None:
    texts = [
        CANONICAL,
        "sage://default/jobs",
        "local:///jobs",
        "pigeon:///jobs",
        spoiled('"queue_type":"sage_queue"', '"queue_type":"os.system"'),
        spoiled('"class_name":"SageQueueDescriptor"', '"class_name":"os.system"'),
        spoiled('"codec":"pickle"', '"codec":"cos\\nsystem"'),
        spoiled('"codec":"pickle"', '"codec":"msgpack"'),
        spoiled('"queue_id":"任务"', '"queue_id":"../../etc/passwd"'),
        "{" * 100,
        "\x00",
    ]

    ran = subprocess.run(
        [sys.executable, "-c", AUDIT], input="\x1e".join(texts), capture_output=True, text=True, timeout=60, check=True
    )

    assert ran.stdout.strip() == "5 17 []"


# -- Registry ---------------------------------------------------------------------------------------------------------


def test_unknown_kinds_get_the_known_list_and_a_suggestion() -> None:
    with pytest.raises(UnknownQueueTypeError, match="did you mean 'sage_queue'") as caught:
        resolve_descriptor({"queue_id": "q", "queue_type": "sage_queu"})
    assert "local_queue" in caught.value.known
    with pytest.raises(UnknownQueueTypeError) as caught:
        resolve_descriptor({"queue_id": "q", "queue_type": "w" * 10_000})
    assert caught.value.suggestion is None


class ListQueueDescriptor(BaseQueueDescriptor):
    """A kind of somebody else's, with metadata of its own making."""

    queue_type = "list_queue"
    can_serialize = True

    def __init__(self, queue_id: str | None = None, *, colour: str = "red") -> None:
        super().__init__(queue_id)
        self._freeze(colour=colour)

    @property
    def metadata(self) -> dict[str, Any]:
        return {"colour": vars(self)["colour"], "_private": object()}

    def _copy(self, *, queue_id: str, instance: str | None) -> "ListQueueDescriptor":
        return type(self)(queue_id, colour=vars(self)["colour"])

    def _open_queue(self, create: bool) -> LocalQueue[Any]:
        return LocalQueue.open(self.queue_id, create=create)


class SettingQueueDescriptor(BaseQueueDescriptor):
    """A kind of somebody else's, with declared settings."""

    queue_type = "setting_queue"
    can_serialize = True
    settings = (Setting(name="lanes", type=int, default=1, low=1, high=8),)

    def _open_queue(self, create: bool) -> LocalQueue[Any]:
        return LocalQueue.open(self.queue_id, create=create)


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_queue_type("list_queue", ListQueueDescriptor)
    register_queue_type("setting_queue", SettingQueueDescriptor)


@pytest.mark.usefixtures("others")
def test_kinds_of_others_are_read_and_opened() -> None:
    descriptor = ListQueueDescriptor("theirs", colour="blue")
    document = descriptor.to_dict()

    again = resolve_descriptor(document)
    again.put(1)

    assert document["metadata"] == {"colour": "blue"}
    assert set(descriptor.to_dict(include_non_serializable=True)["metadata"]) == {"colour", "_private"}
    assert isinstance(again, ListQueueDescriptor)
    assert again.get() == 1
    with pytest.raises(DescriptorError, match="/metadata"):
        resolve_descriptor(document | {"metadata": {"size": 3}})


@pytest.mark.usefixtures("others")
def test_kinds_with_declared_settings_are_checked_like_the_built_in_ones() -> None:
    descriptor = SettingQueueDescriptor("theirs", lanes=4)

    assert BaseQueueDescriptor.from_json(descriptor.to_json()) == descriptor
    with pytest.raises(DescriptorError) as caught:
        resolve_descriptor(descriptor.to_dict() | {"metadata": {"lanes": 9}})
    assert caught.value.pointer == "/metadata/lanes"
    with pytest.raises(ValueError, match="at most 8"):
        SettingQueueDescriptor(lanes=9)


WITHOUT_RING = """
import sys
sys.modules["sage_qd.ring._ring"] = None
from sage_qd import *
LocalQueueDescriptor("portable").put(1)
descriptor = SageQueueDescriptor("jobs")
assert BaseQueueDescriptor.from_json(descriptor.to_json()) == descriptor
try:
    descriptor.open()
except BackendUnavailableError as error:
    print(error.backend, "|", error)
"""


def test_without_the_compiled_ring_the_portable_kind_works_and_the_other_says_why() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_RING.replace("import *", "import " + ", ".join(PORTABLE))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert ran.stdout.startswith("sage_queue | ")
    assert "Linux" in ran.stdout


PORTABLE = ["BackendUnavailableError", "BaseQueueDescriptor", "LocalQueueDescriptor", "SageQueueDescriptor"]

# -- The package ------------------------------------------------------------------------------------------------------


def test_every_public_name_can_be_imported() -> None:
    for name in sage_qd.__all__:
        assert getattr(sage_qd, name) is not None
    assert set(sage_qd.__all__) <= set(dir(sage_qd))
    assert set(sage_qd._PLACES) <= set(sage_qd.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sage_qd.nothing


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, sage_qd; print(sorted({name.partition('.')[0] for name in sys.modules}))"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    for heavy in ("msgspec", "numpy", "multiprocessing", "pickle", "asyncio", "ray", "zmq", "json", "pytest"):
        assert f"'{heavy}'" not in ran.stdout


def test_the_contract_kit_is_the_only_part_that_needs_pytest() -> None:
    code = "import sys, sage_qd; [getattr(sage_qd, name) for name in sage_qd.__all__]; print('pytest' in sys.modules)"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.strip() == "False"
