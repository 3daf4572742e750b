"""Retrieval of the true next chunk among the chunks of a split, exact and in blocks.

For each window: candidates are every row of the pool but the window's own context. The truth, and every
candidate whose cosine with the truth is above 0.97, is a hit. The rank is that of the best hit among what is
no hit,

    rank = 1 + #(score > best hit) + #(score = best hit) / 2

so that ties count half: a prediction that cannot tell candidates apart gets the middle of them, neither the
best nor the worst. Scores are cosines; with `fraction` f of the mean m taken off, cosines of p/|p| - f m and
y/|y| - f m.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.arrays import blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import normalize

NEAR_DUPLICATE = 0.97
CANDIDATES, QUERIES = 8192, 1024  # of one block of scores: 32 MiB
CUTS = (1, 5, 10)
CONTRAST = 100  # size of the fixed pool of `contrastive_accuracy`


@dataclass(frozen=True)
class Pairs:
    """Sparse (window, candidate) pairs, in the order of their candidates."""

    window: np.ndarray
    candidate: np.ndarray

    @staticmethod
    def sorted(window: np.ndarray, candidate: np.ndarray) -> Pairs:
        order = np.lexsort((window, candidate))
        return Pairs(window[order], candidate[order])

    def within(self, low: int, high: int) -> Pairs:
        """Pairs with candidates low .. high - 1."""
        a, b = np.searchsorted(self.candidate, [low, high])
        return Pairs(self.window[a:b], self.candidate[a:b])

    def where(self, keep: np.ndarray) -> Pairs:
        return Pairs(self.window[keep], self.candidate[keep])


@dataclass(frozen=True)
class Pool:
    """What each window is ranked against. rows [m] ascending corpus rows; hits and context: pairs into
    (windows, rows); sizes [n]: candidates of each window. `same_document`: only chunks of the window's own
    document compete.
    """

    windows: Windows
    rows: np.ndarray
    hits: Pairs
    context: Pairs
    sizes: np.ndarray
    same_document: bool = False

    def in_document(self) -> Pool:
        """The same windows against the chunks of their own documents."""
        starts, ends = self.ranges()
        hits = self.hits.where(
            (self.hits.candidate >= starts[self.hits.window]) & (self.hits.candidate < ends[self.hits.window])
        )
        own = np.bincount(self.context.window, minlength=len(self.windows))
        return Pool(self.windows, self.rows, hits, self.context, ends - starts - own, same_document=True)

    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """First candidate of each window's document, and the one after its last."""
        offsets = self.windows.corpus.offsets
        return np.searchsorted(self.rows, offsets[self.windows.documents]), np.searchsorted(
            self.rows, offsets[self.windows.documents + 1]
        )

    def hit_counts(self) -> np.ndarray:
        return np.bincount(self.hits.window, minlength=len(self.windows))


