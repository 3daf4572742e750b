"""Ridge regression from the concatenated context to the next chunk, fitted from lag covariances.

    p = m_0 + sum_j W_j^T (x_{t-j} - m_j),   W = (G + penalty I)^-1 g

G holds the blocks G_jk = sum over windows of (x_{t-j} - m_j)(x_{t-k} - m_k)^T. A block depends on the lag k - j but for
the ends of the documents, so all of them follow from context + 1 lag covariances and the rows at either end: about a
quarter of the work of G itself, and no window is materialised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import InvalidFile
from mlx_lvm.predictors.base import ALL, Index, document_rows
from mlx_lvm.predictors.lags import mean_of_rows

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
START = PENALTIES.index(30.0)
MAX_WIDTH = 4096  # features; wider systems take minutes to solve, and older chunks add little
BLOCK = 8192


@dataclass(frozen=True)
class Ridge:
    """weights [lags * dim, dim], lag 1 first; offset [dim]."""

    name: str
    weights: mx.array
    offset: mx.array
    penalty: float

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        targets = mx.array(windows.targets[index])
        lags = self.weights.shape[0] // windows.corpus.dim
        x = windows.corpus.take(targets[:, None] - mx.arange(1, lags + 1, dtype=targets.dtype))
        return x.reshape(len(targets), -1) @ self.weights + self.offset


@dataclass(frozen=True)
class RidgeSystem:
    """Normal equations over the training windows: gram [K dim, K dim], cross [K dim, dim], means [K + 1, dim], float64."""

    gram: np.ndarray
    cross: np.ndarray
    means: np.ndarray

    def solve(self, penalty: float) -> Ridge:
        """The penalty is that of the summed squared error; the offset is not penalised."""
        system = self.gram.copy()
        system[np.diag_indices_from(system)] += penalty
        weights = np.linalg.solve(system, self.cross)
        offset = self.means[0] - self.means[1:].reshape(-1) @ weights
        return Ridge(
            "ridge", mx.array(weights.astype(np.float32)), mx.array(offset.astype(np.float32)), penalty
        )


def ridge_lags(context: int, dim: int) -> int:
    """How many of the last chunks the ridge reads."""
    return max(1, min(context, MAX_WIDTH // dim))


def fit_ridge(
    corpus: Corpus, train_documents: np.ndarray, context: int, score: Callable[[Ridge], float]
) -> Ridge:
    """The penalty climbs from 30 along `PENALTIES` while `score`, a figure of the validation documents, rises."""
    system = ridge_system(corpus, train_documents, ridge_lags(context, corpus.dim), context)
    found: dict[int, tuple[float, Ridge]] = {}

    def at(number: int) -> tuple[float, Ridge]:
        if number not in found:
            ridge = system.solve(PENALTIES[number])
            found[number] = (score(ridge), ridge)
        return found[number]

    best = START
    for step in (1, -1):
        while 0 <= best + step < len(PENALTIES) and at(best + step)[0] > at(best)[0]:
            best += step
    return found[best][1]


def ridge_system(corpus: Corpus, train_documents: np.ndarray, lags: int, context: int) -> RidgeSystem:
    """The blocks of G for j, k = 0 .. lags (0 is the target) over every window of `context` chunks.

    Raises InvalidFile where no document is long enough.
    """
    lengths = corpus.lengths[train_documents]
    documents = np.asarray(train_documents)[lengths > context]
    if len(documents) == 0:
        raise InvalidFile(
            f"corpus {corpus.name}: no training document has {context} + 1 chunks. Use a shorter --context."
        )
    rows = document_rows(corpus.offsets, documents)
    first = np.repeat(corpus.offsets[:-1][documents], corpus.lengths[documents])
    left = (
        np.repeat(corpus.offsets[1:][documents], corpus.lengths[documents]) - 1 - rows
    )  # chunks after the row
    origin = mean_of_rows(corpus, rows)  # subtracted first, so that float32 sums lose little

    # A row is lag j of some window where at least context - j chunks stand before it and j after it.
    used = np.stack([(rows - first >= context - j) & (left >= j) for j in range(lags + 1)])
    whole, sums = _covariances(corpus, rows, rows - first, used, origin, lags)
    starts, ends = corpus.offsets[:-1][documents], corpus.offsets[1:][documents]
    head = {
        (lag, m): _pairs(corpus, starts + m, lag, origin)
        for lag in range(lags + 1)
        for m in range(lag, context)
    }
    tail = {
        (lag, m): _pairs(corpus, ends - 1 - m, lag, origin)
        for lag in range(lags + 1)
        for m in range(lags - lag)
    }

    count = int(used[0].sum())
    shift = sums / count
    dim = corpus.dim
    gram = np.empty((lags + 1, dim, lags + 1, dim))
    for j in range(lags + 1):
        for k in range(j, lags + 1):
            lag = k - j
            block = (
                whole[lag]
                - sum(head[lag, m] for m in range(lag, context - j))
                - sum(tail[lag, m] for m in range(j))
            )
            block -= count * np.outer(shift[j], shift[k])
            gram[j, :, k], gram[k, :, j] = block, block.T
    width = lags * dim
    return RidgeSystem(
        gram[1:, :, 1:].reshape(width, width),
        np.ascontiguousarray(gram[1:, :, 0].reshape(width, dim)),
        origin.astype(np.float64) + shift,
    )


def _covariances(
    corpus: Corpus, rows: np.ndarray, positions: np.ndarray, used: np.ndarray, origin: np.ndarray, lags: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over all pairs of a document of z_r z_{r-l}^T, [lags + 1, dim, dim], and sum of z over the rows `used` as each lag."""
    whole, sums = np.zeros((lags + 1, corpus.dim, corpus.dim)), np.zeros((lags + 1, corpus.dim))
    for start in range(0, len(rows), BLOCK):
        stop = min(start + BLOCK, len(rows))
        low = max(start - lags, 0)
        z = corpus.take(mx.array(rows[low:stop].astype(np.int32))) - mx.array(origin)
        parts = []
        for lag in range(lags + 1):
            begin = min(max(start, low + lag), stop)
            inside = mx.array((positions[begin:stop] >= lag).astype(np.float32))[:, None]
            parts.append((z[begin - low :] * inside).T @ z[begin - lag - low : stop - lag - low])
        masked = mx.array(used[:, start:stop].astype(np.float32)) @ z[start - low :]
        mx.eval(*parts, masked)
        for lag, part in enumerate(parts):
            whole[lag] += np.array(part)
        sums += np.array(masked)
    return whole, sums


def _pairs(corpus: Corpus, rows: np.ndarray, lag: int, origin: np.ndarray) -> np.ndarray:
    """Sum over the rows of z_r z_{r-lag}^T, float64 [dim, dim]."""
    total = np.zeros((corpus.dim, corpus.dim))
    for start in range(0, len(rows), BLOCK):
        r = rows[start : start + BLOCK].astype(np.int32)
        z = [corpus.take(mx.array(part)) - mx.array(origin) for part in (r, r - lag)]
        total += np.array(z[0].T @ z[1])
    return total
