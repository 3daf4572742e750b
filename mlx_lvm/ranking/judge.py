"""How a fitted ranking does on windows it was not fitted on, among every chunk of the corpus.

judge(ranking, predictor, windows, mean) -> Judgement
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.result import Interval, JsonObject, Result
from mlx_lvm.core.stats import RESAMPLES, DocumentBootstrap
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import Predictor
from mlx_lvm.ranking.candidates import candidates_of
from mlx_lvm.ranking.confidence import Reliability, reliability
from mlx_lvm.ranking.fusion import Ranking
from mlx_lvm.ranking.hybrid import fuses
from mlx_lvm.ranking.mixture import Weights
from mlx_lvm.ranking.ranking import observe

SHOWN_COVERAGES = (0.5, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Ranked(Result):
    """How one query ranks the truth: MRR and R@5, and the gain in both over what it is compared with."""

    mrr: Interval
    recall_at_5: Interval
    mrr_gain: Interval | None = None
    recall_at_5_gain: Interval | None = None


@dataclass(frozen=True)
class SetCoverage(Result):
    """Sets asked to hold the truth so often. coverage: over windows; coverage_of_documents: the mean over
    documents, which is what the promise is about; size: mean number of chunks, and its median.
    """

    asked: float
    promised: bool
    coverage: Interval
    coverage_of_documents: float
    size: float
    size_median: float


@dataclass(frozen=True)
class Judgement(Result):
    """ranked: by name, the prediction alone, the last chunk alone, the fusion where there is one, and with a
    simulated query; the last two with their gain over the one before. A prediction that nothing is fused with
    comes after the last chunk.
    """

    windows: int
    candidates: int
    fit: Ranking
    ranked: dict[str, Ranked]
    sets: list[SetCoverage]
    reliability: Reliability

    def to_dict(self) -> JsonObject:
        """For JSON; the reliability has a place of its own in a result, and is not among it."""
        return {name: value for name, value in super().to_dict().items() if name != "reliability"}


def judge(
    ranking: Ranking,
    predictor: Predictor,
    chosen: Windows,
    mean: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judgement:
    """Of windows that the ranking was not fitted on."""
    bootstrap = DocumentBootstrap(chosen.documents, resamples, seed)
    limits = tuple(ranking.plain.surprise(level) for level in SHOWN_COVERAGES)
    weights = Weights(ranking.plain.weights, ranking.query.weights)
    seen = observe(predictor, chosen, mean, candidates_of(chosen.corpus), weights, limits)

    def ranked(ranks: np.ndarray, over: np.ndarray | None = None) -> Ranked:
        mrr, recall = 1 / ranks, (ranks <= 5).astype(np.float64)
        if over is None:
            return Ranked(*bootstrap.intervals(mrr, recall))
        gains = (mrr - 1 / over, recall - (over <= 5))
        return Ranked(*bootstrap.intervals(mrr, recall, *gains))

    last = ranked(seen.last_rank)
    if fuses(predictor):
        by = {
            "prediction": ranked(seen.prediction_rank),
            "last chunk": last,
            "hybrid": ranked(seen.plain_rank, over=seen.last_rank),
            "hybrid with a query": ranked(seen.query_rank, over=seen.plain_rank),
        }
    else:
        by = {
            "last chunk": last,
            "prediction": ranked(seen.prediction_rank, over=seen.last_rank),
            "prediction with a query": ranked(seen.query_rank, over=seen.prediction_rank),
        }
    expected = ranking.confidence.expected_cosine(seen.features)
    return Judgement(
        windows=len(chosen),
        candidates=len(chosen.corpus) - chosen.context,
        fit=ranking,
        ranked=by,
        sets=[
            _coverage(level, limit, seen.plain_surprise <= limit, seen.set_sizes[:, k], bootstrap)
            for k, (level, limit) in enumerate(zip(SHOWN_COVERAGES, limits, strict=True))
        ],
        reliability=reliability(expected, seen.cosine, bootstrap),
    )


def _coverage(
    level: float, limit: float, held: np.ndarray, sizes: np.ndarray, bootstrap: DocumentBootstrap
) -> SetCoverage:
    _, group = np.unique(bootstrap.documents, return_inverse=True)
    by_document = np.bincount(group, weights=held) / np.bincount(group)
    return SetCoverage(
        asked=level,
        promised=math.isfinite(limit),
        coverage=bootstrap.interval(held.astype(np.float64)),
        coverage_of_documents=float(by_document.mean()),
        size=float(sizes.mean()),
        size_median=float(np.median(sizes)),
    )
