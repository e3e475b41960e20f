"""Making and opening segments when something is against it: no space (R20), a kill at any step (R21), somebody else's
files (R22).
"""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from row import Row, arguments

from sage_qd import errors
from sage_qd import ring as rings
from sage_qd.ring.places import named_folder

KIB = 1024


def main() -> int:
    """Run the three rows; 1 when one failed."""
    options = arguments(__doc__ or "")
    good = [space(options), cycles(options), strangers(options)]
    return 0 if all(good) else 1


# -- R20: no space ----------------------------------------------------------------------------------------------------


def space(options) -> bool:  # type: ignore[no-untyped-def]  # argparse gives no better type
    """Let the file system end at every size, and create, spill and grow into the end."""
    row = Row.begin(options, "R20", "creation on a file system that ends at every size: SIGBUS / files left", "0 / 0")
    if os.geteuid() != 0:
        return row.not_run("needs root, to mount small file systems")
    outcomes: Counter[str] = Counter()
    sizes = range(16 * KIB, 1024 * KIB, 4 * KIB if options.long else 12 * KIB)
    with mounted() as folder:
        for size in sizes:
            remounted = subprocess.run(["mount", "-o", f"remount,size={size}", folder], capture_output=True)
            if remounted.returncode:
                return row.not_run("needs the right to mount")
            outcomes[forked(lambda: fill(folder))] += 1
            for path in folder.iterdir():
                outcomes["file left"] += 1
                path.unlink()
    bad = {name: count for name, count in outcomes.items() if name not in ("created", "refused")}
    value = f"{len(sizes)} sizes: {outcomes['created']} created, {outcomes['refused']} refused, others {bad or 'none'}"
    return row.report(value, not bad and outcomes["created"] > 0 and outcomes["refused"] > 0)


def fill(folder: Path) -> str:
    """Create a ring, put what spills, grow: each works or says QueueNoSpaceError, and what was put comes out again."""
    try:
        ring = rings.create(path=folder / "ring", capacity_bytes=128 * KIB, spill_threshold=32 * KIB)
    except errors.QueueNoSpaceError:
        return "refused"
    put = []
    for size in (1000, 60 * KIB, 120 * KIB, 240 * KIB):
        payload = secrets.token_bytes(size)
        try:
            ring.put(payload, timeout=0)
            put.append(payload)
        except (errors.QueueNoSpaceError, errors.Full):
            continue
    try:
        ring.resize(512 * KIB)
        for _ in range(4):
            put.append(secrets.token_bytes(30 * KIB))
            ring.put(put[-1])
    except errors.QueueNoSpaceError:
        pass_over = ring.capacity_bytes == 128 * KIB
        if not pass_over:
            return "capacity changed by a failed resize"
    for payload in put:
        if ring.get(timeout=0) != payload:
            return "item damaged"
    ring.unlink()
    ring.close()
    return "created"


