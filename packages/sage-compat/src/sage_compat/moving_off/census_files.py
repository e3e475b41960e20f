"""Read what the census of all processes has written, and fold the files of those that have ended into one."""

import fcntl
import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sage_compat.moving_off.census import SCHEMA, SUFFIX

__all__ = ["Census", "SeenCall", "fold", "read_census"]

_MEMBERS: Final = {"path": str, "line": int, "in": str, "function": str, "kwargs": dict, "count": int}
_FOLD_LOCK: Final = "fold.lock"
_MOST_TRIES: Final = 20


@dataclass
class SeenCall:
    """
    One kind of call at one line, added up over all processes.

    Attributes:
        path: The file, as Python named it.
        line: Counted from 1.
        inside: Qualified name of the function that holds the line.
        function: What was called.
        backend: The backend as it was spelled; None where there was none.
        keywords: Arguments, with the values of one call.
        count: How often.
        last_seen: Seconds since 1970.
        processes: How many processes made it.
        programs: Which programs.
        users: Whose they were.
    """

    path: str
    line: int
    inside: str
    function: str
    backend: str | None
    keywords: dict[str, str]
    count: int = 0
    last_seen: float = 0.0
    processes: int = 0
    programs: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Census:
    """
    What was seen.

    Attributes:
        calls: Most frequent first.
        processes: How many processes counted.
        torn: How many ends of lines were lost in kills.
    """

    calls: tuple[SeenCall, ...]
    processes: int
    torn: int


@dataclass(frozen=True)
class _File:
    name: str
    head: dict[str, Any]
    records: list[dict[str, Any]]
    torn: int


def read_census(folder: Path) -> Census:
    """
    Add up the files of a folder; processes may be writing to them. A folder that does not exist has no files.

    Raises:
        OSError: The folder or a file cannot be read.
        ValueError: A file is no census; names it and the line.
    """
    for _ in range(_MOST_TRIES):
        try:
            return _added(_without_folded([_loaded(path) for path in _paths(folder)]))
        except FileNotFoundError:  # folded while we read: what it held is in another file now
            continue
    raise OSError(f"the files of {folder} change too fast to be read; try again")


def fold(folder: Path) -> int:
    """
    Write the files of processes that have ended as one, and remove them; return how many.

    Whoever does this may be killed at any moment: nothing is counted twice, because a folded file names those that it
    stands for, and readers leave them out. Somebody else folding at the same time makes this do nothing.
    """
    lock = os.open(folder / _FOLD_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    held = [lock]
    try:
        if not _try_lock(lock):
            return 0
        ended = []
        for path in _paths(folder):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            held.append(file)
            if _try_lock(file):
                ended.append(path)
        if len(ended) < 2:
            return 0
        _write_folded(folder, [_loaded(path) for path in ended])
        for path in ended:
            path.unlink()
        return len(ended)
    finally:
        for file in held:
            os.close(file)


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _try_lock(file: int) -> bool:
    """Whether nobody holds the lock: the kernel drops that of a process that ends, however it does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _loaded(path: Path) -> _File:
    lines = path.read_bytes().split(b"\n")
    torn = 1 if lines.pop() else 0
    documents = [_document(path, number, line) for number, line in enumerate(lines, 1)]
    if not documents:
        return _File(path.name, {"processes": 0}, [], torn)
    head, *records = documents
    if head.get("schema") != SCHEMA:
        raise ValueError(f"{path}: line 1 has no schema {SCHEMA}, so this is no census of this release")
    for number, record in enumerate(records, 2):
        for name, kind in _MEMBERS.items():
            if not isinstance(record.get(name), kind):
                raise ValueError(f"{path}: line {number} has no {name}; remove the file if it is damaged")
    return _File(path.name, head, records, torn)


def _document(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}: line {number} is no JSON: {error}; remove the file if it is damaged") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: line {number} is no object; remove the file if it is damaged")
    return document


def _without_folded(files: list[_File]) -> list[_File]:
    folded = {name for file in files for name in file.head.get("folded", ())}
    return [file for file in files if file.name not in folded]


def _added(files: Iterable[_File]) -> Census:
    calls: dict[tuple[Any, ...], SeenCall] = {}
    processes = torn = 0
    for file in files:
        processes += file.head.get("processes", 1)
        torn += file.torn + file.head.get("torn", 0)
        here = set()
        for record in file.records:
            names = tuple(sorted(record["kwargs"]))
            key = (record["path"], record["line"], record["function"], record.get("backend"), names)
            call = calls.get(key)
            if call is None:
                call = calls[key] = SeenCall(*key[:2], record["in"], *key[2:4], keywords=record["kwargs"])
            call.count += record["count"]
            call.last_seen = max(call.last_seen, record.get("seen", 0.0))
            call.programs.update(record.get("programs", [file.head.get("program", "?")]))
            call.users.update(record.get("users", [file.head.get("user", "?")]))
            call.processes += record.get("processes", 0 if key in here else 1)
            here.add(key)
    ordered = sorted(calls.values(), key=lambda call: (-call.count, call.path, call.line, call.function))
    return Census(tuple(ordered), processes, torn)


def _write_folded(folder: Path, files: list[_File]) -> None:
    census = _added(_without_folded(files))
    # What an earlier fold stood for counts only as long as it is still there.
    earlier = {name for file in files for name in file.head.get("folded", ()) if (folder / name).exists()}
    head = {
        "schema": SCHEMA,
        "processes": census.processes,
        "torn": census.torn,
        "folded": sorted(earlier | {file.name for file in files}),
    }
    lines = [head, *(_record(call) for call in census.calls)]
    temporary = folder / f"{uuid.uuid4().hex}.tmp"
    temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    temporary.replace(folder / f"folded-{uuid.uuid4().hex}{SUFFIX}")


def _record(call: SeenCall) -> dict[str, Any]:
    return {
        "path": call.path,
        "line": call.line,
        "in": call.inside,
        "function": call.function,
        "backend": call.backend,
        "kwargs": call.keywords,
        "count": call.count,
        "seen": call.last_seen,
        "processes": call.processes,
        "programs": sorted(call.programs),
        "users": sorted(call.users),
    }
