"""The whole evaluation: what it compares, what it refuses, and that its controls can fail."""

import dataclasses
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import Difference
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.errors import CheckFailed, InvalidFile, UsageError
from mlx_lvm.evaluation import evaluate as evaluation
from mlx_lvm.evaluation import setup as bench
from mlx_lvm.evaluation.evaluate import CONTROL_NAMES, Evaluation, examine
from mlx_lvm.evaluation.verdict import MADE_FOR, Claim, Verdict
from mlx_lvm.hub.load import Loaded
from mlx_lvm.metrics import retrieval
from mlx_lvm.metrics.figures import WindowFigures
from mlx_lvm.metrics.names import CENTRED_MRR, COSINE, Metric
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.predictors.base import document_rows, predict_all
from mlx_lvm.predictors.baselines import NAMES, Last
from mlx_lvm.predictors.controls import Oracle


@pytest.fixture(scope="module")
def done(small: Corpus) -> Evaluation:
    return examine("lag-filter", small, resamples=2000)


def amn(small: Corpus, **known: object) -> Loaded:
    """AMN whose residual is zero: the mean of its context."""
    mx.random.seed(1)
    model = build(
        config_from_dict({"model_type": "amn", "dim": small.dim, "attention_dim": 4, "hidden_dim": 8})
    )
    last = model.residual_net[-1]
    last.weight, last.bias = mx.zeros_like(last.weight), mx.zeros_like(last.bias)
    known = {"card": small.card, "corpus_sha256": small.sha256, **known}
    return Loaded(model, "amn", **known)  # type: ignore[arg-type]


def test_every_baseline_and_control_is_scored_with_the_subject(done: Evaluation, small: Corpus) -> None:
    result = done.to_dict()
    assert list(result["metrics"]) == [*NAMES, *CONTROL_NAMES]
    json.dumps(result, allow_nan=False)
    test = split_corpus(small).test
    assert result["documents"] == len(test)
    assert result["windows"] == sum(small.lengths[test] - 5)
    for entry in result["metrics"].values():
        for metric in (
            "cosine",
            "centred_cosine",
            "recall_at_1",
            "recall_at_5",
            "recall_at_10",
            "mrr",
            "margin",
        ):
            assert entry[f"{metric}_ci"][0] <= entry[metric] <= entry[f"{metric}_ci"][1]
    for name, figures in done.figures.items():
        assert result["metrics"][name]["cosine"] == pytest.approx(figures.window.cosine.mean())
        assert result["metrics"][name]["mrr"] == pytest.approx((1 / figures.rank).mean())


def test_differences_are_to_the_best_baseline_other_than_the_subject(done: Evaluation) -> None:
    metrics, best = done.to_dict()["metrics"], done.to_dict()["best_closed_form"]
    others = [name for name in NAMES if name != "lag-filter"]
    for metric in ("cosine", "centred_cosine", "mrr"):
        assert best[metric] == max(others, key=lambda name: metrics[name][metric])
        found = metrics["lag-filter"]["versus_best"][metric]
        assert found["difference"] == pytest.approx(
            metrics["lag-filter"][metric] - metrics[best[metric]][metric]
        )
        assert found["ci"][0] <= found["difference"] <= found["ci"][1]
    won = metrics["lag-filter"]["cosine"] - metrics[best["cosine"]]["cosine"]
    assert metrics["lag-filter"]["skill"]["cosine"] == pytest.approx(
        won / (1 - metrics[best["cosine"]]["cosine"])
    )
    windowwise = done.figures["lag-filter"].window.cosine - done.figures[best["cosine"]].window.cosine
    assert windowwise.mean() == pytest.approx(won)


