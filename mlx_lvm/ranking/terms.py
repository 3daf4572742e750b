"""What is fused into a ranking: the prediction, what was read, and the mean; as weights, and as vectors.

    q = a p + b last + d document + e m (+ f query)

All but m, the mean of the training targets, are unit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Index
from mlx_lvm.predictors.lags import centroids


@dataclass(frozen=True)
class RankingTerms:
    """The weight of each term; 0 for what is not fused."""

    prediction: float = 0.0
    last: float = 0.0
    document: float = 0.0
    mean: float = 0.0
    query: float = 0.0

    def array(self) -> np.ndarray:
        """[5], in the order of TERMS."""
        return np.array([getattr(self, name) for name in TERMS])

    @property
    def used(self) -> list[str]:
        """The terms that have a weight."""
        return [name for name in TERMS if getattr(self, name)]


TERMS = tuple(field.name for field in fields(RankingTerms))
READ = TERMS[:-1]  # what there is without a reader's query


@dataclass(frozen=True, eq=False)
class TermVectors:
    """The vectors [n, dim] that the terms of a ranking stand for; `query` is None where nobody asked."""

    prediction: mx.array
    last: mx.array
    document: mx.array
    mean: mx.array
    query: mx.array | None = None

    def fuse(self, weights: RankingTerms) -> mx.array:
        """q [n, dim]."""
        names = READ if self.query is None else TERMS
        stacked = mx.stack([getattr(self, name) for name in names], axis=1)
        return mx.array(weights.array()[: len(names)].astype(np.float32)) @ stacked


def term_vectors(
    raw: mx.array, windows: Windows, index: Index, mean: np.ndarray, query: mx.array | None = None
) -> TermVectors:
    """The terms of the chosen windows. raw [n, dim]: the model's predictions; query [n, dim]: a reader's."""
    corpus, targets, starts = windows.corpus, windows.targets[index], windows.starts[index]
    return TermVectors(
        prediction=normalize(raw),
        last=normalize(corpus.take(targets - 1)),
        document=normalize(centroids(corpus, targets, starts)),
        mean=mx.broadcast_to(mx.array(mean), raw.shape),
        query=None if query is None else normalize(query),
    )
