"""The next chunk: neighbours, truth and rank against plain NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.models.base import normalize
from mlx_lvm.predictors.base import sample
from mlx_lvm.predictors.baselines import ContextMean
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.predictors.lags import fit_lag_filter
from mlx_lvm.ranking import predict as predicting
from mlx_lvm.ranking import scorer
from mlx_lvm.ranking.candidates import candidates_of
from mlx_lvm.ranking.confidence import Confidence
from mlx_lvm.ranking.fusion import COVERAGES, Fusion, Ranking
from mlx_lvm.ranking.mixture import Weights, simulated_queries
from mlx_lvm.ranking.predict import Ranker
from mlx_lvm.ranking.query import Query
from mlx_lvm.ranking.ranking import fit_on_validation, observe, ranking_mean
from mlx_lvm.ranking.scorer import CandidateScorer
from mlx_lvm.ranking.terms import RankingTerms, term_vectors
from mlx_lvm.training.ramn.anchor import fit_anchor, start_at_anchor


def predict(*given: object, **named: object) -> dict:
    """The prediction as JSON has it."""
    return predicting.predict(*given, **named).to_dict()  # type: ignore[arg-type]


def test_neighbours_and_truth(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "BLOCK", 50)
    x = uneven.numpy().astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    start = int(uneven.offsets[5])
    result = predict(ContextMean(), uneven, 5, 9, context=4, top=3)
    raw = uneven.numpy(np.arange(start + 5, start + 9)).astype(np.float64).mean(axis=0)
    scores = x @ raw / np.linalg.norm(raw)
    assert_allclose(result["steps"][0]["vector"], raw / np.linalg.norm(raw), atol=1e-6)
    scores[start + 5 : start + 9] = -2
    order = np.argsort(-scores)
    found = result["steps"][0]["nearest"]
    assert_allclose([one["score"] for one in found], scores[order[:3]], atol=1e-6)
    documents = uneven.document_of(order[:3])
    assert [(one["document"], one["chunk"]) for one in found] == [
        (uneven.names[d], int(row - uneven.offsets[d])) for d, row in zip(documents, order[:3], strict=True)
    ]
    truth = result["steps"][0]["truth"]
    assert (truth["chunk"], truth["rank"]) == (9, int((scores > scores[start + 9]).sum()) + 1)
    assert result["candidates"] == len(uneven) - 4 and [one["chunk"] for one in result["context"]] == [
        5,
        6,
        7,
        8,
    ]


def test_behind_the_last_chunk_there_is_no_truth(uneven: Corpus) -> None:
    fitted = fit_lag_filter(uneven, np.array([0, 2, 10]), 5)
    result = predict(fitted, uneven, 7, None, 5, steps=3)
    assert (
        result["at"] == 23
        and [("truth" in step, len(step["nearest"])) for step in result["steps"]] == [(False, 5)] * 3
    )
    nearly = predict(fitted, uneven, 7, 21, 5, steps=3)
    assert ["truth" in step for step in nearly["steps"]] == [True, True, False]


def test_what_cannot_be_predicted(uneven: Corpus) -> None:
    with pytest.raises(UsageError, match="--at 3: document 'document 5' has 40 chunks; chunks 5 to 40"):
        predict(ContextMean(), uneven, 5, 3, 5)
    with pytest.raises(UsageError, match="--at 41"):
        predict(ContextMean(), uneven, 5, 41, 5)
    with pytest.raises(UsageError, match="'document 1' has 4 chunks; the model reads 5"):
        predict(ContextMean(), uneven, 1, None, 5)


RANKING = Ranking(
    "", 20, 100,
    Fusion(RankingTerms(2.0, 9.0, -1.0, -4.0), (5.0,) * 45 + (float("inf"),) * (len(COVERAGES) - 45)),
    Fusion(RankingTerms(2.0, 8.0, -1.0, -4.0, 6.0), (4.5,) * len(COVERAGES)),
    Confidence(0.1, (0.5, 0.0, 0.0, 0.0, 0.0)),
)  # fmt: skip


def units(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("asked", [None, 33])
def test_a_ranking_against_plain_numpy(uneven: Corpus, asked: int | None) -> None:
    """Order, probabilities, set and expected cosine of chunk 9 of document 5, without and with chunk 33 as
    query.
    """
    x, mean = units(uneven.numpy().astype(np.float64)), uneven.numpy().mean(axis=0)
    start = int(uneven.offsets[5])
    raw = uneven.numpy(np.arange(start + 5, start + 9)).astype(np.float64).mean(axis=0)
    terms = [units(raw), x[start + 8], units(uneven.numpy(np.arange(start, start + 9)).mean(axis=0)), mean]
    out, query, fusion = list(range(start + 5, start + 9)), None, RANKING.plain
    if asked is not None:
        row = start + asked
        query, fusion = Query(uneven.numpy(np.array([row]))[0], "it", row), RANKING.query
        terms.append(x[row])
        out.append(row)
    q = fusion.weights.array()[: len(terms)] @ np.stack(terms)
    pool = np.setdiff1d(np.arange(len(uneven)), out)
    p = np.exp(x[pool] @ q)
    p /= p.sum()
    result = predict(
        ContextMean(),
        uneven,
        5,
        9,
        4,
        steps=2,
        top=len(pool),
        ranker=Ranker(RANKING, mean, query),
        coverage=0.9,
    )
    first, second = result["steps"]
    assert_allclose([one["probability"] for one in first["nearest"]], np.sort(p)[::-1], rtol=1e-4)
    assert sum(one["probability"] for one in first["nearest"]) == pytest.approx(1, abs=1e-5)
    best = int(pool[p.argmax()])
    document = int(uneven.document_of(np.array([best]))[0])
    named = first["nearest"][0]
    assert (named["document"], named["chunk"]) == (uneven.names[document], best - uneven.offsets[document])
    assert named["score"] == pytest.approx(x[best] @ q / np.linalg.norm(q), abs=1e-6)
    assert named["cosine"] == pytest.approx(x[best] @ units(raw), abs=1e-6)
    size = int((-np.log(p) <= fusion.surprise(0.9)).sum())
    assert first["set"] == {
        "coverage": 0.9,
        "promised": True,
        "size": size,
        "exact": True,
    } and 0 < size < len(pool)
    assert [one["in_set"] for one in first["nearest"]] == [True] * size + [False] * (len(pool) - size)
    true = p[pool == start + 9][0]
    assert first["truth"]["rank"] == 1 + (p > true * (1 + 1e-9)).sum()
    assert first["truth"]["probability"] == pytest.approx(true, rel=1e-4)
    assert first["expected_cosine"] == pytest.approx(0.1 + 0.5 * (x[pool] @ units(raw)).max(), abs=1e-5)
    assert_allclose(first["vector"], units(raw), atol=1e-6)  # the prediction, not the query
    assert "set" not in second and "probability" not in second["nearest"][0]
    assert (
        result["candidates"] == len(pool)
        and result["rank"] == "hybrid"
        and ("query" in result) == (asked is not None)
    )
    assert result["ranked_by"] == ["prediction", "last", "document", "mean", *(["query"] if asked else [])]


def test_a_later_step_reads_the_prediction_as_the_last_chunk(uneven: Corpus) -> None:
    mean, start = uneven.numpy().mean(axis=0), int(uneven.offsets[5])
    before = uneven.numpy(np.arange(start, start + 9)).astype(np.float64)
    first = units(before[-4:].mean(axis=0))
    grown = np.vstack([before, first])
    terms = np.stack([units(grown[-4:].mean(axis=0)), first, units(grown.mean(axis=0)), mean])
    result = predict(ContextMean(), uneven, 5, 9, 4, steps=2, ranker=Ranker(RANKING, mean))
    assert predict(ContextMean(), uneven, 5, 9, 4)["ranked_by"] == ["prediction"]
    q = units(RANKING.plain.weights.array()[:4] @ terms)
    scores = units(uneven.numpy().astype(np.float64)) @ q
    scores[start + 5 : start + 9] = -2
    assert_allclose(
        [one["score"] for one in result["steps"][1]["nearest"]], np.sort(scores)[::-1][:5], atol=1e-5
    )


def test_more_than_the_documents_can_promise(uneven: Corpus) -> None:
    ranker = Ranker(RANKING, uneven.numpy().mean(axis=0))
    found = predict(ContextMean(), uneven, 5, 9, 4, ranker=ranker, coverage=0.97)["steps"][0]["set"]
    assert not found["promised"] and found["size"] == len(uneven) - 4


def test_a_query_that_is_the_answer(uneven: Corpus) -> None:
    row = int(uneven.offsets[5]) + 9
    ranker = Ranker(
        RANKING, uneven.numpy().mean(axis=0), Query(uneven.numpy(np.array([row]))[0], "document 5:9", row)
    )
    with pytest.raises(UsageError, match="document 5:9: that is a chunk to predict"):
        predict(ContextMean(), uneven, 5, 9, 4, ranker=ranker)


def test_an_approximate_search_is_ranked_exactly(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is proposed comes in exact order; what is not proposed is not shown; the context is never
    shown.
    """
    start = int(uneven.offsets[5])
    proposed = np.array([*range(start, start + 12), 3, 99])
    monkeypatch.setattr(scorer, "shortlist", lambda corpus, query, count: proposed)
    mean = uneven.numpy().mean(axis=0)
    exact = predict(ContextMean(), uneven, 5, 9, 4, top=300, ranker=Ranker(RANKING, mean))["steps"][0]
    found = predict(ContextMean(), uneven, 5, 9, 4, top=300, ranker=Ranker(RANKING, mean, approximate=True))[
        "steps"
    ][0]
    names = [(one["document"], one["chunk"]) for one in found["nearest"]]
    assert len(set(names)) == len(names) == len(proposed) - 4
    assert names == [place for one in exact["nearest"] if (place := (one["document"], one["chunk"])) in names]
    assert (
        found["set"] == {**exact["set"], "exact": False} and found["truth"]["rank"] == exact["truth"]["rank"]
    )


