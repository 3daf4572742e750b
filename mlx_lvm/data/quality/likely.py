"""Candidates for near duplicates through faiss, where looking at every pair would take hours.

Rows come in the few coordinates whose product is never below the cosine (see `duplicates`). faiss sorts them into cells around
centres and compares a row with those of the nearest cells only; what passes is computed in full afterwards, so every pair
that is reported is one, and a pair is missed only where its two rows lie in cells far apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlx_lvm.errors import SetupInvalid

PROBED = 16  # cells that a row is compared with
PER_CELL = 256  # rows of a cell, about
TRAINED = 64  # rows a cell that its centre is found from, at most
QUERIES = 4096  # rows whose candidates are in memory together


def require_faiss() -> Any:
    """The module. Raises SetupInvalid with the remedy where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise SetupInvalid(
            "the approximate search needs faiss: pip install 'mlx-lvm[faiss]'; --near searches without it"
        ) from None
    return faiss


def likely_pairs(short: np.ndarray, bound: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs a < b of rows of short [n, K] whose product is above `bound`, most of them, some thousand rows at a time."""
    faiss = require_faiss()
    cells = max(1, len(short) // PER_CELL)
    centres = faiss.IndexFlatIP(short.shape[1])
    index = faiss.IndexIVFFlat(centres, short.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = 0, TRAINED, 1
    index.train(short[:: max(1, len(short) // (cells * TRAINED))])
    index.add(short)
    index.nprobe = min(PROBED, cells)
    for start in range(0, len(short), QUERIES):
        limits, _, found = index.range_search(short[start : start + QUERIES], bound)
        rows = np.repeat(np.arange(start, start + len(limits) - 1), np.diff(limits.astype(np.int64)))
        later = found > rows
        yield rows[later], found[later]
