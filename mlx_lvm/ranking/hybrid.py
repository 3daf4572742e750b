"""Hybrid ranking: prediction, last chunk, document so far and the mean of the corpus, fused into one query.

    score(c) = a <p, c> + b <last, c> + d <document, c> + e <m, c> = <q, c>        P(c) = exp score(c) / sum
    over candidates

The weights maximise the likelihood of the true next chunk of validation windows among every other chunk of
the corpus, and which terms have one is chosen by ranking, see `mixture`. A candidate like everything else is
a bad guess: e comes out negative, which is what taking the mean off does to a cosine. The score is an inner
product, so q is ranked like any prediction, exactly and in one product; its length is the inverse temperature
that makes the softmax a probability.

A model made for ranking has its own fusion inside: of the four it keeps the prediction alone, whose weight is
the inverse temperature.

A query of the reader is one term more; its weight is fitted on validation windows whose query is another
chunk of the document.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import ALL, Index, ModelPredictor, Predictor
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.terms import RankingTerms, term_vectors


def fuses(predictor: Predictor) -> bool:
    """Whether anything else is fused with the prediction."""
    return (
        not isinstance(predictor, ModelPredictor | HistoryPredictor)
        or predictor.model.config.objective == "predict"
    )


@dataclass(frozen=True, eq=False)
class Hybrid:
    """A predictor's query q in place of its prediction: for whoever ranks, not for whoever wants a vector."""

    history: ClassVar[int | None] = None  # the document so far is a term

    inner: Predictor
    weights: RankingTerms
    mean: np.ndarray

    @property
    def name(self) -> str:
        return f"{self.inner.name} + hybrid"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        raw = self.inner.predict(windows, index)
        return term_vectors(raw, windows, index, self.mean).fuse(self.weights)
