"""Figures of a prediction against the truth, one a window.

cosine         cos(p, y)
centred        cos(p/|p| - m, y/|y| - m), m the mean of the training targets: shrinking towards m buys nothing here
margin         cos(p, y) - cos(p, last chunk of the context); averages below zero for any p = E[y | x] whose cosine is
               below sqrt(mean cos(next, last)), so a negative one is no defect
context_ratio  mean of cos(p, context) over mean of cos(y, context): above 1, the prediction stays nearer to what was
               read than the text does
skill          (m - best) / (1 - best), m a mean figure and best that of the best closed form
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import BLOCK, Predictor


def cosines(a: mx.array, b: mx.array) -> mx.array:
    """Cosine of the last axis; a zero vector has cosine 0 with everything."""
    return (normalize(a) * normalize(b)).sum(axis=-1)


def centred_cosines(predicted: mx.array, truth: mx.array, mean: mx.array) -> mx.array:
    """Cosine after `mean` is subtracted from both unit vectors."""
    return cosines(normalize(predicted) - mean, normalize(truth) - mean)


def mean_cosine(predictor: Predictor, windows: Windows) -> float:
    """Mean cosine of the predictions with the truth over all windows."""
    return _over(predictor, windows, cosines)


def centred_cosine(predictor: Predictor, windows: Windows, mean: np.ndarray) -> float:
    """Mean centred cosine over all windows; `mean` [dim] is that of the training targets."""
    centre = mx.array(mean)
    return _over(predictor, windows, lambda predicted, truth: centred_cosines(predicted, truth, centre))


def window_figures(predicted: mx.array, windows: Windows, mean: np.ndarray) -> dict[str, np.ndarray]:
    """cosine, centred_cosine, margin, to_context and truth_to_context of every window, float64 [n]."""
    parts: dict[str, list[np.ndarray]] = {}
    centre = mx.array(mean)
    for block in windows.blocks(BLOCK):
        p, y, x = predicted[block], windows.truth(block), windows.contexts(block)
        cosine = cosines(p, y)
        figures = {
            "cosine": cosine,
            "centred_cosine": centred_cosines(p, y, centre),
            "margin": cosine - cosines(p, x[:, -1]),
            "to_context": cosines(p[:, None], x).mean(axis=1),
            "truth_to_context": cosines(y[:, None], x).mean(axis=1),
        }
        for name, values in figures.items():
            parts.setdefault(name, []).append(np.array(values, dtype=np.float64))
    return {name: np.concatenate(values) for name, values in parts.items()}


def skill(value: float, best: float) -> float:
    """The share of what the best closed form leaves open that is won; 0 as good as it, 1 perfect."""
    return (value - best) / (1 - best) if best < 1 else 0.0


def _over(predictor: Predictor, windows: Windows, figure: Callable[[mx.array, mx.array], mx.array]) -> float:
    total = 0.0
    for block in windows.blocks(BLOCK):
        total += float(figure(predictor.predict(windows, block), windows.truth(block)).sum())
    return total / len(windows)
