"""
The runtime, one function per row of the table; see README.md for what each one means.

    pytest benchmarks/bench_runtime.py            the whole table, about two minutes

A benchmark fails when a result of ours is wrong or missing, never because it is slow: speed is in the table.
"""

from __future__ import annotations

import dataflow

from conftest import Record


def bench_integer_pipeline(record: Record) -> None:
    record("dataflow_integers", dataflow.integer_pipeline)


def bench_word_count(record: Record) -> None:
    record("dataflow_words", dataflow.word_count)


def bench_on_ray(record: Record) -> None:
    record("dataflow_ray", dataflow.on_ray)


def bench_start_up(record: Record) -> None:
    record("dataflow_start", dataflow.start_up)


def bench_router(record: Record) -> None:
    record("dataflow_router", dataflow.router_cost)
