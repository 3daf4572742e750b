"""k-nearest contexts: the mean of what followed the training contexts most like this one.

A context is known by its recency-weighted mean less the corpus mean; likeness is the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.arrays import in_blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import ALL, BLOCK, Index, ReadsContext, sample

MAX_KEYS = 32_768  # training contexts remembered, evenly spaced: 96 MiB at 768 dimensions


@dataclass(frozen=True)
class NearestContexts(ReadsContext):
    """keys [n, dim] unit vectors, targets [n] rows of `corpus`, the training corpus, that followed them."""

    corpus: Corpus
    keys: mx.array
    targets: np.ndarray
    mean: mx.array
    weights: mx.array
    neighbours: int
    name: str = "nearest-contexts"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return self.following(self.nearest(windows, index))

    def following(self, keys: np.ndarray) -> mx.array:
        """Mean of the chunks that followed the keys, [n, dim]."""
        return self.corpus.take(self.targets[keys]).mean(axis=1)

    def nearest(self, windows: Windows, index: Index = ALL) -> np.ndarray:
        """Which keys are nearest to each window's context, best first, [n, neighbours]."""
        queries = context_keys(windows, index, self.weights, self.mean)
        return best_columns(np.array(queries @ self.keys.T), self.neighbours)


def best_columns(scores: np.ndarray, count: int) -> np.ndarray:
    """Columns of the `count` largest scores of each row, best first; all of them where there are fewer.

    On the host: partial selection in NumPy is several times faster than MLX's on CPU.
    """
    count = min(count, scores.shape[1])
    chosen = np.argpartition(scores, scores.shape[1] - count, axis=1)[:, -count:]
    return np.take_along_axis(chosen, np.argsort(-np.take_along_axis(scores, chosen, axis=1), axis=1), axis=1)


def context_keys(windows: Windows, index: Index, weights: mx.array, mean: mx.array) -> mx.array:
    """Unit vectors [n, dim] of weights . context - mean, weights [context] oldest first, summing to 1."""
    return normalize(weights @ windows.contexts(index) - mean)


def fit_nearest_contexts(
    corpus: Corpus,
    train_documents: np.ndarray,
    weights: np.ndarray,
    mean: np.ndarray,
    validation: Windows,
    counts: tuple[int, ...],
) -> NearestContexts:
    """Remembers the contexts of the training documents; of `counts` keeps the best on `validation`.

    weights [context], oldest first. Raises InvalidFile where the training documents have no window.
    """
    known = sample(windows(corpus, train_documents, validation.context, "training documents"), MAX_KEYS)
    device_weights, device_mean = mx.array(weights.astype(np.float32)), mx.array(mean)
    keys = in_blocks(len(known), BLOCK, lambda block: context_keys(known, block, device_weights, device_mean))
    widest = NearestContexts(corpus, keys, known.targets, device_mean, device_weights, max(counts))
    totals = dict.fromkeys(counts, 0.0)
    for block in validation.blocks():
        nearest, truth = widest.nearest(validation, block), validation.truth(block)
        for count in counts:
            totals[count] += float(cosines(widest.following(nearest[:, :count]), truth).sum())
    return replace(widest, neighbours=max(counts, key=lambda count: totals[count]))
