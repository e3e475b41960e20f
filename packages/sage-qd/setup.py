"""
Build the one extension, ``sage_qd.ring._ring``.

Everything else about the package is in pyproject.toml. Five environment variables change the build:

    SAGE_QD_DEBUG=1            no optimisation, debug symbols, every assertion and Cython check on
    SAGE_QD_SANITIZE=address   build for a sanitizer; any value of -fsanitize=, for example ``address,undefined``
    SAGE_QD_COVERAGE=1         line tracing, so that coverage sees the lines of the .pyx
    SAGE_QD_WERROR=1           a compiler warning is an error
    SAGE_QD_POINTS=1           fault points: a process can be ordered to die between two stores of the ring

Each mix has a build folder of its own, because object files of two mixes must never meet in one link.
"""

import os
import sys
from glob import glob

from setuptools import Extension, setup


def switch(name: str) -> bool:
    """Whether an environment variable is set to something other than 0."""
    return os.environ.get(name, "") not in ("", "0")


DEBUG, COVERAGE, WERROR, POINTS = (switch(f"SAGE_QD_{name}") for name in ("DEBUG", "COVERAGE", "WERROR", "POINTS"))
SANITIZE = os.environ.get("SAGE_QD_SANITIZE", "")

RING = "src/sage_qd/ring"
# Cython's method tables cast function types and leave the last fields of static structs to be zero; both are how
# CPython's own interface works, and neither can be changed in our sources.
CYTHON_NOISE = ["-Wno-cast-function-type", "-Wno-missing-field-initializers", "-Wno-unused-parameter"]


def ring_extension() -> Extension:
    """Describe the extension for this mix of switches."""
    compile_args = ["-std=gnu11", "-Wall", "-Wextra", *CYTHON_NOISE]
    compile_args += ["-O0", "-g3", "-UNDEBUG"] if DEBUG else ["-O2"]
    compile_args += ["-Werror"] if WERROR else []
    link_args: list[str] = []
    macros: list[tuple[str, str | None]] = []
    if DEBUG:
        macros.append(("SQ_DEBUG", "1"))
    if SANITIZE:
        compile_args += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g"]
        link_args.append(f"-fsanitize={SANITIZE}")
    if COVERAGE:
        macros.append(("CYTHON_TRACE_NOGIL", "1"))
    if POINTS:
        macros.append(("SQ_FAULT_POINTS", "1"))
    return Extension(
        "sage_qd.ring._ring",
        [f"{RING}/_ring.pyx", *([f"{RING}/ring_order.c"] if POINTS else [])],
        include_dirs=[RING],
        depends=sorted(glob(f"{RING}/*.h") + glob(f"{RING}/*.pxd")),
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


def build_base() -> str:
    """Name the build folder of this mix of switches."""
    switches = {"debug": DEBUG, SANITIZE.replace(",", "-"): SANITIZE, "coverage": COVERAGE, "werror": WERROR}
    switches["points"] = POINTS
    mix = [name for name, is_on in switches.items() if is_on]
    return os.path.join("build", "-".join(mix) or "release")


def extensions() -> list[Extension]:
    """Return the extension on Linux and nothing elsewhere: the ring uses futexes, memfds and robust locks."""
    if not sys.platform.startswith("linux"):
        print("sage-qd: built without the ring, which needs Linux; the portable queue kinds work", file=sys.stderr)
        return []
    from Cython.Build import cythonize

    directives = {"boundscheck": True, "linetrace": COVERAGE} if DEBUG else {"linetrace": COVERAGE}
    generated = os.path.join(build_base(), "generated")
    return cythonize([ring_extension()], build_dir=generated, compiler_directives=directives)


setup(ext_modules=extensions(), options={"build": {"build_base": build_base()}})
