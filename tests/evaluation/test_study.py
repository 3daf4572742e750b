"""Difficulty, cases and attention against hand-worked figures; the study as a whole on a small corpus."""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation.evaluate import examine
from mlx_lvm.evaluation.study.attention import attends, attention, look, rank_correlation
from mlx_lvm.evaluation.study.difficulty import difficulty, place_in_bins
from mlx_lvm.evaluation.study.study import study
from mlx_lvm.hub.load import Loaded
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.ranking.cases import cases, label


def amn(dim: int, seed: int = 0) -> Loaded:
    mx.random.seed(seed)
    return Loaded(
        build(config_from_dict({"model_type": "amn", "dim": dim, "attention_dim": 4, "hidden_dim": 8})), "amn"
    )


def test_difficulty_by_hand() -> None:
    """Ten windows, two a bin, in two documents; the hardest first."""
    similarity = np.array([0.9, 0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    mine, best = np.arange(10) / 10, np.full(10, 0.25)
    found = difficulty(
        {"m": mine, "b": best}, "m", "b", similarity, DocumentBootstrap(np.arange(10) % 2, 100)
    ).to_dict()
    assert [one["windows"] for one in found["bins"]] == [2] * 5
    assert_allclose([one["cosine"]["m"] for one in found["bins"]], [0.15, 0.35, 0.55, 0.75, 0.45])
    assert_allclose([one["gain"] for one in found["bins"]], np.array([0.15, 0.35, 0.55, 0.75, 0.45]) - 0.25)
    assert (found["bins"][0]["from"], found["bins"][-1]["to"]) == (0.0, 0.9)
    assert_allclose(place_in_bins(np.array([0.0, 1.0, 1.5, 2.0]), np.array([0.0, 1.0, 2.0])), [0, 1, 1, 1])


def test_cases_by_hand(uneven: Corpus) -> None:
    found = windows(uneven, np.array([3, 7, 12]), 5)  # 1, 18 and 3 windows
    gain = np.zeros(len(found))
    gain[0], gain[5], gain[-1] = 0.5, -0.4, -0.3
    result = cases(gain + 0.2, "b", np.full(len(found), 0.2), found, count=2).to_dict()
    assert [(one["document"], one["chunk"]) for one in result["gains"]] == [("document 3", 5)]
    assert [(one["document"], one["chunk"], one["gain"]) for one in result["losses"]] == [
        ("document 7", 9, pytest.approx(-0.4)),
        ("document 12", 7, pytest.approx(-0.3)),
    ]
    assert [(one["document"], one["gain"]) for one in result["documents_losses"]] == [
        ("document 12", pytest.approx(-0.1)),
        ("document 7", pytest.approx(-0.4 / 18)),
    ]
    assert (result["documents_better"], result["documents"]) == (1, 3)


def test_labels_carry_the_text_where_there_is_one(sotu: Corpus, uneven: Corpus) -> None:
    row = int(sotu.offsets[3]) + 2
    found = label(sotu, row).to_dict()
    assert (found["document"], found["chunk"]) == (sotu.names[3], 2)
    assert sotu.texts is not None
    assert (
        " ".join(sotu.texts[row].split()).startswith(found["text"].removesuffix(" ..."))
        and len(found["text"]) <= 244
    )
    assert "text" not in label(uneven, 3).to_dict()


def test_attention_against_numpy(uneven: Corpus) -> None:
    """softmax(K q / sqrt(a)) with K, q projected with their biases, as the definition has it."""
    loaded = amn(uneven.dim)
    found = windows(uneven, np.array([4, 7, 9]), 5)
    weights = {name: np.array(value, dtype=np.float64) for name, value in loaded.model.weights().items()}
    seen = look(loaded.model, found)
    x = uneven.numpy().astype(np.float64)
    for i, t in enumerate(found.targets):
        context = x[t - 5 : t]
        base = context.mean(axis=0)
        keys = context @ weights["context_encoder.weight"].T + weights["context_encoder.bias"]
        query = weights["query_encoder.weight"] @ base + weights["query_encoder.bias"]
        raised = np.exp(keys @ query / 2)
        assert_allclose(seen.weights[i], raised / raised.sum(), atol=1e-6)
        earlier = context[:4].mean(axis=0)
        assert seen.shift[i] == pytest.approx(
            1 - context[4] @ earlier / np.linalg.norm(context[4]) / np.linalg.norm(earlier), abs=1e-6
        )
        predicted = loaded.model(mx.array(context[None].astype(np.float32)))
        residual = np.linalg.norm(np.array(predicted.raw)[0] - base)
        assert seen.residual_share[i] == pytest.approx(residual / (residual + np.linalg.norm(base)), abs=1e-5)
        assert seen.departure[i] == pytest.approx(
            1 - np.array(predicted.unit)[0] @ base / np.linalg.norm(base), abs=1e-5
        )
    result = attention(loaded.model, found, DocumentBootstrap(found.documents, 100)).to_dict()
    assert_allclose(result["by_position"], seen.weights.mean(axis=0))
    assert sum(result["by_position"]) == pytest.approx(1)
    assert result["departures"][0]["departure"] == seen.departure.max()
    inside = [one["windows"] for one in result["by_shift"]]
    assert sum(inside) == len(found)
    assert_allclose(
        np.average([one["by_position"] for one in result["by_shift"]], axis=0, weights=inside),
        result["by_position"],
    )


def test_entropy_of_even_and_single_weights(uneven: Corpus) -> None:
    seen = look(amn(uneven.dim).model, windows(uneven, np.array([7]), 4))
    even = dataclasses.replace(seen, weights=np.full((2, 4), 0.25))
    assert_allclose(even.entropy, 1)
    assert_allclose(dataclasses.replace(seen, weights=np.array([[1.0, 0, 0, 0]])).entropy, 0, atol=1e-12)


def test_what_has_no_attention_says_so(uneven: Corpus) -> None:
    model = build(config_from_dict({"model_type": "gru", "dim": uneven.dim, "hidden_dim": 8, "layers": 1}))
    assert not attends(model) and attends(amn(uneven.dim).model)
    with pytest.raises(UsageError, match="gru has no attention over its context"):
        look(model, windows(uneven, np.array([7]), 5))


def test_rank_correlation_by_hand() -> None:
    """1 - 6 sum d^2 / (n (n^2 - 1)) with d = 1, -1, 0, 0; ties share their mean rank."""
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([20.0, 10, 30, 40])) == pytest.approx(
        1 - 6 * 2 / (4 * 15)
    )
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([5.0, 4, -9])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1, 2]), np.array([3.0, 3, 9])) == pytest.approx(1)
    assert rank_correlation(np.ones(3), np.arange(3.0)) == 0


