"""``sage-compat report`` and ``sage-compat fix``."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from difflib import unified_diff
from enum import IntEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import rich_click as click
from rich.text import Text

from sage_compat.moving_off.census import SWITCH, census_folder_or_none
from sage_compat.moving_off.census_files import Census, read_census
from sage_compat.moving_off.findings import Finding, Report, together
from sage_compat.moving_off.forms import as_document, as_html, as_sarif, when
from sage_compat.moving_off.paths import shown_path
from sage_compat.moving_off.ratchet import read_ratchet, tightened, worse, write_ratchet
from sage_compat.moving_off.replacing import write_whole
from sage_qd.cli.output import plain, table, terminal

if TYPE_CHECKING:
    from sage_compat.moving_off.judging import Granted
    from sage_compat.moving_off.sources import Decoded

__all__ = ["EXIT_CODES", "ExitCode", "fix", "report"]

EXIT_CODES: Final = """\
0 fine; 1 more old calls than allowed, or --check found something to change; 2 wrong usage; 3 no such file or folder;
4 it cannot be done, the text says why: a syntax error in a scanned file, a damaged census; 5 libcst is not installed;
130 interrupted."""


class ExitCode(IntEnum):
    """What a script can rely on."""

    FINE = 0
    FOUND = 1
    USAGE = 2
    NOT_FOUND = 3
    CANNOT = 4
    MISSING = 5
    INTERRUPTED = 130


class CannotError(click.ClickException):
    """A verb cannot go on; the text is shown as it is, one line for each error."""

    exit_code = ExitCode.CANNOT

    def show(self, file: IO[Any] | None = None) -> None:
        """Print each line of the message to standard error."""
        for line in self.message.splitlines():
            click.echo(f"sage-compat: {line}", file=file, err=file is None)


class NoSuchPathError(CannotError):
    """A file or folder that was named does not exist."""

    exit_code = ExitCode.NOT_FOUND


class MissingError(CannotError):
    """A library is not installed; the text has the command that installs it."""

    exit_code = ExitCode.MISSING


paths_argument = click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
namespace_option = click.option(
    "--namespace",
    metavar="NAME",
    help="Namespace for queues of which the old call names none; the name of the project when not given.",
)
held_option = click.option(
    "--queues-are-held",
    "are_held",
    is_flag=True,
    help="Take for granted that somebody holds each named queue from its first message to its last.",
)

every_option = click.option(
    "--every-program",
    is_flag=True,
    help="Take for granted that all programs which share queues by a namespace are among the files.",
)


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@paths_argument
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "html", "sarif"]),
    default="text",
    show_default=True,
    help="How to write it.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Write there, not to the terminal.")
@click.option(
    "--census",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help=f"Where running programs counted; else ${SWITCH}, else the user's state folder.",
)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    metavar="DATE",
    help="Leave out what was not seen at run time since then, in UTC.",
)
@click.option("--no-census", is_flag=True, help="Leave out what was seen at run time.")
@click.option("--no-scan", is_flag=True, help="Leave out the sources: only what was seen at run time.")
@namespace_option
@held_option
@every_option
@click.option(
    "--ratchet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Fail where a file has more old calls than FILE allows; lower FILE where it has fewer. Made when missing.",
)
@click.option("--fail-over", type=click.IntRange(min=0), metavar="N", help="Fail for more than N old calls in all.")
@click.pass_context
def report(
    context: click.Context,
    paths: tuple[Path, ...],
    form: str,
    output: Path | None,
    folder: Path | None,
    since: datetime | None,
    no_census: bool,
    no_scan: bool,
    namespace: str | None,
    are_held: bool,
    every_program: bool,
    ratchet: Path | None,
    fail_over: int | None,
) -> None:
    """
    Show which lines still use the old API, what to write instead, and how often they run.

    PATH is a file or a folder, the current one by default; the files are taken for the whole program. Sources are read
    and never run. The census adds what programs did where they ran: it also sees calls that no scan can find. Of the
    census of all programs of this user, only calls in these files are shown; of one that is named, all.

    \b
    Examples:
      sage-compat report
      sage-compat report src --format html --output old-calls.html
      sage-compat report src --ratchet old-calls.json
      sage-compat report --no-scan --census /var/lib/app/census
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    if no_scan and no_census:
        raise click.UsageError("--no-scan and --no-census leave nothing to report")
    if folder is not None and no_census:
        raise click.UsageError("--census and --no-census exclude each other")
    texts: Mapping[Path, Decoded] = {} if no_scan else _texts(paths)
    findings: list[Finding] = [] if no_scan else _scanned(texts, _granted(namespace, paths, are_held, every_program))
    census = Census((), 0, 0) if no_census else _census(folder)
    if since is not None:
        first = since.replace(tzinfo=UTC).timestamp()
        census = replace(census, calls=tuple(call for call in census.calls if call.last_seen >= first))
    made = together(findings, len(texts), census, list(texts))
    if not no_scan and folder is None and not os.environ.get(SWITCH):  # the census of all programs of the user
        made = made.of_scanned_files()
    _show(made, form, output)
    complaints = _complaints(made, ratchet, fail_over)
    for complaint in complaints:
        click.echo(f"sage-compat: {complaint}", err=True)
    context.exit(ExitCode.FOUND if complaints else ExitCode.FINE)


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@paths_argument
@click.option("--diff", is_flag=True, help="Write nothing; show what would change.")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if something would change.")
@namespace_option
@held_option
@every_option
@click.pass_context
def fix(
    context: click.Context,
    paths: tuple[Path, ...],
    diff: bool,
    check: bool,
    namespace: str | None,
    are_held: bool,
    every_program: bool,
) -> None:
    """
    Write descriptors over old calls, where nothing else changes.

    PATH is a file or a folder, the current one by default; the files are taken for the whole program, so name all of
    it. What cannot be proved stays, with a comment that begins with "# sage-compat:" and says why. Doing it again
    changes nothing. Every file is replaced in one step, and none is touched when one cannot be read.

    \b
    Examples:
      sage-compat fix --diff
      sage-compat fix src
      sage-compat fix src --namespace etl --queues-are-held
      sage-compat fix src --check
    """  # noqa: D301  (as above)
    texts = _texts(paths)
    from sage_compat.moving_off.facts import UnreadableSourceError
    from sage_compat.moving_off.fixing import fixed, write

    try:
        done = fixed(texts, _granted(namespace, paths, are_held, every_program))
    except UnreadableSourceError as error:
        raise CannotError(str(error)) from error
    for path, text in sorted(done.texts.items()):
        if diff:
            _show_diff(shown_path(path), texts[path].text, text)
        elif check:
            click.echo(f"would change {shown_path(path)}")
        else:
            try:
                write(path, texts[path], text)
            except (OSError, ValueError) as error:
                raise CannotError(str(error)) from error
            click.echo(f"changed {shown_path(path)}")
    would = "would be " if diff or check else ""
    stays = len([place for place in done.left if not place.is_automatic])
    click.echo(
        f"{done.changes} calls and names {would}replaced, {stays} stay; {len(done.texts)} of {len(texts)} files "
        f"{would}changed",
        err=True,
    )
    context.exit(ExitCode.FOUND if check and done.texts else ExitCode.FINE)


