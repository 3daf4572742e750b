"""What turns a prediction into a ranking one can act on: fused weights, how long a list must be, how sure the prediction is.

fit_ranking(predictor, windows, mean) -> Ranking      from validation windows; an exported model carries it in its file
judge(ranking, predictor, windows, mean) -> dict      how it does on windows it was not fitted on
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlx_lvm.core.conformal import thresholds
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import RESAMPLES, DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import Split
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.errors import InvalidFile
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.predictors.base import Predictor, sample
from mlx_lvm.predictors.baselines import target_mean
from mlx_lvm.predictors.history import predict_asked, takes_queries
from mlx_lvm.ranking.certainty import cues_of, fit_certainty, reliability
from mlx_lvm.ranking.fusion import COVERAGES, Fusion, Ranking
from mlx_lvm.ranking.hybrid import (
    TERMS,
    Candidates,
    candidates_of,
    fit_logit,
    fuse,
    fused_terms,
    fuses,
    offsets_of,
    products,
)

TUNING_WINDOWS = 2_000  # validation windows that sets and certainty are calibrated on
FIT_PAIRS = 8_000_000  # (window, candidate) pairs that weights are fitted on: 130 MB, two seconds
LOOK_PAIRS = 4_000_000  # pairs looked at together
AHEAD = 5  # chunks after the target that a simulated query may be
SHOWN_COVERAGES = (0.5, 0.8, 0.9, 0.95)


def ranking_mean(corpus: Corpus, parts: Split, context: int) -> np.ndarray:
    """m of the fusion: the mean of the training targets, float32 [dim]. Raises InvalidFile where there is no training window."""
    return target_mean(corpus, parts.train, context)


def fit_on_validation(predictor: Predictor, corpus: Corpus, parts: Split, context: int) -> Ranking:
    """`fit_ranking` on the corpus's validation documents. Raises InvalidFile where a part has no window."""
    validation = windows(corpus, parts.val, context, "validation documents")
    return fit_ranking(predictor, validation, ranking_mean(corpus, parts, context))


def ranking_for(
    stored: dict[str, Any], predictor: Predictor, corpus: Corpus, parts: Split, context: int
) -> tuple[Ranking | None, list[str]]:
    """The ranking stored with a model where it was fitted on this corpus, else one fitted on the corpus's validation documents,
    else None; and what a reader must know of it. Raises InvalidFile where the stored one does not parse.
    """
    if stored:
        found = Ranking.from_dict(stored)
        if found.corpus_sha256 == corpus.sha256:
            return found, []
    try:
        return fit_on_validation(predictor, corpus, parts, context), []
    except InvalidFile as error:
        return None, [
            f"ranked by the prediction alone, with neither probabilities nor sets: nothing to fit them on ({error})"
        ]


