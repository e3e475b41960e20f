"""
Runs the examples of the documentation: README.md, those of the packages, and everything in docs/.

``python`` blocks of one page run in order, in one namespace. In ``console`` blocks, the lines ``$ sage-...`` and
``$ python ...`` must end with exit code 0; other commands (make, pip, git) change the machine and are not run.
"""

import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from sybil import Example, Sybil
from sybil.parsers.myst import CodeBlockParser, PythonCodeBlockParser, SkipParser

LIMIT_SECONDS = 120


def run_console(example: Example) -> None:
    """Run the commands of a ``console`` block that use the packages."""
    for line in example.parsed.splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True) if line.startswith("$ ") else []
        if not words:
            continue
        if words[0] == "python":
            words[0] = sys.executable
        elif words[0].startswith("sage-"):
            words[0] = str(Path(sysconfig.get_path("scripts"), words[0]))
        else:
            continue
        ran = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        assert ran.returncode == 0, f"{line}\nexit code {ran.returncode}\n{ran.stdout}{ran.stderr}"


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), CodeBlockParser("console", run_console), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/**/*.md", "packages/*/README.md"],
    path=str(Path(__file__).parent),
).pytest()
