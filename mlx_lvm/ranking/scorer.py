"""The candidates of one prediction, scored: which rank first, where the truth stands, how likely each is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from mlx_lvm.core.arrays import blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import INLINED, Result
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models.base import normalize
from mlx_lvm.ranking.candidates import candidate_rows
from mlx_lvm.ranking.cases import Label, label
from mlx_lvm.ranking.search import shortlist

BLOCK = 32_768  # chunks scored together
SHORTLIST = 1_000  # chunks that an approximate search hands to the exact ranking, at least


@dataclass(frozen=True)
class RankedChunk(Result):
    """score: what is ranked by, the cosine with the query; cosine: with the prediction alone; rank: only of
    the true chunk; probability, in_set: only where a calibrated ranking says them.
    """

    label: Label = field(metadata=INLINED)
    score: float
    cosine: float
    rank: int | None = None
    probability: float | None = None
    in_set: bool | None = None


@dataclass(frozen=True)
class NextSet(Result):
    """How many of the first chunks hold the next one with probability `coverage`, where `promised`."""

    coverage: float
    promised: bool
    size: int
    exact: bool


@dataclass(frozen=True)
class RankedChunks(Result):
    """The chunks that rank first, best first, and the true one where the document goes on."""

    nearest: list[RankedChunk]
    truth: RankedChunk | None
    set: NextSet | None = None


class CandidateScorer:
    """Every chunk of the corpus but those left out. Not `exact`: those at the top come from an approximate
    search, and what needs all of them is estimated from evenly spaced ones.
    """

    def __init__(self, corpus: Corpus, left_out: np.ndarray, exact: bool = True) -> None:
        self.corpus, self.left_out, self.exact = corpus, left_out, exact
        rows = np.arange(len(corpus), dtype=np.int32) if exact else candidate_rows(len(corpus))
        self.rows = rows[~np.isin(rows, left_out)]
        self.size = len(corpus) - len(left_out)

    @property
    def share(self) -> float:
        """How many candidates each of `rows` stands for."""
        return self.size / len(self.rows)

    def scores(self, units: mx.array) -> np.ndarray:
        """Inner products [n, m] of vectors [n, dim] with the candidates at hand."""
        return inner_products(self.corpus, units, self.rows)

    def best_cosine(self, cosines: np.ndarray) -> float:
        """The highest of the cosines [m] with those candidates that a ranking is calibrated against."""
        return float(cosines[np.isin(self.rows, candidate_rows(len(self.corpus)))].max())

    def rank(
        self, query: mx.array, raw: mx.array, scores: np.ndarray, true: int | None, top: int
    ) -> RankedChunks:
        """The first `top` chunks, and row `true` where it is the next chunk. scores [m]: the query's."""
        query, unit = normalize(query), normalize(raw)
        rows, values = self.rows, scores
        if not self.exact:
            rows = shortlist(self.corpus, np.array(query), max(SHORTLIST, 20 * top) + len(self.left_out))
            rows = rows[~np.isin(rows, self.left_out)]
            values = inner_products(self.corpus, query[None], rows)[0]
        order = np.argsort(-values, kind="stable")[:top]
        nearest, truth = self._chunks(rows[order], values[order], unit), None
        if true is not None:
            # Its score as it is among the others: a product of its own rounds otherwise, and would rank it
            # behind itself.
            value = scores[self.rows == true]
            if not len(value):
                value = inner_products(self.corpus, query[None], np.array([true]))[0]
            place = 1 + round(float((scores > value[0]).sum() * self.share))
            truth = replace(self._chunks(np.array([true]), value, unit)[0], rank=place)
        return RankedChunks(nearest, truth)

    def _chunks(self, rows: np.ndarray, scores: np.ndarray, unit: mx.array) -> list[RankedChunk]:
        cosines = inner_products(self.corpus, unit[None], rows)[0]
        triples = zip(rows.tolist(), scores.tolist(), cosines.tolist(), strict=True)
        return [RankedChunk(label(self.corpus, row), score, cosine) for row, score, cosine in triples]

    def calibrate(
        self, ranked: RankedChunks, query: mx.array, scores: np.ndarray, surprise: float, coverage: float
    ) -> RankedChunks:
        """With probabilities, and the set of those chunks whose -log P is at most `surprise`."""
        sharpness = float(mx.linalg.norm(query))
        scores = sharpness * scores.astype(np.float64)
        highest = float(scores.max())
        log_z = highest + math.log(float(np.exp(scores - highest).sum()) * self.share)

        def likely(chunk: RankedChunk) -> RankedChunk:
            log_p = sharpness * chunk.score - log_z
            return replace(chunk, probability=math.exp(log_p), in_set=log_p >= -surprise)

        size = round(float((scores - log_z >= -surprise).sum() * self.share))
        return RankedChunks(
            nearest=[likely(chunk) for chunk in ranked.nearest],
            truth=None if ranked.truth is None else likely(ranked.truth),
            set=NextSet(coverage, math.isfinite(surprise), size, self.exact),
        )


def inner_products(corpus: Corpus, units: mx.array, rows: np.ndarray) -> np.ndarray:
    """Of vectors [n, dim] with the unit vectors of some chunks [m], float32 [n, m]."""
    parts = [np.array(units @ normalize(corpus.take(rows[block])).T) for block in blocks(len(rows), BLOCK)]
    return np.concatenate(parts, axis=1)
