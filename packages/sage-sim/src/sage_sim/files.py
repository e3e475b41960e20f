"""Files of ours, in TOML or YAML: read, checked, and told about by line. Topologies are some, gates are others."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from sage_sim.scenario import Scenario

Place = tuple[str | int, ...]
SUFFIXES = (".toml", ".yaml", ".yml", ".json")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z0-9_\"'.-]+)\s*=")


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One thing that is wrong: the line of the file, if there is one, the place as in ``edges[2].kind``, and what."""

    line: int | None
    place: str
    text: str


class FileError(ValueError):
    """
    A file is wrong.

    Attributes:
        path: The file.
        faults: Everything that is wrong with it.
    """

    def __init__(self, path: Path, faults: list[Mistake]) -> None:
        self.path = path
        self.faults = faults
        super().__init__("\n".join(map(self._told, faults)))

    def _told(self, fault: Mistake) -> str:
        line = "" if fault.line is None else f":{fault.line}"
        place = f" {fault.place}:" if fault.place else ""
        return f"{self.path}{line}:{place} {fault.text}"


def read_scenario(path: Path) -> Scenario:
    """
    Read a topology file.

    Raises:
        FileError: It is wrong; has all that is wrong with it, not just the first.
        OSError: It cannot be read.
        ImportError: It is YAML, and its library is not installed.
    """
    raw, lines = parsed(path)
    return checked(raw, path, lines)


def checked(raw: Any, path: Path, lines: dict[Place, int]) -> Scenario:
    """
    Make a scenario of what a file holds.

    Args:
        raw: The content.
        path: The file, for errors.
        lines: Where each part of the content stands.

    Raises:
        FileError: It is wrong.
    """
    try:
        scenario = Scenario.model_validate(raw)
    except ValidationError as error:
        faults = mistakes(error, Scenario, lines)
        faults += [mistake_at(place, text, lines) for place, text in _loose_names(raw)]
        raise FileError(path, sorted(faults, key=lambda fault: fault.line or 0)) from None
    loose = list(_loose_names(raw))
    known = [(place, text) for place, text in scenario.problems() if not (loose and "unknown roles" in text)]
    if loose or known:
        raise FileError(path, [mistake_at(place, text, lines) for place, text in (*loose, *known)])
    return scenario


def mistakes(error: ValidationError, model: type[BaseModel], lines: dict[Place, int], at: Place = ()) -> list[Mistake]:
    """
    What pydantic found, told as by the file.

    Args:
        error: What it found.
        model: Of what was checked.
        lines: Where each part of the file stands.
        at: Which part of the file was checked.
    """
    return [mistake_at((*at, *one["loc"]), _worded(one, model), lines) for one in error.errors(include_url=False)]


def mistake_at(place: Place, text: str, lines: dict[Place, int]) -> Mistake:
    """A mistake in a part of a file, with the line of that part, or of the smallest one around it that has one."""
    for end in range(len(place), 0, -1):
        if place[:end] in lines:
            return Mistake(line=lines[place[:end]], place=_written(place), text=text)
    return Mistake(line=None, place=_written(place), text=text)


def _written(place: Place) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _worded(error: Any, model: type[BaseModel]) -> str:
    """What is wrong in one place, with the word that was probably meant."""
    kind, value, place = error["type"], error.get("input"), error["loc"]
    if kind == "extra_forbidden":
        words = _fields_at(place[:-1], model)
        return f"unknown word {place[-1]!r}{_hint(str(place[-1]), words)}; known are: {', '.join(words)}"
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return f"{value!r} is not one of {', '.join(words)}{_hint(str(value), words)}"
    if kind == "missing":
        return "is missing"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}" + (
        f", not {value!r:.60}" if isinstance(value, int | float | str) else ""
    )


def _hint(word: str, words: list[str]) -> str:
    close = get_close_matches(word, words, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _fields_at(place: Place, model: type[BaseModel]) -> list[str]:
    """The words that a part of a model may have."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            found = model.model_fields[part].annotation
            inner = next((one for one in (found, *get_args(found)) if _is_model(one)), None)
            if inner is not None:
                model = inner
    return list(model.model_fields)


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _loose_names(raw: Any) -> list[tuple[Place, str]]:
    """Ends of edges that are no roles; looked for even when other things are wrong."""
    if not isinstance(raw, dict) or not isinstance(raw.get("roles"), list) or not isinstance(raw.get("edges"), list):
        return []
    roles = [str(role["name"]) for role in raw["roles"] if isinstance(role, dict) and "name" in role]
    found: list[tuple[Place, str]] = []
    for at, edge in enumerate(raw["edges"]):
        for end in ("source", "target"):
            name = edge.get(end) if isinstance(edge, dict) else None
            if isinstance(name, str) and name not in roles:
                found.append((("edges", at, end), f"there is no role {name!r}{_hint(name, roles)}"))
    return found


# -- Lines ------------------------------------------------------------------------------------------------------------


def parsed(path: Path) -> tuple[Any, dict[Place, int]]:
    """
    What a file holds, and where each part of it stands.

    Raises:
        FileError: It is no TOML, YAML or JSON, whichever its name promises; or its parts are nested too deeply.
        OSError: It cannot be read.
        ImportError: It is YAML, and its library is not installed.
    """
    try:
        return _parsed(path)
    except RecursionError:
        text = "parts are nested too deeply, or hold themselves"
        raise FileError(path, [Mistake(line=None, place="", text=text)]) from None


def _parsed(path: Path) -> tuple[Any, dict[Place, int]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".yaml", ".yml"):
        return _parsed_yaml(path, text)
    if path.suffix == ".json":
        try:
            return json.loads(text), {}
        except json.JSONDecodeError as error:
            raise FileError(path, [Mistake(line=error.lineno, place="", text=error.msg)]) from None
    try:
        return tomllib.loads(text), toml_lines(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        line = int(found[1]) if found else None
        raise FileError(path, [Mistake(line=line, place="", text=f"this is no TOML: {error}")]) from None


def toml_lines(text: str) -> dict[Place, int]:
    """
    Where each table and each key of a TOML file stands.

    The library for TOML does not tell; so this reads headers and keys again, one line at a time. What is inside a value
    that goes over several lines has the line of its key.
    """
    found: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = ()
            names = [name.strip().strip("\"'") for name in header[2].split(".")]
            for at, name in enumerate(names):
                table = (*table, name)
                is_new = header[1] == "[[" and at == len(names) - 1
                if is_new:
                    counts[table] = counts.get(table, -1) + 1
                if table in counts:
                    table = (*table, counts[table])
            found.setdefault(table, number)
            found.setdefault(table[:1], number)
        elif key := _KEY.match(line):
            place = (*table, *(name.strip("\"'") for name in key[1].split(".")))
            found.setdefault(place, number)
    return found


def _parsed_yaml(path: Path, text: str) -> tuple[Any, dict[Place, int]]:
    try:
        yaml = import_module("yaml")
    except ImportError as error:
        raise ImportError(f"{path.name} is YAML, which needs its library: pip install 'sage-sim[yaml]'") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        what = getattr(error, "problem", None) or str(error)
        raise FileError(path, [Mistake(line=line, place="", text=f"this is no YAML: {what}")]) from None
    lines: dict[Place, int] = {}

    def walk(node: Any, place: Place) -> None:
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                lines[(*place, key.value)] = key.start_mark.line + 1
                walk(value, (*place, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for at, value in enumerate(node.value):
                walk(value, (*place, at))

    if node is not None:
        walk(node, ())
    return raw, lines
