"""
Decide which old calls can be replaced without a change in what the program does.

The scanned files are taken for the whole program. A call stays when its arguments are known at run time only, when the
queue is used in a way that new queues do not know, when calls that may mean the same queue cannot all be replaced or
disagree in their settings, or when the queue would end too early.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sage_compat.moving_off.creations import OPENED_BY_NAME, Creation, NamePattern, creations_of, name_of_call
from sage_compat.moving_off.facts import ONLY_OLD
from sage_compat.moving_off.libcst_door import cst, metadata
from sage_compat.moving_off.paths import shown_path
from sage_compat.moving_off.replacements import DESCRIPTORS, shortened
from sage_compat.moving_off.sources import Program, Source, Use

if TYPE_CHECKING:
    from libcst.metadata.scope_provider import BaseAssignment

__all__ = ["Granted", "Judgement", "is_taken", "judged"]

COMMON: Final = frozenset({"put", "get", "put_nowait", "get_nowait", "qsize", "empty", "full", "close"})
"""What old and new queues do alike."""
_PUTS: Final = frozenset({"put", "put_nowait"})
_GETS: Final = frozenset({"get", "get_nowait"})
_HAVE_MAXSIZE: Final = ("python", "ray")
_CLASSES: Final = {"adapter.QueueWrapper": ("python", "ray", "auto"), "ring.SageQueue": ("sage", "auto")}


@dataclass(frozen=True, kw_only=True)
class Granted:
    """
    What the user says that no source can show.

    Attributes:
        namespace: Source of the namespace for queues for which none was said.
        are_held: Somebody holds each named queue from its first message to its last.
        is_every_program: The files are all programs that open queues which programs share.
    """

    namespace: str | None = None
    are_held: bool = False
    is_every_program: bool = False


@dataclass
class Judgement:
    """
    What can be replaced.

    Attributes:
        creations: Every call that makes a queue; ``new`` says what to write, ``reason`` why nothing.
        stats: Calls ``queue.get_stats()`` of queues that are known to have the two figures and the flag.
        members: Other attributes of followed queues that new queues have not.
    """

    creations: list[Creation]
    stats: "list[tuple[Source, cst.Attribute]]" = field(default_factory=list)
    members: "list[tuple[Source, cst.Attribute]]" = field(default_factory=list)


def judged(program: Program, granted: Granted) -> Judgement:
    """Decide for all files together; they are the whole program."""
    creations = [each for source in program.sources for each in creations_of(source, granted.namespace)]
    judgement = Judgement(creations)
    _look_at_attributes(judgement)
    _look_at_the_world(judgement, program)
    if not granted.is_every_program:
        _look_at_other_programs(creations)
    _look_at_names(creations, program.sources)
    if not granted.are_held:
        _look_at_lifetimes(creations)
    for creation in creations:
        if creation.new is not None and creation.new.kind in _HAVE_MAXSIZE:
            judgement.stats += [(creation.source, each) for each in creation.attributes if _is_stats(creation, each)]
    return judgement


# -- Each by itself ---------------------------------------------------------------------------------------------------


def _look_at_attributes(judgement: Judgement) -> None:
    for creation in judgement.creations:
        for attribute in creation.attributes:
            name = attribute.attr.value
            if name in ONLY_OLD:
                judgement.members.append((creation.source, attribute))
            if name in COMMON or creation.new is None:
                continue
            if name == "maxsize" and creation.new.kind in _HAVE_MAXSIZE:
                continue
            if not _is_stats(creation, attribute):
                where = creation.source.line_of(attribute)
                creation.refuse(f"line {where} uses .{name}, which is another thing or nothing on the new queue")


def _is_in_f_string(source: Source, node: Any) -> bool:
    while node is not None and not isinstance(node, cst.FormattedStringExpression):
        node = source.parents.get(node)
    return node is not None


def _is_stats(creation: Creation, attribute: "cst.Attribute") -> bool:
    """Whether it is ``queue.get_stats()`` where that has size, empty and full, and can be worked out twice."""
    parent = creation.source.parents[attribute]
    return (
        attribute.attr.value == "get_stats"
        and creation.new is not None
        and creation.new.kind in _HAVE_MAXSIZE
        and isinstance(parent, cst.Call)
        and parent.func is attribute
        and not parent.args
        and not isinstance(attribute.value, cst.Call)
        and not _is_in_f_string(creation.source, attribute)  # braces and quotes mean other things there
        and _has_one_kind(creation, attribute)
    )


def _has_one_kind(creation: Creation, attribute: "cst.Attribute") -> bool:
    """Whether the receiver is this queue for sure: a variable or member that is assigned once."""
    receiver = attribute.value
    source = creation.source
    if isinstance(receiver, cst.Name):
        return len(source.scopes[receiver][receiver.value]) == 1
    return isinstance(receiver, cst.Attribute) and _assigned_once(creation, receiver)


def _assigned_once(creation: Creation, member: "cst.Attribute") -> bool:
    finder = _Assignments(member.attr.value)
    creation.source.tree.visit(finder)
    return finder.count == 1


class _Assignments(cst.CSTVisitor):
    """Counts assignments to a member of that name, of whatever object."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.count = 0

    def visit_AssignTarget(self, node: "cst.AssignTarget") -> None:  # noqa: N802  (libcst's way)
        self.count += self._is_it(node.target)

    def visit_AnnAssign(self, node: "cst.AnnAssign") -> None:  # noqa: N802
        self.count += self._is_it(node.target) and node.value is not None

    def _is_it(self, target: "cst.BaseExpression") -> bool:
        return isinstance(target, cst.Attribute) and target.attr.value == self.name


