"""Histories that no document holds: rolled out, shuffled. Each becomes a document of a corpus made for it,
so that every predictor, model or baseline, reads it as it reads any other window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.arrays import ranges
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import Index, Predictor

BLOCK_ROWS = 32_768  # rows of histories made together: 96 MiB at 768 dimensions


@dataclass(frozen=True, eq=False)
class SyntheticHistories:
    """vectors [rows, dim] float32: the histories one after the other, oldest chunk first; lengths [n]."""

    corpus: Corpus
    vectors: mx.array
    lengths: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def windows(self, context: int) -> Windows:
        """One window a history: its last `context` chunks. There is no truth to read."""
        offsets, numbers = self.offsets, np.arange(len(self.lengths))
        stored = replace(self.corpus, vectors=self.vectors, scales=None, path=None)
        made = replace(stored, offsets=offsets, names=tuple(map(str, numbers)), assigned=None)
        starts, targets = offsets[:-1].astype(np.int32), offsets[1:].astype(np.int32)
        return Windows(made, context, targets, starts, numbers, skipped=0)

    def extended(self, chunks: mx.array) -> SyntheticHistories:
        """Every history with one chunk [n, dim] more at its end."""
        rows = int(self.lengths.sum())
        order = np.insert(np.arange(rows), self.offsets[1:], rows + np.arange(len(self.lengths)))
        vectors = mx.take(mx.concatenate([self.vectors, chunks]), mx.array(order.astype(np.int32)), axis=0)
        return SyntheticHistories(self.corpus, vectors, self.lengths + 1)

    def reordered(self, order: np.ndarray) -> SyntheticHistories:
        """The last k chunks of every history in another order [n, k], indices into those k."""
        rows = np.arange(int(self.lengths.sum()))
        tail = self.offsets[1:, None] - order.shape[1] + np.arange(order.shape[1])
        rows[tail] = np.take_along_axis(tail, order, axis=1)
        vectors = mx.take(self.vectors, mx.array(rows.astype(np.int32)), axis=0)
        return SyntheticHistories(self.corpus, vectors, self.lengths)


def synthetic_histories(windows: Windows, index: Index, predictor: Predictor) -> SyntheticHistories:
    """What `predictor` may read of each of the chosen windows."""
    targets, lengths = windows.targets[index].astype(np.int64), history_lengths(windows, predictor)[index]
    vectors = windows.corpus.take(ranges(targets - lengths, lengths))
    return SyntheticHistories(windows.corpus, vectors, lengths)


def history_blocks(windows: Windows, predictor: Predictor) -> list[slice]:
    """Slices of the windows whose histories hold at most about BLOCK_ROWS chunks."""
    edges = np.flatnonzero(np.diff(np.cumsum(history_lengths(windows, predictor)) // BLOCK_ROWS)) + 1
    return [slice(int(a), int(b)) for a, b in zip([0, *edges], [*edges, len(windows)], strict=True)]


def history_lengths(windows: Windows, predictor: Predictor) -> np.ndarray:
    """How many chunks before each target the predictor can read, the context at least, int64 [n]."""
    before, most = windows.targets.astype(np.int64) - windows.starts, predictor.history
    return before if most is None else np.minimum(before, max(most, windows.context))
