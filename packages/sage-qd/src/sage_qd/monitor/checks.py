"""Whether this machine is fit for queues between processes: one line for each thing that has gone wrong somewhere."""

import ctypes
import errno
import os
import platform
import resource
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import sage_qd
from sage_qd.monitor.rings import SeenRing, seen_rings
from sage_qd.ring.places import SHARED_MEMORY, directory

__all__ = ["EXTRAS", "SCHEMA", "Check", "Level", "checked_machine"]

SCHEMA: Final = "sage-qd.doctor/1"
EXTRAS: Final = {
    "top": "textual",
    "prometheus": "prometheus-client",
    "otel": "opentelemetry-sdk",
    "rpc": "pyzmq",
    "ray": "ray",
}
"""Extras of this package, and the library that each is for."""

_FUTEX_WAITV: Final = 449  # on every architecture
_MIB: Final = 1 << 20
_LITTLE_ROOM: Final = 64 * _MIB
_FEW_FILES: Final = 1024
_CHEAP_CLOCKS: Final = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter")


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was found, and what to do unless that is fine."""

    name: str
    level: Level
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, Any]:
        """One entry of the JSON form."""
        return asdict(self)


def checked_machine() -> list[Check]:
    """Look at everything; nothing is changed, and no queue is attached to."""
    rings = seen_rings()
    checks: list[Callable[[], Iterator[Check]]] = [
        _software,
        _kernel,
        _shared_memory,
        _folders,
        lambda: _leftovers(rings),
        lambda: _segments(rings),
        _limits,
        _clock,
        lambda: _pid_namespace(rings),
        _tracing,
        _extras,
    ]
    return [found for check in checks for found in check()]


def _software() -> Iterator[Check]:
    yield Check("python", Level.OK, f"{platform.python_version()} ({sys.executable}), sage-qd {sage_qd.__version__}")


def _kernel() -> Iterator[Check]:
    found = f"Linux {platform.release()} on {platform.machine()}, {os.cpu_count()} processors"
    ctypes.set_errno(0)
    ctypes.CDLL(None, use_errno=True).syscall(_FUTEX_WAITV, None, 0, 0, None, 0)
    if ctypes.get_errno() == errno.ENOSYS:
        advice = "waiting for several queues at once (ring.wait, wait_message) needs Linux 5.16; the rest works"
        yield Check("kernel", Level.WARN, f"{found}, without futex_waitv", advice)
    else:
        yield Check("kernel", Level.OK, f"{found}, futex_waitv is there")


def _shared_memory() -> Iterator[Check]:
    try:
        room = os.statvfs(SHARED_MEMORY)
        os.close(os.open(SHARED_MEMORY, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        advice = f"mount a tmpfs at {SHARED_MEMORY} that this user may write to"
        yield Check("shared memory", Level.FAIL, f"{SHARED_MEMORY}: {error.strerror}", advice)
        return
    total, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    found = f"{SHARED_MEMORY} has {free // _MIB:,} of {total // _MIB:,} MiB free"
    if free < _LITTLE_ROOM:
        advice = "sage-qd clean; in a container, start it with more (docker run --shm-size=1g)"
        yield Check("shared memory", Level.WARN, found, advice)
    else:
        yield Check("shared memory", Level.OK, found)


def _folders() -> Iterator[Check]:
    top = directory()
    if not top.is_dir():
        yield Check("folders", Level.OK, f"{top} is made with the first queue")
        return
    wrong = []
    for folder in (top, *sorted(top.iterdir())):
        found = _stat(folder)
        if found is None:
            continue  # the last user of its last queue left
        if not stat.S_ISDIR(found.st_mode):
            wrong.append(f"{folder} is not a folder")
        elif found.st_uid != os.geteuid():
            wrong.append(f"{folder} belongs to user {found.st_uid}")
        elif found.st_mode & 0o077:
            wrong.append(f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}, so others may enter it")
    if wrong:
        advice = "find out who made it; remove it, or chown it to this user and chmod 700"
        yield Check("folders", Level.FAIL, "; ".join(wrong), advice)
    else:
        yield Check("folders", Level.OK, f"{top} and what is in it belong to this user alone")


def _stat(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _leftovers(rings: list[SeenRing]) -> Iterator[Check]:
    kept = [ring for ring in rings if ring.sight is not None and ring.sight.kept and not ring.in_use]
    left = [ring for ring in rings if not ring.in_use and ring not in kept]
    if left:
        size = sum(ring.sight.size_bytes for ring in left if ring.sight is not None)
        found = (
            f"{len(left)} queues that nobody uses hold {size / _MIB:,.1f} MiB: {', '.join(r.name for r in left[:5])}"
        )
        yield Check("left-overs", Level.WARN, found, "sage-qd clean --dry-run, then sage-qd clean")
    else:
        also = f"; {len(kept)} are kept on purpose" if kept else ""
        yield Check("left-overs", Level.OK, f"none among {len(rings)} queues{also}")


def _segments(rings: list[SeenRing]) -> Iterator[Check]:
    wrong = [f"{ring.name}: {ring.problem}" for ring in rings if ring.problem not in (None, "moved", "shut down")]
    if wrong:
        advice = "sage-qd inspect it; close its users, then sage-qd clean"
        yield Check("segments", Level.FAIL, "; ".join(wrong), advice)
    else:
        yield Check("segments", Level.OK, f"{len(rings)} segments can be read")


def _limits() -> Iterator[Check]:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{files:,} open files a process, one for each open queue"
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        yield Check("open files", Level.WARN, found, "ulimit -n 4096, or LimitNOFILE= of the service")
    else:
        yield Check("open files", Level.OK, found)
    for name, kind, meaning in (
        ("file size", resource.RLIMIT_FSIZE, "no queue may be larger"),
        ("address space", resource.RLIMIT_AS, "a queue takes three times its capacity of it"),
    ):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield Check(name, Level.WARN, f"limited to {limit / _MIB:,.0f} MiB", f"{meaning}; raise it with ulimit")
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    shown = "unlimited" if locked == resource.RLIM_INFINITY else f"{locked / _MIB:,.1f} MiB"
    yield Check("locked memory", Level.OK, f"{shown}; the ring locks none")


def _clock() -> Iterator[Check]:
    try:
        source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        yield Check("clock", Level.OK, "its source is not shown here")
        return
    if source in _CHEAP_CLOCKS:
        yield Check("clock", Level.OK, f"{source}, read without a system call")
    else:
        advice = "each reading costs a system call, so waits with a timeout are slower; boot with clocksource=tsc"
        yield Check("clock", Level.WARN, source, advice)


def _pid_namespace(rings: list[SeenRing]) -> Iterator[Check]:
    ours = os.stat("/proc/self/ns/pid").st_ino
    foreign = [ring.name for ring in rings if ring.sight is not None and ring.sight.pid_namespace != ours]
    if foreign:
        found = f"ours is {ours}; made in another one: {', '.join(foreign[:5])}"
        advice = "share the PID namespace too (docker run --pid=container:NAME), or do not share /dev/shm"
        yield Check("PID namespace", Level.FAIL, found, advice)
    else:
        yield Check("PID namespace", Level.OK, f"{ours}, that of all queues")


def _tracing() -> Iterator[Check]:
    """Whether sleeping threads of other processes can be seen."""
    try:
        scope = Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip()
    except OSError:
        scope = "0"
    if scope == "0" or os.geteuid() == 0:
        yield Check("tracing", Level.OK, "sage-qd waits and top see what threads of this user sleep on")
    else:
        advice = "run those two as root, or sysctl kernel.yama.ptrace_scope=0; everything else works"
        yield Check("tracing", Level.WARN, f"ptrace_scope is {scope}: waits of other processes cannot be seen", advice)


def _extras() -> Iterator[Check]:
    for extra, library in EXTRAS.items():
        try:
            yield Check(f"extra {extra}", Level.OK, f"{library} {version(library)}")
        except PackageNotFoundError:
            yield Check(f"extra {extra}", Level.OK, f"not installed; if wanted: pip install 'sage-qd[{extra}]'")
