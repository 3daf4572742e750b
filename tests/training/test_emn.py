"""EMN's training: statistics against NumPy, cosines without vectors, experts by folds, losses by hand, exact
resume.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.metrics.figures import cosines
from mlx_lvm.models.emn import EMN
from mlx_lvm.models.emn_config import EMNConfig
from mlx_lvm.models.emn_geometry import MEAN, ROWS
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.baselines import target_mean
from mlx_lvm.predictors.history import predictor_of
from mlx_lvm.training.config import TrainConfig, preset
from mlx_lvm.training.emn import balance, statistics, universal
from mlx_lvm.training.emn import bind as binding
from mlx_lvm.training.emn import reading as made_ready
from mlx_lvm.training.emn.balance import EXTENTS, SHARES, best_balance
from mlx_lvm.training.emn.bind import bind
from mlx_lvm.training.emn.experts import expert_module, fit_expert, with_expert
from mlx_lvm.training.emn.geometry import Geometry, geometry_of, joined
from mlx_lvm.training.emn.losses import CENTRED, GCE_POWER, RANDOM_NEGATIVES, predict_loss, rank_loss
from mlx_lvm.training.emn.prepare import directions, model_of, prepare
from mlx_lvm.training.emn.reading import apart, document_of, reading, take_batch
from mlx_lvm.training.emn.scores import by_document, centred_weight, figures_of, lead
from mlx_lvm.training.emn.statistics import (
    EQUAL_WINDOWS,
    PRIOR,
    PRIOR_WINDOWS,
    RIDGE,
    covariance_power,
    statistics_of,
)
from mlx_lvm.training.emn.step import EmnStep
from mlx_lvm.training.emn.universal import Recipe, train_network, train_on
from mlx_lvm.training.ramn.linear import band_gram, folds_apart
from mlx_lvm.training.session import start_run

SIZES = {"hidden_dim": 12, "rank": 8}


def read_of(corpus: Corpus):  # type: ignore[no-untyped-def]
    documents = split_corpus(corpus).train
    return reading(corpus, documents, 5, target_mean(corpus, documents, 5)), documents


def disturbed(model: EMN, seed: int = 0) -> EMN:
    """The model with a network that says something."""
    draw = np.random.default_rng(seed)
    for layer in (model.every_out, model.each_out):
        layer.weight = mx.array(draw.standard_normal(layer.weight.shape).astype(np.float32))
    return model.eval()


def test_statistics_are_least_squares_and_a_power_of_the_covariance(small: Corpus) -> None:
    read, documents = read_of(small)
    found = statistics_of(read, whiten=False)
    model = EMN(EMNConfig(dim=small.dim, **SIZES))
    model.mean = mx.array(found.mean)
    rows, targets = [], []
    for document in documents:
        x = small.numpy(slice(small.offsets[document], small.offsets[document + 1]))
        for t in range(5, len(x)):
            z = mx.array((x[max(t - 100, 0) : t] - found.mean)[None])
            rows.append(np.array(model.rows(z, mx.ones(z.shape[:2]), model.mean[None, None])[0], np.float64))
            targets.append(x[t] - found.mean)
    rows, y = np.array(rows), np.array(targets, np.float64)
    # As if `held` windows more had been seen, whose rows are of the mean length and at right angles; how many
    # is what predicts best the documents that were left out.
    fold = np.repeat(np.arange(len(documents)) % 10, [max(small.lengths[d] - 5, 0) for d in documents])

    def fitted(index: np.ndarray, held: float) -> np.ndarray:
        gram = np.einsum("nad,nbd->ab", rows[index], rows[index])
        wanted = np.einsum("nad,nd->a", rows[index], y[index]) + gram[:, 20]
        size = np.trace(gram) / 22
        extra = RIDGE + held / index.sum()
        toward = RIDGE * np.eye(22)[20] + held / index.sum() * PRIOR
        return np.linalg.solve(gram + extra * size * np.eye(22), wanted + size * toward)

    def error(held: float) -> float:
        out = 0.0
        for one in range(10):
            said = np.einsum("a,nad->nd", fitted(fold != one, held) - np.eye(22)[20], rows[fold == one])
            out += np.square(y[fold == one] - said).sum()
        return out

    best = min(PRIOR_WINDOWS, key=error)
    np.testing.assert_allclose(found.filter, fitted(fold >= 0, best), atol=1e-4)
    whitened = statistics_of(read, whiten=True).whiten
    equal = EQUAL_WINDOWS / len(y) * np.mean(np.square(y)) * np.eye(small.dim)
    np.testing.assert_allclose(whitened, covariance_power(y.T @ y / len(y) + equal), atol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e4])
def test_covariance_power_knows_no_unit_and_keeps_the_mean_square(scale: float) -> None:
    draw = np.random.default_rng(0).standard_normal((200, 6)) * [3, 2, 1, 1, 0.5, 0.3]
    covariance = draw.T @ draw / 200
    power = covariance_power(scale * covariance)
    np.testing.assert_allclose(power, covariance_power(covariance), rtol=1e-8)
    assert np.trace(power @ covariance @ power) == pytest.approx(np.trace(covariance))
    variance = np.linalg.eigvalsh(power @ covariance @ power)
    assert (
        variance.max() / variance.min() < 1.01
    )  # the square root of the covariance makes every direction as long


@pytest.mark.parametrize("expert", ["no", "yes"])
def test_cosines_without_vectors_are_those_of_the_predictions(
    small: Corpus, expert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that goes half as far and keeps more of the mean too."""
    monkeypatch.setattr(balance, "best_balance", lambda *given: (0.5, 0.2))
    parts = split_corpus(small)
    ready = prepare(small, parts, 5, EMNConfig(dim=small.dim, expert=expert, **SIZES))
    network = disturbed(EMN(EMNConfig(dim=0, **SIZES)))
    network.base = mx.full(network.base.shape, 0.1)
    model = model_of(ready, network).eval()
    assert np.array_equal(np.array(model.each_out.weight), 0.5 * np.array(network.each_out.weight))
    assert float((model.base - 0.5 * network.base)[0, MEAN]) == pytest.approx(0.2)
    found = figures_of(model, geometry_of(ready.val, ready.statistics))
    read, predictor = windows(small, parts.val, 5), predictor_of("emn", model)
    p, y, m = (
        np.array(predictor.predict(read), np.float64),
        np.array(read.truth(), np.float64),
        ready.statistics.mean,
    )
    p *= np.linalg.norm(y, axis=1, keepdims=True) / np.linalg.norm(p, axis=1, keepdims=True)
    for mine, centre in zip(found, (0, m), strict=True):
        a, b = p - centre, y - centre
        expected = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(mine, expected, atol=2e-5)
    assert document_of(ready.val).tolist() == small.document_of(read.targets).tolist()
    start = figures_of(None, geometry_of(ready.val, ready.statistics))
    assert np.abs(found[0] - start[0]).max() > 1e-3  # the network counts


