"""What a query is worth: the next chunk predicted with none, with one of the document's later chunks, with a stranger's.

The query is drawn from the 5 chunks after the target, as in training; a stranger is such a chunk of another scored document.
Only windows that have chunks after the target count, the same for all three.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.evaluation.study.rollout import subset
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.metrics.retrieval import Pool, build_pool, ranks
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.training.ramn.documents import QUERY_SPAN


def queries(
    predictor: HistoryPredictor, scored: Windows, pool: Pool, resamples: int, seed: int
) -> dict[str, Any]:
    """`rows`: {none, own, stranger, query alone: {cosine, mrr, each with its ci}}; `gains` over no query, paired."""
    ends = scored.corpus.offsets[1:][scored.documents]
    first = scored.targets.astype(np.int64) + 1
    chosen = subset(scored, first < ends)
    out: dict[str, Any] = {"windows": len(chosen), "rows": {}, "gains": {}}
    if len(np.unique(chosen.documents)) < 2:
        return out
    own, strangers = draw(
        first[first < ends], ends[first < ends], chosen.documents, np.random.default_rng(seed)
    )
    vectors = {
        name: chosen.corpus.take(mx.array(rows.astype(np.int32)))
        for name, rows in (("own", own), ("stranger", strangers))
    }
    predicted = {
        "none": predictor.asked(chosen, mx.zeros_like(vectors["own"])),
        **{name: predictor.asked(chosen, given) for name, given in vectors.items()},
        "query alone": vectors["own"],
    }
    truth, race = chosen.truth(), build_pool(chosen, pool.rows)
    figures = {
        name: {"cosine": np.array(cosines(one, truth), dtype=np.float64), "mrr": 1 / ranks(race, one)}
        for name, one in predicted.items()
    }
    bootstrap = DocumentBootstrap(chosen.documents, resamples, seed)
    for name, found in figures.items():
        intervals = bootstrap.intervals(found)
        out["rows"][name] = {
            key: value
            for k, one in intervals.items()
            for key, value in ((k, one.value), (f"{k}_ci", one.ends()))
        }
        if name != "none":
            gains = bootstrap.intervals({key: found[key] - figures["none"][key] for key in found})
            out["gains"][name] = {
                key: {"difference": one.value, "ci": one.ends()} for key, one in gains.items()
            }
    return out


def draw(
    first: np.ndarray, ends: np.ndarray, documents: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of each window's own query, rows of a stranger's: the own query of a window of another document)."""
    own = first + (generator.random(len(first)) * np.minimum(ends - first, QUERY_SPAN)).astype(np.int64)
    other = generator.integers(0, len(own), len(own))
    while (same := documents[other] == documents).any():
        other[same] = generator.integers(0, len(own), int(same.sum()))
    return own, own[other]
