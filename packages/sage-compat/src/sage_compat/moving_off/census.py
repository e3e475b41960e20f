"""
Count old calls while a program runs: which lines make them, how often, with what.

Every process appends to a file of its own, one line of JSON at a time in one system call, so a kill leaves whole lines
and at most one torn end, which readers skip. Readers add the files up. When there are many, those of processes that
have ended are folded into one.

The census never changes what the program does: where its folder cannot be written it logs one line and stops counting.
"""

import atexit
import fcntl
import getpass
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sage_compat.moving_off.call_sites import CallSite, calling_site

__all__ = ["SWITCH", "census_folder", "note"]

SWITCH: Final = "SAGE_COMPAT_CENSUS"
"""Environment variable: a folder for the census, or ``0``, ``false``, ``no`` to count nothing."""

SCHEMA: Final = "sage-compat.census/1"
SUFFIX: Final = ".census.jsonl"
_OFF: Final = frozenset({"0", "false", "no"})
_WRITTEN_AT_ONCE: Final = 16
"""Calls of one line of the program that are written each as it comes; later ones at most four times a second."""
_INTERVAL_SECONDS: Final = 0.25
_LONGEST_VALUE: Final = 80
_MOST_FILES: Final = 200

_log: Final = logging.getLogger("sage_compat.census")

Key = tuple[CallSite, str, str | None, tuple[str, ...]]


class _Tally:
    """What is known of one kind of call at one line."""

    __slots__ = ("count", "seen", "sent", "values", "written")

    def __init__(self, values: dict[str, str]) -> None:
        self.count = 0
        self.sent = 0
        self.seen = 0.0
        self.written = 0.0
        self.values = values


class _Census:
    """The census of this process; a forked child starts its own."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.tallies: dict[Key, _Tally] = {}
        self.file: int | None = None
        self.is_off = False

    def note(self, site: CallSite, function: str, backend: str | None, keywords: Mapping[str, Any]) -> None:
        key = (site, function, backend, tuple(sorted(keywords)))
        with self.mutex:
            if self.is_off:
                return
            tally = self.tallies.get(key)
            if tally is None:
                tally = self.tallies[key] = _Tally({name: _shown(value) for name, value in keywords.items()})
            now = time.time()
            tally.count += 1
            tally.seen = now
            if tally.count <= _WRITTEN_AT_ONCE or now - tally.written >= _INTERVAL_SECONDS:
                self._write([(key, tally)])

    def flush(self) -> None:
        with self.mutex:
            waiting = [(key, tally) for key, tally in self.tallies.items() if tally.count > tally.sent]
            if waiting and not self.is_off:
                self._write(waiting)

    def _write(self, waiting: list[tuple[Key, _Tally]]) -> None:
        try:
            if self.file is None:
                self.file = _opened(census_folder())
            data = "".join(_line(key, tally) for key, tally in waiting).encode()
            written = os.write(self.file, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes could be written")
        except OSError as error:
            self.is_off = True
            _log.warning("the census of old queue calls ends here: %s; %s names another folder", error, SWITCH)
            return
        for _, tally in waiting:
            tally.sent = tally.count
            tally.written = tally.seen


_census = _Census()


def note(function: str, backend: str | None, keywords: Mapping[str, Any]) -> None:
    """
    Count the old call now under way, for the line of the program that made it.

    Every thread and process may call this. A process killed at any moment loses nothing of the first 16 calls of a
    line, and of later ones at most those since the last quarter of a second in which it made one.

    Args:
        function: Name of what was called: ``create_queue``, ``SageQueue``, ``SageQueue.get_stats``.
        backend: The backend as it was spelled; None where there was none.
        keywords: The other arguments by name. The first values of each line are kept, cut to 80 characters.
    """
    if not _census.is_off:
        if census_folder_or_none() is None:
            return
        _census.note(calling_site()[0], function, backend, keywords)


def census_folder_or_none() -> Path | None:
    """The folder of the census; None where it is switched off."""
    word = os.environ.get(SWITCH, "")
    if word.strip().lower() in _OFF:
        return None
    if word:
        return Path(word)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, "sage-compat", "census")


def census_folder() -> Path:
    """
    The folder of the census: that of ``SAGE_COMPAT_CENSUS``, else one in the user's state folder.

    Raises:
        ValueError: The census is switched off.
    """
    folder = census_folder_or_none()
    if folder is None:
        raise ValueError(f"{SWITCH}={os.environ[SWITCH]} switches the census off, so it has no folder")
    return folder


def _opened(folder: Path) -> int:
    """Open a new file for this process, locked for as long as it lives, and say in its first line whose it is."""
    from sage_compat.moving_off.census_files import fold  # which few processes need

    folder.mkdir(parents=True, exist_ok=True)
    if sum(1 for _ in folder.glob(f"*{SUFFIX}")) > _MOST_FILES:
        fold(folder)
    file = _new_file(folder)
    while os.fstat(file).st_nlink == 0:  # it was folded before it was locked
        os.close(file)
        file = _new_file(folder)
    head = {"schema": SCHEMA, "pid": os.getpid(), "host": os.uname().nodename, "user": _user(), "program": _program()}
    os.write(file, (json.dumps(head) + "\n").encode())
    _flush_at_the_end_of_a_child()
    return file


def _flush() -> None:
    _census.flush()


def _flush_at_the_end_of_a_child() -> None:
    """Children of multiprocessing end without what is registered at exit; they have a list of their own."""
    for name in ("multiprocessing.util", "multiprocess.util"):
        if (util := sys.modules.get(name)) is not None:
            util.Finalize(None, _flush, exitpriority=0)


def _new_file(folder: Path) -> int:
    name = f"{os.uname().nodename}-{os.getpid()}-{time.time_ns()}{SUFFIX}"
    file = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)  # until this process ends, however it does: then the file may be folded
    return file


def _line(key: Key, tally: _Tally) -> str:
    site, function, backend, _ = key
    document = {
        "path": site.path,
        "line": site.line,
        "in": site.function,
        "function": function,
        "backend": backend,
        "kwargs": tally.values,
        "count": tally.count - tally.sent,
        "seen": round(tally.seen, 3),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n"


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, (str, int, float, type(None))) else f"<{type(value).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode()  # half surrogate pairs are no text
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have them
        return str(os.getuid()) if hasattr(os, "getuid") else "?"


def _program() -> str:
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    return str(main or (sys.argv[0] if sys.argv else "") or "?")


def _start_anew() -> None:
    global _census
    inherited, _census = _census.file, _Census()
    if inherited is not None:
        os.close(inherited)


os.register_at_fork(after_in_child=_start_anew)
atexit.register(_flush)
