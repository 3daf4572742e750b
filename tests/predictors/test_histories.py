"""Rollout and ablations against plain NumPy loops over materialised windows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import as_json
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.evaluation.study.ablations import ablate, orders, predict_reordered
from mlx_lvm.evaluation.study.rollout import rollout
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.predictors import histories as staging
from mlx_lvm.predictors.base import ModelPredictor
from mlx_lvm.predictors.baselines import ContextMean, DocumentSoFar, Last
from mlx_lvm.predictors.lags import filter_sums, fit_lag_filter

TRAIN, TEST = np.array([0, 2, 5, 10]), np.array([4, 7, 9, 13])


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x)


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(unit(a) @ unit(b))


def test_a_filter_rolled_out_is_the_loop(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 lags and the centroid of the document so far, predictions included, over 3 steps, in several
    blocks.
    """
    monkeypatch.setattr(staging, "BLOCK_ROWS", 40)
    fitted = filter_sums(uneven, TRAIN, 12, 5).filter(12, centroid=True)
    found = windows(uneven, TEST, 5)
    result = rollout({"f": fitted}, "f", found, DocumentBootstrap(found.documents, 50), steps=3)
    x, m = uneven.numpy().astype(np.float64), fitted.mean.astype(np.float64)
    rows = []
    for t, start, d in zip(found.targets, found.starts, found.documents, strict=True):
        if t + 3 > uneven.offsets[d + 1]:
            continue
        history, row = [x[i] for i in range(start, t)], []
        for step in range(3):
            p = (
                sum(fitted.weights[k] * history[max(len(history) - 1 - k, 0)] for k in range(12))
                + fitted.mean_weight * m
            )
            history.append(unit(p + fitted.centroid_weight * np.mean(history, axis=0)))
            row.append(cos(history[-1], x[t + step]))
        rows.append(row)
    assert result.windows == len(rows) < len(found)
    assert_allclose(result.curves["f"].values, np.mean(rows, axis=0), atol=1e-5)


def test_what_is_held_stays(uneven: Corpus) -> None:
    found = windows(uneven, TEST, 5)
    result = rollout(
        {"last": Last(), "mean": ContextMean()},
        "last",
        found,
        DocumentBootstrap(found.documents, 50),
        steps=4,
    )
    x = uneven.numpy().astype(np.float64)
    keep = [t for t, d in zip(found.targets, found.documents, strict=True) if t + 4 <= uneven.offsets[d + 1]]
    held = [np.mean([cos(x[t - 1], x[t + h]) for t in keep]) for h in range(4)]
    means = [np.mean([cos(x[t - 5 : t].mean(axis=0), x[t + h]) for t in keep]) for h in range(4)]
    assert_allclose(
        result.curves["last"].values, held, atol=1e-5
    )  # repeating the last chunk is its own rollout
    assert_allclose(result.curves["last, first prediction held"].values, held, atol=1e-5)
    assert_allclose(result.curves["context mean held"].values, means, atol=1e-5)
    for one in result.curves["last"].points:
        assert one.low < one.high


def test_a_model_rolled_out_reads_what_it_said(uneven: Corpus) -> None:
    model = build(config_from_dict({"model_type": "lstm", "dim": uneven.dim, "hidden_dim": 8, "layers": 1}))
    model.eval()
    found = windows(uneven, np.array([7]), 5)
    result = rollout(
        {"lstm": ModelPredictor("lstm", model)},
        "lstm",
        found,
        DocumentBootstrap(found.documents, 50),
        steps=3,
    )
    rows = []
    for t in found.targets[: result.windows]:
        context = uneven.numpy(np.arange(t - 5, t))
        for _ in range(3):
            context = np.concatenate([context, np.array(model(mx.array(context[None, -5:])).unit)])
        rows.append([cos(context[5 + h], uneven.numpy(np.array([t + h]))[0]) for h in range(3)])
    assert_allclose(result.curves["lstm"].values, np.mean(rows, axis=0), atol=1e-5)


def cosine_of(found: Windows, predicted: mx.array) -> np.ndarray:
    return np.array(cosines(predicted, found.truth()), dtype=np.float64)


def test_ablations_against_a_loop(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "BLOCK_ROWS", 30)
    found = windows(uneven, TEST, 5)
    fitted = fit_lag_filter(uneven, TRAIN, 5)
    x, m = uneven.numpy().astype(np.float64), fitted.mean.astype(np.float64)
    for ablation in ("shuffled", "reversed", "last only"):
        order = orders(ablation, len(found), 5, seed=3)
        expected = []
        for i, t in enumerate(found.targets):
            context = x[t - 5 : t][order[i]]
            expected.append(
                cos(sum(fitted.weights[k] * context[4 - k] for k in range(5)) + fitted.mean_weight * m, x[t])
            )
        assert_allclose(cosine_of(found, predict_reordered(fitted, found, order)), expected, atol=1e-5)
    assert orders("reversed", 2, 3, 0).tolist() == [[2, 1, 0]] * 2
    assert orders("last only", 2, 3, 0).tolist() == [[2, 2, 2]] * 2
    shuffled = orders("shuffled", 400, 5, 0)
    assert (np.sort(shuffled, axis=1) == np.arange(5)).all()
    assert_allclose(shuffled.mean(axis=0), 2, atol=0.25)  # every place sees every chunk


def test_what_reads_no_order_loses_nothing_to_a_shuffle(uneven: Corpus) -> None:
    found = windows(uneven, TEST, 5)
    everyone = {
        "mean": ContextMean(),
        "document-so-far": DocumentSoFar(),
        "lag-filter": fit_lag_filter(uneven, TRAIN, 5),
    }
    intact = {
        name: cosine_of(found, predict_reordered(one, found, np.broadcast_to(np.arange(5), (len(found), 5))))
        for name, one in everyone.items()
    }
    result = ablate(
        everyone,
        intact,
        "lag-filter",
        found,
        DocumentBootstrap(found.documents, 200),
        lambda name, predicted: cosine_of(found, predicted),
    )
    result = as_json(result)
    for name in ("mean", "document-so-far"):
        assert_allclose([result[a][name]["change"] for a in ("shuffled", "reversed")], 0, atol=1e-6)
    lost = result["reversed"]["lag-filter"]["change"]
    assert lost < -0.005
    assert_allclose(result["reversed"]["mean"]["versus_lag-filter"]["difference"], -lost, atol=1e-6)
    assert "versus_lag-filter" not in result["reversed"]["lag-filter"]
