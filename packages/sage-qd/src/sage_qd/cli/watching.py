"""Watch the queues: ``top``."""

import rich_click as click
from rich.console import Console

from sage_qd.cli.endings import EXIT_CODES
from sage_qd.cli.job_watching import job_name, show_job, two_looks_at_job
from sage_qd.cli.listing import namespace_option, two_looks
from sage_qd.cli.output import as_json_option, duration, number, plain, print_json, quantity, table, terminal
from sage_qd.errors import BackendUnavailableError
from sage_qd.monitor import Sample
from sage_qd.monitor.rates import SCHEMA

__all__ = ["COLUMNS", "row_of", "top"]

COLUMNS = ("queue", "depth", "leased", "put/s", "get/s", "B/s", "puts blocked", "gets blocked", "oldest")
"""Blocked: how many threads waited on that side, on average since the look before."""


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@namespace_option
@click.option("--job", metavar="NAME", shell_complete=job_name, help="Watch the tasks of this job instead.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, an interval apart, print that, and end.")
@as_json_option
def top(namespace: str | None, job: str | None, interval: float, once: bool, as_json: bool) -> None:
    """
    Watch all queues live: depth, rates, who is blocked, and the consumer that holds the others up.

    With --job it watches the tasks of a dataflow job whose driver runs on this machine: packets in and out, how full
    the queue of each is, and the slow task. Where several jobs have the name, the error says by which ids to tell them
    apart.

    Keys: q quits, p pauses, d sorts by depth, n by name, r by rate, w as packets go. The live view needs the extra top;
    --once does not.

    \b
    Examples:
      sage-qd top
      sage-qd top --namespace team --interval 0.5
      sage-qd top --once --json | jq '.queues[].slow_consumers[]'
      sage-qd top --job words
      sage-qd top --job words --once --json | jq '.tasks | map_values(.rate_in)'
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    if as_json and not once:
        raise click.UsageError("--json needs --once")
    if job is not None and namespace is not None:
        raise click.UsageError("--job has queues of its own: give it without --namespace")
    if once and job is not None:
        sample = two_looks_at_job(job, interval)
        if as_json:
            print_json(sample.as_dict())
        else:
            show_job(terminal(), sample)
        return
    if once:
        samples = two_looks(namespace, interval)
        if as_json:
            print_json({"schema": SCHEMA, "queues": [each.as_dict() for each in samples]})
        else:
            _show(terminal(), samples)
        return
    try:
        from sage_qd.cli.screen import JobScreen, TopScreen
    except ImportError as error:
        raise BackendUnavailableError(
            backend="the live view", missing=str(error.name), install="pip install 'sage-qd[top]', or use --once"
        ) from error
    if job is None:
        TopScreen(namespace, interval).follow()
    else:
        JobScreen(job, interval).follow()


def row_of(sample: Sample) -> list[str]:
    """The cells of one queue, in the order of COLUMNS."""
    figures = sample.state.figures
    if figures is None:
        return [sample.state.name, *["-"] * (len(COLUMNS) - 1)]
    return [
        sample.state.name,
        number(figures.depth),
        number(figures.leased),
        quantity(sample.puts_per_second),
        quantity(sample.gets_per_second),
        quantity(sample.bytes_per_second),
        f"{sample.blocked_producers:.1f}",
        f"{sample.blocked_consumers:.1f}",
        duration(figures.oldest_age_ns or None),
    ]


def _show(console: Console, samples: list[Sample]) -> None:
    if not samples:
        console.print("no queues")
        return
    shown = table(*COLUMNS, right=COLUMNS[1:], wrapped=("queue",))
    for sample in samples:
        shown.add_row(*map(plain, row_of(sample)))
    console.print(shown)
    for sample in samples:
        for slow in sample.slow:
            console.print(plain(f"{sample.state.name}: {slow}"), style="red", soft_wrap=True)
        if sample.state.problem:
            console.print(plain(f"{sample.state.name}: {sample.state.problem}"), soft_wrap=True)
