"""
Queues between threads and processes, named by plain data.

Import every name from here; the modules below are private in their layout.
"""

from sage_qd.errors import *  # noqa: F403  (errors.__all__ is exactly the list of public exceptions)
from sage_qd.errors import __all__ as _error_names

__version__ = "0.1.0"

__all__ = ["__version__", *_error_names]
