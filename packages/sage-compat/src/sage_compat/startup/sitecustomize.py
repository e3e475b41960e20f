"""Runs in every Python below a program that called ``sage_compat.install()``, and then what it stands before."""

import importlib.machinery
import importlib.util
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
if os.environ.get("SAGE_COMPAT_INSTALL") == "1" and importlib.util.find_spec("sage_compat") is not None:
    from sage_compat.installing import install

    install()

_others = [_entry for _entry in sys.path if os.path.abspath(_entry or os.curdir) != _here]
_next = importlib.machinery.PathFinder.find_spec("sitecustomize", _others)
if _next is not None and _next.loader is not None:
    _module = importlib.util.module_from_spec(_next)
    sys.modules["sitecustomize"] = _module
    _next.loader.exec_module(_module)
