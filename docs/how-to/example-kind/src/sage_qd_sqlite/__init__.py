"""A queue kind of its own: ``sqlite_queue``, whose messages are in a SQLite file and can outlive every process."""

import sys
from typing import Any, ClassVar

from sage_qd import BaseQueueDescriptor, Capabilities, Delivery, Reach, Setting

__all__ = ["SQLiteQueueDescriptor"]


class SQLiteQueueDescriptor(BaseQueueDescriptor):
    """
    Names a queue of the processes of one host and user, in a file of the folder ``$SAGE_QD_SQLITE`` names.

    The folder is the reader's choice, never the descriptor's: a text from outside must not name files.

    Args:
        queue_id: Any text; made up when there is none.
        maxsize: Most messages to hold; 0 or less for no bound.
        durable: Whether the file stays, with its messages, when the last handle is closed.
    """

    queue_type = "sqlite_queue"
    can_serialize = True
    uri_scheme: ClassVar[str | None] = "sqlite_queue"
    settings: ClassVar[tuple[Setting, ...]] = (
        Setting(name="maxsize", type=int, default=0, low=0, high=2**31 - 1, uri_name="max_items"),
        Setting(name="durable", type=bool, default=False),
    )
    capabilities: ClassVar[Capabilities | None] = Capabilities(
        reach=Reach.PROCESSES,
        delivery=Delivery.ONCE_OR_LEASED,
        survives_crash=True,
        lease=True,
        views=False,
        joins=False,
        same_object=False,
        bounded_by_bytes=False,
        uri_scheme="sqlite_queue",
        durable=True,
    )

    maxsize: int
    durable: bool

    @classmethod
    def missing_here(cls) -> str | None:
        """Say what is missing: file locks, which Windows does not have in this form."""
        return "it needs POSIX file locks" if sys.platform == "win32" else None

    def _open_queue(self, create: bool) -> Any:
        from sage_qd_sqlite.queue import SQLiteQueue  # only who opens a queue needs sqlite3

        return SQLiteQueue(self.queue_id, maxsize=self.maxsize, durable=self.durable, create=create)
