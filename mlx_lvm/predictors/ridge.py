"""Ridge regression from the concatenated context to the next chunk, or to each of several.

    p = m_0 + sum_j W_j^T (x_{t-j} - m_j),   W = (G + penalty I)^-1 g

G holds the blocks G_jk = sum over windows of z_{t-j} z_{t-k}^T, z = x - origin. From G_{j-1, k-1} to G_jk
every window looks one chunk further back: in each document one pair joins, one leaves, and all others stay.
So only G_0k is summed over all windows, a third of the work of G, and no window is materialised:

    G_jk = G_{j-1, k-1} + sum over documents of z_{s-j} z_{s-k}^T - z_{e-j} z_{e-k}^T

s is the row of the document's first target, e the row after its last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.arrays import blocks, ranges
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import InvalidFile
from mlx_lvm.predictors.base import ALL, Index, ReadsContext
from mlx_lvm.predictors.lags import mean_of_rows

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
START = PENALTIES.index(30.0)
MAX_WIDTH = 4096  # features; wider systems take minutes to solve, and older chunks add little
BLOCK = 8192


@dataclass(frozen=True)
class Ridge(ReadsContext):
    """weights [lags * dim, dim], lag 1 first; offset [dim]."""

    name: str
    weights: mx.array
    offset: mx.array
    penalty: float

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        targets = windows.targets[index]
        lags = self.weights.shape[0] // windows.corpus.dim
        x = windows.corpus.take(targets[:, None] - np.arange(1, lags + 1))
        return x.reshape(len(targets), -1) @ self.weights + self.offset


@dataclass(frozen=True)
class RidgeSystem:
    """Normal equations over the training windows, float64, for `horizons` chunks from the target on.

    gram [K dim, K dim], cross [K dim, horizons, dim], target_means [horizons, dim], context_means [K dim].
    """

    gram: np.ndarray
    cross: np.ndarray
    target_means: np.ndarray
    context_means: np.ndarray

    def solve(self, penalty: float, horizon: int = 0) -> Ridge:
        """The penalty is that of the summed squared error; the offset is not penalised."""
        diagonal = self.gram.diagonal().copy()  # in place, as solving copies it: 118 MB for 5 lags of 768
        np.fill_diagonal(self.gram, diagonal + penalty)
        weights = np.linalg.solve(self.gram, self.cross[:, horizon])
        np.fill_diagonal(self.gram, diagonal)
        offset = self.target_means[horizon] - self.context_means @ weights
        weights, offset = weights.astype(np.float32), offset.astype(np.float32)
        return Ridge("ridge", mx.array(weights), mx.array(offset), penalty)


def ridge_lags(context: int, dim: int) -> int:
    """How many of the last chunks the ridge reads."""
    return max(1, min(context, MAX_WIDTH // dim))


def fit_ridge(
    corpus: Corpus, train_documents: np.ndarray, context: int, score: Callable[[Ridge], float]
) -> Ridge:
    """The penalty climbs from 30 along `PENALTIES` while `score`, a figure of validation documents, rises."""
    system = ridge_system(corpus, train_documents, ridge_lags(context, corpus.dim), context)
    tried: dict[int, tuple[float, Ridge]] = {}

    def at(number: int) -> tuple[float, Ridge]:
        if number not in tried:
            ridge = system.solve(PENALTIES[number])
            tried[number] = (score(ridge), ridge)
        return tried[number]

    best = START
    for step in (1, -1):
        while 0 <= best + step < len(PENALTIES) and at(best + step)[0] > at(best)[0]:
            best += step
    return tried[best][1]


def ridge_system(
    corpus: Corpus, train_documents: np.ndarray, lags: int, context: int, horizons: int = 1
) -> RidgeSystem:
    """Over every window of `context` chunks and `horizons` targets, read by its last `lags` chunks.

    Raises InvalidFile where no document is long enough.
    """
    # Counted back from the last chunk to predict: 0 .. horizons - 1 are predicted, the `lags` ones before
    # them are read.
    furthest, back = horizons - 1 + lags, horizons - 1 + context
    documents = np.asarray(train_documents)
    documents = documents[corpus.lengths[documents] > back]
    if len(documents) == 0:
        raise InvalidFile(
            f"corpus {corpus.name}: no training document has {back} + 1 chunks. Use a shorter --context."
        )
    first, end = corpus.offsets[:-1][documents] + back, corpus.offsets[1:][documents]
    targets = ranges(first, end - first)
    origin = mean_of_rows(corpus, targets)  # subtracted first, so that float32 sums lose little
    blocks_of, sums = _diagonals(corpus, targets, first, end, furthest, origin)

    dim, count, mean = corpus.dim, len(targets), sums / len(targets)
    gram, cross = np.empty((lags, dim, lags, dim)), np.empty((lags, dim, horizons, dim))
    for (j, k), block in blocks_of.items():
        centred = block - count * np.outer(mean[j], mean[k])
        if j >= horizons:
            gram[j - horizons, :, k - horizons], gram[k - horizons, :, j - horizons] = centred, centred.T
        elif k >= horizons:
            cross[k - horizons, :, horizons - 1 - j] = centred.T
    means = origin.astype(np.float64) + mean
    return RidgeSystem(
        gram.reshape(lags * dim, lags * dim),
        cross.reshape(lags * dim, horizons, dim),
        means[:horizons][::-1],
        means[horizons:].reshape(-1),
    )


def _diagonals(
    corpus: Corpus, targets: np.ndarray, first: np.ndarray, end: np.ndarray, lags: int, origin: np.ndarray
) -> tuple[dict[tuple[int, int], np.ndarray], np.ndarray]:
    """(G_jk for 0 <= j <= k <= lags, sums over the windows of z_{t-j} [lags + 1, dim]), float64."""
    out: dict[tuple[int, int], np.ndarray] = {}
    sums = np.zeros((lags + 1, corpus.dim))
    sums[0] = _summed(corpus, targets, origin)
    for j in range(1, lags + 1):
        sums[j] = sums[j - 1] + _summed(corpus, first - j, origin) - _summed(corpus, end - j, origin)
    for lag in range(lags + 1):
        block = _pairs(corpus, targets, targets - lag, origin)
        out[0, lag] = block
        for j in range(1, lags + 1 - lag):
            joined = _pairs(corpus, first - j, first - j - lag, origin)
            block = block + joined - _pairs(corpus, end - j, end - j - lag, origin)
            out[j, j + lag] = block
    return out, sums


def _summed(corpus: Corpus, rows: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Sum over the rows of z, float64 [dim]."""
    total = np.zeros(corpus.dim)
    for block in blocks(len(rows), BLOCK):
        total += np.array((corpus.take(rows[block]) - mx.array(origin)).sum(axis=0))
    return total


def _pairs(corpus: Corpus, rows: np.ndarray, others: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Sum over the pairs of rows of z_row z_other^T, float64 [dim, dim]."""
    total, centre = np.zeros((corpus.dim, corpus.dim)), mx.array(origin)
    for block in blocks(len(rows), BLOCK):
        z, other = corpus.take(rows[block]) - centre, corpus.take(others[block]) - centre
        total += np.array(z.T @ other)
    return total
