"""Hybrid ranking: prediction, last chunk, document so far and the mean of the corpus, fused into one query.

    score(c) = a <p, c> + b <last, c> + d <document, c> + e <m, c> = <q, c>        P(c) = exp score(c) / sum over candidates

All but m, the mean of the training targets, are unit vectors. The weights maximise the likelihood of the true next chunk of
validation windows among every other chunk of the corpus: a multinomial logit, convex, solved by Newton's method. A candidate
like everything else is a bad guess: e comes out negative, which is what taking the mean off does to a cosine. The score is an
inner product, so q is ranked like any prediction, exactly and in one product; its length is the inverse temperature that makes
the softmax a probability.

A model made for ranking has its own fusion inside: of the four it keeps the prediction alone, whose weight is the inverse
temperature.

A query of the reader is one term more; its weight is fitted on validation windows whose query is another chunk of the document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import ALL, Index, ModelPredictor, Predictor
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.predictors.lags import centroids

TERMS = ("prediction", "last", "document", "mean")
QUERY = "query"  # the fifth term, where there is one
CANDIDATES = 20_000  # of a larger corpus, so many chunks evenly spaced stand for all
RIDGE = 1e-5  # on the weights: decides between terms that say the same, and bounds those that no window contradicts
NEWTON_STEPS = 50
CONVERGED = 1e-5  # nats a step may still promise


def fused_terms(
    raw: mx.array, windows: Windows, index: Index, mean: np.ndarray, query: mx.array | None = None
) -> mx.array:
    """What is fused, [n, 4, dim] or, with a query [n, dim], [n, 5, dim]; raw [n, dim] are the model's predictions."""
    corpus, targets, starts = windows.corpus, windows.targets[index], windows.starts[index]
    parts = [
        normalize(raw),
        normalize(corpus.take(mx.array(targets - 1))),
        normalize(centroids(corpus, targets, starts)),
        mx.broadcast_to(mx.array(mean), raw.shape),
        *([] if query is None else [normalize(query)]),
    ]
    return mx.stack(parts, axis=1)


def fuses(predictor: Predictor) -> bool:
    """Whether anything else is fused with the prediction."""
    return (
        not isinstance(predictor, ModelPredictor | HistoryPredictor)
        or predictor.model.config.objective == "predict"
    )


def fuse(terms: mx.array, weights: Sequence[float]) -> mx.array:
    """q [n, dim] from terms [n, k, dim] and k weights."""
    return mx.array(np.array(weights, np.float32)) @ terms


@dataclass(frozen=True, eq=False)
class Hybrid:
    """A predictor's query q in place of its prediction: for whoever ranks, not for whoever wants the vector."""

    inner: Predictor
    weights: Sequence[float]
    mean: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.inner.name} + hybrid"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return fuse(fused_terms(self.inner.predict(windows, index), windows, index, self.mean), self.weights)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Chunks that a query is ranked against: rows [m] int32 of the corpus, their unit vectors [m, dim]."""

    corpus: Corpus
    rows: mx.array
    vectors: mx.array

    def __len__(self) -> int:
        return int(self.rows.shape[0])


def candidate_rows(count: int) -> np.ndarray:
    """Every row of a corpus of `count` chunks, or CANDIDATES of them, evenly spaced; int32."""
    return (
        np.arange(count, dtype=np.int32)
        if count <= CANDIDATES
        else np.linspace(0, count - 1, CANDIDATES).round().astype(np.int32)
    )


def candidates_of(corpus: Corpus) -> Candidates:
    rows = mx.array(candidate_rows(len(corpus)))
    return Candidates(corpus, rows, normalize(corpus.take(rows)))


def products(queries: mx.array, windows: Windows, index: Index, candidates: Candidates) -> mx.array:
    """Inner products [n, k, m + 1] of queries [n, k, dim] with every candidate and, last, with the truth of their window."""
    n, k, dim = queries.shape
    with_candidates = (queries.reshape(n * k, dim) @ candidates.vectors.T).reshape(n, k, -1)
    with_truth = (queries * normalize(windows.truth(index))[:, None]).sum(axis=2, keepdims=True)
    return mx.concatenate([with_candidates, with_truth], axis=2)


def offsets_of(
    windows: Windows, index: Index, candidates: Candidates, avoid: np.ndarray | None = None
) -> mx.array:
    """What is added to the scores of `products`, [n, m + 1]: the log of how many chunks a candidate stands for, 0 for the truth,
    and -inf for what is no candidate of its window: its context, the truth a second time, and the row `avoid` [n].
    """
    targets, rows = mx.array(windows.targets[index])[:, None], candidates.rows[None]
    out = (rows >= targets - windows.context) & (rows <= targets)
    if avoid is not None:
        out = out | (rows == mx.array(avoid.astype(np.int32))[:, None])
    others = len(candidates.corpus) - windows.context - 1 - (avoid is not None)
    stands_for = mx.log(others / mx.maximum(mx.logical_not(out).sum(axis=1, keepdims=True), 1))
    return mx.concatenate([mx.where(out, -mx.inf, stands_for), mx.zeros((len(targets), 1))], axis=1)


def fit_logit(features: mx.array, offsets: mx.array) -> np.ndarray:
    """Weights w [k] that maximise mean log softmax(w . features + offsets) at the last column, less RIDGE / 2 |w|^2.

    features [n, k, m], offsets [n, m]. Newton's method with backtracking from w = 0; the same input gives the same weights.
    """
    n, k, _ = features.shape
    weights = np.zeros(k)
    value = _objective(features, offsets, weights)
    for _ in range(NEWTON_STEPS):
        probability = mx.softmax(_scores(features, offsets, weights), axis=1)
        weighted = features * probability[:, None]
        expected = np.array(weighted.sum(axis=2), dtype=np.float64)
        second = np.array((weighted @ features.swapaxes(1, 2)).sum(axis=0), dtype=np.float64)
        gradient = (np.array(features[:, :, -1], dtype=np.float64) - expected).mean(axis=0) - RIDGE * weights
        step = np.linalg.solve((second - expected.T @ expected) / n + RIDGE * np.eye(k), gradient)
        promised, length = float(gradient @ step), 1.0
        if promised < CONVERGED:
            break
        while (
            found := _objective(features, offsets, weights + length * step)
        ) < value + 1e-4 * length * promised and length > 1e-6:
            length /= 2
        weights, value = weights + length * step, found
    return weights


def _scores(features: mx.array, offsets: mx.array, weights: np.ndarray) -> mx.array:
    return (mx.array(weights.astype(np.float32))[None, None] @ features)[:, 0] + offsets


def _objective(features: mx.array, offsets: mx.array, weights: np.ndarray) -> float:
    scores = _scores(features, offsets, weights)
    return float((scores[:, -1] - mx.logsumexp(scores, axis=1)).mean()) - RIDGE / 2 * float(weights @ weights)
