"""
The kinds of queues, one function per row of the table; see README.md for what each one means.

    pytest benchmarks/bench_queues.py             the whole table, about three minutes
    pytest benchmarks/bench_queues.py -k import   some rows

A benchmark fails when a result of ours is wrong or missing, never because it is slow: speed is in the table.
"""

from __future__ import annotations

from typing import Any

import programs
import pytest

from conftest import Measure, Note, Record, bench


@pytest.mark.parametrize("key", ["facade_pair", "local_pair"])
def bench_seq_pair_64_bytes(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


@pytest.mark.parametrize("key", ["kinds_one_to_one", "kinds_batches"])
def bench_spsc_throughput_64_bytes(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


def bench_spsc_throughput_64_bytes_over_a_socket(record: Record) -> None:
    record("over_a_socket", programs.over_a_socket)


@pytest.mark.parametrize("place", ["home", "across"])
def bench_seq_throughput_on_ray(place: str, record: Record) -> None:
    record(f"ray_{place}", programs.on_ray, place)


def bench_idle_blocked_consumer(arena: Any, record: Record) -> None:
    record("kinds_idle", programs.idle_consumers, arena)


def bench_import(record: Record) -> None:
    record("imports", programs.imports)
