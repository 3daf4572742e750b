"""What turns a prediction into a ranking to act on: weights, how long a list must be, the cosine to expect.

fit_ranking(predictor, windows, mean) -> Ranking      from validation windows; an exported model carries it
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.core.stats import conformal_thresholds
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.errors import InvalidFile
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.predictors.base import Predictor, sample
from mlx_lvm.predictors.baselines import target_mean
from mlx_lvm.ranking.candidates import (
    Candidates,
    candidates_of,
    count,
    log_probability,
    offsets_of,
    rank_of_truth,
    scores_of,
)
from mlx_lvm.ranking.confidence import features_of, fit_confidence
from mlx_lvm.ranking.fusion import COVERAGES, Fusion, Ranking
from mlx_lvm.ranking.mixture import Weights, fit_weights, read_terms, simulated_queries
from mlx_lvm.ranking.terms import RankingTerms

TUNING_WINDOWS = 2_000  # validation windows that sets and confidence are calibrated on


def ranking_mean(corpus: Corpus, parts: Split, context: int) -> np.ndarray:
    """m of the fusion: the mean of the training targets, float32 [dim]. Raises InvalidFile without any."""
    return target_mean(corpus, parts.train, context)


def fit_on_validation(predictor: Predictor, corpus: Corpus, parts: Split, context: int) -> Ranking:
    """`fit_ranking` on the corpus's validation documents. Raises InvalidFile where a part has no window."""
    validation = windows(corpus, parts.val, context, "validation documents")
    return fit_ranking(predictor, validation, ranking_mean(corpus, parts, context))


def ranking_for(
    stored: JsonObject, predictor: Predictor, corpus: Corpus, parts: Split, context: int
) -> tuple[Ranking | None, list[str]]:
    """The ranking stored with a model where it was fitted on this corpus, else one fitted on the corpus's
    validation documents, else None; and what a reader must know of it. Raises InvalidFile where the stored
    one does not parse.
    """
    if stored:
        ranking = Ranking.from_dict(stored)
        if ranking.corpus_sha256 == corpus.sha256:
            return ranking, []
    try:
        return fit_on_validation(predictor, corpus, parts, context), []
    except InvalidFile as error:
        return None, [
            "ranked by the prediction alone, with neither probabilities nor sets: nothing to fit them on "
            f"({error})"
        ]


def fit_ranking(predictor: Predictor, validation: Windows, mean: np.ndarray) -> Ranking:
    """Weights, thresholds and confidence from validation windows, against every other chunk of their corpus.

    Weights have two decimals, thresholds three, rounded up: another number of threads changes no digit.
    """
    calibration, candidates = sample(validation, TUNING_WINDOWS), candidates_of(validation.corpus)
    weights = fit_weights(predictor, calibration, mean, candidates)
    seen = observe(predictor, calibration, mean, candidates, weights)

    def fusion(terms: RankingTerms, surprise: np.ndarray) -> Fusion:
        thresholds = conformal_thresholds(surprise, calibration.documents, COVERAGES)
        return Fusion(terms, tuple(map(_rounded_up, thresholds)))

    return Ranking(
        corpus_sha256=validation.corpus.sha256,
        documents=len(np.unique(calibration.documents)),
        windows=len(calibration),
        plain=fusion(weights.plain, seen.plain_surprise),
        query=fusion(weights.query, seen.query_surprise),
        confidence=fit_confidence(seen.features, seen.cosine),
    )


def _rounded_up(value: float) -> float:
    return math.ceil(value * 1e3) / 1e3 if math.isfinite(value) else value


@dataclass(frozen=True, eq=False)
class Observed:
    """What every window shows under some weights; `plain` without a query, `query` with its simulated one.

    *_rank [n]: of the truth, by the prediction alone, by the last chunk alone, and by the fusions. *_surprise
    [n]: -log P of the truth. set_sizes [n, levels]: chunks whose surprise is at most each of those given.
    features [n, 5]: see `confidence`. cosine [n]: of the prediction with the truth. In a corpus larger than
    the candidates, counts are estimates: a candidate counts for all that it stands for.
    """

    prediction_rank: np.ndarray
    last_rank: np.ndarray
    plain_rank: np.ndarray
    query_rank: np.ndarray
    plain_surprise: np.ndarray
    query_surprise: np.ndarray
    set_sizes: np.ndarray
    features: np.ndarray
    cosine: np.ndarray


def observe(
    predictor: Predictor,
    chosen: Windows,
    mean: np.ndarray,
    candidates: Candidates,
    weights: Weights,
    surprises: tuple[float, ...] = (),
) -> Observed:
    """Every window of `chosen` against the candidates. surprises: limits of the sets that are counted."""
    asked = simulated_queries(chosen)
    parts = []
    for index in candidates.blocks(chosen):
        without, queried, raw = read_terms(predictor, chosen, index, mean, asked)
        queries = {
            "prediction": without.prediction,
            "plain": without.fuse(weights.plain),
            "query": queried.fuse(weights.query),
            "last": without.last,
        }
        scores = scores_of(queries, chosen, index, candidates)
        plain = offsets_of(chosen, index, candidates)
        query = offsets_of(chosen, index, candidates, asked[index])
        log_p = log_probability(scores["plain"], plain)
        sizes = [count(log_p >= -surprise, plain) for surprise in surprises]
        best = mx.where(plain > -mx.inf, scores["prediction"], -mx.inf).max(axis=1)
        seen = {
            "prediction_rank": rank_of_truth(scores["prediction"], plain),
            "last_rank": rank_of_truth(scores["last"], plain),
            "plain_rank": rank_of_truth(scores["plain"], plain),
            "query_rank": rank_of_truth(scores["query"], query),
            "plain_surprise": -log_p[:, -1],
            "query_surprise": -log_probability(scores["query"], query)[:, -1],
            "set_sizes": mx.stack(sizes, axis=1) if sizes else mx.zeros((len(raw), 0)),
            "cosine": cosines(raw, chosen.truth(index)),
        }
        known = {name: np.array(values, dtype=np.float64) for name, values in seen.items()}
        parts.append({**known, "features": features_of(raw, chosen, index, mean, best)})
    return Observed(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
