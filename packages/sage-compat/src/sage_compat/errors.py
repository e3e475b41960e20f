"""
What sage-compat itself raises and warns of.

::

    ValueError
    └── ConfigurationError        a rule, a mode or a setting is wrong; names the place
    RuntimeError
    └── LegacyCallError           an old call in mode `strict`; names the place and the replacement
    UserWarning
    └── ReachWarning              a shared queue could not be had, and what came instead reaches less far
"""

from difflib import get_close_matches

__all__ = ["ConfigurationError", "LegacyCallError", "ReachWarning", "did_you_mean"]


class ConfigurationError(ValueError):
    """
    The configuration is wrong; nothing was guessed and nothing was changed. Correct the place.

    Attributes:
        place: The file or variable, and where in it.
        reason: What is wrong there.
    """

    def __init__(self, place: str, reason: str) -> None:
        self.place = place
        self.reason = reason
        super().__init__(f"{place}: {reason}")


class LegacyCallError(RuntimeError):
    """
    An old call was made although the mode of its queue is ``strict``. Replace the call.

    Attributes:
        place: ``file:line`` of the call.
        replacement: What to write instead.
    """

    def __init__(self, place: str, called: str, replacement: str) -> None:
        self.place = place
        self.replacement = replacement
        super().__init__(f"{place}: {called} is an old call, and strict mode allows none; write {replacement}")


class ReachWarning(UserWarning):
    """A queue for several processes or hosts could not be had, so it is one that reaches less far."""


def did_you_mean(word: str, known: list[str]) -> str:
    """Return the end of a sentence: what was probably meant, and what there is."""
    close = get_close_matches(word, known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"There are: {', '.join(known)}."
