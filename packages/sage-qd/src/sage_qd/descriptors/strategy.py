"""
Which kind of queue a dataflow job gets for each place in it.

Subclass :class:`QueueCreationStrategy`, or make one with other needs, and hand it to the dispatcher. Its methods may be
called on the class as well, as on an object that was made without arguments.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Concatenate, Final, Generic, ParamSpec, TypeVar

from sage_qd.descriptors.auto import AutoQueueDescriptor
from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.explaining import Verdict, choose, rank
from sage_qd.descriptors.needs import Answer, Needs, answers_of, settings_for
from sage_qd.descriptors.registry import queue_kind
from sage_qd.errors import BackendUnavailableError, InvalidQueueNameError

__all__ = ["QueueCreationStrategy"]

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_MAXSIZE: Final = 1000
_LOCAL: Final = "sage_queue"
_REMOTE: Final = "ray_queue"
_PREFIXES: Final = ("input_", "service_request_", "service_response_")


class _OnObjectOrClass(Generic[P, R]):
    """A method that, called on the class, works on the class's object without arguments."""

    def __init__(self, function: Callable[Concatenate[Any, P], R]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, strategy: "QueueCreationStrategy | None", owner: "type[QueueCreationStrategy]") -> Callable[P, R]:
        return partial(self._function, owner.default() if strategy is None else strategy)


class QueueCreationStrategy:
    """
    Makes the descriptors of a job's queues; nothing is opened.

    Remote places get a ``ray_queue``. Local ones get a ``sage_queue``; where that cannot be used, the best other
    kind that meets every need, as ``auto`` chooses: a queue that is to reach processes never becomes one of threads.

    The names carry the job, and differ wherever job, task or service differ, whatever these are called. ``input_map``
    of the job ``etl`` is ``etl.input_map``; the queue from ``read`` to ``map`` is ``etl.read_to_map``.

    Args:
        job: Name of the job; made up when there is none, so that two jobs never meet. Give it where several processes
            make the descriptors of one job.
        **needs: What local queues must be able to do, as :class:`~sage_qd.AutoQueueDescriptor` takes it: ``reach``
            (``processes`` unless told otherwise), ``ack``, ``survives_crash``, ...
    """

    _defaults: ClassVar[dict[type, "QueueCreationStrategy"]] = {}

    def __init__(self, job: str | None = None, **needs: Any) -> None:
        self.job = f"job_{uuid.uuid4().hex[:8]}" if job is None else _checked(job)
        self._needs: Needs = AutoQueueDescriptor(self.job, **needs).needs

    @classmethod
    def default(cls) -> "QueueCreationStrategy":
        """Return the object that calls on the class use: one for each process, which its forked children share."""
        found = cls._defaults.get(cls)
        return cls._defaults.setdefault(cls, cls()) if found is None else found

    @_OnObjectOrClass
    def get_default_queue_params(self, /, is_remote: bool = False) -> dict[str, Any]:
        """Return the settings that a queue has where a call gives no others, as a new dictionary."""
        return {"maxsize": DEFAULT_MAXSIZE}

    @_OnObjectOrClass
    def create_task_input_queue(
        self, /, task_name: str, is_remote: bool = False, **settings: Any
    ) -> BaseQueueDescriptor:
        """
        Return the descriptor of the queue from which a task takes its messages.

        Args:
            task_name: The task.
            is_remote: Whether the job runs on a Ray cluster.
            **settings: Of the queue, instead of those of :meth:`get_default_queue_params`.

        Raises:
            NoBackendError: No kind meets the needs of this strategy and has these settings.
        """
        return self._made(f"input_{_quoted(task_name)}", is_remote, settings)

    @_OnObjectOrClass
    def create_inter_task_queue(
        self, /, source_task: str, target_task: str, is_remote: bool = False, **settings: Any
    ) -> BaseQueueDescriptor:
        """Return the descriptor of the queue from one task to another; see :meth:`create_task_input_queue`."""
        return self._made(f"{_quoted_source(source_task)}_to_{_quoted(target_task)}", is_remote, settings)

    @_OnObjectOrClass
    def create_service_request_queue(
        self, /, service_name: str, is_remote: bool = False, **settings: Any
    ) -> BaseQueueDescriptor:
        """Return the descriptor of the queue from which a service takes requests."""
        return self._made(f"service_request_{_quoted(service_name)}", is_remote, settings)

    @_OnObjectOrClass
    def create_service_response_queue(
        self, /, caller_name: str, is_remote: bool = False, **settings: Any
    ) -> BaseQueueDescriptor:
        """Return the descriptor of the queue from which a caller of services takes their answers."""
        return self._made(f"service_response_{_quoted(caller_name)}", is_remote, settings)

    # -- The choice ---------------------------------------------------------------------------------------------------

    def _made(self, name: str, is_remote: bool, settings: dict[str, Any]) -> BaseQueueDescriptor:
        wanted = self.get_default_queue_params(is_remote) | settings
        queue_id = f"{_quoted(self.job).replace('.', '%2E')}.{name}"
        if is_remote:
            return queue_kind(_REMOTE)(queue_id=queue_id, **wanted)
        maxsize = wanted.get("maxsize", 0)
        needs = replace(self._needs, maxsize=max(maxsize, 0) if type(maxsize) is int else self._needs.maxsize)
        kind = queue_kind(_LOCAL if _is_usable(_LOCAL, needs) else self._instead(queue_id, needs, wanted))
        return kind(queue_id=queue_id, **settings_for(kind, needs) | wanted)

    def _instead(self, queue_id: str, needs: Needs, wanted: dict[str, Any]) -> str:
        """Return the best other kind that meets the needs and has every setting that was given."""
        found = choose(queue_id, needs)
        verdicts = tuple(_asked_for_settings(verdict, wanted) for verdict in found.verdicts)
        fitting = [each for each in verdicts if each.fits]
        if not fitting:
            raise replace(found, verdicts=verdicts, choice=None).error()
        return min(fitting, key=partial(rank, message_bytes=found.message_bytes)).kind


def _is_usable(name: str, needs: Needs) -> bool:
    """Whether a kind meets the needs and can be used here; the others are not looked at."""
    try:
        kind = queue_kind(name)
    except BackendUnavailableError:
        return False
    return kind.missing_here() is None and all(answer.met for answer in answers_of(kind, needs))


def _asked_for_settings(verdict: Verdict, wanted: dict[str, Any]) -> Verdict:
    """Add what a kind says to the settings that were given: dropping one would be another queue."""
    if not verdict.fits:
        return verdict
    lacking = sorted(wanted.keys() - {setting.name for setting in queue_kind(verdict.kind).settings})
    if not lacking:
        return verdict
    return replace(
        verdict, answers=(*verdict.answers, Answer("settings", False, f"it has no setting {', '.join(lacking)}"))
    )


# -- Names: each is read in one way only ------------------------------------------------------------------------------


def _checked(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"names of jobs, tasks and services are text, not {name!r:.80}")
    if not name:
        raise InvalidQueueNameError(name=name, rule="it is empty")
    return name


def _quoted(name: str) -> str:
    return _checked(name).replace("%", "%25")


def _quoted_source(name: str) -> str:
    """Quote the source of an edge so that the first ``_to_`` is where it ends, and it is no input and no service."""
    quoted = _quoted(name)
    if "_to" in quoted or f"{quoted}_".startswith(_PREFIXES):
        return quoted.replace("_", "%5F")
    return quoted