def test_the_study_of_a_model(small: Corpus) -> None:
    loaded = dataclasses.replace(amn(small.dim), card=small.card, corpus_sha256=small.sha256)
    evaluation = examine(loaded, small, resamples=200)
    found = study(evaluation).to_dict()
    json.dumps(found, allow_nan=False)
    assert set(found) == {
        "direction",
        "difficulty",
        "rollout",
        "ablations",
        "ranking",
        "reliability",
        "cases",
        "attention",
    }
    cosine = evaluation.to_dict()["metrics"]["amn"]["cosine"]
    assert found["direction"]["identity"]["amn"]["cosine"] == pytest.approx(cosine, abs=1e-6)
    counts = [one["windows"] for one in found["difficulty"]["bins"]]
    assert np.average(
        [one["cosine"]["amn"] for one in found["difficulty"]["bins"]], weights=counts
    ) == pytest.approx(cosine)
    assert found["ablations"]["shuffled"]["amn"]["change"] == pytest.approx(
        0, abs=1e-6
    )  # its attention knows no places
    gains = [one["gain"] for one in found["cases"]["gains"]]
    best = evaluation.to_dict()["best_closed_form"]["cosine"]
    difference = evaluation.figures["amn"].window.cosine - evaluation.figures[best].window.cosine
    assert gains == sorted(gains, reverse=True) and gains[0] == pytest.approx(difference.max())


def test_controls_are_studied_without_rollout(small: Corpus) -> None:
    assert set(study(examine("oracle", small, resamples=50)).to_dict()) == {
        "direction",
        "difficulty",
        "cases",
    }
