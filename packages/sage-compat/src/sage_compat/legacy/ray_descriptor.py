"""The kind ``legacy_ray_queue``: the old path of a Ray cluster as a descriptor, to be moved to and from."""

from typing import Any, ClassVar

from sage_compat.legacy.ray_queue import LEGACY_RAY
from sage_qd import BaseQueueDescriptor, Capabilities, RayQueueDescriptor, Setting, register_queue_type
from sage_qd.descriptors.ray import behind_ray

__all__ = ["LegacyRayQueueDescriptor"]


class LegacyRayQueueDescriptor(BaseQueueDescriptor):
    """
    Names a :class:`~sage_compat.legacy.ray_queue.LegacyRayQueue`.

    Args:
        queue_id: Any text.
        maxsize: Exact bound in messages; 0 for no bound.
    """

    queue_type = "legacy_ray_queue"
    can_serialize = True
    uri_scheme: ClassVar[str | None] = "legacy_ray_queue"
    capabilities: ClassVar[Capabilities | None] = LEGACY_RAY
    settings: ClassVar[tuple[Setting, ...]] = (Setting(name="maxsize", type=int, default=0, low=0, high=2**31 - 1),)

    maxsize: int

    @classmethod
    def missing_here(cls) -> str | None:
        """Return in words what keeps queues from being opened here: what keeps those of the new way."""
        return RayQueueDescriptor.missing_here()

    def _open_queue(self, create: bool) -> Any:
        actors = behind_ray("sage_compat.legacy.ray_actor", self.queue_type)
        return actors.open_queue(self.queue_id, self.maxsize, create=create)


register_queue_type(LegacyRayQueueDescriptor.queue_type, LegacyRayQueueDescriptor)  # spares a look at entry points
