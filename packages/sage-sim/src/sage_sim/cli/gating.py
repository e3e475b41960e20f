"""Verbs about changes: `gate` says whether one is slower than its base, `baseline` keeps one to compare with."""

from __future__ import annotations

import json
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage_sim.cli.output import give_up, terminal
from sage_sim.files import FileError
from sage_sim.folder import RunFolder
from sage_sim.gate.baselines import Baseline, BaselineError, Baselines
from sage_sim.gate.benchmarks import BENCHMARKS
from sage_sim.gate.findings import Finding, exit_code
from sage_sim.gate.gating import LAYERS, Order, Verdict, gate, middle_ns
from sage_sim.gate.rounds import Ending
from sage_sim.gate.rules import Rules, pinned_in, read_rules
from sage_sim.gate.sides import HungError, SideError
from sage_sim.gate.wheels import GATES, BuildError, Checkout, UnknownRevisionError, Wheel
from sage_sim.nurse import SetupError
from sage_sim.results import ExitCode

_STYLES = {
    Ending.PASS: "green",
    Ending.REGRESSION: "bold red",
    Ending.INCONCLUSIVE: "yellow",
    Ending.CANNOT: "magenta",
    Ending.LEFT_OUT: "dim",
}


class Sources:
    """Finds wheels, baselines and revisions; the checkout is looked for when it is first needed."""

    def __init__(self) -> None:
        self._checkout: Checkout | None = None

    @property
    def checkout(self) -> Checkout:
        """Around the working folder."""
        if self._checkout is None:
            self._checkout = Checkout(Path())
        return self._checkout

    def wheel(self, given: str | None, otherwise: str | None) -> Wheel:
        """What is named; else that revision, or the working tree."""
        if given is None:
            return self.checkout.wheel(otherwise)
        if given.endswith(".whl"):
            if not Path(given).is_file():
                raise click.UsageError(f"there is no wheel {given}")
            return Wheel.given(Path(given))
        if (kept := Baselines().find(given)) is not None:
            return kept.wheel
        return self.checkout.wheel(self.checkout.revision(given))

    def rules(self, path: Path | None) -> Rules:
        """From the file that is named, else from that of the checkout."""
        path = path or self.checkout.root / GATES
        try:
            return read_rules(path, set(BENCHMARKS))
        except FileError as error:
            raise click.UsageError(str(error)) from None
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{path}: {error}") from None

    def pinned_by(self, base: Wheel) -> frozenset[str]:
        """Names that the base pins; none where it is a wheel and its sources are not here."""
        text = None if base.commit is None else self.checkout.text(base.commit, GATES)
        return frozenset(pinned_in(text or ""))


