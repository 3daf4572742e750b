"""What a query is worth: the next chunk predicted with none, a later chunk of the document, a stranger's.

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
from mlx_lvm.metrics.figures import cosine_values
from mlx_lvm.metrics.retrieval import Pool, build_pool, ranks
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.mixture import AHEAD


@dataclass(frozen=True)
class QueryScores(Result):
    """Under one kind of query, or the gain of one over none, paired."""

    cosine: Interval
    mrr: Interval


@dataclass(frozen=True)
class QueryTerms(Result):
    """rows: by kind of query (none, own, stranger, query alone); gains: the same but none."""

    windows: int
    rows: dict[str, QueryScores] = field(default_factory=dict)
    gains: dict[str, QueryScores] = field(default_factory=dict)

    def to_dict(self) -> JsonObject:
        def told(gain: QueryScores) -> JsonObject:
            return {name: {"difference": one.value, "ci": one.ends()} for name, one in vars(gain).items()}

        return super().to_dict() | {"gains": {name: told(gain) for name, gain in self.gains.items()}}


def queries(predictor: HistoryPredictor, scored: Windows, pool: Pool, every: DocumentBootstrap) -> QueryTerms:
    """Of the windows with chunks after the target; no rows where they are of one document alone."""
    ends = scored.corpus.offsets[1:][scored.documents]
    first = scored.targets.astype(np.int64) + 1
    followed = first < ends
    chosen, bootstrap = scored.select(followed), every.subset(followed)
    if bootstrap.count < 2:
        return QueryTerms(len(chosen))
    generator = np.random.default_rng(every.seed)
    own, strangers = draw(first[followed], ends[followed], chosen.documents, generator)
    vectors = {name: chosen.corpus.take(rows) for name, rows in (("own", own), ("stranger", strangers))}
    predicted = {
        "none": predictor.predict_with_query(chosen, mx.zeros_like(vectors["own"])),
        **{name: predictor.predict_with_query(chosen, given) for name, given in vectors.items()},
        "query alone": vectors["own"],
    }
    truth, own_pool = chosen.truth(), build_pool(chosen, pool.rows)
    figures = {  # cosine and reciprocal rank of every window
        name: np.stack([cosine_values(one, truth), 1 / ranks(own_pool, one)])
        for name, one in predicted.items()
    }
    rows = {name: QueryScores(*bootstrap.intervals(*one)) for name, one in figures.items()}
    without = figures.pop("none")
    gains = {name: QueryScores(*bootstrap.intervals(*(one - without))) for name, one in figures.items()}
    return QueryTerms(len(chosen), rows, gains)


def draw(
    first: np.ndarray, ends: np.ndarray, documents: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of each window's own query, rows of a stranger's: the own query of another document's window)."""
    own = first + (generator.random(len(first)) * np.minimum(ends - first, AHEAD)).astype(np.int64)
    other = generator.integers(0, len(own), len(own))
    while (same := documents[other] == documents).any():
        other[same] = generator.integers(0, len(own), int(same.sum()))
    return own, own[other]
