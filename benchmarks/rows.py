"""The rows of the table: which contenders run in which topology. What they must reach is in ``gates.toml``.

A row is a function that returns its entries; its name is its key in ``gates.toml``. The first entry of a row is the one
pytest-benchmark sees.
"""

from __future__ import annotations

from collections.abc import Callable

import administration as admin
import coding
from arena import Entry, cores
from channels import SMALL, Shape
from large import arrays, large_bytes, large_get, plain_memcpy
from latency import pair, round_trip, wake
from throughput import batches, crowd, object_batches, objects, stream
from topologies import Topology

RING, ROLES = "sage-qd", "sage-qd, roles declared"
QUEUE, QUEUE_ROLES = "sage-qd queue", "sage-qd queue, roles declared"
FLOOR, MEMCPY = "floor", "memcpy"
MEGABYTE = Shape(item_bytes=1 << 20, capacity_bytes=1 << 23)
# Room for four arrays, which is what iceoryx2 gets; ours, whose records have headers, holds three.
MEGABYTE_ARRAYS = Shape(item_bytes=1 << 20, capacity_bytes=1 << 22)
SIXTEEN_MEGABYTE_ARRAYS = Shape(item_bytes=1 << 24, capacity_bytes=1 << 26)

ROWS: dict[str, Callable[[], list[Entry]]] = {}


class NotPossibleError(Exception):
    """This machine cannot run the row; the text says why."""


def row(build: Callable[[], list[Entry]]) -> Callable[[], list[Entry]]:
    """Register a row under its function's name."""
    ROWS[build.__name__] = build
    return build


def entries(topology: Topology, *names: str, shape: Shape = SMALL, pinned: tuple[int, ...] = ()) -> list[Entry]:
    """The named contenders, all with the same topology, shape and cores."""
    return [Entry(name, topology, shape, pinned) for name in names]


def two_cores() -> tuple[int, ...]:
    """A core for each of two processes."""
    available = cores()
    if len(available) < 2:
        raise NotPossibleError("this process may use one core only")
    return available[0], available[1]


def one_core() -> tuple[int, ...]:
    """The same core for all processes."""
    return (cores()[0],)


@row
def one_to_one() -> list[Entry]:
    peers = (FLOOR, "cloudtoid", "subetha polling", "pyzmq ipc", "faster-fifo raw", "multiprocessing.Queue")
    return entries(stream(), RING, ROLES, *peers, pinned=two_cores())


@row
def one_to_one_on_one_core() -> list[Entry]:
    return entries(stream(), RING, ROLES, FLOOR, "cloudtoid", "multiprocessing.Queue", pinned=one_core())


@row
def one_to_one_batches() -> list[Entry]:
    peers = (FLOOR, "subetha polling", "mmbus", "faster-fifo raw")
    return entries(batches(), RING, ROLES, *peers, pinned=two_cores())


@row
def one_to_one_objects() -> list[Entry]:
    made = entries(objects(), QUEUE, QUEUE_ROLES, "cloudtoid", "multiprocessing.Queue", pinned=two_cores())
    many = Entry(QUEUE, object_batches(), cores=two_cores(), label="sage-qd queue, put_many")
    floor = Entry(FLOOR, objects(), cores=two_cores(), label="floor + pickle")
    return [*made[:2], many, floor, *made[2:]]


@row
def pair_in_one_thread() -> list[Entry]:
    return entries(pair(), RING, ROLES, FLOOR, "queue.SimpleQueue", "cloudtoid", "queue.Queue")


@row
def round_trip_on_two_cores() -> list[Entry]:
    peers = (FLOOR, "subetha polling", "multiprocessing.Pipe", "cloudtoid", "multiprocessing.Queue")
    return entries(round_trip(), RING, ROLES, *peers, pinned=two_cores())


@row
def round_trip_on_one_core() -> list[Entry]:
    peers = (FLOOR, "multiprocessing.Pipe", "cloudtoid", "multiprocessing.Queue")
    return entries(round_trip(), RING, ROLES, *peers, pinned=one_core())


@row
def wake_on_two_cores() -> list[Entry]:
    return entries(wake(), RING, FLOOR, "cloudtoid", "multiprocessing.Pipe", pinned=two_cores())


@row
def wake_on_one_core() -> list[Entry]:
    return entries(wake(), RING, FLOOR, "cloudtoid", "multiprocessing.Pipe", pinned=one_core())


@row
def two_by_two() -> list[Entry]:
    return many_to_many(2)


@row
def eight_by_eight() -> list[Entry]:
    return many_to_many(8)


def many_to_many(parties: int) -> list[Entry]:
    """As many producers as consumers on one queue, placed by the scheduler."""
    shape = Shape(senders=parties, receivers=parties)
    names = (RING, "cloudtoid", "pyzmq ipc", "faster-fifo raw", "multiprocessing.Queue")
    return entries(crowd(parties), *names, shape=shape)


def reference_copy(shape: Shape) -> Entry:
    """A plain memcpy of one item."""
    return Entry(MEMCPY, plain_memcpy(), shape, kind=admin.PlainCopy)


