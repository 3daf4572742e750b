"""The next chunk of a document: the predicted vector, the chunks that rank first, how sure that is, and a rollout's further steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows
from mlx_lvm.errors import UsageError
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import ALL, Predictor
from mlx_lvm.predictors.history import predict_asked, takes_queries
from mlx_lvm.predictors.stage import stage
from mlx_lvm.ranking.cases import label
from mlx_lvm.ranking.certainty import cues_of
from mlx_lvm.ranking.fusion import Ranking
from mlx_lvm.ranking.hybrid import QUERY, TERMS, Hybrid, candidate_rows, fuse, fused_terms
from mlx_lvm.ranking.query import Query
from mlx_lvm.ranking.search import shortlist

BLOCK = 32_768  # chunks scored together
SHORTLIST = 1_000  # chunks that an approximate search hands to the exact ranking, at least


@dataclass(frozen=True, eq=False)
class Ranker:
    """How candidates are ranked: by a fitted ranking with its mean [dim] and perhaps a query. `approximate`: from a shortlist."""

    ranking: Ranking
    mean: np.ndarray
    query: Query | None = None
    approximate: bool = False


def window_at(corpus: Corpus, document: int, at: int | None, context: int) -> Windows:
    """The window whose target is chunk `at` of the document, counted from 0; default: the chunk after its last.

    Raises UsageError where the document has no such chunk or less than `context` before it.
    """
    name, length, start = corpus.names[document], int(corpus.lengths[document]), int(corpus.offsets[document])
    at = length if at is None else at
    if length < context:
        raise UsageError(
            f"document '{name}' has {length} chunks; a context of {context} is asked. Choose a longer document."
        )
    if not context <= at <= length:
        raise UsageError(
            f"--at {at}: document '{name}' has {length} chunks; chunks {context} to {length} have {context} before them"
        )
    return Windows(
        corpus,
        context,
        np.array([start + at], np.int32),
        np.array([start], np.int32),
        np.array([document]),
        0,
    )


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
) -> dict[str, Any]:
    """`steps`: for each, the unit vector and the chunks of the corpus that rank first (the context's own left out), best first,
    and where the document goes on, the true chunk with its rank. `score` is what is ranked by: the cosine with the prediction
    or, with a ranker, with its fused query; `cosine` is the former in any case.

    The first step of a ranker also says the `probability` of each chunk, `expected_cosine` of the prediction with the next
    chunk, and `set`: how many of the first chunks hold the next one with probability `coverage`. No data calibrated later steps.
    `without`: further rows that are no candidates.
    Raises UsageError for a document or place that cannot be predicted, and for a query that is a chunk asked for.
    """
    window = window_at(corpus, document, at, context)
    target, end = int(window.targets[0]), int(corpus.offsets[document + 1])
    left_out, query = np.arange(target - context, target), ranker.query if ranker else None
    if query is not None and query.row is not None:
        if target <= query.row < min(target + steps, end):
            raise UsageError(f"--query {query.text}: that is a chunk to predict")
        left_out = np.union1d(left_out, [query.row])
    if without is not None:
        left_out = np.union1d(left_out, without)
    race = Race(corpus, left_out, exact=not (ranker and ranker.approximate))
    raws, queries = roll_fused(predictor, window, steps, ranker)
    out = []
    for step in range(steps):
        true = target + step if target + step < end else None
        scores, alone = race.scores(mx.stack([normalize(queries[step]), normalize(raws[step])]))
        entry = race.step(queries[step], raws[step], scores, true, top)
        if ranker is not None and step == 0:
            if (
                query is None or takes_queries(predictor) is None
            ):  # what is to be expected of an asked model nobody fitted
                best = float(alone[np.isin(race.rows, candidate_rows(len(corpus)))].max())
                cues = cues_of(raws[:1], window, ALL, ranker.mean, mx.array([best]))
                entry["expected_cosine"] = float(ranker.ranking.certainty.expect(cues)[0])
            race.calibrate(
                entry,
                queries[0],
                scores,
                ranker.ranking.fusion(query is not None).surprise(coverage),
                coverage,
            )
        out.append({"step": step + 1, **entry, "vector": np.array(normalize(raws[step])).tolist()})
    return {
        "model": predictor.name,
        "corpus": corpus.name,
        "document": corpus.names[document],
        "at": target - int(corpus.offsets[document]),
        "rank": "hybrid" if ranker else "prediction",
        "ranked_by": ranked_by(ranker),
        **({"query": query.text} if query else {}),
        "context": [label(corpus, int(row)) for row in range(target - context, target)],
        "candidates": race.size,
        "steps": out,
    }


def ranked_by(ranker: Ranker | None) -> list[str]:
    """The terms that have a weight in the ranking."""
    if ranker is None:
        return [TERMS[0]]
    weights = ranker.ranking.fusion(ranker.query is not None).weights
    return [term for term, weight in zip([*TERMS, QUERY], weights, strict=False) if weight]


def roll_fused(
    predictor: Predictor, window: Windows, steps: int, ranker: Ranker | None
) -> tuple[mx.array, mx.array]:
    """Raw predictions and what ranks candidates, [steps, dim] each; every prediction is read as the next chunk."""
    reader: Predictor = Hybrid(predictor, (), ranker.mean) if ranker else predictor
    histories = stage(window, ALL, reader)
    raws, queries = [], []
    for _ in range(steps):
        made = histories.windows(window.context)
        asked = mx.array(ranker.query.vector)[None] if ranker and ranker.query else None
        raw = predictor.predict(made) if asked is None else predict_asked(predictor, made, ALL, asked)
        query = raw
        if ranker is not None:
            query = fuse(
                fused_terms(raw, made, ALL, ranker.mean, asked),
                ranker.ranking.fusion(asked is not None).weights,
            )
        mx.eval(raw, query)
        raws.append(raw)
        queries.append(query)
        histories = histories.extended(normalize(raw))
    return mx.concatenate(raws), mx.concatenate(queries)


class Race:
    """The candidates of one prediction: every chunk of the corpus but those left out. Not `exact`: those at the top come from an
    approximate search, and what needs all of them is estimated from evenly spaced ones.
    """

    def __init__(self, corpus: Corpus, left_out: np.ndarray, exact: bool = True) -> None:
        self.corpus, self.left_out, self.exact = corpus, left_out, exact
        rows = np.arange(len(corpus), dtype=np.int32) if exact else candidate_rows(len(corpus))
        self.rows = rows[~np.isin(rows, left_out)]
        self.size = len(corpus) - len(left_out)

    def scores(self, units: mx.array) -> np.ndarray:
        """Inner products [n, m] of vectors [n, dim] with the candidates at hand."""
        return inner(self.corpus, units, self.rows)

    def step(
        self, query: mx.array, raw: mx.array, scores: np.ndarray, true: int | None, top: int
    ) -> dict[str, Any]:
        """`nearest` and, where row `true` is the next chunk, `truth`. scores [m]: of the query, as `scores` gives them."""
        query, unit = normalize(query), normalize(raw)
        found, values = self.rows, scores
        if not self.exact:
            found = shortlist(self.corpus, np.array(query), max(SHORTLIST, 20 * top) + len(self.left_out))
            found = found[~np.isin(found, self.left_out)]
            values = inner(self.corpus, query[None], found)[0]
        order = np.argsort(-values, kind="stable")[:top]
        entry: dict[str, Any] = {"nearest": self._entries(found[order], values[order], unit)}
        if true is not None:
            value = inner(self.corpus, query[None], np.array([true]))[0]
            rank = 1 + round(float((scores > value[0]).sum() * self.share))
            entry["truth"] = {**self._entries(np.array([true]), value, unit)[0], "rank": rank}
        return entry

    @property
    def share(self) -> float:
        """How many candidates each of `rows` stands for."""
        return self.size / len(self.rows)

    def _entries(self, rows: np.ndarray, scores: np.ndarray, unit: mx.array) -> list[dict[str, Any]]:
        alone = inner(self.corpus, unit[None], rows)[0]
        triples = zip(rows.tolist(), scores.tolist(), alone.tolist(), strict=True)
        return [
            {**label(self.corpus, row), "score": score, "cosine": cosine} for row, score, cosine in triples
        ]

    def calibrate(
        self, entry: dict[str, Any], query: mx.array, scores: np.ndarray, surprise: float, coverage: float
    ) -> None:
        """Adds probabilities, and the set of those chunks whose -log P is at most `surprise`, to an entry of `step`."""
        sharpness = float(mx.linalg.norm(query))
        scores = sharpness * scores.astype(np.float64)
        highest = float(scores.max())
        log_z = highest + math.log(float(np.exp(scores - highest).sum()) * self.share)
        for one in [*entry["nearest"], *([entry["truth"]] if "truth" in entry else [])]:
            log_p = sharpness * one["score"] - log_z
            one["probability"], one["in_set"] = math.exp(log_p), log_p >= -surprise
        size = round(float((scores - log_z >= -surprise).sum() * self.share))
        entry["set"] = {
            "coverage": coverage,
            "promised": math.isfinite(surprise),
            "size": size,
            "exact": self.exact,
        }


def inner(corpus: Corpus, units: mx.array, rows: np.ndarray) -> np.ndarray:
    """Inner products of vectors [n, dim] with the unit vectors of some chunks [m], float32 [n, m]."""
    parts = []
    for low in range(0, len(rows), BLOCK):
        part = mx.array(rows[low : low + BLOCK].astype(np.int32))
        parts.append(np.array(units @ normalize(corpus.take(part)).T))
    return np.concatenate(parts, axis=1)
