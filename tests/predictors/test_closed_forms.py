"""Closed forms against explicit solutions on materialised windows, in float64."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import InvalidFile
from mlx_lvm.metrics.figures import mean_cosine
from mlx_lvm.predictors import lags, ridge
from mlx_lvm.predictors.baselines import (
    NAMES,
    CorpusMean,
    DocumentSoFar,
    Last,
    Recency,
    controls,
    fit_baselines,
    target_mean,
)
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.predictors.lags import centroids, filter_sums, fit_lag_filter
from mlx_lvm.predictors.neighbours import best_columns, fit_nearest_contexts
from mlx_lvm.predictors.ridge import fit_ridge, ridge_lags, ridge_system

from ..helpers import positions

TRAIN = np.array([0, 1, 2, 4, 5, 6, 8, 10, 11, 12, 13])
VAL, TEST = np.array([3, 7, 14]), np.array([9, 15])


def materialised(corpus: Corpus, context: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lags 1..count [n, count, dim] with the first chunk repeated before it, centroids, targets),
    float64.
    """
    x = corpus.numpy().astype(np.float64)
    where = positions(corpus, TRAIN, context)
    lagged = np.array([[x[max(t - k, s)] for k in range(1, count + 1)] for t, s in where])
    return lagged, np.array([x[s:t].mean(axis=0) for t, s in where]), np.array([x[t] for t, _ in where])


def least_squares(features: list[np.ndarray], y: np.ndarray) -> np.ndarray:
    """Scalars that best combine features [n, dim] into y, by a plain solver on the stacked rows."""
    return np.linalg.lstsq(np.stack([f.ravel() for f in features], axis=1), y.ravel(), rcond=None)[0]


def test_lag_filter_is_the_least_squares_solution(uneven: Corpus) -> None:
    lagged, _, y = materialised(uneven, 5, 5)
    mean = np.broadcast_to(y.mean(axis=0), y.shape)
    expected = least_squares([*lagged.swapaxes(0, 1), mean], y)
    found = fit_lag_filter(uneven, TRAIN, 5)
    assert_allclose([*found.weights, found.mean_weight], expected, atol=1e-6)
    assert found.name == "lag-filter"


def test_lag_filter_with_centroid_is_the_least_squares_solution(uneven: Corpus) -> None:
    lagged, centroid, y = materialised(uneven, 5, 12)
    mean = np.broadcast_to(y.mean(axis=0), y.shape)
    expected = least_squares([*lagged.swapaxes(0, 1), mean, centroid], y)
    found = filter_sums(uneven, TRAIN, 12, 5).filter(12, centroid=True)
    assert_allclose([*found.weights, found.mean_weight, found.centroid_weight], expected, atol=1e-6)

    test = windows(uneven, TEST, 5)
    x = uneven.numpy().astype(np.float64)
    by_hand = [
        sum(expected[k - 1] * x[max(t - k, s)] for k in range(1, 13))
        + expected[12] * mean[0]
        + expected[13] * x[s:t].mean(axis=0)
        for t, s in positions(uneven, TEST, 5)
    ]
    assert_allclose(np.array(found.predict(test)), by_hand, atol=1e-6)


def test_shrunk_mean_is_the_least_squares_solution(uneven: Corpus) -> None:
    lagged, _, y = materialised(uneven, 5, 5)
    a, b = least_squares([lagged.mean(axis=1), np.broadcast_to(y.mean(axis=0), y.shape)], y)
    found = filter_sums(uneven, TRAIN, 12, 5).shrunk_mean(5)
    assert_allclose(found.weights.sum(), a, atol=1e-6)
    assert_allclose(found.mean_weight, b, atol=1e-6)


