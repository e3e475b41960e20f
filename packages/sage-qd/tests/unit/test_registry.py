"""Where queue kinds come from: registered, configured, built in, installed; and every name they ever had."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_qd import (
    BackendUnavailableError,
    BaseQueueDescriptor,
    DescriptorError,
    LocalQueueDescriptor,
    PythonQueueDescriptor,
    QueueDescriptor,
    SageQueueDescriptor,
    Setting,
    UnknownQueueTypeError,
    known_queue_types,
    register_queue_type,
    resolve_descriptor,
)
from sage_qd.descriptors import registry
from sage_qd.queues.local import LocalQueue

SPELLINGS = {
    "auto": ["auto"],
    "local_queue": ["local", "local_queue", "python", "python_queue"],
    "shm_queue": ["multiprocessing", "shm", "multiprocess_shm", "shm_queue"],
    "sage_queue": ["sage", "sage_queue"],
    "ray_queue": ["ray", "ray_actor", "ray_cluster", "ray_queue"],
    "rpc_queue": ["rpc", "grpc", "http", "websocket", "rpc_queue"],
}


class OneQueueDescriptor(BaseQueueDescriptor):
    """A kind of somebody else's."""

    queue_type = "one_queue"
    can_serialize = True
    settings = (Setting(name="maxsize", type=int, default=0, low=0),)

    def _open_queue(self, create: bool) -> LocalQueue[Any]:
        return LocalQueue.open(self.queue_id, create=create)


class OtherQueueDescriptor(OneQueueDescriptor):
    """Another one."""


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.delenv(registry.CONFIGURATION_VARIABLE, raising=False)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Make a distribution that offers an entry point, with a module of its own."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def make(distribution: str, name: str, value: str, source: str | None = None) -> None:
        folder = tmp_path / f"{distribution}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[sage_qd.queue_types]\n{name} = {value}\n")
        module = value.partition(":")[0]
        if source is not None:
            (tmp_path / f"{module}.py").write_text(source)
            modules.append(module)
        registry._installed.cache_clear()

    yield make
    for module in modules:
        sys.modules.pop(module, None)
    registry._installed.cache_clear()


PIGEON = """
from sage_qd import BaseQueueDescriptor, LocalQueue
class PigeonQueueDescriptor(BaseQueueDescriptor):
    queue_type = "pigeon_queue"
    can_serialize = True
    def _open_queue(self, create):
        return LocalQueue.open(self.queue_id, create=create)
"""

# -- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "spelling"), [(kind, each) for kind, all_ in SPELLINGS.items() for each in all_])
def test_every_spelling_leads_to_its_kind(kind: str, spelling: str) -> None:
    assert registry.normalised(spelling) == kind
    assert kind in known_queue_types()
    try:
        found = registry.queue_kind(kind)
    except BackendUnavailableError as error:
        with pytest.raises(BackendUnavailableError, match=error.install.replace("[", r"\[")):
            resolve_descriptor({"queue_id": "q", "queue_type": spelling})
        return
    assert registry.queue_kind(spelling) is found
    assert found.queue_type == kind


def test_the_tables_hold_no_other_spelling_and_are_sorted() -> None:
    spellings = {each for all_ in SPELLINGS.values() for each in all_}

    assert spellings == {*registry._ALIASES, *registry._BUILT_IN}
    assert list(registry._BUILT_IN) == sorted(registry._BUILT_IN)
    assert list(registry._ALIASES) == sorted(registry._ALIASES)


def test_unknown_kinds_get_the_known_list_and_a_suggestion() -> None:
    for wrong, near in (("sage_queu", "sage_queue"), ("websockets", "websocket"), ("ray_actors", "ray_actor")):
        with pytest.raises(UnknownQueueTypeError, match=f"did you mean '{near}'") as caught:
            resolve_descriptor({"queue_id": "q", "queue_type": wrong})
        assert set(SPELLINGS) <= set(caught.value.known)


def test_classes_have_their_names_of_earlier_releases() -> None:
    assert PythonQueueDescriptor is LocalQueueDescriptor
    assert QueueDescriptor is BaseQueueDescriptor
    with pytest.raises(TypeError, match="abstract"):
        QueueDescriptor("q")  # type: ignore[abstract]


