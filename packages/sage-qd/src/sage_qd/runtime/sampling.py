"""What the jobs of this machine are doing, seen from another process: from their boards and queues."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sage_qd.errors import JobNotFoundError, SageQueueError
from sage_qd.monitor.portable import KIND as PORTABLE
from sage_qd.monitor.rings import KIND as RING
from sage_qd.monitor.rings import where_named
from sage_qd.monitor.sources import queue_states
from sage_qd.monitor.states import load_of_figures
from sage_qd.ring.sight import look_at
from sage_qd.runtime.board import Board, boards

__all__ = ["SCHEMA", "JobSample", "JobSampler", "TaskSample", "find_job", "jobs_here"]

SCHEMA: Final = "sage-qd.job/1"
FULL: Final = 0.9
ANSWER_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.02

_Seen = tuple[int, int, float]
"""Depth, leases, load."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSample:
    """
    One task or service, as it was seen.

    Attributes:
        name: The step and the number of the instance; of a service, its name.
        taken: Packets taken, or made by a source. A service counts nothing.
        out: Packets sent.
        errors: Times the operator raised.
        skipped: Packets given up after that.
        dropped: Packets lost because there was no room for them.
        restarts: Times the task was started again.
        blocked_ns: Nanoseconds that it waited for room in the queues of others.
        rate_in: Packets taken in a second, since the look before.
        rate_out: Packets sent in a second.
        blocked: Share of the time since the look before that it waited for room, 0.0 to 1.0.
        depth: Batches in its queue; None where that cannot be seen, or where it has none, as a source.
        leased: Batches that it has in hand.
        load: How full its queue is, 0.0 to 1.0.
    """

    name: str
    taken: int
    out: int
    errors: int
    skipped: int
    dropped: int
    restarts: int
    blocked_ns: int
    rate_in: float
    rate_out: float
    blocked: float
    depth: int | None
    leased: int | None
    load: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSample:
    """
    A job, as it was seen.

    Attributes:
        job: Its name.
        id: What no other job has.
        pid: The driver.
        platform: ``local``, ``process`` or ``remote``.
        state: ``running``, or how it ended: ``finished``, ``failed``, ``stopped``, or ``killed`` with its driver.
        seconds: Since it was made.
        age_seconds: How old the figures are; 0.0 but for jobs that must be asked.
        tasks: In the order in which packets pass them.
        services: By name.
        edges: Between steps: ``source``, ``target``, and the ``load`` of the fullest queue there.
    """

    job: str
    id: str
    pid: int
    platform: str
    state: str
    seconds: float
    age_seconds: float
    tasks: Sequence[TaskSample]
    services: Sequence[TaskSample]
    edges: Sequence[dict[str, Any]]

    @property
    def slow(self) -> list[str]:
        """The tasks of the last step along the way whose queues are full: what comes before them waits for them."""
        full = [task.name for task in self.tasks if task.load is not None and task.load >= FULL]
        return [name for name in full if _step_of(name) == _step_of(full[-1])]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        plain = {"schema": SCHEMA} | asdict(self) | {"slow": self.slow}
        for kind in ("tasks", "services"):
            plain[kind] = {each.pop("name"): each for each in plain[kind]}
        return plain


def jobs_here() -> list[str]:
    """Return the names of the jobs that run on this machine as this user, sorted."""
    return sorted({board.description["job"] for board in boards()})


def find_job(name: str) -> Board:
    """
    Open the board of a job that runs on this machine as this user.

    Args:
        name: Its name, or its id where several jobs have the name.

    Raises:
        JobNotFoundError: There is no such job; says which there are.
        ValueError: Several jobs have the name; says what their ids are.
    """
    found = [board for board in boards() if name in (board.description["id"], board.description["job"])]
    if not found:
        raise JobNotFoundError(name=name, known=jobs_here())
    if len(found) > 1:
        ids = ", ".join(f"{board.description['id']} (pid {board.description['pid']})" for board in found)
        raise ValueError(f"{len(found)} jobs are called {name!r}; give the id of one: {ids}")
    return found[0]