def test_the_best_baseline_as_subject_is_compared_with_the_next(done: Evaluation, small: Corpus) -> None:
    metrics = done.to_dict()["metrics"]
    first, second = sorted(NAMES, key=lambda name: -metrics[name]["cosine"])[:2]
    found = examine(first, small, resamples=100).to_dict()["verdict"]["cosine"]
    assert found["closed_form"] == second
    assert found["difference"] == pytest.approx(metrics[first]["cosine"] - metrics[second]["cosine"])


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(0.01, 0.03, "better"), (-0.03, -0.01, "worse"), (-0.01, 0.03, "not distinguishable")],
)
def test_a_claim_says_better_worse_or_neither(low: float, high: float, outcome: str) -> None:
    value = (low + high) / 2
    found = Claim("amn", Difference(value, low, high, 0.5, "ridge"), "cosine", 23)
    relation = {"better": "better than", "worse": "worse than"}.get(outcome, "not distinguishable from")
    assert found.outcome == found.to_dict()["outcome"] == outcome
    assert found.sentence == (
        f"amn is {relation} the best baseline, ridge, in cosine: {value:+.4f} "
        f"(95% interval {low:+.4f} to {high:+.4f}, 23 documents)."
    )


@pytest.mark.parametrize(
    ("objective", "outcome", "split", "expected"),
    [
        (
            COSINE,
            "better",
            "test",
            "On 23 test documents, m predicts the next chunk better than every baseline does.",
        ),
        (
            COSINE,
            "worse",
            "val",
            "On 23 validation documents, m predicts the next chunk worse than the best baseline, ridge, "
            "does.",
        ),
        (
            CENTRED_MRR,
            "not distinguishable",
            "all",
            "On 23 documents, m ranks the true next chunk about as high as the best baseline, ridge, does: "
            "the difference is within chance.",
        ),
    ],
)
def test_the_headline_needs_no_glossary(objective: Metric, outcome: str, split: str, expected: str) -> None:
    ends = {"better": (0.01, 0.03), "worse": (-0.03, -0.01)}.get(outcome, (-0.01, 0.03))
    made = Claim("m", Difference(sum(ends) / 2, *ends, 0.5, "ridge"), objective.words, 23)
    found = Verdict(23, objective, dict.fromkeys(MADE_FOR[objective], made), split=split)
    assert found.headline == found.to_dict()["headline"] == expected
    assert "better" not in found.headline or outcome == "better"


def test_the_verdict_on_a_model_made_for_ranking_speaks_of_ranking_first(small: Corpus) -> None:
    """Its figures are those of the best baseline in that metric, with an interval, also for R@5."""
    model = build(config_from_dict({"model_type": "ramn", "head": "retrieve", "dim": small.dim, "rank": 8}))
    result = examine(Loaded(model, "ramn", card=small.card), small, resamples=200).to_dict()
    found, metrics = result["verdict"], result["metrics"]
    assert (
        found["purpose"] == "centred.mrr"
        and found["sentence"] == found["sentences"][0] == found["centred.mrr"]["sentence"]
    )
    assert "the best baseline" in found["sentence"] and "in MRR" in found["sentence"]
    assert "in R@5" in found["sentences"][1] and len(found["sentences"]) == 2
    for metric, leaf in (("centred.mrr", "mrr"), ("centred.recall_at_5", "recall_at_5")):
        best = max(NAMES, key=lambda name: metrics[name]["centred"][leaf])
        against = found[metric]
        assert against["closed_form"] == best == result["best_closed_form"][metric]
        assert against["difference"] == pytest.approx(
            metrics["ramn"]["centred"][leaf] - metrics[best]["centred"][leaf]
        )
        assert against["ci"][0] <= against["difference"] <= against["ci"][1]
    assert not any("hybrid" in name for name in metrics) and "hybrid" not in found  # it has its fusion inside
    assert examine("last", small, resamples=10).to_dict()["verdict"]["purpose"] == "cosine"


def test_a_model_without_residual_scores_as_the_mean(small: Corpus) -> None:
    metrics = examine(amn(small), small, resamples=200).to_dict()["metrics"]
    assert next(iter(metrics)) == "amn"
    assert metrics["amn"]["kind"] == "model"
    for metric in ("cosine", "centred_cosine", "mrr", "margin", "context_ratio"):
        assert metrics["amn"][metric] == pytest.approx(metrics["mean"][metric], abs=1e-6)


