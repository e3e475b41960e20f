"""
The configuration file: ``sage-compat.toml``, or ``[tool.sage-compat]`` in ``pyproject.toml``.

It is the one that ``SAGE_COMPAT_CONFIG`` names, else the first that is found from the current folder upwards::

    mode = "legacy"                  # for whatever no rule matches
    quirks = ["pid_in_name"]         # old behaviour that was fixed on purpose

    [[rules]]                        # the first one that matches a name wins
    match = "orders*"                # or "re:orders-[0-9]+"
    mode = "canary"
    percent = 20

    [shadow]
    sample = 0.05                    # which share of the messages is copied
    budget = 0.1                     # most of a call's time that the copy may take

    [health]
    automatic_rollback = true        # off by default
    max_error_rate = 0.01
    max_blocked_share = 0.5
    window_seconds = 5

Whatever is wrong is an error that names the place.
"""

import os
import tomllib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from sage_compat.errors import ConfigurationError, did_you_mean

__all__ = ["CONFIG_VARIABLE", "Configuration", "Health", "Shadow", "current", "find_file"]

CONFIG_VARIABLE: Final = "SAGE_COMPAT_CONFIG"
OWN_NAME: Final = "sage-compat.toml"
_TOP: Final = {"mode": str, "rules": list, "shadow": dict, "health": dict, "quirks": list}
_RULE: Final = {"match": str, "mode": str, "percent": int, "note": str}
_WORDS: Final = {
    str: "text",
    list: "a list",
    dict: "a table",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """
    How the shadow mode copies.

    Attributes:
        sample: Share of the messages that is copied, above 0 and at most 1.
        budget: Most of a call's time that the copy may take, above 0 and at most 1.
    """

    sample: float = 0.05
    budget: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Health:
    """
    When a queue of the new way is rolled back without being asked.

    Attributes:
        automatic_rollback: Whether it is at all.
        max_error_rate: Most failed calls among all calls of a window, from 0 to 1.
        max_blocked_share: Most of a window that producers may wait for room, from 0 to 1.
        window_seconds: Length of a window.
    """

    automatic_rollback: bool = False
    max_error_rate: float = 0.01
    max_blocked_share: float = 0.5
    window_seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What a file says; the defaults where there is none."""

    path: Path | None = None
    mode: str | None = None
    rules: tuple[dict[str, Any], ...] = ()
    shadow: Shadow = field(default_factory=Shadow)
    health: Health = field(default_factory=Health)
    quirks: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The file, for sentences."""
        return "no configuration file" if self.path is None else str(self.path)


def find_file() -> Path | None:
    """
    Return the configuration file; None when there is none.

    Raises:
        ConfigurationError: ``SAGE_COMPAT_CONFIG`` names a file that is not there.
    """
    if named := os.environ.get(CONFIG_VARIABLE):
        if not Path(named).is_file():
            raise ConfigurationError(CONFIG_VARIABLE, f"there is no file {named!r}")
        return Path(named)
    here = Path.cwd()
    for place in (here, *here.parents):
        if (own := place / OWN_NAME).is_file():
            return own
        if (project := place / "pyproject.toml").is_file() and "sage-compat" in _parsed(project).get("tool", {}):
            return project
    return None


def current() -> Configuration:
    """
    Return what the configuration file says now.

    Raises:
        ConfigurationError: It says something wrong; the text names the place and what was probably meant.
    """
    path = find_file()
    if path is None:
        return Configuration()
    return _read(path, _version(path))


def _version(path: Path) -> tuple[int, ...]:
    """What differs when a file has other content: reading one takes milliseconds, and every decision asks for it."""
    found = path.stat()
    return found.st_mtime_ns, found.st_ino, found.st_size


@lru_cache(maxsize=8)
def _read(path: Path, _version: tuple[int, ...]) -> Configuration:
    document = _parsed(path)
    if path.name == "pyproject.toml":
        document = document.get("tool", {}).get("sage-compat", {})
    where = str(path)
    _check_members(document, _TOP, where)
    for number, rule in enumerate(document.get("rules", [])):
        place = f"{where}, rules[{number}]"
        if not isinstance(rule, dict):
            raise ConfigurationError(place, f"a rule is a table, not {rule!r}")
        _check_members(rule, _RULE, place)
        for member in ("match", "mode"):
            if member not in rule:
                raise ConfigurationError(place, f"a rule needs {member!r}")
    return Configuration(
        path=path,
        mode=document.get("mode"),
        rules=tuple(document.get("rules", [])),
        shadow=_section(document, "shadow", Shadow(), where),
        health=_section(document, "health", Health(), where),
        quirks=tuple(document.get("quirks", [])),
    )


def _parsed(path: Path) -> dict[str, Any]:
    return _parsed_once(path, _version(path))


@lru_cache(maxsize=8)
def _parsed_once(path: Path, _version: tuple[int, ...]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(str(path), f"it is no TOML: {error}") from None


def _section(document: dict[str, Any], name: str, default: Any, where: str) -> Any:
    found = document.get(name, {})
    place = f"{where}, {name}"
    _check_members(found, {key: type(getattr(default, key)) for key in vars(default)}, place)
    for key, value in found.items():
        most = 3600 if key == "window_seconds" else 1
        if not isinstance(value, bool) and not 0 < value <= most:
            raise ConfigurationError(f"{place}.{key}", f"it must be above 0 and at most {most}, not {value!r}")
    return type(default)(**found)


def _check_members(found: dict[str, Any], known: dict[str, Any], place: str) -> None:
    for key, value in found.items():
        if key not in known:
            raise ConfigurationError(f"{place}, {key}", f"unknown key {key!r}; {did_you_mean(key, sorted(known))}")
        wanted = known[key]
        accepted = (int, float) if wanted is float else wanted
        if not isinstance(value, accepted) or (isinstance(value, bool) and wanted is not bool):
            raise ConfigurationError(f"{place}, {key}", f"it must be {_WORDS[wanted]}, not {value!r}")
