"""Closed-form baselines: what no trained network may be worse than. Fitted on training documents.

corpus-mean         m, the mean of the training targets
last                x_{t-1}
mean                mean of the context
recency             mean of the context weighted by decay^(age), decay by validation
document-so-far     mean of every chunk of the document before the target
shrunk-mean         a mean + b m, least squares
lag-filter          sum_k a_k x_{t-k} + b m over the context, least squares
lag-filter-centroid the same over 12 lags, also behind the context, and the document so far
ridge               linear map of the concatenated context, penalty by validation
nearest-contexts    mean of what followed the most similar training contexts, their number by validation
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.metrics.figures import mean_cosine
from mlx_lvm.predictors.base import ALL, Index, Predictor, ReadsContext, sample
from mlx_lvm.predictors.controls import BestInSpan, Oracle, RandomVector
from mlx_lvm.predictors.lags import centroids, filter_sums, mean_of_rows
from mlx_lvm.predictors.neighbours import fit_nearest_contexts
from mlx_lvm.predictors.ridge import fit_ridge

NAMES = (
    "corpus-mean",
    "last",
    "mean",
    "recency",
    "document-so-far",
    "shrunk-mean",
    "lag-filter",
    "lag-filter-centroid",
    "ridge",
    "nearest-contexts",
)
FILTERS = ("shrunk-mean", "lag-filter", "lag-filter-centroid")  # those that a file can hold as a model
CENTROID_LAGS = 12
DECAYS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
NEIGHBOURS = (16, 64, 256)
TUNING_WINDOWS = 10_000  # validation windows that hyper-parameters are chosen on, evenly spaced


@dataclass(frozen=True)
class CorpusMean(ReadsContext):
    """m for every window: the best constant."""

    mean: np.ndarray
    name: str = "corpus-mean"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return mx.broadcast_to(mx.array(self.mean), (len(windows.targets[index]), windows.corpus.dim))


@dataclass(frozen=True)
class Last(ReadsContext):
    """The last chunk repeated."""

    name: str = "last"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return windows.corpus.take(windows.targets[index] - 1)


@dataclass(frozen=True)
class ContextMean(ReadsContext):
    """Mean of the context."""

    name: str = "mean"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return windows.contexts(index).mean(axis=1)


@dataclass(frozen=True)
class Recency(ReadsContext):
    """Mean of the context weighted by decay^age, the last chunk having age 0."""

    decay: float
    name: str = "recency"

    def weights(self, context: int) -> np.ndarray:
        """[context], oldest first, summing to 1."""
        raw = self.decay ** np.arange(context - 1, -1, -1.0)
        return (raw / raw.sum()).astype(np.float32)

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return mx.array(self.weights(windows.context)) @ windows.contexts(index)


@dataclass(frozen=True)
class DocumentSoFar:
    """Centroid of every chunk of the document before the target, also of those before the context."""

    history: ClassVar[int | None] = None

    name: str = "document-so-far"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return centroids(windows.corpus, windows.targets[index], windows.starts[index])


def target_mean(corpus: Corpus, train_documents: np.ndarray, context: int) -> np.ndarray:
    """m: mean of the chunks that the training windows predict, float32 [dim]."""
    return mean_of_rows(corpus, windows(corpus, train_documents, context, "training documents").targets)


def fit_baselines(
    corpus: Corpus,
    train_documents: np.ndarray,
    val_documents: np.ndarray,
    context: int,
    only: tuple[str, ...] = NAMES,
) -> list[Predictor]:
    """The baselines named in `only`, in the order of `NAMES`. Raises InvalidFile without a window."""
    validation = sample(windows(corpus, val_documents, context, "validation documents"), TUNING_WINDOWS)
    sums = filter_sums(corpus, train_documents, max(context, CENTROID_LAGS), context)

    def score(predictor: Predictor) -> float:
        return mean_cosine(predictor, validation)

    recency = max((Recency(decay) for decay in DECAYS), key=score)
    fits: dict[str, Callable[[], Predictor]] = {
        "corpus-mean": lambda: CorpusMean(sums.mean),
        "last": Last,
        "mean": ContextMean,
        "recency": lambda: recency,
        "document-so-far": DocumentSoFar,
        "shrunk-mean": lambda: sums.shrunk_mean(context),
        "lag-filter": lambda: sums.filter(context),
        "lag-filter-centroid": lambda: sums.filter(max(context, CENTROID_LAGS), centroid=True),
        "ridge": lambda: fit_ridge(corpus, train_documents, context, score),
        "nearest-contexts": lambda: fit_nearest_contexts(
            corpus, train_documents, recency.weights(context), sums.mean, validation, NEIGHBOURS
        ),
    }
    return [fits[name]() for name in NAMES if name in only]


def controls(seed: int = 0) -> list[Predictor]:
    """What tests the metrics: perfect, bounded by the context's span, and at chance."""
    return [Oracle(), BestInSpan(), RandomVector(seed)]
