"""Queues between the processes of this host, from their segments."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_qd.errors import SageQueueError
from sage_qd.monitor.processes import Attachment, FileKey, attachments, flocked_files
from sage_qd.monitor.states import QueueState, figures_of
from sage_qd.queues.names import segment_name, text_of
from sage_qd.ring.places import directory, entries, namespaces
from sage_qd.ring.sight import Sight, look_at

__all__ = ["KIND", "SeenRing", "list_states", "seen_rings", "text_or_name", "where_named"]

KIND = "sage_queue"


@dataclass(frozen=True, slots=True)
class SeenRing:
    """A segment of this user, and what was seen of it."""

    path: str
    queue_id: str
    namespace: str
    sight: Sight | None
    problem: str | None
    users: tuple[Attachment, ...]
    in_use: bool

    @property
    def name(self) -> str:
        """Namespace and name in one word."""
        return f"{self.namespace}/{self.queue_id}"

    @property
    def file(self) -> FileKey | None:
        """Which file it is, for what the kernel says about files."""
        return None if self.sight is None else (self.sight.device, self.sight.inode)

    def state(self) -> QueueState:
        """In the schema of all kinds."""
        sight = self.sight
        if sight is None:
            return QueueState(
                kind=KIND,
                queue_id=self.queue_id,
                namespace=self.namespace,
                where=self.path,
                in_use=self.in_use,
                problem=self.problem,
            )
        return QueueState(
            kind=KIND,
            queue_id=self.queue_id,
            namespace=self.namespace,
            where=self.path,
            in_use=self.in_use,
            kept=sight.kept,
            instance=sight.instance,
            capacity_items=sight.max_items or None,
            capacity_bytes=sight.stats.capacity_bytes,
            figures=figures_of(sight.stats),
            problem=self.problem,
        )


def list_states(namespace: str | None = None) -> list[QueueState]:
    """The states of all rings of this user; the source of this kind."""
    return [ring.state() for ring in seen_rings(namespace)]


def seen_rings(namespace: str | None = None) -> list[SeenRing]:
    """Look at every named segment of this user, in the namespace given by its text or in all, and at who uses it."""
    folder_name = None if namespace is None else segment_name(namespace)
    found: list[tuple[str, str, str, Sight | None, str | None]] = []
    for folder, name, path in _segments(folder_name):
        try:
            sight, problem = look_at(path), None
        except FileNotFoundError:
            continue  # its last user left while we looked
        except SageQueueError as error:
            sight, problem = None, str(error)
        found.append((path, text_or_name(name), text_or_name(folder), sight, problem or _problem(sight)))
    return _with_users(found)


def seen_ring(path: str, queue_id: str, namespace: str) -> SeenRing:
    """
    Look at one segment, wherever it lies.

    Raises:
        QueueNotFoundError: There is none.
        SageQueueError: It cannot be read; says why.
    """
    sight = look_at(path)
    return _with_users([(path, queue_id, namespace, sight, _problem(sight))])[0]


def _with_users(found: list[tuple[str, str, str, Sight | None, str | None]]) -> list[SeenRing]:
    keys = {(sight.device, sight.inode) for _, _, _, sight, _ in found if sight is not None}
    locked = flocked_files()
    users: dict[FileKey, list[Attachment]] = {}
    for each in attachments(keys):
        users.setdefault(each.file, []).append(each)
    rings = []
    for path, queue_id, namespace, sight, problem in found:
        file = _file_key(path) if sight is None else (sight.device, sight.inode)
        using = tuple(users.get(file, ())) if file is not None else ()
        rings.append(SeenRing(path, queue_id, namespace, sight, problem, using, bool(using) or file in locked))
    return rings


def _file_key(path: str) -> FileKey | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _segments(namespace: str | None) -> Iterator[tuple[str, str, str]]:
    """Namespace, name and path of each file that may be a segment."""
    for folder in namespaces(namespace):
        for entry in sorted(entries(folder), key=lambda entry: entry.name):
            if "~" not in entry.name and entry.is_file(follow_symlinks=False):
                yield folder.name, entry.name, entry.path


def _problem(sight: Sight | None) -> str | None:
    if sight is None:
        return None
    if sight.damaged_at is not None or sight.stats.is_poisoned:
        return f"damaged at offset {sight.damaged_at}; found by process {sight.damage_found_by}"
    if not sight.this_boot:
        return "its locks are of an earlier boot"
    if sight.moved:
        return "moved"
    return "shut down" if sight.stats.is_shutdown else None


def text_or_name(name: str) -> str:
    """The text that a file name stands for; the file name itself when it stands for none."""
    try:
        return text_of(name)
    except ValueError:
        return name


def where_named(queue_id: str, namespace: str) -> Path:
    """
    Where the segment of that name lies, whether or not it exists.

    Raises:
        InvalidQueueNameError: One of the two is no name.
    """
    return directory() / segment_name(namespace) / segment_name(queue_id)
