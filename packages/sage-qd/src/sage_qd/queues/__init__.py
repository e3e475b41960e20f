"""Live queues: the interface in :mod:`sage_qd.queues.base`, and one module for each transport."""

from sage_qd.queues.base import Capabilities, Delivery, Lease, Ordering, Queue, QueueFigures, QueueStats, Reach

__all__ = ["Capabilities", "Delivery", "Lease", "Ordering", "Queue", "QueueFigures", "QueueStats", "Reach"]
