"""Paired bootstrap over documents: windows of one document are not independent, documents are.

A resample draws D documents with replacement; a figure is then the sum of its per-document sums over the sum of the
documents' windows. Every predictor sees the same resamples, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
BLOCK = 512  # resamples counted together


@dataclass(frozen=True)
class Interval:
    """A mean with its interval, and the two-sided p-value of being zero."""

    value: float
    low: float
    high: float
    p: float

    def ends(self) -> list[float | None]:
        """[low, high] for JSON; None where the interval is the whole line."""
        return [end if math.isfinite(end) else None for end in (self.low, self.high)]


@dataclass(frozen=True)
class DocumentBootstrap:
    """Resamples of the documents that windows belong to. documents [n]: the document of each window."""

    documents: np.ndarray
    resamples: int = RESAMPLES
    seed: int = 0

    @cached_property
    def _groups(self) -> tuple[np.ndarray, int]:
        names, group = np.unique(self.documents, return_inverse=True)
        return group, len(names)

    @property
    def count(self) -> int:
        """Number of documents."""
        return self._groups[1]

    def means(self, figures: np.ndarray) -> np.ndarray:
        """Resampled means [resamples, k] of figures [n, k]."""
        group, count = self._groups
        sums = np.stack([np.bincount(group, weights=column, minlength=count) for column in figures.T], axis=1)
        sizes = np.bincount(group, minlength=count).astype(np.float64)
        generator = np.random.default_rng(self.seed)
        out = np.empty((self.resamples, figures.shape[1]))
        for start in range(0, self.resamples, BLOCK):
            size = min(BLOCK, self.resamples - start)
            drawn = generator.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)
            out[start : start + size] = (drawn @ sums) / (drawn @ sizes)[:, None]
        return out

    def intervals(self, figures: Mapping[str, np.ndarray]) -> dict[str, Interval]:
        """Mean and percentile interval of each figure [n]; with one document the interval is the whole line."""
        names = list(figures)
        table = np.stack([figures[name] for name in names], axis=1)
        return dict(zip(names, intervals(table.mean(axis=0), self.means(table), self.count), strict=True))


def intervals(values: np.ndarray, resampled: np.ndarray, documents: int) -> list[Interval]:
    """values [k] with their resampled means [resamples, k]."""
    if documents < 2:
        return [Interval(float(value), -np.inf, np.inf, 1.0) for value in values]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    count = len(resampled)
    beyond = np.minimum((resampled <= 0).sum(axis=0), (resampled >= 0).sum(axis=0))
    p = np.minimum(2 * (beyond + 1) / (count + 1), 1.0)
    return [
        Interval(float(v), float(a), float(b), float(q))
        for v, a, b, q in zip(values, low, high, p, strict=True)
    ]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment: p_(i) times the number of hypotheses not yet passed, never falling, at most 1."""
    order = sorted(p_values, key=lambda name: p_values[name])
    out, highest = {}, 0.0
    for place, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[name]))
        out[name] = highest
    return {name: out[name] for name in p_values}
