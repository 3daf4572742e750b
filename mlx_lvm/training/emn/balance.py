"""How far a network's corrections go in a corpus, and how much of its mean a prediction keeps: two numbers
that its training documents choose.

A network that was trained on other corpora knows which way the lag filter errs; how far to follow it is
another question in every corpus. So is how much of the mean to keep, which exchanges centred cosine for
cosine. Windows are scored by filters and experts that have not seen their documents.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_geometry import MEAN, ROWS
from mlx_lvm.training.emn.geometry import Geometry, geometry_of
from mlx_lvm.training.emn.losses import CENTRED, cosines_of
from mlx_lvm.training.emn.reading import Reading
from mlx_lvm.training.emn.scores import by_document, centred_weight, lead
from mlx_lvm.training.emn.statistics import Statistics

EXTENTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the corrections
SHARES = (-0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3)  # of the mean, beside what the filter gives it
SEGMENTS = 256  # that choose, evenly spaced: 8,000 windows


def balance(model: EMN, read: Reading, found: Statistics, centred: float = CENTRED) -> None:
    """Set both in a model of head predict that holds the statistics `found` of what was read; `centred`:
    see `scores.centred_weight`. With one document, which cannot be left out, nothing is set.
    """
    if found.left_out is None:
        return
    some = replace(read, parts=read.parts.some(SEGMENTS))
    geometry = geometry_of(some, found, left_out=True)
    extent, share = best_balance(model, geometry, centred_weight(geometry, centred))
    for last in (model.every_out, model.each_out):
        last.weight, last.bias = last.weight * extent, last.bias * extent
    model.base = model.base * extent + share * mx.array(np.eye(1, ROWS, MEAN, dtype=np.float32))


def best_balance(model: EMN, geometry: Geometry, weight: float) -> tuple[float, float]:
    """(extent, share) with the best mean of the cosine plus `weight` times the centred one, (1, 0) where that
    leads by no more than its standard error over `geometry.source`: groups of documents.
    """
    arrays = geometry.arrays
    filters = mx.take(arrays["filter"], arrays["source"], axis=0)
    corrections, _ = model.corrections(arrays["gram"], arrays["tokens"], arrays["count"])
    corrections = corrections[:, 0] + model.base[0]
    mean = mx.array(np.eye(1, ROWS, MEAN, dtype=np.float32)[0])

    def scores(extent: float, share: float) -> np.ndarray:
        cosine, centred = cosines_of(filters + extent * corrections + share * mean, arrays)
        return np.array(cosine + weight * centred, np.float64)

    start, counts = by_document(scores(1.0, 0.0), geometry.source)
    every = {each: by_document(scores(*each), geometry.source)[0] for each in product(EXTENTS, SHARES)}
    best = max(every, key=lambda each: float(every[each] @ counts))
    return best if lead(every[best], start, counts) > 0 else (1.0, 0.0)
