"""
Processes of this host that use segments, and what their threads sleep on, from ``/proc``.

A process that has a segment mapped for writing uses it; monitors map it read-only. Which word of a segment a sleeping
thread waits on is told by the arguments of its system call. The kernel shows those only to who may trace the process:
where that is forbidden, the wait is not seen, and the process is listed as unreadable.
"""

import os
import platform
import re
import struct
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from sage_qd.ring.sight import EVENT_PLACES

__all__ = [
    "LABEL_VARIABLE",
    "Attachment",
    "Sleep",
    "attachments",
    "flocked_files",
    "label_of",
    "name_of",
    "process_of_thread",
    "sleeps",
    "thread_count",
]

LABEL_VARIABLE: Final = "SAGE_QD_LABEL"
"""Environment variable by which a process says what to call it; read from outside, as it was at its start."""

FileKey = tuple[int, int]
"""Device and inode."""

_GONE: Final = (FileNotFoundError, ProcessLookupError)
_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+)")
_FLOCK: Final = re.compile(r"^\d+: FLOCK +ADVISORY +READ +-?\d+ ([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE)
_WAITER: Final = struct.Struct("=QQII")  # struct futex_waitv
_MOST_WAITERS: Final = 128
_FUTEX_CALLS: Final = {"x86_64": (202, 449), "aarch64": (98, 449)}


@dataclass(frozen=True, slots=True)
class Attachment:
    """A process that has one segment mapped for writing."""

    pid: int
    file: FileKey
    ranges: tuple[tuple[int, int, int], ...] = field(repr=False)
    """First address, address behind the last, and offset in the file, of each mapping."""

    def offset_of(self, address: int) -> int | None:
        """Where in the file an address of the process lies."""
        for start, end, offset in self.ranges:
            if start <= address < end:
                return offset + address - start
        return None


@dataclass(frozen=True, slots=True)
class Sleep:
    """A thread that waits at a segment."""

    pid: int
    tid: int
    file: FileKey
    what: str
    """``put`` for room, ``get`` for a message, ``put lock`` or ``get lock`` for the turn of another thread."""


def flocked_files() -> set[FileKey]:
    """Files that somebody holds a shared ``flock`` on, as every user of a segment does; no lock is taken to know."""
    try:
        with open("/proc/locks") as file:
            text = file.read()
    except OSError:
        return set()  # not shown here: the mappings of the processes must do
    return {(os.makedev(int(major, 16), int(minor, 16)), int(inode)) for major, minor, inode in _FLOCK.findall(text)}


def attachments(files: Collection[FileKey]) -> list[Attachment]:
    """Which processes have which of the files mapped for writing, by process id; those of other users stay unseen."""
    wanted = set(files)
    return [each for pid in _pids() for each in _attachments_of(pid, wanted)] if wanted else []


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def _attachments_of(pid: int, wanted: set[FileKey]) -> Iterator[Attachment]:
    found: dict[FileKey, list[tuple[int, int, int]]] = {}
    with suppress(*_GONE, PermissionError), open(f"/proc/{pid}/maps", errors="replace") as maps:
        for line in maps:
            if (mapping := _MAPPING.match(line)) is None or "w" not in mapping[3]:
                continue
            file = os.makedev(int(mapping[5], 16), int(mapping[6], 16)), int(mapping[7])
            if file in wanted:
                found.setdefault(file, []).append((int(mapping[1], 16), int(mapping[2], 16), int(mapping[4], 16)))
    for file, ranges in found.items():
        yield Attachment(pid, file, tuple(ranges))


def sleeps(attached: Iterable[Attachment]) -> tuple[list[Sleep], list[int]]:
    """
    Return the threads that wait at the segments of these attachments, and the processes that could not be read.

    A thread between two slices of its wait may be missed: look again.
    """
    found: list[Sleep] = []
    unreadable: set[int] = set()
    by_process: dict[int, list[Attachment]] = {}
    for each in attached:
        by_process.setdefault(each.pid, []).append(each)
    for pid, segments in by_process.items():
        try:
            for tid in _threads(pid):
                found += _sleeps_of(pid, tid, segments)
        except PermissionError:
            unreadable.add(pid)
    return found, sorted(unreadable)


def _threads(pid: int) -> list[int]:
    try:
        return sorted(map(int, os.listdir(f"/proc/{pid}/task")))
    except _GONE:
        return []


def _sleeps_of(pid: int, tid: int, segments: list[Attachment]) -> Iterator[Sleep]:
    for address in _waited_addresses(pid, tid):
        for segment in segments:
            offset = segment.offset_of(address)
            if offset in EVENT_PLACES:
                yield Sleep(pid, tid, segment.file, EVENT_PLACES[offset])


def _waited_addresses(pid: int, tid: int) -> list[int]:
    """The words that a thread sleeps on, in a futex call."""
    futex, futex_waitv = _FUTEX_CALLS.get(platform.machine(), (-1, -1))
    try:
        with open(f"/proc/{pid}/task/{tid}/syscall") as file:
            words = file.read().split()
        if len(words) < 3 or not words[0].isdecimal():
            return []  # running, or between two calls
        number, first, second = int(words[0]), int(words[1], 16), int(words[2], 16)
        if number == futex:
            return [first]
        if number == futex_waitv:
            count = min(second, _MOST_WAITERS)
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                memory.seek(first)
                data = memory.read(count * _WAITER.size)
            return [
                address for _, address, _, _ in _WAITER.iter_unpack(data[: len(data) // _WAITER.size * _WAITER.size])
            ]
    except PermissionError:
        raise
    except OSError:
        return []  # it ended, or its memory changed, while we looked
    return []


def name_of(pid: int) -> str:
    """What to call a process: the script or module that it runs, else the program; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = [word.decode(errors="replace") for word in file.read().split(b"\0") if word]
        with open(f"/proc/{pid}/comm") as file:
            short = file.read().strip()
    except OSError:
        return ""
    if not words or not os.path.basename(words[0]).startswith("python"):
        return os.path.basename(words[0]) if words else short
    for place, word in enumerate(words[1:], start=1):
        if word == "-m" and place + 1 < len(words):
            return words[place + 1]
        if word == "-c":
            return short
        if not word.startswith("-"):
            return os.path.basename(word)
    return short


def label_of(pid: int) -> str:
    """The label of a process (see LABEL_VARIABLE), else its name."""
    with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        for entry in file.read().split(b"\0"):
            name, _, value = entry.partition(b"=")
            if name == LABEL_VARIABLE.encode() and value:
                return value.decode(errors="replace")[:64]
    return name_of(pid)


def process_of_thread(tid: int) -> int | None:
    """The process that a thread belongs to; None when it is gone."""
    try:
        with open(f"/proc/{tid}/status") as file:
            for line in file:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except OSError:
        return None
    return None


def thread_count(pid: int) -> int:
    """How many threads a process has; 0 when it is gone."""
    return len(_threads(pid))
