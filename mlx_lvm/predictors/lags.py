"""Lag statistics of a corpus, and the filters that follow from them in closed form.

A lag filter predicts with a handful of scalars, the same for every dimension:

    p_t = a_1 x_{t-1} + ... + a_K x_{t-K} + b m (+ g c_t)

m is the mean of the training targets and c_t the centroid of the document so far. Least squares over all training
windows needs inner products only, and those of all lags lie in a narrow band beside the diagonal of X X^T. A lag that
reaches before the document's first chunk takes that first chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.models.filter import Filter, FilterConfig
from mlx_lvm.predictors.base import ALL, Index, document_rows

BAND = 128  # rows of a diagonal block of X X^T
BANDS = 32  # diagonal blocks computed together
CENTROID_TARGETS, CENTROID_ROWS = 512, 8192  # targets and document rows of one averaging matrix


def mean_of_rows(corpus: Corpus, rows: np.ndarray, block: int = 8192) -> np.ndarray:
    """Mean vector [dim] of some rows, float32, summed in float64 over blocks."""
    total = np.zeros(corpus.dim)
    for start in range(0, len(rows), block):
        total += np.array(corpus.take(mx.array(rows[start : start + block].astype(np.int32))).sum(axis=0))
    return (total / len(rows)).astype(np.float32)


def centroids(corpus: Corpus, targets: np.ndarray, starts: np.ndarray) -> mx.array:
    """Mean of all chunks of the document before each target, [n, dim]: one averaging matrix a block, so nothing cancels."""
    parts = []
    for begin in range(0, len(targets), CENTROID_TARGETS):
        t, s = (
            targets[begin : begin + CENTROID_TARGETS].astype(np.int64),
            starts[begin : begin + CENTROID_TARGETS].astype(np.int64),
        )
        first, group = np.unique(s, return_inverse=True)
        last = np.zeros_like(first)
        np.maximum.at(last, group, t)
        rows = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)])
        total = mx.zeros((len(t), corpus.dim))
        for low in range(0, len(rows), CENTROID_ROWS):
            part = rows[low : low + CENTROID_ROWS]
            before = ((part >= s[:, None]) & (part < t[:, None])).astype(np.float32)
            total = total + mx.array(before) @ corpus.take(mx.array(part.astype(np.int32)))
            mx.eval(total)
        parts.append(total / mx.array((t - s).astype(np.float32))[:, None])
    return mx.concatenate(parts) if len(parts) > 1 else parts[0]


@dataclass(frozen=True)
class LagStatistics:
    """Inner products that every filter of up to `lags` lags is fitted from.

    products [n, lags + 1]: <x_i, x_{i-l}> of each training row i, never read across a document's start. positions [n]:
    place of the row in its document. with_mean [n]: <x_i, m>. with_past [n]: <x_i, sum of the document's chunks before i>.
    targets: indices into the n rows of the chunks that training windows predict.
    """

    mean: np.ndarray
    positions: np.ndarray
    products: np.ndarray
    with_mean: np.ndarray
    with_past: np.ndarray
    targets: np.ndarray

    @property
    def lags(self) -> int:
        return self.products.shape[1] - 1

    def gram(self, lags: int, centroid: bool) -> np.ndarray:
        """Sums over training windows of <f_a, f_b>, float64; f = (target, lag 1 .. lag K, mean, centroid of the past)."""
        t = self.targets
        at = [t, *[t - np.minimum(k, self.positions[t]) for k in range(1, lags + 1)]]
        size = len(at)
        out = np.zeros((size + 2, size + 2))
        for a in range(size):
            for b in range(a, size):
                out[a, b] = self.products[at[a], at[a] - at[b]].sum(dtype=np.float64)
            out[a, size] = self.with_mean[at[a]].sum(dtype=np.float64)
        out[size, size] = len(t) * float(self.mean.astype(np.float64) @ self.mean)
        out[:, size + 1] = self._centroid_column(at)
        out = np.triu(out) + np.triu(out, 1).T
        return out if centroid else out[:-1, :-1]

    def _centroid_column(self, at: list[np.ndarray]) -> np.ndarray:
        """Sums of <f_a, c_t>. With C_t the sum of the past: <C_t, x_r> = <C_r, x_r> + sum_{r <= i < t} <x_i, x_r>, and
        |C_{t+1}|^2 = |C_t|^2 + 2 <C_t, x_t> + |x_t|^2.
        """
        t = at[0]
        count = self.positions[t].astype(np.float64)
        column = [(self.with_past[t] / count).sum()]
        for row in at[1:]:
            past = self.with_past[row].astype(np.float64)
            for step in range(int((t - row).max())):
                inside = row + step < t
                past[inside] += self.products[row[inside] + step, step]
            column.append((past / count).sum())
        column.append((self._before(self.with_mean, t) / count).sum())
        column.append(
            (self._before(2 * self.with_past.astype(np.float64) + self.products[:, 0], t) / count**2).sum()
        )
        return np.array(column)

    def _before(self, values: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Sum of a per-row value over the document's rows before each target."""
        running = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        return running[t] - running[t - self.positions[t]]


