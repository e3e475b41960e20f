"""Scan sources for uses of the old API, without running them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sage_qd
from sage_compat.moving_off.creations import Creation
from sage_compat.moving_off.findings import Finding
from sage_compat.moving_off.judging import Granted, Judgement, is_taken, judged
from sage_compat.moving_off.libcst_door import cst, metadata
from sage_compat.moving_off.paths import shown_path
from sage_compat.moving_off.replacements import BY_CODE, Replacement, is_old_module, replacement_of, shortened
from sage_compat.moving_off.sources import MODULE, Decoded, Program, Source, Use, parsed

__all__ = ["Place", "is_followed", "is_same_class", "old_imports", "places", "scan"]

_ANNOTATIONS = {"adapter.QueueWrapper": "Queue", "ring.SageQueue": "SageQueue"}
_INSTEAD = {
    "get_stats": "stats()",
    "reset_stats": "stats(), whose counters are never reset",
    "get_reference": "descriptor",
    "get_shared_memory_info": "descriptor",
    "destroy": "unlink()",
}
"""What to ask a new queue for, where the old method has no equal."""
_OTHER = "what it gives is another thing on the new queue"
_LATE = "it is known at run time only"
_NOT_NEEDED = "nothing in this file uses it"


class Place:
    """
    A use of the old API in a file, and what is to be done about it.

    Attributes:
        source: The file.
        node: What stands there.
        row: The row of the table.
        replacement: What to write instead.
        is_sure: Whether it can be nothing else.
        is_automatic: Whether the codemod writes it.
        reason: Why not.
        use: The use, for a name that was followed.
        creation: The call, for one that makes a queue.
    """

    def __init__(
        self,
        source: Source,
        node: "cst.CSTNode",
        row: Replacement,
        *,
        replacement: str | None = None,
        is_sure: bool = True,
        is_automatic: bool = False,
        reason: str = "",
        use: Use | None = None,
        creation: Creation | None = None,
    ) -> None:
        self.source = source
        self.node = node
        self.row = row
        self.replacement = row.new if replacement is None else replacement
        self.is_sure = is_sure
        self.is_automatic = is_automatic
        self.reason = reason
        self.use = use
        self.creation = creation

    def finding(self) -> Finding:
        """The same for the report."""
        where = self.source.positions[self.node]
        return Finding(
            path=shown_path(self.source.path),
            line=where.start.line,
            end_line=where.end.line,
            column=where.start.column + 1,
            code=self.row.code,
            text=" ".join(self.source.text_of(self.node).split()),
            replacement=self.replacement,
            is_sure=self.is_sure,
            is_automatic=self.is_automatic,
            reason=self.reason,
        )


def scan(texts: Mapping[Path, Decoded], granted: Granted) -> list[Finding]:
    """
    Return every use of the old API in some files, which are taken for the whole program.

    Raises:
        UnreadableSourceError: A file has a syntax error; names all that have.
    """
    program = parsed(texts)
    return [place.finding() for place in places(program, judged(program, granted))]


def places(program: Program, judgement: Judgement) -> "list[Place]":
    """Everything in the files that belongs to the old API."""
    found = []
    creations = {creation.use.node: creation for creation in judgement.creations}
    for source in program.sources:
        here = [
            *_of_uses(source, creations),
            *_of_imports(source, program),
            *_of_attributes(source, judgement),
            *(Place(source, node, BY_CODE["SQC020"], is_sure=False) for node in source.comparisons),
            *(Place(source, node, BY_CODE["SQC021"], is_sure=False, reason=_LATE) for node in source.texts),
        ]
        found += sorted(here, key=lambda place: (source.line_of(place.node), source.positions[place.node].start.column))
    return found


# -- Names ------------------------------------------------------------------------------------------------------------


def _of_uses(source: Source, creations: "Mapping[Any, Creation]") -> "Iterator[Place]":
    for use in source.uses:
        creation = creations.get(use.node)
        if creation is not None:
            yield _of_creation(source, use, creation)
        elif use.short.startswith("descriptors.") and use.role != "alias" and not isinstance(use.node, cst.Attribute):
            continue  # its import is told of
        elif use.short == "adapter.is_sage_queue_available" and use.call is not None:
            is_plain = use.is_sure and not use.call.args and not is_taken(source, "SageQueueDescriptor")
            yield Place(
                source,
                use.call,
                replacement_of(use.short),
                is_sure=use.is_sure,
                is_automatic=is_plain,
                reason="" if is_plain else f"{source.text_of(use.node)} may be another thing",
                use=use,
            )
        elif use.role == "annotation" and use.short in _ANNOTATIONS:
            yield _of_annotation(source, use, creations)
        else:
            row = BY_CODE["SQC022"] if use.short == MODULE else replacement_of(use.short)
            node = use.call or use.node
            reason = "it is handed on as a value" if use.role in ("value", "alias") else ""
            yield Place(source, node, row, is_sure=use.is_sure and use.role != "value", reason=reason, use=use)


def _of_creation(source: Source, use: Use, creation: Creation) -> Place:
    new = creation.new
    assert use.call is not None
    row = replacement_of(use.short) if new is None else new.row
    if new is None and use.short == "adapter.create_queue":
        row = replacement_of(use.short, _backend(use))
    prefix = "sage_qd." if isinstance(use.node, cst.Attribute) else ""
    return Place(
        source,
        use.call,
        row,
        replacement=None if new is None else new.text(prefix),
        is_sure=use.is_sure,
        is_automatic=new is not None,
        reason=creation.reason,
        use=use,
        creation=creation,
    )


def _backend(use: Use) -> str | None:
    assert use.call is not None
    for position, argument in enumerate(use.call.args):
        name = argument.keyword.value if argument.keyword is not None else ("backend" if position == 0 else "")
        if name in ("backend", "queue_type") and isinstance(argument.value, cst.SimpleString):
            return str(argument.value.evaluated_value)
    return None


def _of_annotation(source: Source, use: Use, creations: "Mapping[Any, Creation]") -> Place:
    """An annotation goes over when nothing else in the file keeps the old name."""
    new = _ANNOTATIONS[use.short]
    is_dotted = isinstance(use.node, cst.Attribute)
    others = [each for each in source.uses if each.short == use.short and each.role != "annotation"]
    stays = [each for each in others if each.node not in creations or creations[each.node].new is None]
    if stays:
        reason = f"line {source.line_of(stays[0].node)} still needs the old name"
    elif not use.is_sure:
        reason = f"{source.text_of(use.node)} may be another thing"
    elif not is_dotted and new != _name_of(use) and is_taken(source, new):
        reason = f"{new} is another thing in this file"
    else:
        reason = ""
    row = replacement_of(use.short)
    if isinstance(use.node, cst.SimpleString):
        new = f'"{new}"'
    if is_dotted:
        new = f"sage_qd.{new}"
    return Place(
        source, use.node, row, replacement=new, is_sure=use.is_sure, is_automatic=not reason, reason=reason, use=use
    )


def _name_of(use: Use) -> str:
    if isinstance(use.node, cst.SimpleString):
        return str(use.node.evaluated_value)
    return use.node.value if isinstance(use.node, cst.Name) else ""


# -- Imports ----------------------------------------------------------------------------------------------------------


def old_imports(source: Source) -> "list[tuple[Any, str]]":
    """The imports of a file that bring old names or modules, each with its whole name, from top to bottom."""
    found = []
    for assignment in (each for scope in source.all_scopes for each in scope.assignments):
        if isinstance(assignment, metadata.ImportAssignment):
            names = assignment.get_qualified_names_for(assignment.name)
            whole = min(source.absolute(each.name) for each in names)
            if shortened(whole) is not None or is_old_module(whole):
                found.append((assignment, whole))
    return sorted(found, key=lambda pair: (source.span_of(pair[0].node), pair[0].name))


def is_followed(source: Source, name: str, program: Program) -> bool:
    """Whether another file imports a name from this one, or this one offers it to whoever likes."""
    return (
        program.is_imported(source, name)
        or name in _offered(source)
        or (source.facts.is_package and bool(source.facts.module))
    )


def _offered(source: Source) -> "set[str]":
    """Names in ``__all__``."""
    for statement in source.tree.body:
        for small in statement.body if isinstance(statement, cst.SimpleStatementLine) else ():
            if isinstance(small, cst.Assign) and any(
                isinstance(each.target, cst.Name) and each.target.value == "__all__" for each in small.targets
            ):
                elements = getattr(small.value, "elements", ())
                return {
                    str(each.value.evaluated_value) for each in elements if isinstance(each.value, cst.SimpleString)
                }
    return set()


def is_same_class(whole: str) -> bool:
    """Whether an old descriptor class, by its whole name, is there under the same name in ``sage_qd``."""
    short = shortened(whole) or ""
    return short.startswith("descriptors.") and short.partition(".")[2] in sage_qd.__all__


def _of_imports(source: Source, program: Program) -> "Iterator[Place]":
    classes: dict[Any, list[tuple[Any, str]]] = {}
    unused: dict[Any, bool] = {}
    for assignment, whole in old_imports(source):
        if (shortened(whole) or MODULE).startswith("descriptors."):
            classes.setdefault(assignment.node, []).append((assignment, whole))
        elif not assignment.references:
            is_offered = is_followed(source, assignment.name, program)
            unused[assignment.node] = unused.get(assignment.node, False) or is_offered
    for node, brought in classes.items():
        yield _of_classes(source, node, brought)
    for node, is_offered in unused.items():
        reason = "other files may import it from here" if is_offered else _NOT_NEEDED
        yield Place(source, node, BY_CODE["SQC022"], is_sure=not is_offered, reason=reason)
    for star in source.stars:
        yield Place(source, star, BY_CODE["SQC022"], is_sure=False, reason="import * hides which names are used")


def _of_classes(source: Source, node: "cst.CSTNode", brought: "list[tuple[Any, str]]") -> Place:
    """An import of descriptor classes, which are to come from ``sage_qd``."""
    names = sorted(whole.rpartition(".")[2] for _, whole in brought)
    unknown = sorted(whole.rpartition(".")[2] for _, whole in brought if not is_same_class(whole))
    twice = sorted(each.name for each, _ in brought if len(each.scope.assignments[each.name]) > 1)
    if unknown:
        reason = f"sage_qd has no {', '.join(unknown)}"
    elif twice:
        reason = f"{', '.join(twice)} is bound in more than one place"
    else:
        reason = ""
    row = BY_CODE["SQC018"]
    new = f"from sage_qd import {', '.join(names)}"
    return Place(source, node, row, replacement=new, is_sure=not twice, is_automatic=not reason, reason=reason)


# -- Methods ----------------------------------------------------------------------------------------------------------


def _of_attributes(source: Source, judgement: Judgement) -> "Iterator[Place]":
    automatic = [attribute for where, attribute in judgement.stats if where is source]
    told = set()
    for where, attribute in judgement.members:
        if where is not source or attribute in told:
            continue
        told.add(attribute)
        row = replacement_of(f"queue.{attribute.attr.value}")
        if attribute in automatic:
            receiver = source.text_of(attribute.value)
            call = source.parents[attribute]
            yield Place(source, call, row, replacement=row.new.replace("queue", receiver), is_automatic=True)
        else:
            instead = f"{source.text_of(attribute.value)}.{_INSTEAD[attribute.attr.value]}"
            yield Place(source, attribute, row, replacement=instead, reason=_OTHER)
