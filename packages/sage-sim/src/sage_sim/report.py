"""What a person sees: the live view while a run goes on, and the tables at its end."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sage_sim.checkers import Finding, Verdict
from sage_sim.conductor import Ending, Snapshot
from sage_sim.plan import Plan
from sage_sim.results import Results
from sage_sim.topology import Role

PLAIN_LINE_SECONDS = 1.0
_STYLES = {Verdict.VALID: "green", Verdict.UNKNOWN: "yellow", Verdict.INVALID: "bold red"}
_WORDS = {Verdict.VALID: "ok", Verdict.UNKNOWN: "unknown", Verdict.INVALID: "FAILED"}


# -- While it runs ----------------------------------------------------------------------------------------------------


class QuietView:
    """Shows nothing."""

    def show(self, snapshot: Snapshot) -> None:
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
        self._console.print(
            f"{snapshot.seconds:6.1f} s  {queues}" + (f", {kills} killed" if kills else ""), highlight=False
        )


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
        table.add_column("role")
        for heading in ("alive", "items", "items/s", "queued", "waiting", "killed"):
            table.add_column(heading, justify="right", min_width=9)
        for role in self._plan.topology.roles:
            table.add_row(*self._row(role, now))
        return table

    def _row(self, role: Role, now: Snapshot) -> list[str]:
        """Of a source, what it put; of the others, what they took."""
        topology = self._plan.topology
        source = topology.input_of(role.name)
        edge = source or topology.outputs_of(role.name)[0]
        gauge = now.gauges[edge.name]
        done = gauge.put if source is None else gauge.taken
        before = self._before
        rate = waiting = ""
        if before is not None and now.seconds > before.seconds:
            passed, earlier = now.seconds - before.seconds, before.gauges[edge.name]
            rate = f"{(done - (earlier.put if source is None else earlier.taken)) / passed:,.0f}"
            waited_ns = (
                gauge.put_waited_ns - earlier.put_waited_ns
                if source is None
                else gauge.get_waited_ns - earlier.get_waited_ns
            )
            waiting = f"{min(waited_ns / 1e9 / passed / role.count, 1):.0%}"
        return [
            role.name,
            f"{now.alive[role.name]}/{role.count}",
            f"{done:,}",
            rate,
            "" if source is None else f"{gauge.depth:,}",
            waiting,
            f"{now.kills[role.name]:,}",
        ]

    def _bar(self, now: Snapshot) -> RenderableType:
        """How far the run is: by items or by time, whichever is nearer to its end."""
        shares = []
        if self._plan.items:
            sinks = [self._plan.topology.input_of(role.name) for role in self._plan.topology.sinks]
            shares.append(min(now.gauges[edge.name].taken for edge in sinks if edge) / self._plan.items)
        if self._plan.duration_seconds:
            shares.append(now.seconds / self._plan.duration_seconds)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=1, completed=min(max(shares), 1), width=60), Text(f"{now.seconds:.1f} s", style="dim")
        )
        return grid


# -- At the end -------------------------------------------------------------------------------------------------------


def show_results(console: Console, results: Results) -> None:
    """Print the tables, the checks and the verdict; the last line is the command that repeats the run."""
    console.print(Text(_headline(results), style="bold"))
    for table in (_queue_table(results), _role_table(results), _check_table(results)):
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


def _queue_table(results: Results) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("queue")
    for heading in ("items", "items/s", "p50", "p99", "p99.9", "lost", "doubled", "reordered", "redelivered"):
        table.add_column(heading, justify="right", no_wrap=True)
    drained = results.outcome.ending is Ending.COMPLETE
    for figures in results.outcome.queues:
        account = results.queues[figures.name]
        table.add_row(
            figures.name,
            f"{account.taken:,}",
            f"{account.rate:,.0f}",
            *(_duration(figures.latency_ns[label]) for label in ("p50", "p99", "p999")),
            _count(account.missing) if drained else "?",
            _count(account.duplicated),
            _count(account.reordered),
            f"{account.redelivered:,}",
        )
    account = results.items
    table.add_section()
    table.add_row(
        "total",
        f"{account.taken:,}",
        f"{account.rate:,.0f}",
        "",
        "",
        "",
        _count(account.missing) if drained else "?",
        _count(account.duplicated),
        "",
        f"{account.redelivered:,}",
    )
    return table


def _headline(results: Results) -> str:
    plan, outcome = results.plan, results.outcome
    broken = f", faults {results.faults}" if results.faults is not None else ""
    return (
        f"{plan.topology.name}: {plan.topology.processes} processes, {outcome.seconds:.1f} s, seed {plan.seed}{broken}"
    )


def _role_table(results: Results) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("role")
    for heading in ("processes", "killed", "CPU s", "CPU us/item", "waited for items", "waited for room"):
        table.add_column(heading, justify="right")
    topology, seconds = results.plan.topology, results.outcome.seconds
    gauges = {figures.name: figures.gauge for figures in results.outcome.queues}
    for role in topology.roles:
        source, outputs = topology.input_of(role.name), topology.outputs_of(role.name)
        cpu = results.outcome.cpu_seconds[role.name]
        edge = source or outputs[0]
        done = results.queues[edge.name].taken
        room = sum(gauges[output.name].put_waited_ns for output in outputs) / 1e9
        table.add_row(
            role.name,
            f"{role.count:,}",
            f"{results.deaths[role.name]:,}",
            f"{cpu:.2f}",
            f"{cpu / done * 1e6:.1f}" if done else "",
            "" if source is None else _share(gauges[source.name].get_waited_ns / 1e9, seconds * role.count),
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
