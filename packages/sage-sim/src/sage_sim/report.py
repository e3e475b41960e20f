"""What a person sees: the live view while a run goes on, and the tables at its end."""

from __future__ import annotations

import signal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sage_sim.accounts import Account
from sage_sim.checkers import Finding, Verdict
from sage_sim.outcome import Ending, Gauge, Snapshot
from sage_sim.plan import Plan
from sage_sim.results import Results
from sage_sim.topology import Role

PLAIN_LINE_SECONDS = 1.0
_ANY_WIDTH = 10_000
_STYLES = {Verdict.VALID: "green", Verdict.UNKNOWN: "yellow", Verdict.INVALID: "bold red"}
_WORDS = {Verdict.VALID: "ok", Verdict.UNKNOWN: "unknown", Verdict.INVALID: "FAILED"}


# -- While it runs ----------------------------------------------------------------------------------------------------


class QuietView:
    """Shows nothing."""

    def show(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class PlainView:
    """One line a second, for logs and screen readers."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._console = console
        self._plan = plan
        self._next = PLAIN_LINE_SECONDS

    def show(self, snapshot: Snapshot) -> None:
        """Print a line when one is due."""
        if snapshot.seconds < self._next:
            return
        self._next = snapshot.seconds + PLAIN_LINE_SECONDS
        queues = ", ".join(
            f"{name} {gauge.taken:,} taken {gauge.depth:,} queued" for name, gauge in snapshot.gauges.items()
        )
        kills = sum(snapshot.kills.values())
        others = snapshot.blows - kills
        rest = (f", {kills} killed" if kills else "") + (f", {others} other faults" if others > 0 else "")
        try:
            self._console.print(f"{snapshot.seconds:6.1f} s  {queues}{rest}", highlight=False)
        except BrokenPipeError:  # nobody reads any more: the run ends in good order, as if somebody had asked it to
            signal.raise_signal(signal.SIGTERM)

    def say(self, text: str) -> None:
        """Nothing: it takes a moment only."""


class LiveView:
    """A table that changes in place, one line for each role; gone at the end."""

    def __init__(self, console: Console, plan: Plan) -> None:
        self._plan = plan
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._before: Snapshot | None = None

    def __enter__(self) -> LiveView:
        self._live.start()
        self._live.update(Text(f"starting {self._plan.topology.processes} processes ...", style="dim"), refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw it anew."""
        self._live.update(Group(self._table(snapshot), self._bar(snapshot)), refresh=True)
        self._before = snapshot

    def say(self, text: str) -> None:
        """Show one line instead."""
        self._live.update(Text(text, style="dim"), refresh=True)

    def _table(self, now: Snapshot) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("role", min_width=9)
        for heading in ("alive", "items", "items/s", "queued", "waiting", "killed"):
            table.add_column(heading, justify="right", min_width=8, no_wrap=True)
        for role in self._plan.topology.roles:
            table.add_row(*self._row(role, now))
        return table

    def _row(self, role: Role, now: Snapshot) -> list[str]:
        """Of a source, what it put; of the others, what they took."""
        topology = self._plan.topology
        is_source = topology.is_source(role.name)
        edges = topology.outputs_of(role.name) if is_source else topology.inputs_of(role.name)
        gauges = [now.gauges[edge.name] for edge in edges]
        done = _done(gauges, is_source)
        before = self._before
        rate = waiting = ""
        if before is not None and now.seconds > before.seconds:
            passed, earlier = now.seconds - before.seconds, [before.gauges[edge.name] for edge in edges]
            rate = f"{(done - _done(earlier, is_source)) / passed:,.0f}"
            waited_ns = _waited(gauges, is_source) - _waited(earlier, is_source)
            waiting = f"{min(waited_ns / 1e9 / passed / role.count, 1):.0%}"
        return [
            role.name,
            f"{now.alive[role.name]}/{role.count}",
            f"{done:,}",
            rate,
            "" if is_source else f"{sum(gauge.depth for gauge in gauges):,}",
            waiting,
            f"{now.kills[role.name]:,}",
        ]

    def _bar(self, now: Snapshot) -> RenderableType:
        """How far the run is: by items or by time, whichever is nearer to its end."""
        shares = []
        if self._plan.items:
            topology = self._plan.topology
            ended = sum(now.gauges[edge.name].taken for edge in topology.edges if topology.is_exit(edge))
            arrivals = max(topology.arrivals(role.name) for role in topology.sources)
            shares.append(ended / self._plan.items / arrivals)
        if self._plan.duration_seconds:
            shares.append(now.seconds / self._plan.duration_seconds)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=1, completed=min(max(shares), 1), width=60), Text(f"{now.seconds:.1f} s", style="dim")
        )
        return grid


def _done(gauges: list[Gauge], is_source: bool) -> int:
    return sum(gauge.put if is_source else gauge.taken for gauge in gauges)


def _waited(gauges: list[Gauge], is_source: bool) -> int:
    return sum((gauge.put_waited_ns if is_source else gauge.get_waited_ns) or 0 for gauge in gauges)


