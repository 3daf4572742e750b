"""Conformal sets over documents: how far down a ranking one must go to hold the truth as often as asked.

Windows of one document are not exchangeable, documents are. With D calibration documents each weighs 1 / (D + 1), spread
evenly over its windows, and the last 1 / (D + 1) lies at infinity. The threshold for coverage v is the smallest t with

    weight of the scores <= t  >=  v

Then a random window of a new document, drawn like the others, scores at most t with probability v or more (Lee, Barber,
Willett 2023, Distribution-free inference with hierarchical data). With D documents no more than D / (D + 1) can be promised.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def thresholds(scores: np.ndarray, documents: np.ndarray, coverages: Sequence[float]) -> list[float]:
    """t for each coverage, infinite where the documents are too few. scores [n]: the lower, the sooner in the set; documents [n]."""
    _, group = np.unique(documents, return_inverse=True)
    sizes = np.bincount(group)
    order = np.argsort(scores, kind="stable")
    weight = np.cumsum(1 / sizes[group[order]]) / (len(sizes) + 1)
    places = np.searchsorted(weight, np.asarray(coverages) - 1e-9)
    return [float(scores[order[place]]) if place < len(order) else float("inf") for place in places]