def test_sums_do_not_depend_on_the_blocks(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = filter_sums(uneven, TRAIN, 12, 5, horizons=2)
    for name, size in (("BLOCK", 5), ("CENTROID_TARGETS", 7), ("CENTROID_ROWS", 4)):
        monkeypatch.setattr(lags, name, size)
    again = filter_sums(uneven, TRAIN, 12, 5, horizons=2)
    assert_allclose(again.inner, whole.inner, rtol=1e-6)
    assert_allclose(again.wanted, whole.wanted, rtol=1e-6)


def test_a_smaller_filter_is_solved_from_a_part_of_the_sums(uneven: Corpus) -> None:
    """Three of twelve lags, as if no more had been summed."""
    few, alone = filter_sums(uneven, TRAIN, 12, 5).filter(3), filter_sums(uneven, TRAIN, 3, 5).filter(3)
    assert_allclose([*few.weights, few.mean_weight], [*alone.weights, alone.mean_weight], atol=1e-6)


def test_centroids_of_unordered_targets(uneven: Corpus) -> None:
    where = positions(uneven, TEST, 1)[::-1][::2] + positions(uneven, TRAIN, 1)[::3]
    x = uneven.numpy().astype(np.float64)
    found = centroids(uneven, *np.array(where).T)
    assert_allclose(np.array(found), [x[s:t].mean(axis=0) for t, s in where], atol=1e-6)


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("block", [11, 8192])
def test_ridge_is_the_penalised_least_squares_solution(
    uneven: Corpus, count: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge, "BLOCK", block)
    lagged, _, y = materialised(uneven, 5, count)
    x = lagged.reshape(len(y), -1)
    centred, penalty = x - x.mean(axis=0), 0.7
    # Penalised least squares as plain least squares with one more row per feature.
    rows = np.vstack([centred, np.sqrt(penalty) * np.eye(x.shape[1])])
    expected = np.linalg.lstsq(
        rows, np.vstack([y - y.mean(axis=0), np.zeros((x.shape[1], y.shape[1]))]), rcond=None
    )[0]
    found = ridge_system(uneven, TRAIN, count, 5).solve(penalty)
    assert_allclose(np.array(found.weights), expected, atol=1e-6)
    assert_allclose(np.array(found.offset), y.mean(axis=0) - x.mean(axis=0) @ expected, atol=1e-6)

    test = windows(uneven, TEST, 5)
    vectors = uneven.numpy().astype(np.float64)
    features = np.array(
        [[vectors[t - k] for k in range(1, count + 1)] for t, _ in positions(uneven, TEST, 5)]
    ).reshape(len(test), -1)
    assert_allclose(np.array(found.predict(test)), features @ expected + np.array(found.offset), atol=1e-6)


def test_ridge_penalty_climbs_to_the_best_score(uneven: Corpus) -> None:
    best = fit_ridge(uneven, TRAIN, 5, lambda found: -abs(np.log10(found.penalty) - np.log10(280)))
    assert best.penalty == 300
    assert fit_ridge(uneven, TRAIN, 5, lambda found: -found.penalty).penalty == 1
    assert ridge_lags(5, 768) == 5
    assert ridge_lags(32, 768) == 5
    assert ridge_lags(5, 4096) == 1


def test_recency_decay_is_the_best_on_validation(uneven: Corpus) -> None:
    validation = windows(uneven, VAL, 5)
    [found] = fit_baselines(uneven, TRAIN, VAL, 5, only=("recency",))
    scores = {decay: mean_cosine(Recency(decay), validation) for decay in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)}
    assert isinstance(found, Recency)
    assert found.decay == max(scores, key=lambda decay: scores[decay])
    assert_allclose(Recency(0.5).weights(3), np.array([1, 2, 4]) / 7, rtol=1e-6)


def test_plain_forms(uneven: Corpus) -> None:
    test, x = windows(uneven, TEST, 5), uneven.numpy().astype(np.float64)
    where = positions(uneven, TEST, 5)
    mean = np.mean([x[t] for t, _ in positions(uneven, TRAIN, 5)], axis=0)
    assert_allclose(target_mean(uneven, TRAIN, 5), mean, atol=1e-6)
    assert_allclose(
        np.array(CorpusMean(mean.astype(np.float32)).predict(test)),
        np.broadcast_to(mean, (len(test), 12)),
        atol=1e-6,
    )
    assert_allclose(np.array(Last().predict(test)), [x[t - 1] for t, _ in where], atol=1e-6)
    assert_allclose(
        np.array(DocumentSoFar().predict(test)), [x[s:t].mean(axis=0) for t, s in where], atol=1e-6
    )
    decayed = [
        (x[t - 5 : t] * 0.6 ** np.arange(4, -1, -1)[:, None]).sum(axis=0) / sum(0.6**k for k in range(5))
        for t, _ in where
    ]
    assert_allclose(np.array(Recency(0.6).predict(test)), decayed, atol=1e-6)


