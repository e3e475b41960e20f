"""
The calls that make a queue: with what, what becomes of the queue, and how the new call would look.

A queue is followed as far as one file shows it: a variable of one function or module, or ``self.name`` in one class.
Whatever is handed on from there *escapes*: other code may do anything with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sage_compat.moving_off.libcst_door import cst, metadata
from sage_compat.moving_off.new_calls import (
    PARAMETERS,
    UNKNOWN,
    Argument,
    CannotProveError,
    NewCall,
    arranged,
    new_call,
)
from sage_compat.moving_off.sources import Source, Use

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Creation", "NamePattern", "creations_of", "name_of_call"]

OPENED_BY_NAME: Final = ("ring.open_queue", "ring.destroy_queue", "ring.SageQueueRef")


@dataclass(frozen=True)
class NamePattern:
    """What is known of a queue's name: how it begins and ends, or all of it."""

    prefix: str = ""
    suffix: str = ""
    is_exact: bool = False

    def may_equal(self, other: "NamePattern") -> bool:
        """Whether both can be the same name."""
        if self.is_exact and other.is_exact:
            return self.prefix == other.prefix
        if self.is_exact or other.is_exact:
            text, open_ = (self.prefix, other) if self.is_exact else (other.prefix, self)
            fits = len(text) >= len(open_.prefix) + len(open_.suffix)
            return fits and text.startswith(open_.prefix) and text.endswith(open_.suffix)
        return _nested(self.prefix, other.prefix) and _nested(self.suffix[::-1], other.suffix[::-1])


@dataclass
class Creation:
    """
    A call that makes a queue.

    Attributes:
        source: The file.
        use: The call in it.
        name: What is known of the name; None for a queue without one.
        new: The new call; None where there is none.
        reason: Why there is none, in words.
        attributes: Where attributes of the queue are used, as far as it can be followed.
        escapes: Whether other code gets hold of it.
        is_short_lived: Whether this handle is closed, or forgotten at the end of a function.
    """

    source: Source
    use: Use
    name: NamePattern | None = None
    new: NewCall | None = None
    reason: str = ""
    attributes: "list[cst.Attribute]" = field(default_factory=list)
    escapes: bool = False
    is_short_lived: bool = False

    @property
    def place(self) -> str:
        """File and line."""
        return self.source.place_of(self.use.node)

    @property
    def is_shared(self) -> bool:
        """Whether others may open the queue by its name; a call whose kind is unknown may make such a queue."""
        return self.name is not None and (self.new is None or self.new.kind in ("sage", "auto"))

    def refuse(self, reason: str) -> None:
        """Say why it must stay, unless that is known."""
        if self.new is not None:
            self.new, self.reason = None, reason


def creations_of(source: Source, namespace: str | None) -> Iterator[Creation]:
    """Yield the calls of a file that make queues, and those that open one by name."""
    for use in source.uses:
        if use.call is None or use.short not in PARAMETERS:
            continue
        creation = Creation(source, use, name=name_of_call(source, use))
        try:
            if not use.is_sure:
                raise CannotProveError(f"{source.text_of(use.node)} is bound in more than one place")
            positional, keywords = _arguments(source, use.call)
            creation.new = new_call(use.short, arranged(use.short, positional, keywords), namespace)
        except CannotProveError as error:
            creation.reason = str(error)
        _follow(creation)
        yield creation


def name_of_call(source: Source, use: Use) -> NamePattern | None:
    """What is known of the name that a call says; None where it says none."""
    if use.call is None:
        return NamePattern()
    for position, argument in enumerate(use.call.args):
        if argument.star:
            return NamePattern()
        is_first = argument.keyword is None and position == 0 and use.short != "adapter.create_queue"
        if is_first or (argument.keyword is not None and argument.keyword.value == "name"):
            return _pattern(argument.value)
    return None


def _nested(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)


def _pattern(node: "cst.BaseExpression") -> NamePattern:
    value = _value(node)
    if isinstance(value, str):
        return NamePattern(value, value, is_exact=True)
    if isinstance(node, cst.FormattedString) and node.parts:
        first, last = node.parts[0], node.parts[-1]
        if "r" not in node.prefix.lower() and not any(
            isinstance(part, cst.FormattedStringText)
            and ("\\" in part.value or "{{" in part.value or "}}" in part.value)
            for part in (first, last)
        ):
            prefix = first.value if isinstance(first, cst.FormattedStringText) else ""
            suffix = last.value if isinstance(last, cst.FormattedStringText) else ""
            return NamePattern(prefix, suffix)
    return NamePattern()


# -- Arguments --------------------------------------------------------------------------------------------------------


def _arguments(source: Source, call: "cst.Call") -> "tuple[list[Argument], Mapping[str, Argument]]":
    positional: list[Argument] = []
    keywords: dict[str, Argument] = {}
    for argument in call.args:
        if argument.star:
            raise CannotProveError(f"it passes {argument.star}{source.text_of(argument.value)} on")
        made = Argument(source.text_of(argument.value), _value(argument.value), _is_pure(argument.value))
        if argument.keyword is None:
            positional.append(made)
        elif argument.keyword.value in keywords:
            raise CannotProveError(f"{argument.keyword.value} is given twice")
        else:
            keywords[argument.keyword.value] = made
    return positional, keywords


