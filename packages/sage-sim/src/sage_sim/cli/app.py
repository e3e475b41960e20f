"""The command line: ``sage-sim``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from rich.table import Table
from rich.text import Text

import sage_sim
from sage_sim.channels import remove_leftovers
from sage_sim.cli.gating import baseline, gate_verb
from sage_sim.cli.ledger import ledger
from sage_sim.cli.machines import doctor, plan
from sage_sim.cli.options import requested, run_options
from sage_sim.cli.output import EXIT_CODES, Verbs, run_verb, terminal
from sage_sim.cli.predicting import calibrate_verb, predict
from sage_sim.cli.records import output_options, replay, report, write_outputs
from sage_sim.cli.running import Shown, told
from sage_sim.cli.top import top
from sage_sim.cli.topologies import new, schema, validate
from sage_sim.cli.trials import compare, fuzz, search_rate, shrink, soak
from sage_sim.folder import remove_passed
from sage_sim.gate.baselines import Baselines
from sage_sim.presets import PRESETS

click.rich_click.TEXT_MARKUP = "rich"
click.rich_click.WIDTH = None
click.rich_click.COMMAND_GROUPS = {
    "sage-sim": [
        {"name": "Run", "commands": ["run", "plan", "presets", "new", "validate", "schema"]},
        {"name": "Run many", "commands": ["compare", "search-rate", "fuzz", "shrink", "soak"]},
        {"name": "Look", "commands": ["top", "report", "replay"]},
        {"name": "Forecast", "commands": ["calibrate", "predict"]},
        {"name": "Guard", "commands": ["gate", "baseline", "ledger"]},
        {"name": "Keep in order", "commands": ["doctor", "clean"]},
    ]
}
click.rich_click.OPTION_GROUPS = {
    "sage-sim run": [
        {
            "name": "How much",
            "options": ["--items", "--duration", "--warmup", "--producers", "--workers", "--consumers"],
        },
        {"name": "How fast", "options": ["--rate", "--window"]},
        {"name": "Bounds", "options": ["--time-limit", "--max-procs", "--max-mem"]},
        {
            "name": "What",
            "options": [
                *("--backend", "--ray-nodes", "--seed", "--payload", "--capacity", "--text", "--faults"),
            ],
        },
        {
            "name": "Output",
            "options": [
                "--out",
                "--keep",
                "--json",
                "--html",
                "--junit",
                "--markdown",
                "--plain",
                "--tui",
                "--quiet",
                "--help",
            ],
        },
    ]
}


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]}, epilog=f"Exit codes: {EXIT_CODES}")
@click.version_option(sage_sim.__version__, prog_name="sage-sim")
def main() -> None:
    """
    Run real processes over real queues, kill some if asked, and account for every item.

    \b
    Start here:
      sage-sim run pipeline                  count words with seven processes
      sage-sim run pipeline --faults kill    the same, while some are killed
      sage-sim run fan-in --duration 10      what fits into ten seconds
      sage-sim presets                       what can be run
      sage-sim new fan-in mine.toml          a file of your own, to be changed
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)


@main.command()
@click.argument("target", metavar="PRESET|FILE")
@run_options
@click.option(
    "--out",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for history and results; new or empty. (default: one in sage-sim-runs)",
)
@click.option("--keep", is_flag=True, help="Keep the raw logs of all processes, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON and nothing else.")
@click.option("--plain/--tui", default=None, help="Lines, or a live table; a table where there is a terminal.")
@click.option("--quiet", is_flag=True, help="Print the verdict only.")
@output_options
@click.pass_context
def run(
    context: click.RichContext,
    /,
    target: str,
    out: Path | None,
    keep: bool,
    as_json: bool,
    plain: bool | None,
    quiet: bool,
    html: Path | None,
    junit: Path | None,
    markdown: Path | None,
    **options: Any,
) -> None:
    """
    Run a preset, or what a topology file says.

    With neither --items nor --duration a preset ends in seconds. With both, it ends at whichever comes first.

    \b
    Examples:
      sage-sim run pipeline
      sage-sim run pipeline --faults kill:10 --duration 5
      sage-sim run fan-in --producers 8 --payload 1024 --seed 7
      sage-sim run service --backend rpc_queue --faults cut:1
      sage-sim run orders.toml --rate 2000 --duration 5 --json | jq .verdict
    """  # noqa: D301  (as above)
    request = requested(context, target, **options)
    shown = Shown(as_json=as_json, plain=plain, quiet=quiet, keep=keep)
    fields, code = told(request, out, shown)
    write_outputs(fields, html=html, junit=junit, markdown=markdown)
    sys.exit(code)


@main.command()
def presets() -> None:
    """List what can be run, with the default number of processes of each part."""
    table = Table(box=None, pad_edge=False)
    for heading in ("preset", "what it is", "processes", "items"):
        table.add_column(heading, no_wrap=heading in ("preset", "items"))
    for preset in PRESETS.values():
        counts = " ".join(f"--{option} {count}" for option, count in preset.counts.items())
        table.add_row(preset.name, preset.summary, counts, f"{preset.items:,}")
    terminal().print(table)


@main.command()
def clean() -> None:
    """
    Remove what killed runs left in shared memory and temporary folders; runs that go on are not touched.

    What is left of a baseline that was being made goes, too, if it is one of this folder.
    """
    console = terminal()
    removed = [*remove_leftovers(), *remove_passed(), *Baselines().remove_unfinished()]
    for path in removed:
        console.print(Text(f"removed {path}"), soft_wrap=True)
    console.print(f"{len(removed)} leftovers removed")


for verb in (
    plan,
    compare,
    search_rate,
    report,
    replay,
    shrink,
    fuzz,
    soak,
    validate,
    schema,
    new,
    gate_verb,
    baseline,
    calibrate_verb,
    predict,
    doctor,
    ledger,
    top,
):
    main.add_command(verb)


def run_program(arguments: Sequence[str] | None = None) -> int:
    """
    Run a verb and return the exit code of the program.

    Args:
        arguments: The words after ``sage-sim``; None for those of this process.
    """
    return run_verb(main, arguments)
