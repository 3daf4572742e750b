"""The controls of every evaluation: the oracle is perfect, a random vector random, no mixture beats the span.

They test the metrics, not the model: an evaluation whose controls fail says nothing and must not be read. So
nothing here supposes anything of the corpus: copies and spaces of whatever shape raise no alarm.
"""

from __future__ import annotations

import math

import numpy as np

from mlx_lvm.core.arrays import blocks, evenly_spaced
from mlx_lvm.core.products import tf32_active
from mlx_lvm.errors import CheckFailed, Problems
from mlx_lvm.metrics.names import CENTRED_COSINE, CENTRED_MRR, COSINE, MRR, Figures, Metric
from mlx_lvm.metrics.retrieval import NEAR_DUPLICATE, Pool
from mlx_lvm.predictors.base import Predictor

SIGMAS = 5.0  # standard errors that a random vector may be off: 1 in 1.7 million
ROUNDING = 1e-5
TF32_ROUNDING = 4e-3
IN_SPAN = ("last", "mean", "recency")
# windows counted again, at most so many pairs of them with candidates
COUNTED, COUNTED_PAIRS, ROWS = 64, 1 << 22, 8192

PERFECT = (
    COSINE,
    CENTRED_COSINE,
    Metric("split", "recall_at_1"),
    MRR,
    CENTRED_MRR,
    Metric("in_document", "mrr"),
    Metric("split", "contrastive_at_100"),
)


def check_controls(figures: dict[str, Figures], pool: Pool, random: Predictor) -> None:
    """figures: by predictor; random: of that name. Raises CheckFailed with every control that failed."""
    problems = Problems("the evaluation's own controls failed, so none of its numbers can be trusted")
    oracle, drawn, span = figures["oracle"], figures["random"], figures["best-in-span"]
    for metric in PERFECT:
        values = metric.of(oracle)
        least, where = values.min(), int(values.argmin())
        if not least >= 1 - ROUNDING:
            problems.add(f"the oracle's {metric.key} is {least:.6f} in window {where}, expected 1")
    for name in [name for name in IN_SPAN if name in figures]:
        excess = figures[name].window.cosine - span.window.cosine
        if not excess.max() <= 1e-3:
            problems.add(
                f"{name} beats the best mixture of its own context by {excess.max():.5f} in window "
                f"{int(excess.argmax())}"
            )
    _check_random(drawn, pool, problems)
    _check_ranks(drawn, pool, random, problems)
    problems.raise_if_any(CheckFailed)


def _check_random(drawn: Figures, pool: Pool, problems: Problems) -> None:
    """Cosine 0; and as a direction is as likely as its opposite, any chunk is above another half the time."""
    cosine = drawn.window.cosine.mean()
    error = 1 / math.sqrt(pool.windows.corpus.dim * len(pool.windows))
    if not abs(cosine) <= SIGMAS * error:
        problems.add(f"the random vector's cosine is {cosine:.5f}, expected 0 within {SIGMAS * error:.5f}")
    alone = pool.hit_counts() == 1
    if alone.any():
        place = float(((drawn.rank - 1) / np.maximum(pool.sizes - 1, 1))[alone].mean())
        error = 1 / math.sqrt(4 * alone.sum())  # whatever others are copies of each other: a half at most
        if pool.sizes[alone].min() > 2 and not abs(place - 0.5) <= SIGMAS * error:
            problems.add(
                f"the random vector's truth lies at {place:.4f} of the ranking, expected 0.5 within "
                f"{SIGMAS * error:.4f}"
            )


def _check_ranks(drawn: Figures, pool: Pool, random: Predictor, problems: Problems) -> None:
    """Its ranks in some windows are those of a plain count."""
    count = max(1, min(COUNTED, COUNTED_PAIRS // len(pool.rows)))
    chosen = np.asarray(evenly_spaced(len(pool.windows), count))
    low, high = count_ranks(pool, chosen, np.array(random.predict(pool.windows, chosen), dtype=np.float64))
    ranks = drawn.rank[chosen]
    for k in np.flatnonzero(~((ranks >= low) & (ranks <= high)))[:1]:
        problems.add(
            f"the random vector's rank is {ranks[k]:,.1f} in window {chosen[k]}, a plain count gives "
            f"{low[k]:,} to {high[k]:,}"
        )


def count_ranks(pool: Pool, chosen: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest rank that rounding allows, in float64, of windows `chosen` [k], queries [k, dim]."""
    windows, rounding = pool.windows, TF32_ROUNDING if tf32_active() else ROUNDING
    targets = windows.targets[chosen].astype(np.int64)[:, None]
    truth, queries = _unit(windows.corpus.numpy(targets[:, 0])), _unit(queries)
    near, score = [], []
    for part in blocks(len(pool.rows), ROWS):
        x = _unit(windows.corpus.numpy(pool.rows[part]))
        near.append(truth @ x.T)
        score.append(queries @ x.T)
    cosine, scores = np.concatenate(near, axis=1), np.concatenate(score, axis=1)
    competes = (pool.rows >= targets) | (pool.rows < targets - windows.context)
    own = pool.rows == targets
    sure = competes & ((cosine > NEAR_DUPLICATE + rounding) | own)
    perhaps = competes & ((cosine > NEAR_DUPLICATE - rounding) | own)
    least = np.where(sure, scores, -np.inf).max(axis=1, keepdims=True)
    most = np.where(perhaps, scores, -np.inf).max(axis=1, keepdims=True)
    low = 1 + (competes & ~perhaps & (scores > most + rounding)).sum(axis=1)
    high = 1 + (competes & ~sure & (scores > least - rounding)).sum(axis=1)
    return low, high


def _unit(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-300)
