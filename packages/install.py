"""
Install the three packages into the environment that runs this script, as a user would: from wheels.

Nothing happens when the sources are those that were installed last. Wheels are kept in ``build/wheels``, one folder for
each interpreter and mix of build switches, so environments of the same kind share one build. They install one at a
time, because pip builds inside the tree.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = Path(__file__).resolve().parent
ROOT = PACKAGES.parent
SHELF = ROOT / "build" / "wheels"
CONSTRAINTS = ROOT / "constraints.txt"
NAMES = ("sage-qd", "sage-compat", "sage-sim")
BUILDS = ("SAGE_QD_DEBUG", "SAGE_QD_SANITIZE", "SAGE_QD_COVERAGE", "SAGE_QD_WERROR", "SAGE_QD_POINTS")
SWITCHES = (*BUILDS, "CC", "CFLAGS", "LDFLAGS")
NOT_SOURCES = {"tests", "build", "dist", "__pycache__"}


def main() -> None:
    """Install, one at a time."""
    SHELF.mkdir(parents=True, exist_ok=True)
    with open(SHELF / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install()


def install() -> None:
    """Install, unless it was done already."""
    wanted = fingerprint()
    stamp = Path(sys.prefix, "sage-packages.txt")
    if stamp.exists() and stamp.read_text() == wanted:
        return
    wheels = built(wanted)
    stamp.unlink(missing_ok=True)
    pip("uninstall", "--yes", *NAMES)
    pip("install", *wheels)
    stamp.write_text(wanted)


def fingerprint() -> str:
    """Name interpreter, build switches and sources: what a wheel depends on."""
    digest = hashlib.sha256(CONSTRAINTS.read_bytes())
    for name in SWITCHES:
        digest.update(f"{name}={os.environ.get(name, '')}\n".encode())
    for path in sources():
        digest.update(f"{path.relative_to(PACKAGES)}\n".encode() + path.read_bytes())
    kind = [f"{name.removeprefix('SAGE_QD_').lower()}={os.environ[name]}" for name in BUILDS if os.environ.get(name)]
    return f"{'-'.join([sysconfig.get_config_var('SOABI'), *kind])}.{digest.hexdigest()[:16]}"


def sources() -> Iterator[Path]:
    """Every file that can end up in a wheel, in a fixed order."""
    for name in NAMES:
        for folder, folders, files in os.walk(PACKAGES / name):
            folders[:] = sorted(one for one in folders if one not in NOT_SOURCES and not one.endswith(".egg-info"))
            yield from (Path(folder, one) for one in sorted(files) if not one.endswith(".so"))


def built(wanted: str) -> list[str]:
    """Return the wheels called `wanted`, building them first when there are none."""
    target = SHELF / wanted
    if not target.exists():
        for old in SHELF.glob(f"{wanted.rpartition('.')[0]}.*"):
            shutil.rmtree(old)
        for leftover in PACKAGES.glob("*/build/*/lib*"):
            shutil.rmtree(leftover)  # setuptools would pack modules from here that are no longer in the sources
        with tempfile.TemporaryDirectory(dir=SHELF) as folder:
            pip("wheel", "--no-deps", "--wheel-dir", folder, *(str(PACKAGES / name) for name in NAMES))
            Path(folder).rename(target)
            Path(folder).mkdir()  # for TemporaryDirectory to remove
    return [str(wheel) for wheel in sorted(target.glob("*.whl"))]


def pip(*words: str) -> None:
    """Run pip with the tested versions, also for what the build itself needs; it prints errors only."""
    tested = {"PIP_CONSTRAINT": CONSTRAINTS.as_uri(), "PIP_BUILD_CONSTRAINT": CONSTRAINTS.as_uri()}
    command = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *words]
    if code := subprocess.run(command, env=os.environ | tested, check=False).returncode:
        sys.exit(f"pip {words[0]} ended with exit code {code}; its words are above")


if __name__ == "__main__":
    main()
