"""The fusion: its fit against known optima and drawn truths, its terms and probabilities against plain NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.baselines import ContextMean, Last
from mlx_lvm.ranking import hybrid, ranking
from mlx_lvm.ranking.hybrid import RIDGE, Hybrid, candidates_of, fit_logit
from mlx_lvm.ranking.ranking import look, simulated_queries

DOCUMENTS = np.array([0, 2, 5, 9, 13])
WEIGHTS = {"plain": (2.0, 9.0, -1.0, -4.0), "query": (2.0, 8.0, -1.0, -4.0, 3.0)}


def arrays(features: np.ndarray, offsets: np.ndarray | None = None) -> tuple[mx.array, mx.array]:
    offsets = np.zeros((features.shape[0], features.shape[2])) if offsets is None else offsets
    return mx.array(features.astype(np.float32)), mx.array(offsets.astype(np.float32))


def test_two_candidates_by_hand() -> None:
    """The truth has feature +1 in 3 of 4 windows, the other candidate -1, and the reverse: tanh(w) + RIDGE w = 1/2."""
    features = np.array([[[-1, 1.0]], [[-1, 1.0]], [[-1, 1.0]], [[1, -1.0]]])
    weight = float(fit_logit(*arrays(features))[0])
    assert np.tanh(weight) + RIDGE * weight == pytest.approx(0.5, abs=2e-3)
    assert weight == pytest.approx(np.log(3) / 2, abs=5e-3)


def drawn(weights: np.ndarray, n: int = 8000, m: int = 40, seed: int = 0) -> np.ndarray:
    """Features whose truth, moved to the last place, is drawn from softmax(weights . features)."""
    generator = np.random.default_rng(seed)
    features = generator.normal(0, 0.3, (n, len(weights), m))
    scores = np.einsum("k,nkm->nm", weights, features) + generator.gumbel(size=(n, m))
    place = scores.argmax(axis=1)
    for i, j in enumerate(place):
        features[i][:, [j, m - 1]] = features[i][:, [m - 1, j]]
    return features


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_drawn_truth_gives_back_its_weights_and_temperature(temperature: float) -> None:
    weights = np.array([4.0, -2.0, 0.0]) * temperature
    found = fit_logit(*arrays(drawn(weights)))
    assert_allclose(found, weights, atol=0.2 * max(1, temperature))  # four standard errors of 8,000 windows
    probability = np.array(mx.softmax(hybrid._scores(*arrays(drawn(weights, seed=1)), found), axis=1))
    assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    for low, high in ((0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.3), (0.3, 1.0)):
        inside = (probability >= low) & (probability < high)
        if (
            inside.sum() > 100
        ):  # of what is given such a probability, so much is true, within four standard errors
            error = np.sqrt(probability[inside].mean() / inside.sum())
            assert inside[:, -1].sum() / inside.sum() == pytest.approx(
                probability[inside].mean(), abs=4 * error
            )


def test_no_step_away_from_the_optimum_is_better() -> None:
    features, offsets = arrays(drawn(np.array([5.0, 1.0, -3.0]), 400))
    found = fit_logit(features, offsets)
    best = hybrid._objective(features, offsets, found)
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.3:
        assert hybrid._objective(features, offsets, found + step) < best


def test_terms_that_say_the_same_share_their_weight_and_one_that_is_never_wrong_stays_finite() -> None:
    features = drawn(np.array([4.0]), 500)
    twice = fit_logit(*arrays(np.repeat(features, 2, axis=1)))
    assert twice[0] == pytest.approx(twice[1], abs=1e-3) and twice.sum() == pytest.approx(
        fit_logit(*arrays(features))[0], abs=0.05
    )
    sure = np.array([[[0, 0, 1.0]]] * 5)
    assert 5 < fit_logit(*arrays(sure))[0] < 20


def test_a_candidate_counts_for_all_it_stands_for() -> None:
    features = drawn(np.array([3.0, 1.0]), 300, 10)
    thrice = np.concatenate([np.repeat(features[:, :, :4], 3, axis=2), features[:, :, 4:]], axis=2)
    offsets = np.zeros((300, 10))
    offsets[:, :4] = np.log(3)
    assert_allclose(fit_logit(*arrays(features, offsets)), fit_logit(*arrays(thrice)), atol=1e-3)
    offsets[:, :4] = -np.inf
    assert_allclose(fit_logit(*arrays(features, offsets)), fit_logit(*arrays(features[:, :, 4:])), atol=1e-3)


def units(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def plain_terms(
    corpus: Corpus, target: int, start: int, mean: np.ndarray, query: int | None = None
) -> np.ndarray:
    x = corpus.numpy().astype(np.float64)
    rows = [
        units(x[target - 4 : target].mean(axis=0)),
        units(x[target - 1]),
        units(x[start:target].mean(axis=0)),
        mean,
    ]
    return np.stack(rows if query is None else [*rows, units(x[query])])


def test_the_query_is_the_sum_of_its_terms(uneven: Corpus) -> None:
    found, mean = windows(uneven, DOCUMENTS, 4), uneven.numpy().mean(axis=0)
    fused = Hybrid(ContextMean(), WEIGHTS["plain"], mean)
    assert fused.name == "mean + hybrid"
    expected = [
        np.array(WEIGHTS["plain"]) @ plain_terms(uneven, t, s, mean)
        for t, s in zip(found.targets, found.starts, strict=True)
    ]
    assert_allclose(np.array(predict_all(fused, found)), np.array(expected), atol=1e-5)


def test_what_a_window_shows_against_a_plain_softmax(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "LOOK_PAIRS", 700)  # three windows at a time
    found, mean = windows(uneven, DOCUMENTS, 4), uneven.numpy().mean(axis=0)
    x = units(uneven.numpy().astype(np.float64))
    surprises = (3.0, 5.0, float("inf"))
    seen = look(ContextMean(), found, mean, candidates_of(uneven), WEIGHTS, surprises)
    asked = simulated_queries(found)
    for i, (t, s) in enumerate(zip(found.targets, found.starts, strict=True)):
        for name, query, out in (("plain", None, []), ("query", int(asked[i]), [int(asked[i])])):
            pool = np.setdiff1d(np.arange(len(uneven)), [*range(t - 4, t), *out])
            scores = x[pool] @ (np.array(WEIGHTS[name]) @ plain_terms(uneven, t, s, mean, query))
            log_p = scores - np.log(np.exp(scores).sum())
            true = log_p[pool == t][0]
            assert seen[f"{name}.surprise"][i] == pytest.approx(-true, abs=1e-4)
            assert seen[f"{name}.rank"][i] == pytest.approx(1 + (log_p > true + 1e-6).sum(), abs=1e-3)
            if name == "plain":
                near = [np.abs(log_p + limit).min() < 1e-4 for limit in surprises]
                sizes = [(log_p >= -limit).sum() for limit in surprises]
                assert_allclose(
                    seen["sizes"][i][np.logical_not(near)], np.array(sizes)[np.logical_not(near)], atol=1e-3
                )
                alone = x[pool] @ plain_terms(uneven, t, s, mean)[0]
                assert seen["cues"][i, 0] == pytest.approx(alone.max(), abs=1e-5)
                assert seen["rank"][i] == pytest.approx(
                    1 + (alone > alone[pool == t][0] + 1e-7).sum(), abs=1e-3
                )
                last = x[pool] @ x[t - 1]
                assert seen["last.rank"][i] == pytest.approx(
                    1 + (last > last[pool == t][0] + 1e-7).sum(), abs=1e-3
                )
                assert seen["cosine"][i] == pytest.approx(alone[pool == t][0], abs=1e-5)


def test_in_a_large_corpus_some_candidates_stand_for_all(
    sotu: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, mean = windows(sotu, np.array([100, 150]), 5), sotu.numpy(np.arange(2000)).mean(axis=0)
    exact = look(Last(), found, mean, candidates_of(sotu), WEIGHTS)
    monkeypatch.setattr(hybrid, "CANDIDATES", 3000)
    assert len(candidates_of(sotu)) == 3000
    estimated = look(Last(), found, mean, candidates_of(sotu), WEIGHTS)
    difference = estimated["plain.surprise"] - exact["plain.surprise"]
    assert (
        abs(difference.mean()) < 0.02 and np.quantile(np.abs(difference), 0.95) < 0.1
    )  # log 17,595 / 3,000 would be 1.77
    assert np.corrcoef(np.log(estimated["plain.rank"]), np.log(exact["plain.rank"]))[0, 1] > 0.98


def test_simulated_queries_come_after_the_target(uneven: Corpus) -> None:
    found = windows(uneven, np.arange(16), 4)
    rows = simulated_queries(found)
    assert (uneven.document_of(rows) == found.documents).all()
    last = found.targets + 1 == uneven.offsets[1:][found.documents]
    assert ((rows - found.targets)[~last] >= 1).all() and ((rows - found.targets)[~last] <= 5).all()
    assert set((rows - found.targets)[~last].tolist()) == {1, 2, 3, 4, 5}
    assert (rows[last] < found.targets[last]).all()
