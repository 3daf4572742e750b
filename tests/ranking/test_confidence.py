"""Expected cosines: coefficients known beforehand, features against plain NumPy, and bins worked by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.predictors.base import ALL, predict_all
from mlx_lvm.predictors.baselines import ContextMean
from mlx_lvm.ranking.confidence import Confidence, features_of, fit_confidence, reliability


def test_known_coefficients_come_back() -> None:
    generator = np.random.default_rng(0)
    features = generator.uniform(0, 1, (400, 5))
    features[:, 4] = 1.0  # the length of a prediction that is always a unit vector says nothing
    achieved = 0.1 + features @ np.array([0.4, 0.2, -0.1, 0.0, 0.0])
    found = fit_confidence(features, achieved)
    assert_allclose(found.coefficients, [0.4, 0.2, -0.1, 0, 0], atol=1e-3)
    assert_allclose(found.expected_cosine(features), achieved, atol=2e-3)
    assert_allclose(Confidence(5.0, (0.0,) * 5).expected_cosine(features), 1)


def test_features_by_a_plain_formula(uneven: Corpus) -> None:
    found, mean = windows(uneven, np.array([0, 5]), 4), uneven.numpy().mean(axis=0)
    raw = predict_all(ContextMean(), found)
    features = features_of(raw, found, ALL, mean, mx.arange(len(found)) / 100)
    x = uneven.numpy().astype(np.float64)
    for i, t in enumerate(found.targets):
        p, context = (
            x[t - 4 : t].mean(axis=0),
            x[t - 4 : t] / np.linalg.norm(x[t - 4 : t], axis=1, keepdims=True),
        )
        unit = p / np.linalg.norm(p)
        expected = [
            i / 100,
            unit @ context[-1],
            np.linalg.norm(context.mean(axis=0)),
            unit @ mean / np.linalg.norm(mean),
            np.linalg.norm(p),
        ]
        assert_allclose(features[i], expected, atol=1e-5)


def test_bins_by_hand() -> None:
    expected = np.array([0.4, 0.1, 0.3, 0.2])
    achieved = np.array([0.5, 0.0, 0.5, 0.1])
    found = reliability(expected, achieved, DocumentBootstrap(np.array([0, 1, 2, 3]), 100), bins=2)
    assert [(one.expected, one.achieved.value, one.windows) for one in found.bins] == [
        (pytest.approx(0.15), pytest.approx(0.05), 2),
        (pytest.approx(0.35), pytest.approx(0.5), 2),
    ]
    assert found.gap == pytest.approx((0.1 + 0.15) / 2)
    assert found.correlation == pytest.approx(np.corrcoef(expected, achieved)[0, 1])
    assert found.explained == pytest.approx(1 - np.mean([0.01, 0.01, 0.04, 0.01]) / achieved.var())


def test_what_never_changes_is_no_division_by_zero() -> None:
    found = reliability(np.full(6, 0.5), np.full(6, 0.5), DocumentBootstrap(np.zeros(6, int), 10))
    assert (found.gap, found.correlation, found.explained, len(found.bins)) == (0, 0, 0, 6)
