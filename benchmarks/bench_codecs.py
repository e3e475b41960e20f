"""
The codecs next to the libraries beneath them, one row for each message; see README.md for what each one means.

    pytest benchmarks/bench_codecs.py          about half a minute

A benchmark fails when a message comes back changed, never because it is slow: speed is in the table.
"""

from __future__ import annotations

import pytest

from conftest import Measure, Note, bench

SECONDS = 0.06  # runs are short: one process, no waiting, and many turns even in this time


@pytest.mark.parametrize("key", ["codec_small_bytes", "codec_small_tuple", "codec_large_bytes", "codec_large_array"])
def bench_seq_encode_and_decode(key: str, measure: Measure, note: Note) -> None:
    bench(key, measure, note)