def build_pool(windows: Windows, rows: np.ndarray) -> Pool:
    """Finds the hits of every window among `rows` (ascending, holding every target) in one blocked pass."""
    n, context = len(windows), windows.context
    read = windows.targets[:, None].astype(np.int64) - np.arange(1, context + 1)
    place = np.minimum(np.searchsorted(rows, read), len(rows) - 1)
    known = rows[place] == read
    excluded = Pairs.sorted(np.nonzero(known)[0], place[known])
    truth = _prepare(windows.truth(), None, 0.0)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for low, _, candidates in _candidates(windows, rows, None, 0.0):
        for begin in range(0, n, QUERIES):
            close = np.array((truth[begin : begin + QUERIES] @ candidates.T) > NEAR_DUPLICATE)
            window, candidate = np.nonzero(close)
            found.append((window + begin, candidate + low))
    found.append((np.arange(n), np.searchsorted(rows, windows.targets)))
    key = np.unique(np.concatenate([w.astype(np.int64) * len(rows) + c for w, c in found]))
    key = np.setdiff1d(
        key, excluded.window.astype(np.int64) * len(rows) + excluded.candidate, assume_unique=True
    )
    own = np.bincount(excluded.window, minlength=n)
    return Pool(windows, rows, Pairs.sorted(key // len(rows), key % len(rows)), excluded, len(rows) - own)


def ranks(
    pool: Pool, predicted: mx.array, mean: np.ndarray | None = None, fraction: float = 0.0
) -> np.ndarray:
    """Rank of each window's best hit, float64 [n]; `predicted` [n, dim] is raw or unit."""
    queries = _prepare(predicted, mean, fraction)
    best = _best_hits(pool, queries, mean, fraction)
    above = (
        _count_in_document(pool, queries, best, mean, fraction)
        if pool.same_document
        else _count(pool, queries, best, mean, fraction)
    )
    return 1 + above


def _prepare(vectors: mx.array, mean: np.ndarray | None, fraction: float) -> mx.array:
    out = normalize(vectors)
    return out if mean is None or fraction == 0 else normalize(out - fraction * mx.array(mean))


def _candidates(
    windows: Windows, rows: np.ndarray, mean: np.ndarray | None, fraction: float
) -> Iterator[tuple[int, int, mx.array]]:
    for part in blocks(len(rows), CANDIDATES):
        yield part.start, part.stop, _prepare(windows.corpus.take(rows[part]), mean, fraction)


def _best_hits(pool: Pool, queries: mx.array, mean: np.ndarray | None, fraction: float) -> np.ndarray:
    best = np.full(len(pool.windows), -np.inf, dtype=np.float32)
    for part in blocks(len(pool.hits.window), CANDIDATES):
        window, candidate = pool.hits.window[part], pool.hits.candidate[part]
        vectors = _prepare(pool.windows.corpus.take(pool.rows[candidate]), mean, fraction)
        asked = mx.take(queries, mx.array(window.astype(np.int32)), axis=0)
        np.maximum.at(best, window, np.array((asked * vectors).sum(axis=1)))
    return best


def _count(
    pool: Pool, queries: mx.array, best: np.ndarray, mean: np.ndarray | None, fraction: float
) -> np.ndarray:
    """How many candidates that are neither hit nor context score above each best hit, ties half."""
    above = np.zeros(len(best))
    for low, high, candidates in _candidates(pool.windows, pool.rows, mean, fraction):
        passed = [pairs.within(low, high) for pairs in (pool.hits, pool.context)]
        for begin in range(0, len(best), QUERIES):
            above[begin : begin + QUERIES] += _above(
                queries[begin : begin + QUERIES], candidates, best, begin, low, passed
            )
    return above


def _count_in_document(
    pool: Pool, queries: mx.array, best: np.ndarray, mean: np.ndarray | None, fraction: float
) -> np.ndarray:
    """The same among the chunks of the window's own document."""
    above = np.zeros(len(best))
    for begin, end, low, high in _document_blocks(pool):
        candidates = _prepare(pool.windows.corpus.take(pool.rows[low:high]), mean, fraction)
        passed = [pairs.within(low, high) for pairs in (pool.hits, pool.context)]
        above[begin:end] += _above(queries[begin:end], candidates, best, begin, low, passed)
    return above


def _document_blocks(pool: Pool) -> Iterator[tuple[int, int, int, int]]:
    """(first window, end, first candidate, end): at most QUERIES windows of one document against CANDIDATES
    of its chunks.
    """
    starts, ends = pool.ranges()
    edges = np.flatnonzero(np.diff(pool.windows.documents)) + 1
    for first, last in zip([0, *edges], [*edges, len(pool.windows)], strict=True):
        for begin in range(first, last, QUERIES):
            for low in range(starts[first], ends[first], CANDIDATES):
                yield begin, min(begin + QUERIES, last), low, min(low + CANDIDATES, ends[first])


def _above(
    queries: mx.array, candidates: mx.array, best: np.ndarray, begin: int, low: int, passed: list[Pairs]
) -> np.ndarray:
    """Counts over one block of scores, less those of the pairs that do not compete."""
    end = begin + len(queries)
    scores, bar = queries @ candidates.T, mx.array(best[begin:end])[:, None]
    higher, equal = (scores > bar).sum(axis=1), (scores == bar).sum(axis=1)
    chosen = [pairs.where((pairs.window >= begin) & (pairs.window < end)) for pairs in passed]
    window = np.concatenate([pairs.window for pairs in chosen]) - begin
    candidate = np.concatenate([pairs.candidate for pairs in chosen]) - low
    out = np.array(higher, dtype=np.float64) + np.array(equal) / 2
    if len(window):
        places = (mx.array(window.astype(np.int32)), mx.array(candidate.astype(np.int32)))
        passed_over, mark = np.array(scores[places]), best[begin:end][window]
        np.subtract.at(out, window, (passed_over > mark) + (passed_over == mark) / 2)
    return out


@dataclass(frozen=True)
class RankFigures:
    """Of every window, float64 [n]: whether the best hit is among the first k, 1 / rank, and
    `contrastive_accuracy`.
    """

    recall_at_1: np.ndarray
    recall_at_5: np.ndarray
    recall_at_10: np.ndarray
    mrr: np.ndarray
    contrastive_at_100: np.ndarray


def rank_figures(ranks: np.ndarray, pool: Pool) -> RankFigures:
    """From ranks [n] in a pool."""
    at_1, at_5, at_10 = ((ranks <= cut).astype(np.float64) for cut in CUTS)
    return RankFigures(at_1, at_5, at_10, 1 / ranks, contrastive_accuracy(ranks, pool))


def contrastive_accuracy(ranks: np.ndarray, pool: Pool, size: int = CONTRAST) -> np.ndarray:
    """Chance that the best hit beats `size` - 1 others drawn from the pool without replacement: a pool of one
    size for every corpus. Exact from the rank r among m others: prod_{i < size - 1} (m - r + 1 - i) / (m -
    i).
    """
    others = (pool.sizes - pool.hit_counts()).astype(np.float64)
    out = np.ones(len(ranks))
    for i in range(size - 1):
        left = np.maximum(others - i, 0)
        out *= np.where(left > 0, np.clip(others - ranks + 1 - i, 0, None) / np.maximum(left, 1), 1)
    return out
