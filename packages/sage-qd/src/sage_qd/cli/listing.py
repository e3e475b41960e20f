"""See what is there: ``ls``, ``inspect``, ``waits``."""

import time
from typing import Any

import rich_click as click
from rich.console import Console
from rich.text import Text

from sage_qd.cli.endings import EXIT_CODES, ExitCode
from sage_qd.cli.output import as_json_option, duration, number, plain, print_json, quantity, table, terminal
from sage_qd.monitor import QueueState, Sample, Sampler, WaitGraph, inspect_queue, queue_states, wait_graph
from sage_qd.monitor.rates import SCHEMA as TOP_SCHEMA
from sage_qd.monitor.sources import source_kinds
from sage_qd.monitor.states import SCHEMA

__all__ = ["inspect", "ls", "namespace_option", "queue_argument", "waits"]

namespace_option = click.option("--namespace", metavar="TEXT", help="Only queues of this namespace.")


def _names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Queue names for the shell's completion."""
    names = [name for state in queue_states() for name in (state.queue_id, state.name)]
    return sorted(name for name in names if name.startswith(incomplete))


queue_argument = click.argument("queue", shell_complete=_names)


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@namespace_option
@click.option("--kind", "kinds", multiple=True, type=click.Choice(source_kinds()), help="Only queues of this kind.")
@click.option("--rates", is_flag=True, help="Look twice, a second apart, and show what moved in between.")
@as_json_option
def ls(namespace: str | None, kinds: tuple[str, ...], rates: bool, as_json: bool) -> None:
    """
    List every queue of this user.

    Queues that nobody uses are left over from programs that were killed, or kept on purpose; sage-qd clean removes the
    former. Nothing is opened and no lock is taken.

    \b
    Examples:
      sage-qd ls
      sage-qd ls --namespace team --rates
      sage-qd ls --json | jq '.queues[] | select(.stats.depth > 1000) | .queue_id'
    """  # noqa: D301  (click wants this very character before a block that it must not wrap)
    if rates:
        samples = two_looks(namespace, 1.0)
        samples = [each for each in samples if not kinds or each.state.kind in kinds]
        if as_json:
            print_json({"schema": TOP_SCHEMA, "queues": [each.as_dict() for each in samples]})
        else:
            _show_list(terminal(), [each.state for each in samples], {each.state.key: each for each in samples})
        return
    states = queue_states(namespace, kinds=kinds or None)
    if as_json:
        print_json({"schema": SCHEMA, "queues": [state.as_dict() for state in states]})
    else:
        _show_list(terminal(), states, {})


def two_looks(namespace: str | None, seconds: float) -> list[Sample]:
    """Look, wait, and look again."""
    sampler = Sampler(namespace)
    sampler.look()
    time.sleep(seconds)
    return sampler.look()


def _show_list(console: Console, states: list[QueueState], samples: dict[tuple[str, str, str], Sample]) -> None:
    if not states:
        console.print("no queues")
        return
    moving = ("put/s", "get/s") if samples else ()
    shown = table(
        *("queue", "kind", "depth", "bound", *moving, "puts", "gets", "oldest", "use"),
        right=("depth", "bound", "put/s", "get/s", "puts", "gets", "oldest"),
        wrapped=("queue", "use"),
    )
    for state in states:
        figures, sample = state.figures, samples.get(state.key)
        rates = [] if sample is None else [quantity(sample.puts_per_second), quantity(sample.gets_per_second)]
        counts = (
            ["-", "-", *rates, "-", "-", "-"]
            if figures is None
            else [
                number(figures.depth),
                _bound(state),
                *rates,
                number(figures.puts),
                number(figures.gets),
                duration(figures.oldest_age_ns or None),
            ]
        )
        shown.add_row(plain(state.name), state.kind, *counts, plain(_use(state)))
    console.print(shown)


def _bound(state: QueueState) -> str:
    if state.capacity_items is not None:
        return number(state.capacity_items)
    return "-" if state.capacity_bytes is None else quantity(state.capacity_bytes, "B")


def _use(state: QueueState) -> str:
    use = {True: "in use", False: "kept, nobody uses it" if state.kept else "left over", None: "?"}[state.in_use]
    return use if state.problem is None else f"{use}; {state.problem}"


# -- inspect ----------------------------------------------------------------------------------------------------------


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@queue_argument
@as_json_option
def inspect(queue: str, as_json: bool) -> int:
    """
    Show one QUEUE in full: settings, counters, latencies, who uses it and who holds what.

    QUEUE is a queue id, namespace/queue id, a URI or a descriptor as JSON. A queue between the processes of this host
    is looked at from outside; other kinds are asked, for which the queue is opened (never made).

    \b
    Examples:
      sage-qd inspect jobs
      sage-qd inspect team/jobs --json
      sage-qd inspect 'sage://team/jobs'
    """  # noqa: D301  (as above)
    found = inspect_queue(queue)
    if as_json:
        print_json(found)
    else:
        _show_inspection(terminal(), found)
    return ExitCode.CANNOT if found["stats"] is None else ExitCode.FINE


