"""
What queues are doing, seen from outside: states, rates, who waits for whom, and exporters.

Nothing in here takes part in a queue between processes. Segments are read from read-only mappings, without a lock, and
processes through ``/proc``; killing a monitor changes nothing.
"""

from sage_qd.monitor.cleaning import clean_host
from sage_qd.monitor.inspection import inspect_queue, inspect_ring
from sage_qd.monitor.rates import Sample, Sampler, SlowConsumer
from sage_qd.monitor.sources import queue_states, register_source
from sage_qd.monitor.states import QueueState, state_of
from sage_qd.monitor.waits import Wait, WaitGraph, wait_graph

__all__ = [
    "QueueState",
    "Sample",
    "Sampler",
    "SlowConsumer",
    "Wait",
    "WaitGraph",
    "clean_host",
    "inspect_queue",
    "inspect_ring",
    "queue_states",
    "register_source",
    "state_of",
    "wait_graph",
]
