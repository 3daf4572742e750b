"""Texts of many lengths in batches of few shapes: sorted, and padded to lengths and rows that come again.

A compiled function is traced once a shape. The longest come first: what does not fit in memory fails at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Lengths are rounded up to a multiple of the step; the second number is where a step ends.
STEPS = ((8, 256), (32, 512), (128, 1 << 30))


@dataclass(frozen=True)
class Batch:
    """Rows [n] of its texts, and its shape: `size` >= n rows of `length` tokens. What is over is padding."""

    rows: np.ndarray
    size: int
    length: int


def padded(length: int) -> int:
    """The length that a text of so many tokens is padded to."""
    step = next(step for step, end in STEPS if length <= end)
    return -(-length // step) * step


def plan(
    lengths: Sequence[int], tokens: int, most: int, longest: int, exact: bool = False
) -> Iterator[Batch]:
    """Batches of about `tokens` tokens, padding counted, and at most `most` texts; every text once.

    lengths: each from 1 to `longest`, which no text is padded past: a model has no position there.
    exact: shapes need not come again: no token or row too many, and as near to `tokens` as rows allow.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    at = 0
    while at < len(order):
        length = int(lengths[order[at]])
        length = length if exact else min(padded(length), longest)
        fitting = max(1, round(tokens / length) if exact else tokens // length)
        full = max(1, min(most, fitting if exact else power_below(fitting)))
        rows = order[at : at + full]
        yield Batch(rows, len(rows) if exact else min(full, power_above(len(rows))), length)
        at += len(rows)


def power_below(count: int) -> int:
    """The largest power of two up to `count`."""
    return 1 << (count.bit_length() - 1)


def power_above(count: int) -> int:
    """The smallest power of two from `count` on."""
    return 1 << (count - 1).bit_length()
