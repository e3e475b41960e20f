"""
What can be counted exactly, however busy the machine is: instructions, allocations, copied bytes, system calls.

Each is the slope of two loops, `FEW` and `MANY` operations long: what a process costs by itself is in both, and goes.
Addresses and hash values are not random here, so equal code gives equal counts, to the last instruction or nearly so.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sage_sim.gate.benchmarks import BENCHMARKS
from sage_sim.gate.sides import SideError, environment
from sage_sim.nurse import SetupError

FEW, MANY = 50, 300
_MARK = "getppid"
_ALLOCATORS = {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"}
_SECONDS = 600.0
_CALLED = re.compile(r"^cfn=(?:\(\d+\) ?)?(?P<name>\S+)$")
_COPIED = re.compile(r"^==\d+== Total:\s+([\d,]+) bytes", re.MULTILINE)
_TRACED = re.compile(r"^\d+ +(?:<\.\.\. )?(?P<name>[a-z_0-9]+)[( ]")
_DYING = ("setpriv", "--pdeathsig", "KILL")
"""What follows ends with its parent, also when that is killed."""


def lacking(*tools: str) -> list[str]:
    """What is not installed of what an exact count needs, with what it is for."""
    wanted = {
        "valgrind": "valgrind, for instructions, allocations and copied bytes",
        "setarch": "setarch (util-linux), for addresses that are not random",
        "setpriv": "setpriv (util-linux), so that a count ends with the gate",
        "strace": "strace, for system calls",
    }
    return [wanted[tool] for tool in tools if shutil.which(tool) is None]


def instructions(folder: Path, names: Sequence[str], *, namespace: str, place: Path) -> dict[str, float]:
    """Instructions of one operation, as callgrind counts them."""
    dumps = _callgrind(folder, names, namespace, place)
    return _slopes(names, [_total(path) for path in dumps])


def allocations(folder: Path, names: Sequence[str], *, namespace: str, place: Path) -> dict[str, float]:
    """
    Calls of the allocator in one operation.

    The interpreter is told to allocate everything with the C library, whose functions callgrind knows by name; what its
    own lists of free objects hand out is no allocation.
    """
    dumps = _callgrind(folder, names, namespace, place, PYTHONMALLOC="malloc")
    return _slopes(names, [_calls(path.read_text(encoding="utf-8").splitlines(), _ALLOCATORS) for path in dumps])


def copied_bytes(folder: Path, names: Sequence[str], *, namespace: str, place: Path) -> dict[str, float]:
    """Bytes that one operation copies with memcpy and its like, as DHAT counts them; inlined copies are not seen."""
    found = {}
    for name in names:
        totals = []
        for many in (FEW, MANY):
            words = ["--tool=dhat", "--mode=copy", f"--dhat-out-file={place / 'dhat.json'}"]
            told = _ran(["setarch", "-R", "valgrind", *words], folder, [name], namespace, few=1, many=many)
            total = _COPIED.search(told)
            if total is None:
                raise SideError(folder.name, f"DHAT did not say how much was copied: {told[-500:]}")
            totals.append(int(total[1].replace(",", "")))
        found[name] = (totals[1] - totals[0]) / _operations(name)
    return found


def system_calls(folder: Path, names: Sequence[str], *, namespace: str, place: Path) -> dict[str, float]:
    """Calls of the system in one operation, as strace sees them."""
    log = place / "strace.log"
    command = ["setarch", "-R", "strace", "-f", "-o", str(log), *_DYING]
    _ran(command, folder, names, namespace, few=FEW, many=MANY)
    counts = _between(log.read_text(encoding="utf-8", errors="replace").splitlines())
    return _slopes(names, counts)


def _operations(name: str) -> int:
    return (MANY - FEW) * BENCHMARKS[name].count


def _slopes(names: Sequence[str], counts: Sequence[float]) -> dict[str, float]:
    """
    From what stands before each mark; what stands behind the last one is not among them.

    For each benchmark that is what came before it, its few operations, and its many; then the next one begins.
    """
    if len(counts) != 3 * len(names):
        raise ValueError(f"{3 * len(names)} marks were to be counted, and {len(counts)} were")
    return {name: (counts[3 * at + 2] - counts[3 * at + 1]) / _operations(name) for at, name in enumerate(names)}


def _callgrind(folder: Path, names: Sequence[str], namespace: str, place: Path, **more: str) -> list[Path]:
    """Run under callgrind; the profile of each stretch that ends with a mark, in order."""
    target = place / "callgrind.out"
    words = [f"--callgrind-out-file={target}", f"--dump-before={_MARK}", "--compress-strings=no"]
    command = ["setarch", "-R", "valgrind", "--quiet", "--tool=callgrind", *words]
    _ran(command, folder, names, namespace, few=FEW, many=MANY, **more)
    dumps = sorted(place.glob(f"{target.name}.*"), key=lambda path: int(path.suffix[1:]))
    return [path for path in dumps if _trigger(path) == f"--dump-before={_MARK}"]


def _ran(
    tool: list[str], folder: Path, names: Sequence[str], namespace: str, *, few: int, many: int, **more: str
) -> str:
    """Run `marked` under a tool; what the tool said."""
    words = [sys.executable, "-P", "-m", "sage_sim.gate.marked", namespace, str(few), str(many), *names]
    try:
        ended = subprocess.run(
            [*_DYING, *tool, *words],
            env=environment(folder, **more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise SetupError(f"{error.filename} is not installed") from None
    except subprocess.TimeoutExpired:
        raise SetupError(f"{tool[2]} did not end within {_SECONDS:.0f} s") from None
    if ended.returncode:
        raise SideError(
            folder.name, f"{' '.join(tool[2:4])} ended with {ended.returncode}: {ended.stderr.strip()[-1000:]}"
        )
    return ended.stderr


def _header(path: Path, word: str) -> Iterable[str]:
    with path.open(encoding="utf-8") as lines:
        yield from (line.removeprefix(word).strip() for line in lines if line.startswith(word))


def _trigger(path: Path) -> str:
    return next(iter(_header(path, "desc: Trigger:")), "")


def _total(path: Path) -> int:
    return int(next(iter(_header(path, "totals:"))))


def _calls(lines: Iterable[str], functions: set[str]) -> int:
    """How often some functions are called in a profile: a line with the name, and one with the number after it."""
    total, counts = 0, False
    for line in lines:
        if called := _CALLED.match(line):
            counts = called["name"].partition("@")[0].partition("'")[0] in functions
        elif counts and line.startswith("calls="):
            total += int(line[len("calls=") :].split()[0])
            counts = False
    return total


def _between(lines: Iterable[str]) -> list[float]:
    """System calls before each mark. One that another one interrupts has two lines, and counts once."""
    counts, count = [], 0
    for line in lines:
        found = _TRACED.match(line)
        if found is None or "resumed>" in line:
            continue
        if found["name"] == _MARK:
            counts.append(float(count))
            count = 0
        else:
            count += 1
    return counts


def side_by_side(
    measure: Callable[..., dict[str, float]],
    folders: dict[str, Path],
    names: Mapping[str, Sequence[str]],
    *,
    namespace: str,
    work: Path,
) -> dict[str, dict[str, float]]:
    """
    Count on both sides at a time; they are processes of their own, and disturb no count.

    Args:
        measure: One of the functions above.
        folders: Where the wheels are, by side.
        names: What each of them can do.
        namespace: Of the queues.
        work: For files of the tools.
    """

    def counted(side: str) -> dict[str, float]:
        place = work / f"{measure.__name__}-{side}"
        place.mkdir(exist_ok=True)
        return measure(folders[side], names[side], namespace=namespace, place=place) if names[side] else {}

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        return dict(zip(folders, pool.map(counted, folders), strict=True))
