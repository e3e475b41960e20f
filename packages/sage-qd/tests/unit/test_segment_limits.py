"""Numbers out of range, and a system that is out of something: said at creation, and nothing is left."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_qd import ring as rings
from sage_qd.ring import Ring, create

pytestmark = pytest.mark.timeout(60)
NewRing = Callable[..., Ring]


# -- Numbers ----------------------------------------------------------------------------------------------------------

NUMBERS = {
    "capacity_bytes": [0, -1, 2**34 + 1, 2**63, 2**64, 2**100],
    "max_items": [2**31, 2**32, 2**63, 2**64],
    "spill_threshold": [0, -1, 2**34 + 1, 2**64],
    "codec": [-1, 2**32, 2**64],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in NUMBERS.items() for value in values])
def test_numbers_out_of_range_are_refused_before_anything_is_made(namespace: str, field: str, value: int) -> None:
    settings: dict[str, Any] = {field: value}

    with pytest.raises(ValueError, match=field):
        create("ring", namespace=namespace, **settings)

    assert not Path(rings.directory(), namespace).exists()


@pytest.mark.parametrize("field", NUMBERS)
@pytest.mark.parametrize("value", [1.0, "1", True, b"1"], ids=repr)
def test_what_is_no_integer_is_refused_before_anything_is_made(namespace: str, field: str, value: Any) -> None:
    settings: dict[str, Any] = {field: value}

    with pytest.raises(TypeError, match=field):
        create("ring", namespace=namespace, **settings)

    assert not Path(rings.directory(), namespace).exists()


@pytest.mark.parametrize(("asked", "got"), [(1, 4096), (4096, 4096), (4097, 8192), (65535, 65536), (3 << 20, 4 << 20)])
def test_capacities_are_rounded_up_to_a_power_of_two(new_ring: NewRing, asked: int, got: int) -> None:
    ring = new_ring(capacity_bytes=asked)

    assert ring.capacity_bytes == got
    assert os.fstat(ring.fileno()).st_size == 20480 + got


# -- A system that is out of something --------------------------------------------------------------------------------


def test_a_full_file_system_is_said_at_creation_and_nothing_is_left(
    start: Callable, unshare: Callable, tmp_path: Path
) -> None:
    process = start(
        """
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", sys.argv[2]], check=True)
before = sorted(os.listdir("/proc/self/fd"))
try:
    create(path=sys.argv[2] + "/ring", capacity_bytes=1 << 20)
except errors.QueueNoSpaceError as error:
    say(error.wanted, error.free)
say(os.listdir(sys.argv[2]), sorted(os.listdir("/proc/self/fd")) == before)
with create(path=sys.argv[2] + "/ring", capacity_bytes=1 << 17):
    say("fits")
""",
        tmp_path,
        prefix=unshare("--mount"),
    )

    wanted, free = process.hear().split()
    assert int(wanted) == 1 << 20
    assert 0 < int(free) <= 256 << 10
    assert process.hear() == "[] True"
    assert process.hear() == "fits"
    process.finish()


@pytest.mark.parametrize(
    ("limit", "value", "error"),
    [
        ("FSIZE", 1 << 16, "File too large"),
        ("NOFILE", 3, "Too many open files"),
        ("AS", 1 << 28, "Cannot allocate memory"),
    ],
)
def test_a_limit_of_the_process_is_said_at_creation_and_nothing_is_left(
    start: Callable, namespace: str, limit: str, value: int, error: str
) -> None:
    process = start(
        """
import resource
name, value = getattr(resource, "RLIMIT_" + sys.argv[2]), int(sys.argv[3])
soft, hard = resource.getrlimit(name)
resource.setrlimit(name, (value, hard))
try:
    create("ring", namespace=sys.argv[1], capacity_bytes=1 << 28)
except OSError as error:
    resource.setrlimit(name, (soft, hard))
    say(error.strerror)
say(list_segments(sys.argv[1]), len(os.listdir("/proc/self/fd")))
with create("ring", namespace=sys.argv[1]) as ring:
    ring.put(b"x")
    say(ring.get())
""",
        limit,
        value,
    )

    assert error in process.hear()
    assert process.hear() == "[] 4"  # three of the system and the folder that is listed
    assert process.hear() == "b'x'"
    process.finish()


def test_another_pid_namespace_is_refused(ring: Ring, start: Callable, unshare: Callable) -> None:
    process = start(
        """
try:
    attach("ring", namespace=sys.argv[1])
except errors.NamespaceMismatchError as error:
    say(error.ours != error.theirs)
""",
        prefix=unshare("--pid", "--fork"),
    )

    assert process.hear() == "True"
    process.finish()
