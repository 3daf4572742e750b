"""What figures of windows allow one to say: windows of one document are not independent, documents are.

Paired bootstrap: a resample draws D documents with replacement; a figure is then the sum of its per-document
sums over the sum of the documents' windows. All predictors see the same resamples: differences are paired.

Conformal sets: how far down a ranking one must go to hold the truth as often as asked. Windows of one
document are not exchangeable, documents are. With D calibration documents each weighs 1 / (D + 1), spread
evenly over its windows, and the last 1 / (D + 1) lies at infinity. The threshold for coverage v is the
smallest t with

    weight of the scores <= t  >=  v

Then a random window of a new document, drawn like the others, scores at most t with probability v or more
(Lee, Barber, Willett 2023, Distribution-free inference with hierarchical data); v is at most D / (D + 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_lvm.core.result import Interval, JsonObject, Result

RESAMPLES = 10_000
LEVEL = 0.95
BLOCK = 512  # resamples counted together


@dataclass(frozen=True)
class Difference(Interval, Result):
    """A figure less that of `baseline`, paired by window."""

    baseline: str

    def to_dict(self) -> JsonObject:
        """For JSON, with the baseline under its older name."""
        return {"closed_form": self.baseline, **self.without_baseline()}

    def without_baseline(self) -> JsonObject:
        """For JSON, where the baseline is the key that this stands under."""
        return {"difference": self.value, "ci": self.ends(), "p": self.p}


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

    def intervals(self, *figures: np.ndarray) -> list[Interval]:
        """Mean and percentile interval of each figure [n]; of one document the interval is the whole line."""
        table = np.stack(figures, axis=1)
        return intervals(table.mean(axis=0), self.means(table), self.count)

    def named(self, figures: Mapping[str, np.ndarray]) -> dict[str, Interval]:
        """The same by name."""
        return dict(zip(figures, self.intervals(*figures.values()), strict=True))

    def interval(self, figure: np.ndarray) -> Interval:
        """That of one figure [n]."""
        return self.intervals(figure)[0]

    def difference(self, figure: np.ndarray, baseline: str, its_figure: np.ndarray) -> Difference:
        """Of a figure [n] to that of a baseline, paired."""
        paired = self.interval(figure - its_figure)
        return Difference(paired.value, paired.low, paired.high, paired.p, baseline)

    def subset(self, index: np.ndarray) -> DocumentBootstrap:
        """The same over some of the windows."""
        return DocumentBootstrap(self.documents[index], self.resamples, self.seed)


def intervals(values: np.ndarray, resampled: np.ndarray, documents: int) -> list[Interval]:
    """values [k] with their resampled means [resamples, k]."""
    if documents < 2:
        return [Interval(float(value), -np.inf, np.inf, 1.0) for value in values]
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    count = len(resampled)
    beyond = np.minimum((resampled <= 0).sum(axis=0), (resampled >= 0).sum(axis=0))
    p = np.minimum(2 * (beyond + 1) / (count + 1), 1.0)
    return [Interval(*map(float, row)) for row in zip(values, low, high, p, strict=True)]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment: p_(i) times the hypotheses not yet passed, never falling, at most 1."""
    order = sorted(p_values, key=lambda name: p_values[name])
    out, highest = {}, 0.0
    for place, name in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[name]))
        out[name] = highest
    return {name: out[name] for name in p_values}


def conformal_thresholds(
    scores: np.ndarray, documents: np.ndarray, coverages: Sequence[float]
) -> list[float]:
    """t for each coverage, infinite where the documents are too few. documents [n]: that of each window.

    scores [n]: the lower, the sooner in the set.
    """
    _, group = np.unique(documents, return_inverse=True)
    sizes = np.bincount(group)
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(1 / sizes[group[order]]) / (len(sizes) + 1)
    places = np.searchsorted(weight, np.asarray(coverages) - 1e-9)
    return [float(scores[order[place]]) if place < len(order) else float("inf") for place in places]