def lag_statistics(corpus: Corpus, documents: np.ndarray, lags: int, context: int) -> LagStatistics:
    """One pass over the documents' rows, in blocks; no window is ever materialised.

    Raises InvalidFile where no document has a window of `context` + 1 chunks.
    """
    found = windows(corpus, documents, context, "training documents")
    rows = document_rows(corpus.offsets, documents)
    positions = rows - corpus.offsets[:-1][corpus.document_of(rows)]
    mean = mean_of_rows(corpus, found.targets)
    products, with_mean = _band(corpus, rows, lags, mean)
    with_past = np.zeros(len(rows), dtype=np.float32)
    later = np.flatnonzero(positions > 0)
    for start in range(0, len(later), CENTROID_TARGETS):
        part = later[start : start + CENTROID_TARGETS]
        past = centroids(corpus, rows[part], rows[part] - positions[part])
        inner = (past * corpus.take(mx.array(rows[part].astype(np.int32)))).sum(axis=1)
        with_past[part] = np.array(inner) * positions[part]
    return LagStatistics(
        mean, positions, products, with_mean, with_past, np.flatnonzero(positions >= context)
    )


def _band(corpus: Corpus, rows: np.ndarray, lags: int, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """<x_i, x_{i-l}> for l = 0..lags, of use where both rows are of one document, and <x_i, m>."""
    products = np.zeros((len(rows), lags + 1), dtype=np.float32)
    with_mean = np.zeros(len(rows), dtype=np.float32)
    device_mean = mx.array(mean)
    band = np.arange(BAND)[:, None] + lags - np.arange(lags + 1)
    span = BAND * BANDS
    for start in range(0, len(rows), span):
        blocks = start + BAND * np.arange(-(-min(span, len(rows) - start) // BAND))
        take = np.clip(blocks[:, None] + np.arange(-lags, BAND), 0, len(rows) - 1)
        x = corpus.take(mx.array(rows[take].astype(np.int32)))
        square = x[:, lags:] @ x.swapaxes(1, 2)
        inner = mx.take_along_axis(
            square, mx.array(np.broadcast_to(band, (len(blocks), *band.shape)).astype(np.int32)), axis=2
        )
        count = min(span, len(rows) - start)
        products[start : start + count] = np.array(inner).reshape(-1, lags + 1)[:count]
        with_mean[start : start + count] = np.array(x[:, lags:] @ device_mean).reshape(-1)[:count]
    return products, with_mean


@dataclass(frozen=True)
class LagFilter:
    """p_t = sum_k weights[k-1] x_{t-k} + mean_weight m + centroid_weight c_t. All scalars: `weights` [lags]."""

    name: str
    weights: np.ndarray
    mean_weight: float
    mean: np.ndarray
    centroid_weight: float = 0.0

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        targets, starts = windows.targets[index], windows.starts[index]
        rows = np.maximum(targets[:, None] - np.arange(1, len(self.weights) + 1), starts[:, None]).astype(
            np.int32
        )
        weights = mx.array(self.weights.astype(np.float32))
        out = (weights @ windows.corpus.take(mx.array(rows))) + self.mean_weight * mx.array(self.mean)
        if self.centroid_weight:
            out = out + self.centroid_weight * centroids(windows.corpus, targets, starts)
        return out

    def model(self) -> Filter:
        """The same filter as a model; the centroid is then that of the last 100 chunks of the document at most."""
        model = Filter(
            FilterConfig(dim=len(self.mean), lags=len(self.weights), centroid=bool(self.centroid_weight))
        )
        model.lag_weights = mx.array(self.weights.astype(np.float32))
        model.mean, model.mean_weight = mx.array(self.mean), mx.array([self.mean_weight], dtype=mx.float32)
        if self.centroid_weight:
            model.centroid_weight = mx.array([self.centroid_weight], dtype=mx.float32)
        return model


def fit_lag_filter(
    corpus: Corpus, train_documents: np.ndarray, lags: int, context: int | None = None
) -> LagFilter:
    """The least-squares lag filter of `lags` lags on every training window of `context` (default: `lags`) chunks."""
    return solve_filter(lag_statistics(corpus, train_documents, lags, context or lags), lags)


def solve_filter(statistics: LagStatistics, lags: int, centroid: bool = False) -> LagFilter:
    """The filter that minimises the summed squared error over the training windows."""
    weights = _least_squares(statistics.gram(lags, centroid), np.eye(lags + 1 + centroid))
    name = "lag-filter-centroid" if centroid else "lag-filter"
    return LagFilter(
        name,
        weights[:lags],
        float(weights[lags]),
        statistics.mean,
        float(weights[lags + 1]) if centroid else 0.0,
    )


def solve_shrunk_mean(statistics: LagStatistics, lags: int) -> LagFilter:
    """a mean(context) + b m: a lag filter whose weights are all equal."""
    combine = np.zeros((lags + 1, 2))
    combine[:lags, 0] = 1 / lags
    combine[lags, 1] = 1
    a, b = _least_squares(statistics.gram(lags, False), combine)
    return LagFilter("shrunk-mean", np.full(lags, a / lags), float(b), statistics.mean)


def _least_squares(gram: np.ndarray, combine: np.ndarray) -> np.ndarray:
    """Weights of the features combine^T f that best predict the target, from the Gram matrix of (target, f)."""
    return np.linalg.lstsq(combine.T @ gram[1:, 1:] @ combine, combine.T @ gram[1:, 0], rcond=None)[0]