@contextmanager
def mounted() -> Iterator[Path]:
    """A file system of its own in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="sage-qd-space-"))
    found = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", folder], capture_output=True)
    try:
        yield folder
    finally:
        if found.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        folder.rmdir()


def forked(action: Callable[[], str]) -> str:
    """What the action answers in a process of its own; how that ended, when it gave no answer."""
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        answer = "raised"
        try:
            answer = action()
        except BaseException as error:  # noqa: BLE001  (whatever it is, it is the answer)
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(target, answer.encode()[:4000])
            os._exit(0)
    os.close(target)
    with os.fdopen(source) as answers:
        text = answers.read()
    _, status = os.waitpid(pid, 0)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else text


# -- R21: killed while creating, attaching, leaving -------------------------------------------------------------------


def cycles(options) -> bool:  # type: ignore[no-untyped-def]
    """Kill whoever makes a ring at a random moment, and go on with what is there."""
    wanted = 100_000 if options.long else 2_000
    row = Row.begin(
        options, "R21", f"{wanted:,} create-kill-attach cycles: files / fds / mappings / slots leaked", "0/0/0/0"
    )
    rolls = random.Random(options.seed)
    namespace = f"proof-{os.getpid()}"
    folder = rings.directory() / namespace
    span = creation_seconds(namespace)
    fds, maps = open_descriptors(), segment_mappings()
    outcomes: Counter[str] = Counter()
    for _ in range(wanted):
        pid = os.fork()
        if pid == 0:
            take_part(namespace)
        time.sleep(rolls.random() * span)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        outcomes[after_the_kill(namespace)] += 1
    slots = outcomes.pop("slots leaked", 0)
    rings.clean_segments(namespace)
    files = len(list(folder.iterdir())) if folder.is_dir() else 0
    shutil.rmtree(folder, ignore_errors=True)
    leaked = (files, open_descriptors() - fds, segment_mappings() - maps, slots)
    bad = {name: count for name, count in outcomes.items() if name not in ("nothing", "whole", "drained")}
    value = f"{'/'.join(map(str, leaked))}; found after the kill: {dict(outcomes)}"
    enough = min(outcomes["nothing"], outcomes["whole"] + outcomes["drained"]) > wanted // 50
    return row.report(
        value if enough else value + "; the kills missed the steps", not any(leaked) and not bad and enough
    )


def take_part(namespace: str) -> None:
    """What is killed: make or open, put, spill, lease, take, leave, again and again."""
    while True:
        ring = rings.attach_or_create("victim", namespace=namespace, capacity_bytes=16 * KIB)
        ring.put_many([b"item"] * 3)
        ring.put(b"x" * 20 * KIB)
        lease = ring.lease()
        ring.get()
        lease.nack()
        ring.clear()
        ring.close()


def creation_seconds(namespace: str) -> float:
    """Twice what one round of `take_part` needs here, start of the process included."""
    started = time.perf_counter()
    rounds = 20
    for _ in range(rounds):
        forked(lambda: one_round(namespace))
    return 2 * (time.perf_counter() - started) / rounds


def one_round(namespace: str) -> str:
    """As `take_part`, once."""
    ring = rings.attach_or_create("victim", namespace=namespace, capacity_bytes=16 * KIB)
    ring.put_many([b"item"] * 3)
    ring.put(b"x" * 20 * KIB)
    ring.clear()
    ring.close()
    return "done"


def after_the_kill(namespace: str) -> str:
    """Is there nothing, or a whole ring in which everything works and every slot comes back?"""
    try:
        ring = rings.attach("victim", namespace=namespace)
    except errors.QueueNotFoundError:
        return "nothing"
    with ring:
        found = 0
        while True:
            try:
                item = ring.get(timeout=0)
            except errors.Empty:
                break
            if item not in (b"item", b"x" * 20 * KIB):
                return "torn item"
            found += 1
        ring.put(b"after")
        with ring.lease(timeout=5) as lease:
            if bytes(lease) != b"after":
                return "wrong item"
        stats = ring.stats()
        if stats.depth or stats.leased:
            return "slots leaked"
        return "drained" if found else "whole"


def open_descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd"))


def segment_mappings() -> int:
    """How many parts of this process's memory are segments."""
    return sum("sage-qd" in line or "(deleted)" in line for line in Path("/proc/self/maps").read_text().splitlines())


# -- R22: files of strangers ------------------------------------------------------------------------------------------

BAD_NAMES = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    "a\\b",
    "a\0b",
    "a\nb",
    " a",
    "-a",
    ".a",
    "ä",
    "队列",
    "a" * 129,
    "a b",
    "~a",
)
GOOD_NAMES = ("a", "A-b_c.d", "0", "a" * 128)


