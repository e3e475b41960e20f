"""
Queues of this process by name, and a command line over all queues of this user, as old programs know them.

::

    python -m sage_compat.sage_queue_manager list
    python -m sage_compat.sage_queue_manager cleanup [--invalid | --all] [--quiet]
    python -m sage_compat.sage_queue_manager cleanup-user [USER] [--force] [--quiet]
    python -m sage_compat.sage_queue_manager test NAME [--no-multi-tenant] [--auto-cleanup] [--namespace NAME]
"""

import argparse
import sys
import threading
from collections.abc import Sequence

from sage_compat.call_sites import note
from sage_compat.sage_queue import (
    DEFAULT_MAXSIZE,
    SageQueue,
    checked_maxsize,
    cleanup_invalid_queues,
    cleanup_user_queues,
    list_all_sage_queues,
)

__all__ = ["SageQueueManager", "main"]


class SageQueueManager:
    """Keeps one handle for each name. Safe in threads."""

    def __init__(self) -> None:
        self._queues: dict[str, SageQueue] = {}
        self._mutex = threading.Lock()

    def create_queue(self, name: str, maxsize: int = DEFAULT_MAXSIZE) -> SageQueue:
        """
        Return the queue of a name: the same object every time.

        Args:
            name: Of the queue.
            maxsize: Room in bytes, above 0.

        Raises:
            TypeError: ``maxsize`` is no whole number.
            ValueError: It is not above 0.
        """
        note("SageQueueManager.create_queue", None, {"name": name, "maxsize": maxsize})
        checked_maxsize(maxsize)
        if maxsize == 0:
            raise ValueError("maxsize must be above 0")
        with self._mutex:
            if name not in self._queues:
                queue = SageQueue.__new__(SageQueue)
                queue._begin(name, maxsize)
                self._queues[name] = queue
            return self._queues[name]

    def get_queue(self, name: str) -> SageQueue:
        """
        Return the queue of a name.

        Raises:
            KeyError: It was not created here.
        """
        with self._mutex:
            return self._queues[name]

    def cleanup_all(self) -> None:
        """Close and remove every queue that was created here."""
        with self._mutex:
            queues, self._queues = list(self._queues.values()), {}
        for queue in queues:
            queue.close()
            queue.destroy()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sage_queue_manager", description="See and remove the queues of this user.")
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("list", help="every queue")
    cleanup = verbs.add_parser("cleanup", help="remove queues")
    which = cleanup.add_mutually_exclusive_group()
    which.add_argument("--invalid", action="store_true", help="those that no process has open (the default)")
    which.add_argument("--all", action="store_true", help="all of this user, also those in use")
    cleanup.add_argument("--quiet", action="store_true", help="print nothing")
    of_user = verbs.add_parser("cleanup-user", help="remove the queues of a user")
    of_user.add_argument("user", nargs="?", help="as their names begin; this user when it is not given")
    of_user.add_argument("--force", action="store_true", help="also those in use")
    of_user.add_argument("--quiet", action="store_true", help="print nothing")
    test = verbs.add_parser("test", help="put and get one message")
    test.add_argument("name")
    test.add_argument("--no-multi-tenant", action="store_true", help="share the bare name with all programs")
    test.add_argument("--auto-cleanup", action="store_true", help="let the queue go with this process")
    test.add_argument("--namespace", help="share the name with all programs that name this one")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, or 1 when a test failed or no verb was given."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.verb is None:
        parser.print_help()
        return 1
    if given.verb == "list":
        list_all_sage_queues()
        return 0
    if given.verb == "test":
        return _test(given)
    if given.verb == "cleanup-user":
        removed = cleanup_user_queues(given.user, given.force)
    else:
        removed = cleanup_user_queues(force=True) if given.all else cleanup_invalid_queues()
    if not given.quiet:
        for name in removed:
            print(f"removed {name}")
        print(f"{len(removed)} queues removed")
    return 0


def _test(given: argparse.Namespace) -> int:
    queue = SageQueue(
        given.name,
        auto_cleanup=given.auto_cleanup,
        namespace=given.namespace,
        enable_multi_tenant=not given.no_multi_tenant,
    )
    message = ("sage_queue_manager test", given.name)
    queue.put(message)
    found = queue.get(timeout=10)
    print(f"queue {queue.name}: {'works' if found == message else f'gave {found!r} instead of {message!r}'}")
    queue.close()
    return int(found != message)


if __name__ == "__main__":
    sys.exit(main())
