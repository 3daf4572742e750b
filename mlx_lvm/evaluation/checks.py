"""The controls of every evaluation: the oracle is perfect, a random vector is at chance, no mixture beats the
span.

They test the metrics, not the model: an evaluation whose controls fail says nothing and must not be read.
"""

from __future__ import annotations

import math

import numpy as np

from mlx_lvm.errors import CheckFailed, Problems
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, COSINE, MRR, Figures, Metric
from mlx_lvm.metrics.retrieval import Pool, chance

SIGMAS = 5.0  # standard errors of chance that a random vector may be away: 1 in 1.7 million
SHARE = 0.25  # of chance, on top: in a space that is not isotropic some chunks lie nearer to everything
ROUNDING = 1e-5
IN_SPAN = ("last", "mean", "recency")


PERFECT = (
    COSINE,
    CENTRED_COSINE,
    Metric("split", "recall_at_1"),
    MRR,
    CENTRED_MRR,
    Metric("in_document", "mrr"),
    Metric("split", "contrastive_at_100"),
)


def check_controls(figures: dict[str, Figures], pool: Pool, dim: int) -> None:
    """figures: by predictor. Raises CheckFailed with every control that failed."""
    problems = Problems("the evaluation's own controls failed, so none of its numbers can be trusted")
    n = len(pool.windows)
    oracle, random, span = figures["oracle"], figures["random"], figures["best-in-span"]
    for metric in PERFECT:
        values = metric.of(oracle)
        if not values.min() >= 1 - ROUNDING:
            problems.add(
                f"the oracle's {metric.key} is {values.min():.6f} in window {int(values.argmin())}, expected "
                "1"
            )
    for name in IN_SPAN:
        if name not in figures:
            continue
        excess = figures[name].window.cosine - span.window.cosine
        if not excess.max() <= 1e-3:
            problems.add(
                f"{name} beats the best mixture of its own context by {excess.max():.5f} in window "
                f"{int(excess.argmax())}"
            )
    error, cosine = 1 / math.sqrt(dim * n), random.window.cosine.mean()
    if not abs(cosine) <= SIGMAS * error:
        problems.add(f"the random vector's cosine is {cosine:.5f}, expected 0 within {SIGMAS * error:.5f}")
    # For any two chunks a random direction prefers either with probability 1/2, so this holds whatever the
    # space.
    alone = pool.hit_counts() == 1
    if alone.any():
        place = float(((random.rank - 1) / np.maximum(pool.sizes - 1, 1))[alone].mean())
        error = math.sqrt(1 / 12 / alone.sum())
        if pool.sizes[alone].min() > 2 and not abs(place - 0.5) <= SIGMAS * error:
            problems.add(
                f"the random vector's truth lies at {place:.4f} of the ranking, expected 0.5 within "
                f"{SIGMAS * error:.4f}"
            )
    expected = chance(pool)
    allowed, mrr = (
        SIGMAS * math.sqrt(expected.mrr_variance / n) + SHARE * expected.mrr,
        random.split.mrr.mean(),
    )
    if not abs(mrr - expected.mrr) <= allowed:
        problems.add(
            f"the random vector's MRR is {mrr:.5f}, expected {expected.mrr:.5f} within {allowed:.5f}"
        )
    problems.raise_if_any(CheckFailed)