def test_a_model_is_scored_a_second_time_as_it_ranks_and_is_nobody_s_opponent(small: Corpus) -> None:
    found = examine(amn(small), small, resamples=500)
    metrics, ranking = found.to_dict()["metrics"], found.ranking
    assert (
        list(metrics)[:2] == ["amn", "amn + hybrid"]
        and metrics["amn + hybrid"]["kind"] == "hybrid"
        and ranking is not None
    )
    assert set(found.to_dict()["best_closed_form"].values()) <= set(NAMES)
    assert ranking.documents == len(np.unique(found.bench.tuning.documents)) == len(split_corpus(small).val)
    claim = found.to_dict()["verdict"]["hybrid"]
    best = found.to_dict()["best_closed_form"]["centred.mrr"]
    assert claim["difference"] == pytest.approx(
        metrics["amn + hybrid"]["centred"]["mrr"] - metrics[best]["centred"]["mrr"]
    )
    assert claim["sentence"].startswith("amn + hybrid is ") and best in claim["sentence"]
    assert metrics["amn + hybrid"]["mrr"] > metrics["amn"]["mrr"]
    assert examine("last", small, resamples=50).ranking is None


def test_the_oracle_as_subject_is_better(small: Corpus) -> None:
    @dataclasses.dataclass(frozen=True)
    class Cheat(Oracle):
        name: str = "cheat"

    assert examine(Cheat(), small, resamples=200).to_dict()["verdict"]["outcome"] == "better"


def test_centring_is_chosen_on_validation(done: Evaluation, small: Corpus) -> None:
    """`last` gets the fraction that wins on validation documents, whatever the test documents would say."""
    parts = split_corpus(small)
    validation = windows(small, parts.val, 5)
    pool = retrieval.build_pool(validation, document_rows(small.offsets, parts.val))
    predicted = predict_all(Last(), validation)
    scores = {f: (1 / retrieval.ranks(pool, predicted, done.bench.mean, f)).mean() for f in (0.0, 0.6, 1.0)}
    assert done.to_dict()["metrics"]["last"]["centred"]["fraction"] == max(scores, key=lambda f: scores[f])