@pytest.mark.parametrize("call", [lambda: PythonQueueDescriptor(3, True, "q"), lambda: PythonQueueDescriptor(
    maxsize=3, use_multiprocessing=True, queue_id="q")])  # fmt: skip
def test_use_multiprocessing_gives_the_portable_queue_between_processes(call: Callable[[], Any]) -> None:
    register_queue_type("shm_queue", OneQueueDescriptor)

    made = call()

    assert type(made) is OneQueueDescriptor
    assert (made.queue_id, made.metadata) == ("q", {"maxsize": 3})


def test_use_multiprocessing_is_true_or_false() -> None:
    assert type(PythonQueueDescriptor(3, False, "q")) is LocalQueueDescriptor
    with pytest.raises(TypeError, match="true or false"):
        PythonQueueDescriptor(3, 1, "q")  # type: ignore[call-overload]


class Coloured(PythonQueueDescriptor):
    """A subclass with arguments of its own."""

    def __init__(self, colour: str, queue_id: str, maxsize: int, *more: int, **others: Any) -> None:
        super().__init__(queue_id=queue_id, maxsize=maxsize, **others)


def test_subclasses_have_arguments_of_their_own() -> None:
    assert Coloured("red", "q", 3, 4, 5).metadata == {"maxsize": 3}
    with pytest.raises(ValueError, match="Coloured"):
        Coloured("red", "q", 3, use_multiprocessing=True)


def test_documents_that_say_use_multiprocessing_are_read() -> None:
    register_queue_type("shm_queue", OneQueueDescriptor)
    shipped = {"queue_id": "q", "queue_type": "python_queue", "class_name": "PythonQueueDescriptor"}

    def read(value: Any) -> BaseQueueDescriptor:
        return resolve_descriptor(shipped | {"metadata": {"maxsize": 3, "use_multiprocessing": value}})

    assert read(False) == LocalQueueDescriptor("q", maxsize=3)
    assert read(True) == OneQueueDescriptor("q", maxsize=3)
    with pytest.raises(DescriptorError, match="/metadata/use_multiprocessing"):
        read("yes")
    with pytest.raises(DescriptorError, match="/metadata/use_multiprocessing"):
        resolve_descriptor(
            LocalQueueDescriptor("q").to_dict() | {"metadata": {"maxsize": 3, "use_multiprocessing": True}}
        )


# -- Registered -------------------------------------------------------------------------------------------------------


def test_two_registrations_of_one_name_are_an_error_that_names_both() -> None:
    register_queue_type("one_queue", OneQueueDescriptor)
    register_queue_type("one_queue", OneQueueDescriptor)

    with pytest.raises(ValueError, match=r"OneQueueDescriptor already, so not .*OtherQueueDescriptor"):
        register_queue_type("one_queue", OtherQueueDescriptor)
    assert registry.queue_kind("one_queue") is OneQueueDescriptor


@pytest.mark.parametrize("kind", [None, object, "module:Class", LocalQueue])
def test_only_descriptor_classes_are_registered(kind: Any) -> None:
    with pytest.raises(TypeError, match="BaseQueueDescriptor"):
        register_queue_type("one_queue", kind)


def test_a_kind_that_cannot_be_imported_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    place = registry._Place("sage_qd.descriptors.nowhere", "Nowhere", "pip install nowhere")
    monkeypatch.setitem(registry._BUILT_IN, "nowhere_queue", place)

    with pytest.raises(BackendUnavailableError, match="pip install nowhere"):
        registry.queue_kind("nowhere_queue")


# -- Precedence -------------------------------------------------------------------------------------------------------


