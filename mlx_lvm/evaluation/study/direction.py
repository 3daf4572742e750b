"""Direction: which chunk a prediction is nearest to. Offset 0 is the target, -1 the context's last chunk.

    curve(o) = mean cos(p_t, x_{t+o}),  o = -5 .. 4

Why cos(p, target) - cos(p, last) is below zero for a good prediction: for unit vectors and p_t = E[x_t |
context], E<p, last> = E<x_t, last> = r1 and E<p, x_t> = E|p|^2. With |p| about its achieved cosine c, cos(p,
last) averages r1 / c, so the margin c - r1 / c turns positive only above c = sqrt(r1). The curves of the
baselines and of the oracle are what a model's curve must be compared with; no offset has a gate of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mlx_lvm.core.result import JsonObject, Result
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.evaluation.study.curves import Curve
from mlx_lvm.metrics.figures import LAST, OFFSETS, TARGET

SAME = 0.01  # difference of cosines that the sentence calls none


class OffsetCurve(Curve):
    """The cosine at each of OFFSETS."""

    derived = ("peak",)

    @property
    def peak(self) -> int:
        """The offset of the highest."""
        return OFFSETS[int(np.argmax(self.values))]


@dataclass(frozen=True)
class Identity(Result):
    """c and cos(p, last) over all windows, and r1 / c of a conditional mean; None for a c of zero or less."""

    cosine: float
    to_last: float
    r1_over_c: float | None

    @property
    def margin(self) -> float:
        return self.cosine - self.to_last

    @property
    def margin_of_conditional_mean(self) -> float | None:
        return None if self.r1_over_c is None else self.cosine - self.r1_over_c

    def to_dict(self) -> JsonObject:
        derived = ("margin", "margin_of_conditional_mean")
        return {**vars(self), **{name: getattr(self, name) for name in derived}}


@dataclass(frozen=True)
class Direction(Result):
    """By predictor: its curve over the `windows` with all offsets, its identity over all, see `explain`."""

    derived = ("threshold",)

    windows: int
    r1: float
    curves: dict[str, OffsetCurve] = field(default_factory=dict)
    identity: dict[str, Identity] = field(default_factory=dict)
    offsets: tuple[int, ...] = OFFSETS
    sentence: str | None = None

    @property
    def threshold(self) -> float:
        return math.sqrt(max(self.r1, 0.0))


def direction(
    offsets: Mapping[str, np.ndarray], truth_last: np.ndarray, every: DocumentBootstrap
) -> Direction:
    """offsets: {predictor: [windows, 10]}; truth_last [windows]: cos(next, last); every: over the windows."""
    whole = np.isfinite(np.stack(list(offsets.values()))).all(axis=(0, 2))
    r1 = float(truth_last.mean())
    if not whole.any():
        return Direction(0, r1)
    bootstrap = every.subset(whole)
    curves, identity = {}, {}
    for name, values in offsets.items():
        curves[name] = OffsetCurve(bootstrap.intervals(*values[whole].T))
        achieved, to_last = float(values[:, TARGET].mean()), float(values[:, LAST].mean())
        identity[name] = Identity(achieved, to_last, r1 / achieved if achieved > 0 else None)
    return Direction(int(whole.sum()), r1, curves, identity)


def explain(found: Direction, name: str) -> str:
    """The identity in a sentence with the numbers of one predictor."""
    one = found.identity.get(name)
    if one is None or one.r1_over_c is None:
        return "No window has chunks at every offset."
    gap = one.to_last - one.r1_over_c
    leaning = "about as much as" if abs(gap) < SAME else "more than" if gap > 0 else "less than"
    return (
        f"cos(next, last) averages r1 = {found.r1:.4f}; a conditional mean with cosine c = {one.cosine:.4f} "
        f"has cos(prediction, last) = r1/c = {one.r1_over_c:.4f} and so a margin of "
        f"{one.margin_of_conditional_mean:+.4f}; it would be positive only above c = sqrt(r1) = "
        f"{found.threshold:.4f}. Measured: cos(prediction, last) {one.to_last:.4f}, margin "
        f"{one.margin:+.4f}; {name} leans on the last chunk {leaning} such a mean would."
    )
