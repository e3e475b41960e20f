"""The live views of ``top``. The one door to textual, which the extra ``top`` installs."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Static
from textual.worker import get_current_worker

from sage_qd.cli.endings import ExitCode
from sage_qd.cli.job_watching import JOB_COLUMNS, job_notes, job_row, job_title
from sage_qd.cli.output import plain
from sage_qd.cli.watching import COLUMNS, row_of
from sage_qd.monitor import Sample, Sampler, WaitGraph
from sage_qd.runtime.sampling import JobSample, JobSampler, TaskSample, find_job

__all__ = ["JobScreen", "LiveTable", "TopScreen"]


T = TypeVar("T")


class LiveTable(App[None], Generic[T]):
    """
    A table that is filled anew at each look, above the sentences that matter.

    Args:
        columns: Their headings; the first is the name of a row, figures follow.
        interval: Seconds between two looks.
    """

    CSS = """
    #title { height: 1; background: $primary; color: $text; padding: 0 1; }
    DataTable { height: 2fr; }
    VerticalScroll { height: 1fr; border-top: solid $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("p", "pause", "Pause"),
        Binding("d", "sort('depth')", "By depth"),
        Binding("r", "sort('rate')", "By rate"),
        Binding("n", "sort('name')", "By name"),
        Binding("ctrl+c", "interrupt", show=False, priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False
    PROGRAM: ClassVar[str] = "sage-qd top"
    """As the title begins."""

    def __init__(self, columns: Sequence[str], interval: float) -> None:
        super().__init__()
        self._columns = columns
        self._interval = interval
        self._paused = False
        self._order = "name"
        self._seen: T | None = None

    def follow(self) -> None:
        """
        Show it until somebody quits.

        Raises:
            KeyboardInterrupt: Somebody pressed Ctrl-C.
        """
        self.run()
        if self.return_code == ExitCode.INTERRUPTED:
            raise KeyboardInterrupt

    def action_interrupt(self) -> None:
        """End as every verb ends on Ctrl-C; a question would be answered by nobody who means it."""
        self.exit(return_code=ExitCode.INTERRUPTED)

    @abstractmethod
    def look(self) -> T:
        """Look once, in a thread."""

    @abstractmethod
    def title_of(self, seen: T) -> str:
        """What was seen, in one line."""

    @abstractmethod
    def rows_of(self, seen: T, order: str) -> list[list[str]]:
        """The rows, in the order wanted."""

    @abstractmethod
    def notes_of(self, seen: T) -> Text:
        """The sentences below the table."""

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="title")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        with VerticalScroll():
            yield Static(id="notes")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        rows = self.query_one(DataTable)
        for column in self._columns:
            rows.add_column(column, key=column)
        self._look()
        self.set_interval(self._interval, self._look_again)

    def _look_again(self) -> None:
        if not self._paused:
            self._look()

    @work(thread=True, exclusive=True, exit_on_error=True)
    def _look(self) -> None:
        """Look in a thread, so that keys are answered meanwhile; one that was overtaken shows nothing."""
        seen = self.look()
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._show, seen)

    def _show(self, seen: T) -> None:
        self._seen = seen
        self._fill()
        state = "paused" if self._paused else f"every {self._interval:g} s"
        self.query_one("#title", Static).update(plain(f"{self.PROGRAM}   {self.title_of(seen)}   {state}"))
        self.query_one("#notes", Static).update(self.notes_of(seen))

    def _fill(self) -> None:
        if self._seen is None:
            return
        table = self.query_one(DataTable)
        row, scroll = table.cursor_row, table.scroll_y
        table.clear()
        for name, *cells in self.rows_of(self._seen, self._order):
            table.add_row(plain(name), *(Text(cell, justify="right") for cell in cells))
        if table.row_count:
            table.move_cursor(row=min(row, table.row_count - 1))
        table.scroll_to(y=scroll, animate=False)

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._paused = not self._paused
        if self._seen is not None:
            self._show(self._seen)

    def action_sort(self, order: str) -> None:
        """Put other rows on top."""
        self._order = order
        self._fill()


