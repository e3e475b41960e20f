"""The live view of ``top``. The one door to textual, which the extra ``top`` installs."""

from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import DataTable, Footer, Static
from textual.worker import get_current_worker

from sage_qd.cli.output import plain
from sage_qd.cli.watching import COLUMNS, row_of
from sage_qd.monitor import Sample, Sampler, WaitGraph

__all__ = ["TopScreen"]


class TopScreen(App[None]):
    """
    A table of queues above the sentences that matter.

    Args:
        namespace: Only queues in it; None for all.
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
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, namespace: str | None, interval: float) -> None:
        super().__init__()
        self._sampler = Sampler(namespace)
        self._interval = interval
        self._paused = False
        self._order = "name"
        self._samples: list[Sample] = []

    def compose(self) -> ComposeResult:
        """Lay the screen out."""
        yield Static(id="title")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        with VerticalScroll():
            yield Static(id="notes")
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        queues = self.query_one(DataTable)
        for column in COLUMNS:
            queues.add_column(column, key=column)
        self._look()
        self.set_interval(self._interval, self._look_again)

    def _look_again(self) -> None:
        if not self._paused:
            self._look()

    @work(thread=True, exclusive=True, exit_on_error=True)
    def _look(self) -> None:
        """Look in a thread, so that keys are answered meanwhile; one that was overtaken shows nothing."""
        samples = self._sampler.look()
        if not get_current_worker().is_cancelled:
            self.call_from_thread(self._show, samples, self._sampler.graph)

    def _show(self, samples: list[Sample], graph: WaitGraph | None) -> None:
        self._samples = samples
        self._fill()
        total = sum(each.state.figures.depth for each in samples if each.state.figures is not None)
        state = "paused" if self._paused else f"every {self._interval:g} s"
        self.query_one("#title", Static).update(f"sage-qd top   {len(samples)} queues, {total:,} messages   {state}")
        self.query_one("#notes", Static).update(_notes(samples, graph))

    def _fill(self) -> None:
        queues = self.query_one(DataTable)
        row, scroll = queues.cursor_row, queues.scroll_y
        queues.clear()
        for sample in sorted(self._samples, key=self._rank):
            name, *cells = row_of(sample)
            queues.add_row(plain(name), *(Text(cell, justify="right") for cell in cells))
        if self._samples:
            queues.move_cursor(row=min(row, len(self._samples) - 1))
        queues.scroll_to(y=scroll, animate=False)

    def _rank(self, sample: Sample) -> tuple[float, tuple[str, str, str]]:
        figures = sample.state.figures
        depth = 0 if figures is None else figures.depth
        return {"depth": -depth, "rate": -sample.puts_per_second, "name": 0.0}[self._order], sample.state.key

    def action_pause(self) -> None:
        """Stop looking, or go on."""
        self._paused = not self._paused
        self._show(self._samples, self._sampler.graph)

    def action_sort(self, order: str) -> None:
        """Put other queues on top."""
        self._order = order
        self._fill()


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
