"""
The pages of the reference that are tables of what is declared in code: kinds, and deviations from the standard library.

``python docs/generate.py`` writes them; a test compares what is written with what these functions return.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import sage_qd
from sage_qd.descriptors.registry import built_in_queue_types, queue_kind
from sage_qd.errors import BackendUnavailableError
from sage_qd.queues.base import Capabilities
from sage_qd.testing.deviations import (
    DEVIATIONS,
    PROCESS_TESTS,
    QUEUE_TESTS,
    SIMPLE_QUEUE_TESTS,
    SUITES_LEFT_OUT,
    Deviation,
)

__all__ = ["deviations_page", "kinds_page"]

_KINDS: Final = """\
# Kinds of queues

Every kind declares what it can do, in code, as {class}`~sage_qd.Capabilities`. The contract tests read that, and so
does this page: `python docs/generate.py` writes it.

{table}

What the lines say:

{legend}

A kind that is not installed is here by what its descriptor declares. A kind of your own is in
`sage_qd.known_queue_types()` after `sage_qd.register_queue_type`.
"""
_DEVIATIONS: Final = """\
# Deviations from the standard library

CPython's own tests of `queue.Queue`, `queue.SimpleQueue` and `multiprocessing.Queue` run on every kind, on each
supported version of Python; only those of `multiprocessing.Queue` leave Ray queues out, because they start processes
themselves, by fork too, and the processes of a cluster are started by Ray. This page lists each test that some kind
does not pass, with the reason; all others pass. A listed test is run too, and must fail as it is listed, so that no
entry can be out of date; those that would wait for ever, or do not touch the queue, are not run.

The page is the table `DEVIATIONS` of `sage_qd.testing.deviations`, written by `python docs/generate.py`.

{tables}

## Left out

Classes of tests that belong to something else:

{left_out}
"""
_FACTS: Final = {
    "Descriptor": "the class that names a queue of this kind",
    "Queue": "the class of the open queue",
    "Reach": "how far apart producers and consumers may be",
    "Order": "in which order messages are taken",
    "Delivery": "what becomes of a message when its consumer dies",
    "Survives a kill": "whether a process killed at any instruction leaves the queue usable for the others",
    "Lease": "whether `lease`, `ack` and `nack` work: messages on trial",
    "Views": "whether `view` shows a message in place, without a copy",
    "Joins": "whether `task_done` and `join` work",
    "Same object": "whether `get` returns the very object that was put",
    "Bytes": "whether room runs out by bytes too, and `max_bytes` counts encoded bytes",
    "Durable": "whether it can be made so that messages outlive everybody who uses it",
    "Movable": "whether `migrate` can move it to another kind while it is used",
    "URI": "how the URI of its descriptor begins",
}


def kinds_page() -> str:
    """Return the page of all built-in kinds: one column for each."""
    kinds = [
        queue_type for queue_type in built_in_queue_types() if queue_type != "auto"
    ]  # it becomes one of the others
    columns = [_facts_of(queue_type) for queue_type in kinds]
    rows = [[fact, *cells] for fact, cells in zip(_FACTS, zip(*columns, strict=True), strict=True)]
    legend = "\n".join(f"- **{fact}**: {meaning}" for fact, meaning in _FACTS.items())
    table = _table(["", *(f"`{queue_type}`" for queue_type in kinds)], rows)
    return _KINDS.replace("{table}", table).replace("{legend}", legend)


def _facts_of(queue_type: str) -> list[str]:
    """The cells of one kind, as many as there are facts."""
    try:
        kind: Any = queue_kind(queue_type)
    except BackendUnavailableError as error:
        return [f"needs {error.missing}", *["–"] * (len(_FACTS) - 1)]
    queue = _queue_class(kind)
    declared = kind.capabilities
    return [
        f"{{class}}`~sage_qd.{kind.__name__}`",
        f"{{class}}`~sage_qd.{queue}`" if queue in sage_qd.__all__ else "–",
        *(_capability_cells(declared) if declared is not None else ["–"] * (len(_FACTS) - 3)),
        f"`{kind.uri_scheme}:`" if kind.uri_scheme else "–",
    ]


def _queue_class(kind: Any) -> str:
    """The name of the queue class, from what opening is declared to return; that may be text, and `X` or `X[Any]`."""
    returned = kind._open_queue.__annotations__["return"]
    name = returned if isinstance(returned, str) else returned.__name__
    return str(name).partition("[")[0]


def _capability_cells(declared: Capabilities) -> Iterable[str]:
    values = (
        declared.reach,
        declared.ordering,
        declared.delivery,
        declared.survives_crash,
        declared.lease,
        declared.views,
        declared.joins,
        declared.same_object,
        declared.bounded_by_bytes,
        declared.durable,
        declared.movable,
    )
    return [value.value if isinstance(value, Enum) else ("no", "yes")[value] for value in values]


def deviations_page() -> str:
    """Return the page of all deviations."""
    suites = {
        "queue.Queue": QUEUE_TESTS,
        "queue.SimpleQueue": SIMPLE_QUEUE_TESTS,
        "multiprocessing.Queue": PROCESS_TESTS,
    }
    columns = ("Test", "On which kinds", "What is different", "The test")
    tables = [
        f"## {title}\n\nTests of `{suite}`:\n\n"
        + _table(columns, [_deviation_row(entry) for entry in DEVIATIONS if entry.suite == suite])
        for title, suite in suites.items()
    ]
    left_out = "\n".join(f"- `{suite}`: {reason}." for suite, reason in SUITES_LEFT_OUT.items())
    return _DEVIATIONS.replace("{tables}", "\n\n".join(tables)).replace("{left_out}", left_out)


def _deviation_row(entry: Deviation) -> list[str]:
    since = "" if entry.since <= (3, 11) else f" (Python {entry.since[0]}.{entry.since[1]} and later)"
    return [f"`{entry.test}`{since}", _where(entry), entry.reason, _how_it_ends(entry)]


def _where(entry: Deviation) -> str:
    if entry.capability is None:
        return "all"
    values = (value.value if isinstance(value, Enum) else str(value) for value in entry.values)
    return f"`{entry.capability}`: {', '.join(values)}"


def _how_it_ends(entry: Deviation) -> str:
    if entry.fails_with is None:
        return f"is not run: {entry.not_run}"
    kinds = entry.fails_with if isinstance(entry.fails_with, tuple) else (entry.fails_with,)
    return f"ends with {', '.join(f'`{kind.__name__}`' for kind in kinds)}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(columns), *(tuple(row) for row in rows)]
    texts = [f"| {' | '.join(line)} |" for line in lines]
    texts.insert(1, "|" + "---|" * len(lines[0]))
    return "\n".join(texts)
