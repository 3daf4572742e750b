"""How sure a prediction is: the cosine with the true next chunk that is to be expected of it.

    expected cosine = c_0 + sum_k c_k cue_k

The cues cost nothing beside the prediction, and the coefficients are least squares on validation windows:

best     highest cosine of the prediction with a candidate: nothing is near a prediction that hedges
last     cosine of the prediction with the last chunk
context  length of the context's mean: 1 where all its chunks say the same
mean     cosine of the prediction with the mean of the corpus
length   of the raw prediction: a regression shrinks where it does not know
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Index

CUES = ("best", "last", "context", "mean", "length")
BINS = 10


def cues_of(raw: mx.array, windows: Windows, index: Index, mean: np.ndarray, best: mx.array) -> np.ndarray:
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
class Certainty:
    """The coefficients of the cues, in their order."""

    intercept: float
    coefficients: tuple[float, ...]

    def expect(self, cues: np.ndarray) -> np.ndarray:
        """Expected cosines [n] from cues [n, 5]."""
        return np.clip(self.intercept + cues @ np.array(self.coefficients), -1, 1)


def fit_certainty(cues: np.ndarray, achieved: np.ndarray) -> Certainty:
    """Least squares; a cue that is the same everywhere gets nothing. cues [n, 5], achieved [n]: cosines with the truth."""
    middle = cues.mean(axis=0)
    coefficients = np.linalg.lstsq(cues - middle, achieved - achieved.mean(), rcond=1e-4)[0].round(3)
    return Certainty(round(float(achieved.mean() - middle @ coefficients), 3), tuple(coefficients.tolist()))


def reliability(
    expected: np.ndarray, achieved: np.ndarray, bootstrap: DocumentBootstrap, bins: int = BINS
) -> dict[str, Any]:
    """Expected against achieved cosines [n]: means in `bins` bins of equal size by expectation, with the interval of each
    achieved mean; the mean gap of the bins; the correlation; and the share of the variance that is explained.
    """
    order = np.argsort(expected, kind="stable")
    rows: list[dict[str, Any]] = []
    for part in np.array_split(order, min(bins, len(order))):
        found = DocumentBootstrap(bootstrap.documents[part], bootstrap.resamples, bootstrap.seed).intervals(
            {"mean": achieved[part]}
        )["mean"]
        rows.append(
            {
                "expected": float(expected[part].mean()),
                "achieved": found.value,
                "ci": found.ends(),
                "windows": len(part),
            }
        )
    spread = achieved.var()
    varied = expected.std() > 0 and spread > 0
    return {
        "bins": rows,
        "gap": float(
            np.average(
                [abs(row["expected"] - row["achieved"]) for row in rows],
                weights=[row["windows"] for row in rows],
            )
        ),
        "correlation": float(np.corrcoef(expected, achieved)[0, 1]) if varied else 0.0,
        "explained": float(1 - ((expected - achieved) ** 2).mean() / spread) if spread > 0 else 0.0,
    }
