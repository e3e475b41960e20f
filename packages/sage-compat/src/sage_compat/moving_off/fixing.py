"""
The codemod: write new calls over old ones where nothing changes, and say of the rest why it stays.

Only the pieces that change are written, as source; everything else keeps its form to the letter. Doing it again
changes nothing.
"""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sage_compat.moving_off.judging import Granted, judged
from sage_compat.moving_off.libcst_door import cst
from sage_compat.moving_off.paths import shown_path
from sage_compat.moving_off.replacements import DESCRIPTORS
from sage_compat.moving_off.replacing import write_whole
from sage_compat.moving_off.scan import Place, is_followed, is_same_class, old_imports, places
from sage_compat.moving_off.sources import MODULE, Decoded, Program, Source, lines_of, parsed

__all__ = ["MARK", "Fixed", "fixed", "write"]

MARK: Final = "# sage-compat: "
"""How the comments begin that say why something stays."""

_OWN_COMMENT: Final = re.compile(rf"{re.escape(MARK)}SQC\d{{3}} ")
_MOST_ROUNDS: Final = 10


@dataclass(frozen=True)
class Fixed:
    """
    What the codemod makes of a program.

    Attributes:
        texts: The files that change, with their new text.
        changes: How many calls and names were replaced.
        left: What stays and is told of by a comment.
    """

    texts: dict[Path, str]
    changes: int
    left: tuple[Place, ...]


@dataclass(frozen=True, order=True)
class _Edit:
    start: int
    end: int
    text: str
    is_change: bool = False


def fixed(texts: Mapping[Path, Decoded], granted: Granted) -> Fixed:
    """
    Return the new text of the files that change; nothing is written.

    Args:
        texts: All files of the program.
        granted: What the user says that no source can show.

    Raises:
        UnreadableSourceError: A file has a syntax error; names all that have.
    """
    current = {path: replace(each, text=_without_comments(each.text)) for path, each in texts.items()}
    changes = 0
    program = None
    for _ in range(_MOST_ROUNDS):  # a change in one file may free a name in another
        program = parsed(current, program)
        found = places(program, judged(program, granted))
        edits = {source: list(_edits(source, found, program)) for source in program.sources}
        for source, some in edits.items():
            current[source.path] = replace(source.decoded, text=_applied(source.decoded.text, some))
        changes += sum(edit.is_change for some in edits.values() for edit in some)
        if not any(edits.values()):
            break
    else:
        raise AssertionError(f"the codemod still changes something after {_MOST_ROUNDS} rounds")
    notes = {source: _notes(source, [place for place in found if place.source is source]) for source in program.sources}
    for source, own in notes.items():
        current[source.path] = replace(source.decoded, text=_commented(source, own, notes))
    new = {path: each.text for path, each in current.items() if each.text != texts[path].text}
    return Fixed(new, changes, tuple(found))


def write(path: Path, before: Decoded, text: str) -> None:
    """
    Put the new text in place of the old one, in one step: a kill leaves one or the other.

    Raises:
        OSError: It cannot be written.
        ValueError: The file is not what it was when it was read.
    """
    if path.read_bytes() != before.text.encode(before.encoding):
        raise ValueError(f"{path} was changed meanwhile; nothing was written to it, run the command again")
    write_whole(path, text.encode(before.encoding))


# -- Edits ------------------------------------------------------------------------------------------------------------


def _edits(source: Source, found: Iterable[Place], program: Program) -> Iterator[_Edit]:
    """What to write into a file: new calls, and the imports that they need."""
    here = [place for place in found if place.source is source and place.is_automatic]
    renamed = {place.node for place in here if isinstance(place.node, cst.ImportFrom)}
    written = [place for place in here if place.node not in renamed]
    edits = {place: replace(_edit(source, place.node, place.replacement), is_change=True) for place in written}
    done: set[Any] = set()
    needed: dict[Any, set[str]] = {}
    for place, edit in edits.items():
        if any(edit.start <= other.start and other.end <= edit.end for other in edits.values() if other is not edit):
            continue  # the pieces inside first; this one in the next round
        yield edit
        if place.use is None:
            continue
        done.add(_root(place.use.node))
        for binding in place.use.bindings:
            needed.setdefault(binding, set()).add(_needed_name(place))
    yield from _alias_edits(source, done, program)
    yield from _import_edits(source, needed, done, renamed, program)


def _alias_edits(source: Source, done: set[Any], program: Program) -> Iterator[_Edit]:
    """Take ``make = create_queue`` away once nothing calls ``make`` any more."""
    for use in source.uses:
        statement = source.parents.get(source.parents.get(use.node))
        block = source.parents.get(statement)
        if use.role != "alias" or not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) > 1:
            continue
        (target,) = (each.target for each in source.parents[use.node].targets)
        if not isinstance(target, cst.Name) or len(getattr(block, "body", ())) < 2:
            continue
        scope = source.scopes[target]
        references = {_root(access.node) for each in scope.assignments[target.value] for access in each.references}
        is_global = scope is source.scopes[source.tree]
        if not references <= done or not references or (is_global and is_followed(source, target.value, program)):
            continue
        done.add(_root(use.node))
        yield _whole_lines(source, statement)


def _whole_lines(source: Source, statement: Any) -> _Edit:
    """Take the lines of a statement away, with a comment at its end."""
    text = source.decoded.text
    first, last = source.span_of(statement)
    end = text.find("\n", last) + 1
    return _Edit(text.rfind("\n", 0, first) + 1, end or len(text), "")


