"""What windows score, by the inner products of their rows, and what a gain of few documents is worth."""

from __future__ import annotations

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.emn import EMN
from mlx_lvm.training.emn.geometry import Geometry
from mlx_lvm.training.emn.losses import CENTRED, cosines

BLOCK = 4096  # windows at once


def lead(now: np.ndarray, start: np.ndarray, counts: np.ndarray) -> float:
    """By how much documents of so many windows are scored higher on average than at the start, less the
    standard error of that over documents: what a gain of few documents is worth. One document has no
    standard error, and then no gain counts.
    """
    gains, share = now - start, counts / counts.sum()
    gain = float((share * gains).sum())
    if len(gains) < 2:
        return -abs(gain)
    spread = np.square(share * (gains - gain)).sum() * len(gains) / (len(gains) - 1)
    return gain - float(np.sqrt(spread))


def by_document(scores: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean score of each document, its windows); document: that of each score."""
    _, place, counts = np.unique(document, return_inverse=True, return_counts=True)
    return np.bincount(place, scores) / counts, counts


def centred_weight(geometry: Geometry, share: float = CENTRED) -> float:
    """What the centred cosine weighs beside the cosine: `share`, in units of what the lag filter lacks in
    each of them. Where all vectors of an encoder point much the same way its cosines differ little, and its
    centred cosines as elsewhere.
    """
    cosine, centred = figures_of(None, geometry)
    return float(share * (1 - cosine).mean() / max((1 - centred).mean(), 1e-6))


def scores_of(model: EMN | None, geometry: Geometry, weight: float) -> np.ndarray:
    """Cosine plus `weight` times the centred one, of every window, float64."""
    cosine, centred = figures_of(model, geometry)
    return cosine + weight * centred


def figures_of(model: EMN | None, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """(cosine, centred cosine) of every window, float64; without a model, of the lag filter."""
    arrays, parts = geometry.arrays, []
    for start in range(0, len(geometry), BLOCK):
        index = mx.arange(start, min(start + BLOCK, len(geometry)))
        parts.append([np.array(x, np.float64) for x in cosines(model, index, arrays)])
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])
