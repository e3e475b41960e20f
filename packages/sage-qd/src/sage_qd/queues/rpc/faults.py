"""
Exceptions as plain data, and back to the same classes.

Only the exceptions of sage-qd and a few of the standard library travel; whatever the other side says, nothing but their
constructors is called. Values that are no plain data (a file's status, a chained cause) stay where they were.
"""

from typing import Any, Final

from sage_qd import errors
from sage_qd.errors import ProtocolError, SageQueueError

__all__ = ["fault_of", "raised"]

_PLAIN: Final = (str, bytes, int, float, bool, type(None))
_STANDARD: Final = {kind.__name__: kind for kind in (TypeError, ValueError, OverflowError, OSError, MemoryError)}
_LONGEST_TEXT: Final = 4096


def fault_of(error: BaseException) -> tuple[str, dict[str, Any]]:
    """Return the name of an exception and what it carries."""
    name = type(error).__name__
    if isinstance(error, SageQueueError) and name in errors.__all__:
        values = {key: value for key in error.carried if _is_plain(value := _plain(getattr(error, key)))}
        return name, values if error.carried else {"text": str(error)}
    known = next((each.__name__ for each in type(error).__mro__ if each.__name__ in _STANDARD), None)
    if known is not None:
        return known, {"text": str(error)[:_LONGEST_TEXT]}
    return "SageQueueError", {"text": f"the server met {name}: {error}"[:_LONGEST_TEXT]}


def raised(fault: str, values: dict[str, Any], peer: str) -> BaseException:
    """Return the exception that a peer tells of; a :class:`ProtocolError` when it tells nonsense."""
    kind: Any = getattr(errors, fault) if fault in errors.__all__ else _STANDARD.get(fault)
    if kind is None:
        return ProtocolError(peer=peer, reason=f"it tells of an exception {fault!r:.80}")
    try:
        if not getattr(kind, "carried", ()):
            return kind(str(values.get("text", "")))  # type: ignore[no-any-return]
        return kind(**values)  # type: ignore[no-any-return]
    except (TypeError, ValueError, AttributeError) as error:
        return ProtocolError(peer=peer, reason=f"it tells of a {fault} that cannot be: {error}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    return isinstance(value, _PLAIN)
