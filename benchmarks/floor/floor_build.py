"""Builds the bare reference ring with setuptools and imports it; a build is kept until its source or Python changes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType

SOURCE = Path(__file__).with_name("bare_ring.c")
BUILDS = Path(__file__).resolve().parents[2] / "build" / "benchmarks"
FLAGS = ("-std=gnu11", "-O3", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Wno-cast-function-type")


class FloorBuildError(Exception):
    """The bare ring could not be built; the text ends with what the compiler said."""


def load() -> ModuleType:
    """
    Return the module ``bare_ring``, building it first when there is no build of this source for this Python.

    Raises:
        FloorBuildError: setuptools or the C compiler is missing, or the source does not compile.
    """
    target = BUILDS / f"floor-{fingerprint()}" / f"bare_ring{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.exists():
        build(target)
    spec = importlib.util.spec_from_file_location("bare_ring", target)
    if spec is None or spec.loader is None:
        raise FloorBuildError(f"{target.name} is not an extension module of this Python")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fingerprint() -> str:
    """Twelve digits that change with the source, the flags, the compiler asked for and the Python."""
    parts = (SOURCE.read_bytes(), repr((FLAGS, os.environ.get("CC"), os.environ.get("CFLAGS"))).encode())
    name = f"{sys.version}{sysconfig.get_platform()}".encode()
    return hashlib.sha256(b"\0".join((*parts, name))).hexdigest()[:12]


def build(target: Path) -> None:
    """Compile in a temporary folder, then move into place in one step: two runs may build at the same time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        ran = subprocess.run(
            [sys.executable, __file__, folder], capture_output=True, text=True, cwd=folder, check=False
        )
        made = list(Path(folder, "lib").glob("bare_ring*"))
        if ran.returncode or not made:
            said = (ran.stderr or ran.stdout).strip().splitlines() or ["no output"]
            raise FloorBuildError(f"the bare ring did not build (needs setuptools and a C compiler): {said[-1]}")
        made[0].replace(target)


def compile_into(folder: str) -> None:
    """Run setuptools' ``build_ext``; what this file does when started as a program."""
    from setuptools import Extension, setup

    setup(
        name="bare_ring",
        ext_modules=[Extension("bare_ring", [str(SOURCE)], extra_compile_args=list(FLAGS))],
        script_args=["--quiet", "build_ext", "--build-lib", f"{folder}/lib", "--build-temp", f"{folder}/temp"],
    )


if __name__ == "__main__":
    compile_into(sys.argv[1])
