"""
Runs a program where nobody else is, and says what it left: ``python alone.py ORDER``.

It has shared memory, temporary files and orphans of its own. ORDER is JSON: ``words`` to run, ``signals`` as pairs of
seconds to wait and a number, and ``disk_bytes`` of the file system of the working folder, 0 for the usual one;
``temporary_bytes`` likewise of that of temporary files.
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from sage_sim.nurse import take_orphans
from sage_sim.room import take_own_room

ROOM_BYTES = 1 << 30
SECONDS_TO_LEAVE = 60


def take_disk(place: str, size: int) -> None:
    """Put a small file system over a folder."""
    assert ctypes.CDLL(None).mount(b"tmpfs", place.encode(), b"tmpfs", 0, f"size={size}".encode()) == 0


def files_in(folder: str) -> list[str]:
    return sorted(str(path) for path in Path(folder).rglob("*") if not path.is_dir())


def ended(words: list[str], signals: list[tuple[float, int]], temporary: str) -> tuple[int, str, str]:
    """Run it, send it signals, and return its exit code and what it said."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": temporary}
    ) as process:
        for seconds, number in signals:
            time.sleep(seconds)
            process.send_signal(number)
        said, wrong = process.communicate()
    return process.returncode, said, wrong


def is_at_work(process: psutil.Process) -> bool:
    """Whether it is neither dead nor what Python gives to a program for its semaphores, and ends after it."""
    try:
        return process.status() != "zombie" and "resource_tracker" not in " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return False


def main() -> None:
    order = json.loads(sys.argv[1])
    take_own_room(ROOM_BYTES)
    if size := order.get("disk_bytes", 0):
        place = os.getcwd()
        take_disk(place, size)
        os.chdir(place)
    take_orphans(True)
    # What is mounted on it goes with this process, and its folder with the room around it.
    with TemporaryDirectory(prefix="alone-", dir="/dev/shm", ignore_cleanup_errors=True) as temporary:
        if size := order.get("temporary_bytes", 0):
            take_disk(temporary, size)
        code, said, wrong = ended(order["words"], order["signals"], temporary)
        at_once = [str(process) for process in psutil.Process().children(recursive=True) if is_at_work(process)]
        until = time.monotonic() + SECONDS_TO_LEAVE
        while (left := psutil.Process().children(recursive=True)) and time.monotonic() < until:
            for process in left:
                if process.status() == "zombie":
                    process.wait()
            time.sleep(0.02)
        found = {"temporary": os.listdir(temporary), "files": files_in("/dev/shm"), "folder": files_in(".")}
        again = subprocess.run(
            [*order["words"][:4], "clean"], capture_output=True, env=os.environ | {"TMPDIR": temporary}, check=False
        )
        after = {"temporary": os.listdir(temporary), "files": files_in("/dev/shm"), "code": again.returncode}
    print(
        json.dumps(
            {
                "code": code,
                "said": said,
                "wrong": wrong,
                "processes": at_once,
                "alive": list(map(str, left)),
                "cleaned": after,
                **found,
            }
        )
    )


if __name__ == "__main__":
    main()
