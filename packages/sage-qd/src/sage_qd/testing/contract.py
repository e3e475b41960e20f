"""What every queue does, whatever its kind: all the rules in one class."""

from sage_qd.testing.asynchronous import AsyncRules
from sage_qd.testing.endings import EndingRules
from sage_qd.testing.leases import LeaseRules
from sage_qd.testing.messages import MessageRules
from sage_qd.testing.readiness import ReadinessRules

__all__ = ["QueueContract"]


class QueueContract(MessageRules, LeaseRules, EndingRules, ReadinessRules, AsyncRules):
    """
    The contract of :class:`~sage_qd.Queue`; subclass it and say how to make a descriptor.

    The tests put ``bytes``, text, numbers and lists, which every codec but ``raw`` brings back as equal objects.
    """
