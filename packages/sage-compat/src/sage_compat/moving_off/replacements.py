"""
The one table of what stands in place of each old name.

Warnings, the scan, the codemod, the report and the page of the documentation all read it, so that they cannot disagree.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DESCRIPTORS",
    "ERROR_TEXTS",
    "PAGE",
    "TABLE",
    "Keyword",
    "Replacement",
    "code_of_call",
    "family_of",
    "is_old_module",
    "replacement_of",
    "shortened",
]

PAGE: Final = "docs/how-to/move-off-the-old-api.md"
"""Where the documentation tells more; each code is an anchor on it."""


@dataclass(frozen=True, kw_only=True)
class Keyword:
    """
    What becomes of one argument.

    Attributes:
        old: Its old name.
        new: Its name in the new call; None when it goes away.
        note: Why, or what to watch.
    """

    old: str
    new: str | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """
    One row of the table.

    Attributes:
        code: ``SQC001`` and so on; never given to anything else.
        names: Old names that it is about, as ``family.name``; see :data:`FAMILIES`.
        old: How the old call looks.
        new: How the new one looks; for what has no counterpart, a sentence.
        keywords: Arguments of the old call, in their old order.
        is_automatic: Whether ``sage-compat fix`` writes the new call where it can prove that nothing changes.
        note: What is different, in a sentence.
    """

    code: str
    names: tuple[str, ...]
    old: str
    new: str
    keywords: tuple[Keyword, ...] = ()
    is_automatic: bool = False
    note: str = ""

    @property
    def page(self) -> str:
        """Where to read about it."""
        return f"{PAGE}#{self.code.lower()}"


FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "adapter": ("sage_compat.queue_adapter", "sage_compat.queue", "sage.utils.queue_adapter", "sage.utils.queue"),
    "fallback": ("sage_compat.queue_auto_fallback", "sage.utils.queue_auto_fallback"),
    "config": ("sage_compat.queue_config", "sage.utils.queue_config"),
    "tool": ("sage_compat.queue_tool", "sage.utils.queue_tool"),
    "diagnostic": ("sage_compat.queue_diagnostic", "sage.utils.queue_diagnostic"),
    "ring": (
        "sage_compat.sage_queue",
        "sage_compat.sage_queue_manager",
        "sage_ext.sage_queue",
        "sage_queue",
        "sage.utils.mmap_queue",
        "sage_utils.mmap_queue",
        "sage_ext.mmap_queue",
        "sage.extensions.sage_queue",
        "sage.kernel.enterprise.sage_queue",
    ),
    "descriptors": (
        "sage.runtime.communication.queue",
        "sage.runtime.communication.queue_creation_strategy",
        "sage.platform.queue",
    ),
}
"""Old import paths; what lies below a path of the rings or of the descriptors belongs to it, too."""

_OPEN_BELOW: Final = ("ring", "descriptors")
_MODULE_BELOW: Final = re.compile(r"python|sage_queue(_manager)?|\w+_queue_descriptor|queue_creation_strategy")
_TOP: Final = "sage_compat"
_MAXSIZE_BYTES: Final = Keyword(old="maxsize", new="capacity_bytes", note="bytes, as before")
_NAMESPACE: Final = Keyword(
    old="namespace", new="namespace", note="where none was said: the name of the project, so that names stay apart"
)
_IGNORED: Final = tuple(
    Keyword(old=name, new=None, note="was ignored")
    for name in ("name", "auto_cleanup", "namespace", "enable_multi_tenant")
)
_SAGE_KEYWORDS: Final = (
    Keyword(old="name", new="queue_id"),
    _MAXSIZE_BYTES,
    Keyword(old="auto_cleanup", new="auto_cleanup"),
    _NAMESPACE,
    Keyword(old="enable_multi_tenant", new="enable_multi_tenant", note="False: the namespace that all programs share"),
)

DESCRIPTORS: Final[dict[str, str]] = {
    "python": "LocalQueueDescriptor",
    "sage": "SageQueueDescriptor",
    "ray": "RayQueueDescriptor",
    "auto": "AutoQueueDescriptor",
}
"""The class in place of each backend."""

BACKENDS: Final[dict[str | None, str]] = {
    None: "auto",
    "auto": "auto",
    "python": "python",
    "python_queue": "python",
    "sage": "sage",
    "sage_queue": "sage",
    "sage_mmap_queue": "sage",
    "ray": "ray",
    "ray_queue": "ray",
}
"""The old spellings of a backend."""

ERROR_TEXTS: Final = (
    "Queue is empty",
    "Get operation timed out",
    "Queue is full",
    "Put operation timed out",
    "Queue is closed",
    "Failed to serialize item",
)
"""Texts of old exceptions that programs compare with."""

TABLE: Final[tuple[Replacement, ...]] = (
    Replacement(
        code="SQC001",
        names=("adapter.create_queue",),
        old='create_queue(backend="python", maxsize=N)',
        new="LocalQueueDescriptor(maxsize=N).open()",
        keywords=(Keyword(old="maxsize", new="maxsize", note="messages"), *_IGNORED),
        is_automatic=True,
        note="For the threads of one process. The name was ignored, so two calls gave two queues; they still do.",
    ),
    Replacement(
        code="SQC002",
        names=("adapter.create_queue",),
        old='create_queue(backend="sage", name=NAME, maxsize=BYTES)',
        new="SageQueueDescriptor(NAME, capacity_bytes=BYTES).open()",
        keywords=_SAGE_KEYWORDS,
        is_automatic=True,
        note="For the processes of one host. The size is in bytes and is rounded up to a power of two; the queue goes "
        "with its last handle, and all that open one name must ask for the same size.",
    ),
    Replacement(
        code="SQC003",
        names=("adapter.create_queue",),
        old='create_queue(backend="ray", maxsize=N)',
        new="RayQueueDescriptor(maxsize=N).open()",
        keywords=(Keyword(old="maxsize", new="maxsize", note="messages"), *_IGNORED),
        is_automatic=True,
        note="For one Ray cluster. Call ray.init() first: nothing does it for you.",
    ),
    Replacement(
        code="SQC004",
        names=("adapter.create_queue",),
        old="create_queue(name=NAME)",
        new="AutoQueueDescriptor(NAME).open()",
        keywords=(
            Keyword(old="name", new="queue_id"),
            Keyword(old="maxsize", new="max_bytes", note="bytes: the choice is a ring where there is one"),
            Keyword(old="auto_cleanup", new=None, note="only its default goes away by itself"),
            _NAMESPACE,
            Keyword(old="enable_multi_tenant", new=None, note="only its default goes away by itself"),
        ),
        is_automatic=True,
        note="Takes the cheapest kind that reaches the processes of the host, and never one that reaches less far.",
    ),
    Replacement(
        code="SQC005",
        names=("ring.SageQueue",),
        old="SageQueue(NAME, BYTES)",
        new="SageQueueDescriptor(NAME, capacity_bytes=BYTES).open()",
        keywords=_SAGE_KEYWORDS,
        is_automatic=True,
        note="As SQC002.",
    ),
    Replacement(
        code="SQC006",
        names=("ring.create_queue",),
        old="sage_queue.create_queue(NAME, BYTES)",
        new="SageQueueDescriptor(NAME, capacity_bytes=BYTES).open()",
        keywords=_SAGE_KEYWORDS[:2],
        is_automatic=True,
        note="As SQC002; a size of 0 was the default size.",
    ),
    Replacement(
        code="SQC007",
        names=("ring.open_queue",),
        old="open_queue(NAME)",
        new="SageQueueDescriptor(NAME, capacity_bytes=BYTES).attach()",
        keywords=_SAGE_KEYWORDS[:1],
        note="Say the size that the queue was made with, or hand its descriptor over.",
    ),
    Replacement(
        code="SQC008",
        names=("ring.SageQueueRef", "queue.get_reference"),
        old="queue.get_reference()",
        new="queue.descriptor",
        note="A descriptor can be pickled, compared and printed. Its queue: descriptor.open().",
    ),
    Replacement(
        code="SQC009",
        names=("ring.destroy_queue", "queue.destroy"),
        old="destroy_queue(NAME)",
        new="SageQueueDescriptor(NAME, capacity_bytes=BYTES).destroy()",
        note="Raises QueueNotFoundError where there is none. A queue goes by itself with its last handle.",
    ),
    Replacement(
        code="SQC010",
        names=("ring.cleanup_invalid_queues", "ring.cleanup_user_queues", "ring.list_all_sage_queues"),
        old="cleanup_invalid_queues()",
        new="sage_qd.ring.clean_segments()",
        note="In a shell: sage-qd clean, and sage-qd ls for the list.",
    ),
    Replacement(
        code="SQC011",
        names=("ring.SageQueueManager",),
        old="SageQueueManager().create_queue(NAME, BYTES)",
        new="a descriptor, kept where the queue is needed; QueueDescriptorPool for many",
        note="A descriptor opens its queue once and returns the same handle until it is closed.",
    ),
    Replacement(
        code="SQC012",
        names=("queue.get_stats", "queue.reset_stats", "queue.get_shared_memory_info"),
        old="queue.get_stats()",
        new='{"size": queue.qsize(), "empty": queue.empty(), "full": queue.full()}',
        is_automatic=True,
        note="queue.stats() has more: puts, gets, depth, waiting time, high water. Counters are never reset.",
    ),
    Replacement(
        code="SQC013",
        names=("adapter.is_sage_queue_available",),
        old="is_sage_queue_available()",
        new="(SageQueueDescriptor.missing_here() is None)",
        is_automatic=True,
        note="Makes no queue to find out. missing_here() says in words what is missing.",
    ),
    Replacement(
        code="SQC014",
        names=(
            "adapter.get_queue_backend_info",
            "adapter.get_recommended_queue_backend",
            "adapter.get_queue_backends",
            "adapter.get_queue_backend",
        ),
        old="get_recommended_queue_backend()",
        new="AutoQueueDescriptor(NAME).explain()",
        note="Says of each kind whether it can be used here and why not; in a shell: sage-qd explain.",
    ),
    Replacement(
        code="SQC015",
        names=(
            "fallback.QueueBackendType",
            "fallback.BackendCapabilities",
            "fallback.QueueBackendSelector",
            "fallback.get_optimal_queue_backend",
            "fallback.get_queue_backend_info_detailed",
        ),
        old="get_optimal_queue_backend(REQUIREMENTS)",
        new="AutoQueueDescriptor(NAME, ack=True, survives_crash=True, ...).explain().choice",
        note="Declare the needs on the descriptor; they are never given up.",
    ),
    Replacement(
        code="SQC016",
        names=(
            "config.QueueConfig",
            "config.QueueConfigManager",
            "config.get_default_config",
            "config.load_queue_config",
            "config.get_queue_config_from_env",
        ),
        old="load_queue_config(PATH)",
        new="BaseQueueDescriptor.from_uri(TEXT)",
        note="Keep the URI or the JSON of a descriptor in your configuration; SAGE_QUEUE_* is read no more.",
    ),
    Replacement(
        code="SQC017",
        names=("tool.QueueTool", "diagnostic.diagnose_queue_backends", "diagnostic.print_diagnosis_report"),
        old="python -m sage.utils.queue_tool info",
        new="sage-qd doctor, sage-qd ls, sage-qd bench, sage-qd top, sage-qd clean",
        note="The commands have --json for programs.",
    ),
    Replacement(
        code="SQC018",
        names=("descriptors.*",),
        old="from sage.platform.queue import SageQueueDescriptor",
        new="from sage_qd import SageQueueDescriptor",
        is_automatic=True,
        note="The same classes.",
    ),
    Replacement(
        code="SQC019",
        names=("adapter.QueueWrapper",),
        old="queue: QueueWrapper",
        new="queue: Queue",
        is_automatic=True,
        note="Every queue of sage_qd is an instance of sage_qd.Queue.",
    ),
    Replacement(
        code="SQC020",
        names=(),
        old='if str(error) == "Queue is empty"',
        new="except sage_qd.Empty",
        note="Exceptions are told apart by class: Empty, Full, QueueClosedError, MessageTooLargeError. Texts differ.",
    ),
    Replacement(
        code="SQC021",
        names=(),
        old='importlib.import_module("sage.utils.queue_adapter")',
        new="import sage_qd",
        note="The name is known at run time only, so it is for you to change; the census says whether it is used.",
    ),
    Replacement(
        code="SQC022",
        names=("*.*",),
        old="import sage.utils.queue_adapter",
        new="import sage_qd",
        note="An import of an old module, or a name in it that has no row of its own.",
    ),
)

BY_CODE: Final = {row.code: row for row in TABLE}
_BY_NAME: Final = {name: row for row in reversed(TABLE) for name in row.names}
_CALLS: Final = {"python": "SQC001", "sage": "SQC002", "ray": "SQC003", "auto": "SQC004"}
_ANY: Final = BY_CODE["SQC022"]
_PATHS: Final = sorted(
    ((path, family) for family, paths in FAMILIES.items() for path in paths), key=lambda pair: -len(pair[0])
)


def family_of(module: str) -> str | None:
    """Family of an old module; None for any other. That of ``sage_compat`` itself is ``top``."""
    if module == _TOP:
        return "top"
    for path, family in _PATHS:
        if module == path or (family in _OPEN_BELOW and module.startswith(f"{path}.")):
            return family
    return None


def is_old_module(name: str) -> bool:
    """Whether a dotted name is that of an old module, where ``sage_compat`` itself is none."""
    module, _, last = name.rpartition(".")
    if family_of(module) in _OPEN_BELOW and not any(name == path for path, _ in _PATHS):
        return _MODULE_BELOW.fullmatch(last) is not None
    return family_of(name) not in (None, "top")


def shortened(qualified: str) -> str | None:
    """
    Return an old name as ``family.name``; None for what is no old name.

    Args:
        qualified: Module and name with dots, such as ``sage.utils.queue_adapter.create_queue``.
    """
    module, _, name = qualified.rpartition(".")
    if is_old_module(qualified):
        return None
    family = family_of(module)
    if family == "top":  # which has the names of all its modules, and some of its own that are not old
        return next((short for short in (f"{each}.{name}" for each in FAMILIES) if short in _BY_NAME), None)
    return None if family is None else f"{family}.{name}"


def replacement_of(short: str, backend: str | None = None) -> Replacement:
    """
    Return the row for an old name.

    Args:
        short: The name as :func:`shortened` writes it, or ``queue.<method>``.
        backend: For ``adapter.create_queue``: the backend as it was spelled.
    """
    if short == "adapter.create_queue":
        return BY_CODE[_CALLS[BACKENDS.get(backend, "auto")]]
    return _BY_NAME.get(short) or _BY_NAME.get(f"{short.partition('.')[0]}.*") or _ANY


def code_of_call(function: str, backend: str | None, keywords: Mapping[str, object]) -> Replacement:
    """
    Return the row for a call that was seen at run time.

    Args:
        function: Name of the function or class, such as ``create_queue``; ``Class.method`` for a method, and
            ``sage_queue.create_queue`` for the other function of that name.
        backend: The backend as it was spelled.
        keywords: The arguments by name; ``queue_type`` is the older spelling of ``backend``.
    """
    owner, _, name = function.rpartition(".")
    if owner.endswith("SageQueueManager"):
        return _BY_NAME["ring.SageQueueManager"]
    if backend is None and isinstance(keywords.get("queue_type"), str):
        backend = str(keywords["queue_type"])
    for family in ("ring",) if owner.endswith("sage_queue") else (*FAMILIES, "queue"):
        short = f"{family}.{name}"
        if short in _BY_NAME:
            return replacement_of(short, backend)
    return _ANY