def strangers(options) -> bool:  # type: ignore[no-untyped-def]
    """Put every wrong thing where a segment should be, and look at what opening it says."""
    row = Row.begin(options, "R22", "wrong names and files of strangers refused", "all")
    folder = Path(tempfile.mkdtemp(prefix="sage-qd-strangers-"))
    namespace = f"proof-{os.getpid()}"
    refused, accepted = [], []

    def expect(what: str, error: type[Exception], action: Callable[[], object]) -> None:
        before = snapshot(folder)
        started = time.monotonic()
        try:
            action()
            accepted.append(f"{what}: accepted")
        except error:
            refused.append(what)
        except Exception as other:  # noqa: BLE001  (anything but the expected one is reported)
            accepted.append(f"{what}: {type(other).__name__}: {other}")
        if time.monotonic() - started > 5:
            accepted.append(f"{what}: waited")
        if snapshot(folder) != before:
            accepted.append(f"{what}: changed the file")

    for name in BAD_NAMES:
        for action in (rings.create, rings.attach, rings.attach_or_create):
            expect(
                f"name {name!r} for {action.__name__}",
                errors.InvalidQueueNameError,
                partial(action, name, namespace=namespace),
            )
        expect(f"namespace {name!r}", errors.InvalidQueueNameError, partial(rings.create, "a", namespace=name))
    for name in GOOD_NAMES:
        rings.create(name, namespace=namespace).close()
    for what, make in wrong_files(folder).items():
        path = folder / what.replace(" ", "-")
        make(path)
        expect(f"attach to {what}", errors.InsecureQueueError, partial(rings.attach, path=path))
        expect(f"create over {what}", errors.QueueExistsError, partial(rings.create, path=path))
    private = Path(named_folder(namespace))  # once more: the last queue took it along
    for mode in (0o755, 0o770, 0o701):
        private.chmod(mode)
        expect(f"folder of mode {mode:o}", errors.InsecureQueueError, lambda: rings.create("a", namespace=namespace))
    private.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(private, 65534, 65534)
        expect("folder of another user", errors.InsecureQueueError, lambda: rings.create("a", namespace=namespace))
    shutil.rmtree(private)
    private.symlink_to(folder)
    expect("folder that is a link", errors.InsecureQueueError, lambda: rings.create("a", namespace=namespace))
    private.unlink()
    shutil.rmtree(folder)
    return row.report(
        f"{len(refused)} of {len(refused) + len(accepted)}" + "".join(f"; {text}" for text in accepted), not accepted
    )


def wrong_files(folder: Path) -> dict[str, Callable[[Path], object]]:
    """What could be planted where a segment is expected, and how."""
    target = folder / "good"
    rings.create(path=target).close()

    def copied(path: Path, mode: int) -> None:
        shutil.copy(target, path)
        path.chmod(mode)

    def foreign(path: Path) -> None:
        copied(path, 0o600)
        os.chown(path, 65534, 65534)

    def listening(path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as endpoint:
            endpoint.bind(str(path))

    second = folder / "second"
    shutil.copy(target, second)
    second.chmod(0o600)
    found: dict[str, Callable[[Path], object]] = {
        "a symbolic link": lambda path: path.symlink_to(target),
        "a dangling link": lambda path: path.symlink_to(folder / "nowhere"),
        "a hard link": lambda path: path.hardlink_to(second),
        "a pipe": lambda path: os.mkfifo(path, 0o600),
        "a folder": lambda path: path.mkdir(0o700),
        "a socket": listening,
    }
    for mode in (0o666, 0o660, 0o644, 0o604, 0o640):
        found[f"mode {mode:o}"] = lambda path, mode=mode: copied(path, mode)
    if os.geteuid() == 0:
        found["a device"] = lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        found["the file of another user"] = foreign
    return found


def snapshot(folder: Path) -> list[tuple[str, int, int, int]]:
    """What must not change by a refused opening."""
    entries = sorted(folder.iterdir())
    return [
        (str(path), found.st_mode, found.st_size, found.st_mtime_ns) for path in entries for found in [path.lstat()]
    ]


if __name__ == "__main__":
    sys.exit(main())
