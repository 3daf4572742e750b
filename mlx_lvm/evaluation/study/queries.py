"""What a query is worth: the next chunk predicted with none, with one of the document's later chunks, with a
stranger's.

The query is drawn from the 5 chunks after the target, as in training; a stranger is such a chunk of another
scored document. Only windows that have chunks after the target count, the same for all three.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.metrics.retrieval import Pool, build_pool, ranks
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.mixture import AHEAD


def queries(
    predictor: HistoryPredictor, scored: Windows, pool: Pool, resamples: int, seed: int
) -> dict[str, Any]:
    """`rows`: {none, own, stranger, query alone: {cosine, mrr, each with its ci}}; `gains` over no query,
    paired.
    """
    ends = scored.corpus.offsets[1:][scored.documents]
    first = scored.targets.astype(np.int64) + 1
    chosen = scored.select(first < ends)
    out: dict[str, Any] = {"windows": len(chosen), "rows": {}, "gains": {}}
    if len(np.unique(chosen.documents)) < 2:
        return out
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
    for name, ours in figures.items():
        cosine, mrr = bootstrap.intervals(ours.cosine, ours.mrr)
        out["rows"][name] = {
            **{"cosine": cosine.value, "cosine_ci": cosine.ends()},
            **{"mrr": mrr.value, "mrr_ci": mrr.ends()},
        }
        if name != "none":
            cosine, mrr = bootstrap.intervals(ours.cosine - without.cosine, ours.mrr - without.mrr)
            gains = {"cosine": cosine, "mrr": mrr}
            out["gains"][name] = {k: {"difference": g.value, "ci": g.ends()} for k, g in gains.items()}
    return out


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
