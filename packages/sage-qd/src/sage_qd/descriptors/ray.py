"""Descriptor of the queue for a Ray cluster."""

import importlib
from contextlib import nullcontext
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Final, overload

from sage_qd.codecs import check_codec_name
from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.settings import Setting, arranged
from sage_qd.errors import BackendUnavailableError
from sage_qd.queues.abilities import RAY
from sage_qd.queues.base import Capabilities

if TYPE_CHECKING:
    from sage_qd.queues.ray_queue import RayQueue

__all__ = ["RayQueueDescriptor", "behind_ray", "clean_ray"]

DEFAULT_NAMESPACE: Final = "sage-qd"
_LARGEST_MAXSIZE: Final = 2**31 - 1
_SHIPPED_ORDER: Final = ("maxsize", "queue_id")


def _check_text(what: str, text: str) -> None:
    if not text or not text.isprintable() or len(text) > 256:
        raise ValueError(f"{what} must be 1 to 256 printable characters, not {text!r:.80}")


class RayQueueDescriptor(BaseQueueDescriptor):
    """
    Names a :class:`~sage_qd.RayQueue`: a queue for the tasks, actors and drivers of a Ray cluster.

    Opening needs ``ray.init`` first, and never calls it. The queue lives in an actor on its home node and ends with its
    last user anywhere in the cluster, unless it is detached or durable.

    Args:
        queue_id: Any text; made up when there is none.
        maxsize: Exact bound in messages; 0 or less for bounded by bytes alone. ``max_items`` is the same.
        capacity_bytes: Size of the ring at home, rounded up to a power of two.
        namespace: Ray namespace of the actor, whatever that of the job is.
        codec: How messages become bytes: ``pickle``, ``msgpack``, ``json`` or ``raw``.
        window: How many batches of a handle on another node may be under way.
        durable: Whether the queue and its messages outlive its users and the death of its actor, which Ray then
            restarts; it stays until :meth:`destroy`. It does not outlive the uptime of its home node.
        detached: Whether the queue outlives its users, until :meth:`destroy` or :func:`~sage_qd.clean_ray`.
        node_id: The home node, as Ray names it; None for the node where the queue is first opened.
    """

    queue_type = "ray_queue"
    can_serialize = True
    uri_scheme: ClassVar[str | None] = "ray"
    capabilities: ClassVar[Capabilities | None] = RAY
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="maxsize", type=int, default=0, low=0, high=_LARGEST_MAXSIZE, uri_name="max_items"),
        Setting(name="capacity_bytes", type=int, default=1 << 22, low=1, high=1 << 34),
        Setting(
            name="namespace", type=str, default=DEFAULT_NAMESPACE, check=lambda text: _check_text("namespace", text)
        ),
        Setting(name="codec", type=str, default="pickle", check=check_codec_name),
        Setting(name="window", type=int, default=4, low=1, high=64),
        Setting(name="durable", type=bool, default=False),
        Setting(name="detached", type=bool, default=False),
        Setting(name="node_id", type=str, default=None, optional=True, check=partial(_check_text, "node_id")),
    )

    maxsize: int
    capacity_bytes: int
    namespace: str
    codec: str
    window: int
    durable: bool
    detached: bool
    node_id: str | None

    @overload
    def __init__(
        self,
        queue_id: str | None = None,
        *,
        maxsize: int = 0,
        max_items: int = 0,
        capacity_bytes: int = 1 << 22,
        namespace: str = DEFAULT_NAMESPACE,
        codec: str = "pickle",
        window: int = 4,
        durable: bool = False,
        detached: bool = False,
        node_id: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        maxsize: int,
        queue_id: str | None = None,
        *,
        capacity_bytes: int = 1 << 22,
        namespace: str = DEFAULT_NAMESPACE,
        codec: str = "pickle",
        window: int = 4,
        durable: bool = False,
        detached: bool = False,
        node_id: str | None = None,
    ) -> None: ...

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        given = arranged(positional, keywords, _SHIPPED_ORDER)
        super().__init__(**given)

    def _open_queue(self, create: bool) -> "RayQueue[Any]":
        shared = ("maxsize", "capacity_bytes", "codec", "durable", "detached")
        queue: RayQueue[Any] = _ray_actor().open_queue(
            self.queue_id,
            namespace=self.namespace,
            settings={name: getattr(self, name) for name in shared},
            window=self.window,
            node_id=self.node_id,
            create=create,
        )
        return queue

    def destroy(self) -> None:
        """
        End the queue with its messages and its actor: all other handles find it lost. Closes it here.

        Raises:
            QueueNotFoundError: It does not exist.
            QueueLostError: Its actor is gone already.
            QueueUnavailableError: Ray is not initialised in this process.
            OutcomeUnknownError: It was sent, and no answer came.
        """
        self.open(create=False).destroy()

    if TYPE_CHECKING:  # the same methods; only the type of the queue is known here

        def open(self, create: bool | None = None) -> "RayQueue[Any]": ...  # noqa: D102
        def attach(self) -> "RayQueue[Any]": ...  # noqa: D102


def clean_ray(
    namespace: str | None = None, *, discard: bool = False, dry_run: bool = False, address: str | None = None
) -> list[str]:
    """
    End the queues of a Ray cluster that nobody uses: detached and durable ones that were forgotten.

    Args:
        namespace: Only those of this Ray namespace.
        discard: Also those that hold messages, which go with them.
        dry_run: End nothing; say what would.
        address: Connect to this cluster for the call, where Ray is not initialised in this process: ``"auto"``, or
            ``host:port`` of its head.

    Returns:
        ``namespace/queue_id`` of those that ended, sorted.

    Raises:
        QueueUnavailableError: Ray is not initialised in this process, or there is no cluster at ``address``.
        RuntimeError: An address was given, and Ray is initialised already.
        BackendUnavailableError: Ray is not installed.
    """
    actors = _ray_actor()
    with nullcontext() if address is None else actors.connected(address):
        cleaned: list[str] = actors.clean(namespace, discard, dry_run)
    return cleaned


def behind_ray(module: str, what: str) -> ModuleType:
    """
    Import a module that needs Ray.

    Args:
        module: Its whole name.
        what: What cannot be used without it.

    Raises:
        BackendUnavailableError: Ray is not installed, or the compiled ring is not.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BackendUnavailableError(
            backend=what, missing=f"Ray and the compiled ring ({error})", install="pip install 'sage-qd[ray]'"
        ) from error


def _ray_actor() -> ModuleType:
    """The module of the queues that needs Ray."""
    return behind_ray("sage_qd.queues.ray_actor", "ray_queue")
