"""Messages that one request took on trial: settled together, however the queue leases them."""

from typing import Any, TypeAlias

from sage_qd.queues.base import Lease
from sage_qd.queues.rpc.wire import Item
from sage_qd.ring import Leases

__all__ = ["Held"]

_Part: TypeAlias = tuple[int, Leases | Lease[Any]]


class Held:
    """Leases of one request, in order, and their messages as the wire has them."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.attempts: list[int] = []
        """How often each message came back before; empty where none did."""
        self._parts: list[_Part] = []

    def __len__(self) -> int:
        return len(self.items)

    def add(self, lease: Lease[Any], item: Item) -> None:
        """Hold one more message."""
        self._hold(lease, [item], [lease.attempt] if lease.attempt else [])

    def add_many(self, leases: Leases) -> None:
        """Hold what a ring leased in one turn."""
        self._hold(leases, leases.items, leases.attempts)

    def _hold(self, part: Leases | Lease[Any], items: list[Item], attempts: list[int]) -> None:
        if attempts or self.attempts:
            before = self.attempts or [0] * len(self.items)
            self.attempts = before + (attempts or [0] * len(items))
        self._parts.append((len(items), part))
        self.items += items

    def settle(self, acked: int) -> None:
        """Ack the first so many messages and give back the others, all of them; raises the first fault."""
        first: Exception | None = None
        for count, part in self._parts:
            try:
                if isinstance(part, Leases):
                    part.settle(min(max(acked, 0), count))
                elif acked > 0:
                    part.ack()
                else:
                    part.nack()
            except Exception as error:  # noqa: BLE001  (the rest is settled before it is told)
                first = first or error
            acked -= count
        if first is not None:
            raise first
