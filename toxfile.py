"""
Three small things that tox.ini cannot say; tox loads this file by itself.

Environments with ``runner = shared`` and the same ``env_dir`` use one virtual environment. tox would make it anew for
each name, because it notes the name in the folder; everything else that it notes (Python, dependencies) still counts.

Interpreters that pyenv installed are found although pyenv has not selected them. Its shims for those stand on the
path, but only print an error.

What a failed environment printed last is printed again at the very end: an hour of other checks may stand between.
"""

import atexit
import os
import re
from pathlib import Path
from typing import Any

from tox.config.sets import ConfigSet
from tox.execute.api import Outcome
from tox.plugin import impl
from tox.session.state import State
from tox.tox_env.api import ToxEnv
from tox.tox_env.info import Info
from tox.tox_env.python.virtual_env.runner import VirtualEnvRunner
from tox.tox_env.register import ToxEnvRegister

LAST_LINES = 20


class SharedInfo(Info):
    """What tox notes about an environment, without its name."""

    def compare(self, value: Any, section: str, sub_section: str | None = None) -> Any:
        """Compare `value` with what was noted, as tox does, after taking the name out."""
        if section == ToxEnv.__name__:
            value = {**value, "name": "shared"}
        return super().compare(value, section, sub_section)


class SharedRunner(VirtualEnvRunner):
    """A virtual environment that several tox environments use one after the other."""

    @staticmethod
    def id() -> str:
        """Name of this runner in tox.ini."""
        return "shared"

    @property
    def cache(self) -> Info:
        """Notes about the environment."""
        return SharedInfo(self.env_dir)


@impl
def tox_register_tox_env(register: ToxEnvRegister) -> None:
    """Offer the runner."""
    register.add_run_env(SharedRunner)


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Add the interpreters of pyenv to those that discovery tries; it checks for itself that they run."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = map(str, sorted(root.glob("versions/*/bin/python3.[0-9]*[0-9]")))
    state.conf.options.discover = [*getattr(state.conf.options, "discover", ()), *installed]


@impl
def tox_after_run_commands(tox_env: ToxEnv, exit_code: int, outcomes: list[Outcome]) -> None:
    """Note for the end what the commands of `tox_env` that failed had to say."""
    if exit_code:
        for outcome in outcomes:
            if outcome.exit_code:
                atexit.register(print, f"{tox_env.conf.name} failed:", *last_words(outcome), sep="\n  ", flush=True)


def last_words(outcome: Outcome) -> list[str]:
    """Return the failures that pytest names and why, or the last lines when there are none."""
    lines = f"{outcome.out}\n{outcome.err}".splitlines()
    failures = [line for line in lines if re.match(r"(FAILED|ERROR|E  ) ", line)]
    return (failures or [line for line in lines if line.strip()])[-LAST_LINES:]
