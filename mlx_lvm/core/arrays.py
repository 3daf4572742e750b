"""Small things that arrays are asked for again and again: ragged ranges, places, groups, work in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from mlx_lvm.core.mlx import mx


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """start, start + 1, ... of every range, one after the other, int64 [sum of lengths].

    ranges([10, 20], [3, 2]) is [10, 11, 12, 20, 21].
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(np.asarray(starts, dtype=np.int64) - before, lengths) + np.arange(lengths.sum())


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """At most `limit` of the places 0 .. count - 1, first and last among them, int64; no random choice."""
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    return np.linspace(0, count - 1, limit).round().astype(np.int64)


def pack(sizes: np.ndarray, limit: int) -> np.ndarray:
    """Edges [groups + 1] of neighbours that together make at most `limit`; what is larger stands alone."""
    ends = np.cumsum(sizes)
    edges = [0]
    while edges[-1] < len(sizes):
        before = ends[edges[-1] - 1] if edges[-1] else 0
        edges.append(max(edges[-1] + 1, int(np.searchsorted(ends, before + limit, side="right"))))
    return np.array(edges, dtype=np.int64)


def blocks(count: int, size: int) -> Iterator[slice]:
    """0 .. count - 1 in slices of at most `size`."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def in_blocks(count: int, size: int, compute: Callable[[slice], mx.array]) -> mx.array:
    """`compute` of every slice of 0 .. count - 1, evaluated one by one, concatenated along the first axis.

    MLX is lazy: without the evaluation, all blocks would lie in memory together. `count` is at least 1.
    """
    parts = []
    for block in blocks(count, size):
        parts.append(compute(block))
        mx.eval(parts[-1])
    return mx.concatenate(parts) if len(parts) > 1 else parts[0]


def not_finite(arrays: Mapping[str, mx.array]) -> list[str]:
    """Names of the floating-point arrays that hold NaN or infinity; the device is asked once for all."""
    names = [name for name, value in arrays.items() if mx.issubdtype(value.dtype, mx.floating)]
    if not names:
        return []
    finite = np.array(mx.stack([mx.isfinite(arrays[name]).all() for name in names]))
    return [name for name, good in zip(names, finite.tolist(), strict=True) if not good]