def test_a_broken_metric_fails_the_evaluation(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    right = retrieval.ranks
    monkeypatch.setattr(bench, "ranks", lambda *given: right(*given) + 1)
    with pytest.raises(CheckFailed, match="oracle's recall_at_1 is 0"):
        examine("last", small, resamples=10).to_dict()


def test_a_leaking_control_fails_the_evaluation(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random vector that sees the truth, as an index off by one would make it, is noticed twice."""

    @dataclasses.dataclass(frozen=True)
    class Leak(Oracle):
        name: str = "random"

    right = evaluation.controls
    monkeypatch.setattr(evaluation, "controls", lambda seed: [*right(seed)[:2], Leak()])
    with pytest.raises(CheckFailed, match="2 problems") as caught:
        examine("last", small, resamples=10).to_dict()
    assert "random vector's truth lies at 0.0000 of the ranking" in str(caught.value)


def test_wrong_ranks_fail_the_evaluation(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that keep the oracle perfect and a random vector in the middle: a plain count differs."""
    right = retrieval.ranks

    def mirrored(pool: retrieval.Pool, *given: object) -> np.ndarray:
        ranks = right(pool, *given)
        return np.where((ranks > 1) & (pool.hit_counts() == 1), pool.sizes + 1 - ranks, ranks)

    monkeypatch.setattr(bench, "ranks", mirrored)
    with pytest.raises(CheckFailed, match=r"random vector's rank is .* a plain count gives"):
        examine("last", small, resamples=10).to_dict()


@pytest.mark.parametrize(
    ("share", "noise"),
    [(4, 0.0), *(pytest.param(s, e, marks=pytest.mark.slow) for s in (1, 9) for e in (0.0, 1e-4, 0.02))],
)
def test_copies_raise_no_alarm(small: Corpus, share: int, noise: float) -> None:
    """A header and a footer of so many chunks in every document, to the bit or nearly."""
    rng, x = np.random.default_rng(share), small.numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for start, end in zip(small.offsets[:-1], small.offsets[1:], strict=True):
        x[start : start + share] = x[:share]
        x[end - share : end] = x[share : 2 * share]
    x += noise * rng.standard_normal(x.shape) / np.sqrt(small.dim)
    copied = dataclasses.replace(small, vectors=mx.array(x.astype(np.float32)), sha256="")
    examine("last", copied, "all", resamples=10).to_dict()


def test_an_exclusion_of_the_truth_fails_the_evaluation(
    small: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong targets, one row late: the span's bound breaks."""
    right = bench.window_figures

    def late(predicted: mx.array, windows: Windows, mean: np.ndarray) -> WindowFigures:
        figures = right(mx.roll(predicted, 1, 0), windows, mean)
        return dataclasses.replace(figures, cosine=np.roll(figures.cosine, 1))

    monkeypatch.setattr(bench, "window_figures", late)
    with pytest.raises(CheckFailed, match="oracle's cosine"):
        examine("last", small, resamples=10).to_dict()


def test_what_does_not_fit_is_refused(small: Corpus) -> None:
    with pytest.raises(UsageError, match="Did you mean 'lag-filter'"):
        examine("lag-fliter", small).to_dict()
    with pytest.raises(UsageError, match="trained with split seed 0"):
        examine(amn(small), small, split_seed=3).to_dict()
    with pytest.raises(InvalidFile, match="two different encoders"):
        examine(amn(small, card=EncoderCard(model="other", dim=small.dim)), small).to_dict()
    with pytest.raises(InvalidFile, match="reads vectors of 32 dimensions, corpus wide has 33"):
        wide = dataclasses.replace(
            small, name="wide", vectors=mx.concatenate([small.vectors, small.vectors[:, :1]], axis=1)
        )
        examine(amn(small, card=None), wide).to_dict()
    with pytest.raises(UsageError, match="unknown split 'tset'"):
        examine("last", small, "tset").to_dict()
    with pytest.raises(InvalidFile, match="no window of 90"):
        examine("last", small, context=90).to_dict()


def test_notes_say_what_a_reader_must_know(small: Corpus) -> None:
    assert any(
        "No verdict on new text" in note
        for note in examine("last", small, "train", resamples=10, max_windows=50).to_dict()["notes"]
    )
    known = amn(small, corpus="elsewhere", corpus_sha256="0" * 64)
    limited = examine(known, small, resamples=10, max_windows=20).to_dict()
    assert limited["windows"] == 20
    assert any("amn was trained on elsewhere, not on small" in note for note in limited["notes"])
    assert any("20 of" in note for note in limited["notes"])


def test_a_run_named_like_a_closed_form_is_kept_apart(small: Corpus) -> None:
    loaded = amn(small)
    loaded.name = "mean"
    metrics = examine(loaded, small, resamples=10).to_dict()["metrics"]
    assert_allclose(metrics["mean (model)"]["cosine"], metrics["mean"]["cosine"], atol=1e-6)


def test_the_difference_to_the_mean_is_paired(done: Evaluation) -> None:
    """The difference of two means over the same windows, with an interval narrower than the values' own."""
    metrics = done.to_dict()["metrics"]
    entry, mean = metrics["lag-filter"], metrics["mean"]
    found = entry["versus_mean"]
    assert found["difference"] == pytest.approx(entry["cosine"] - mean["cosine"], abs=1e-9)
    assert found["ci"][0] < found["difference"] < found["ci"][1]
    assert found["ci"][1] - found["ci"][0] < mean["cosine_ci"][1] - mean["cosine_ci"][0]
    assert done.to_dict()["verdict"]["mean"]["sentence"].startswith(
        "lag-filter is better than the mean of its context in cosine: +"
    )
