"""Bins by difficulty: where the next chunk is like the last, repeating is easy; where the topic turns, no."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mlx_lvm.core.result import Interval, JsonObject, Result, key
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.metrics.names import COSINE, Metric

BINS = 5


def place_in_bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index of each value's bin, the last one closed on both sides."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def bins(values: np.ndarray) -> Iterator[tuple[float, float, np.ndarray]]:
    """(low, high, mask [n]) of each fifth of the values that is not empty, lowest first."""
    edges = np.quantile(values, np.linspace(0, 1, BINS + 1))
    where = place_in_bins(values, edges)
    for number in np.unique(where).tolist():
        yield float(edges[number]), float(edges[number + 1]), where == number


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
    found = []
    for low, high, inside in bins(truth_last):
        few, gain = bootstrap.subset(inside), figures[subject][inside] - figures[best][inside]
        means = {name: float(values[inside].mean()) for name, values in figures.items()}
        counts = (int(inside.sum()), few.count)
        found.append(DifficultyBin(low, high, *counts, metric, means, few.interval(gain)))
    return Difficulty(metric, best, found)
