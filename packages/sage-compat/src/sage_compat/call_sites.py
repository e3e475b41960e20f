"""The one place through which every entry point of the old interface tells that it was called."""

from collections.abc import Mapping
from typing import Any

from sage_compat.hooks import observers

__all__ = ["note"]


def note(function_name: str, backend: str | None, kwargs: Mapping[str, Any]) -> None:
    """
    Tell the observers of a legacy call.

    Args:
        function_name: What was called.
        backend: The backend as it was given; None when the call has none.
        kwargs: The other arguments.
    """
    for observer in observers:
        observer(function_name, backend, kwargs)
