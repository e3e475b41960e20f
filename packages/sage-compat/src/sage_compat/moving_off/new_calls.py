"""
Write the new call for an old one, or say why nobody can.

Arguments are pieces of source, with their value where it is known, so that the codemod (which has source) and the
warning (which has values) use the same rules.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sage_compat.moving_off.replacements import BACKENDS, DESCRIPTORS, Replacement, replacement_of

__all__ = ["UNKNOWN", "Argument", "CannotProveError", "NewCall", "arranged", "new_call", "of_values"]

UNKNOWN: Final[Any] = object()
"""The value of an argument that is known at run time only."""

PARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "adapter.create_queue": ("backend",),
    "ring.SageQueue": ("name", "maxsize", "auto_cleanup", "namespace", "enable_multi_tenant"),
    "ring.create_queue": ("name", "maxsize"),
}
"""Old calls that have a new one, with their positional parameters."""

_EVERY_KEYWORD: Final = ("name", "maxsize", "auto_cleanup", "namespace", "enable_multi_tenant")
_DEFAULT_BYTES: Final = 1 << 20
_LONGEST_VALUE: Final = 60


class CannotProveError(ValueError):
    """The new call is not known to do what the old one did; the text says why."""


@dataclass(frozen=True)
class Argument:
    """
    One argument of an old call.

    Attributes:
        text: Its source.
        value: What it is, or :data:`UNKNOWN`.
        is_pure: Whether leaving it out has no effect but that.
    """

    text: str
    value: Any = UNKNOWN
    is_pure: bool = True


@dataclass(frozen=True)
class NewCall:
    """
    What to write instead.

    Attributes:
        descriptor: The class, to be imported from ``sage_qd``.
        arguments: Source between the parentheses.
        kind: ``python``, ``sage``, ``ray`` or ``auto``.
        settings: Arguments without the name: handles of one name must agree in them.
        row: The row of the table.
        is_public: Whether programs that have nothing else in common share the queue.
    """

    descriptor: str
    arguments: str
    kind: str
    settings: str
    row: Replacement
    is_public: bool = False

    def text(self, prefix: str = "") -> str:
        """The call as source; ``prefix`` stands before the class, as ``sage_qd.`` does."""
        return f"{prefix}{self.descriptor}({self.arguments}).open()"


def of_values(keywords: Mapping[str, Any]) -> dict[str, Argument]:
    """Arguments of a call that was seen at run time, as source; what is long or no plain value is there by name."""
    arguments = {}
    for name, value in keywords.items():
        text = repr(value)
        if len(text) > _LONGEST_VALUE or not isinstance(value, (str, int, type(None))):
            text = name
        arguments[name] = Argument(text, value)
    return arguments


def arranged(short: str, positional: Sequence[Argument], keywords: Mapping[str, Argument]) -> dict[str, Argument]:
    """
    Return the arguments of an old call by name.

    Raises:
        CannotProveError: It has more of them than the old call took, one of them twice, or one that was never known.
    """
    order = PARAMETERS[short]
    if len(positional) > len(order):
        raise CannotProveError(f"the call has {len(positional)} positional arguments; it took {len(order)}")
    named = dict(zip(order, positional, strict=False))
    if twice := sorted(named.keys() & keywords.keys()):
        raise CannotProveError(f"{twice[0]} is given twice")
    named |= keywords
    known = {*order, *_EVERY_KEYWORD, "queue_type"} if short == "adapter.create_queue" else set(order)
    if unknown := sorted(named.keys() - known):
        raise CannotProveError(f"{unknown[0]!r} was never a parameter of {short.partition('.')[2]}")
    return named


def new_call(short: str, arguments: Mapping[str, Argument], namespace: str | None = None) -> NewCall:
    """
    Return what to write instead of a call.

    Args:
        short: A name of :data:`PARAMETERS`.
        arguments: As :func:`arranged` returns them.
        namespace: Source of the namespace of queues for which none was said.

    Raises:
        CannotProveError: The new call would not be known to do the same.
    """
    given = dict(arguments)
    kind = _kind(given) if short == "adapter.create_queue" else "sage"
    row = replacement_of(short, kind)
    if kind in ("python", "ray"):
        made = _without_name(given)
    elif kind == "sage":
        made = _ring(given, namespace, zero_is_default=short == "ring.create_queue")
    else:
        made = _chosen(given, namespace)
    name = made.pop("queue_id", None)
    settings = ", ".join(f"{key}={text}" for key, text in made.items())
    written = settings if name is None else ", ".join(filter(None, (name, settings)))
    is_public = kind in ("sage", "auto") and (
        "enable_multi_tenant" in made or given.get("namespace", Argument("None", None)).value is not None
    )
    return NewCall(DESCRIPTORS[kind], written, kind, settings, row, is_public)


def _kind(given: dict[str, Argument]) -> str:
    """Take the backend out of the arguments."""
    found = [given.pop(key) for key in ("backend", "queue_type") if key in given]
    if len(found) == 2:
        raise CannotProveError("both backend and queue_type are given")
    backend = found[0] if found else Argument("None", None)
    if backend.value is UNKNOWN:
        raise CannotProveError(f"the backend {backend.text} is known at run time only")
    if not isinstance(backend.value, (str, type(None))) or backend.value not in BACKENDS:
        raise CannotProveError(f"{backend.text} is no backend; the call raises ValueError")
    return BACKENDS[backend.value]


def _without_name(given: dict[str, Argument]) -> dict[str, str]:
    """For backends that ignored everything but ``maxsize``."""
    for name, argument in given.items():
        if name != "maxsize":
            _leave_out(name, argument)
    maxsize = given.get("maxsize")
    if maxsize is None or maxsize.value == 0:
        return {}
    _check_number("maxsize", maxsize)
    return {"maxsize": maxsize.text}


def _ring(given: dict[str, Argument], namespace: str | None, *, zero_is_default: bool) -> dict[str, str]:
    made = {"queue_id": _name(given, needed=True)}
    maxsize = given.get("maxsize", Argument(str(_DEFAULT_BYTES), _DEFAULT_BYTES))
    if zero_is_default and maxsize.value == 0:
        maxsize = Argument(str(_DEFAULT_BYTES), _DEFAULT_BYTES)
    _check_number("maxsize", maxsize, low=1)
    if maxsize.value != _DEFAULT_BYTES:
        made["capacity_bytes"] = maxsize.text
    if not _flag(given, "auto_cleanup"):
        made["auto_cleanup"] = "False"
    if not _flag(given, "enable_multi_tenant"):
        if "namespace" in given:
            _leave_out("namespace", given["namespace"])
        made["enable_multi_tenant"] = "False"
    elif (text := _namespace(given, namespace)) is not None:
        made["namespace"] = text
    return made


def _chosen(given: dict[str, Argument], namespace: str | None) -> dict[str, str]:
    made = {"queue_id": _name(given, needed=False)} if "name" in given else {}
    for name in ("auto_cleanup", "enable_multi_tenant"):
        if not _flag(given, name):
            raise CannotProveError(f"{name}=False needs a kind; choose backend='sage' first")
    if "maxsize" in given:
        _check_number("maxsize", given["maxsize"], low=1)
        if given["maxsize"].value != _DEFAULT_BYTES:
            made["max_bytes"] = given["maxsize"].text
    if (text := _namespace(given, namespace)) is not None and made.keys() & {"queue_id"}:
        made["namespace"] = text
    return made


def _name(given: dict[str, Argument], *, needed: bool) -> str:
    name = given.get("name")
    if name is None or name.value is None:
        raise CannotProveError("it has no name, and a shared queue is known by its name")
    if name.value is not UNKNOWN and not (isinstance(name.value, str) and name.value):
        raise CannotProveError(f"the name {name.text} is no text")
    return name.text


def _namespace(given: dict[str, Argument], usual: str | None) -> str | None:
    namespace = given.get("namespace", Argument("None", None))
    if namespace.value is UNKNOWN:
        raise CannotProveError(f"whether the namespace {namespace.text} is None is known at run time only")
    return usual if namespace.value is None else namespace.text


def _flag(given: dict[str, Argument], name: str) -> bool:
    flag = given.get(name, Argument("True", True))
    if not isinstance(flag.value, bool):
        raise CannotProveError(f"{name}={flag.text} is known at run time only")
    return flag.value


def _check_number(name: str, argument: Argument, low: int | None = None) -> None:
    value = argument.value
    if value is UNKNOWN:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise CannotProveError(f"{name}={argument.text} is no whole number")
    if low is not None and value < low:
        raise CannotProveError(f"{name}={argument.text} was no size")


def _leave_out(name: str, argument: Argument) -> None:
    if not argument.is_pure:
        raise CannotProveError(f"{name}={argument.text} was ignored, but working it out may have an effect")
