"""Which terms a hybrid fuses, chosen by how they rank on validation documents, by folds; and their weights.

A mixture is fitted on some validation documents by the likelihood of the truth and ranks the windows of the
others. That with the best mean reciprocal rank is kept, each ingredient alone among them. Where a mixture's
gain over the best ingredient is within one standard error over documents, the ingredient alone is kept (the
one-standard-error rule: Breiman, Friedman, Olshen and Stone 1984), so that a hybrid is no worse than what it
is made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.arrays import evenly_spaced
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import Predictor, sample
from mlx_lvm.predictors.history import predict_with_query, takes_queries
from mlx_lvm.ranking.candidates import Candidates, offsets_of, rank_of_truth, scores_of
from mlx_lvm.ranking.hybrid import fuses
from mlx_lvm.ranking.logit import fit_logit, maximise
from mlx_lvm.ranking.terms import READ, RankingTerms, TermVectors, term_vectors

FIT_PAIRS = 8_000_000  # (window, candidate) pairs that weights are fitted on: 130 MB, two seconds
FOLD_PAIRS = 4_000_000  # and those that each fold's are
AHEAD = 5  # chunks after the target that a simulated query may be
FOLDS = 4
NEAR = 1e-3  # nats promised by a step that ends as near to the maximum as `fit_logit` does
INGREDIENTS = (("prediction",), ("last",), ("document",))
MIXTURES: tuple[tuple[str, ...], ...] = (
    *INGREDIENTS,
    ("prediction", "mean"),
    ("last", "mean"),
    ("prediction", "last", "mean"),
    READ,
)


@dataclass(frozen=True)
class Weights:
    """The weights without a reader's query, and those with one."""

    plain: RankingTerms
    query: RankingTerms


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores [n, m + 1] of every term against the candidates, by name, and their offsets [n, m + 1]."""

    terms: dict[str, mx.array]
    offsets: mx.array

    @staticmethod
    def joined(parts: Sequence[Scored]) -> Scored:
        terms = {name: mx.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms}
        return Scored(terms, mx.concatenate([part.offsets for part in parts]))

    def features(self, names: Sequence[str]) -> mx.array:
        """[n, k, m + 1]."""
        return mx.stack([self.terms[name] for name in names], axis=1)

    def select(self, index: np.ndarray) -> Scored:
        rows = mx.array(index.astype(np.int32))
        terms = {name: mx.take(scores, rows, axis=0) for name, scores in self.terms.items()}
        return Scored(terms, mx.take(self.offsets, rows, axis=0))


def fit_weights(predictor: Predictor, chosen: Windows, mean: np.ndarray, candidates: Candidates) -> Weights:
    """The terms chosen by folds, and their weights, fitted on all windows and rounded to two decimals."""
    names = choose_terms(predictor, chosen, mean, candidates) if fuses(predictor) else ("prediction",)
    with_query = [*names, "query"]
    if takes_queries(predictor) is not None and "prediction" not in names:
        with_query.insert(0, "prediction")  # its own answer to the query
    fitted = sample(chosen, max(1, FIT_PAIRS // len(candidates)))
    asked = simulated_queries(fitted)
    plain, query = [], []
    for index in candidates.blocks(fitted):
        without, queried, _ = read_terms(predictor, fitted, index, mean, asked)
        plain.append(_score(without, names, fitted, index, candidates))
        query.append(_score(queried, with_query, fitted, index, candidates, asked[index]))
    return Weights(_fit(plain, names), _fit(query, with_query))


def _fit(parts: list[Scored], names: Sequence[str]) -> RankingTerms:
    scored = Scored.joined(parts)
    weights = fit_logit(scored.features(names), scored.offsets)
    return RankingTerms(**dict(zip(names, weights.round(2).tolist(), strict=True)))


def choose_terms(
    predictor: Predictor, chosen: Windows, mean: np.ndarray, candidates: Candidates
) -> tuple[str, ...]:
    """The mixture that ranks best on documents it was not fitted on; of a single document, all terms."""
    documents, place = np.unique(chosen.documents, return_inverse=True)
    if len(documents) < 2:
        return READ
    fold = place % min(FOLDS, len(documents))
    weights = _fold_weights(predictor, chosen, fold, mean, candidates)
    reciprocal: list[np.ndarray] = []
    for index, scored in _scored_blocks(predictor, chosen, mean, candidates):
        mine = mx.array(weights[fold[index]].astype(np.float32))  # [b, mixtures, terms]
        mixed = mine @ scored.features(READ)
        ranks = [rank_of_truth(mixed[:, place], scored.offsets) for place in range(len(MIXTURES))]
        reciprocal.append(1 / np.array(mx.stack(ranks, axis=1), dtype=np.float64))
    return best_mixture(np.concatenate(reciprocal), place)


def best_mixture(reciprocal: np.ndarray, document: np.ndarray) -> tuple[str, ...]:
    """reciprocal [n, mixtures]: ranks under MIXTURES; document [n]: the number of each window's document."""
    mean = reciprocal.mean(axis=0)
    best, alone = int(mean.argmax()), int(mean[: len(INGREDIENTS)].argmax())
    gain = reciprocal[:, best] - reciprocal[:, alone]
    sizes = np.bincount(document)
    # by document, as windows of one are not independent
    excess = np.bincount(document, weights=gain - gain.mean())
    error = math.sqrt(float((excess**2).sum()) * len(sizes) / max(len(sizes) - 1, 1)) / len(gain)
    return MIXTURES[best if gain.mean() > error else alone]


