"""
The ring's figures, one function per row of the table; see README.md for what each one means.

    pytest benchmarks/bench_ring.py            the whole table
    pytest benchmarks/bench_ring.py -k batch   some rows

A benchmark fails when a result of ours is wrong or missing, never because it is slow: speed is in the table.
"""

from __future__ import annotations

from typing import Any

import administration
import pytest

from conftest import Measure, Note, Record, bench


def bench_spsc_throughput_64_bytes(measure: Measure, note: Note) -> None:
    bench("one_to_one", measure, note)


def bench_spsc_throughput_64_bytes_one_core(measure: Measure, note: Note) -> None:
    bench("one_to_one_on_one_core", measure, note)


def bench_spsc_throughput_batches_of_100(measure: Measure, note: Note) -> None:
    bench("one_to_one_batches", measure, note)


def bench_spsc_throughput_small_objects(measure: Measure, note: Note) -> None:
    bench("one_to_one_objects", measure, note)


def bench_seq_pair_64_bytes(measure: Measure, note: Note) -> None:
    bench("pair_in_one_thread", measure, note)


@pytest.mark.parametrize("key", ["round_trip_on_two_cores", "round_trip_on_one_core"])
def bench_pingpong_busy(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


@pytest.mark.parametrize("key", ["wake_on_two_cores", "wake_on_one_core"])
def bench_spsc_wake_after_idle(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


@pytest.mark.parametrize("key", ["two_by_two", "eight_by_eight"])
def bench_mpmc_throughput_64_bytes(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


@pytest.mark.parametrize("key", ["megabyte_streamed", "megabyte_get"])
def bench_large_bytes(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


@pytest.mark.parametrize("key", ["megabyte_array_copy", "sixteen_megabyte_array_copy"])
def bench_spsc_array_own_copy(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


@pytest.mark.parametrize("key", ["megabyte_array_view", "sixteen_megabyte_array_view"])
def bench_spsc_array_leased_view(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


def bench_idle_blocked_consumer(arena: Any, record: Record) -> None:
    record("idle_consumer", administration.idle_consumers, arena)


@pytest.mark.parametrize("key", ["create", "attach"])
def bench_seq_open(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)


@pytest.mark.parametrize("key", ["thousand_rings", "thousand_rings_memory"])
def bench_seq_thousand_rings(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)
