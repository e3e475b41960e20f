"""
Getting off the old API: warnings and a census at run time, a scan and a codemod of the sources.

Importing this loads nothing that a running program does not need; the scan and the codemod need ``libcst``, which
``pip install 'sage-compat[fix]'`` brings.
"""

from sage_compat.moving_off.census import note
from sage_compat.moving_off.deprecation import SageLegacyQueueWarning, warn_of_call

__all__ = ["SageLegacyQueueWarning", "note", "warn_of_call"]
