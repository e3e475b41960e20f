"""The door of the old path to Ray: the actor that holds a queue, and how a handle finds and asks it."""

import uuid
from typing import Any, Final

import ray
from ray.exceptions import RayActorError

from sage_compat.legacy.ray_queue import LegacyRayQueue
from sage_qd import (
    GeometryMismatchError,
    LocalQueue,
    QueueLostError,
    QueueNotFoundError,
    QueueUnavailableError,
)

__all__ = ["open_queue"]

NAMESPACE: Final = "sage-compat"
CALLS_AT_ONCE: Final = 1000
"""Calls that may wait in an actor, each for a moment; those above it stand in line."""

Answer = tuple[bool, Any]


class QueueActor:
    """Holds the messages of one queue."""

    def __init__(self, maxsize: int) -> None:
        self._queue: LocalQueue[Any] = LocalQueue(maxsize)
        self._queue.follow(None)
        self._facts = (uuid.uuid4().hex, self._queue.maxsize)

    def facts(self) -> tuple[str, int]:
        """What stays the same: the instance, and the bound."""
        return self._facts

    def call(self, verb: str, arguments: tuple[Any, ...]) -> Answer:
        """Do what a handle asks: whether it was done, and the answer or what is to be raised."""
        try:
            return True, getattr(self._queue, verb)(*arguments)
        except Exception as error:  # noqa: BLE001  (whatever it is, the handle raises it)
            return False, error


class _ActorLink:
    """The way from one handle to its actor."""

    def __init__(self, actor: Any, endpoint: str) -> None:
        self._actor = actor
        self._endpoint = endpoint
        self.instance, self.maxsize = self._got(actor.facts.remote())

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Have the actor do something; return the answer, or raise what it is."""
        done, value = self._got(self._actor.call.remote(verb, arguments))
        if done:
            return value
        raise value

    def drop(self) -> None:
        """Give the actor up; it ends with whoever made it and all who were handed its queue."""
        self._actor = None

    def _got(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayActorError as error:
            raise QueueLostError(endpoint=self._endpoint, items_lost=True) from error


def open_queue(queue_id: str, maxsize: int, *, create: bool) -> LegacyRayQueue[Any]:
    """
    Open the queue of this name, making it if it is missing and that is allowed.

    Raises:
        QueueUnavailableError: Ray is not initialised in this process.
        QueueNotFoundError: It does not exist and may not be made.
        GeometryMismatchError: It exists with another bound.
    """
    endpoint = f"Ray queue {queue_id!r} of the old path"
    if not ray.is_initialized():
        raise QueueUnavailableError(endpoint=endpoint, reason="Ray is not initialised here; call ray.init() first")
    if create:
        options = {"get_if_exists": True, "num_cpus": 0, "max_concurrency": CALLS_AT_ONCE}
        actor = ray.remote(QueueActor).options(name=queue_id, namespace=NAMESPACE, **options).remote(maxsize)
    else:
        try:
            actor = ray.get_actor(queue_id, namespace=NAMESPACE)
        except ValueError:
            raise QueueNotFoundError(name=queue_id) from None
    link = _ActorLink(actor, endpoint)
    if create and link.maxsize != maxsize:
        raise GeometryMismatchError(name=queue_id, wanted={"maxsize": maxsize}, found={"maxsize": link.maxsize})
    return LegacyRayQueue(link, queue_id)