def _value(node: "cst.BaseExpression") -> Any:
    """The value of a constant."""
    if isinstance(node, cst.Name) and node.value in ("None", "True", "False"):
        return {"None": None, "True": True, "False": False}[node.value]
    if isinstance(node, (cst.Integer, cst.SimpleString, cst.ConcatenatedString)):
        value = node.evaluated_value
        return UNKNOWN if value is None else value
    if isinstance(node, cst.UnaryOperation) and isinstance(node.operator, cst.Minus):
        value = _value(node.expression)
        return -value if isinstance(value, int) and not isinstance(value, bool) else UNKNOWN
    if isinstance(node, cst.BinaryOperation):
        return _product(node)
    return UNKNOWN


def _product(node: "cst.BinaryOperation") -> Any:
    """Sizes are often written as ``64 * 1024`` or ``1 << 20``."""
    left, right = _value(node.left), _value(node.right)
    if type(left) is not int or type(right) is not int:
        return UNKNOWN
    if isinstance(node.operator, cst.Multiply):
        return left * right
    if isinstance(node.operator, cst.LeftShift) and 0 <= right < 64:
        return left << right
    return UNKNOWN


def _is_pure(node: "cst.BaseExpression") -> bool:
    """Whether working an expression out has no effect, as far as anybody would expect of names and attributes."""
    if isinstance(node, (cst.Name, cst.BaseNumber, cst.SimpleString)):
        return True
    if isinstance(node, cst.Attribute):
        return _is_pure(node.value)
    if isinstance(node, cst.FormattedString):
        return all(_is_pure(part.expression) for part in node.parts if isinstance(part, cst.FormattedStringExpression))
    if isinstance(node, cst.ConcatenatedString):
        return _is_pure(node.left) and _is_pure(node.right)
    if isinstance(node, cst.BinaryOperation):
        return _is_pure(node.left) and _is_pure(node.right)
    return False


# -- What becomes of the queue ----------------------------------------------------------------------------------------


def _follow(creation: Creation) -> None:
    source, call = creation.source, creation.use.call
    parent = source.parents[call]
    if isinstance(parent, cst.Attribute):
        creation.attributes.append(parent)
        creation.is_short_lived = True
    elif isinstance(parent, cst.Expr):
        creation.is_short_lived = True
    elif isinstance(parent, cst.Assign) and len(parent.targets) == 1:
        _follow_target(creation, parent.targets[0].target)
    elif isinstance(parent, cst.AnnAssign):
        _follow_target(creation, parent.target)
    elif isinstance(parent, cst.WithItem) and parent.asname is not None and isinstance(parent.asname.name, cst.Name):
        _follow_target(creation, parent.asname.name)
        creation.is_short_lived = True
    else:
        creation.escapes = True
    creation.attributes.sort(key=source.span_of)  # they come out of sets
    if any(each.attr.value == "close" for each in creation.attributes):
        creation.is_short_lived = True


def _follow_target(creation: Creation, target: "cst.BaseExpression") -> None:
    if isinstance(target, cst.Name):
        _follow_variable(creation, target)
    elif isinstance(target, cst.Attribute):
        creation.escapes = True
        _follow_member(creation, target)
    else:
        creation.escapes = True


def _follow_variable(creation: Creation, target: "cst.Name") -> None:
    source = creation.source
    scope = source.scopes[target]
    assignments = scope.assignments[target.value]
    if isinstance(scope, metadata.FunctionScope):
        creation.is_short_lived = True
    else:
        creation.escapes = True  # others may import it
    if len(assignments) > 1:
        creation.escapes = True
    for assignment in assignments:
        for access in assignment.references:
            parent = source.parents[access.node]
            if isinstance(parent, cst.Attribute) and parent.value is access.node:
                if parent not in creation.attributes:
                    creation.attributes.append(parent)
            elif not isinstance(parent, cst.Del):
                creation.escapes = True
    if isinstance(scope, metadata.FunctionScope) and creation.escapes:
        creation.is_short_lived = False


def _follow_member(creation: Creation, target: "cst.Attribute") -> None:
    source = creation.source
    if not (isinstance(target.value, cst.Name) and target.value.value == "self"):
        return
    holder = source.parents[target]
    while not isinstance(holder, (cst.ClassDef, cst.Module)):
        holder = source.parents[holder]
    finder = _Members(target.attr.value)
    holder.visit(finder)
    creation.attributes.extend(finder.found)


class _Members(cst.CSTVisitor):
    """Collects ``self.name.attribute``."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.found: list[cst.Attribute] = []

    def visit_Attribute(self, node: "cst.Attribute") -> None:  # noqa: N802  (libcst's way)
        inner = node.value
        if (
            isinstance(inner, cst.Attribute)
            and inner.attr.value == self.name
            and isinstance(inner.value, cst.Name)
            and inner.value.value == "self"
        ):
            self.found.append(node)
