"""The adapters of our own ring and queue, made of the public names only."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from channels import Channel, End, Shape


class SageRing(Channel):
    """The ring as it is made when nothing is said: any number of producers and consumers, both locks."""

    name, distribution, module = "sage-qd", "sage-qd", "sage_qd"
    roles: ClassVar[dict[str, bool]] = {}

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        self.path = folder / "ring"
        room = self.ring_module().create(path=self.path, capacity_bytes=shape.capacity_bytes, **self.roles)
        room.close()

    @staticmethod
    def ring_module() -> Any:
        """The package ``sage_qd.ring``."""
        return importlib.import_module("sage_qd.ring")

    def open(self) -> Any:
        """This process's handle."""
        return self.ring_module().attach(path=self.path)

    def sender(self, index: int) -> End:
        ring = self.open()
        return End(put=ring.put, put_many=ring.put_many, close=ring.close)

    def receiver(self, index: int) -> End:
        ring = self.open()
        return End(get=ring.get, get_many=ring.get_many, close=ring.close)

    def both(self) -> End:
        ring = self.open()
        return End(put=ring.put, get=ring.get, put_many=ring.put_many, get_many=ring.get_many, close=ring.close)


class SageRingRoles(SageRing):
    """The ring with both roles declared, as a one-to-one user may: no lock on either side."""

    name = "sage-qd, roles declared"
    roles: ClassVar = {"single_producer": True, "single_consumer": True}


class SageQueue(Channel):
    """The queue with its pickle codec, opened from its descriptor."""

    name, distribution, module = "sage-qd queue", "sage-qd", "sage_qd"
    roles: ClassVar[dict[str, bool]] = {}

    def __init__(self, folder: Path, shape: Shape) -> None:
        super().__init__(folder, shape)
        self.descriptor = importlib.import_module("sage_qd").SageQueueDescriptor(
            "queue",
            namespace="-".join(folder.parts[-3:]),
            capacity_bytes=shape.capacity_bytes,
            spill_threshold=shape.capacity_bytes // 2 - 4096,  # arrays stay in the ring
            **self.roles,
        )
        self.kept = self.descriptor.open()

    def sender(self, index: int) -> End:
        opened = self.descriptor.open()
        return End(
            put=opened.put,
            put_many=opened.put_many,
            put_array=opened.put,
            pickles=True,
            close=opened.close,
            holds=[opened],
        )

    def receiver(self, index: int) -> End:
        opened = self.descriptor.open()

        def look(check: Callable[[Any], None]) -> None:
            with opened.lease() as lease:
                check(lease.value)

        return End(
            get=opened.get,
            get_many=opened.get_many,
            get_array=opened.get,
            look=look,
            pickles=True,
            close=opened.close,
            holds=[opened],
        )

    def remove(self) -> None:
        self.kept.unlink()  # other crews' processes were forked meanwhile and count as users of this handle
        self.kept.close()


class SageQueueRoles(SageQueue):
    """The queue with both roles declared."""

    name = "sage-qd queue, roles declared"
    roles = SageRingRoles.roles


OURS: dict[str, type[Channel]] = {kind.name: kind for kind in (SageRing, SageRingRoles, SageQueue, SageQueueRoles)}
