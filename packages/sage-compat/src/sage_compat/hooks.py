"""
Who wants to know of legacy calls.

An observer is called with the name of the function, the backend as it was given, and its other arguments, in the thread
of the caller. The census is one, and so are the warnings, which are off unless they were asked for.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sage_compat.moving_off import census
from sage_compat.moving_off.deprecation import warn_of_call

__all__ = ["Observer", "observers"]

Observer = Callable[[str, str | None, Mapping[str, Any]], object]

observers: Final[list[Observer]] = [census.note, warn_of_call]
