"""
Rows R1, R5 and R4: a storm of kills, stops and delays on our ring, how long recovery takes, and what others do in it.

Without arguments all three; ``--peers`` runs R4 alone. The storm itself is in ``storm.c``.
"""

from __future__ import annotations

import statistics
import sys
from argparse import Namespace

import row
import storm_peers

SHORT_KILLS, LONG_KILLS = 20_000, 1_000_000
SHORT_SECONDS, LONG_SECONDS = 170, 4 * 3600
DELAYED_SHARE = 0.7
"""Of the kills, so many fall on the build with delays at fault points; there more of them meet a holder of a lock."""
RECOVERY_BOUND_MS = {"p50_ms": 60, "p99_ms": 150, "max_ms": 500}
FAULTS = ("hangs", "lost", "duplicates", "torn", "ghosts")
MORE_FAULTS = ("vanished", "disordered", "fenced", "bad_status")
TRIALS = 3
PEER_KILLS = 300


def main() -> int:
    """Run the rows asked for; 1 when one failed."""
    options = row.arguments(__doc__, peers={"action": "store_true", "help": "only the other queues (R4)"})
    good = [peers(options)] if options.peers else [storm(options), peers(options)]
    return 0 if all(good) else 1


def storm(options: Namespace) -> bool:
    """R1 and R5 come from the same runs."""
    kills, seconds = (LONG_KILLS, LONG_SECONDS) if options.long else (SHORT_KILLS, SHORT_SECONDS)
    killed = row.Row.begin(
        options, "R1", "random SIGKILLs, SIGSTOPs and delays, 3 x 3: " + " / ".join(FAULTS), f"{kills:,}: 0/0/0/0/0"
    )
    recovered = row.Row.begin(
        options,
        "R5",
        "time from the kill of a lock holder to the next success on its side: p50 / p99 / max",
        " / ".join(f"<= {bound} ms" for bound in RECOVERY_BOUND_MS.values()),
    )
    try:
        programs = [(row.build("storm.c"), 1 - DELAYED_SHARE)]
        programs += [(row.build("storm.c", "-DSQ_FAULT_POINTS", name="storm_points"), DELAYED_SHARE)]
    except row.NotRunError as reason:
        killed.not_run(str(reason))
        return recovered.not_run(str(reason))
    results = []
    for program, share in programs:
        words = (round(kills * share), round(seconds * share), options.seed)
        results.append(row.run(program, *words, timeout=seconds * share + 120))
    return all([report_faults(killed, results, kills), report_recovery(recovered, results)])


def report_faults(killed: row.Row, results: list[dict[str, object]], wanted: int) -> bool:
    """R1: anything but zero is a failure, and so is a storm that did not end by itself."""
    if any("kills" not in result for result in results):
        return killed.report(f"a storm did not end: {[result['exit'] for result in results]}", False)
    total = {
        name: sum(int(str(result[name])) for result in results) for name in ("kills", "stops", *FAULTS, *MORE_FAULTS)
    }
    items = sum(int(str(result["items"])) for result in results)
    value = f"{total['kills']:,} kills: " + "/".join(str(total[name]) for name in FAULTS)
    value += f"; {total['stops']:,} stops, {items:,} items"
    value += "".join(f", {total[name]} {name}" for name in MORE_FAULTS if total[name])
    if total["kills"] < wanted:
        value += f" (as many as fit; {wanted:,} were wanted)"
    return killed.report(value, all(result["exit"] == 0 for result in results) and total["kills"] > 0)


def report_recovery(recovered: row.Row, results: list[dict[str, object]]) -> bool:
    """R5: the figures of the run in which holders of locks are killed often; they must be many, or they say nothing."""
    result = results[-1]
    if "p50_ms" not in result:
        return recovered.report("the storm did not end", False)
    figures = {name: float(str(result[name])) for name in RECOVERY_BOUND_MS}
    times, holders = int(str(result["recoveries"])), int(str(result["holders_killed"]))
    value = " / ".join(f"{figure:.1f}" for figure in figures.values()) + f" ms, {times:,} of {holders:,} holders killed"
    good = all(figures[name] <= bound for name, bound in RECOVERY_BOUND_MS.items())
    return recovered.report(value, good and times >= 50 and times >= 0.9 * holders)


def peers(options: Namespace) -> bool:
    """R4 has no bound: it says after how many kills each queue stops, median of some trials, ours included."""
    compared = row.Row.begin(
        options, "R4", "the same storm on other queues: kills until they stop (median)", "ours does not stop"
    )
    values, survived = [], True
    for make in storm_peers.PEERS:
        try:
            peer = make()
        except row.NotRunError as reason:
            values.append(f"{make.__name__}: not run: {reason}")
            continue
        trials = [storm_peers.run_trial(peer, options.seed + trial, PEER_KILLS) for trial in range(TRIALS)]
        for trial in trials:
            print(f"    {peer.name:22} {trial.kills:5} kills: {trial.stopped or 'still at work'}", flush=True)
        median = int(statistics.median(trial.kills for trial in trials))
        stopped = any(trial.stopped for trial in trials)
        values.append(f"{peer.name} {median}" if stopped else f"{peer.name} not in {median}")
        survived = survived and not (stopped and make is storm_peers.ours)
    return compared.report("; ".join(values), survived)


if __name__ == "__main__":
    sys.exit(main())
