"""
Where the processes of a run come from: ``python -m sage_sim.nursery``, started by the conductor and by nobody else.

It loads everything once and then forks, which takes milliseconds and little memory, where a new interpreter takes a
quarter of a second. Each process is handed to the conductor, which becomes its parent: the process between them ends at
once, and the conductor takes in the orphans below it. So it is the conductor who waits for them, and whose death ends
them.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from time import sleep

from sage_sim import worker
from sage_sim.channels import remove_leftovers
from sage_sim.foreign import received
from sage_sim.lifeline import die_with
from sage_sim.worker import Assignment

LARGEST_ORDER_BYTES = 1 << 20
MOST_DESCRIPTORS = 250
"""The kernel passes 253 at a time at most."""
_PID = struct.Struct("=i")
_PR_SET_NAME = 15
_REST_SECONDS = 0.0005
_PRELOADED = ("sage_qd.queues.sage_ring", "sage_qd.queues.shared_memory")


@dataclass(frozen=True, kw_only=True)
class Nursing:
    """
    What the nursery has to know; its only argument, as JSON.

    Attributes:
        conductor: Process id of the parent.
        orders: Descriptor of a socket: one packet for each process, an `Assignment` with the descriptors it inherits.
        folder: Of the run, so that people can tell whose nursery it is.
    """

    conductor: int
    orders: int
    folder: str


def main() -> None:
    """Fork until the conductor hangs up."""
    nursing = Nursing(**json.loads(sys.argv[1]))
    try:
        die_with(nursing.conductor)
        nurse(nursing)
    finally:
        if os.getppid() != nursing.conductor:  # it died, perhaps before anybody else had its queues open
            remove_leftovers()


def nurse(nursing: Nursing) -> None:
    """Load everything, and fork whatever is ordered."""
    for module in _PRELOADED:
        import_module(module)
    with socket.socket(fileno=nursing.orders) as orders:
        orders.send(b"ready")
        while True:
            order, descriptors, _, _ = socket.recv_fds(orders, LARGEST_ORDER_BYTES, MOST_DESCRIPTORS)
            if not order:
                return
            worker.loaded(json.loads(order)["plan"])
            if gc.get_freeze_count() == 0:
                gc.collect()
                gc.freeze()  # so that collecting in a fork does not touch, and so copy, all that was loaded
            pid = _forked(nursing, orders, order, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            orders.send(_PID.pack(pid))


def pid_in(answer: bytes) -> int:
    """The process id that the nursery answered with; minus an error number where it could not fork."""
    found: int = _PID.unpack(answer)[0]
    return found


def _forked(nursing: Nursing, orders: socket.socket, order: bytes, descriptors: list[int]) -> int:
    """Fork twice, and return the id of the second process, whose parent will be the conductor."""
    read, write = os.pipe()
    try:
        between = os.fork()
    except OSError as error:
        os.close(read)
        os.close(write)
        return -(error.errno or 1)
    if between == 0:
        code = 1
        with suppress(OSError):  # it is told through the pipe, by nothing in it
            pid = os.fork()
            if pid == 0:
                os.close(read)
                os.close(write)
                orders.close()
                _begin(nursing, order, descriptors)  # does not return
            os.write(write, _PID.pack(pid))
            code = 0
        os._exit(code)
    os.close(write)
    answer = os.read(read, _PID.size)
    os.close(read)
    os.waitpid(between, 0)
    return _PID.unpack(answer)[0] if answer else -1


def _begin(nursing: Nursing, order: bytes, descriptors: list[int]) -> None:
    """Become a process of the run: with its own streams, in a group of its own, as a child of the conductor."""
    code = 1
    try:
        while os.getppid() != nursing.conductor:
            if os.getppid() == 1 or not os.path.exists(f"/proc/{nursing.conductor}"):
                os._exit(code)  # the conductor died
            sleep(_REST_SECONDS)  # the process between us has not ended yet
        os.setpgid(0, 0)  # Ctrl-C at the terminal reaches the conductor alone
        message = json.loads(order)
        words_in, words_out, ready, *carried = descriptors
        for descriptor, place in ((words_in, 0), (words_out, 1), (words_out, 2)):
            os.dup2(descriptor, place)
        os.close(words_in)
        os.close(words_out)
        received.update(zip(message.pop("carried_descriptors"), carried, strict=True))
        assignment = Assignment(**message, ready=ready)
        sys.stdin = os.fdopen(0, closefd=False)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, f"{assignment.role}-{assignment.index}"[:15].encode(), 0, 0, 0)
        worker.main(assignment)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  (told as the interpreter tells it, whatever it is)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