class TopScreen(LiveTable[tuple[list[Sample], WaitGraph | None]]):
    """
    The queues of this machine.

    Args:
        namespace: Only queues in it; None for all.
        interval: Seconds between two looks.
    """

    def __init__(self, namespace: str | None, interval: float) -> None:
        super().__init__(COLUMNS, interval)
        self._sampler = Sampler(namespace)

    def look(self) -> tuple[list[Sample], WaitGraph | None]:
        """Look at every queue, and at who waits."""
        return self._sampler.look(), self._sampler.graph

    def title_of(self, seen: tuple[list[Sample], WaitGraph | None]) -> str:
        """How much there is."""
        total = sum(each.state.figures.depth for each in seen[0] if each.state.figures is not None)
        return f"{len(seen[0])} queues, {total:,} messages"

    def rows_of(self, seen: tuple[list[Sample], WaitGraph | None], order: str) -> list[list[str]]:
        """A row for each queue."""

        def rank(sample: Sample) -> tuple[float, tuple[str, str, str]]:
            figures = sample.state.figures
            depth = 0 if figures is None else figures.depth
            return {"depth": -depth, "rate": -sample.puts_per_second, "name": 0.0}[order], sample.state.key

        return [row_of(sample) for sample in sorted(seen[0], key=rank)]

    def notes_of(self, seen: tuple[list[Sample], WaitGraph | None]) -> Text:
        """Who is held up, and by whom."""
        return _notes(*seen)


class JobScreen(LiveTable[JobSample]):
    """
    The tasks of one job; when the job has ended, the last figures stay.

    Args:
        name: Of the job, or its id.
        interval: Seconds between two looks.

    Raises:
        JobNotFoundError: No such job runs here.
        ValueError: Several jobs have the name.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("w", "sort('way')", "As packets go")]

    def __init__(self, name: str, interval: float) -> None:
        super().__init__(JOB_COLUMNS, interval)
        self._sampler = JobSampler(find_job(name))
        self._order = "way"

    def look(self) -> JobSample:
        """Look at the job."""
        return self._sampler.look()

    def title_of(self, seen: JobSample) -> str:
        """The job in one line."""
        return job_title(seen)

    def rows_of(self, seen: JobSample, order: str) -> list[list[str]]:
        """A row for each task, then one for each service."""
        places = {task.name: place for place, task in enumerate(seen.tasks)}

        def rank(task: TaskSample) -> tuple[float, str, int]:
            worth = {"depth": -(task.depth or 0), "rate": -max(task.rate_in, task.rate_out)}.get(order, 0.0)
            return worth, task.name if order == "name" else "", places[task.name]

        tasks = [job_row(task) for task in sorted(seen.tasks, key=rank)]
        return tasks + [job_row(service, is_service=True) for service in seen.services]

    def notes_of(self, seen: JobSample) -> Text:
        """What is wrong with the job."""
        notes = [Text(plain(note).plain, "bold red") for note in job_notes(seen)]
        return Text("\n").join(notes) if notes else Text("no task is held up")


def _notes(samples: list[Sample], graph: WaitGraph | None) -> Text:
    """Slow consumers, cycles of waits, and what is wrong with queues."""
    lines: list[Text] = []
    for sample in samples:
        for slow in sample.slow:
            lines.append(Text.assemble(plain(f"{sample.state.name}: "), (plain(str(slow)).plain, "bold red")))
        if sample.state.problem:
            lines.append(plain(f"{sample.state.name}: {sample.state.problem}"))
    for cycle in () if graph is None else graph.cycles:
        who = ", ".join(str(pid) for pid in cycle.pids)
        lines.append(Text(f"cycle: {who} wait for one another; sage-qd waits has the details", "bold red"))
    return Text("\n").join(lines) if lines else Text("nobody is held up")
