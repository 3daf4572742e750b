"""What a model that attends looks at (AMN): weights by position, its residual, where it leaves the mean.

residual share   |r| / (|b| + |r|), b the baseline (the context's mean) and r the residual: 0 is the plain
mean departure        1 - cos(prediction, b)
shift            1 - cos(last chunk, mean of the chunks before it): how far the topic has just turned
entropy          of the weights over log(context): 1 spreads them evenly, 0 looks at one chunk
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import INLINED, Interval, JsonObject, Result, key
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.study.difficulty import bins
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models.base import VectorModel
from mlx_lvm.ranking.cases import COUNT, Label, window_label


@dataclass(frozen=True)
class Look:
    """Of every window: weights [n, context], oldest chunk first; residual_share, departure, shift [n]."""

    weights: np.ndarray
    residual_share: np.ndarray
    departure: np.ndarray
    shift: np.ndarray

    @property
    def entropy(self) -> np.ndarray:
        size = self.weights.shape[1]
        if size == 1:
            return np.ones(len(self.weights))
        return -(self.weights * np.log(np.maximum(self.weights, 1e-30))).sum(axis=1) / math.log(size)


@dataclass(frozen=True)
class ShiftBin(Result):
    """Means over the windows whose shift is from `low` to `high`. gain_over_mean: in cosine, where known."""

    low: float = field(metadata=key("from"))
    high: float = field(metadata=key("to"))
    windows: int
    by_position: list[float]
    residual_share: float
    departure: float
    gain_over_mean: float | None = None


@dataclass(frozen=True)
class Departure(Result):
    """One of the windows that leave the mean furthest."""

    label: Label = field(metadata=INLINED)
    departure: float
    shift: float


@dataclass(frozen=True)
class Attention(Result):
    """The figures above over all windows, by fifths of the shift, and where it leaves the mean furthest."""

    by_position: list[Interval]
    residual_share: Interval
    departure: Interval
    entropy: Interval
    shift: float
    departure_follows_shift: float
    by_shift: list[ShiftBin]
    departures: list[Departure]

    @property
    def positions(self) -> list[int]:
        """-context .. -1"""
        return list(range(-len(self.by_position), 0))

    def to_dict(self) -> JsonObject:
        weights = {
            "positions": self.positions,
            "by_position": [one.value for one in self.by_position],
            "by_position_ci": [one.ends() for one in self.by_position],
        }
        return super().to_dict() | weights


def attends(model: VectorModel) -> bool:
    """Whether its predictions carry attention, a baseline and a residual."""
    found = model(mx.ones((1, 2, model.config.dim)))
    return found.attention is not None and found.baseline is not None and found.residual is not None


def look(model: VectorModel, windows: Windows) -> Look:
    """Raises UsageError for a model without attention over its context."""
    if not attends(model):
        lacking = f"{model.config.model_type} has no attention over its context to show"
        raise UsageError(f"{lacking}; amn has. Try: lvm attention amn")
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for block in windows.blocks():
        context = windows.contexts(block)
        found = model(context)
        assert found.attention is not None and found.baseline is not None and found.residual is not None
        base, residual = (mx.linalg.norm(x, axis=-1) for x in (found.baseline, found.residual))
        earlier = context[:, :-1].mean(axis=1) if windows.context > 1 else context[:, -1]
        values = (
            found.attention,
            residual / mx.maximum(base + residual, 1e-12),
            1 - cosines(found.unit, found.baseline),
            1 - cosines(context[:, -1], earlier),
        )
        for part, value in zip(parts, values, strict=True):
            part.append(np.array(value, dtype=np.float64))
    return Look(*(np.concatenate(part) for part in parts))


def attention(
    model: VectorModel,
    windows: Windows,
    bootstrap: DocumentBootstrap,
    gain: np.ndarray | None = None,
    count: int = COUNT,
) -> Attention:
    """gain [n]: cosine less that of the context's mean, where it is known; count: of departures to name."""
    seen = look(model, windows)
    share, departure, entropy = bootstrap.intervals(seen.residual_share, seen.departure, seen.entropy)
    furthest = np.argsort(-seen.departure, kind="stable")[:count]
    return Attention(
        by_position=bootstrap.intervals(*seen.weights.T),
        residual_share=share,
        departure=departure,
        entropy=entropy,
        shift=float(seen.shift.mean()),
        departure_follows_shift=rank_correlation(seen.shift, seen.departure),
        by_shift=_bins(seen, gain),
        departures=[
            Departure(window_label(windows, int(i)), float(seen.departure[i]), float(seen.shift[i]))
            for i in furthest
        ],
    )


def _bins(seen: Look, gain: np.ndarray | None) -> list[ShiftBin]:
    return [
        ShiftBin(
            low=low,
            high=high,
            windows=int(inside.sum()),
            by_position=seen.weights[inside].mean(axis=0).tolist(),
            residual_share=float(seen.residual_share[inside].mean()),
            departure=float(seen.departure[inside].mean()),
            gain_over_mean=None if gain is None else float(gain[inside].mean()),
        )
        for low, high, inside in bins(seen.shift)
    ]


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rho, ties at their mean rank; 0 where either is constant."""
    x, y = (_ranks(values) for values in (a, b))
    spread = x.std() * y.std()
    return float(((x - x.mean()) * (y - y.mean())).mean() / spread) if spread > 0 else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[group]
