"""How good a prediction will be: the cosine with the true next chunk that is to be expected of it.

    expected cosine = c_0 + sum_k c_k feature_k

The features cost nothing once the prediction is there, and the coefficients are least squares on validation
windows:

best     highest cosine of the prediction with a candidate: nothing is near a prediction that hedges
last     cosine of the prediction with the last chunk
context  length of the context's mean: 1 where all its chunks say the same
mean     cosine of the prediction with the mean of the corpus
length   of the raw prediction: a regression shrinks where it does not know
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Interval, JsonObject, Result
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Index

FEATURES = ("best", "last", "context", "mean", "length")
BINS = 10


def features_of(
    raw: mx.array, windows: Windows, index: Index, mean: np.ndarray, best: mx.array
) -> np.ndarray:
    """[n, 5] float64. raw [n, dim]; best [n]: highest cosine of the prediction with a candidate."""
    context = normalize(windows.contexts(index))
    parts = [
        best,
        cosines(raw, context[:, -1]),
        mx.linalg.norm(context.mean(axis=1), axis=1),
        cosines(raw, mx.array(mean)[None]),
        mx.linalg.norm(raw, axis=1),
    ]
    return np.array(mx.stack(parts, axis=1), dtype=np.float64)


@dataclass(frozen=True)
class Confidence:
    """The coefficients of the features, in their order."""

    intercept: float
    coefficients: tuple[float, ...]

    def expected_cosine(self, features: np.ndarray) -> np.ndarray:
        """[n] from features [n, 5]."""
        return np.clip(self.intercept + features @ np.array(self.coefficients), -1, 1)


def fit_confidence(features: np.ndarray, achieved: np.ndarray) -> Confidence:
    """Least squares of cosines `achieved` [n]; a feature [n, 5] that is the same everywhere gets nothing."""
    middle = features.mean(axis=0)
    solved = np.linalg.lstsq(features - middle, achieved - achieved.mean(), rcond=1e-4)[0].round(3)
    return Confidence(round(float(achieved.mean() - middle @ solved), 3), tuple(solved.tolist()))


@dataclass(frozen=True)
class ReliabilityBin(Result):
    """Mean expected and achieved cosine of some windows whose expectations lie together."""

    expected: float
    achieved: Interval
    windows: int

    def to_dict(self) -> JsonObject:
        return {
            "expected": self.expected,
            "achieved": self.achieved.value,
            "ci": self.achieved.ends(),
            "windows": self.windows,
        }


@dataclass(frozen=True)
class Reliability(Result):
    """gap: mean distance of expected and achieved over the bins. explained: share of the variance."""

    bins: list[ReliabilityBin]
    gap: float
    correlation: float
    explained: float


def reliability(
    expected: np.ndarray, achieved: np.ndarray, bootstrap: DocumentBootstrap, bins: int = BINS
) -> Reliability:
    """Expected against achieved cosines [n], in `bins` bins of equal size by expectation."""
    order = np.argsort(expected, kind="stable")
    rows = []
    for part in np.array_split(order, min(bins, len(order))):
        achieved_there = bootstrap.subset(part).interval(achieved[part])
        rows.append(ReliabilityBin(float(expected[part].mean()), achieved_there, len(part)))
    gaps = [abs(row.expected - row.achieved.value) for row in rows]
    spread = achieved.var()
    varied = expected.std() > 0 and spread > 0
    return Reliability(
        bins=rows,
        gap=float(np.average(gaps, weights=[row.windows for row in rows])),
        correlation=float(np.corrcoef(expected, achieved)[0, 1]) if varied else 0.0,
        explained=float(1 - ((expected - achieved) ** 2).mean() / spread) if spread > 0 else 0.0,
    )