# -- All together -----------------------------------------------------------------------------------------------------


def _look_at_the_world(judgement: Judgement, program: Program) -> None:
    sources = program.sources
    strangers = _strangers(judgement, program)
    tests = [
        (source, use) for source in sources for use in source.uses if use.role == "value" and use.short in _CLASSES
    ]
    for creation in judgement.creations:
        if creation.new is None:
            continue
        kind, source = creation.new.kind, creation.source
        theirs = [(place, name) for place, name in strangers if name == "get_stats" or kind not in _HAVE_MAXSIZE]
        if creation.escapes and theirs:
            place, name = theirs[0]
            creation.refuse(f"the queue is handed on, and {place} uses .{name} of what may be it")
        for other, use in tests:
            if kind in _CLASSES[use.short]:
                creation.refuse(f"{other.place_of(use.node)} asks for the old class")
        if kind in ("sage", "auto") and source.comparisons:
            creation.refuse(f"line {source.line_of(source.comparisons[0])} compares the text of an old exception")
        if is_taken(source, DESCRIPTORS[kind]):
            creation.refuse(f"{DESCRIPTORS[kind]} is another thing in this file")


def _strangers(judgement: Judgement, program: Program) -> list[tuple[str, str]]:
    """Place and name of methods that only old queues have, where nobody knows of what they are called."""
    known = {attribute for creation in judgement.creations for attribute in creation.attributes}
    parsed = {source.path for source in program.sources}
    found = [
        (source.place_of(each), each.attr.value)
        for source in program.sources
        for each in source.attributes
        if each not in known
    ]
    for path, facts in program.facts.items():
        if path not in parsed:
            found += [(f"{shown_path(path)}:{line}", name) for line, name in facts.only_old]
    return found


def is_taken(source: Source, name: str) -> bool:
    """Whether a name that is to be imported from ``sage_qd`` means something else somewhere in the file."""
    return any(
        not _is_ours(source, assignment) for scope in source.all_scopes for assignment in scope.assignments[name]
    )


def _is_ours(source: Source, assignment: "BaseAssignment") -> bool:
    if not isinstance(assignment, metadata.ImportAssignment):
        return False
    names = {source.absolute(each.name) for each in assignment.get_qualified_names_for(assignment.name)}
    return all(name == f"sage_qd.{assignment.name}" or _is_descriptor(name) for name in names)