def _needed_name(place: Place) -> str:
    """What the new text needs from ``sage_qd``; empty where it says ``sage_qd.``."""
    if place.replacement.startswith("sage_qd."):
        return ""
    if place.creation is not None and place.creation.new is not None:
        return place.creation.new.descriptor
    return DESCRIPTORS["sage"] if place.row.code == "SQC013" else place.replacement.strip('"')


def _root(node: Any) -> Any:
    while isinstance(node, cst.Attribute):
        node = node.value
    return node


def _import_edits(
    source: Source,
    needed: Mapping[Any, set[str]],
    done: set[Any],
    renamed: set[Any],
    program: Program,
) -> Iterator[_Edit]:
    statements: dict[Any, list[tuple[Any, str]]] = {}
    for assignment, whole in old_imports(source):
        statements.setdefault(assignment.node, []).append((assignment, whole))
    for binding in needed:
        if binding.node not in statements:  # it brings an old name from another file of the program
            statements[binding.node] = [(each, MODULE) for each in needed if each.node is binding.node]
    for statement, brought in statements.items():
        dropped: set[str] = set()
        names: set[str] = set()
        for assignment, whole in brought:
            if statement in renamed and is_same_class(whole):
                dropped.add(assignment.name)
                base = whole.rpartition(".")[2]
                names.add(base if base == assignment.name else f"{base} as {assignment.name}")
            elif assignment in needed:
                names |= needed[assignment]
                roots = {_root(access.node) for access in assignment.references}
                if roots <= done and not is_followed(source, assignment.name, program):
                    dropped.add(assignment.name)
        if names:
            edit = _import_edit(source, statement, dropped, names)
            yield replace(edit, is_change=statement in renamed)


def _import_edit(source: Source, statement: Any, dropped: set[str], names: set[str]) -> _Edit:
    kept = [alias for alias in statement.names if _bound_name(alias) not in dropped]
    lines = []
    if len(kept) == len(statement.names):
        lines.append(source.text_of(statement))
    elif kept:
        kept[-1] = kept[-1].with_changes(comma=cst.MaybeSentinel.DEFAULT)
        lines.append(source.text_of(statement.with_changes(names=kept)))
    if names - {""}:
        lines.append(f"from sage_qd import {', '.join(sorted(names - {''}))}")
    if "" in names:
        lines.append("import sage_qd")
    line = source.statement_of(statement)
    is_alone = isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1
    between = f"{_line_end(source.decoded.text)}{_indent(source, line)}" if is_alone else "; "
    return _edit(source, statement, between.join(lines))


def _bound_name(alias: "cst.ImportAlias") -> str:
    return str(alias.evaluated_alias or alias.evaluated_name)


def _edit(source: Source, node: Any, text: str) -> _Edit:
    return _Edit(*source.span_of(node), text)


def _applied(text: str, edits: Iterable[_Edit]) -> str:
    pieces: list[str] = []
    position = 0
    for edit in sorted(edits):
        pieces += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*pieces, text[position:]])


# -- Comments ---------------------------------------------------------------------------------------------------------


_Notes = dict[int, list[str]]
"""Comments of a file by the line above which they go."""


def _notes(source: Source, left: Iterable[Place]) -> _Notes:
    notes: _Notes = {}
    for place in left:
        statement = source.statement_of(place.node)
        first = [source.line_of(each) for each in getattr(statement, "decorators", ())]
        here = notes.setdefault(min([source.line_of(statement), *first]), [])
        if (text := f"{_indent(source, statement)}{MARK}{_note(place)}") not in here:
            here.append(text)
    return notes


def _commented(source: Source, notes: _Notes, all_notes: Mapping[Source, _Notes]) -> str:
    """The text with its comments; they name lines as these are once all comments are in."""
    lines = lines_of(source.decoded.text)
    end = _line_end(source.decoded.text)
    for number in sorted(notes, reverse=True):
        told = []
        for text in notes[number]:
            for other, theirs in all_notes.items():
                text = _moved(text, re.escape(shown_path(other.path)) + ":", theirs)
            told.append(f"{_moved(text, 'line ', notes)}{end}")
        lines[number - 1 : number - 1] = told
    return "".join(lines)


def _moved(text: str, before: str, notes: _Notes) -> str:
    """Count the comments above each line that a text names."""

    def line(match: re.Match[str]) -> str:
        number = int(match[2])
        return f"{match[1]}{number + sum(len(some) for at, some in notes.items() if at <= number)}"

    return re.sub(rf"(?<![\w./-])({before})(\d+)", line, text)


def _note(place: Place) -> str:
    if place.reason:
        return f"{place.row.code} stays: {place.reason}; see {place.row.page}"
    return f"{place.row.code} is for you: {place.replacement}; see {place.row.page}"


def _indent(source: Source, statement: Any) -> str:
    line = lines_of(source.decoded.text)[source.line_of(statement) - 1]
    return line[: len(line) - len(line.lstrip())]


def _line_end(text: str) -> str:
    first = text.find("\n")
    return "\r\n" if first > 0 and text[first - 1] == "\r" else "\n"


def _without_comments(text: str) -> str:
    """The text without the comments of an earlier run."""
    if MARK not in text:
        return text
    lines = lines_of(text)
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text, newline="").readline))
    except (tokenize.TokenError, SyntaxError):  # the parser will say where
        return text
    own = {
        token.start[0]
        for token in tokens
        if token.type == tokenize.COMMENT
        and _OWN_COMMENT.match(token.string)
        and not token.line[: token.start[1]].strip()
    }
    return "".join(line for number, line in enumerate(lines, 1) if number not in own)
