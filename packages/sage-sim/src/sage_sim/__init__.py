"""Real processes over sage-qd queues, with real kills and exact accounting."""

from sage_qd import __version__

__all__ = ["__version__"]
