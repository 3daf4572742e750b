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

    def within(self, windows: slice, candidates: slice) -> Pairs:
        """Those of a block, counted from its corner."""
        a, b = np.searchsorted(self.candidate, [candidates.start, candidates.stop])
        near = Pairs(self.window[a:b] - windows.start, self.candidate[a:b] - candidates.start)
        return near.where((near.window >= 0) & (near.window < windows.stop - windows.start))

    def where(self, keep: np.ndarray) -> Pairs:
        return Pairs(self.window[keep], self.candidate[keep])


@dataclass(frozen=True)
class Pool:
    """What each window is ranked against. rows [m] ascending corpus rows; hits and context: pairs into
    (windows, rows); sizes [n]: candidates of each window. `same_document`: only chunks of it compete.
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
        window, candidate = self.hits.window, self.hits.candidate
        hits = self.hits.where((candidate >= starts[window]) & (candidate < ends[window]))
        own = np.bincount(self.context.window, minlength=len(self.windows))
        return Pool(self.windows, self.rows, hits, self.context, ends - starts - own, same_document=True)

    def ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """First candidate of each window's document, and the one after its last."""
        offsets, documents = self.windows.corpus.offsets, self.windows.documents
        starts, ends = np.searchsorted(self.rows, [offsets[documents], offsets[documents + 1]])
        return starts, ends

    def hit_counts(self) -> np.ndarray:
        return np.bincount(self.hits.window, minlength=len(self.windows))


def build_pool(windows: Windows, rows: np.ndarray) -> Pool:
    """Finds the hits of every window among `rows` (ascending, holding every target) in one blocked pass."""
    n, context = len(windows), windows.context
    read = windows.targets[:, None].astype(np.int64) - np.arange(1, context + 1)
    place = np.minimum(np.searchsorted(rows, read), len(rows) - 1)
    known = rows[place] == read
    excluded = Pairs.sorted(np.nonzero(known)[0], place[known])
    truth = normalize(windows.truth())
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for part in blocks(len(rows), CANDIDATES):
        candidates = normalize(windows.corpus.take(rows[part]))
        for block in blocks(n, QUERIES):
            window, candidate = np.nonzero(np.array((truth[block] @ candidates.T) > NEAR_DUPLICATE))
            found.append((window + block.start, candidate + part.start))
    found.append((np.arange(n), np.searchsorted(rows, windows.targets)))
    key = np.unique(np.concatenate([w.astype(np.int64) * len(rows) + c for w, c in found]))
    left_out = excluded.window.astype(np.int64) * len(rows) + excluded.candidate
    key = np.setdiff1d(key, left_out, assume_unique=True)
    own = np.bincount(excluded.window, minlength=n)
    return Pool(windows, rows, Pairs.sorted(key // len(rows), key % len(rows)), excluded, len(rows) - own)


def ranks(
    pool: Pool, predicted: mx.array, mean: np.ndarray | None = None, fraction: float = 0.0
) -> np.ndarray:
    """Rank of each window's best hit, float64 [n]; `predicted` [n, dim] is raw or unit."""

    def prepare(vectors: mx.array) -> mx.array:
        out = normalize(vectors)
        return out if mean is None or fraction == 0 else normalize(out - fraction * mx.array(mean))

    queries = prepare(predicted)
    best = np.full(len(pool.windows), -np.inf, dtype=np.float32)
    for part in blocks(len(pool.hits.window), CANDIDATES):
        window, candidate = pool.hits.window[part], pool.hits.candidate[part]
        asked = mx.take(queries, mx.array(window.astype(np.int32)), axis=0)
        vectors = prepare(pool.windows.corpus.take(pool.rows[candidate]))
        np.maximum.at(best, window, np.array((asked * vectors).sum(axis=1)))
    out = np.ones(len(best))
    for first, last, lowest, highest in _spans(pool):
        for low in range(lowest, highest, CANDIDATES):
            part = slice(low, min(low + CANDIDATES, highest))
            candidates = prepare(pool.windows.corpus.take(pool.rows[part]))
            for begin in range(first, last, QUERIES):
                block = slice(begin, min(begin + QUERIES, last))
                passed = [pairs.within(block, part) for pairs in (pool.hits, pool.context)]
                out[block] += _above(queries[block] @ candidates.T, best[block], passed)
    return out


def _spans(pool: Pool) -> list[tuple[int, int, int, int]]:
    """(first window, the one after the last, first candidate, the one after the last): which compete."""
    if not pool.same_document:
        return [(0, len(pool.windows), 0, len(pool.rows))]
    starts, ends = pool.ranges()
    edges = (np.flatnonzero(np.diff(pool.windows.documents)) + 1).tolist()
    spans = zip([0, *edges], [*edges, len(pool.windows)], strict=True)
    return [(first, last, int(starts[first]), int(ends[first])) for first, last in spans]


def _above(scores: mx.array, best: np.ndarray, passed: list[Pairs]) -> np.ndarray:
    """How many of a block's candidates score above each best hit, ties half, less the pairs passed over."""
    bar = mx.array(best)[:, None]
    out = np.array((scores > bar).sum(axis=1), dtype=np.float64) + np.array((scores == bar).sum(axis=1)) / 2
    window = np.concatenate([pairs.window for pairs in passed])
    if len(window):
        candidate = np.concatenate([pairs.candidate for pairs in passed])
        places = (mx.array(window.astype(np.int32)), mx.array(candidate.astype(np.int32)))
        passed_over, mark = np.array(scores[places]), best[window]
        np.subtract.at(out, window, (passed_over > mark) + (passed_over == mark) / 2)
    return out


@dataclass(frozen=True)
class RankFigures:
    """Of every window, float64 [n]: is the best hit among the first k, 1 / rank, `contrastive_accuracy`."""

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
