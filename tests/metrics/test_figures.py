"""Metrics against hand-worked cases and plain NumPy formulas."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.metrics import figures as metrics
from mlx_lvm.metrics.figures import (
    centred_cosine,
    centred_cosines,
    cosines,
    mean_cosine,
    skill,
    window_figures,
)
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.predictors.base import ModelPredictor, predict_all, sample
from mlx_lvm.predictors.baselines import ContextMean, Last, target_mean

DOCUMENTS = np.array([0, 2, 5, 9])


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_by_hand() -> None:
    a, b = (
        mx.array([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0]]),
        mx.array([[4.0, 3.0], [-2.0, 0.0], [1.0, 0.0], [5.0, 0.0]]),
    )
    assert_allclose(np.array(cosines(a, b)), [24 / 25, -1, 0, 0], atol=1e-7)
    # unit vectors (0.6, 0.8) and (1, 0) less (0.6, 0) are (0, 0.8) and (0.4, 0)
    assert_allclose(
        np.array(centred_cosines(mx.array([[3.0, 4.0]]), mx.array([[7.0, 0.0]]), mx.array([0.6, 0.0]))),
        [0],
        atol=1e-7,
    )
    assert skill(0.7, 0.6) == pytest.approx(0.25)
    assert skill(0.5, 0.6) == pytest.approx(-0.25)


def test_shrinking_towards_the_mean_wins_in_cosine_and_nothing_in_centred_cosine() -> None:
    """A guess that is noise about m, moved most of the way to m: nearer to every truth about m, no nearer in
    direction from it.
    """
    generator = np.random.default_rng(0)
    m = np.array([2.0, 0, 0, 0])
    y, p = (generator.standard_normal((4000, 4)) * 0.5 + m for _ in range(2))
    shrunk = 0.2 * p + 0.8 * m
    centre = mx.array(y / np.linalg.norm(y, axis=1, keepdims=True)).mean(axis=0)
    plain = [float(cosines(mx.array(x), mx.array(y)).mean()) for x in (p, shrunk)]
    centred = [float(centred_cosines(mx.array(x), mx.array(y), centre).mean()) for x in (p, shrunk)]
    assert plain[1] > plain[0] + 0.03
    assert max(map(abs, centred)) < 0.1


def test_window_figures_against_a_loop(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 7)
    found, mean = windows(uneven, DOCUMENTS, 5), target_mean(uneven, DOCUMENTS, 5)
    predicted = np.random.default_rng(3).standard_normal((len(found), uneven.dim)).astype(np.float32)
    figures = window_figures(mx.array(predicted), found, mean)
    x, m = uneven.numpy().astype(np.float64), mean.astype(np.float64)
    for i, t in enumerate(found.targets):
        p, y = predicted[i] / np.linalg.norm(predicted[i]), x[t] / np.linalg.norm(x[t])
        expected = {
            "cosine": cos(p, y),
            "centred_cosine": cos(p - m, y - m),
            "margin": cos(p, y) - cos(p, x[t - 1]),
            "to_context": np.mean([cos(p, x[t - k]) for k in range(1, 6)]),
            "truth_to_context": np.mean([cos(y, x[t - k]) for k in range(1, 6)]),
        }
        assert_allclose([getattr(figures, key)[i] for key in expected], list(expected.values()), atol=2e-6)


def test_means_over_a_split(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "BLOCK", 16)
    found, mean = windows(uneven, DOCUMENTS, 5), target_mean(uneven, DOCUMENTS, 5)
    figures = window_figures(predict_all(Last(), found), found, mean)
    assert mean_cosine(Last(), found) == pytest.approx(figures.cosine.mean(), abs=1e-6)
    assert centred_cosine(Last(), found, mean) == pytest.approx(figures.centred_cosine.mean(), abs=1e-6)


def test_a_model_is_a_predictor_and_follows_its_weights(uneven: Corpus) -> None:
    found = windows(uneven, DOCUMENTS, 5)
    mx.random.seed(0)
    model = build(
        config_from_dict({"model_type": "amn", "dim": uneven.dim, "attention_dim": 4, "hidden_dim": 8})
    )
    model.train()
    predictor = ModelPredictor("amn", model)
    some = np.array([4, 0, 9])
    assert_allclose(
        np.array(predictor.predict(found, some)), np.array(model(found.contexts(some)).raw), atol=1e-6
    )
    assert model.training
    last = model.residual_net[-1]
    last.weight, last.bias = (
        mx.zeros_like(last.weight),
        mx.zeros_like(last.bias),
    )  # AMN without its residual is the mean
    assert_allclose(
        np.array(predictor.predict(found, some)), np.array(ContextMean().predict(found, some)), atol=1e-6
    )


def test_sample_is_even_and_keeps_both_ends(uneven: Corpus) -> None:
    found = windows(uneven, DOCUMENTS, 5)
    some = sample(found, 10)
    assert len(some) == 10
    assert [some.targets[0], some.targets[-1]] == [found.targets[0], found.targets[-1]]
    assert set(some.targets) <= set(found.targets)
    assert np.diff(np.searchsorted(found.targets, some.targets)).max() <= 1 + len(found) // 9
    assert sample(found, 10_000) is found
