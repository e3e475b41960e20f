"""Where the two sides come from: a revision or the working tree is built once, a wheel is taken as it is."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_sim.folder import passing_folder, remove_passed
from sage_sim.nurse import SetupError

PACKAGE = Path("packages", "sage-qd")
GATES = Path("benchmarks", "gates.toml")
_BUILDING = "building-"
_NOT_SOURCES = {"tests", "build", "dist", "__pycache__"}
_SWITCHES = (
    *("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "LDSHARED"),
    *("SAGE_QD_DEBUG", "SAGE_QD_SANITIZE", "SAGE_QD_COVERAGE", "SAGE_QD_WERROR", "SAGE_QD_POINTS"),
)
_MAIN = ("origin/main", "main", "origin/master", "master")


class BuildError(SetupError):
    """Sources that cannot be built, or a wheel that cannot be installed: nothing that a busy machine explains."""


class UnknownRevisionError(ValueError):
    """There is no such revision, or it has no package to build."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """
    A wheel to measure.

    Attributes:
        path: The file.
        told: What it is, for people: a revision, the working tree, or the name of a file.
        digest: Of its sources; of the file where it was given as one. Equal digests are equal code.
        commit: The full name of its revision, if it is one.
    """

    path: Path
    told: str
    digest: str
    commit: str | None = None

    @classmethod
    def given(cls, path: Path) -> Wheel:
        """One that somebody built."""
        return cls(path=path, told=path.name, digest=hashlib.sha256(path.read_bytes()).hexdigest()[:16])


class Checkout:
    """
    A git checkout with the sources of the package.

    Args:
        start: A folder in it.

    Raises:
        SetupError: It is in none, or there is no git.
    """

    def __init__(self, start: Path) -> None:
        self._git = shutil.which("git")
        if self._git is None:
            raise SetupError("git is not installed; give two wheels: --base WHEEL --head WHEEL")
        found = self._asked("rev-parse", "--show-toplevel", at=start)
        if found.returncode:
            raise SetupError(f"{start.resolve()} is in no git checkout; give two wheels: --base WHEEL --head WHEEL")
        self.root = Path(found.stdout.decode().strip())

    def revision(self, name: str) -> str:
        """
        The full name of a commit.

        Raises:
            UnknownRevisionError: There is none of that name.
        """
        found = self._asked("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if found.returncode:
            raise UnknownRevisionError(f"{name!r} is neither a wheel, a baseline nor a revision of {self.root}")
        return found.stdout.decode().strip()

    def base(self) -> str:
        """
        The merge base with the main branch; on that branch itself and with nothing changed, the commit before.

        Raises:
            SetupError: There is no main branch, no common commit or no commit before, as in a shallow clone.
        """
        head = self.revision("HEAD")
        for main in _MAIN:
            found = self._asked("merge-base", "HEAD", main)
            if found.returncode == 0:
                base = found.stdout.decode().strip()
                if base != head or self.is_changed():
                    return base
                if self._asked("rev-parse", "--verify", "--quiet", "HEAD^").returncode == 0:
                    return self.revision("HEAD^")
        raise SetupError(f"no base to compare with: {', '.join(_MAIN)} share no commit with HEAD here; give --base")

    def is_changed(self) -> bool:
        """Whether the sources of the package differ from HEAD."""
        return bool(self._asked("status", "--porcelain", "--", str(PACKAGE)).stdout.strip())

    def text(self, revision: str, path: Path) -> str | None:
        """A file as a revision has it; None where it has none."""
        found = self._asked("show", f"{revision}:{path}")
        return None if found.returncode else found.stdout.decode("utf-8", "replace")

    def wheel(self, revision: str | None) -> Wheel:
        """
        The wheel of a revision, or of the working tree; built unless it was before.

        Raises:
            UnknownRevisionError: It has no such package.
            BuildError: It cannot be built; has what the compiler said.
            SetupError: There is no compiler.
        """
        with passing_folder() as place:
            sources = place / "sources"
            if revision is None:
                self.sources(sources)
            else:
                self._export(revision, sources)
            return self.built(sources, "the working tree" if revision is None else revision[:12], revision)

    def built(self, sources: Path, told: str, commit: str | None = None) -> Wheel:
        """
        The wheel of a folder with sources; built unless one of the same sources was before.

        Raises:
            BuildError: It cannot be built; has what the compiler said.
            SetupError: There is no compiler.
        """
        constraints = self.root / "constraints.txt"
        digest = _digest(sources, constraints)
        path = _built(sources, self.root / "build" / "gate" / digest, constraints)
        return Wheel(path=path, told=told, digest=digest, commit=commit)

    def sources(self, target: Path) -> None:
        """Copy what the working tree has of the package."""
        shutil.copytree(self.root / PACKAGE, target, ignore=_left_out)

    def _export(self, revision: str, target: Path) -> None:
        packed = self._asked("archive", "--format=tar", f"{revision}:{PACKAGE}")
        if packed.returncode:
            raise UnknownRevisionError(f"{revision[:12]} has no {PACKAGE}: {packed.stderr.decode().strip()}")
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(target, filter="data")
        for tests in target.glob("tests"):
            shutil.rmtree(tests)

    def _asked(self, *words: str, at: Path | None = None) -> subprocess.CompletedProcess[bytes]:
        assert self._git is not None
        return subprocess.run([self._git, *words], cwd=at or self.root, capture_output=True, check=False)


def _left_out(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in _NOT_SOURCES or name.endswith((".egg-info", ".so"))}


def _digest(sources: Path, constraints: Path) -> str:
    """Of all that a wheel depends on: sources, interpreter, switches, and versions of the tools that build it."""
    digest = hashlib.sha256(f"{sysconfig.get_config_var('SOABI')}\n".encode())
    for name in _SWITCHES:
        digest.update(f"{name}={os.environ.get(name, '')}\n".encode())
    digest.update(hashlib.sha256(constraints.read_bytes() if constraints.exists() else b"").digest())
    for path in _files(sources):
        digest.update(f"{path.relative_to(sources)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names))


def compiler() -> str:
    """
    The C compiler that setuptools will call.

    Raises:
        SetupError: It is not there.
    """
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    name = shlex.split(command)[0]
    if shutil.which(name) is None:
        raise SetupError(f"no C compiler: {name} is not on the path; install it, or set CC, or give wheels")
    return name


def _built(sources: Path, target: Path, constraints: Path) -> Path:
    """The wheel in that folder; built there in one step, so that two gates at a time do not meet."""
    if not target.exists():
        compiler()
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_passed(target.parent, _BUILDING)
        with passing_folder(target.parent, _BUILDING) as place:
            made = place / "made"
            made.mkdir()
            tested = {"PIP_BUILD_CONSTRAINT": constraints.as_uri()} if constraints.exists() else {}
            _pip("wheel", "--no-deps", "--wheel-dir", str(made), str(sources), env=tested)
            try:
                made.rename(target)
            except OSError:  # another gate was faster
                if not target.exists():
                    raise
    found = sorted(target.glob("*.whl"))
    if len(found) != 1:
        raise SetupError(f"{target} holds {len(found)} wheels instead of one; remove it")
    return found[0]


def install(wheel: Wheel, folder: Path) -> None:
    """
    Unpack a wheel where nobody else has anything; what it depends on is taken from this environment.

    Raises:
        BuildError: It cannot be installed here, as one for another interpreter.
    """
    _pip("install", "--no-deps", "--no-index", "--target", str(folder), str(wheel.path))


def _pip(*words: str, env: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *words]
    ended = subprocess.run(
        command, env=os.environ | (env or {}), capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if ended.returncode:
        told = "\n".join((ended.stdout + ended.stderr).strip().splitlines()[-20:])
        raise BuildError(f"pip {words[0]} {Path(words[-1]).name} failed:\n{told}")
