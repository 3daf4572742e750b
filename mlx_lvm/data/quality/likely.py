"""Candidates for near duplicates through faiss, where looking at every pair would take hours.

Rows come in the few coordinates whose product is never below the cosine (see `duplicates`). faiss, in a
process of its own, sorts them into cells around centres and compares a row with those of the nearest cells
only; what passes is computed in full afterwards, so every pair that is reported is one, and a pair is missed
only where its rows lie in cells far apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mlx_lvm.core import faiss_process
from mlx_lvm.core.arrays import blocks
from mlx_lvm.errors import SetupInvalid

TOGETHER = 1 << 20  # pairs handed over together


def require_faiss() -> None:
    """Raises SetupInvalid with the remedy where faiss is not installed."""
    try:
        there = find_spec("faiss") is not None
    except ValueError:  # a module that says nothing of where it comes from
        there = False
    if not there:
        raise SetupInvalid(
            "the approximate search needs faiss: pip install 'mlx-lvm[faiss]'; --near searches without it"
        )


def likely_pairs(short: np.ndarray, bound: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs a < b of rows of short [n, K] of a product above `bound`: most of them, a million at a time."""
    require_faiss()
    with tempfile.TemporaryDirectory() as folder:
        rows, found = Path(folder) / "rows.npy", Path(folder) / "pairs"
        np.save(rows, np.ascontiguousarray(short, dtype=np.float32))
        faiss_process.run("pairs", rows, repr(float(bound)), found)
        for block in blocks(found.stat().st_size // 16, TOGETHER):
            count = 2 * (block.stop - block.start)
            pairs = np.fromfile(found, np.int64, count, offset=16 * block.start).reshape(-1, 2)
            yield pairs[:, 0], pairs[:, 1]
