"""What a query is ranked against: every other chunk of the corpus, or evenly spaced ones for all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.arrays import evenly_spaced
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import Index

CANDIDATES = 20_000  # of a larger corpus, so many chunks evenly spaced stand for all
LOOK_PAIRS = 4_000_000  # (window, candidate) pairs looked at together


@dataclass(frozen=True, eq=False)
class Candidates:
    """Chunks that a query is ranked against: rows [m] int32 of the corpus, their unit vectors [m, dim]."""

    corpus: Corpus
    rows: mx.array
    vectors: mx.array

    def __len__(self) -> int:
        return int(self.rows.shape[0])

    def blocks(self, windows: Windows) -> Iterator[slice]:
        """The windows, as many at a time as are looked at together."""
        return windows.blocks(max(1, LOOK_PAIRS // len(self)))


def candidate_rows(count: int) -> np.ndarray:
    """Every row of a corpus of `count` chunks, or CANDIDATES of them, evenly spaced; int32."""
    return evenly_spaced(count, CANDIDATES).astype(np.int32)


def candidates_of(corpus: Corpus) -> Candidates:
    """The candidates of a corpus, with their unit vectors."""
    rows = mx.array(candidate_rows(len(corpus)))
    return Candidates(corpus, rows, normalize(corpus.take(rows)))


def products(queries: mx.array, windows: Windows, index: Index, candidates: Candidates) -> mx.array:
    """Inner products [n, k, m + 1] of queries [n, k, dim] with every candidate and, last, with the truth."""
    n, k, dim = queries.shape
    with_candidates = (queries.reshape(n * k, dim) @ candidates.vectors.T).reshape(n, k, -1)
    with_truth = (queries * normalize(windows.truth(index))[:, None]).sum(axis=2, keepdims=True)
    return mx.concatenate([with_candidates, with_truth], axis=2)


def scores_of(
    queries: Mapping[str, mx.array], windows: Windows, index: Index, candidates: Candidates
) -> dict[str, mx.array]:
    """`products` [n, m + 1] of each of the queries [n, dim], by name."""
    scores = products(mx.stack(list(queries.values()), axis=1), windows, index, candidates)
    return {name: scores[:, place] for place, name in enumerate(queries)}


def offsets_of(
    windows: Windows, index: Index, candidates: Candidates, avoid: np.ndarray | None = None
) -> mx.array:
    """What is added to scores [n, m + 1]: the log of how many chunks a candidate stands for, 0 for the truth,
    and -inf for what is no candidate of its window: its context, the truth a second time, and the row `avoid`
    [n].
    """
    targets, rows = mx.array(windows.targets[index])[:, None], candidates.rows[None]
    out = (rows >= targets - windows.context) & (rows <= targets)
    if avoid is not None:
        out = out | (rows == mx.array(avoid.astype(np.int32))[:, None])
    others = len(candidates.corpus) - windows.context - 1 - (avoid is not None)
    stands_for = mx.log(others / mx.maximum(mx.logical_not(out).sum(axis=1, keepdims=True), 1))
    return mx.concatenate([mx.where(out, -mx.inf, stands_for), mx.zeros((len(targets), 1))], axis=1)


def log_probability(scores: mx.array, offsets: mx.array) -> mx.array:
    """log P of every column [n, m + 1]; the weights make the scores log probabilities up to a constant."""
    return scores - mx.logsumexp(scores + offsets, axis=1, keepdims=True)


def count(chosen: mx.array, offsets: mx.array) -> mx.array:
    """How many chunks the chosen columns stand for, [n]."""
    return (mx.exp(offsets) * chosen).sum(axis=1)


def rank_of_truth(scores: mx.array, offsets: mx.array) -> mx.array:
    """1 and the number of candidates that score above the truth, [n]."""
    return 1 + count(scores > scores[:, -1:], offsets)
