"""
What a quick look at a file tells, with Python's own parser: whether it is worth a slow and exact one.

It also answers for files that use nothing old themselves: what they import, and whether they use methods that only old
queues have.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sage_compat.moving_off.replacements import FAMILIES, is_old_module, shortened

__all__ = ["ONLY_OLD", "Facts", "UnreadableSourceError", "facts_of", "is_old_text", "mentions", "module_name"]

ONLY_OLD: Final = frozenset({"get_stats", "reset_stats", "get_reference", "get_shared_memory_info", "destroy"})
"""Methods that queues of the old API have and new ones have not, or not so."""

_ROOTS: Final = sorted({path.partition(".")[0] for paths in FAMILIES.values() for path in paths} | {"mmap_queue"})
_MENTIONS: Final = re.compile(rf"\b(?:{'|'.join(_ROOTS)})\b|\.(?:{'|'.join(sorted(ONLY_OLD))})\b")


class UnreadableSourceError(ValueError):
    """A file is no Python that can be read; the text has file, line, column and reason."""


@dataclass(frozen=True)
class Facts:
    """
    What a file has.

    Attributes:
        module: Name under which it is imported, as far as ``__init__.py`` files tell.
        is_package: Whether it is an ``__init__.py``.
        imports: Whole names of what it imports; ``module.*`` for everything of a module.
        only_old: Line and name of methods that only old queues have.
        is_old: Whether it imports old names or modules, or has their names as texts.
    """

    module: str
    is_package: bool
    imports: frozenset[str]
    only_old: tuple[tuple[int, str], ...]
    is_old: bool


def mentions(text: str) -> bool:
    """Whether a file can have anything to do with the old API, by its words."""
    return _MENTIONS.search(text) is not None


def facts_of(path: Path, text: str) -> Facts:
    """
    Look at a file.

    Raises:
        UnreadableSourceError: It has a syntax error.
    """
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError as error:
        raise UnreadableSourceError(f"{path}:{error.lineno}:{error.offset}: {error.msg}") from error
    except ValueError as error:  # null characters
        raise UnreadableSourceError(f"{path}: {error}") from error
    module, is_package = module_name(path)
    imports = frozenset(name for node in nodes for name in _imports(node, module, is_package))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    is_old = any(map(_is_old, imports)) or any(map(is_old_text, texts))
    only_old = ((node.lineno, node.attr) for node in nodes if isinstance(node, ast.Attribute) and node.attr in ONLY_OLD)
    return Facts(module, is_package, imports, tuple(sorted(only_old)), is_old)


def module_name(path: Path) -> tuple[str, bool]:
    """Name under which a file is imported, as far as ``__init__.py`` files tell; and whether it is a package."""
    path = path.resolve()
    is_package = path.name == "__init__.py"
    parts = [] if is_package else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts), is_package


def absolute(qualified: str, module: str, is_package: bool) -> str:
    """A name that may be relative to the package of a module, without leading dots."""
    levels = len(qualified) - len(qualified.lstrip("."))
    if not levels:
        return qualified
    package = module.split(".")
    keep = len(package) - levels + is_package
    return ".".join([*package[: max(keep, 0)], qualified[levels:]])


def is_old_text(text: str) -> bool:
    """Whether a text is the whole name of an old module, or of something in one."""
    head, dot, _ = text.rpartition(".")
    if not dot or text.startswith("sage_compat"):
        return False
    return is_old_module(text) or (is_old_module(head) and shortened(text) is not None)


def _imports(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        home = absolute("." * node.level + (node.module or ""), module, is_package).rstrip(".")
        yield from (f"{home}.{alias.name}" if home else alias.name for alias in node.names)


def _is_old(name: str) -> bool:
    head, _, last = name.rpartition(".")
    if last == "*":
        return is_old_module(head)
    return name == "sage_compat" or is_old_module(name) or shortened(name) is not None
