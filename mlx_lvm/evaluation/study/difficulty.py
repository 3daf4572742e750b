"""Bins by difficulty: where the next chunk is like the last one, repeating is easy; where the topic turns, it
is not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlx_lvm.core.result import Interval, JsonObject, Result, key
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.metrics.names import COSINE, Metric

BINS = 5


def bin_edges(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """[bins + 1] quantiles, ends included."""
    return np.quantile(values, np.linspace(0, 1, bins + 1))


def place_in_bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index of each value's bin, the last one closed on both sides."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


@dataclass(frozen=True)
class DifficultyBin(Result):
    """Windows whose next chunk has a cosine from `low` to `high` with the last one. means: the figure of each
    predictor, which JSON has under the name of the metric; gain: of the subject over the best baseline.
    """

    low: float = field(metadata=key("from"))
    high: float = field(metadata=key("to"))
    windows: int
    documents: int
    metric: Metric
    means: dict[str, float]
    gain: Interval

    def to_dict(self) -> JsonObject:
        out = super().to_dict()
        return out | {out.pop("metric").name: out.pop("means")}


@dataclass(frozen=True)
class Difficulty(Result):
    """Fifths of the windows, hardest first. against: the baseline that gains are over."""

    metric: Metric
    against: str
    bins: list[DifficultyBin]
    by: str = "cos(next, last)"

    def to_dict(self) -> JsonObject:
        return {**super().to_dict(), "metric": self.metric.name}


def difficulty(
    figures: dict[str, np.ndarray],
    subject: str,
    best: str,
    truth_last: np.ndarray,
    bootstrap: DocumentBootstrap,
    metric: Metric = COSINE,
) -> Difficulty:
    """figures [n]: in `metric`, by predictor; truth_last [n]: cos(next, last); `subject` against `best`."""
    edges = bin_edges(truth_last)
    where = place_in_bins(truth_last, edges)
    bins = []
    for number in range(BINS):
        inside = where == number
        if not inside.any():
            continue
        few = bootstrap.subset(inside)
        bins.append(
            DifficultyBin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                windows=int(inside.sum()),
                documents=few.count,
                metric=metric,
                means={name: float(values[inside].mean()) for name, values in figures.items()},
                gain=few.interval(figures[subject][inside] - figures[best][inside]),
            )
        )
    return Difficulty(metric, best, bins)