def _is_descriptor(name: str) -> bool:
    return (shortened(name) or "").startswith("descriptors.")


# -- Queues of one name -----------------------------------------------------------------------------------------------


def _look_at_names(creations: Sequence[Creation], sources: Sequence[Source]) -> None:
    """Queues that may have one name are replaced together or not at all; whoever opens one must find the same."""
    others = list(_opened_by_name(sources))
    changed = True
    while changed:
        changed = False
        for creation in creations:
            if creation.new is None or not creation.is_shared or creation.name is None:
                continue
            reason = _conflict(creation, creation.name, creations, others)
            if reason:
                creation.refuse(reason)
                changed = True


def _conflict(
    creation: Creation, name: NamePattern, creations: Iterable[Creation], others: "list[tuple[str, NamePattern]]"
) -> str:
    assert creation.new is not None
    for place, pattern in others:
        if name.may_equal(pattern):
            return f"{place} may mean the same queue, and has to be changed by hand"
    for other in creations:
        if other is creation or not other.is_shared or other.name is None or not name.may_equal(other.name):
            continue
        if other.new is None:
            return f"{other.place} may mean the same queue, and stays: {_first_reason(other.reason)}"
        if other.new.settings != creation.new.settings or other.new.kind != creation.new.kind:
            return f"{other.place} may mean the same queue, and asks for other settings"
    return ""


def _first_reason(reason: str) -> str:
    """The reason that started a chain of them."""
    return reason.rpartition("stays: ")[2]


def _opened_by_name(sources: Sequence[Source]) -> "Iterable[tuple[str, NamePattern]]":
    for source in sources:
        for use in source.uses:
            place = source.place_of(use.node)
            if use.short in OPENED_BY_NAME and use.role != "annotation":
                yield place, name_of_call(source, use) or NamePattern()
            elif _opens_anything(source, use):
                yield place, NamePattern()


def _opens_anything(source: Source, use: Use) -> bool:
    """A manager opens queues by name, and so does a function that is handed on to where nobody follows it."""
    if use.short == "ring.SageQueueManager":
        return use.role != "annotation"
    if use.short not in ("adapter.create_queue", "ring.create_queue", "ring.SageQueue"):
        return False
    if use.role == "alias":
        target = source.parents[use.node].targets[0].target
        return not isinstance(target, cst.Name) or isinstance(source.scopes[target], metadata.ClassScope)
    return use.role == "value" and use.short != "ring.SageQueue"


def _look_at_other_programs(creations: Iterable[Creation]) -> None:
    for creation in creations:
        if creation.new is not None and creation.new.is_public:
            creation.refuse(
                "other programs share this queue, and all have to be changed together; --every-program says that "
                "they are among the files"
            )


def _look_at_lifetimes(creations: Sequence[Creation]) -> None:
    """A ring goes with its last handle; the old queue kept what was in it."""
    shared = [each for each in creations if each.new is not None and each.is_shared and each.name is not None]
    reasons = {id(creation): _lost(creation, shared) for creation in shared}
    for creation in shared:
        if reason := reasons[id(creation)]:
            creation.refuse(f"{reason}; --queues-are-held says that somebody holds it meanwhile")


def _lost(creation: Creation, shared: Sequence[Creation]) -> str:
    """Why messages may be lost that the old queue kept."""
    for other in shared:
        if other is creation or creation.name is None or other.name is None or not creation.name.may_equal(other.name):
            continue
        short, later = (creation, other) if creation.is_short_lived else (other, creation)
        if short.is_short_lived:
            return f"{short.place} gives its handle up, and {later.place} may open the queue later, when it is gone"
    used = {attribute.attr.value for attribute in creation.attributes}
    if creation.is_short_lived and not creation.escapes and not (used & _PUTS and used & _GETS):
        return "this handle is given up, and the other end of the queue is not in sight: the queue may be gone for it"
    return ""
