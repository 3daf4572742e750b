"""Another domain: baselines carried over and fitted there. The arrow of time: the same recipe on reversed
documents.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import InvalidFile, UsageError
from mlx_lvm.evaluation.evaluate import Evaluation, examine
from mlx_lvm.evaluation.study.arrow import arrow_of_time, reversed_corpus
from mlx_lvm.evaluation.transfer import Transfer, copies, may_have_seen, out_of_domain
from mlx_lvm.hub.load import Loaded, load_model
from mlx_lvm.metrics.figures import mean_cosine
from mlx_lvm.metrics.retrieval import build_pool, ranks
from mlx_lvm.models import build, config_from_dict
from mlx_lvm.predictors.base import ModelPredictor, predict_all
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.predictors.lags import fit_lag_filter
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.session import start_run


@pytest.fixture(scope="module")
def away(sotu: Corpus, small: Corpus) -> Corpus:
    """Other addresses, cut to the same dimensions: the same space, other documents."""
    documents = range(2, 232, 5)
    rows = [np.arange(sotu.offsets[d], sotu.offsets[d + 1])[:30] for d in documents]
    vectors = mx.array(sotu.numpy(np.concatenate(rows))[:, : small.dim])
    names = tuple(sotu.names[d] for d in documents)
    return Corpus("away", vectors, None, np.cumsum([0, *map(len, rows)]), names, small.card, sha256="1" * 64)


def network(small: Corpus) -> Loaded:
    model = build(
        config_from_dict({"model_type": "amn", "dim": small.dim, "attention_dim": 4, "hidden_dim": 8})
    )
    train = {"epochs": 20, "early_stop": 5, "lr": 1e-3, "loss_cosine": 1.0}
    return Loaded(model, "amn", card=small.card, corpus="small", corpus_sha256=small.sha256, train=train)


@pytest.fixture(scope="module")
def loaded(small: Corpus) -> Loaded:
    return network(small)


@pytest.fixture(scope="module")
def home(loaded: Loaded, small: Corpus) -> Evaluation:
    """The network where it was trained."""
    return examine(loaded, small, resamples=200)


@pytest.fixture(scope="module")
def travelled(home: Evaluation, loaded: Loaded, away: Corpus) -> Transfer:
    """The network on the other corpus."""
    return out_of_domain(home, loaded, away, 20_000)


@pytest.mark.slow
def test_both_domains_and_both_fits(
    small: Corpus, away: Corpus, loaded: Loaded, home: Evaluation, travelled: Transfer
) -> None:
    found = travelled.to_dict()
    json.dumps(found, allow_nan=False)
    rows = {row["predictor"]: row for row in found["rows"]}
    assert (
        rows["amn"]["home"]["cosine"] == home.to_dict()["metrics"]["amn"]["cosine"]
        and rows["amn"]["transferred"] is None
    )
    alone = examine(loaded, away, resamples=200).to_dict()["metrics"]
    for name in ("amn", "ridge", "lag-filter"):
        assert rows[name]["there"]["cosine"] == pytest.approx(alone[name]["cosine"], abs=1e-6)
    test = windows(away, split_corpus(away).test, 5)
    carried = mean_cosine(fit_lag_filter(small, split_corpus(small).train, 5), test)
    assert rows["lag-filter"]["transferred"]["cosine"] == pytest.approx(carried, abs=1e-6)
    assert rows["last"]["transferred"]["cosine"] == pytest.approx(
        rows["last"]["there"]["cosine"]
    )  # nothing to fit
    assert rows["lag-filter"]["transferred"]["cosine"] != pytest.approx(
        rows["lag-filter"]["there"]["cosine"], abs=1e-5
    )
    against = found["versus_transferred"]["cosine"]
    best = max(
        (row for row in rows.values() if row["transferred"]), key=lambda row: row["transferred"]["cosine"]
    )
    assert against["closed_form"] == f"{best['predictor']} from small"
    assert against["difference"] == pytest.approx(
        rows["amn"]["there"]["cosine"] - best["transferred"]["cosine"], abs=1e-6
    )
    assert against["ci"][0] < against["difference"] < against["ci"][1]
    assert (
        " from " not in found["verdict"]["cosine"]["closed_form"]
    )  # the opponents there are those fitted there


@pytest.mark.slow
def test_what_travelled_is_compared_on_every_document(
    small: Corpus, away: Corpus, home: Evaluation, travelled: Transfer
) -> None:
    whole = travelled.to_dict()["whole"]
    everything = windows(away, np.arange(len(away.names)), 5)
    assert (
        whole["windows"] == len(everything)
        and whole["documents"] == len(np.unique(everything.documents)) > 40
    )
    assert whole["pool"] == len(away) - 5
    carried = fit_lag_filter(small, split_corpus(small).train, 5)
    assert whole["metrics"]["lag-filter from small"]["cosine"] == pytest.approx(
        mean_cosine(carried, everything), abs=1e-6
    )
    mean = away.numpy(everything.targets).mean(axis=0)
    last = away.numpy(everything.targets - 1)
    pool = build_pool(everything, np.arange(len(away)))
    best = max((1 / ranks(pool, mx.array(last), mean, share)).mean() for share in (0.0, 0.6, 1.0))
    assert whole["metrics"]["last from small"]["centred"]["mrr"] == pytest.approx(
        best, abs=1e-6
    )  # in hindsight
    assert whole["metrics"]["amn"]["centred"]["fraction"] == home.measured["amn"].fraction  # from home
    against = whole["as_at_home"]["mrr"]
    assert against["closed_form"].endswith(" from small")
    mine, theirs = (
        1
        / ranks(
            pool,
            predict_all(home.predictors[name], everything),
            home.bench.mean,
            home.measured[name].fraction,
        )
        for name in ("amn", against["closed_form"].removesuffix(" from small"))
    )
    assert against["difference"] == pytest.approx((mine - theirs).mean(), abs=1e-6)
    assert whole["copies"] == 0
    sentences = travelled.whole_sentences
    assert [" everything fitted on small, centring too: " in sentence for sentence in sentences] == [
        False
    ] * 4 + [True] * 2
    assert all(
        f"All {whole['documents']} documents of away, {len(everything):,} windows" in s for s in sentences
    )
    assert all(
        "from small" in whole["verdict"][metric]["closed_form"] for metric in ("cosine", "centred.mrr")
    )


@pytest.mark.slow
def test_training_documents_under_other_names_are_found_and_left_out(
    small: Corpus, away: Corpus, loaded: Loaded, home: Evaluation
) -> None:
    """Three documents of small's training part in another corpus: one whole and rounded, one with more than
    half of its chunks, one with less; and one of its test documents, which nothing was fitted on."""
    parts, rng = split_corpus(small), np.random.default_rng(0)
    whole, most, some = parts.train[:3]
    rows = {
        number: np.arange(small.offsets[number], small.offsets[number + 1])
        for number in (whole, most, some, parts.test[0])
    }
    strange = rng.normal(size=(64, small.dim)).astype(np.float32)
    kept = {whole: 1.0, most: 0.7, some: 0.3, parts.test[0]: 1.0}
    pieces = [away.numpy()]
    for number, of in rows.items():
        share = round(kept[number] * len(of))
        pieces.append(
            np.concatenate([small.numpy(of)[:share], strange[: len(of) - share]])
            + 1e-4 * rng.normal(size=(len(of), small.dim))
        )
    names = (*away.names, "whole", "most", "some", "held out")
    offsets = np.concatenate([away.offsets, away.offsets[-1] + np.cumsum([len(of) for of in rows.values()])])
    both = Corpus(
        "both",
        mx.array(np.concatenate(pieces).astype(np.float32)),
        None,
        offsets,
        names,
        small.card,
        sha256="3" * 64,
    )
    assert [names[d] for d in copies(both, small, parts.train)] == ["whole", "most"]

    made = out_of_domain(home, loaded, both, 20_000)
    found = made.to_dict()
    others = np.delete(np.arange(len(names)), [names.index("whole"), names.index("most")])
    assert (found["whole"]["copies"], found["whole"]["windows"]) == (2, len(windows(both, others, 5)))
    judged = len({"whole", "most"} & {names[d] for d in split_corpus(both).test})
    assert found["notes"][-1] == (
        f"2 of {len(names)} documents of both are training documents of small as well, 'whole' first: "
        f"no comparison on all documents has them, that on the test documents has {judged}."
    )
    assert (
        f"All {found['whole']['documents']} documents of both that are no training documents of small, "
        in made.whole_sentences[0]
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"corpus": "away", "corpus_sha256": "1" * 64}, "it was trained on others of this corpus"),
        ({"corpus": "away", "corpus_sha256": "2" * 64}, "it was trained on another state of this corpus"),
        ({"corpus": "", "corpus_sha256": ""}, "which documents it was trained on is not known"),
        ({}, ""),
    ],
)
def test_a_model_says_whether_it_may_have_seen_the_other_corpus(
    loaded: Loaded, away: Corpus, changes: dict[str, str], why: str
) -> None:
    assert may_have_seen(dataclasses.replace(loaded, **changes), away) == why


@pytest.mark.slow
def test_a_model_that_may_have_seen_the_other_corpus_keeps_to_its_test_documents(
    away: Corpus, loaded: Loaded, home: Evaluation
) -> None:
    made = out_of_domain(home, dataclasses.replace(loaded, corpus_sha256=""), away, 100)
    found = made.to_dict()
    assert found["notes"][-1] == (
        "amn is compared on the test documents of away alone: which documents it was trained on is not known."
    )
    assert "whole" not in found and made.whole_sentences == [] and "versus_transferred" in found


def test_the_home_corpus_and_other_encoders_are_refused(small: Corpus, away: Corpus) -> None:
    home = examine("last", small, resamples=10)
    with pytest.raises(UsageError, match="--ood small is the corpus that everything is fitted on"):
        out_of_domain(home, "last", small, 100)
    other = dataclasses.replace(away, card=EncoderCard(model="other", dim=small.dim))
    with pytest.raises(InvalidFile, match="two different encoders"):
        out_of_domain(home, "last", other, 100)


def test_reversed_documents(small: Corpus) -> None:
    backward = reversed_corpus(small)
    for d in (0, 7):
        a, b = small.offsets[d], small.offsets[d + 1]
        assert_allclose(backward.numpy(np.arange(a, b)), small.numpy(np.arange(a, b))[::-1])
    assert_allclose(reversed_corpus(backward).numpy(), small.numpy())
    assert_allclose(split_corpus(backward).test, split_corpus(small).test)


def test_arrow_of_time(small: Corpus) -> None:
    found = arrow_of_time(network(small), small, epochs=1, resamples=200)
    figures = found.figures
    for direction, corpus in (("forward", small), ("backward", reversed_corpus(small))):
        parts = split_corpus(corpus)
        expected = mean_cosine(fit_lag_filter(corpus, parts.train, 5), windows(corpus, parts.test, 5))
        assert figures[f"lag-filter {direction}"].value == pytest.approx(expected, abs=1e-6)
        assert 0.3 < figures[f"model {direction}"].value < 1
    for name in ("model", "lag-filter"):
        difference = figures[f"{name} forward"].value - figures[f"{name} backward"].value
        assert figures[f"{name} difference"].value == pytest.approx(difference)
    assert (
        f"cosine {figures['model difference'].value:+.4f}" in found.sentence
        and "after 1 epochs each" in found.sentence
    )


def test_arrow_of_time_trains_ramn_by_its_own_recipe(small_file: Path, tmp_path: Path) -> None:
    """Anchor, documents and average as in a run, and every test window predicted from the document so far."""
    sizes, epochs = {"rank": 8, "hidden_dim": 16}, 2
    options = {"corpus": str(small_file), "epochs": epochs, "batch_size": 4, "lr": 2e-3}
    run = start_run("ramn", sizes, TrainConfig.from_dict(options), tmp_path / "run")
    run.train()
    loaded, corpus = load_model(tmp_path / "run"), load_corpus(small_file)
    model = predictor_of("ramn", loaded.model)
    test = windows(corpus, split_corpus(corpus).test, 5)
    found = arrow_of_time(loaded, corpus, epochs=epochs, resamples=20).figures
    assert found["model forward"].value == pytest.approx(mean_cosine(model, test), abs=1e-6)
    five_chunks = mean_cosine(ModelPredictor("ramn", loaded.model), test)
    assert abs(five_chunks - found["model forward"].value) > 1e-3
    assert found["model difference"].value != 0


def test_time_has_no_arrow_where_documents_are_palindromes(small: Corpus) -> None:
    """Every document followed by its own reverse reads the same both ways: no difference, to the bit."""
    ends = zip(small.offsets[:-1], small.offsets[1:], strict=True)
    rows = np.concatenate([np.r_[np.arange(a, b), np.arange(a, b)[::-1]] for a, b in ends])
    vectors = mx.take(small.vectors, mx.array(rows.astype(np.int32)), axis=0)
    both = Corpus("palindromes", vectors, None, small.offsets * 2, small.names, small.card)
    found = arrow_of_time(network(small), both, epochs=1, resamples=100).figures
    assert found["model difference"].value == 0 and found["lag-filter difference"].value == 0


def test_a_model_without_a_recipe_cannot_be_trained_backwards(small: Corpus) -> None:
    with pytest.raises(UsageError, match="does not say how it was trained"):
        arrow_of_time(dataclasses.replace(network(small), train={}), small)
