"""Several chunks ahead: baselines of each horizon against plain least squares, and the table on a small
corpus.
"""

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.study.horizons import fit_each_horizon
from mlx_lvm.evaluation.study.rollout import rolled_out
from mlx_lvm.evaluation.study.study import study
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.training.ramn.anchor import fit_anchor, start_at_anchor


def test_closed_forms_of_each_horizon_by_plain_least_squares(small: Corpus) -> None:
    train = split_corpus(small).train
    fitted = fit_each_horizon(small, train, 5, 3, penalty=10.0)
    chosen = windows(small, train, 5).with_chunks_after(3)
    x = small.numpy(np.arange(len(small))).astype(np.float64)
    mean = x[windows(small, train, 5).targets].mean(axis=0)
    pairs = list(zip(chosen.targets, chosen.starts, strict=True))
    features = np.array(
        [[*(x[max(t - k, s)] for k in range(1, 13)), mean, x[s:t].mean(axis=0)] for t, s in pairs]
    )
    context = features[:, :5].reshape(len(pairs), -1)
    for ahead in range(3):
        y = x[chosen.targets + ahead]
        scalars = np.linalg.lstsq(features.transpose(0, 2, 1).reshape(-1, 14), y.reshape(-1), rcond=None)[0]
        expected = np.einsum("nkd,k->nd", features, scalars)
        assert_allclose(np.array(fitted["lag-filter-centroid"][ahead].predict(chosen)), expected, atol=2e-4)
        z, w = context - context.mean(axis=0), y - y.mean(axis=0)
        weights = np.linalg.solve(z.T @ z + 10.0 * np.eye(z.shape[1]), z.T @ w)
        assert_allclose(
            np.array(fitted["ridge"][ahead].predict(chosen)), y.mean(axis=0) + z @ weights, atol=2e-4
        )


@pytest.fixture(scope="module")
def ramn(small: Corpus) -> Loaded:
    model = build(
        config_from_dict(
            {"model_type": "ramn", "dim": small.dim, "rank": 12, "hidden_dim": 16, "horizons": 3}
        )
    )
    start_at_anchor(model, fit_anchor(small, split_corpus(small).train, 5, model.config))
    return Loaded(model, "ramn", card=small.card)


def test_the_table(small: Corpus, ramn: Loaded) -> None:
    evaluation = examine(ramn, small, resamples=200)
    found = study(evaluation).to_dict()["horizons"]
    json.dumps(found, allow_nan=False)
    chosen = evaluation.windows.with_chunks_after(3)
    assert (found["horizons"], found["windows"]) == (3, len(chosen))
    truth = small.numpy(chosen.targets[:, None] + np.arange(3))
    predictor = evaluation.predictors["ramn"]
    for name, vectors in (
        ("ramn", predictor.ahead(chosen)),
        ("ramn, rolled out", rolled_out(predictor, chosen, 3)),
    ):
        p = np.array(vectors)
        cosine = (p * truth).sum(-1) / np.linalg.norm(p, axis=-1) / np.linalg.norm(truth, axis=-1)
        assert_allclose(found["curves"][name]["cosine"], cosine.mean(axis=0), atol=1e-6)
    assert_allclose(np.array(predictor.ahead(chosen))[:, 0], np.array(predictor.predict(chosen)), atol=1e-6)
    for k, name in enumerate(found["best_closed_form"]):
        difference = found["curves"]["ramn"]["cosine"][k] - found["curves"][name]["cosine"][k]
        assert found["gains"]["the best baseline"]["difference"][k] == pytest.approx(difference, abs=1e-9)
    assert found["gains"]["its rollout"]["difference"][0] == pytest.approx(0, abs=1e-6)
    assert len({round(value, 4) for value in found["curves"]["ramn"]["cosine"]}) == 3


def test_a_model_of_one_horizon_has_no_table(small: Corpus) -> None:
    model = build(config_from_dict({"model_type": "ramn", "dim": small.dim, "rank": 8, "hidden_dim": 8}))
    assert (
        "horizons"
        not in study(examine(Loaded(model, "ramn", card=small.card), small, resamples=20)).to_dict()
    )
    assert model(mx.ones((1, 5, small.dim))).ahead is None
