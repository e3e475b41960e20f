"""
The way from the old ``create_queue`` call to sage-qd.

This release holds the version and nothing else: ``create_queue``, its shadow mode and the migration steps come in a
later one. Programs should use ``sage_qd`` directly until then.
"""

from sage_qd import __version__

__all__ = ["__version__"]
