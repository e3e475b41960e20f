"""The compiled part of the ring stands on the exceptions alone; import-linter cannot see into it."""

import re
from pathlib import Path

import pytest

RING = Path(__file__).parents[2] / "src" / "sage_qd" / "ring"
COMPILED = sorted(path.name for path in RING.glob("*.py[xd]") if path.suffix != ".pyd")
IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<source>[.\w]+)[ \t]+c?import[ \t]+(?P<names>[^#\n]*)|c?import[ \t]+(?P<modules>[^#\n]*))",
    re.MULTILINE,
)
BY_NAME = re.compile(r"__import__|import_module|^[ \t]*include\b", re.MULTILINE)


def project_imports(text: str) -> set[str]:
    """Modules of this project that Cython source imports, by their full name."""
    found = set()
    for match in IMPORT.finditer(re.sub(r"\\\n", " ", text)):
        if source := match["source"]:
            dots = len(source) - len(source.lstrip("."))
            package = "sage_qd.ring".rsplit(".", dots - 1)[0] + "." if dots else ""
            module = (package + source.lstrip(".")).rstrip(".")
            parts = [name.split()[0] for name in match["names"].strip("() ").split(",") if name.strip()]
            found |= {f"{module}.{part}" for part in parts} if module in ("sage_qd", "sage_qd.ring") else {module}
        else:
            found |= {name.split()[0] for name in match["modules"].split(",") if name.strip()}
    return {module for module in found if module.split(".")[0].startswith("sage_")}


def test_ring_has_compiled_sources() -> None:
    assert "_ring.pyx" in COMPILED


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_source_imports_errors_and_nothing_else_of_the_project(name: str) -> None:
    assert project_imports((RING / name).read_text()) <= {"sage_qd.errors"}


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_source_imports_nothing_by_a_computed_name_and_includes_no_text(name: str) -> None:
    assert BY_NAME.search((RING / name).read_text()) is None


@pytest.mark.parametrize(
    ("line", "modules"),
    [
        ("from sage_qd.errors import Empty, Full", {"sage_qd.errors"}),
        ("from sage_qd import errors", {"sage_qd.errors"}),
        ("from sage_qd import queues, codecs  # both", {"sage_qd.queues", "sage_qd.codecs"}),
        ("    import sage_qd.codecs as words", {"sage_qd.codecs"}),
        ("from ..queues.base cimport Queue", {"sage_qd.queues.base"}),
        ("from .. import descriptors", {"sage_qd.descriptors"}),
        ("from . import segment", {"sage_qd.ring.segment"}),
        ("from .segment import create", {"sage_qd.ring.segment"}),
        ("cimport sage_qd.ring.other, cython", {"sage_qd.ring.other"}),
        ("from sage_sim import \\\n    faults", {"sage_sim"}),
        ("from libc.stdint cimport uint64_t", set()),
        ('cdef extern from "ring.h" nogil:', set()),
        ("# import sage_qd.queues", set()),
    ],
)
def test_every_form_of_import_is_seen(line: str, modules: set[str]) -> None:
    assert project_imports(f"import os\n{line}\nx = 1\n") == modules
