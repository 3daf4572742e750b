"""Figures of a prediction against the truth, one a window.

cosine         cos(p, y)
centred        cos(p/|p| - m, y/|y| - m), m the mean of the training targets: shrinking towards m buys nothing
margin         cos(p, y) - cos(p, last chunk of the context); averages below zero for any p = E[y | x] whose
               cosine is below sqrt(mean cos(next, last)), so a negative one is no defect
context_ratio  mean of cos(p, context) over mean of cos(y, context): above 1, the prediction stays nearer to
               what was read than the text does
skill          (m - best) / (1 - best), m a mean figure and best that of the best baseline
offsets        cosines with the chunks around the target, which tell what a prediction leans on
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import normalize

BLOCK = 1024  # windows scored together
OFFSETS = tuple(range(-5, 5))  # chunks after the target; -1 is the last of the context
TARGET, LAST = OFFSETS.index(0), OFFSETS.index(-1)


class Predicts(Protocol):
    """What has a figure here: anything that gives vectors [n, dim] for chosen windows."""

    def predict(self, windows: Windows, index: slice) -> mx.array: ...


def cosines(a: mx.array, b: mx.array) -> mx.array:
    """Cosine of the last axis; a zero vector has cosine 0 with everything."""
    return (normalize(a) * normalize(b)).sum(axis=-1)


def cosine_values(a: mx.array, b: mx.array) -> np.ndarray:
    """The same on the host, float64."""
    return np.array(cosines(a, b), dtype=np.float64)


def centred_cosines(predicted: mx.array, truth: mx.array, mean: mx.array) -> mx.array:
    """Cosine after `mean` is subtracted from both unit vectors."""
    return cosines(normalize(predicted) - mean, normalize(truth) - mean)


def mean_cosine(predictor: Predicts, windows: Windows) -> float:
    """Mean cosine of the predictions with the truth over all windows."""
    return _over(predictor, windows, cosines)


def centred_cosine(predictor: Predicts, windows: Windows, mean: np.ndarray) -> float:
    """Mean centred cosine over all windows; `mean` [dim] is that of the training targets."""
    centre = mx.array(mean)
    return _over(predictor, windows, lambda predicted, truth: centred_cosines(predicted, truth, centre))


@dataclass(frozen=True)
class WindowFigures:
    """Of every window, float64 [n]; to_context, truth_to_context: mean cosine with the context's chunks."""

    cosine: np.ndarray
    centred_cosine: np.ndarray
    margin: np.ndarray
    to_context: np.ndarray
    truth_to_context: np.ndarray


def window_figures(predicted: mx.array, windows: Windows, mean: np.ndarray) -> WindowFigures:
    """predicted [n, dim], raw or unit; mean [dim]: of the training targets."""
    centre, parts = mx.array(mean), []
    for block in windows.blocks(BLOCK):
        p, y, x = predicted[block], windows.truth(block), windows.contexts(block)
        cosine = cosines(p, y)
        figures = [
            cosine,
            centred_cosines(p, y, centre),
            cosine - cosines(p, x[:, -1]),
            cosines(p[:, None], x).mean(axis=1),
            cosines(y[:, None], x).mean(axis=1),
        ]
        parts.append(np.array(mx.stack(figures), dtype=np.float64))
    return WindowFigures(*np.concatenate(parts, axis=1))


def offset_cosines(predicted: mx.array, windows: Windows) -> np.ndarray:
    """cos(p_t, x_{t+o}) [n, 10] of `predicted` [n, dim], raw or unit; NaN where the document has no chunk."""
    ends = windows.corpus.offsets[1:][windows.documents]
    parts = []
    for block in windows.blocks(BLOCK):
        rows = windows.targets[block][:, None] + np.array(OFFSETS)
        there = (rows >= windows.starts[block][:, None]) & (rows < ends[block][:, None])
        near = windows.corpus.take(np.clip(rows, 0, len(windows.corpus) - 1))
        parts.append(np.where(there, cosine_values(predicted[block][:, None], near), np.nan))
    return np.concatenate(parts)


def skill(value: float, best: float) -> float:
    """The share of what the best baseline leaves open that is won; 0 as good as it, 1 perfect."""
    return (value - best) / (1 - best) if best < 1 else 0.0


def _over(predictor: Predicts, windows: Windows, figure: Callable[[mx.array, mx.array], mx.array]) -> float:
    total = 0.0
    for block in windows.blocks(BLOCK):
        total += float(figure(predictor.predict(windows, block), windows.truth(block)).sum())
    return total / len(windows)
