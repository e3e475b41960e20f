"""Looking at and removing the queues of this user by name, as old programs do."""

from collections.abc import Callable
from typing import Any

from sage_compat import lines, records
from sage_compat.records import Record
from sage_compat.session import namespaced
from sage_compat.session import user as current_user

__all__ = ["cleanup_invalid_queues", "cleanup_user_queues", "destroy_queue", "list_all_sage_queues"]


def destroy_queue(name: str) -> None:
    """Remove a queue, by the name of the program or the one that processes meet under; nothing if there is none."""
    for full_name in (name, namespaced(name, None, enable_multi_tenant=True)):
        with records.changing(full_name):
            lines.destroy(full_name)


def cleanup_invalid_queues() -> list[str]:
    """Remove the queues whose users are all gone; return the names."""
    return _cleaned(lambda record: not records.is_in_use(record.full_name))


def cleanup_user_queues(user: str | None = None, force: bool = False) -> list[str]:
    """
    Remove the queues of a user that no process has open; return the names.

    Args:
        user: As names begin; None for this user.
        force: Also those in use.
    """
    chosen = user or current_user()
    return _cleaned(
        lambda record: record.full_name.startswith(f"{chosen}_") and (force or not records.is_in_use(record.full_name))
    )


def _cleaned(wanted: Callable[[Record], bool]) -> list[str]:
    removed = []
    for record in records.all_records():
        with records.changing(record.full_name):
            if wanted(record):
                lines.destroy(record.full_name)
                removed.append(record.full_name)
    return removed


def list_all_sage_queues() -> list[dict[str, Any]]:
    """Print the queues of this user, and return them."""
    found = [
        {
            "name": record.name,
            "full_name": record.full_name,
            "in_use": records.is_in_use(record.full_name),
            "kind": record.descriptors[-1].queue_type if record.chain else "none",
            "max_bytes": record.capacity_bytes,
        }
        for record in records.all_records()
    ]
    if not found:
        print("No SAGE queues")
    for each in found:
        state = "in use" if each["in_use"] else "left behind"
        print(f"{each['name']:<24} {each['kind']:<14} {state:<12} {each['max_bytes']:>12,} bytes  {each['full_name']}")
    return found
