"""``shadow``: what the comparison of old and new found."""

from pathlib import Path

import rich_click as click

from sage_compat.cli.app import EXIT_CODES, ExitCode
from sage_compat.cli.showing import as_json_option, print_json, print_table
from sage_compat.evidence import SCHEMA, as_html, reports

__all__ = ["shadow"]


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@click.option("--html", "page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page for the browser.")
@as_json_option
def shadow(page: Path | None, as_json: bool) -> int:
    """
    Say for each queue in mode shadow whether it is ready for the new way.

    The exit code is 0 when all of them are, 1 when one is not, or there is no evidence yet.

    \b
    Examples:
      sage-compat shadow
      sage-compat shadow --html shadow.html
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    found = reports()
    if page is not None:
        page.write_text(as_html(found), encoding="utf-8")
    if as_json:
        print_json({"schema": SCHEMA, "queues": [report.as_dict() for report in found]})
    else:
        print_table(
            ["queue", "verdict", "compared", "put old/new", "reasons"],
            [
                [
                    report.full_name,
                    report.verdict,
                    f"{report.compared:,}",
                    f"{report.mean_us.get('old_put', 0):.1f}/{report.mean_us.get('new_put', 0):.1f} µs",
                    "; ".join(report.reasons),
                ]
                for report in found
            ],
        )
    ready = bool(found) and all(report.verdict == "ready" for report in found)
    return ExitCode.FINE if ready else ExitCode.FOUND
