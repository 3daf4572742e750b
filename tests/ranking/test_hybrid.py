"""The fusion: its fit against known optima and drawn truths, its terms and probabilities against plain
NumPy.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.baselines import ContextMean, Last
from mlx_lvm.predictors.controls import Oracle, RandomVector
from mlx_lvm.ranking import candidates, logit
from mlx_lvm.ranking.candidates import candidates_of
from mlx_lvm.ranking.hybrid import Hybrid
from mlx_lvm.ranking.logit import RIDGE, fit_logit
from mlx_lvm.ranking.mixture import (
    INGREDIENTS,
    MIXTURES,
    NEAR,
    Weights,
    best_mixture,
    choose_terms,
    fit_weights,
    simulated_queries,
)
from mlx_lvm.ranking.ranking import observe
from mlx_lvm.ranking.terms import READ, RankingTerms

from ..helpers import make_corpus

DOCUMENTS = np.array([0, 2, 5, 9, 13])
WEIGHTS = Weights(RankingTerms(2.0, 9.0, -1.0, -4.0), RankingTerms(2.0, 8.0, -1.0, -4.0, 3.0))


def arrays(features: np.ndarray, offsets: np.ndarray | None = None) -> tuple[mx.array, mx.array]:
    offsets = np.zeros((features.shape[0], features.shape[2])) if offsets is None else offsets
    return mx.array(features.astype(np.float32)), mx.array(offsets.astype(np.float32))


def test_two_candidates_by_hand() -> None:
    """The truth has feature +1 in 3 of 4 windows, the other candidate -1, and the reverse: tanh(w) + RIDGE w
    = 1/2.
    """
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
    features, offsets = arrays(drawn(weights, seed=1))
    probability = np.array(mx.softmax(mx.array(found.astype(np.float32)) @ features + offsets, axis=1))
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
    best = logit.likelihood(features, offsets, found).mean()
    for step in np.vstack([np.eye(3), -np.eye(3)]) * 0.3:
        assert logit.likelihood(features, offsets, found + step).mean() < best


def test_a_fold_is_one_step_from_all_windows() -> None:
    features, offsets = arrays(drawn(np.array([5.0, 1.0, -3.0]), 4000))
    whole = logit.maximise(features, offsets, np.zeros(3))
    others = np.arange(4000) % 4 != 0
    step, promised = whole.step(others)
    rows = mx.array(np.flatnonzero(others).astype(np.int32))
    apart = fit_logit(mx.take(features, rows, axis=0), mx.take(offsets, rows, axis=0))
    assert 1e-6 < promised < NEAR
    assert np.abs(apart - whole.weights).max() > 0.02  # so far, without the step
    assert_allclose(whole.weights + step, apart, atol=0.005)


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
    fused = Hybrid(ContextMean(), WEIGHTS.plain, mean)
    assert fused.name == "mean + hybrid"
    expected = [
        WEIGHTS.plain.array()[:4] @ plain_terms(uneven, t, s, mean)
        for t, s in zip(found.targets, found.starts, strict=True)
    ]
    assert_allclose(np.array(predict_all(fused, found)), np.array(expected), atol=1e-5)


def test_what_a_window_shows_against_a_plain_softmax(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "LOOK_PAIRS", 700)  # three windows at a time
    found, mean = windows(uneven, DOCUMENTS, 4), uneven.numpy().mean(axis=0)
    x = units(uneven.numpy().astype(np.float64))
    surprises = (3.0, 5.0, float("inf"))
    seen = observe(ContextMean(), found, mean, candidates_of(uneven), WEIGHTS, surprises)
    asked = simulated_queries(found)
    for i, (t, s) in enumerate(zip(found.targets, found.starts, strict=True)):
        for name, query, out in (("plain", None, []), ("query", int(asked[i]), [int(asked[i])])):
            weights = WEIGHTS.plain if query is None else WEIGHTS.query
            pool = np.setdiff1d(np.arange(len(uneven)), [*range(t - 4, t), *out])
            scores = x[pool] @ (
                weights.array()[: 4 if query is None else 5] @ plain_terms(uneven, t, s, mean, query)
            )
            log_p = scores - np.log(np.exp(scores).sum())
            true = log_p[pool == t][0]
            assert getattr(seen, f"{name}_surprise")[i] == pytest.approx(-true, abs=1e-4)
            assert getattr(seen, f"{name}_rank")[i] == pytest.approx(
                1 + (log_p > true + 1e-6).sum(), abs=1e-3
            )
            if name == "plain":
                near = [np.abs(log_p + limit).min() < 1e-4 for limit in surprises]
                sizes = [(log_p >= -limit).sum() for limit in surprises]
                assert_allclose(
                    seen.set_sizes[i][np.logical_not(near)], np.array(sizes)[np.logical_not(near)], atol=1e-3
                )
                alone = x[pool] @ plain_terms(uneven, t, s, mean)[0]
                assert seen.features[i, 0] == pytest.approx(alone.max(), abs=1e-5)
                assert seen.prediction_rank[i] == pytest.approx(
                    1 + (alone > alone[pool == t][0] + 1e-7).sum(), abs=1e-3
                )
                last = x[pool] @ x[t - 1]
                assert seen.last_rank[i] == pytest.approx(
                    1 + (last > last[pool == t][0] + 1e-7).sum(), abs=1e-3
                )
                assert seen.cosine[i] == pytest.approx(alone[pool == t][0], abs=1e-5)


def test_in_a_large_corpus_some_candidates_stand_for_all(
    sotu: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, mean = windows(sotu, np.array([100, 150]), 5), sotu.numpy(np.arange(2000)).mean(axis=0)
    exact = observe(Last(), found, mean, candidates_of(sotu), WEIGHTS)
    monkeypatch.setattr(candidates, "CANDIDATES", 3000)
    assert len(candidates_of(sotu)) == 3000
    estimated = observe(Last(), found, mean, candidates_of(sotu), WEIGHTS)
    difference = estimated.plain_surprise - exact.plain_surprise
    assert (
        abs(difference.mean()) < 0.02 and np.quantile(np.abs(difference), 0.95) < 0.1
    )  # log 17,595 / 3,000 would be 1.77
    assert np.corrcoef(np.log(estimated.plain_rank), np.log(exact.plain_rank))[0, 1] > 0.98


def test_simulated_queries_come_after_the_target(uneven: Corpus) -> None:
    found = windows(uneven, np.arange(16), 4)
    rows = simulated_queries(found)
    assert (uneven.document_of(rows) == found.documents).all()
    last = found.targets + 1 == uneven.offsets[1:][found.documents]
    assert ((rows - found.targets)[~last] >= 1).all() and ((rows - found.targets)[~last] <= 5).all()
    assert set((rows - found.targets)[~last].tolist()) == {1, 2, 3, 4, 5}
    assert (rows[last] < found.targets[last]).all()


def test_the_best_mixture_must_beat_its_best_ingredient_by_more_than_chance() -> None:
    """Reciprocal ranks of ten documents of four windows: the first ingredient alone, unless a mixture clearly
    gains.
    """
    generator = np.random.default_rng(0)
    document = np.repeat(np.arange(10), 4)
    reciprocal = np.tile(generator.uniform(0.1, 0.5, (40, 1)), (1, len(MIXTURES)))
    reciprocal[:, 1:] -= 0.05
    assert best_mixture(reciprocal, document) == INGREDIENTS[0]
    clear = reciprocal.copy()
    clear[:, -1] = reciprocal[:, 0] + 0.02 + generator.normal(0, 0.01, 40)
    assert best_mixture(clear, document) == READ
    lucky = reciprocal.copy()  # one document carries the whole gain
    lucky[:, -1] = reciprocal[:, 0] + np.where(document == 3, 0.3, -0.02)
    assert lucky[:, -1].mean() > lucky[:, 0].mean()
    assert best_mixture(lucky, document) == INGREDIENTS[0]


def made_documents(noise: float) -> Corpus:
    """Documents of 20 chunks each near its own last chunk, so that repeating it ranks well and nothing else
    helps.
    """
    generator = np.random.default_rng(1)
    steps = generator.standard_normal((16, 20, 24)) * 0.6
    return make_corpus(
        (steps.cumsum(axis=1) + noise * generator.standard_normal(steps.shape)).reshape(-1, 24), [20] * 16
    )


def test_where_an_ingredient_ranks_best_the_hybrid_is_that_ingredient_or_better() -> None:
    """A prediction that knows nothing: the hybrid leaves it out, and ranks windows of other documents as the
    last chunk does.
    """
    corpus = made_documents(0.0)
    validation, test = windows(corpus, np.arange(8), 4), windows(corpus, np.arange(8, 16), 4)
    mean, everything = corpus.numpy().mean(axis=0), candidates_of(corpus)
    names = choose_terms(RandomVector(), validation, mean, everything)
    assert "prediction" not in names and "last" in names
    weights = fit_weights(RandomVector(), validation, mean, everything)
    assert weights.plain.prediction == 0 and weights.plain.last > 0 and set(names) == set(weights.plain.used)
    seen = observe(RandomVector(), test, mean, everything, weights)
    assert (1 / seen.plain_rank).mean() >= (1 / seen.last_rank).mean() - 1e-9
    assert (1 / seen.plain_rank).mean() > (1 / seen.prediction_rank).mean() + 0.1


def test_a_prediction_that_is_right_stands_alone() -> None:
    """The truth itself as prediction: no mixture can gain anything."""
    corpus = made_documents(0.5)
    names = choose_terms(
        Oracle(), windows(corpus, np.arange(8), 4), corpus.numpy().mean(axis=0), candidates_of(corpus)
    )
    assert names == ("prediction",)


def test_one_document_has_no_folds(uneven: Corpus) -> None:
    chosen = windows(uneven, np.array([5]), 4)
    assert choose_terms(Last(), chosen, uneven.numpy().mean(axis=0), candidates_of(uneven)) == READ