# -- At the end -------------------------------------------------------------------------------------------------------


def show_results(console: Console, results: Results) -> None:
    """Print the tables, the checks and the verdict; the last line is the command that repeats the run."""
    console.print(Text(_headline(results), style="bold"))
    for table in (*_queue_tables(console, results), _role_table(results), _check_table(results)):
        console.print()
        console.print(table)
    console.print()
    if results.outcome.trouble:
        console.print(Text(results.outcome.trouble.rstrip(), style="red"), soft_wrap=True)
        console.print()
    show_verdict(console, results)


def show_verdict(console: Console, results: Results) -> None:
    """Print the verdict, the place of the history, and the command that repeats the run."""
    style = _STYLES[results.verdict]
    ending = "" if results.outcome.ending is Ending.COMPLETE else f" ({results.outcome.ending.value})"
    console.print(f"verdict  [{style}]{results.verdict.value}[/]{ending}")
    console.print(Text(f"history  {results.folder}"), soft_wrap=True)
    console.print(Text(f"repeat   {results.command}"), soft_wrap=True)


_SPEED = ("items", "items/s", "p50", "p99", "p99.9")
_BOOKS = ("lost", "doubled", "reordered", "redelivered")


def _queue_tables(console: Console, results: Results) -> list[Table]:
    """Speed and books of each queue, side by side where that fits."""
    whole = _queue_table(results, (*_SPEED, *_BOOKS))
    if whole.__rich_measure__(console, console.options.update(width=_ANY_WIDTH)).maximum <= console.width:
        return [whole]
    return [_queue_table(results, _SPEED), _queue_table(results, ("items", *_BOOKS))]


def _queue_table(results: Results, headings: tuple[str, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("queue", min_width=8)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, account in results.queues.items():
        cells = _cells(results, account, results.waits_ns[name])
        table.add_row(name, *(cells[heading] for heading in headings))
    table.add_section()
    cells = _cells(results, results.items, results.latency_ns) | {"reordered": ""}
    table.add_row("total", *(cells[heading] for heading in headings))
    return table


def _cells(results: Results, account: Account, waits_ns: dict[str, int | None]) -> dict[str, str]:
    """What a row may show, by heading."""
    return {
        "items": f"{account.taken:,}",
        "items/s": f"{account.rate:,.0f}",
        "p50": _duration(waits_ns["p50"]),
        "p99": _duration(waits_ns["p99"]),
        "p99.9": _duration(waits_ns["p999"]),
        "lost": _count(account.missing) if results.outcome.ending is Ending.COMPLETE else "?",
        "doubled": _count(account.duplicated),
        "reordered": _count(account.reordered),
        "redelivered": f"{account.redelivered:,}",
    }


def _headline(results: Results) -> str:
    plan, outcome = results.plan, results.outcome
    broken = f", faults {results.faults}" if results.faults is not None else ""
    size = f"{plan.topology.processes:,} processes, {plan.topology.queues:,} queues"
    backlog = f", backlog of {outcome.backlog:,}" if outcome.backlog else ""
    return f"{plan.topology.name}: {size}, {outcome.seconds:.1f} s, seed {plan.seed}{backlog}{broken}"


def _role_table(results: Results) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("role")
    for heading in ("processes", "killed", "CPU s", "CPU us/item", "waited for items", "waited for room"):
        table.add_column(heading, justify="right")
    topology, seconds = results.plan.topology, results.outcome.seconds
    gauges = results.outcome.gauges
    for role in topology.roles:
        inputs, outputs = topology.inputs_of(role.name), topology.outputs_of(role.name)
        cpu = results.outcome.cpu_seconds[role.name]
        edges = outputs[:1] if topology.is_source(role.name) else inputs
        done = sum(results.queues[edge.name].taken for edge in edges)
        room = _waited([gauges[output.name] for output in outputs], True) / 1e9
        items = _waited([gauges[source.name] for source in inputs], False) / 1e9
        table.add_row(
            role.name,
            f"{role.count:,}",
            f"{results.deaths[role.name]:,}",
            f"{cpu:.2f}",
            f"{cpu / done * 1e6:.1f}" if done else "",
            _share(items, seconds * role.count) if inputs else "",
            _share(room, seconds * role.count) if outputs else "",
        )
    return table


def _check_table(results: Results) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2))
    table.add_column("check", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("figures")
    for finding in results.findings:
        style = _STYLES[finding.verdict]
        table.add_row(finding.check, f"[{style}]{_WORDS[finding.verdict]}[/]", escape(_told(finding)))
    return table


def _told(finding: Finding) -> str:
    return "\n".join((finding.sentence, *(f"  {example}" for example in finding.examples)))


def _count(number: int) -> str:
    return f"[bold red]{number:,}[/]" if number else "0"


def _share(part: float, whole: float) -> str:
    return f"{min(part / whole, 1):.0%}" if whole else ""


def _duration(nanoseconds: int | None) -> str:
    """Three digits and a unit."""
    if nanoseconds is None:
        return "-"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds} ns"
