"""Histories that no document holds: rolled-out ones, shuffled ones. Each becomes a document of a corpus made for it, so
that every predictor, model or closed form, reads them as it reads any other window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import ModelPredictor, Predictor
from mlx_lvm.predictors.lags import LagFilter

BLOCK_ROWS = 32_768  # rows of histories staged together: 96 MiB at 768 dimensions


@dataclass(frozen=True, eq=False)
class Stage:
    """vectors [rows, dim] float32: the histories one after the other, oldest chunk first; lengths [n] of each."""

    corpus: Corpus
    vectors: mx.array
    lengths: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    def windows(self, context: int) -> Windows:
        """One window a history: its last `context` chunks, predicting what would follow. There is no truth to read."""
        offsets = self.offsets
        names = tuple(map(str, range(len(self.lengths))))
        made = replace(
            self.corpus,
            vectors=self.vectors,
            scales=None,
            offsets=offsets,
            names=names,
            assigned=None,
            path=None,
        )
        return Windows(
            made,
            context,
            offsets[1:].astype(np.int32),
            offsets[:-1].astype(np.int32),
            np.arange(len(self.lengths)),
            0,
        )

    def extended(self, chunks: mx.array) -> Stage:
        """Every history with one chunk [n, dim] more at its end."""
        rows = int(self.lengths.sum())
        order = np.insert(np.arange(rows), self.offsets[1:], rows + np.arange(len(self.lengths)))
        vectors = mx.take(mx.concatenate([self.vectors, chunks]), mx.array(order.astype(np.int32)), axis=0)
        return Stage(self.corpus, vectors, self.lengths + 1)

    def reordered(self, order: np.ndarray) -> Stage:
        """The last k chunks of every history in another order: order [n, k], indices into those k, oldest first."""
        rows = np.arange(int(self.lengths.sum()))
        tail = self.offsets[1:, None] - order.shape[1] + np.arange(order.shape[1])
        rows[tail] = np.take_along_axis(tail, order, axis=1)
        return Stage(
            self.corpus, mx.take(self.vectors, mx.array(rows.astype(np.int32)), axis=0), self.lengths
        )


def stage(windows: Windows, index: slice | np.ndarray, predictor: Predictor) -> Stage:
    """What `predictor` may read of each window: the context for a model, up to the document so far for a closed form."""
    targets, lengths = windows.targets[index].astype(np.int64), histories(windows, predictor)[index]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = np.repeat(targets - lengths, lengths) + within
    return Stage(windows.corpus, windows.corpus.take(mx.array(rows.astype(np.int32))), lengths)


def stage_blocks(windows: Windows, predictor: Predictor) -> list[slice]:
    """Slices of the windows whose histories hold at most about BLOCK_ROWS chunks."""
    edges = np.flatnonzero(np.diff(np.cumsum(histories(windows, predictor)) // BLOCK_ROWS)) + 1
    return [slice(int(a), int(b)) for a, b in zip([0, *edges], [*edges, len(windows)], strict=True)]


def histories(windows: Windows, predictor: Predictor) -> np.ndarray:
    """How many chunks before each target the predictor can read, int64 [n]."""
    before = windows.targets.astype(np.int64) - windows.starts
    if isinstance(predictor, ModelPredictor):
        return np.full(len(windows), windows.context, dtype=np.int64)
    if isinstance(predictor, LagFilter) and not predictor.centroid_weight:
        return np.minimum(before, max(len(predictor.weights), windows.context))
    return before