# -- Reading ----------------------------------------------------------------------------------------------------------


def _texts(paths: tuple[Path, ...]) -> "dict[Path, Decoded]":
    try:
        from sage_compat.moving_off.facts import UnreadableSourceError
        from sage_compat.moving_off.sources import decoded, python_files
    except ImportError as error:
        raise MissingError(str(error)) from error
    try:
        return {path: decoded(path) for path in python_files(paths or (Path(),))}
    except FileNotFoundError as error:
        raise NoSuchPathError(f"{error.filename}: {error.strerror}") from error
    except OSError as error:
        raise CannotError(f"{error.filename}: {error.strerror}") from error
    except UnreadableSourceError as error:
        raise CannotError(str(error)) from error


def _scanned(texts: "Mapping[Path, Decoded]", granted: "Granted") -> list[Finding]:
    from sage_compat.moving_off.facts import UnreadableSourceError
    from sage_compat.moving_off.scan import scan

    try:
        return scan(texts, granted)
    except UnreadableSourceError as error:
        raise CannotError(str(error)) from error


def _census(folder: Path | None) -> Census:
    if folder is not None and not folder.is_dir():
        raise NoSuchPathError(f"{folder}: no such folder")
    place = folder or census_folder_or_none()
    if place is None:
        return Census((), 0, 0)
    try:
        return read_census(place)
    except OSError as error:
        raise CannotError(f"{error.filename or place}: {error.strerror or error}") from error
    except ValueError as error:
        raise CannotError(str(error)) from error


