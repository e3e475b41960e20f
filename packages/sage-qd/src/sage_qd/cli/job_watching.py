"""Watch one job: ``top --job``."""

import time
from typing import TYPE_CHECKING

import rich_click as click
from rich.console import Console

from sage_qd.cli.output import duration, number, plain, quantity, table

if TYPE_CHECKING:
    from sage_qd.runtime.sampling import JobSample, TaskSample

__all__ = ["JOB_COLUMNS", "job_name", "job_notes", "job_row", "job_title", "show_job", "two_looks_at_job"]

JOB_COLUMNS = ("task", "in", "in/s", "out", "out/s", "blocked", "queue", "in hand", "load", "errors", "restarts")
"""Blocked: the share of the time since the look before in which the task waited for room in the queues of others."""
OLD_SECONDS = 3.0


def job_name(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of jobs for the shell's completion."""
    from sage_qd.runtime.sampling import jobs_here

    return [name for name in jobs_here() if name.startswith(incomplete)]


def two_looks_at_job(name: str, seconds: float) -> "JobSample":
    """Look, wait, and look again."""
    from sage_qd.runtime.sampling import JobSampler, find_job

    sampler = JobSampler(find_job(name))
    sampler.await_answer()
    sampler.look()
    time.sleep(seconds)
    sampler.await_answer()
    return sampler.look()


def job_title(sample: "JobSample") -> str:
    """The job in one line."""
    where = {"local": "threads", "process": "processes", "remote": "actors"}[sample.platform]
    ran = duration(sample.seconds * 1e9)
    return f"{sample.job}   {sample.state}, {len(sample.tasks)} tasks in {where}, pid {sample.pid}, made {ran} ago"


def job_row(sample: "TaskSample", *, is_service: bool = False) -> list[str]:
    """The cells of one task, in the order of JOB_COLUMNS; a service counts nothing."""
    counted = (
        ["-"] * 5
        if is_service
        else [
            number(sample.taken),
            quantity(sample.rate_in),
            number(sample.out),
            quantity(sample.rate_out),
            f"{sample.blocked:.0%}",
        ]
    )
    load = "-" if sample.load is None else f"{sample.load:.0%}"
    wrong = ["-"] * 2 if is_service else [number(sample.errors), number(sample.restarts)]
    return [sample.name, *counted, number(sample.depth), number(sample.leased), load, *wrong]


def job_notes(sample: "JobSample") -> list[str]:
    """What is wrong with the job."""
    notes = []
    if sample.slow:
        notes.append(f"slow: {', '.join(sample.slow)}; what comes before waits for room in a full queue")
    for task in sample.tasks:
        lost = [
            f"{count:,} {word}"
            for count, word in ((task.skipped, "skipped after errors"), (task.dropped, "dropped for lack of room"))
            if count
        ]
        if lost:
            notes.append(f"{task.name}: {', '.join(lost)}")
    if sample.state == "running" and sample.age_seconds > OLD_SECONDS:
        notes.append(f"the driver does not answer; these figures are {duration(sample.age_seconds * 1e9)} old")
    return notes


def show_job(console: Console, sample: "JobSample") -> None:
    """Print a job as a table."""
    console.print(plain(job_title(sample)), style="bold", soft_wrap=True)
    shown = table(*JOB_COLUMNS, right=JOB_COLUMNS[1:], wrapped=("task",))
    for task in sample.tasks:
        shown.add_row(*map(plain, job_row(task)))
    for service in sample.services:
        shown.add_row(*map(plain, job_row(service, is_service=True)))
    console.print(shown)
    for note in job_notes(sample):
        console.print(plain(note), style="red", soft_wrap=True)
