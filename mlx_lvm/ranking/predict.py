"""The next chunks of a document: predicted vectors, the chunks that rank first, what cosine to expect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import INLINED, JsonObject, Result, key
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import UsageError
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import ALL, Predictor
from mlx_lvm.predictors.histories import synthetic_histories
from mlx_lvm.predictors.history import predict_with_query, takes_queries
from mlx_lvm.ranking.cases import Label, label
from mlx_lvm.ranking.confidence import features_of
from mlx_lvm.ranking.fusion import Ranking
from mlx_lvm.ranking.hybrid import Hybrid
from mlx_lvm.ranking.query import Query
from mlx_lvm.ranking.scorer import CandidateScorer, RankedChunks
from mlx_lvm.ranking.terms import RankingTerms, term_vectors


@dataclass(frozen=True, eq=False)
class Ranker:
    """A fitted ranking with its mean [dim], and perhaps a query. `approximate`: of a shortlist alone."""

    ranking: Ranking
    mean: np.ndarray
    query: Query | None = None
    approximate: bool = False

    @property
    def weights(self) -> RankingTerms:
        return self.ranking.fusion(self.query is not None).weights


@dataclass(frozen=True)
class Decoded(Result):
    """A vector as text, and the cosine of the text's own embedding with it; None where nobody can tell."""

    text: str
    cosine: float | None

    def to_dict(self) -> JsonObject:
        return dict(vars(self))


@dataclass(frozen=True)
class Step(Result):
    """One chunk ahead. vector [dim]: the unit prediction, and its expected cosine with the true chunk."""

    number: int = field(metadata=key("step"))
    ranked: RankedChunks = field(metadata=INLINED)
    vector: list[float]
    expected_cosine: float | None = None
    decoded: Decoded | None = None


@dataclass(frozen=True)
class Outlook(Result):
    """What comes after chunk `at` - 1 of a document. rank: hybrid or prediction; ranked_by: its terms."""

    model: str
    corpus: str
    document: str
    at: int
    rank: str
    ranked_by: list[str]
    query: str | None
    context: list[Label]
    candidates: int
    steps: list[Step]


def window_at(corpus: Corpus, document: int, at: int | None, context: int) -> Windows:
    """The window whose target is chunk `at` of the document, from 0; by default the one after its last.

    Raises UsageError where the document has no such chunk or less than `context` before it.
    """
    name, length, start = corpus.names[document], int(corpus.lengths[document]), int(corpus.offsets[document])
    at = length if at is None else at
    if length < context:
        raise UsageError(
            f"document '{name}' has {length} chunks; the model reads {context}. Choose a longer document."
        )
    if not context <= at <= length:
        raise UsageError(
            f"--at {at}: document '{name}' has {length} chunks; chunks {context} to {length} have {context} "
            "before them"
        )
    targets, starts = np.array([start + at], np.int32), np.array([start], np.int32)
    return Windows(corpus, context, targets, starts, np.array([document]), 0)


def predict(
    predictor: Predictor,
    corpus: Corpus,
    document: int,
    at: int | None,
    context: int,
    steps: int = 1,
    top: int = 5,
    ranker: Ranker | None = None,
    coverage: float = 0.9,
    without: np.ndarray | None = None,
) -> Outlook:
    """For each step the chunks of the corpus that rank first (the context's own left out), and where the
    document goes on, the true chunk with its rank: by the cosine with the prediction or, with a ranker, with
    its fused query.

    The first step of a ranker also says probabilities, a set and the expected cosine. No data calibrated
    later steps. `without`: further rows that are no candidates. Raises UsageError for a document or place
    that cannot be predicted, and for a query that is a chunk asked for.
    """
    window = window_at(corpus, document, at, context)
    target, end = int(window.targets[0]), int(corpus.offsets[document + 1])
    left_out = _left_out(ranker.query if ranker else None, target, context, min(target + steps, end))
    if without is not None:
        left_out = np.union1d(left_out, without)
    rows = range(target, target + steps)
    truths = [row if row < end else None for row in rows]
    ahead = look_ahead(predictor, window, corpus, left_out, truths, top, ranker, coverage)
    return Outlook(
        model=predictor.name,
        corpus=corpus.name,
        document=corpus.names[document],
        at=target - int(corpus.offsets[document]),
        rank="hybrid" if ranker else "prediction",
        ranked_by=ranker.weights.used if ranker else ["prediction"],
        query=ranker.query.text if ranker and ranker.query else None,
        context=[label(corpus, row) for row in range(target - context, target)],
        candidates=len(corpus) - len(left_out),
        steps=ahead,
    )


def look_ahead(
    predictor: Predictor,
    window: Windows,
    corpus: Corpus,
    left_out: np.ndarray,
    truths: Sequence[int | None],
    top: int,
    ranker: Ranker | None = None,
    coverage: float = 0.9,
) -> list[Step]:
    """A step for each of `truths`, the row of the corpus that it comes to, None where nobody knows.

    window: the one to go on from, which may be of another corpus. left_out: rows that are no candidates.
    """
    query = ranker.query if ranker else None
    scorer = CandidateScorer(corpus, left_out, exact=not (ranker and ranker.approximate))
    raws, queries = roll_fused(predictor, window, len(truths), ranker)
    out = []
    for step, true in enumerate(truths):
        scores, alone = scorer.scores(mx.stack([normalize(queries[step]), normalize(raws[step])]))
        ranked, expected = scorer.rank(queries[step], raws[step], scores, true, top), None
        if ranker is not None and step == 0:
            # What to expect of a prediction that answers a query, nobody fitted.
            if query is None or takes_queries(predictor) is None:
                best = mx.array([scorer.best_cosine(alone)])
                features = features_of(raws[:1], window, ALL, ranker.mean, best)
                expected = float(ranker.ranking.confidence.expected_cosine(features)[0])
            surprise = ranker.ranking.fusion(query is not None).surprise(coverage)
            ranked = scorer.calibrate(ranked, queries[0], scores, surprise, coverage)
        out.append(Step(step + 1, ranked, np.array(normalize(raws[step])).tolist(), expected))
    return out


def _left_out(query: Query | None, target: int, context: int, end: int) -> np.ndarray:
    """Rows that nobody looks for: the context, and the query where it is a chunk of the corpus."""
    read = np.arange(target - context, target)
    if query is None or query.row is None:
        return read
    if target <= query.row < end:
        raise UsageError(f"--query {query.text}: that is a chunk to predict")
    return np.union1d(read, [query.row])


def roll_fused(
    predictor: Predictor, window: Windows, steps: int, ranker: Ranker | None
) -> tuple[mx.array, mx.array]:
    """Raw predictions and what ranks candidates, [steps, dim] each; each prediction is read in turn."""
    reader: Predictor = Hybrid(predictor, RankingTerms(), ranker.mean) if ranker else predictor
    histories = synthetic_histories(window, ALL, reader)
    asked = mx.array(ranker.query.vector)[None] if ranker and ranker.query else None
    raws, queries = [], []
    for _ in range(steps):
        made = histories.windows(window.context)
        raw = predictor.predict(made) if asked is None else predict_with_query(predictor, made, ALL, asked)
        query = raw
        if ranker is not None:
            query = term_vectors(raw, made, ALL, ranker.mean, asked).fuse(ranker.weights)
        mx.eval(raw, query)
        raws.append(raw)
        queries.append(query)
        histories = histories.extended(normalize(raw))
    return mx.concatenate(raws), mx.concatenate(queries)
