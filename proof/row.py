"""One row of the reliability ledger: how every proof script starts, builds its C programs, and reports.

A script says what it proves with a `Row`, runs, and calls `Row.report`. Rows are JSON files, one per row, in the
folder given with ``--out`` (default ``build/ledger``); `sage-sim ledger` reads them.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADERS = ROOT / "packages" / "sage-qd" / "src" / "sage_qd" / "ring"
WARNINGS = ("-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-parameter")


class NotRunError(Exception):
    """Something outside the project is missing; the text says what, and becomes the reason in the row."""


def arguments(description: str, **more: dict[str, object]) -> argparse.Namespace:
    """
    Parse the arguments every proof script takes, plus `more` (name -> keywords of ``add_argument``).

    The seed is drawn when none is given; it is printed, and `Row` records it.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--long", action="store_true", help="the form run before a release")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31), help="repeats a run; drawn when not given")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "ledger", help="folder for the row files")
    for name, keywords in more.items():
        parser.add_argument(f"--{name}", **keywords)  # type: ignore[arg-type]
    return parser.parse_args()


@dataclass
class Row:
    """What one row of the ledger says. ``ok`` is None when the row could not be run; ``reason`` then says why."""

    row: str
    figure: str
    bound: str
    value: str = ""
    ok: bool | None = None
    seed: int = 0
    seconds: float = 0.0
    commit: str = ""
    form: str = "short"
    command: str = ""
    reason: str = ""

    @classmethod
    def begin(cls, options: argparse.Namespace, row: str, figure: str, bound: str) -> Row:
        """Start the row's clock and note how to repeat it."""
        form = "long" if options.long else "short"
        made = cls(row, figure, bound, seed=options.seed, form=form, commit=commit(), command=command(options.seed))
        made._out, made._started = options.out, time.monotonic()
        return made

    def report(self, value: str, ok: bool) -> bool:
        """Write the row file, print the row, and return `ok`; a failure prints the command that repeats it."""
        self.value, self.ok = value, bool(ok)
        return self._finish()

    def not_run(self, reason: str) -> bool:
        """Write that the row was not run, and why. Not a failure of the script, and never a pass."""
        self.value, self.ok, self.reason = "not run", None, reason
        return self._finish()

    def _finish(self) -> bool:
        self.seconds = round(time.monotonic() - self._started, 1)
        self._out.mkdir(parents=True, exist_ok=True)
        shown = {name: value for name, value in asdict(self).items() if not name.startswith("_")}
        (self._out / f"{self.row}.json").write_text(json.dumps(shown, indent=2) + "\n")
        verdict = {True: "ok", False: "FAILED", None: f"not run: {self.reason}"}[self.ok]
        print(f"{self.row}  {self.figure}")
        print(f"    {self.value}   (bound: {self.bound})   {verdict}, {self.seconds} s", flush=True)
        if self.ok is False:
            print(f"    repeat: {self.command}", flush=True)
        return self.ok is not False

    _out: Path = ROOT / "build" / "ledger"
    _started: float = 0.0


def command(seed: int) -> str:
    """The command line that runs this script again with the same seed."""
    given = [word for word in sys.argv[1:] if word != "--seed" and not word.startswith("--seed=")]
    for at, word in enumerate(sys.argv[1:]):
        if word == "--seed" and at + 2 < len(sys.argv):
            given.remove(sys.argv[at + 2])
    return shlex.join(["python", f"proof/{Path(sys.argv[0]).name}", *given, "--seed", str(seed)])


def commit() -> str:
    """Short hash of the commit, with ``+changes`` when the tree differs from it; ``unknown`` outside a checkout."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    head = subprocess.run([git, "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    status = subprocess.run([git, "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True)
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def compiler(kind: str = "cc") -> str:
    """Path of a compiler: ``cc`` (the CC variable, else cc or gcc) or ``clang``."""
    wanted = [os.environ.get("CC", ""), "cc", "gcc", "clang"] if kind == "cc" else [kind]
    for name in wanted:
        found = shutil.which(name) if name else None
        if found:
            return found
    raise NotRunError(f"needs {'a C compiler' if kind == 'cc' else kind}")


def build(source: str, *flags: str, name: str | None = None, kind: str = "cc", optimise: str = "-O2") -> Path:
    """
    Compile ``proof/<source>`` against the ring's headers and return the program.

    Args:
        source: File name in this folder.
        flags: More compiler flags, such as ``-DSQ_FAULT_POINTS``.
        name: Name of the program; the source's stem when not given.
        kind: Which compiler, see `compiler`.
        optimise: Optimisation flag.

    Raises:
        NotRunError: There is no such compiler.
        subprocess.CalledProcessError: The program does not compile; the compiler's words were printed.
    """
    target = ROOT / "build" / "proof" / (name or Path(source).stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    path = ROOT / "proof" / source
    subprocess.run(
        [compiler(kind), *WARNINGS, optimise, "-g", *flags, f"-I{HEADERS}", "-o", fresh, str(path), "-lpthread"],
        check=True,
    )
    fresh.replace(target)  # in one step: two scripts may build the same program at the same time
    return target


def run(program: Path, *words: object, timeout: float, **keywords: object) -> dict[str, object]:
    """
    Run a proof program that prints lines for a person and, last, one JSON line; return that line's value.

    The key ``exit`` holds the exit code. A program that does not end is killed and gives ``{"exit": "hang"}``.
    """
    process = subprocess.Popen(
        [program, *map(str, words)], stdout=subprocess.PIPE, text=True, start_new_session=True, **keywords
    )  # type: ignore[call-overload]
    try:
        text, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)  # the session we just started: the program and its own children
        text, _ = process.communicate()
        print(text, end="")
        print(f"{program.name} was still running after {timeout} s: killed")
        return {"exit": "hang"}
    lines = text.rstrip("\n").split("\n")
    last = lines[-1] if lines[-1].startswith("{") else "{}"
    print("\n".join(lines[:-1] if last != "{}" else lines), flush=True)
    return {**json.loads(last), "exit": process.returncode}
