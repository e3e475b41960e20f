"""
The old import names: a finder that answers them with the modules of sage-compat.

It comes last, so an installed package that has a module of such a name keeps it; a package of which only the parents
are there (``sage.utils`` without ``queue_adapter``) gets the missing ones. Children of this process, however they are
started, get it too, through a ``sitecustomize`` in a folder that is put before the others on their path.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = ["OLD_NAMES", "install", "uninstall"]

_MODULES: Final = (
    "queue",
    "queue_adapter",
    "queue_auto_fallback",
    "queue_config",
    "queue_tool",
    "queue_diagnostic",
)
_PACKAGES_OF_SAGE_QUEUE: Final = (
    "sage_ext.sage_queue",
    "sage_ext.sage_queue.python",
    "sage_ext.mmap_queue",
    "sage_queue",
    "sage.utils.mmap_queue",
    "sage_utils.mmap_queue",
    "sage.extensions.sage_queue",
    "sage.extensions.sage_queue.python",
    "sage.kernel.enterprise.sage_queue",
    "sage.kernel.enterprise.sage_queue.python",
)
_PACKAGES_OF_DESCRIPTORS: Final = ("sage.runtime.communication.queue", "sage.platform.queue")
_DESCRIPTOR_MODULES: Final = (
    "base_queue_descriptor",
    "python_queue_descriptor",
    "ray_queue_descriptor",
    "sage_queue_descriptor",
    "rpc_queue_descriptor",
)

OLD_NAMES: Final[dict[str, str]] = (
    {f"sage.utils.{name}": f"sage_compat.{name}" for name in _MODULES}
    | dict.fromkeys(_PACKAGES_OF_SAGE_QUEUE, "sage_compat.sage_queue")
    | {f"{package}.sage_queue": "sage_compat.sage_queue" for package in _PACKAGES_OF_SAGE_QUEUE}
    | {f"{package}.sage_queue_manager": "sage_compat.sage_queue_manager" for package in _PACKAGES_OF_SAGE_QUEUE}
    | dict.fromkeys(_PACKAGES_OF_DESCRIPTORS, "sage_qd")
    | {f"{package}.{name}": "sage_qd" for package in _PACKAGES_OF_DESCRIPTORS for name in _DESCRIPTOR_MODULES}
    | {"sage.runtime.communication.queue_creation_strategy": "sage_qd"}
)
"""Every old module and the one that answers for it."""
_PARENTS: Final = frozenset(
    name.rsplit(".", depth)[0] for name in OLD_NAMES for depth in range(1, name.count(".") + 1)
) - set(OLD_NAMES)
STARTUP: Final = str(Path(__file__).parent / "startup")
CHILDREN_VARIABLE: Final = "SAGE_COMPAT_INSTALL"


class _Alias(Loader):
    """Makes a module that has every name of another one, and is a package where others lie below it."""

    def __init__(self, target: str | None) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let Python make it."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Look names up in the other module when they are asked for."""
        if self.target is None:
            return
        target = importlib.import_module(self.target)
        module.__doc__ = target.__doc__
        exported = getattr(target, "__all__", None) or [name for name in dir(target) if not name.startswith("_")]
        module.__dict__["__all__"] = [name for name in exported if not name.startswith("__")]
        module.__dict__["__getattr__"] = lambda name: _looked_up(target, name, module.__name__)
        module.__dict__["__dir__"] = lambda: sorted({*vars(module), *dir(target)})


def _looked_up(target: ModuleType, name: str, asked: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {asked!r} has no attribute {name!r}")
    try:
        return getattr(target, name)
    except AttributeError:
        raise AttributeError(f"module {asked!r} has no attribute {name!r} ({target.__name__} answers for it)") from None


class _Finder(MetaPathFinder):
    """Answers the old names that nobody else has."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to make the module; None for names that are not old ones."""
        if fullname not in OLD_NAMES and fullname not in _PARENTS:
            return None
        spec = ModuleSpec(fullname, _Alias(OLD_NAMES.get(fullname)), is_package=True)
        spec.submodule_search_locations = []
        return spec


_finder: Final = _Finder()


def install(*, children: bool = True) -> None:
    """
    Let the old import names be answered in this process. Calling it twice does nothing more.

    Args:
        children: Also in the processes that it starts, by way of their environment.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
        importlib.invalidate_caches()
    if children and os.environ.get(CHILDREN_VARIABLE) != "1":
        os.environ[CHILDREN_VARIABLE] = "1"
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = STARTUP if not before else os.pathsep.join((STARTUP, before))


def uninstall() -> None:
    """Take the old names back, and forget modules that were made for them."""
    if _finder in sys.meta_path:
        sys.meta_path.remove(_finder)
    for name in [name for name, module in sys.modules.items() if _is_ours(module)]:
        del sys.modules[name]
    if os.environ.pop(CHILDREN_VARIABLE, None):
        parts = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part and part != STARTUP]
        os.environ["PYTHONPATH"] = os.pathsep.join(parts)
        if not parts:
            del os.environ["PYTHONPATH"]


def _is_ours(module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return isinstance(getattr(spec, "loader", None), _Alias)