def _granted(namespace: str | None, paths: tuple[Path, ...], are_held: bool, every_program: bool) -> "Granted":
    from sage_compat.moving_off.judging import Granted

    return Granted(namespace=_namespace(namespace, paths), are_held=are_held, is_every_program=every_program)


def _namespace(given: str | None, paths: tuple[Path, ...]) -> str:
    """Source of the namespace: as given, else the name of the project that the first path belongs to."""
    if given is not None:
        if not given:
            raise click.UsageError("--namespace must not be empty")
        return _quoted(given)
    start = (paths[0] if paths else Path()).resolve()
    for folder in (start, *start.parents):
        if (project := folder / "pyproject.toml").is_file():
            return _quoted(_project_name(project) or folder.name)
        if (folder / ".git").exists():
            return _quoted(folder.name)
    return _quoted((start if start.is_dir() else start.parent).name or "default")


def _project_name(project: Path) -> str | None:
    try:
        name = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("name")
    except (OSError, ValueError) as error:
        raise CannotError(f"{project}: {error}; --namespace makes it needless") from error
    return name if isinstance(name, str) and name else None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())


# -- Writing ----------------------------------------------------------------------------------------------------------


def _show(made: Report, form: str, output: Path | None) -> None:
    if form == "text" and output is None:
        _show_text(made)
        return
    if form == "text":
        lines = [_plain_line(finding) for finding in made.findings]
        text = "".join(f"{line}\n" for line in [*lines, _summary(made)])
    elif form == "html":
        text = as_html(made)
    else:
        text = json.dumps(as_document(made) if form == "json" else as_sarif(made), indent=1, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        write_whole(output, text.encode())
    except OSError as error:
        raise CannotError(f"{output}: {error.strerror}") from error


def _show_text(made: Report) -> None:
    console = terminal()
    shown = table("place", "code", "now", "instead", "calls", right=["calls"], wrapped=["place", "now", "instead"])
    for finding in made.findings:
        style = "green" if finding.is_automatic else ("yellow" if finding.is_sure else "magenta")
        instead = plain(finding.replacement)
        if finding.reason:
            instead.append("\n").append_text(plain(finding.reason))
        shown.add_row(
            plain(f"{finding.path}:{finding.line}"),
            Text(finding.code, style),
            plain(finding.text),
            instead,
            f"{finding.count:,}" if finding.count else "-",
        )
    if made.findings:
        console.print(shown)
    console.print(plain(_summary(made)), soft_wrap=True)


def _plain_line(finding: Finding) -> str:
    seen = f" [{finding.count} calls, last {when(finding.last_seen)} UTC]" if finding.count else ""
    reason = f" ({finding.reason})" if finding.reason else ""
    place = f"{finding.path}:{finding.line}:{finding.column}"
    return f"{place}: {finding.code} {finding.text} -> {finding.replacement}{reason}{seen}"


def _summary(made: Report) -> str:
    automatic = sum(finding.is_automatic for finding in made.findings)
    unsure = sum(not finding.is_sure for finding in made.findings)
    return (
        f"{len(made.findings)} places use the old API: sage-compat fix can do {automatic}, {unsure} are not sure; "
        f"{made.files} files scanned, {made.processes} processes counted"
        + (f"; {made.elsewhere} places in other files were seen at run time: --no-scan" if made.elsewhere else "")
        + (f", {made.torn} records were lost in kills" if made.torn else "")
        + (f", {made.outdated} calls are of files that are gone or were changed since" if made.outdated else "")
    )


def _show_diff(name: str, before: str, after: str) -> None:
    for line in unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    ):
        click.echo(line, nl=False)
        if not line.endswith("\n"):
            click.echo("\n\\ No newline at end of file")


def _complaints(made: Report, ratchet: Path | None, fail_over: int | None) -> list[str]:
    found = []
    if fail_over is not None and len(made.counted) > fail_over:
        found.append(f"{len(made.counted)} places use the old API, and --fail-over allows {fail_over}")
    if ratchet is not None:
        try:
            allowed = read_ratchet(ratchet)
            more = [] if allowed is None else worse(made.counts, allowed)
            found += more
            lower = made.counts if allowed is None else tightened(made.counts, allowed)
            if not more and lower != allowed:
                write_ratchet(ratchet, lower)
        except OSError as error:
            raise CannotError(f"{ratchet}: {error.strerror}") from error
        except ValueError as error:
            raise CannotError(str(error)) from error
    return found
