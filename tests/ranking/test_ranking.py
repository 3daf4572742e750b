"""A ranking: what it stores and refuses, what it promises on documents it never saw, and where it comes
from.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import InvalidFile
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.baselines import ContextMean, Last
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.ranking.fusion import COVERAGES, Ranking
from mlx_lvm.ranking.judge import judge
from mlx_lvm.ranking.ranking import fit_on_validation, fit_ranking, ranking_for, ranking_mean

from ..helpers import make_corpus


@pytest.fixture(scope="module")
def fitted(small: Corpus) -> Ranking:
    return fit_on_validation(ContextMean(), small, split_corpus(small), 5)


def test_it_survives_json(fitted: Ranking) -> None:
    text = json.dumps(fitted.to_dict(), allow_nan=False)
    assert Ranking.from_dict(json.loads(text)) == fitted
    assert set(fitted.to_dict()["query"]["weights"]) == {"prediction", "last", "document", "mean", "query"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("plain", "weights", "last"), None),
        (("plain", "weights", "last"), float("nan")),
        (("plain", "weights"), [1, 2, 3, 4]),
        (("query", "weights"), {"last": 1.0}),
        (("query", "surprises"), [1.0]),
        (("plain", "surprises"), [3.0, 2.0] + [4.0] * (len(COVERAGES) - 2)),
        (("certainty", "best"), "much"),
        (("certainty",), {}),
        (("windows",), "many"),
    ],
)
def test_what_is_no_ranking_is_refused(fitted: Ranking, path: tuple[str, ...], value: object) -> None:
    values = json.loads(json.dumps(fitted.to_dict()))
    place = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(InvalidFile, match="ranking stored with the model does not parse"):
        Ranking.from_dict(values)


def test_the_same_fit_again(small: Corpus, fitted: Ranking) -> None:
    assert fit_on_validation(ContextMean(), small, split_corpus(small), 5) == fitted


def test_more_coverage_takes_a_longer_list_and_too_much_is_not_promised(fitted: Ranking) -> None:
    found = [fitted.plain.surprise(level) for level in COVERAGES]
    assert found == sorted(found) and found[-1] == np.inf
    assert fitted.plain.surprise(0.5) == fitted.plain.surprises[0]
    assert (
        fitted.plain.surprise(0.501) == fitted.plain.surprises[1]
    )  # the next that is kept: never less than asked for
    assert fitted.plain.surprise(0.999) == np.inf


def test_sets_hold_on_other_documents(sotu: Corpus) -> None:
    """Fitted on 20 addresses, seen on 60 others: the promise is about the mean over documents."""
    rows = np.concatenate([np.arange(sotu.offsets[d], sotu.offsets[d] + 14) for d in range(0, 160, 2)])
    corpus = make_corpus(sotu.numpy(rows)[:, :48], [14] * 80)
    mean = corpus.numpy().mean(axis=0)
    found = fit_ranking(ContextMean(), windows(corpus, np.arange(0, 80, 4), 5), mean)
    judged = judge(
        found, ContextMean(), windows(corpus, np.setdiff1d(np.arange(80), np.arange(0, 80, 4)), 5), mean, 500
    )
    by_level = {one.asked: one for one in judged.sets}
    for level in (0.5, 0.8, 0.9):
        # 60 documents of 9 windows: three standard errors of their mean, were each document all or nothing,
        # would be 0.12.
        assert by_level[level].promised and by_level[level].coverage_of_documents > level - 0.06
        assert by_level[level].coverage_of_documents < level + 1 / 21 + 0.08
    assert by_level[0.5].size < by_level[0.8].size < by_level[0.9].size < len(corpus)
    fused, alone = judged.ranked["hybrid"], judged.ranked["last chunk"]
    assert fused.mrr.value > judged.ranked["prediction"].mrr.value + 0.02
    assert fused.mrr_gain.value == pytest.approx(fused.mrr.value - alone.mrr.value)
    assert judged.reliability.correlation > 0.2 and len(judged.reliability.bins) == 10
    json.dumps([judged.to_dict(), judged.reliability.to_dict()], allow_nan=False)


def test_a_model_made_for_ranking_gets_a_temperature_and_nothing_beside_it(small: Corpus) -> None:
    model = build(config_from_dict({"model_type": "ramn", "head": "retrieve", "dim": small.dim, "rank": 8}))
    predictor, parts = predictor_of("ranks", model), split_corpus(small)
    found, read, mean = (
        fit_on_validation(predictor, small, parts, 5),
        windows(small, parts.test, 5),
        ranking_mean(small, parts, 5),
    )
    assert found.plain.weights.used == ["prediction"] and found.query.weights.used == ["prediction", "query"]
    assert found.plain.weights.prediction > 1 and found.query.weights.prediction > 1
    judged = {name: one.to_dict() for name, one in judge(found, predictor, read, mean, 100).ranked.items()}
    assert list(judged) == ["last chunk", "prediction", "prediction with a query"]
    assert judged["prediction"]["mrr_gain"] == pytest.approx(
        judged["prediction"]["mrr"] - judged["last chunk"]["mrr"]
    )
    asked = judged["prediction with a query"]
    assert asked["mrr_gain"] == pytest.approx(asked["mrr"] - judged["prediction"]["mrr"])

    x = small.numpy() / np.linalg.norm(small.numpy(), axis=1, keepdims=True)
    validation = windows(small, parts.val, 5)
    unit = np.array(predict_all(predictor, validation)).astype(np.float64)
    scores = unit / np.linalg.norm(unit, axis=1, keepdims=True) @ x.T
    for row, t in zip(scores, validation.targets, strict=True):
        row[t - 5 : t] = -np.inf

    def likelihood(weight: float) -> float:
        truth = weight * scores[np.arange(len(scores)), validation.targets]
        return float((truth - np.log(np.exp(weight * scores).sum(axis=1))).mean())

    best = found.plain.weights.prediction
    assert likelihood(best) > max(likelihood(best - 1), likelihood(best + 1))


def test_where_it_comes_from(small: Corpus, fitted: Ranking) -> None:
    parts = split_corpus(small)
    marked = {**fitted.to_dict(), "windows": 7}
    assert ranking_for(marked, ContextMean(), small, parts, 5)[0] == replace(
        fitted, windows=7
    )  # stored for this corpus
    other = {**marked, "corpus_sha256": "another"}
    assert ranking_for(other, ContextMean(), small, parts, 5) == (fitted, [])
    nobody = replace(parts, val=np.array([], int))
    found, notes = ranking_for(other, Last(), small, nobody, 5)
    assert found is None and "nothing to fit them on" in notes[0] and "validation documents" in notes[0]
    rows = np.concatenate([np.arange(small.offsets[d] + 5, small.offsets[d + 1]) for d in parts.train])
    np.testing.assert_allclose(
        ranking_mean(small, parts, 5), small.numpy().astype(np.float64)[rows].mean(axis=0), atol=1e-6
    )
