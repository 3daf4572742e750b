"""What ranks drawn at random would give, where copies of a chunk are one draw and not several.

Of a window, let h distinct vectors be hits, and let its other candidates be groups of equal vectors, n_s of
them of size s. In a random order of distinct vectors, each group stands above the best hit with probability
u, where u has the density h (1 - u)^(h - 1); so the number S of candidates above has, given u, the generating
function

    E[x^S] = prod_s (1 - u + u x^s)^n_s,    rank = 1 + S,    E[1 / rank] = int_0^1 E[x^S] dx

(and E[1 / rank^2] with the weight -log x). Both integrals are taken by tanh-sinh quadrature, whose nodes
crowd at the ends, where everything happens in a large pool.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.arrays import blocks
from mlx_lvm.core.result import Result
from mlx_lvm.data.quality.duplicates import row_digests
from mlx_lvm.metrics.retrieval import CANDIDATES, CUTS, Pool

NODES, STEP = 80, 0.045  # on each side of the middle: see the test for how exact that is
Ties = tuple[int, tuple[tuple[int, int], ...]]  # of a window: h, and (s, n_s) in the order of s


@dataclass(frozen=True)
class Chance(Result):
    """Means over windows of recall and 1 / rank of random ranks; the variance of 1 / rank in a window."""

    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    mrr: float
    mrr_variance: float

    def to_dict(self) -> dict[str, float]:
        return {key: value for key, value in vars(self).items() if key != "mrr_variance"}


def chance(pool: Pool) -> Chance:
    """Over every window of the pool."""
    kinds = Counter(ties(pool))
    each = np.array([chance_of(hits, dict(groups)) for hits, groups in kinds])
    weights = np.array(list(kinds.values()), dtype=np.float64)
    return Chance(*(weights / weights.sum() @ each).tolist())


def ties(pool: Pool) -> Iterator[Ties]:
    """What of each window's pool is equal, window by window."""
    copy = _copies(pool)
    starts, ends = pool.ranges() if pool.same_document else (None, None)
    base: dict[tuple[int, int], tuple[np.ndarray, Counter[int]]] = {}
    hits, context = (_by_window(pairs.window, copy[pairs.candidate]) for pairs in (pool.hits, pool.context))
    for window in range(len(pool.windows)):
        low, high = (0, len(copy)) if starts is None or ends is None else (starts[window], ends[window])
        if (low, high) not in base:
            sizes = np.bincount(copy[low:high], minlength=1)
            base[low, high] = sizes, Counter(sizes[sizes > 0].tolist())
        sizes, groups = base[low, high]
        own = hits.get(window, [])
        left = groups.copy()
        for group, taken in Counter([*own, *context.get(window, [])]).items():
            left[int(sizes[group])] -= 1
            left[int(sizes[group]) - taken] += 1
        del left[0]
        yield len(set(own)), tuple(sorted((size, count) for size, count in left.items() if count))


def _copies(pool: Pool) -> np.ndarray:
    """A number for each candidate row that equal rows share, [m]."""
    corpus, rows = pool.windows.corpus, pool.rows
    digests = [row_digests(np.array(corpus.take(rows[part]))) for part in blocks(len(rows), CANDIDATES)]
    return np.unique(np.concatenate(digests), return_inverse=True)[1].reshape(-1)


def _by_window(window: np.ndarray, value: np.ndarray) -> dict[int, list[int]]:
    out: dict[int, list[int]] = {}
    for key, one in zip(window.tolist(), value.tolist(), strict=True):
        out.setdefault(key, []).append(one)
    return out


def _quadrature() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log u and log (1 - u) of the nodes u in (0, 1), and their weights."""
    t = np.arange(-NODES, NODES + 1) * STEP
    bend = math.pi * np.sinh(t)
    log_u, log_rest = -np.logaddexp(0, -bend), -np.logaddexp(0, bend)
    return log_u, log_rest, STEP * math.pi * np.cosh(t) * np.exp(log_u + log_rest)


def chance_of(hits: int, groups: dict[int, int]) -> tuple[float, float, float, float, float]:
    """P(rank <= each of CUTS), E[1 / rank] and the variance of 1 / rank."""
    log_u, log_rest, weight = _quadrature()
    density = weight * hits * np.exp((hits - 1) * log_rest)
    log_x = log_u  # x runs over the same nodes
    log_generating = np.zeros((len(log_u), len(log_x)))
    for size, count in groups.items():
        log_generating += count * np.logaddexp(log_rest[:, None], log_u[:, None] + size * log_x)
    given_x = density @ np.exp(log_generating)
    mean, square = float(given_x @ weight), float(given_x @ (-log_x * weight))
    at_least = np.cumsum(density @ _few_above(log_u, log_rest, groups, max(CUTS)))
    at_1, at_5, at_10 = (float(at_least[cut - 1]) for cut in CUTS)
    return at_1, at_5, at_10, mean, square - mean**2


def _few_above(log_u: np.ndarray, log_rest: np.ndarray, groups: dict[int, int], most: int) -> np.ndarray:
    """P(S = k given u) for k < most, [nodes, most]."""
    out = np.zeros((len(log_u), most))
    out[:, 0] = 1
    for size, count in groups.items():
        above = min(count, (most - 1) // size)
        j = np.arange(above + 1)
        ways = np.array([math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in j])
        binomial = np.exp(ways + j * log_u[:, None] + (count - j) * log_rest[:, None])
        out = sum(
            np.pad(out, ((0, 0), (size * k, 0)))[:, :most] * binomial[:, k : k + 1] for k in range(above + 1)
        )
    return out