def _fold_weights(
    predictor: Predictor, chosen: Windows, fold: np.ndarray, mean: np.ndarray, candidates: Candidates
) -> np.ndarray:
    """[folds, mixtures, terms]: weights of every mixture, fitted on the windows outside of each fold: by one
    Newton step of theirs from the weights of all where that is near enough (Beirami, Razaviyayn,
    Shahrampour and Tarokh 2017), which costs no look at the candidates.
    """
    rows = evenly_spaced(len(chosen), max(2, FOLD_PAIRS // len(candidates)))
    parts = _scored_blocks(predictor, chosen.select(rows), mean, candidates)
    scored = Scored.joined([part for _, part in parts])
    out = np.zeros((int(fold.max()) + 1, len(MIXTURES), len(READ)))
    whole: dict[tuple[str, ...], np.ndarray] = {}
    for number, names in enumerate(MIXTURES):
        columns = [READ.index(name) for name in names]
        if len(names) == 1:
            out[:, number, columns] = 1  # a ranking does not depend on the weight of its only term
            continue
        smaller = [whole[less] for less in reversed(whole) if set(less) <= set(names)]
        start = smaller[0] if smaller else np.zeros(len(READ))
        at = maximise(scored.features(names), scored.offsets, start[columns])
        whole[names] = np.zeros(len(READ))
        whole[names][columns] = at.weights
        for held_out in range(len(out)):
            others = fold[rows] != held_out
            step, promised = at.step(others)
            if promised < NEAR:
                out[held_out, number, columns] = at.weights + step
            else:
                apart = scored.select(np.flatnonzero(others))
                out[held_out, number, columns] = fit_logit(apart.features(names), apart.offsets, at.weights)
    return out


def _scored_blocks(
    predictor: Predictor, windows: Windows, mean: np.ndarray, candidates: Candidates
) -> Iterator[tuple[slice, Scored]]:
    """The scores of all terms that are read, in blocks of windows."""
    for index in candidates.blocks(windows):
        terms = term_vectors(predictor.predict(windows, index), windows, index, mean)
        yield index, _score(terms, READ, windows, index, candidates)


def _score(
    terms: TermVectors,
    names: Sequence[str],
    windows: Windows,
    index: slice,
    candidates: Candidates,
    asked: np.ndarray | None = None,
) -> Scored:
    scores = scores_of({name: getattr(terms, name) for name in names}, windows, index, candidates)
    offsets = offsets_of(windows, index, candidates, asked)
    mx.eval(*scores.values(), offsets)
    return Scored(scores, offsets)


def read_terms(
    predictor: Predictor, chosen: Windows, index: slice, mean: np.ndarray, asked: np.ndarray
) -> tuple[TermVectors, TermVectors, mx.array]:
    """The terms without a query, those with the query of rows `asked`, the raw prediction without one."""
    raw, query, answered = predictor.predict(chosen, index), chosen.corpus.take(asked[index]), None
    if takes_queries(predictor) is not None:
        answered = predict_with_query(predictor, chosen, index, query)
    with_query = term_vectors(raw if answered is None else answered, chosen, index, mean, query)
    return term_vectors(raw, chosen, index, mean), with_query, raw


def simulated_queries(chosen: Windows) -> np.ndarray:
    """For each window the row of a chunk that a reader might ask for, int64 [n]: one of the AHEAD chunks
    after the target, in turn; where the document ends, the chunk before the context, or else the context's
    first.

    A reader asks about what is to come, so a chunk from anywhere in the document would be no query: the
    fusion gives it nothing.
    """
    targets, starts = chosen.targets.astype(np.int64), chosen.starts.astype(np.int64)
    after = np.minimum(chosen.corpus.offsets[1:][chosen.documents] - targets - 1, AHEAD)
    return np.where(
        after > 0,
        targets + 1 + np.arange(len(chosen)) % np.maximum(after, 1),
        np.maximum(targets - chosen.context - 1, starts),
    )
