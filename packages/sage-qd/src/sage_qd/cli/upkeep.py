"""Keep the machine in order: ``doctor``, ``clean``."""

import sys
from functools import partial

import rich_click as click
from rich.text import Text

from sage_qd.cli.endings import EXIT_CODES, ExitCode
from sage_qd.cli.listing import namespace_option
from sage_qd.cli.output import as_json_option, plain, print_json, table, terminal
from sage_qd.descriptors.ray import clean_ray
from sage_qd.monitor import clean_host, queue_states
from sage_qd.monitor.checks import SCHEMA, Level, checked_machine

__all__ = ["clean", "doctor"]

CLEAN_SCHEMA = "sage-qd.clean/1"
STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@as_json_option
def doctor(as_json: bool) -> int:
    """
    Check whether this machine is fit for queues between processes.

    Each line is ok, warn or fail, and says what to do. The exit code is 1 when one fails. Nothing is changed.

    \b
    Examples:
      sage-qd doctor
      sage-qd doctor --json | jq '.checks[] | select(.level != "ok")'
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    checks = checked_machine()
    if as_json:
        print_json({"schema": SCHEMA, "checks": [check.as_dict() for check in checks]})
    else:
        shown = table("", "check", "found", wrapped=("found",))
        for check in checks:
            shown.add_row(Text(check.level, STYLES[check.level]), check.name, plain(check.found))
            if check.advice:
                shown.add_row("", "", plain(f"→ {check.advice}"))
        terminal().print(shown)
    return ExitCode.FOUND if any(check.level is Level.FAIL for check in checks) else ExitCode.FINE


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@namespace_option
@click.option("--kept", is_flag=True, help="Also remove queues that were made to stay, with their messages.")
@click.option("--ray", metavar="ADDRESS", help="Clean this Ray cluster instead: 'auto', or HOST:PORT of its head.")
@click.option("--dry-run", is_flag=True, help="Remove nothing; say what would be.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
def clean(namespace: str | None, kept: bool, ray: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """
    Remove the queues that nobody uses, and what is left of large messages and of jobs.

    These are queues whose users were all killed. Their messages go with them: open a queue first if they matter. Queues
    in use are never touched. Queues that were made to stay (auto_cleanup=False) are spared without --kept, and so are
    queues that were moved, while their successor is there: their name leads to it. Queues of kind shm_queue have no
    namespace, so --namespace leaves them alone; likewise the files of jobs of which no process is left.

    With --ray it ends the queues of that cluster which nobody has open; those that hold messages only with --kept.

    \b
    Examples:
      sage-qd clean --dry-run
      sage-qd clean --yes
      sage-qd clean --namespace tests --kept --yes
      sage-qd clean --ray auto --dry-run
    """  # noqa: D301  (as above)
    spared: list[str] = []
    if ray is None:
        what, cleaned = "files", partial(_cleaned, namespace, kept=kept)
    else:
        what, cleaned = "queues", partial(clean_ray, namespace, discard=kept, address=ray)
    would = cleaned(dry_run=True)
    if ray is None and not kept:
        states = queue_states(namespace)
        spared = [state.name for state in states if state.in_use is False and state.where not in would]
    console = terminal()
    removed: list[str] = []
    if would and not dry_run:
        if not yes and not as_json:
            for path in would:
                console.print(plain(path), soft_wrap=True)
        if not yes and not sys.stdin.isatty():
            raise click.UsageError(f"{len(would)} {what} would be removed and nobody can be asked here: say --yes")
        if not yes:
            click.confirm(f"Remove {len(would)} {what}?", abort=True, err=True)
        removed = cleaned(dry_run=False)
    if as_json:
        print_json(
            {"schema": CLEAN_SCHEMA, "dry_run": dry_run, "removed": would if dry_run else removed, "kept": spared}
        )
        return
    for path in would if dry_run else removed:
        console.print(plain(f"{'would remove' if dry_run else 'removed'} {path}"), soft_wrap=True)
    console.print(f"{len(would if dry_run else removed)} {what} {'would be ' if dry_run else ''}removed")
    if spared:
        console.print(plain(f"{len(spared)} kept on purpose: {', '.join(spared)}; --kept removes them"), soft_wrap=True)


def _cleaned(namespace: str | None, *, kept: bool, dry_run: bool) -> list[str]:
    """Clean queues, and jobs where no namespace is named; the paths."""
    from sage_qd.runtime.board import clean_boards  # the runtime takes a while to import, and other verbs need none

    jobs = clean_boards(dry_run=dry_run) if namespace is None else []
    return clean_host(namespace, kept=kept, dry_run=dry_run) + jobs