def fit_ranking(predictor: Predictor, validation: Windows, mean: np.ndarray) -> Ranking:
    """Weights, thresholds and certainty from validation windows, against every other chunk of their corpus.

    Weights have two decimals and thresholds are rounded up to three, so that another number of threads changes no digit.
    """
    calibration, candidates = sample(validation, TUNING_WINDOWS), candidates_of(validation.corpus)
    weights = fit_weights(
        predictor, sample(calibration, max(1, FIT_PAIRS // len(candidates))), mean, candidates
    )
    seen = look(predictor, calibration, mean, candidates, weights)

    def fusion(name: str) -> Fusion:
        found = thresholds(seen[f"{name}.surprise"], calibration.documents, COVERAGES)
        return Fusion(
            weights[name],
            tuple(math.ceil(value * 1e3) / 1e3 if math.isfinite(value) else value for value in found),
        )

    certainty = fit_certainty(seen["cues"], seen["cosine"])
    count = len(np.unique(calibration.documents))
    return Ranking(
        validation.corpus.sha256, count, len(calibration), fusion("plain"), fusion("query"), certainty
    )


def simulated_queries(chosen: Windows) -> np.ndarray:
    """For each window the row of a chunk that a reader might ask for, int64 [n]: one of the AHEAD chunks after the target, in
    turn; where the document ends, the chunk before the context, or else the context's first.

    A reader asks about what is to come, so a chunk from anywhere in the document would be no query: the fusion gives it nothing.
    """
    targets, starts = chosen.targets.astype(np.int64), chosen.starts.astype(np.int64)
    after = np.minimum(chosen.corpus.offsets[1:][chosen.documents] - targets - 1, AHEAD)
    return np.where(
        after > 0,
        targets + 1 + np.arange(len(chosen)) % np.maximum(after, 1),
        np.maximum(targets - chosen.context - 1, starts),
    )


def fit_weights(
    predictor: Predictor, chosen: Windows, mean: np.ndarray, candidates: Candidates
) -> dict[str, tuple[float, ...]]:
    """`plain`: weights of TERMS; `query`: of TERMS and the query. What is not fused with the prediction has weight 0."""
    asked = simulated_queries(chosen)
    features: list[mx.array] = []
    offsets: dict[str, list[mx.array]] = {"plain": [], "query": []}
    for index in chosen.blocks(max(1, LOOK_PAIRS // len(candidates))):
        _, terms = _read(predictor, chosen, index, mean, asked)
        features.append(products(terms, chosen, index, candidates))
        offsets["plain"].append(offsets_of(chosen, index, candidates))
        offsets["query"].append(offsets_of(chosen, index, candidates, asked[index]))
        mx.eval(features[-1], offsets["plain"][-1], offsets["query"][-1])
    every = mx.concatenate(features)
    terms_of = {"plain": every[:, : len(TERMS)], "query": every[:, -len(TERMS) - 1 :]}
    out = {}
    for name, added in offsets.items():
        weights = np.zeros(terms_of[name].shape[1])
        used = [k for k in range(len(weights)) if fuses(predictor) or k not in range(1, len(TERMS))]
        weights[used] = fit_logit(terms_of[name][:, mx.array(used)], mx.concatenate(added)).round(2)
        out[name] = tuple(weights.tolist())
    return out


def _read(
    predictor: Predictor, chosen: Windows, index: slice, mean: np.ndarray, asked: np.ndarray
) -> tuple[mx.array, mx.array]:
    """Raw predictions [b, dim] without a query, and terms [b, k, dim]: the first 4 are those without a query, the last 5 those with
    the query of rows `asked`. They share all they can: only a model that takes queries has a second prediction.
    """
    raw, query = predictor.predict(chosen, index), chosen.corpus.take(mx.array(asked[index].astype(np.int32)))
    if takes_queries(predictor) is None:
        return raw, fused_terms(raw, chosen, index, mean, query)
    answered = predict_asked(predictor, chosen, index, query)
    return raw, mx.concatenate(
        [fused_terms(raw, chosen, index, mean), fused_terms(answered, chosen, index, mean, query)], axis=1
    )


def look(
    predictor: Predictor,
    chosen: Windows,
    mean: np.ndarray,
    candidates: Candidates,
    weights: dict[str, tuple[float, ...]],
    surprises: tuple[float, ...] = (),
) -> dict[str, np.ndarray]:
    """What every window shows under the weights, `plain.` without and `query.` with its simulated query: surprise -log P(truth)
    and rank of the truth, [n] each; `rank` and `last.rank`, those by the prediction and by the last chunk alone; `sizes`
    [n, levels] of the plain sets of the given surprises; cues [n, 5]; cosine of the prediction with the truth [n].

    In a corpus larger than the candidates, counts are estimates: a candidate counts for all that it stands for.
    """
    asked = simulated_queries(chosen)
    parts: dict[str, list[np.ndarray]] = {}
    for index in chosen.blocks(max(1, LOOK_PAIRS // len(candidates))):
        raw, terms = _read(predictor, chosen, index, mean, asked)
        fused = [
            fuse(terms[:, : len(TERMS)], weights["plain"]),
            fuse(terms[:, -len(TERMS) - 1 :], weights["query"]),
        ]
        scores = products(mx.stack([terms[:, 0], *fused, terms[:, 1]], axis=1), chosen, index, candidates)
        plain = offsets_of(chosen, index, candidates)
        log_p = _log_p(scores[:, 1], plain)
        sizes = [_count(log_p >= -surprise, plain) for surprise in surprises]
        query = offsets_of(chosen, index, candidates, asked[index])
        found = {
            "rank": _rank(scores[:, 0], plain),
            "last.rank": _rank(scores[:, 3], plain),
            "plain.rank": _rank(scores[:, 1], plain),
            "query.rank": _rank(scores[:, 2], query),
            "plain.surprise": -log_p[:, -1],
            "query.surprise": -_log_p(scores[:, 2], query)[:, -1],
            "sizes": mx.stack(sizes, axis=1) if sizes else mx.zeros((len(raw), 0)),
            "cosine": cosines(raw, chosen.truth(index)),
        }
        best = mx.where(plain > -mx.inf, scores[:, 0], -mx.inf).max(axis=1)
        parts.setdefault("cues", []).append(cues_of(raw, chosen, index, mean, best))
        for name, values in found.items():
            parts.setdefault(name, []).append(np.array(values, dtype=np.float64))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _log_p(scores: mx.array, offsets: mx.array) -> mx.array:
    return scores - mx.logsumexp(scores + offsets, axis=1, keepdims=True)


def _count(chosen: mx.array, offsets: mx.array) -> mx.array:
    return (mx.exp(offsets) * chosen).sum(axis=1)


def _rank(scores: mx.array, offsets: mx.array) -> mx.array:
    return 1 + _count(scores > scores[:, -1:], offsets)


def judge(
    ranking: Ranking,
    predictor: Predictor,
    chosen: Windows,
    mean: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Of windows that the ranking was not fitted on, among every chunk of the corpus: `ranked`, MRR and R@5 of the prediction
    alone, of the last chunk alone, of the fusion where there is one, and with a simulated query, the last two with their gain
    over the one before; a prediction that nothing is fused with comes after the last chunk. `sets`, coverage and size at
    several levels; `reliability`, expected against achieved cosine.
    """
    candidates = candidates_of(chosen.corpus)
    bootstrap = DocumentBootstrap(chosen.documents, resamples, seed)
    asked = tuple(ranking.plain.surprise(level) for level in SHOWN_COVERAGES)
    seen = look(
        predictor,
        chosen,
        mean,
        candidates,
        {"plain": ranking.plain.weights, "query": ranking.query.weights},
        asked,
    )
    rank, by = (
        {"prediction": seen["rank"], "last chunk": seen["last.rank"], "hybrid": seen["plain.rank"]},
        "hybrid",
    )
    if not fuses(predictor):
        rank, by = {"last chunk": seen["last.rank"], "prediction": seen["rank"]}, "prediction"
    rank[f"{by} with a query"] = seen["query.rank"]
    figures = {f"{name}.mrr": 1 / values for name, values in rank.items()}
    figures |= {f"{name}.recall_at_5": (values <= 5).astype(np.float64) for name, values in rank.items()}
    for name, base in ((by, "last chunk"), (f"{by} with a query", by)):
        for figure in ("mrr", "recall_at_5"):
            figures[f"{name}.{figure}_gain"] = figures[f"{name}.{figure}"] - figures[f"{base}.{figure}"]
    found = bootstrap.intervals(figures)
    ranked: dict[str, dict[str, Any]] = {}
    for key, one in found.items():
        name, figure = key.rsplit(".", 1)
        ranked.setdefault(name, {}).update({figure: one.value, f"{figure}_ci": one.ends()})
    return {
        "windows": len(chosen),
        "candidates": len(chosen.corpus) - chosen.context,
        "fit": ranking.to_dict(),
        "ranked": ranked,
        "sets": [
            _set(level, limit, seen["plain.surprise"] <= limit, seen["sizes"][:, k], bootstrap)
            for k, (level, limit) in enumerate(zip(SHOWN_COVERAGES, asked, strict=True))
        ],
        "reliability": reliability(ranking.certainty.expect(seen["cues"]), seen["cosine"], bootstrap),
    }


def _set(
    level: float, limit: float, held: np.ndarray, sizes: np.ndarray, bootstrap: DocumentBootstrap
) -> dict[str, Any]:
    """`coverage` over windows, `coverage_of_documents` the mean over documents, which is what the promise is about."""
    found = bootstrap.intervals({"held": held.astype(np.float64)})["held"]
    _, group = np.unique(bootstrap.documents, return_inverse=True)
    by_document = np.bincount(group, weights=held) / np.bincount(group)
    return {
        "asked": level,
        "promised": math.isfinite(limit),
        "coverage": found.value,
        "coverage_ci": found.ends(),
        "coverage_of_documents": float(by_document.mean()),
        "size": float(sizes.mean()),
        "size_median": float(np.median(sizes)),
    }