def _show_inspection(console: Console, found: dict[str, Any]) -> None:
    name = f"{found['namespace']}/{found['queue_id']}" if found["namespace"] else found["queue_id"]
    console.print(plain(f"{name}  {found['kind']}"), style="bold")
    console.print(plain(found["where"]), soft_wrap=True)
    if found["problem"]:
        console.print(plain(found["problem"]), style="red", soft_wrap=True)
    if "settings" in found:
        _show_facts(console, "Settings", {name: _fact(name, value) for name, value in found["settings"].items()})
    counters = found.get("counters", found["stats"])
    if counters is not None:
        _show_facts(console, "Counters", {name: _fact(name, value) for name, value in counters.items()})
    if "latency_ns" not in found:
        return
    if found["latency_samples"]:
        shown = {name: duration(value) for name, value in found["latency_ns"].items()}
        _show_facts(console, f"From put to get ({found['latency_samples']:,} samples)", shown)
    locks = {f"inside {side}": _holder(owner) for side, owner in found["locks"].items() if owner}
    if locks:
        _show_facts(console, "Locks", locks)
    _show_parties(console, found)
    if found["spill_files"]:
        total = sum(each["size_bytes"] for each in found["spill_files"])
        console.print(f"\n{len(found['spill_files'])} files of large messages, {quantity(total, 'B')}")


def _fact(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return duration(value) if name.endswith("_ns") else f"{value:,}"
    return "-" if value is None else str(value)


def _show_facts(console: Console, title: str, facts: dict[str, str]) -> None:
    console.print(f"\n{title}", style="bold")
    width = max(map(len, facts))
    half = (len(facts) + 1) // 2 if len(facts) > 8 else len(facts)
    entries = list(facts.items())
    shown = table("", "", "", "")
    shown.show_header = False
    for left in range(half):
        cells: list[str | Text] = []
        for name, value in entries[left::half]:
            cells += [name.replace("_", " ").ljust(width), plain(value.ljust(14))]
        shown.add_row(*cells)
    console.print(shown)


def _holder(owner: dict[str, Any]) -> str:
    if owner["gone"]:
        return f"thread {owner['tid']}, which is gone; the next one takes over"
    return f"thread {owner['tid']} of pid {owner['pid']}, {owner['label']}"


def _show_parties(console: Console, found: dict[str, Any]) -> None:
    parties: dict[int, list[str]] = {each["pid"]: [] for each in found["users"]}
    labels = {each["pid"]: each["label"] for each in (*found["users"], *found["participants"])}
    for each in found["users"]:
        waits = each["waits"]
        notes = ["its waits cannot be seen"] if waits is None else [f"waits for {wait['for']}" for wait in waits]
        parties[each["pid"]] += notes
    for each in found["participants"]:
        notes = [] if each["role"] is None else [f"the {each['role']}"]
        if each["leases"] is None or each["leases"]:
            notes.append("holds leases" if each["leases"] is None else f"holds {each['leases']:,} leases")
        if each["gone"] or each["closed"]:
            notes.append("gone; what it holds comes back")
        parties.setdefault(each["pid"], []).extend(notes)
    console.print("\nUsed by" if parties else "\nUsed by nobody", style="bold")
    shown = table("pid", "what", "state", wrapped=("state",))
    shown.show_header = False
    for pid, notes in sorted(parties.items()):
        shown.add_row(str(pid), plain(labels[pid]), plain(", ".join(notes) or "at work"))
    if parties:
        console.print(shown)


# -- waits ------------------------------------------------------------------------------------------------------------


@click.command(epilog=f"Exit codes: {EXIT_CODES}")
@namespace_option
@as_json_option
def waits(namespace: str | None, as_json: bool) -> int:
    """
    Show who waits for whom, and mark the cycles.

    A process waits for room, for a message, or for its turn. Processes that wait for one another are a cycle: none of
    them will ever go on by itself. The exit code is 1 when there is one.

    \b
    Examples:
      sage-qd waits
      sage-qd waits --json | jq .cycles
    """  # noqa: D301  (as above)
    graph = wait_graph(namespace)
    if as_json:
        print_json(graph.as_dict())
    else:
        _show_graph(terminal(), graph)
    return ExitCode.FOUND if graph.cycles else ExitCode.FINE


def _show_graph(console: Console, graph: WaitGraph) -> None:
    in_cycle = {pid for cycle in graph.cycles for pid in cycle.pids}
    for wait in graph.waits:
        who = ", ".join(f"{graph.labels[pid]} (pid {pid})" for pid in wait.resolvers) or "nobody who is there"
        mark = "! " if wait.pid in in_cycle else "  "
        console.print(plain(f"{mark}{wait}, from {who}"), style="red" if wait.pid in in_cycle else None, soft_wrap=True)
    if not graph.waits:
        console.print("nobody waits")
    for cycle in graph.cycles:
        ring = " → ".join(f"{graph.labels[pid]} ({pid})" for pid in (*cycle.pids, cycle.pids[0]))
        doubt = "" if cycle.certain else "; unless one of their other threads helps"
        console.print(plain(f"cycle: {ring}{doubt}"), style="bold red", soft_wrap=True)
    if graph.unreadable:
        pids = ", ".join(map(str, graph.unreadable))
        console.print(f"not seen, for lack of rights: what the threads of {pids} wait for", soft_wrap=True)
