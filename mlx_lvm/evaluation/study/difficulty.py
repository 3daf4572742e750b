"""Bins by difficulty: where the next chunk is like the last one, repeating is easy; where the topic turns, it
is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_lvm.core.stats import DocumentBootstrap

BINS = 5


def bin_edges(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """[bins + 1] quantiles, ends included."""
    return np.quantile(values, np.linspace(0, 1, bins + 1))


def place_in_bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Index of each value's bin, the last one closed on both sides."""
    return np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)


def difficulty(
    figures: dict[str, np.ndarray],
    subject: str,
    best: str,
    truth_last: np.ndarray,
    bootstrap: DocumentBootstrap,
    metric: str = "cosine",
) -> dict[str, Any]:
    """Fifths of the windows by cos(next, last), hardest first: the figure of every predictor, under the name
    of the metric, and the gain of `subject` over `best` with its interval.
    """
    edges = bin_edges(truth_last)
    where = place_in_bins(truth_last, edges)
    rows = []
    for number in range(BINS):
        inside = where == number
        if not inside.any():
            continue
        few = bootstrap.subset(inside)
        gain = few.interval(figures[subject][inside] - figures[best][inside])
        rows.append(
            {
                "from": float(edges[number]),
                "to": float(edges[number + 1]),
                "windows": int(inside.sum()),
                "documents": few.count,
                metric: {name: float(values[inside].mean()) for name, values in figures.items()},
                "gain": gain.value,
                "gain_ci": gain.ends(),
            }
        )
    return {"by": "cos(next, last)", "metric": metric, "against": best, "bins": rows}
