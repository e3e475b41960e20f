"""Descriptor that says what a queue must be able to do, and leaves it to this program which kind it is."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final, Self

from sage_qd.descriptors.base import BaseQueueDescriptor
from sage_qd.descriptors.explaining import AUTO, DEFAULT_MESSAGE_BYTES, Explanation, choose
from sage_qd.descriptors.needs import (
    HERE,
    ORDERINGS,
    REACHES,
    Needs,
    check_endpoint,
    check_places,
    settings_for,
)
from sage_qd.descriptors.registry import queue_kind
from sage_qd.descriptors.settings import Setting
from sage_qd.queues.base import Queue, Reach
from sage_qd.queues.names import segment_name

__all__ = ["AutoQueueDescriptor"]

_NO_NAMESPACE: Final = "default"


def _one_of(words: dict[str, Any]) -> Callable[[str], None]:
    def check(text: str) -> None:
        if text not in words:
            raise ValueError(f"it must be one of {', '.join(words)}, not {text!r:.80}")

    return check


class AutoQueueDescriptor(BaseQueueDescriptor):
    """
    Names a queue by what it must be able to do; of the kinds that can, one is taken.

    It is the one that reaches no farther than it must, and of these the cheapest that can be used here.
    :meth:`resolve` chooses, once, as do :meth:`open` and :meth:`to_serializable_descriptor`. From then on JSON, pickle
    and dictionary are those of the chosen descriptor, so that all processes use the same queue: resolve in one place
    and send the result. Before, they are the needs, and whoever reads them chooses anew.

    Without a declared reach or place the queue reaches the processes of this host. No need is ever given up: when no
    kind meets them all, ``NoBackendError`` says of each why not. :meth:`explain` shows the same, without choosing.

    Args:
        queue_id: Any text; made up when there is none.
        reach: How far apart the two ends are: ``threads``, ``processes`` or ``hosts``.
        producers: Where producers are: ``process`` (this one), ``host`` (this one), ``ray`` (the cluster that this
            process belongs to), or names of hosts; several as a sequence.
        consumers: Where consumers are.
        maxsize: Bound in messages; 0 or less for none. ``max_items`` is the same.
        max_bytes: Bound in bytes.
        ack: Messages on trial, settled by ack or nack. ``lease`` is the same.
        views: Messages shown in place.
        joins: ``task_done`` and ``join``.
        same_object: ``get`` returns the very object that was put.
        survives_crash: A process killed at any moment leaves the queue usable.
        durable: Accepted messages outlive everybody who uses the queue.
        ordering: ``fifo`` for one line, ``per_producer`` where each producer's order is enough.
        namespace: Keeps queues of one name apart from those of other programs.
        endpoint: ``host:port`` of a queue server that may be used.
        message_bytes: Size of a typical message, for the estimate of costs.
    """

    queue_type = AUTO
    uri_scheme: ClassVar[str | None] = "auto"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="reach", type=str, default=None, optional=True, check=_one_of(REACHES)),
        Setting(name="producers", type=str, default=None, optional=True, check=check_places),
        Setting(name="consumers", type=str, default=None, optional=True, check=check_places),
        Setting(name="maxsize", type=int, default=0, low=0, high=2**31 - 1, uri_name="max_items"),
        Setting(name="max_bytes", type=int, default=None, optional=True, low=1, high=1 << 34),
        Setting(name="ack", type=bool, default=False),
        Setting(name="views", type=bool, default=False),
        Setting(name="joins", type=bool, default=False),
        Setting(name="same_object", type=bool, default=False),
        Setting(name="survives_crash", type=bool, default=False),
        Setting(name="durable", type=bool, default=False),
        Setting(name="ordering", type=str, default=None, optional=True, check=_one_of(ORDERINGS)),
        Setting(name="namespace", type=str, default=_NO_NAMESPACE, check=segment_name),
        Setting(name="endpoint", type=str, default=None, optional=True, check=check_endpoint),
        Setting(name="message_bytes", type=int, default=DEFAULT_MESSAGE_BYTES, low=0, high=1 << 34),
    )

    reach: str | None
    producers: str | None
    consumers: str | None
    maxsize: int
    max_bytes: int | None
    ack: bool
    views: bool
    joins: bool
    same_object: bool
    survives_crash: bool
    durable: bool
    ordering: str | None
    namespace: str
    endpoint: str | None
    message_bytes: int

    _resolved: BaseQueueDescriptor | None

    def __init__(
        self,
        queue_id: str | None = None,
        *,
        producers: str | Iterable[str] | None = None,
        consumers: str | Iterable[str] | None = None,
        **needs: Any,
    ) -> None:
        if "lease" in needs:
            if "ack" in needs:
                raise TypeError("ack and lease are the same; give one of them")
            needs["ack"] = needs.pop("lease")
        super().__init__(queue_id, producers=_joined(producers), consumers=_joined(consumers), **needs)
        self._freeze(_resolved=None)

    @property
    def needs(self) -> Needs:
        """What the queue must be able to do."""
        near = Reach.PROCESSES if self.producers is None and self.consumers is None else Reach.THREADS
        return Needs(
            reach=near if self.reach is None else REACHES[self.reach],
            producers=self.producers,
            consumers=self.consumers,
            maxsize=self.maxsize,
            max_bytes=self.max_bytes,
            lease=self.ack,
            views=self.views,
            joins=self.joins,
            same_object=self.same_object,
            survives_crash=self.survives_crash,
            durable=self.durable,
            ordering=None if self.ordering is None else ORDERINGS[self.ordering],
            namespace=None if self.namespace == _NO_NAMESPACE else self.namespace,
            endpoint=self.endpoint,
        )

    # -- Choosing -----------------------------------------------------------------------------------------------------

    def resolve(self) -> BaseQueueDescriptor:
        """
        Return the descriptor of the kind that is taken: chosen now, or the one that was chosen before.

        Raises:
            NoBackendError: No kind meets all needs and can be used here; says of each why not.
        """
        with self._opening:
            if self._resolved is None:
                self._freeze(_resolved=self._chosen())
            return self._resolved  # type: ignore[return-value]  # it was just set

    def _chosen(self) -> BaseQueueDescriptor:
        found = self.explain()
        if found.choice is None:
            raise found.error()
        kind = queue_kind(found.choice)
        chosen = kind(queue_id=self.queue_id, **settings_for(kind, found.needs))
        chosen._freeze(
            created_timestamp=self.created_timestamp,
            instance=self.instance,
            _extensions=self._extensions,
            _may_create=self._may_create,
        )
        return chosen

    @property
    def is_resolved(self) -> bool:
        """Whether the kind was chosen."""
        return self._resolved is not None

    def explain(self) -> Explanation:
        """Return for every kind whether it meets the needs, with reasons, costs and the choice; chooses nothing."""
        taken = None if self._resolved is None else self._resolved.queue_type
        return choose(self.queue_id, self.needs, self.message_bytes, taken)

    def _open_queue(self, create: bool) -> Queue[Any]:
        return self.resolve()._open_queue(create)

    def _opened(self, create: bool) -> Queue[Any]:
        return self.resolve()._opened(create)

    def clone(self, new_queue_id: str | None = None) -> Self:
        """Return a copy that has made the same choice; see :meth:`BaseQueueDescriptor.clone`."""
        cloned = super().clone(new_queue_id)
        if self._resolved is not None:
            cloned._freeze(_resolved=self._resolved.clone(new_queue_id))
        return cloned

    # -- As data ------------------------------------------------------------------------------------------------------

    @property
    def can_serialize(self) -> bool:
        """Whether it means the same queue in another process: as the chosen kind says, else if it is to reach one."""
        if self._resolved is not None:
            return self._resolved.can_serialize
        if self.producers is None and self.consumers is None:
            return self.reach != "threads"
        return self.reach not in (None, "threads") or (self.producers, self.consumers) != (HERE, HERE)

    def to_serializable_descriptor(self) -> BaseQueueDescriptor:
        """Choose, and return a descriptor of the chosen kind that means this queue in other processes too."""
        return self.resolve().to_serializable_descriptor()

    def to_dict(self, include_non_serializable: bool = False) -> dict[str, Any]:
        """Return the chosen descriptor as a document, or the needs where nothing was chosen yet."""
        if self._resolved is not None:
            return self._resolved.to_dict(include_non_serializable)
        return super().to_dict(include_non_serializable)

    def to_uri(self) -> str:
        """Return the chosen descriptor as one line, or the needs where nothing was chosen yet."""
        return super().to_uri() if self._resolved is None else self._resolved.to_uri()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return super().__reduce__() if self._resolved is None else self._resolved.__reduce__()

    def __repr__(self) -> str:
        text = super().__repr__()
        return text if self._resolved is None else f"{text[:-1]}, taken: {self._resolved!r}>"


def _joined(places: str | Iterable[str] | None) -> str | None:
    """Return places as one text; what is no text at all is left for the check of the setting."""
    if places is None or isinstance(places, str) or not isinstance(places, Iterable):
        return places
    return ",".join(places)
