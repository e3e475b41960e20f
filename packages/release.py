"""
Build what is released, install it as a user would, and try it: ``python packages/release.py [folder]``.

Source distributions of the three packages are built from the tree, wheels from the unpacked source distributions alone,
and the wheels are installed into a new environment without the tools of this project. There each program says its
version and does a little of what it is for, in a folder where no source lies.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

from install import CONSTRAINTS, NAMES, PACKAGES, ROOT
from version import found

TRIES = {
    "sage-qd": """
import multiprocessing
from sage_qd import SageQueueDescriptor

def put(descriptor):
    with descriptor.attach() as queue:
        queue.put_many(range(1000))

if __name__ == "__main__":
    jobs = SageQueueDescriptor("release", namespace="release")
    with jobs.open() as queue:
        child = multiprocessing.get_context("spawn").Process(target=put, args=(queue.descriptor,))
        child.start()
        assert [queue.get(timeout=60) for _ in range(1000)] == list(range(1000))
        child.join()
""",
    "sage-compat": """
from sage_compat import install
install()
from sage.utils.queue_adapter import create_queue
queue = create_queue(backend="sage", name="release")
queue.put("an old item")
assert queue.get(timeout=60) == "an old item"
queue.close()
""",
    "sage-sim": """
import subprocess, sys
command = [sys.executable, "-m", "sage_sim", "run", "pipeline", "--items", "2000", "--quiet"]
subprocess.run(command, check=True)
""",
}
"""A program for each package."""


def main() -> None:
    """Build, install, try."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "release").resolve()
    target.mkdir(parents=True, exist_ok=True)
    for old in (*target.glob("*.whl"), *target.glob("*.tar.gz")):
        old.unlink()
    (version,) = found()
    wheels = [built(name, version, target) for name in NAMES]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        python = str(place / "env" / "bin" / "python")
        run([python, "-m", "pip", "install", "-qq", *map(str, wheels)], place)
        run([python, "-m", "pip", "check", "-qq"], place)
        for name, program in TRIES.items():
            said = run([str(place / "env" / "bin" / name), "--version"], place)
            if version not in said:
                sys.exit(f"{name} --version says {said!r}, and {version} was built")
            script = place / f"try_{name.replace('-', '_')}.py"
            script.write_text(program)
            run([python, script.name], place)
            print(f"{name} {version}: built, installed and tried")


def built(name: str, version: str, target: Path) -> Path:
    """Build the source distribution of a package, and its wheel from nothing else."""
    run([sys.executable, "-m", "build", "--sdist", "--outdir", str(target), str(PACKAGES / name)], target)
    stem = f"{name.replace('-', '_')}-{version}"
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(target / f"{stem}.tar.gz") as packed:
            packed.extractall(folder, filter="data")
        run([sys.executable, "-m", "build", "--wheel", "--outdir", str(target), str(Path(folder, stem))], target)
    (wheel,) = target.glob(f"{stem}-*.whl")
    return wheel


def run(words: list[str], place: Path) -> str:
    """Run a program with the tested versions of what it installs; what it printed."""
    tested = {"PIP_CONSTRAINT": CONSTRAINTS.as_uri(), "PIP_BUILD_CONSTRAINT": CONSTRAINTS.as_uri()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    ran = subprocess.run(words, cwd=place, env=clean | tested, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{' '.join(words)} ended with exit code {ran.returncode}:\n{ran.stdout}{ran.stderr}")
    return ran.stdout


if __name__ == "__main__":
    main()
