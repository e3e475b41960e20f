"""How large items are, what form they have, and which keys: all follows from the seed and the place of the item."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate
from random import Random
from typing import cast

FORMS = ("bytes", "dict", "numpy")
DISTRIBUTIONS = ("fixed", "uniform", "lognormal", "zipf")
LARGEST_BYTES = 1 << 26
TABLE = 4093
"""Sizes and keys are drawn once for so many places, and repeat; prime, so that neighbouring origins differ."""
ORIGIN_STRIDE = 997


@dataclass(frozen=True, kw_only=True)
class Payload:
    """
    What the items of a run are made of.

    Attributes:
        form: ``bytes``, a ``dict`` that holds them, or a ``numpy`` array of them.
        distribution: ``fixed``: always ``size_bytes``; ``uniform``: from ``low_bytes`` to ``size_bytes``;
            ``lognormal``: of the median ``size_bytes`` with ``sigma``; ``zipf``: one of 16 steps up to ``size_bytes``,
            small ones most often, with exponent ``skew``.
        size_bytes: See there; none is larger than `LARGEST_BYTES`.
        low_bytes: See there.
        sigma: Standard deviation of the logarithm, of a lognormal size.
        skew: Exponent of a zipf size.
        keys: How many different keys the items have.
        key_skew: Exponent of their zipf distribution; 0: all equally often.
    """

    form: str = "bytes"
    distribution: str = "fixed"
    size_bytes: int = 64
    low_bytes: int = 0
    sigma: float = 1.0
    skew: float = 1.2
    keys: int = 64
    key_skew: float = 1.0

    def sizes(self, seed: int) -> tuple[int, ...]:
        """The drawn sizes, one for each place of the table."""
        random = Random(f"sizes/{seed}")
        if self.distribution == "fixed":
            return (self.size_bytes,) * TABLE
        if self.distribution == "uniform":
            return tuple(random.randint(self.low_bytes, self.size_bytes) for _ in range(TABLE))
        if self.distribution == "lognormal":
            middle = math.log(max(self.size_bytes, 1))
            drawn = (int(random.lognormvariate(middle, self.sigma)) for _ in range(TABLE))
            return tuple(min(one, LARGEST_BYTES) for one in drawn)
        steps = [max(self.size_bytes * step // 16, 1) for step in range(1, 17)]
        return tuple(random.choices(steps, [step**-self.skew for step in range(1, 17)], k=TABLE))

    def drawn_keys(self, seed: int) -> tuple[int, ...]:
        """The drawn keys, one for each place of the table."""
        weights = list(accumulate((key + 1) ** -self.key_skew for key in range(self.keys)))
        return tuple(Random(f"keys/{seed}").choices(range(self.keys), cum_weights=weights, k=TABLE))


def place_of(origin: int, sequence: int) -> int:
    """Of an item in the tables."""
    return (sequence + ORIGIN_STRIDE * origin) % TABLE


def dressed(form: str, content: bytes, sequence: int) -> object:
    """Give bytes their form."""
    if form == "dict":
        return {"sequence": sequence, "content": content, "tags": ["a", "b"], "weight": sequence / 2}
    if form == "numpy":
        import numpy

        return numpy.frombuffer(content, dtype=numpy.uint8)
    return content


def undressed(form: str, payload: object) -> bytes | None:
    """The bytes in a payload of that form; None when it has another form."""
    if form == "dict":
        if not isinstance(payload, dict) or set(payload) != {"sequence", "content", "tags", "weight"}:
            return None
        if payload["tags"] != ["a", "b"] or payload["weight"] != payload["sequence"] / 2:
            return None
        content = payload["content"]
        return content if isinstance(content, bytes) else None
    if form == "numpy":
        return cast(bytes, payload.tobytes()) if hasattr(payload, "tobytes") and hasattr(payload, "dtype") else None
    return payload if isinstance(payload, bytes) else None