def test_chunks_in_another_unit_are_learned_from_alike(small: Corpus) -> None:
    larger = replace(small, vectors=small.vectors * 64, scales=None, sha256="")
    network = disturbed(EMN(EMNConfig(dim=0, **SIZES)))
    for one in (small, larger):
        read, _ = read_of(one)
        found = statistics_of(read, False)
        figures = figures_of(network, geometry_of(read, found))
        if one is small:
            expected = figures
    np.testing.assert_allclose(figures[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(figures[1], expected[1], atol=1e-4)


def test_every_target_has_the_expert_that_did_not_see_its_document(small: Corpus) -> None:
    read, documents = read_of(small)
    config = EMNConfig(dim=small.dim, expert="yes", **SIZES)
    fitted = fit_expert(read, documents, config)
    informed = with_expert(read, fitted, config)
    assert sorted(np.concatenate([held for held, _ in fitted.by_fold]).tolist()) == sorted(documents.tolist())
    document = small.document_of(read.parts.rows)
    seen = 0
    for index in read.parts.blocks(4):
        table = read.parts.table(read.parts.targets[index])
        batch = take_batch(informed.arrays, mx.array(table))
        for held, without in fitted.by_fold:
            own = np.isin(document[table[:, 0]], held)
            expected = np.array(expert_module(without, config)(batch.read))
            valid = np.array(batch.valid) & own[:, None]
            np.testing.assert_allclose(np.array(batch.expert.squeeze(-2))[valid], expected[valid], atol=1e-5)
            seen += int(valid.sum())
    assert seen == read.parts.windows


def test_an_expert_of_the_others_knows_nothing_of_a_fold(small: Corpus) -> None:
    """Neither its mean nor its principal directions: with other chunks in the fold's documents, the rest
    says the same.
    """
    _, documents = read_of(small)
    folds = folds_apart(small, documents, 5)
    for fold in folds[:2]:
        held = np.isin(small.document_of(np.arange(len(small))), fold.documents)
        changed = np.where(held[:, None], -small.numpy()[::-1], small.numpy())
        other = replace(small, vectors=mx.array(changed), scales=None, sha256="")
        again = folds_apart(other, documents, 5)
        mine = next(one for one in again if np.isin(fold.documents, one.documents).all())
        np.testing.assert_array_equal(mine.mean, fold.mean)
        np.testing.assert_array_equal(mine.basis, fold.basis)
        (rest, held_out), (own_rest, own_held) = mine.rotated(), fold.rotated()
        np.testing.assert_array_equal(band_gram(*rest), band_gram(*own_rest))
        assert np.abs(band_gram(*held_out) - band_gram(*own_held)).max() > 0.1


def test_rank_loss_by_hand(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every target against the batch's others, what its document read before the last 5 chunks, and drawn
    chunks.
    """
    read, _ = read_of(small)
    found = statistics_of(read, whiten=True)
    model = disturbed(EMN(EMNConfig(dim=0, head="rank", **SIZES)))
    whiten = mx.array(found.whiten.astype(np.float32))
    drawn = np.random.default_rng(0).integers(0, len(read.centred), RANDOM_NEGATIVES)
    monkeypatch.setattr(mx.random, "randint", lambda *_: mx.array(drawn.astype(np.int32)))
    table = read.parts.table(read.parts.targets[:3])
    arrays = {**read.arrays, "whiten": whiten}
    loss, cosine = rank_loss(model, mx.array(table), arrays)
    raw = np.array(directions(model, read, whiten), np.float64)
    unit = np.array(read.centred) + found.mean
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    rows = [t + k for t, _, end in table for k in range(min(32, end - t))]
    expected, cosines = 0.0, 0.0
    for number, (row, query) in enumerate(zip(rows, raw, strict=False)):
        start = next(s for t, s, end in table if s <= row < end)
        rivals = [r for r in rows if not 0 < row - r <= 5]
        rivals += [r for r in range(max(start, row - 100), row - 5) if segment_of(table, row, r)]
        rivals += [int(r) for r in drawn if not 0 <= row - r <= 5]
        logits = unit[rivals] @ query
        p = np.exp(unit[row] @ query) / np.exp(logits).sum()
        expected += (1 - p**GCE_POWER) / GCE_POWER
        cosines += unit[row] @ query / np.linalg.norm(query)
        assert number < len(raw)
    assert float(loss) == pytest.approx(expected, rel=1e-4) and float(cosine) == pytest.approx(
        cosines, rel=1e-4
    )


def segment_of(table: np.ndarray, row: int, read: int) -> bool:
    """Whether a chunk lies among the 100 before the segment's first target, which are those that a segment
    compares with.
    """
    first = max(t for t, s, _ in table if s <= row and t <= row)
    return first - 100 <= read < first


@pytest.mark.parametrize(("head", "expert"), [("predict", "auto"), ("predict", "no"), ("rank", "no")])
def test_a_network_serves_a_corpus_once_it_has_its_statistics(
    small: Corpus, head: str, expert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is then what a training on that corpus begins with, but for the weight of the two cosines by which
    its corrections go as far as they do.
    """
    monkeypatch.setattr(binding, "CENTRED", CENTRED)
    network = disturbed(EMN(EMNConfig(dim=0, head=head, expert=expert, **SIZES)))
    bound = bind(network, small)
    has = "yes" if expert == "auto" else "no"
    ready = prepare(small, split_corpus(small), 5, EMNConfig(head=head, expert=has, **SIZES))
    wanted = model_of(ready, network).weights()
    assert bound.config == ready.config and bound.weights().keys() == wanted.keys()
    for name, value in bound.weights().items():
        np.testing.assert_allclose(np.array(value), np.array(wanted[name]), atol=1e-5, err_msg=name)
    with pytest.raises(UsageError, match="has the expert of one corpus"):
        bind(EMN(EMNConfig(dim=small.dim, expert="yes", head=head, **SIZES)), small)


def test_the_documents_choose_how_far_corrections_go() -> None:
    """Noise is not followed; what says the targets is, as far as they are. A share of the mean is kept where
    the targets ask for it, and nothing is changed for less than chance.
    """
    mx.random.seed(0)
    generator = np.random.default_rng(0)
    count, truth = 600, EMN(EMNConfig(dim=0, **SIZES))
    rows = generator.standard_normal((count, ROWS, 32)).astype(np.float32)
    rows[:, MEAN] = rows[0, MEAN]
    plain = np.eye(1, ROWS, MEAN, dtype=np.float32)[0] + np.eye(1, ROWS, 0, dtype=np.float32)[0]

    def chosen(extent: float, share: float, noise: float = 0.1) -> tuple[float, float]:
        """What is best where the targets are the rows, corrected so far and with so much of the mean."""
        gram = rows @ rows.swapaxes(1, 2)
        tokens = np.full(count, 16, np.float32)
        arrays = [mx.array(x) for x in (gram, tokens, tokens)]
        weights = plain + extent * np.array(truth.corrections(*arrays)[0])[:, 0]
        target = np.einsum("na,nad->nd", weights, rows) + share * rows[0, MEAN]
        target += noise * generator.standard_normal(target.shape).astype(np.float32) - rows[0, MEAN]
        products = np.einsum("nad,nd->na", rows, target)
        made = Geometry(
            gram,
            products,
            np.square(target).sum(axis=1),
            tokens,
            tokens,
            (np.arange(count) % 10).astype(np.int32),
            np.tile(plain, (10, 1)),
        )
        return best_balance(truth, made, 0.3)

    truth = disturbed(truth)
    assert chosen(0.5, 0.2) == (0.5, 0.2) and chosen(1.25, -0.1) == (1.25, -0.1) and chosen(0.0, 0.0)[0] == 0
    assert chosen(1.0, 0.0) == (1.0, 0.0) and (1.0, 0.0) in product(EXTENTS, SHARES)
    assert chosen(1.0, 0.05, noise=300.0) == (1.0, 0.0)


@pytest.mark.parametrize(("rise", "share"), [(0.4, -0.05), (0.0, -0.1)])
def test_what_leads_the_baselines_in_both_cosines_comes_first(
    monkeypatch: pytest.MonkeyPatch, rise: float, share: float
) -> None:
    """Centred cosine, which weighs twice as much, asks for less of the mean than cosine allows where that
    rises with it.
    """
    count, noise = 200, 1e-3 * np.random.default_rng(0).standard_normal(200).astype(np.float32)
    plain = np.eye(1, ROWS, MEAN, dtype=np.float32)

    def cosines(weights: mx.array, arrays: dict[str, mx.array]) -> tuple[mx.array, mx.array]:
        extent, kept = weights[:, 0], weights[:, MEAN] - 1
        scatter = mx.array(noise) * extent  # else every lead is sure
        return 0.5 + rise * kept + 0.02 * extent + scatter, 0.5 - 0.3 * kept + 0.02 * extent + scatter

    model = EMN(EMNConfig(dim=0, **SIZES))
    one = mx.array(np.tile(np.eye(1, ROWS, dtype=np.float32), (count, 1, 1)))
    monkeypatch.setattr(EMN, "corrections", lambda *given: (one, None))
    monkeypatch.setattr(balance, "cosines_of", cosines)
    zeros, source = np.zeros(count, np.float32), (np.arange(count) % 10).astype(np.int32)
    made = Geometry(zeros, zeros, zeros, zeros, zeros, source, np.tile(plain, (10, 1)))
    assert best_balance(model, made, 2.0) == (1.25, share)


def test_a_direction_common_to_all_chunks_does_not_decide_what_a_cosine_is_worth(small: Corpus) -> None:
    """It brings all cosines together and hardly moves the centred ones."""
    common = mx.array(3 * np.eye(1, small.dim, dtype=np.float32))
    chunks = small.take(np.arange(len(small))) + common
    pointing = replace(small, vectors=chunks, scales=None, sha256="")
    lacks = []
    for corpus in (small, pointing):
        read, _ = read_of(corpus)
        geometry = geometry_of(read, statistics_of(read, whiten=False))
        cosine, centred = figures_of(None, geometry)
        lacks.append((1 - cosine.mean(), 1 - centred.mean()))
        assert centred_weight(geometry, 0.4) == pytest.approx(0.4 * lacks[-1][0] / lacks[-1][1])
    assert lacks[1][0] < 0.2 * lacks[0][0] and lacks[1][1] > 0.8 * lacks[0][1]


def test_every_corpus_weighs_its_centred_cosine_by_what_its_own_filter_lacks(small: Corpus) -> None:
    read, _ = read_of(small)
    one = geometry_of(read, statistics_of(read, whiten=False))
    worse = replace(one, filters=np.eye(1, ROWS, 0, dtype=np.float32))
    windows, model = [one, worse], disturbed(EMN(EMNConfig(dim=0, **SIZES)))
    both, index = joined(windows), mx.array([0, 1, len(one), len(one) + 3])
    weights = [centred_weight(each, 0.8) for each in windows]
    assert abs(weights[0] - weights[1]) > 0.01
    loss, total = predict_loss(model, index, {**both.arrays, "weight": mx.array(weights)})
    cosine, centred = (x[np.array(index)] for x in figures_of(model, both))
    expected = (1 - cosine + np.repeat(weights, 2) * (1 - centred)).sum()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(total) == pytest.approx(cosine.sum(), rel=1e-5)


def test_a_universal_training_weighs_each_corpus_apart(
    small: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, ...]] = []

    class Seen(EmnStep):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            seen.append(self.centred)

    monkeypatch.setattr(universal, "EmnStep", Seen)
    read, _ = read_of(small)
    one = geometry_of(read, statistics_of(read, whiten=False), limit=40)
    worse = replace(one, filters=np.eye(1, ROWS, 0, dtype=np.float32))
    recipe = Recipe(1, 8, 6e-3, centred=0.9)
    train_on("predict", [one, worse], recipe)
    assert seen == [(centred_weight(one, 0.9), centred_weight(worse, 0.9))]


def test_no_window_is_scored_by_a_filter_that_saw_it(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the filter of the documents in other folds, among some segments as among all."""
    monkeypatch.setattr(statistics, "PRIOR_WINDOWS", (0,))
    read, _ = read_of(small)
    found = statistics_of(read, whiten=False)
    every, document = geometry_of(read, found, left_out=True), document_of(read)
    folds = {one: np.unique(every.source[document == one]) for one in np.unique(document)}
    assert all(len(fold) == 1 for fold in folds.values()) and len(np.unique(every.source)) > 1
    for fold in np.unique(every.source):
        rest = np.array([one for one in folds if folds[one] != fold])
        others = statistics_of(reading(small, rest, 5, np.array(read.mean)), whiten=False)
        np.testing.assert_allclose(every.filters[fold], others.filter, atol=1e-4)
    some = replace(read, parts=read.parts.some(3))
    few = geometry_of(some, found, left_out=True)
    assert len(few) == some.parts.windows < len(every)
    for one in np.unique(document_of(some)):
        assert set(few.source[document_of(some) == one]) == set(folds[one])


def test_no_document_is_less_a_mean_that_holds_it(small: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of each document are what the network reads where only the others are known, its chunks, its
    targets and the row of the mean.
    """
    monkeypatch.setattr(made_ready, "ROWS_BLOCK", 50)  # documents end within blocks, blocks within documents
    documents = split_corpus(small).train[::-1]
    read = reading(small, documents, 5, target_mean(small, documents, 5))
    own, mean = apart(read), np.array(read.mean)
    np.testing.assert_array_equal(np.array(own.mean), mean)
    offset, lengths = 0, small.lengths[documents]
    for document, length in zip(documents, lengths, strict=True):
        others = target_mean(small, np.setdiff1d(documents, [document]), 5)
        chunks = small.numpy(slice(small.offsets[document], small.offsets[document + 1]))
        centred = np.array(own.centred)[offset : offset + length]
        np.testing.assert_allclose(centred, chunks - others, atol=1e-6)
        offset += length
    assert own.means is not None and np.abs(np.array(own.means) - mean).max() > 1e-3
    table = read.parts.table(read.parts.targets[-2:])
    batch, before = (take_batch(one.arrays, mx.array(table)) for one in (own, read))
    valid = np.array(before.valid)
    for a, b in ((batch.truth, before.truth), (batch.rows[..., 0, :], before.rows[..., 0, :])):
        whole = [np.array(x + y[..., 0, :])[valid] for x, y in ((a, batch.mean), (b, before.mean))]
        np.testing.assert_allclose(*whole, atol=1e-6)


def test_a_document_alone_is_less_its_own_mean(small: Corpus) -> None:
    chosen = split_corpus(small).train[:1]
    read = reading(small, chosen, 5, target_mean(small, chosen, 5))
    np.testing.assert_array_equal(np.array(apart(read).centred), np.array(read.centred))


def test_a_filter_of_few_documents_serves_others_better_where_none_was_in_its_mean(small: Corpus) -> None:
    """Twelve draws of three documents, the others tell; with the mean of all three the filter stays too near
    to it.
    """
    every, gains = np.arange(len(small.lengths)), []
    for draw in range(12):
        mine = np.sort(np.random.default_rng(draw).permutation(every)[:3])
        mean = target_mean(small, mine, 5)
        read, rest = reading(small, mine, 5, mean), reading(small, np.setdiff1d(every, mine), 5, mean)
        found = (statistics_of(one, whiten=False) for one in (apart(read), read))
        now, before = (figures_of(None, geometry_of(rest, one)) for one in found)
        gains.append([(a - b).mean() for a, b in zip(now, before, strict=True)])
    assert (np.mean(gains, axis=0) > 0.001).all(), gains
    assert (np.mean(np.array(gains) > 0, axis=0) > 0.6).all(), gains


@pytest.mark.parametrize("draw", [1, 4])
def test_five_documents_are_not_misled_by_their_expert(draw: int) -> None:
    """Five chapters whose folds, read less a mean that held them, chose a map that fits none of the others
    (-0.04 of cosine), and five whose expert gets a weight of -1 beside the filter.
    """
    moby = load_corpus("moby")
    parts = split_corpus(moby)
    every = np.concatenate([parts.train, parts.val])
    mine = np.sort(np.random.default_rng(draw).permutation(every[moby.lengths[every] > 5])[:5])
    rest = windows(moby, np.setdiff1d(parts.val, mine), 5)
    scores = []
    for expert in ("auto", "no"):
        network = EMN(EMNConfig(dim=0, expert=expert, **SIZES)).eval()
        network.start_at_baseline()  # the filter alone, with an expert or none
        bound = bind(network, moby, mine)
        scores.append(cosines(predict_all(predictor_of("emn", bound), rest), rest.truth()).mean().item())
    assert scores[0] > scores[1] - 0.005, scores


def test_one_document_is_enough_to_serve(small: Corpus) -> None:
    """It cannot be left out of itself, so there is no expert."""
    bound = bind(EMN(EMNConfig(dim=0, expert="auto", **SIZES)), small, split_corpus(small).train[:1])
    assert not bound.config.has_expert and np.abs(np.array(bound.filter)).max() > 0


@pytest.mark.parametrize("head", ["predict", "rank"])
def test_one_network_learns_from_corpora_of_any_width(small: Corpus, head: str) -> None:
    narrow = (
        Corpus.from_numpy(
            "narrow", small.numpy()[:, :20], small.offsets, small.names, small.card.replace(dim=20)
        )
        if hasattr(Corpus, "from_numpy")
        else replace(small, vectors=small.vectors[:, :20], card=small.card.replace(dim=20))
    )
    both = [(one, split_corpus(one).train) for one in (small, narrow)]
    network = train_network(head, both, Recipe(12, 8 if head == "predict" else 2, 1e-2))
    again = train_network(head, both, Recipe(12, 8 if head == "predict" else 2, 1e-2))
    assert network.config.dim == 0
    for name, value in network.weights().items():
        assert np.array_equal(np.array(value), np.array(again.weights()[name])), name
        assert np.isfinite(np.array(value)).all()
    assert np.abs(np.array(network.each_out.weight)).max() > 0


def test_windows_of_several_corpora_keep_their_own_filter(small: Corpus) -> None:
    read, _ = read_of(small)
    one = geometry_of(read, statistics_of(read, False))
    other = replace(one, filters=one.filters * 0.5)
    both = joined([one, other])
    cosines = figures_of(None, both)[0]
    np.testing.assert_allclose(cosines[: len(one)], figures_of(None, one)[0])
    np.testing.assert_allclose(cosines[len(one) :], figures_of(None, other)[0])
    few = geometry_of(read, statistics_of(read, False), limit=10)
    assert len(few) == 10


@pytest.mark.parametrize(
    "sizes", [{"head": "predict", "expert": "yes"}, {"head": "predict"}, {"head": "rank"}]
)
def test_a_resumed_run_is_the_undisturbed_one(sizes: dict, small_file: Path, tmp_path: Path) -> None:
    options, _ = preset("best", EMNConfig(**sizes))
    config = TrainConfig(**{**options, "epochs": 3, "batch_size": 4, "corpus": str(small_file)})
    whole = start_run("emn", {**SIZES, **sizes}, config, tmp_path / "whole")
    assert whole.task.model.config.expert in ("yes", "no")
    assert whole.train()
    broken = start_run("emn", {**SIZES, **sizes}, config, tmp_path / "broken")
    asked = iter([False] * (whole.task.steps_per_epoch + 2) + [True] * 9)
    assert not broken.train(stop=lambda: next(asked))
    from mlx_lvm.training.session import resume_run

    assert resume_run(tmp_path / "broken").train()
    last = sorted((tmp_path / "whole/checkpoints").glob("step-*"))[-1].name
    for name in ("model.safetensors", "optimizer.safetensors"):
        files = [tmp_path / run / "checkpoints" / last / name for run in ("whole", "broken")]
        if files[0].exists():
            assert sha256(files[0].read_bytes()) == sha256(files[1].read_bytes())
    ours, theirs = (sorted((tmp_path / run / "checkpoints" / last).iterdir()) for run in ("whole", "broken"))
    assert [one.name for one in ours] == [one.name for one in theirs] and len(ours) >= 2


def test_a_lead_is_the_gain_less_its_standard_error_over_documents() -> None:
    scores, document = np.array([1.0, 3, 5, 2, 4]), np.array([7, 7, 9, 3, 3])
    means, counts = by_document(scores, document)
    assert means.tolist() == [3, 2, 5] and counts.tolist() == [2, 2, 1]
    start = means - [1.0, 3, 2]
    gain = (2 * 1 + 2 * 3 + 1 * 2) / 5
    squares = (2 / 5 * (1 - gain)) ** 2 + (2 / 5 * (3 - gain)) ** 2 + (1 / 5 * (2 - gain)) ** 2
    assert lead(means, start, counts) == pytest.approx(gain - np.sqrt(1.5 * squares))
    alike = np.ones(400)  # of many documents of one length it is the usual standard error of a mean
    gains = np.random.default_rng(0).standard_normal(400)
    assert lead(gains, 0 * gains, alike) == pytest.approx(gains.mean() - gains.std(ddof=1) / 20)


def test_no_gain_of_a_single_document_counts() -> None:
    assert lead(np.array([0.9]), np.array([0.5]), np.array([40])) < 0