def test_registered_comes_before_configured_before_built_in_before_installed(
    install: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("far", "sage_queue", "far_module:Nothing")
    assert registry.queue_kind("sage") is SageQueueDescriptor

    monkeypatch.setenv("SAGE_QD_QUEUE_TYPES", f"sage_queue={__name__}:OneQueueDescriptor")
    assert registry.queue_kind("sage").__name__ == "OneQueueDescriptor"

    register_queue_type("sage_queue", OtherQueueDescriptor)
    assert registry.queue_kind("sage") is OtherQueueDescriptor
    monkeypatch.delenv("SAGE_QD_QUEUE_TYPES")
    assert registry.queue_kind("sage") is OtherQueueDescriptor


def test_a_name_of_ones_own_wins_over_an_alias() -> None:
    register_queue_type("grpc", OneQueueDescriptor)

    assert registry.queue_kind("grpc") is OneQueueDescriptor
    assert registry.normalised("grpc") == "rpc_queue"


# -- Configured -------------------------------------------------------------------------------------------------------


def test_the_environment_names_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_QD_QUEUE_TYPES", f" one_queue = {__name__}:OneQueueDescriptor ,")

    assert "one_queue" in known_queue_types()
    assert resolve_descriptor({"queue_id": "q", "queue_type": "one_queue"}).queue_type == "one_queue"


@pytest.mark.parametrize("text", ["one_queue", "one_queue=", "=a:B", "one_queue=a.b", "x=a;b:y", "x=a:b c", "x=:"])
def test_a_wrong_environment_is_told(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SAGE_QD_QUEUE_TYPES", text)

    with pytest.raises(DescriptorError, match="SAGE_QD_QUEUE_TYPES"):
        registry.queue_kind("sage_queue")


def test_two_claims_of_the_environment_are_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_QD_QUEUE_TYPES", "x=a:B,x=c:D")

    with pytest.raises(DescriptorError, match="'x' is claimed by a:B of SAGE_QD_QUEUE_TYPES and c:D of"):
        registry.queue_kind("x")


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("no_such_module:B", BackendUnavailableError),
        ("os:NoSuchClass", BackendUnavailableError),
        ("os:getcwd", DescriptorError),
    ],
)
def test_what_is_configured_must_be_a_descriptor_class(
    monkeypatch: pytest.MonkeyPatch, value: str, error: type[Exception]
) -> None:
    monkeypatch.setenv("SAGE_QD_QUEUE_TYPES", f"x={value}")

    with pytest.raises(error):
        registry.queue_kind("x")


# -- Installed --------------------------------------------------------------------------------------------------------


def test_an_installed_kind_is_found_by_its_entry_point(install: Callable[..., None]) -> None:
    install("carrier", "pigeon_queue", "carrier_pigeon:PigeonQueueDescriptor", PIGEON)

    assert "pigeon_queue" in known_queue_types()
    assert "carrier_pigeon" not in sys.modules
    descriptor = resolve_descriptor({"queue_id": "q", "queue_type": "pigeon_queue"})
    assert type(descriptor).__module__ == "carrier_pigeon"
    assert BaseQueueDescriptor.from_json(descriptor.to_json()) == descriptor


def test_two_distributions_that_claim_one_name_are_an_error_that_names_both(install: Callable[..., None]) -> None:
    install("carrier", "pigeon_queue", "carrier_pigeon:PigeonQueueDescriptor", PIGEON)
    install("racer", "pigeon_queue", "racing_pigeon:RacerQueueDescriptor", PIGEON)

    with pytest.raises(DescriptorError) as caught:
        registry.queue_kind("pigeon_queue")

    for part in ("carrier_pigeon:Pigeon", "distribution carrier", "racing_pigeon:Racer", "distribution racer"):
        assert part in str(caught.value)
    assert "carrier_pigeon" not in sys.modules


def test_a_broken_installation_says_whose_it_is(install: Callable[..., None]) -> None:
    install("carrier", "pigeon_queue", "carrier_pigeon:PigeonQueueDescriptor", "import no_such_module")

    with pytest.raises(BackendUnavailableError, match=r"no_such_module.*distribution carrier"):
        registry.queue_kind("pigeon_queue")


LAZY = """
import sys
import sage_qd
sage_qd.BaseQueueDescriptor.from_json(sage_qd.SageQueueDescriptor("jobs").to_json())
sage_qd.BaseQueueDescriptor.from_uri("local:///jobs")
print("importlib.metadata" in sys.modules)
"""


def test_what_is_installed_is_not_looked_at_for_a_name_that_is_known() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SAGE_QD_QUEUE_TYPES"}

    ran = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{LAZY}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )

    assert ran.stdout.strip() == "False"
