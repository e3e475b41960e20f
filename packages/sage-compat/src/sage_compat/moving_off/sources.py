"""
Python files as the scan and the codemod see them: parsed, with every name that stands for an old one.

Names are followed through ``import ... as``, assignments (``make = create_queue``) and re-exports from one scanned file
to another. What is bound in several places, as in ``try: import ... except ImportError``, is told as unsure.
"""

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sage_compat.moving_off.facts import (
    ONLY_OLD,
    Facts,
    UnreadableSourceError,
    absolute,
    facts_of,
    is_old_text,
    mentions,
)
from sage_compat.moving_off.libcst_door import cst, metadata
from sage_compat.moving_off.paths import shown_path
from sage_compat.moving_off.replacements import ERROR_TEXTS, is_old_module, shortened

if TYPE_CHECKING:
    from libcst.metadata.scope_provider import BaseAssignment

__all__ = ["MODULE", "Decoded", "Program", "Source", "Use", "decoded", "lines_of", "parsed", "python_files"]

MODULE: Final = "module.*"
"""The short name of an old module itself, where it is used as a value."""

_LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_SKIPPED_FOLDERS: Final = frozenset({"__pycache__", "node_modules", "build", "dist", "site-packages"})
_MOST_HOPS: Final = 16


@dataclass(frozen=True)
class Decoded:
    """Text of a file, with what is needed to write it back as it was."""

    text: str
    encoding: str


@dataclass(frozen=True)
class Use:
    """
    A place where an old name is used.

    Attributes:
        node: The name, or the dotted name.
        short: Which old name: ``family.name``.
        role: ``call``, ``annotation``, ``alias`` or ``value``.
        call: The call, for that role.
        is_sure: Whether it can be nothing else.
        bindings: The imports that bring it.
    """

    node: "cst.BaseExpression"
    short: str
    role: str
    call: "cst.Call | None"
    is_sure: bool
    bindings: "tuple[BaseAssignment, ...]"


@dataclass(eq=False)
class Source:
    """
    A parsed file.

    Attributes:
        path: Where it is.
        decoded: Its text.
        facts: What the quick look told.
        tree: Its syntax tree; the mappings below have what is known of its nodes.
        uses: Old names in it.
        attributes: Methods in it that only old queues have.
        texts: Texts in it that are old names.
        stars: Imports of everything from an old module.
        comparisons: Comparisons with the text of an old exception.
    """

    path: Path
    decoded: Decoded
    facts: Facts
    tree: "cst.Module"
    scopes: Mapping[Any, Any]
    parents: Mapping[Any, Any]
    positions: Mapping[Any, Any]
    uses: list[Use] = field(default_factory=list)
    attributes: "list[cst.Attribute]" = field(default_factory=list)
    texts: "list[cst.SimpleString]" = field(default_factory=list)
    stars: "list[cst.ImportFrom]" = field(default_factory=list)
    comparisons: "list[cst.Comparison]" = field(default_factory=list)

    def anew(self) -> "Source":
        """The same file, with nothing found in it."""
        return replace(self, uses=[], attributes=[], texts=[], stars=[], comparisons=[])

    @cached_property
    def all_scopes(self) -> set[Any]:
        """Every scope of the file."""
        return {scope for scope in self.scopes.values() if scope is not None}

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *accumulate(map(len, lines_of(self.decoded.text)))]

    def span_of(self, node: "cst.CSTNode") -> tuple[int, int]:
        """First character of a node in the text, and the one after its last."""
        where = self.positions[node]
        starts = self._line_starts
        return starts[where.start.line - 1] + where.start.column, starts[where.end.line - 1] + where.end.column

    def line_of(self, node: "cst.CSTNode") -> int:
        """Line of the first character, from 1."""
        return int(self.positions[node].start.line)

    def place_of(self, node: "cst.CSTNode") -> str:
        """File and line of a node."""
        return f"{shown_path(self.path)}:{self.line_of(node)}"

    def text_of(self, node: "cst.CSTNode") -> str:
        """Source of a node."""
        return self.tree.code_for_node(node)

    def statement_of(self, node: "cst.CSTNode") -> "cst.CSTNode":
        """The statement that a node stands in: a line of simple ones, or the header of a compound one."""
        while not isinstance(node, (cst.SimpleStatementLine, cst.BaseCompoundStatement)):
            node = self.parents[node]
        return node

    def absolute(self, qualified: str) -> str:
        """A name that may be relative to the package of this file, without leading dots."""
        return absolute(qualified, self.facts.module, self.facts.is_package)


