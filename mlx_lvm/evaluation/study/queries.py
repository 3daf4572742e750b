"""What a query is worth: the next chunk predicted with none, with one of the document's later chunks, with a
stranger's.

The query is drawn from the 5 chunks after the target, as in training; a stranger is such a chunk of another
scored document. Only windows that have chunks after the target count, the same for all three.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import Interval, JsonObject, Result
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.metrics.retrieval import Pool, build_pool, ranks
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.mixture import AHEAD


@dataclass(frozen=True)
class QueryScores(Result):
    """Under one kind of query."""

    cosine: Interval
    mrr: Interval


@dataclass(frozen=True)
class QueryGains(Result):
    """Of one kind of query over none, paired."""

    cosine: Interval
    mrr: Interval

    def to_dict(self) -> JsonObject:
        return {name: {"difference": one.value, "ci": one.ends()} for name, one in vars(self).items()}


@dataclass(frozen=True)
class QueryTerms(Result):
    """rows: by kind of query (none, own, stranger, query alone); gains: the same but none."""

    windows: int
    rows: dict[str, QueryScores] = field(default_factory=dict)
    gains: dict[str, QueryGains] = field(default_factory=dict)


def queries(
    predictor: HistoryPredictor, scored: Windows, pool: Pool, resamples: int, seed: int
) -> QueryTerms:
    """Of the windows with chunks after the target; no rows where they are of one document alone."""
    ends = scored.corpus.offsets[1:][scored.documents]
    first = scored.targets.astype(np.int64) + 1
    chosen = scored.select(first < ends)
    if len(np.unique(chosen.documents)) < 2:
        return QueryTerms(len(chosen))
    own, strangers = draw(
        first[first < ends], ends[first < ends], chosen.documents, np.random.default_rng(seed)
    )
    vectors = {name: chosen.corpus.take(rows) for name, rows in (("own", own), ("stranger", strangers))}
    predicted = {
        "none": predictor.predict_with_query(chosen, mx.zeros_like(vectors["own"])),
        **{name: predictor.predict_with_query(chosen, given) for name, given in vectors.items()},
        "query alone": vectors["own"],
    }
    truth, own_pool = chosen.truth(), build_pool(chosen, pool.rows)
    figures = {
        name: QueryFigures(np.array(cosines(one, truth), dtype=np.float64), 1 / ranks(own_pool, one))
        for name, one in predicted.items()
    }
    bootstrap, without = DocumentBootstrap(chosen.documents, resamples, seed), figures["none"]
    rows = {name: QueryScores(*bootstrap.intervals(one.cosine, one.mrr)) for name, one in figures.items()}
    gains = {
        name: QueryGains(*bootstrap.intervals(one.cosine - without.cosine, one.mrr - without.mrr))
        for name, one in figures.items()
        if name != "none"
    }
    return QueryTerms(len(chosen), rows, gains)


@dataclass(frozen=True)
class QueryFigures:
    """Of every window, [n], under one kind of query."""

    cosine: np.ndarray
    mrr: np.ndarray


def draw(
    first: np.ndarray, ends: np.ndarray, documents: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of each window's own query, rows of a stranger's: the own query of a window of another
    document).
    """
    own = first + (generator.random(len(first)) * np.minimum(ends - first, AHEAD)).astype(np.int64)
    other = generator.integers(0, len(own), len(own))
    while (same := documents[other] == documents).any():
        other[same] = generator.integers(0, len(own), int(same.sum()))
    return own, own[other]
