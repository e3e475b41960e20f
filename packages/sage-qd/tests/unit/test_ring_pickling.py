"""Nothing of a ring travels by pickle, by exec or by the start methods of multiprocessing; names do."""

import ast
import copy
import multiprocessing
import os
import pickle
import subprocess
import sys

import pytest

from sage_qd import errors
from sage_qd import ring as rings
from sage_qd.ring import Ring

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_rings_and_leases_refuse_pickling_and_say_what_to_do(ring: Ring, protocol: int) -> None:
    ring.put(b"x")
    with ring.lease() as lease:
        for thing in (ring, lease):
            with pytest.raises(errors.NotShareableError, match="send"):
                pickle.dumps(thing, protocol)


def test_rings_refuse_copying(ring: Ring) -> None:
    for copied in (copy.copy, copy.deepcopy):
        with pytest.raises(errors.NotShareableError):
            copied(ring)


def echo(name: str, namespace: str) -> None:
    with rings.attach(name, namespace=namespace) as ring:
        ring.put(ring.get() + b" echoed")


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_of_every_start_method_attach_by_name(ring: Ring, namespace: str, method: str) -> None:
    ring.put(b"hello")

    process = multiprocessing.get_context(method).Process(target=echo, args=("ring", namespace))
    process.start()
    process.join()

    assert process.exitcode == 0
    assert ring.get() == b"hello echoed"


def test_a_spawned_process_refuses_a_ring_as_argument(ring: Ring) -> None:
    process = multiprocessing.get_context("spawn").Process(target=print, args=(ring,))

    with pytest.raises(errors.NotShareableError):
        process.start()


def test_a_program_started_from_here_does_not_inherit_the_descriptor(ring: Ring) -> None:
    listing = "import os; print([os.stat(fd).st_ino for fd in range(3, 200) if os.path.exists(f'/proc/self/fd/{fd}')])"

    shown = subprocess.run([sys.executable, "-c", listing], close_fds=False, capture_output=True, text=True, check=True)

    assert os.fstat(ring.fileno()).st_ino not in ast.literal_eval(shown.stdout)