def test_nearest_contexts_against_a_plain_search(uneven: Corpus) -> None:
    x = uneven.numpy().astype(np.float64)
    weights, mean = np.array([0.1, 0.15, 0.2, 0.25, 0.3]), x.mean(axis=0)

    def key(t: int) -> np.ndarray:
        raw = weights @ x[t - 5 : t] - mean
        return raw / np.linalg.norm(raw)

    known = [t for t, _ in positions(uneven, TRAIN, 5)]
    keys = np.array([key(t) for t in known])
    test, validation = windows(uneven, TEST, 5), windows(uneven, VAL, 5)
    found = fit_nearest_contexts(uneven, TRAIN, weights, mean.astype(np.float32), validation, (3,))
    expected = [
        x[np.array(known)[np.argsort(-keys @ key(t))[:3]]].mean(axis=0) for t, _ in positions(uneven, TEST, 5)
    ]
    assert_allclose(np.array(found.predict(test)), expected, atol=1e-6)

    counts = (1, 3, 9)
    chosen = fit_nearest_contexts(uneven, TRAIN, weights, mean.astype(np.float32), validation, counts)
    alone = [
        fit_nearest_contexts(uneven, TRAIN, weights, mean.astype(np.float32), validation, (count,))
        for count in counts
    ]
    assert chosen.neighbours == max(alone, key=lambda one: mean_cosine(one, validation)).neighbours
    assert best_columns(np.array([[0.1, 0.9, 0.5, 0.7]]), 3).tolist() == [[1, 3, 2]]
    assert best_columns(np.array([[0.1, 0.9]]), 3).tolist() == [[1, 0]]


def test_controls(uneven: Corpus) -> None:
    test, x = windows(uneven, TEST, 5), uneven.numpy().astype(np.float64)
    oracle, span, random = controls()
    where = positions(uneven, TEST, 5)
    assert_allclose(np.array(oracle.predict(test)), [x[t] for t, _ in where], atol=1e-7)
    projected = [x[t - 5 : t].T @ np.linalg.lstsq(x[t - 5 : t].T, x[t], rcond=None)[0] for t, _ in where]
    assert_allclose(np.array(span.predict(test)), projected, atol=1e-4)
    drawn = np.array(random.predict(test))
    assert_allclose(
        drawn[3:5], np.array(random.predict(test, slice(3, 5))), atol=0
    )  # the same whatever is asked beside it
    assert abs(np.corrcoef(drawn)[np.triu_indices(len(drawn), 1)]).mean() < 0.5


def test_every_form_has_its_name_and_reads_no_test_document(uneven: Corpus) -> None:
    """Vectors of test documents replaced by noise leave every fit as it was."""
    before = fit_baselines(uneven, TRAIN, VAL, 5)
    assert tuple(form.name for form in before) == NAMES
    noisy = uneven.numpy()
    for d in TEST:
        noisy[uneven.offsets[d] : uneven.offsets[d + 1]] = np.random.default_rng(0).standard_normal(
            (uneven.lengths[d], 12)
        )
    other = type(uneven)("noisy", mx.array(noisy), None, uneven.offsets, uneven.names, uneven.card)
    validation = windows(uneven, VAL, 5)
    for a, b in zip(before, fit_baselines(other, TRAIN, VAL, 5), strict=True):
        assert_allclose(
            np.array(a.predict(validation)), np.array(b.predict(validation)), atol=1e-6, err_msg=a.name
        )


@pytest.mark.parametrize(
    ("name", "lags"), [("lag-filter", 5), ("shrunk-mean", 5), ("lag-filter-centroid", 12)]
)
def test_a_filter_as_a_model_predicts_the_same(uneven: Corpus, name: str, lags: int) -> None:
    (form,) = fit_baselines(uneven, TRAIN, VAL, 5, only=(name,))
    test = windows(uneven, TEST, 5)
    assert (test.targets - test.starts).min() < lags or lags == 5  # some lags reach before the first chunk
    model = form.model()
    assert model.config.lags == lags
    assert_allclose(
        np.array(predictor_of(name, model).predict(test)), np.array(form.predict(test)), atol=2e-6
    )


def test_too_short_documents(uneven: Corpus) -> None:
    with pytest.raises(InvalidFile, match="training documents: no window of 50"):
        filter_sums(uneven, TRAIN, 5, 50)
    with pytest.raises(InvalidFile, match="50 \\+ 1 chunks"):
        ridge_system(uneven, TRAIN, 5, 50)