@dataclass(frozen=True)
class Program:
    """
    All files that belong together.

    Attributes:
        sources: Those that use old names, parsed.
        facts: What the quick look at these and some others told.
    """

    sources: list[Source]
    facts: dict[Path, Facts]

    def is_imported(self, source: Source, name: str) -> bool:
        """Whether another file imports a name from this one."""
        wanted = {f"{source.facts.module}.{name}", f"{source.facts.module}.*"}
        return any(facts.imports & wanted for path, facts in self.facts.items() if path != source.path)


def lines_of(text: str) -> list[str]:
    """Lines with their ends, as Python counts them: a form feed ends none."""
    return _LINE.findall(text)


# -- Finding and reading files ----------------------------------------------------------------------------------------


def python_files(paths: Iterable[Path]) -> list[Path]:
    """
    Return the Python files at and below some paths, sorted; hidden folders and built ones are left out.

    Raises:
        FileNotFoundError: A path does not exist.
    """
    found: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(2, "no such file or folder", str(path))
        found.update([path] if path.is_file() else _below(path))
    return sorted(found)


def _below(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            if entry.name[0] != "." and entry.name not in _SKIPPED_FOLDERS and not (entry / "pyvenv.cfg").exists():
                yield from _below(entry)
        elif entry.suffix == ".py" and entry.is_file():
            yield entry


def decoded(path: Path) -> Decoded:
    """
    Read a file as Python does, with its line ends.

    Raises:
        OSError: It cannot be read.
        UnreadableSourceError: It is not in the encoding that it names.
    """
    data = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return Decoded(data.decode(encoding), encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise UnreadableSourceError(f"{path}: {error}") from error


# -- Parsing ----------------------------------------------------------------------------------------------------------


def parsed(texts: Mapping[Path, Decoded], earlier: Program | None = None) -> Program:
    """
    Parse the files that use old names, and follow the names from one file to another.

    Args:
        texts: All files that belong together; those that cannot matter are not parsed, and may have errors.
        earlier: The program before some files were changed: the others are not parsed again.

    Raises:
        UnreadableSourceError: One has a syntax error; names all that have.
    """
    facts: dict[Path, Facts] = {}
    sources: dict[Path, Source] = {}
    exports: dict[str, str] = {}
    errors: list[str] = []
    known = {source.path: source for source in (earlier.sources if earlier else ())}
    looked: set[Path] = set()
    words: set[str] = set()
    while waiting := [path for path, each in texts.items() if path not in looked and _may_matter(each.text, words)]:
        looked.update(waiting)
        for path in sorted(waiting):
            try:
                facts[path] = facts_of(path, texts[path].text)
            except UnreadableSourceError as error:
                errors.append(str(error))
        while new := [path for path in facts if path not in sources and _is_needed(facts[path], exports)]:
            for path in sorted(new):
                try:
                    sources[path] = _source(path, texts[path], facts[path], known.get(path))
                except UnreadableSourceError as error:
                    errors.append(str(error))
                    del facts[path]
                    continue
                exports |= _exports(sources[path])
        words = {source.facts.module.rpartition(".")[2] for source in sources.values()}
    if errors:
        raise UnreadableSourceError("\n".join(errors))
    for source in sources.values():
        source.tree.visit(_Finder(source, exports))
    return Program([sources[path] for path in sorted(sources)], facts)


def _may_matter(text: str, modules: set[str]) -> bool:
    """Whether a file has words of the old API, or imports from a module that has old names to hand on."""
    return mentions(text) or any(f"import {name}" in text or f"{name} import" in text for name in modules)


def _is_needed(facts: Facts, exports: Mapping[str, str]) -> bool:
    """Whether a file uses old names, by itself or through another file."""
    if facts.is_old:
        return True
    homes = {name.rpartition(".")[0] for name in exports if _short_of(name, exports) is not None}
    return any(name in homes or _short_of(name, exports) is not None for name in facts.imports)


def _source(path: Path, text: Decoded, facts: Facts, known: Source | None) -> Source:
    return known.anew() if known is not None and known.decoded == text else _parsed(path, text, facts)


def _parsed(path: Path, text: Decoded, facts: Facts) -> Source:
    try:
        tree = cst.parse_module(text.text)
    except cst.ParserSyntaxError as error:
        reason = error.message.splitlines()[0]
        raise UnreadableSourceError(f"{path}:{error.raw_line}:{error.raw_column + 1}: {reason}") from error
    wrapper = metadata.MetadataWrapper(tree, unsafe_skip_copy=True)
    scopes, parents, positions = metadata.ScopeProvider, metadata.ParentNodeProvider, metadata.PositionProvider
    found = wrapper.resolve_many([scopes, parents, positions])
    return Source(path, text, facts, wrapper.module, found[scopes], found[parents], found[positions])


def _exports(source: Source) -> dict[str, str]:
    """What others can import from a file that the file has from elsewhere: whole name, and whole name there."""
    scope = source.scopes[source.tree]
    found = {}
    for assignment in scope.assignments:
        names = {source.absolute(each.name) for each in assignment.get_qualified_names_for(assignment.name)}
        if isinstance(assignment, metadata.ImportAssignment):
            if len(names) == 1:
                found[f"{source.facts.module}.{assignment.name}"] = names.pop()
        elif (value := _assigned_name(source, assignment)) is not None:
            targets = {source.absolute(each.name) for each in scope.get_qualified_names_for(value)}
            if len(targets) == 1:
                found[f"{source.facts.module}.{assignment.name}"] = targets.pop()
    return found


def _short_of(qualified: str, exports: Mapping[str, str]) -> str | None:
    """The short old name that a whole name stands for, after all hops from file to file."""
    for _ in range(_MOST_HOPS):
        if (short := shortened(qualified)) is not None:
            return short
        if is_old_module(qualified):
            return MODULE
        head, _, tail = qualified.rpartition(".")
        if qualified in exports:
            qualified = exports[qualified]
        elif head in exports:
            qualified = f"{exports[head]}.{tail}"
        else:
            return None
    return None


def _assigned_name(source: Source, assignment: Any) -> "cst.BaseExpression | None":
    """For ``name = dotted.name``: the right side."""
    node = getattr(assignment, "node", None)
    target = source.parents.get(node)
    statement = source.parents.get(target)
    if isinstance(target, cst.AssignTarget) and isinstance(statement, cst.Assign) and len(statement.targets) == 1:
        return statement.value if isinstance(statement.value, (cst.Name, cst.Attribute)) else None
    return None


# -- Uses -------------------------------------------------------------------------------------------------------------


class _Finder(cst.CSTVisitor):
    """Collects what a source has of the old API: the longest dotted names that stand for old ones, and the rest."""

    def __init__(self, source: Source, exports: Mapping[str, str]) -> None:
        super().__init__()
        self.source = source
        self.exports = exports

    def visit_Import(self, node: "cst.Import") -> bool:  # noqa: N802  (libcst's way)
        return False

    def visit_ImportFrom(self, node: "cst.ImportFrom") -> bool:  # noqa: N802
        module = None if node.relative or node.module is None else self.source.text_of(node.module)
        if isinstance(node.names, cst.ImportStar) and module is not None and is_old_module(module):
            self.source.stars.append(node)
        return False

    def visit_Attribute(self, node: "cst.Attribute") -> bool:  # noqa: N802
        if node.attr.value in ONLY_OLD:
            self.source.attributes.append(node)
        return not self._take(node)

    def visit_Comparison(self, node: "cst.Comparison") -> None:  # noqa: N802
        sides = [node.left, *(each.comparator for each in node.comparisons)]
        values = [side.evaluated_value for side in sides if isinstance(side, cst.SimpleString)]
        if any(isinstance(value, str) and _is_error_text(value) for value in values):
            self.source.comparisons.append(node)

    def visit_Name(self, node: "cst.Name") -> bool:  # noqa: N802
        return not self._take(node)

    def visit_SimpleString(self, node: "cst.SimpleString") -> None:  # noqa: N802
        value = node.evaluated_value
        if isinstance(value, str) and is_old_text(value):
            self.source.texts.append(node)
        elif isinstance(value, str) and value.isidentifier() and self._role(node)[0] == "annotation":
            self._take(node)

    def _take(self, node: "cst.Name | cst.Attribute | cst.SimpleString") -> bool:
        qualified, bindings = self._meanings(node)
        meanings = {None if name is None else _short_of(name, self.exports) for name in qualified}
        olds = {short for short in meanings if short is not None}
        if not olds:
            return False
        role, call = self._role(node)
        if role == "target":
            return False
        is_sure = len(meanings) == 1 and len(bindings) == 1
        self.source.uses.append(Use(node, min(olds), role, call, is_sure, tuple(bindings)))
        return True

    def _meanings(
        self, node: "cst.BaseExpression", hops: int = _MOST_HOPS
    ) -> "tuple[set[str | None], list[BaseAssignment]]":
        """Whole names that a name can stand for, and the imports that bring them; None for what is no such name."""
        parts = _dotted(node)
        scope = self.source.scopes.get(node) if isinstance(node, cst.SimpleString) else self._scope_of(node)
        if not parts or scope is None or not hops:
            return set(), []
        found: set[str | None] = set()
        bindings: list[BaseAssignment] = []
        # ``import a.b.c`` binds that very name beside ``a``, which other imports bind, too.
        length = next((n for n in range(len(parts), 0, -1) if scope[".".join(parts[:n])]), 1)
        rest = "".join(f".{part}" for part in parts[length:])
        for assignment in scope[".".join(parts[:length])]:
            if isinstance(assignment, metadata.ImportAssignment):
                names = assignment.get_qualified_names_for(".".join(parts))
                found |= {self.source.absolute(each.name) for each in names}
                bindings.append(assignment)
            elif (value := _assigned_name(self.source, assignment)) is not None:
                below, more = self._meanings(value, hops - 1)
                found |= {None if name is None else f"{name}{rest}" for name in below} or {None}
                bindings += more
            else:
                found.add(None)
        return found, bindings

    def _scope_of(self, node: Any) -> Any:
        while isinstance(node, cst.Attribute):
            node = node.value
        return self.source.scopes.get(node)

    def _role(self, node: "cst.BaseExpression") -> "tuple[str, cst.Call | None]":
        parent = self.source.parents[node]
        if isinstance(parent, cst.Call) and parent.func is node:
            return "call", parent
        if isinstance(parent, (cst.AssignTarget, cst.Del, cst.NameItem, cst.Param)) and not self._is_value(
            parent, node
        ):
            return "target", None
        if isinstance(parent, cst.Assign) and len(parent.targets) == 1:
            return "alias", None
        while not isinstance(parent, (cst.BaseStatement, cst.BaseSmallStatement, cst.Module)):
            if isinstance(parent, cst.Annotation):
                return "annotation", None
            parent = self.source.parents[parent]
        return "value", None

    @staticmethod
    def _is_value(parent: "cst.CSTNode", node: "cst.BaseExpression") -> bool:
        return isinstance(parent, cst.Param) and parent.default is node


def _dotted(node: Any) -> list[str]:
    """The parts of a dotted name, also of one that is an annotation in quotes; none for anything else."""
    if isinstance(node, cst.SimpleString):
        text = node.evaluated_value
        return [text] if isinstance(text, str) and text.isidentifier() else []
    parts: list[str] = []
    while isinstance(node, cst.Attribute):
        parts.insert(0, node.attr.value)
        node = node.value
    return [node.value, *parts] if isinstance(node, cst.Name) else []


def _is_error_text(value: str) -> bool:
    lowered = value.lower()
    return any(text.lower() in lowered for text in ERROR_TEXTS)
