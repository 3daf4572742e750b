"""Lag filters: a few scalars, the same for every dimension, by least squares over all training windows.

    p_t = a_1 x_{t-1} + ... + a_K x_{t-K} + b m (+ g c_t)

m is the mean of the training targets and c_t the centroid of the document so far. A lag that reaches before
the document's first chunk takes that first chunk. Least squares needs the inner products of these vectors
with each other and with what is to be predicted, summed over the windows: one pass, in blocks. A filter of
fewer lags is solved from a part of the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.arrays import blocks, in_blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.models.filter import Filter, FilterConfig
from mlx_lvm.predictors.base import ALL, Index

BLOCK = 128  # windows whose vectors lie in memory in float64: 11 MiB for 12 lags of 768 dimensions
CENTROID_TARGETS, CENTROID_ROWS = 512, 8192  # targets and document rows of one averaging matrix


def mean_of_rows(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Mean vector [dim] of some rows, float32, summed in float64 over blocks."""
    total = np.zeros(corpus.dim)
    for part in blocks(len(rows), CENTROID_ROWS):
        total += np.array(corpus.take(rows[part]).sum(axis=0))
    return (total / len(rows)).astype(np.float32)


def centroids(corpus: Corpus, targets: np.ndarray, starts: np.ndarray) -> mx.array:
    """Mean of a document's chunks before each target, [n, dim]: a matrix a block, so nothing cancels."""

    def averaged(block: slice) -> mx.array:
        t, s = targets[block].astype(np.int64), starts[block].astype(np.int64)
        first, group = np.unique(s, return_inverse=True)
        last = np.zeros_like(first)
        np.maximum.at(last, group, t)
        rows = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
        total = mx.zeros((len(t), corpus.dim))
        for part in blocks(len(rows), CENTROID_ROWS):
            before = (rows[part] >= s[:, None]) & (rows[part] < t[:, None])
            total = total + mx.array(before.astype(np.float32)) @ corpus.take(rows[part])
            mx.eval(total)
        return total / mx.array((t - s).astype(np.float32))[:, None]

    return in_blocks(len(targets), CENTROID_TARGETS, averaged)


@dataclass(frozen=True)
class LagFilter:
    """p_t = sum_k weights[k-1] x_{t-k} + mean_weight m + centroid_weight c_t, weights [lags]."""

    name: str
    weights: np.ndarray
    mean_weight: float
    mean: np.ndarray
    centroid_weight: float = 0.0

    @property
    def history(self) -> int | None:
        """The centroid is that of the whole document so far."""
        return None if self.centroid_weight else len(self.weights)

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        targets, starts = windows.targets[index], windows.starts[index]
        last = windows.corpus.take(lagged_rows(targets, starts, len(self.weights)))
        out = mx.array(self.weights.astype(np.float32)) @ last + self.mean_weight * mx.array(self.mean)
        if self.centroid_weight:
            out = out + self.centroid_weight * centroids(windows.corpus, targets, starts)
        return out

    def model(self) -> Filter:
        """The same filter as a model, whose centroid is that of the document's last 100 chunks at most."""
        centroid = bool(self.centroid_weight)
        model = Filter(FilterConfig(dim=len(self.mean), lags=len(self.weights), centroid=centroid))
        model.lag_weights = mx.array(self.weights.astype(np.float32))
        model.mean, model.mean_weight = mx.array(self.mean), mx.array([self.mean_weight], dtype=mx.float32)
        if centroid:
            model.centroid_weight = mx.array([self.centroid_weight], dtype=mx.float32)
        return model


def lagged_rows(targets: np.ndarray, starts: np.ndarray, lags: int) -> np.ndarray:
    """Rows [n, lags] of the chunks before each target, the last one first; none before the document."""
    return np.maximum(targets[:, None] - np.arange(1, lags + 1), starts[:, None])


@dataclass(frozen=True)
class FilterSums:
    """Sums over training windows of inner products, float64; the vectors are f = (lag 1 .. lag K, m, c_t).

    inner [K + 2, K + 2]: of f with f. wanted [K + 2, horizons]: of f with the target and what follows it.
    """

    mean: np.ndarray
    inner: np.ndarray
    wanted: np.ndarray

    @property
    def lags(self) -> int:
        return len(self.inner) - 2

    def filter(self, lags: int, centroid: bool = False, horizon: int = 0) -> LagFilter:
        """The filter of `lags` lags with the least squared error of the chunk `horizon` after the target."""
        used = np.array([*range(lags), self.lags, *([self.lags + 1] if centroid else [])])
        solved = self._least_squares(np.eye(self.lags + 2)[:, used], horizon)
        name = "lag-filter-centroid" if centroid else "lag-filter"
        g = float(solved[lags + 1]) if centroid else 0.0
        return LagFilter(name, solved[:lags], float(solved[lags]), self.mean, g)

    def shrunk_mean(self, context: int) -> LagFilter:
        """a mean(context) + b m: a lag filter whose weights are all equal."""
        combine = np.zeros((self.lags + 2, 2))
        combine[:context, 0] = 1 / context
        combine[self.lags, 1] = 1
        a, b = self._least_squares(combine, 0)
        return LagFilter("shrunk-mean", np.full(context, a / context), float(b), self.mean)

    def _least_squares(self, combine: np.ndarray, horizon: int) -> np.ndarray:
        """Weights [k] of the vectors combine^T f, combine [K + 2, k]."""
        system, right = combine.T @ self.inner @ combine, combine.T @ self.wanted[:, horizon]
        return np.linalg.lstsq(system, right, rcond=None)[0]


def filter_sums(
    corpus: Corpus, documents: np.ndarray, lags: int, context: int, horizons: int = 1
) -> FilterSums:
    """What every filter of up to `lags` lags is solved from, over the windows with `horizons` chunks from the
    target on.

    m is the mean of the targets of all windows. Raises InvalidFile where no document has a window of
    `context` + 1 chunks.
    """
    every = windows(corpus, documents, context, "training documents")
    mean = mean_of_rows(corpus, every.targets)
    chosen = every.with_chunks_after(horizons)
    inner, wanted = np.zeros((lags + 2, lags + 2)), np.zeros((lags + 2, horizons))
    for block in chosen.blocks(CENTROID_TARGETS):
        targets, starts = chosen.targets[block], chosen.starts[block]
        last = corpus.take(lagged_rows(targets, starts, lags))
        so_far = centroids(corpus, targets, starts)
        y = corpus.take(targets[:, None] + np.arange(horizons))
        for part in blocks(len(targets), BLOCK):
            whole = np.broadcast_to(mean, (len(targets[part]), 1, corpus.dim))
            read = np.concatenate([np.array(last[part]), whole, np.array(so_far[part])[:, None]], axis=1)
            f, ahead = _columns(read), _columns(np.array(y[part]))
            inner += f @ f.T
            wanted += f @ ahead.T
    return FilterSums(mean, inner, wanted)


def _columns(vectors: np.ndarray) -> np.ndarray:
    """[n, k, dim] -> [k, n dim], float64: a filter is the same for every window and every dimension."""
    return vectors.swapaxes(0, 1).reshape(vectors.shape[1], -1).astype(np.float64)


def fit_lag_filter(corpus: Corpus, train_documents: np.ndarray, lags: int) -> LagFilter:
    """The lag filter of `lags` lags on every training window of as many chunks."""
    return filter_sums(corpus, train_documents, lags, lags).filter(lags)
