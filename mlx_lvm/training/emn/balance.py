"""How far a network's corrections go in a corpus, and how much of its mean a prediction keeps: two numbers
that its training documents choose.

A network that was trained on other corpora knows which way the lag filter errs; how far to follow it is
another question in every corpus. So is how much of the mean to keep, which exchanges centred cosine for
cosine: of what is surely above the baselines in both, the best is taken. Windows are scored by filters and
experts that have not seen their documents.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_geometry import CENTRE, MEAN, ROWS, TOKENS
from mlx_lvm.training.emn.geometry import Geometry, geometry_of
from mlx_lvm.training.emn.losses import CENTRED, cosines_of
from mlx_lvm.training.emn.reading import Reading
from mlx_lvm.training.emn.scores import by_document, centred_weight, lead
from mlx_lvm.training.emn.statistics import Statistics

EXTENTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the corrections
SHARES = (-0.1, -0.05, 0.0, 0.05, 0.1, 0.15, 0.2, 0.3)  # of the mean, beside what the filter gives it
# Recency-weighted means: the averages that forget, less m as rows are.
RECENCY = np.eye(ROWS, dtype=np.float32)[TOKENS:CENTRE]
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
    """(extent, share) with the best mean of the cosine plus `weight` times the centred one, among those that
    lead the best baseline in each by more than a standard error over `geometry.source`, groups of documents;
    where none does, (1, 0) unless the best of all leads that so.
    """
    arrays = geometry.arrays
    filters = mx.take(arrays["filter"], arrays["source"], axis=0)
    corrections, _ = model.corrections(arrays["gram"], arrays["tokens"], arrays["count"])
    corrections = corrections[:, 0] + model.base[0]
    mean = mx.array(np.eye(1, ROWS, MEAN, dtype=np.float32)[0])
    counts = np.unique(geometry.source, return_counts=True)[1]

    def scored(weights: mx.array) -> np.ndarray:
        """Both cosines of each group, [2, groups]."""
        found = cosines_of(mx.broadcast_to(weights, filters.shape), arrays)
        return np.stack([by_document(np.array(one, np.float64), geometry.source)[0] for one in found])

    baselines = np.stack([scored(filters), *(scored(mean + mx.array(row)) for row in RECENCY)])
    best = np.argmax(baselines @ counts, axis=0)
    bar = baselines[best, [0, 1]]
    every = {
        (extent, share): scored(filters + extent * corrections + share * mean)
        for extent, share in product(EXTENTS, SHARES)
    }
    total = {each: cosine + weight * centred for each, (cosine, centred) in every.items()}
    sure = [
        each
        for each, found in every.items()
        if all(lead(*of, counts) > 0 for of in zip(found, bar, strict=True))
    ]
    first = max(sure or every, key=lambda each: float(total[each] @ counts))
    if sure or lead(total[first], total[1.0, 0.0], counts) > 0:
        return first
    return 1.0, 0.0