class JobSampler:
    """
    Looks at one job again and again.

    Args:
        board: Of the job; see :func:`find_job`.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._looked_ns = 0
        self._counted: list[dict[str, int]] = []
        self._rates: list[tuple[float, float, float]] = []
        self._is_published: bool = board.description["published"]
        if self._is_published:
            board.ask(time.monotonic_ns())

    def await_answer(self) -> None:
        """Wait until a driver that must be asked has answered, or the job has ended; for ten seconds at most."""
        if self._is_published:
            asked = time.monotonic_ns()
            self._board.ask(asked)
            while (
                self._board.published_ns < asked
                and _state_of(self._board) == "running"
                and time.monotonic_ns() - asked < ANSWER_SECONDS * 1e9
            ):
                time.sleep(_POLL_SECONDS)

    def look(self) -> JobSample:
        """Look at it now; the first look has no rates."""
        board, now = self._board, time.monotonic_ns()
        if self._is_published:
            board.ask(now)
        published = board.published_ns if self._is_published else now
        facts, state = board.description, _state_of(board)
        entries = [*facts["tasks"], *facts["services"]]
        words = [board.words(number) for number in range(len(entries))]
        self._rate(words, published)
        queues = {} if self._is_published or state != "running" else _seen_queues(facts["queues"])
        samples = [
            _sample(entry, counted, rates, _task_queues(entry, counted, queues, self._is_published))
            for entry, counted, rates in zip(entries, words, self._rates, strict=True)
        ]
        tasks, services = samples[: len(facts["tasks"])], samples[len(facts["tasks"]) :]
        return JobSample(
            job=facts["job"],
            id=facts["id"],
            pid=facts["pid"],
            platform=facts["platform"],
            state=state,
            seconds=max(time.time_ns() - facts["started_ns"], 0) / 1e9,
            age_seconds=(now - published) / 1e9 if published else 0.0,
            tasks=tasks,
            services=services,
            edges=_edges(facts["steps"], tasks),
        )

    def _rate(self, words: list[dict[str, int]], moment: int) -> None:
        """Rates since the moment before; those of before where nothing new was published."""
        if self._looked_ns and moment > self._looked_ns:
            seconds = (moment - self._looked_ns) / 1e9
            names = ("taken", "out", "blocked_ns")
            changes = [
                [max(new[name] - old[name], 0) / seconds for name in names]
                for old, new in zip(self._counted, words, strict=True)
            ]
            self._rates = [(taken, out, min(blocked / 1e9, 1.0)) for taken, out, blocked in changes]
        if not self._rates:
            self._rates = [(0.0, 0.0, 0.0)] * len(words)
        if moment > self._looked_ns:
            self._looked_ns, self._counted = moment, words


def _state_of(board: Board) -> str:
    """The state of a job: its own word for it, unless it was killed before it could change that."""
    if board.is_held():
        return board.state
    state = board.state  # it may have ended between the two looks
    return state if state in ("finished", "failed", "stopped") else "killed"


def _sample(
    entry: dict[str, Any], counted: dict[str, int], rates: tuple[float, float, float], queue: _Seen | None
) -> TaskSample:
    names = ("taken", "out", "errors", "skipped", "dropped", "restarts", "blocked_ns")
    depth, leased, load = (None, None, None) if queue is None else queue
    return TaskSample(
        name=entry["name"],
        **{name: counted[name] for name in names},
        rate_in=rates[0],
        rate_out=rates[1],
        blocked=rates[2],
        depth=depth,
        leased=leased,
        load=load,
    )


def _task_queues(
    entry: dict[str, Any], counted: dict[str, int], queues: dict[str, _Seen], is_published: bool
) -> _Seen | None:
    """The queues of one task together; None where it has none, or none can be seen."""
    if not entry["queues"]:
        return None
    if is_published:
        return counted["depth"], counted["leased"], counted["load_millionths"] / 1e6
    found = [queues[name] for name in entry["queues"] if name in queues]
    if not found:
        return None
    return sum(each[0] for each in found), sum(each[1] for each in found), max(each[2] for each in found)


def _seen_queues(queues: dict[str, dict[str, str]]) -> dict[str, _Seen]:
    """Look at the queues of a job from outside; those that are gone are left out."""
    found: dict[str, _Seen] = {}
    for name, queue in queues.items():
        if queue["kind"] == RING:
            try:
                sight = look_at(str(where_named(queue["queue_id"], queue["namespace"])))
            except (SageQueueError, FileNotFoundError):
                continue  # the job ended while we looked
            stats = sight.stats
            found[name] = (stats.depth, stats.leased, load_of_figures(stats, sight.max_items, stats.capacity_bytes))
    portable = {queue["queue_id"]: name for name, queue in queues.items() if queue["kind"] == PORTABLE}
    for state in queue_states(kinds=[PORTABLE]) if portable else ():
        if state.queue_id in portable and state.figures is not None:
            load = load_of_figures(state.figures, state.capacity_items, state.capacity_bytes)
            found[portable[state.queue_id]] = (state.figures.depth, state.figures.leased, load)
    return found


def _edges(steps: list[dict[str, Any]], tasks: Sequence[TaskSample]) -> list[dict[str, Any]]:
    loads: dict[str, float] = {}
    for task in tasks:
        step = _step_of(task.name)
        loads[step] = max(loads.get(step, 0.0), task.load or 0.0)
    return [
        {"source": source, "target": step["name"], "load": loads.get(step["name"], 0.0)}
        for step in steps
        for source in step["inputs"]
    ]


def _step_of(task: str) -> str:
    return task.rpartition("_")[0]