@row
def megabyte_streamed() -> list[Entry]:
    made = entries(large_bytes(), RING, FLOOR, "iceoryx2", "cloudtoid", "multiprocessing.Queue", shape=MEGABYTE)
    return [*made, reference_copy(MEGABYTE)]


@row
def megabyte_get() -> list[Entry]:
    made = entries(large_get(), RING, FLOOR, "iceoryx2", "cloudtoid", "multiprocessing.Queue", shape=MEGABYTE)
    return [*made, reference_copy(MEGABYTE)]


@row
def megabyte_array_copy() -> list[Entry]:
    made = entries(arrays(False), QUEUE, "iceoryx2", "pyzmq ipc", "multiprocessing.Queue", shape=MEGABYTE_ARRAYS)
    return [*made, reference_copy(MEGABYTE_ARRAYS)]


@row
def sixteen_megabyte_array_copy() -> list[Entry]:
    made = entries(
        arrays(False), QUEUE, "iceoryx2", "pyzmq ipc", "multiprocessing.Queue", shape=SIXTEEN_MEGABYTE_ARRAYS
    )
    return [*made, reference_copy(SIXTEEN_MEGABYTE_ARRAYS)]


@row
def megabyte_array_view() -> list[Entry]:
    return entries(arrays(True), QUEUE, "iceoryx2", shape=MEGABYTE_ARRAYS)


@row
def sixteen_megabyte_array_view() -> list[Entry]:
    return entries(arrays(True), QUEUE, "iceoryx2", shape=SIXTEEN_MEGABYTE_ARRAYS)


@row
def create() -> list[Entry]:
    return [
        Entry(RING, admin.creations(), kind=admin.RingMaker),
        Entry(FLOOR, admin.creations(), kind=admin.FloorMaker),
    ]


@row
def attach() -> list[Entry]:
    return [
        Entry(RING, admin.attachments(), kind=admin.RingMaker),
        Entry(FLOOR, admin.attachments(), kind=admin.FloorMaker),
    ]


@row
def thousand_rings() -> list[Entry]:
    """All entries work in one process each; see the README for why the last two lines are shown."""
    return [
        Entry(RING, pair(), kind=admin.ManyRings, label="sage-qd, one of 1000"),
        Entry(RING, admin.visits(admin.VISIT), kind=admin.ManyRings, label="sage-qd, 1000 in turn, 100 pairs each"),
        Entry(RING, admin.visits(1), kind=admin.ManyRings, label="sage-qd, 1000 in turn, 1 pair each"),
        Entry(RING, pair(), kind=admin.OneRing, label="sage-qd, the only one"),
        Entry(FLOOR, pair(), label="floor, the only one"),
        Entry(FLOOR, admin.visits(1), kind=admin.ManyFloors, label="floor, 1000 in turn, 1 pair each"),
    ]


@row
def thousand_rings_memory() -> list[Entry]:
    return [
        Entry(RING, admin.memory(), kind=admin.ManyRings),
        Entry(FLOOR, admin.memory(), kind=admin.ManyFloors),
    ]


# -- kinds of queues ---------------------------------------------------------------------------------------------------


@row
def facade_pair() -> list[Entry]:
    return entries(pair(), "sage-qd descriptor", QUEUE, RING)


@row
def local_pair() -> list[Entry]:
    return entries(pair(), "sage-qd local", "queue.Queue", "queue.SimpleQueue")


@row
def kinds_one_to_one() -> list[Entry]:
    return entries(stream(), QUEUE, "sage-qd shm", "multiprocessing.Queue", pinned=two_cores())


@row
def kinds_batches() -> list[Entry]:
    return entries(batches(), QUEUE, "sage-qd shm", "multiprocessing.Queue of lists", pinned=two_cores())


# -- codecs ------------------------------------------------------------------------------------------------------------

PICKLES = ("sage-qd pickle", "sage-qd pickle in a ring", "pickle")
MSGPACKS = ("sage-qd msgpack", "sage-qd msgpack in a ring", "msgspec.msgpack")


@row
def codec_small_bytes() -> list[Entry]:
    names = (*PICKLES, *MSGPACKS, "sage-qd raw", "one copy")
    return entries(coding.coding(coding.small_bytes), *names)


@row
def codec_small_tuple() -> list[Entry]:
    names = (*PICKLES, *MSGPACKS, "sage-qd json", "sage-qd json in a ring", "msgspec.json")
    return entries(coding.coding(coding.small_tuple), *names)


@row
def codec_large_bytes() -> list[Entry]:
    names = ("sage-qd pickle", "pickle", "sage-qd msgpack", "msgspec.msgpack", "sage-qd raw", "one copy")
    return entries(coding.coding(coding.large_bytes), *names)


@row
def codec_large_array() -> list[Entry]:
    if not coding.has_numpy():
        raise NotPossibleError("numpy is not installed")
    return entries(coding.coding(coding.large_array), "sage-qd pickle", "pickle")
