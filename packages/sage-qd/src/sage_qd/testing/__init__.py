"""
The queue contract as a test suite, for the kinds of sage-qd and for those of others. Needs pytest.

::

    from sage_qd.testing import QueueContract

    class TestMyQueue(QueueContract):
        def make_descriptor(self, **settings):
            return MyQueueDescriptor(**settings)

A test that needs a capability which the kind does not declare is skipped, and names it. CPython's own tests of queues
run on a kind too, see :mod:`sage_qd.testing.standard`.
"""

from sage_qd.testing.contract import QueueContract
from sage_qd.testing.descriptors import DescriptorContract
from sage_qd.testing.processes import ProcessContract
from sage_qd.testing.standard import (
    standard_multiprocessing_tests,
    standard_queue_tests,
    standard_simple_queue_tests,
)
from sage_qd.testing.watching import Background, background, wait_for

__all__ = [
    "Background",
    "DescriptorContract",
    "ProcessContract",
    "QueueContract",
    "background",
    "standard_multiprocessing_tests",
    "standard_queue_tests",
    "standard_simple_queue_tests",
    "wait_for",
]
