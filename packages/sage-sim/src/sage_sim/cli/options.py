"""The options that say what to run, shared by all verbs that run something."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from click.core import ParameterSource
from pydantic import ValidationError

from sage_sim.channels import KINDS
from sage_sim.cli.output import give_up
from sage_sim.faults import Faults, parse_faults
from sage_sim.files import SUFFIXES, FileError, read_scenario
from sage_sim.payload import Payload
from sage_sim.presets import CAPACITY_BYTES, PRESETS, Preset
from sage_sim.request import MOST_PROCESSES, PROCESSES_AT_MOST, Request, adapted
from sage_sim.scenario import Scenario
from sage_sim.topology import PROCESSES_AT_MOST as MOST_OF_ALL
from sage_sim.topology import RAY_NODES_AT_MOST
from sage_sim.workloads import WordCount, WorkloadSettings

FAULTS_SECONDS = 5.0
"""How long a preset with faults runs when nobody says: long enough for them to strike."""
_CHOSEN = ("backend", "ray_nodes", "faults", "time_limit", "text")
F = TypeVar("F", bound=Callable[..., Any])
_PARTS = ("producers", "workers", "consumers")
_ORDER = (
    *("items", "duration", "warmup", "producers", "workers", "consumers", "rate", "window", "payload", "capacity"),
    *(*_CHOSEN, "max_procs", "max_mem"),
)


def _faults(_context: click.Context, _parameter: click.Parameter, text: str | None) -> Faults | None:
    """Parse faults as the user writes them."""
    try:
        return None if text is None else parse_faults(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


_SECONDS = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    click.option("--items", type=click.IntRange(min=1), help="Items to make, over all sources."),
    click.option(
        "--duration", type=_SECONDS, help="Seconds for which sources make items; alone, it replaces a number of items."
    ),
    click.option("--warmup", type=_SECONDS, help="Seconds at the beginning that rates and latencies leave out."),
    click.option("--producers", type=click.IntRange(1, MOST_OF_ALL), help="Processes that make items."),
    click.option("--workers", type=click.IntRange(1, MOST_OF_ALL), help="Processes in the middle."),
    click.option("--consumers", type=click.IntRange(1, MOST_OF_ALL), help="Processes where items end."),
    click.option("--rate", type=_SECONDS, help="Items per second, at planned moments, however slow the queues are."),
    click.option("--window", type=click.IntRange(min=1), help="Items of a source that may be under way."),
    click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Decides input order, payloads and faults."),
    click.option(
        "--payload", type=click.IntRange(0, 1 << 26), help="Bytes of an item, where those are made up. (default: 64)"
    ),
    click.option(
        "--capacity",
        type=click.IntRange(4096, 1 << 30),
        default=CAPACITY_BYTES,
        show_default=True,
        help="Bytes that each queue of a preset holds.",
    ),
    click.option("--backend", type=click.Choice(KINDS), help="The kind of all queues."),
    click.option(
        "--ray-nodes",
        type=click.IntRange(1, RAY_NODES_AT_MOST),
        help="Start a Ray cluster of the run's own, of so many nodes here. (default: join the one that is there)",
    ),
    click.option(
        "--faults",
        callback=_faults,
        metavar="FAULTS",
        help="What to break, as in `kill`, `kill:10,stop:2` (so many a second) or `kill@1.5=reader` (then, and whom).",
    ),
    click.option("--time-limit", type=_SECONDS, help="Seconds after which a run is called hung. (default: 600)"),
    click.option("--text", type=click.Path(exists=True, dir_okay=False), help="A text whose words are counted."),
    click.option(
        "--max-procs",
        type=click.IntRange(2, MOST_PROCESSES),
        default=PROCESSES_AT_MOST,
        show_default=True,
        help="Processes that are too many.",
    ),
    click.option(
        "--max-mem", type=click.IntRange(min=64), help="MiB of memory that are too much. (default: what is free)"
    ),
)


def run_options(function: F) -> F:
    """Add the options that say what to run."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def requested(context: click.Context, target: str, **options: Any) -> Request:
    """
    What the user asked for.

    Args:
        context: Of the verb; knows which options were given.
        target: Preset or topology file.
        **options: Those of `run_options`.

    Raises:
        click.UsageError: It does not fit together.
    """
    seed = secrets.randbits(32) if options["seed"] is None else options["seed"]
    scenario, seed = _scenario(target, seed, options)
    if _lasts_for_faults(target, scenario, options):
        options["duration"] = FAULTS_SECONDS  # and not as many items as a preset has, which may be through in no time
    names = ("items", "duration", "warmup", "rate", "window", "payload", *_CHOSEN)
    if options["payload"] is not None and scenario.workload == "word-count":
        raise click.UsageError(f"preset {target!r} has no --payload: its items are lines of a text")
    try:
        scenario = adapted(scenario, **{name: options[name] for name in names})
        if wrong := [text for _, text in scenario.problems()]:
            raise click.UsageError("; ".join(wrong))
        given = {
            f"--{name.replace('_', '-')}": _shown(options[name])
            for name in _ORDER
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        request = Request(
            target=target,
            scenario=scenario,
            seed=seed,
            options=given,
            most_processes=options["max_procs"],
            most_memory_bytes=None if options["max_mem"] is None else options["max_mem"] << 20,
        )
        request.plan()
        _check_text(scenario)
    except ValidationError as error:
        raise click.UsageError("; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())) from None
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return request


def _check_text(scenario: Scenario) -> None:
    """
    Make sure that a text can be counted.

    Raises:
        ValueError: It cannot be read, or has no line.
    """
    if scenario.text is not None:
        try:
            WordCount(WorkloadSettings(seed=0, payload=Payload(), text=scenario.text))
        except OSError as error:
            raise ValueError(f"{scenario.text}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{scenario.text}: this is no text in UTF-8") from None


def _lasts_for_faults(target: str, scenario: Scenario, options: dict[str, Any]) -> bool:
    """Whether faults decide how long a preset runs: there are some, and nobody said how much it has to do."""
    is_open = options["items"] is None and options["duration"] is None
    return target in PRESETS and scenario.runs_as != "job" and is_open and options["faults"] is not None


def _scenario(target: str, seed: int, options: dict[str, Any]) -> tuple[Scenario, int]:
    """From a preset or a file, with its seed."""
    if target in PRESETS or not target.endswith(SUFFIXES):
        return _from_preset(preset_named(target), seed, options), seed
    unfit = [f"--{part}" for part in (*_PARTS, "capacity") if options[part] not in (None, CAPACITY_BYTES)]
    if unfit:
        raise click.UsageError(f"{', '.join(unfit)}: a file says that itself")
    scenario = scenario_in(Path(target))
    return scenario, seed if scenario.seed is None or options["seed"] is not None else scenario.seed


def scenario_in(path: Path) -> Scenario:
    """The scenario in a file, for a verb that gives up when there is none."""
    try:
        return read_scenario(path)
    except FileError as error:
        raise click.UsageError(str(error)) from None
    except ImportError as error:
        give_up(str(error))
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{path}: this is no text in UTF-8") from None


def preset_named(name: str) -> Preset:
    """Look a preset up; a slip is answered with the name that was meant."""
    if name in PRESETS:
        return PRESETS[name]
    close = get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise click.UsageError(
        f"unknown preset {name!r}.{hint} Known are: {', '.join(PRESETS)}; a file ends in {', '.join(SUFFIXES)}."
    )


def _from_preset(preset: Preset, seed: int, options: dict[str, Any]) -> Scenario:
    counts = {part: options[part] for part in _PARTS if options[part] is not None}
    for part in counts:
        if part not in preset.counts:
            raise click.UsageError(f"preset {preset.name!r} has no --{part}")
    return preset.scenario(counts, capacity_bytes=options["capacity"], seed=seed)


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