def test_estimates_where_some_stand_for_all(sotu: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_lvm.ranking.candidates.CANDIDATES", 5000)
    some = CandidateScorer(sotu, np.arange(100, 105), exact=False)
    assert some.size == len(sotu) - 5 and some.share == pytest.approx(len(sotu) / 5000, rel=1e-3)


def test_a_model_that_takes_queries_is_asked(small: Corpus) -> None:
    """Its own answer to the query is the prediction, and the fit with a query fuses that answer; without one
    nothing changes.
    """
    model = build(
        config_from_dict(
            {"model_type": "ramn", "dim": small.dim, "rank": 12, "hidden_dim": 16, "queries": 0.5}
        )
    )
    start_at_anchor(model, fit_anchor(small, split_corpus(small).train, 5, model.config))
    predictor = HistoryPredictor("asked", model)
    parts = split_corpus(small)
    document, found = int(parts.test[0]), fit_on_validation(predictor, small, parts, 5)
    row = int(small.offsets[document]) + 15
    query = Query(small.numpy(np.array([row]))[0], "it", row)
    mean = ranking_mean(small, parts, 5)
    plain = predict(predictor, small, document, 12, 5, ranker=Ranker(found, mean))["steps"][0]
    asked = predict(predictor, small, document, 12, 5, ranker=Ranker(found, mean, query))["steps"][0]
    window = predicting.window_at(small, document, 12, 5)
    answer = np.array(normalize(predictor.predict_with_query(window, mx.array(query.vector)[None])))[0]
    assert_allclose(asked["vector"], answer, atol=1e-5)
    assert_allclose(plain["vector"], np.array(normalize(predictor.predict(window)))[0], atol=1e-5)
    assert np.abs(np.array(asked["vector"]) - plain["vector"]).max() > 1e-3
    assert "expected_cosine" in plain and "expected_cosine" not in asked and "set" in asked
    validation = sample(windows(small, parts.val, 5), 2000)
    weights = Weights(found.plain.weights, found.query.weights)
    seen = observe(predictor, validation, mean, candidates_of(small), weights)
    rows = simulated_queries(validation)
    queries = small.take(rows)
    given = predictor.predict_with_query(validation, queries)
    vectors = term_vectors(given, validation, slice(None), mean, queries)
    fused = sum(
        weight * np.array(getattr(vectors, term)) for term, weight in vars(found.query.weights).items()
    )
    scores = fused @ units(small.numpy().astype(np.float64)).T
    for i, t in enumerate(validation.targets):
        scores[i, [*range(t - 5, t), rows[i]]] = -np.inf
    log_p = scores[np.arange(len(rows)), validation.targets] - np.log(np.exp(scores).sum(axis=1))
    assert_allclose(seen.query_surprise, -log_p, atol=1e-3)