@click.command("gate")
@click.option(
    "--base",
    metavar="WHEEL|REVISION|BASELINE",
    help="What to compare with. (default: the merge base with the main branch)",
)
@click.option("--head", metavar="WHEEL|REVISION|BASELINE", help="What is compared. (default: the working tree)")
@click.option(
    "--gates",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File with what a change may cost. (default: {GATES} of the checkout)",
)
@click.option(
    "--layer", "layers", multiple=True, type=click.Choice(LAYERS), help="A layer to do; again for more. (default: all)"
)
@click.option("--short/--full", "is_short", default=False, help="Fewer rounds, counts, times and peers.")
@click.option(
    "--lenient", is_flag=True, help="Exit code 0, too, where nobody can tell (4), or this machine cannot (5)."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Decides the order of sides, and the bootstrap.")
@click.option(
    "--time-limit",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds in which rounds for times begin. (default: 300; 80 with --short)",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the record; new or empty.")
@click.option(
    "--benchmark-json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for pytest-benchmark's form, of head.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON and nothing else.")
@click.option("--quiet", is_flag=True, help="Print the verdict only.")
@click.pass_context
def gate_verb(
    context: click.RichContext,
    /,
    base: str | None,
    head: str | None,
    gates: Path | None,
    layers: tuple[str, ...],
    is_short: bool,
    lenient: bool,
    seed: int | None,
    seconds: float | None,
    out: Path | None,
    benchmark_json: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """
    Say whether a change is slower than what it is based on.

    Both are built as wheels and measured in turn, in rounds of new processes, until a bootstrap interval decides.
    Instructions, allocations, copied bytes and system calls are counted, which no load disturbs. Base is also compared
    with itself: where that is not one, nobody can tell.

    \b
    Examples:
      sage-sim gate
      sage-sim gate --base v0.1.0 --layer time
      sage-sim gate --base old.whl --head new.whl --gates gates.toml
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    console = terminal()
    with gate_endings(lenient=lenient):
        sources = Sources()
        rules = sources.rules(gates)
        revision = sources.checkout.base() if base is None else None
        order = Order(
            rules=rules,
            base=(compared := sources.wheel(base, revision)),
            head=sources.wheel(head, None),
            pinned_before=sources.pinned_by(compared),
            seed=secrets.randbits(32) if seed is None else seed,
            layers=layers or LAYERS,
            is_short=is_short,
            seconds=seconds,
        )
        folder = folder_for(out, "gate", order.seed)
        verdict = gate(order, folder, _saying(is_silent=as_json or quiet))
    if benchmark_json is not None:
        write_to(benchmark_json, (folder.path / "head.json").read_text(encoding="utf-8"))
    if as_json:
        print(json.dumps(verdict.fields, indent=1))
    else:
        if not quiet:
            show_findings(console, verdict)
        _show_verdict(console, verdict, folder)
        console.print(Text(f"again    {again(context, order)}"), soft_wrap=True)
    sys.exit(exit_code(verdict.findings, lenient=lenient))


@contextmanager
def gate_endings(*, lenient: bool = False) -> Iterator[None]:
    """What only a gate can end with; `lenient` as in `exit_code`."""
    try:
        yield
    except SetupError as error:
        if not lenient or isinstance(error, BuildError):
            raise
        click.echo(f"sage-sim: nothing was measured: {error}", err=True)
        sys.exit(ExitCode.PASS)
    except (UnknownRevisionError, BaselineError) as error:
        raise click.UsageError(str(error)) from None
    except HungError as error:
        click.echo(f"sage-sim: {error}", err=True)
        sys.exit(ExitCode.HANG)


def folder_for(out: Path | None, what: str, seed: int) -> RunFolder:
    """
    The folder of a run.

    Raises:
        SetupError: It cannot be made.
    """
    try:
        return RunFolder(out, preset=what, seed=seed)
    except FileExistsError as error:
        raise click.UsageError(str(error)) from None
    except OSError as error:
        raise SetupError(f"the folder for the run cannot be made: {error}") from error


def write_to(path: Path, text: str) -> None:
    """Write a file that the user named; one that is there is replaced."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        give_up(f"{path} cannot be written: {error.strerror}")


def show_findings(console: Console, verdict: Verdict) -> None:
    """Every finding in a line, a part for each layer; what is no pass says why in a second one."""
    width, layer = max(len(finding.name) for finding in verdict.findings), None
    for finding in verdict.findings:
        if finding.layer != layer:
            console.print(Text(finding.layer, style="bold"))
        layer, style = finding.layer, _STYLES[finding.ending]
        ending = Text(f"{finding.ending.value:13}", style=style)
        line = Text.assemble("  ", ending, f"{finding.name:{width}}  ", figures_of(finding, verdict.fields))
        console.print(line, soft_wrap=True)
        if finding.ending is not Ending.PASS:
            console.print(Text(f"{'':15}{finding.why}", style=style), soft_wrap=True)


def figures_of(finding: Finding, fields: dict[str, Any]) -> str:
    """The figures of a finding, base before head; what a pass says where it has none."""
    head, base = finding.figures.get("head"), finding.figures.get("base")
    if finding.layer == "time":
        before, after = (middle_ns(fields, side, finding.name) for side in ("base", "head"))
        if before is None or after is None or head is None:
            return ""
        return f"{before:,.0f} -> {after:,.0f} ns  {head.ratio:.3f} ({head.low:.3f} .. {head.high:.3f})"
    if head is None:
        return finding.why if finding.ending is Ending.PASS else ""
    return f"{head:,.6g}" if base is None else f"{base:,.6g} -> {head:,.6g}"


def _show_verdict(console: Console, verdict: Verdict, folder: RunFolder) -> None:
    count = {ending: sum(one.ending is ending for one in verdict.findings) for ending in Ending}
    told = ", ".join(f"{number} {ending.value}" for ending, number in count.items() if number)
    console.print(Text(f"verdict  {verdict.ending.value}", style=_STYLES[verdict.ending]), f"({told})")
    console.print(Text(f"folder   {folder.path}"), soft_wrap=True)


def again(context: click.Context, order: Order) -> str:
    """The command that repeats a gate: as it was given, with base and seed, and a folder of its own."""
    words = ["sage-sim", "gate"]
    for option in context.command.params:
        name = option.name or ""
        if name in ("out", "seed", "base") or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(option, click.Option) and option.is_flag:
            words.append(option.opts[0] if value else option.secondary_opts[0])
        else:
            words += [word for one in _each(value) for word in (option.opts[0], str(one))]
    base = context.params["base"] or (order.base.commit or "")[:12]
    return shlex.join([*words, "--base", base, "--seed", str(order.seed)])


def _each(value: Any) -> tuple[Any, ...]:
    """What was given, as often as it was."""
    return value if isinstance(value, tuple) else (value,)


@click.command("baseline")
@click.argument("name", required=False)
@click.option(
    "--of", "what", metavar="WHEEL|REVISION", help="Keep this under NAME, with what it takes. (default: only look)"
)
@click.option("--again", is_flag=True, help="Replace the one of that name.")
@click.option(
    "--gates",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File that names the benchmarks. (default: {GATES} of the checkout)",
)
@click.option(
    "--benchmark-json",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File for its record, in pytest-benchmark's form.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the record, or the list, as JSON and nothing else.")
def baseline(
    name: str | None,
    what: str | None,
    again: bool,
    gates: Path | None,
    benchmark_json: Path | None,
    as_json: bool,
) -> None:
    """
    Keep a wheel to compare with, and what it took when it was kept; or show one, or list all.

    `sage-sim gate --base NAME` compares with it: with its wheel, measured again. The figures of its record are of
    another run, so they are for people to look at.

    \b
    Examples:
      sage-sim baseline
      sage-sim baseline before-the-change --of HEAD
      sage-sim baseline before-the-change
    """  # noqa: D301  (as above)
    kept = Baselines()
    if name is None:
        if what is not None or benchmark_json is not None:
            raise click.UsageError("a baseline that is kept or written needs a NAME")
        return _list(kept.all(), as_json=as_json)
    with gate_endings():
        if what is not None:
            sources = Sources()
            rules = sources.rules(gates)
            kept.check(name, replace=again)
            names = [one.name for one in rules.benchmarks if one.name in BENCHMARKS]
            try:
                kept.record(name, sources.wheel(what, None), names, _saying(is_silent=as_json), replace=again)
            except SideError as error:
                raise SetupError(f"{what} cannot be measured: {error}") from error
        found = kept.find(name)
        if found is None:
            raise BaselineError(
                f"no baseline {name!r}; known are: {', '.join(one.name for one in kept.all()) or 'none'}"
            )
    record = json.dumps(found.record, indent=1)
    if benchmark_json is not None:
        write_to(benchmark_json, record + "\n")
    if as_json:
        print(record)
    else:
        _show(found)
    return None


def _saying(*, is_silent: bool) -> Callable[[str], None]:
    """Prints what is done."""
    console = terminal()
    return lambda text: None if is_silent else console.print(Text(text, style="dim"), soft_wrap=True)


def _list(found: list[Baseline], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([one.told() for one in found], indent=1))
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "of", "sources", "kept"):
        table.add_column(heading)
    for one in found:
        table.add_row(*(Text(str(one.told()[key])) for key in ("name", "of", "sources", "kept")))
    terminal().print(table if found else "none is kept; sage-sim baseline NAME --of REVISION")


def _show(found: Baseline) -> None:
    console, table = terminal(), Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("benchmark", "median", "lowest", "highest"):
        table.add_column(heading, justify="left" if heading == "benchmark" else "right")
    for one in found.record["benchmarks"]:
        stats = one["stats"]
        table.add_row(Text(one["name"]), *(f"{stats[key] * 1e9:,.0f} ns" for key in ("median", "min", "max")))
    console.print(table)
    for key, value in found.told().items():
        console.print(Text(f"{key:9}{value}"), soft_wrap=True)
