"""RAMN's training: the anchor against NumPy least squares, one pass against window by window, the losses,
exact resume.
"""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.cli.shared.progress import headings
from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.hub.load import load_model
from mlx_lvm.metrics.retrieval import Pairs, Pool, build_pool, ranks
from mlx_lvm.models import build
from mlx_lvm.models.ramn import RAMN
from mlx_lvm.models.ramn_config import RAMNConfig
from mlx_lvm.models.ramn_filters import MAPPED, mixed
from mlx_lvm.predictors.base import document_rows
from mlx_lvm.predictors.history import HistoryPredictor
from mlx_lvm.ranking.logit import RIDGE as BLEND_RIDGE
from mlx_lvm.training.config import TrainConfig
from mlx_lvm.training.emn.bind import bind
from mlx_lvm.training.ramn import blend as blends
from mlx_lvm.training.ramn.anchor import fit_anchor, start_at_anchor
from mlx_lvm.training.ramn.blend import besides, fit_blend
from mlx_lvm.training.ramn.documents import (
    causal_kernels,
    centred_rows,
    counts_of,
    mixtures_of,
    old_mask,
    segments,
    take_segments,
)
from mlx_lvm.training.ramn.folds import RIDGE, bands
from mlx_lvm.training.ramn.losses import GCE_Q, retrieve_loss
from mlx_lvm.training.ramn.step import FILTERS, FROZEN
from mlx_lvm.training.state import epoch_order, step_key
from mlx_lvm.training.store import RunCheckpoints
from mlx_lvm.training.tasks.choose import make_task
from mlx_lvm.training.trainer import Trainer

SIZES = {"dim": 32, "rank": 12, "hidden_dim": 16}


def mixtures_by_hand(x: np.ndarray) -> np.ndarray:
    """[targets, 12, dim] in float64 from one document's centred chunks, for every target with 5 chunks before
    it.
    """
    out = []
    for t in range(5, len(x)):
        past = x[:t][::-1][:100]
        rows = [past[k] if k < len(past) else np.zeros(x.shape[1]) for k in range(8)]
        for decay in (0.5, 0.8, 0.93, 1.0):
            weight = decay ** np.arange(len(past))
            rows.append(weight @ past / weight.sum())
        out.append(rows)
    return np.array(out)


def by_hand(
    corpus: Corpus, documents: np.ndarray, width: int, towards_one: float, penalty: float, ahead: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the anchor's predictions, those of its filters alone, its trust) on every window with a chunk
    `ahead` of its target, by plain least squares in NumPy.
    """
    parts = [
        corpus.numpy(slice(corpus.offsets[d], corpus.offsets[d + 1])).astype(np.float64) for d in documents
    ]
    mean = np.concatenate([p[5:] for p in parts]).mean(axis=0)
    y = np.concatenate([p[5:] for p in parts]) - mean
    _, vectors = np.linalg.eigh(y.T @ y)
    basis = vectors[:, ::-1].T
    every = np.concatenate([mixtures_by_hand(p - mean) for p in parts]) @ basis.T
    novelty = (every[:, 11] ** 2 / (y @ basis.T).var(axis=0)).mean(axis=1)
    trust = 1 / (1 + (novelty / (1.3 * np.quantile(novelty, 0.999))) ** 8)[:, None]
    kept = np.concatenate([np.arange(5, len(p)) + ahead < len(p) for p in parts])
    f, trust = every[kept], trust[kept]
    sizes = np.array([(f[:, k] ** 2).sum(axis=0).mean() for k in MAPPED])
    scale = np.repeat(np.sqrt(sizes[0] / sizes), width)
    y = (np.concatenate([p[5 + ahead :] for p in parts]) - mean) @ basis.T
    filters, shifted = np.zeros((12, len(mean))), np.zeros((12, len(mean)))
    every = two_fits(f, y, 0.0, (np.zeros(12), np.zeros(12)))
    for band in bands(len(mean)):
        filters[:, band], shifted[:, band] = (
            found[:, None] for found in two_fits(f[:, :, band], y[:, band], towards_one, every)
        )
    x = np.concatenate([f[:, k, :width] for k in MAPPED], axis=1) * scale
    filtered = (filters * f).sum(axis=1)
    share = penalty * np.trace(x.T @ x) / len(scale)
    mapping = np.linalg.solve(x.T @ x + share * np.eye(len(scale)), x.T @ (y - filtered))
    expected = trust * (filtered + x @ mapping) + (1 - trust) * (shifted * f).sum(axis=1)
    return mean + expected @ basis, mean + filtered @ basis, trust[:, 0]


def two_fits(
    f: np.ndarray, y: np.ndarray, towards: float, priors: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Scalars of the mixtures f [n, k, directions] that fit y [n, directions] best, and the best that sum to
    1; each held to its prior by a share of the mixtures' mean square.
    """
    count, found = f.shape[1], []
    for prior, sums_to_one in zip(priors, (False, True), strict=True):
        design, wanted = f.transpose(0, 2, 1).reshape(-1, count), y.reshape(-1)
        size = np.sqrt(np.sum(design**2) / count)  # a penalty as that many more rows
        held = [np.sqrt(share) * size * np.eye(count) for share in (RIDGE, towards)]
        design, wanted = (
            np.vstack([design, *held]),
            np.concatenate([wanted, np.zeros(count), held[1] @ prior]),
        )
        if sums_to_one:
            rest = design[:, :-1] - design[:, -1:]  # the last scalar is 1 less the others
            free = np.linalg.lstsq(rest, wanted - design[:, -1], rcond=None)[0]
            found.append(np.append(free, 1 - free.sum()))
        else:
            found.append(np.linalg.lstsq(design, wanted, rcond=None)[0])
    return found[0], found[1]


def test_step_zero_is_the_closed_form(small: Corpus) -> None:
    documents = split_corpus(small).train
    model = build(RAMNConfig(**SIZES))
    anchor = fit_anchor(small, documents, 5, model.config)
    (fitted,) = anchor.horizons
    expected, filtered, trust = by_hand(small, documents, 12, fitted.towards_one, fitted.penalty)
    start_at_anchor(model, anchor)
    predicted = np.array(HistoryPredictor("ramn", model).predict(windows(small, documents, 5)))
    assert np.abs(predicted - expected).max() < 2e-5
    assert np.abs(filtered - expected).max() > 1e-3  # the map does something
    assert trust.min() < 0.9 < np.median(trust)


def test_each_horizon_starts_as_its_own_closed_form(small: Corpus) -> None:
    documents = split_corpus(small).train
    model = build(RAMNConfig(**SIZES, horizons=3))
    anchor = fit_anchor(small, documents, 5, model.config)
    start_at_anchor(model, anchor)
    read = windows(small, documents, 5)
    ahead = np.array(HistoryPredictor("ramn", model).ahead(read))
    for k in range(3):
        kept = read.targets + k < small.offsets[1:][read.documents]
        own = anchor.horizons[k]
        expected, _, _ = by_hand(small, documents, 12, own.towards_one, own.penalty, k)
        assert np.abs(ahead[kept, k] - expected).max() < 3e-5
    assert np.abs(ahead[:, 1] - ahead[:, 2]).max() > 1e-3


def test_filters_beside_a_query(small: Corpus) -> None:
    """Least squares over the windows that have a later chunk, with the chunk that was drawn as one more
    mixture.
    """
    documents = split_corpus(small).train
    fitted = fit_anchor(small, documents, 5, RAMNConfig(**SIZES, horizons=2, queries=0.5))
    parts = segments(small, documents, 5)
    z = np.array(centred_rows(parts, fitted.mean, mx.array(fitted.basis))).astype(np.float64)
    lengths = small.lengths[documents]
    starts = np.cumsum([0, *lengths])[:-1]
    mixtures = np.concatenate([mixtures_by_hand(z[a : a + n]) for a, n in zip(starts, lengths, strict=True)])
    place = {
        t: i
        for i, t in enumerate(t for a, n in zip(starts, lengths, strict=True) for t in range(a + 5, a + n))
    }
    draws, f, rows, asked = np.random.default_rng(0), [], [], []
    for index in parts.blocks(8):
        drawn = draws.random((len(index), 32), dtype=np.float32)
        for segment, row in zip(index, drawn, strict=True):
            for k, draw in enumerate(row):
                t = int(parts.targets[segment]) + k
                left = min(int(parts.ends[segment]) - 1 - t, 5)
                if left > 0:
                    asked.append(1 + int(draw * left))
                    f.append(np.vstack([mixtures[place[t]], z[t + asked[-1]]]))
                    rows.append(t)
    for ahead, horizon in enumerate(fitted.horizons):
        kept = np.array(asked) != ahead  # a query is not its own target
        assert kept.all() == (ahead == 0)
        chosen, target = np.array(f)[kept], z[np.array(rows)[kept] + ahead]
        every = two_fits(chosen, target, 0.0, (np.zeros(13), np.zeros(13)))
        for band in bands(32):
            free, one = two_fits(chosen[:, :, band], target[:, band], horizon.towards_one, every)
            np.testing.assert_allclose(horizon.query_filter[:, band] - free[:, None], 0, atol=3e-3)
            np.testing.assert_allclose(horizon.query_shift_filter[:, band] - one[:, None], 0, atol=3e-3)
        assert horizon.query_filter[12].mean() > 0.02  # the query counts


def test_in_another_domain_the_anchor_needs_no_mean(small: Corpus) -> None:
    """Documents moved far away are predicted as far away: scalars that sum to 1 carry a shift of every chunk
    through.
    """
    documents = split_corpus(small).train
    model = build(RAMNConfig(**SIZES))
    start_at_anchor(model, fit_anchor(small, documents, 5, model.config))
    model.eval()
    x = small.numpy(windows(small, documents[:3], 12).targets[:6, None] + np.arange(-12, 0))
    shift = np.linspace(-1, 1, 32, dtype=np.float32)
    near, far = (np.array(model(mx.array(x + times * shift)).raw) for times in (3, 5))
    np.testing.assert_allclose(far - near, np.broadcast_to(2 * shift, far.shape), atol=2e-4)


def test_bands_cover_every_direction_once() -> None:
    for dim in (1, 2, 5, 32, 768, 1000):
        assert np.concatenate([np.arange(dim)[band] for band in bands(dim)]).tolist() == list(range(dim))
    assert [(b.start, b.stop) for b in bands(768)] == [
        (0, 1),
        *((2**k, 2 ** (k + 1)) for k in range(8)),
        (256, 384),
        (384, 512),
        (512, 640),
        (640, 768),
    ]


@pytest.fixture
def fitted(small: Corpus) -> dict[str, RAMN]:
    out = {}
    anchor = fit_anchor(small, split_corpus(small).train, 5, RAMNConfig(**SIZES))
    for head in ("regress", "retrieve"):
        mx.random.seed(1)
        out[head] = build(RAMNConfig(head=head, **SIZES))
        start_at_anchor(out[head], anchor)
        last = out[head].net[-1]
        last.weight = 0.3 * mx.random.normal(last.weight.shape)
        out[head].eval()
    out["retrieve"].blend = mx.array([2.0, 0.5])
    return out


def trusted_queries(model: RAMN, z: np.ndarray) -> np.ndarray:
    """h of every target of one document with 5 chunks before it, from its centred chunks z [n, dim] in the
    basis; float64.
    """
    targets = np.arange(5, len(z))
    ((here, _, moved),), _ = model.parts(
        mx.array(mixtures_by_hand(z).astype(np.float32)), mx.array(np.minimum(targets, 100) * 1.0)
    )
    scale, strength, threshold = (
        float(x[0]) for x in (mx.exp(model.log_scale), mx.exp(model.push_strength), model.push_threshold)
    )
    out = scale * np.array(here + moved).astype(np.float64)
    for query, t in zip(out, targets, strict=True):
        read = z[max(0, t - 100) : t - 5]
        query -= (
            strength * np.logaddexp(0, read @ query - threshold) @ read * np.exp(np.array(model.push_metric))
        )
    return out


@pytest.mark.parametrize("head", ["regress", "retrieve"])
def test_one_pass_over_a_document_equals_window_by_window(
    fitted: dict[str, RAMN], small: Corpus, head: str
) -> None:
    model, documents = fitted[head], split_corpus(small).val
    model.trust_limit = model.trust_limit - 1.5  # so that some of the windows are half trusted
    parts = segments(small, documents, 5)
    batch = take_segments(
        centred_rows(parts, np.array(model.mean), model.basis.weight), mx.array(parts.table(parts.targets))
    )
    ((here, elsewhere, moved),), trust = model.parts(mixtures_of(batch, causal_kernels()), counts_of(batch))
    found, valid = windows(small, documents, 5), np.array(batch.valid)
    if head == "regress":
        together = np.array(
            (mixed(here, elsewhere, trust) + trust * moved) @ model.basis.weight + model.mean
        )[valid]
    else:
        z = (small.numpy() - np.array(model.mean)) @ np.array(model.basis.weight).T.astype(np.float64)
        query = np.concatenate(
            [trusted_queries(model, z[small.offsets[d] : small.offsets[d + 1]]) for d in documents]
        )
        unit = query / np.linalg.norm(query, axis=1, keepdims=True)
        other, t = np.array(elsewhere)[valid], np.array(trust)[valid]
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        together = 2 * (t * unit + (1 - t) * other) @ np.array(model.basis.weight) + 0.5 * small.numpy(
            found.targets - 1
        )
        assert t.min() < 0.9 < t.max()
    single = np.array(HistoryPredictor("ramn", model).predict(found))
    assert together.shape == single.shape
    np.testing.assert_allclose(together, single, atol=2e-5 * np.abs(single).max())


def test_the_history_is_the_document_so_far(fitted: dict[str, RAMN], small: Corpus) -> None:
    model, found = fitted["regress"], windows(small, split_corpus(small).val, 5)
    predicted = np.array(HistoryPredictor("ramn", model).predict(found))
    for number in (0, 7, len(found) - 1):
        rows = np.arange(found.starts[number], found.targets[number])
        alone = np.array(model(mx.array(small.numpy(rows))[None]).raw)[0]
        np.testing.assert_allclose(predicted[number], alone, atol=1e-5)
    index = np.array([7, 3, 7])
    np.testing.assert_allclose(
        np.array(HistoryPredictor("ramn", model).predict(found, index)), predicted[index], atol=1e-5
    )


def test_retrieve_loss_by_its_formula(
    fitted: dict[str, RAMN], small: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, documents = fitted["retrieve"], split_corpus(small).train
    parts = segments(small, documents, 5)
    centred = centred_rows(parts, np.array(model.mean), model.basis.weight)
    batch = take_segments(centred, mx.array(parts.table(parts.targets[:3])))
    strangers = np.random.default_rng(0).integers(0, len(parts.rows), 50)
    monkeypatch.setattr(mx.random, "randint", lambda *_: mx.array(strangers.astype(np.int32)))
    loss, _ = retrieve_loss(model, batch, causal_kernels(), old_mask(), centred)

    z = np.array(centred).astype(np.float64)
    targets = [
        int(t) + k
        for t, e in zip(parts.targets[:3], parts.ends[:3], strict=True)
        for k in range(32)
        if t + k < e
    ]
    starts = [int(parts.starts[np.searchsorted(parts.targets, t, side="right") - 1]) for t in targets]
    read = windows(small, documents, 5)
    edges = np.cumsum([0, *small.lengths[documents]])
    queries = np.concatenate([trusted_queries(model, z[a:b]) for a, b in pairwise(edges)])
    corpus_row = {int(row): number for number, row in enumerate(read.targets)}
    losses = []
    for target, start in zip(targets, starts, strict=True):
        q = queries[corpus_row[int(parts.rows[target])]].astype(np.float64)
        close = set(range(target - 5, target))
        others = sorted({*targets, *range(start, target - 5)} - close - {target})
        others += [int(s) for s in strangers if s not in close and s != target]
        scores = z[[target, *others]] @ q
        p = np.exp(scores[0] - scores.max()) / np.exp(scores - scores.max()).sum()
        losses.append((1 - p**GCE_Q) / GCE_Q)
    assert float(loss) == pytest.approx(np.mean(losses), rel=2e-4)


def test_the_blend_makes_the_true_chunk_likeliest_and_is_judged_on_the_other_half(
    fitted: dict[str, RAMN], small: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blends, "lead", lambda *_: 1.0)  # trusted, whatever so few documents say
    model, documents = fitted["retrieve"], split_corpus(small).train[:6]
    read, rows = windows(small, documents, 5), document_rows(small.offsets, documents)
    pool = build_pool(read, rows)
    blend, found = fit_blend(model, pool, besides(model, pool))
    np.testing.assert_array_equal(np.array(model.blend), [1, 0])
    unit = np.array(HistoryPredictor("ramn", model).predict(read)).astype(np.float64)
    x = small.numpy().astype(np.float64)
    units = x / np.linalg.norm(x, axis=1, keepdims=True)
    terms = np.stack([unit, x[read.targets - 1]], axis=1)
    out = (rows >= read.targets[:, None] - 5) & (rows < read.targets[:, None])

    def likelihood(weights: np.ndarray, chosen: np.ndarray) -> float:
        scores = np.where(out, -np.inf, (terms.transpose(0, 2, 1) @ weights) @ units[rows].T)[chosen]
        truth = scores[np.arange(len(scores)), np.searchsorted(rows, read.targets[chosen])]
        return float((truth - np.log(np.exp(scores).sum(axis=1))).mean()) - BLEND_RIDGE / 2 * float(
            weights @ weights
        )

    def is_best(weights: np.ndarray, chosen: np.ndarray) -> bool:
        return all(
            likelihood(weights, chosen) > likelihood(weights + np.array(by), chosen)
            for by in ([2, 0], [-2, 0], [0, 2], [0, -2])
        )

    half = np.searchsorted(documents, read.documents) % 2
    assert is_best(blend, half >= 0)
    for one in (0, 1):
        chosen, others = np.flatnonzero(half == one), half != one
        rest = only(pool, others)
        own = fit_blend(model, rest, besides(model, rest))[0]
        assert is_best(own, others) and np.abs(own - blend).max() > 0.05
        scores = np.where(out, -np.inf, (terms.transpose(0, 2, 1) @ own) @ units[rows].T)[chosen]
        truth = scores[np.arange(len(chosen)), np.searchsorted(rows, read.targets[chosen])]
        plain = pool.hit_counts()[chosen] == 1
        np.testing.assert_allclose(
            found[chosen][plain], 1 + (scores > truth[:, None] + 1e-6).sum(axis=1)[plain], atol=1
        )
        assert np.mean(found[chosen][plain] == 1 + (scores > truth[:, None]).sum(axis=1)[plain]) > 0.99


def test_a_direction_that_is_not_trusted_leaves_the_ranking_to_what_it_is_blended_with(
    fitted: dict[str, RAMN], small: Corpus
) -> None:
    """One document says nothing, and a direction adds nothing to the truth itself."""
    model, documents = fitted["retrieve"], split_corpus(small).train[:6]
    pool = build_pool(windows(small, documents, 5), document_rows(small.offsets, documents))
    single = only(pool, pool.windows.documents == documents[0])
    for some, beside in ((single, besides(model, single)), (pool, pool.windows.truth())):
        blend, found = fit_blend(model, some, beside)
        assert blend[0] == 0 and blend[1] > 0
        np.testing.assert_array_equal(found, ranks(some, beside))
    noise = mx.random.normal((len(pool.windows), small.dim), key=mx.random.key(0))
    blend, found = fit_blend(model, pool, noise)
    assert blend[0] > 0 and (1 / found).mean() > (1 / ranks(pool, noise)).mean()


def test_a_blend_in_a_large_pool_is_fitted_on_some_of_its_chunks(
    fitted: dict[str, RAMN], small: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = split_corpus(small).train
    pool, sizes = build_pool(windows(small, documents, 5), document_rows(small.offsets, documents)), []
    monkeypatch.setattr(blends, "BLEND_PAIRS", 50 * len(pool.windows))
    monkeypatch.setattr(
        blends,
        "fit_logit",
        lambda features, offsets: sizes.append(features.shape) or np.ones(features.shape[1]),
    )
    _, found = fit_blend(fitted["retrieve"], pool, besides(fitted["retrieve"], pool))
    halves, columns = sizes[:2], {size[2] for size in sizes}
    assert sum(size[0] for size in halves) == len(pool.windows) and columns == {51}  # and the truth
    assert len(pool.rows) > 100 and found.max() > 60  # ranked among all of them still


def only(pool: Pool, kept: np.ndarray) -> Pool:
    """Some of a pool's windows against all of its chunks."""
    place = np.cumsum(kept) - 1
    pairs = [one.where(kept[one.window]) for one in (pool.hits, pool.context)]
    hits, context = (Pairs(place[one.window], one.candidate) for one in pairs)
    read = pool.windows
    read = replace(read, targets=read.targets[kept], starts=read.starts[kept], documents=read.documents[kept])
    return Pool(read, pool.rows, hits, context, pool.sizes[kept])


def new(folder: Path, corpus: Corpus, head: str, epochs: int = 2, **options: float) -> Trainer:
    config = TrainConfig(corpus="small", epochs=epochs, batch_size=4, lr=2e-3, early_stop=0)
    folder.mkdir(exist_ok=True)
    task = make_task(RAMNConfig(head=head, **SIZES, **options), corpus, config)
    return Trainer(task, RunCheckpoints(folder))


def fingerprint(trainer: Trainer) -> dict[str, str]:
    return {
        name: sha256(np.array(value))
        for name, value in {**trainer.task.model.weights(), **trainer.task.step.state_dict()}.items()
    }


FITTED = {"basis.weight", *FROZEN} | {
    f"{at}{name}" for at in ("", "ahead.0.") for name in (*FILTERS, "map.weight")
}


def test_what_it_falls_back_on_is_the_released_ranker_of_its_corpus(tmp_path: Path, small: Corpus) -> None:
    model = new(tmp_path, small, "retrieve", fallback="emn").task.model
    documents = split_corpus(small).train
    own = bind(load_model("emn-rank").model, small, documents)
    read = windows(small, split_corpus(small).val, 5)
    found = besides(model, build_pool(read, document_rows(small.offsets, split_corpus(small).val)))
    np.testing.assert_allclose(
        np.array(found), np.array(HistoryPredictor("emn", own).predict(read)), rtol=1e-5, atol=1e-5
    )
    model.blend = mx.array([0.0, 1.0])
    np.testing.assert_allclose(
        np.array(HistoryPredictor("ramn", model).predict(read)), np.array(found), rtol=1e-5, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("regress", {}),
        ("retrieve", {}),
        ("retrieve", {"fallback": "emn"}),
        ("regress", {"horizons": 2, "queries": 0.5}),
    ],
)
def test_training_lowers_the_loss_leaves_the_statistics_and_resumes_to_the_bit(
    tmp_path: Path, small: Corpus, head: str, options: dict
) -> None:
    whole = new(tmp_path / "whole", small, head, **options)
    before = {name: np.array(value) for name, value in whole.task.model.weights().items()}
    assert whole.train()
    history = whole.state.history
    if "queries" not in options:  # with queries every epoch has other ones, of more or less worth
        assert history[-1]["train_loss"] < history[0]["train_loss"]
    frozen = FITTED - ({"filter", "blend"} if head == "retrieve" else set())
    for name, value in whole.task.model.weights().items():
        kept = name in frozen or name.startswith("emn.")
        assert (np.array(value) == before[name]).all() == kept, name
    if head == "retrieve":  # else the average would drift back to the blend that the steps began with
        np.testing.assert_array_equal(np.array(whole.task.step.live.blend), np.array(whole.task.model.blend))

    stopped = new(tmp_path / "cut", small, head, **options)
    steps = iter([False, False, True])
    assert not stopped.train(stop=lambda: next(steps))
    resumed = new(tmp_path / "cut", small, head, **options)
    resumed.resume()
    assert resumed.state.count == 3
    assert resumed.train()
    assert fingerprint(resumed) == fingerprint(whole)


def test_the_average_follows_the_steps(tmp_path: Path, small: Corpus) -> None:
    """average_n = k average + (1 - k) weights, k = min(0.98, n / (n + 10))."""
    trainer = new(tmp_path / "run", small, "retrieve")
    expected = np.array(trainer.task.model.net[-1].bias).astype(np.float64)
    order = epoch_order(len(trainer.task.segments), 0, 0)
    for number in range(1, 4):
        trainer.task.step(trainer.task.segments.targets[order[:4]], 1e-3, step_key(0, 0, number))
        keep = number / (number + 10)
        expected = keep * expected + (1 - keep) * np.array(trainer.task.step.live.net[-1].bias)
    np.testing.assert_allclose(np.array(trainer.task.model.net[-1].bias), expected, atol=1e-7)


def test_a_broken_step_and_those_after_it_change_nothing(tmp_path: Path, small: Corpus) -> None:
    """Neither the weights that are trained, nor their average, nor the moments."""
    trainer = new(tmp_path / "run", small, "retrieve")
    step, order = trainer.task.step, epoch_order(len(trainer.task.segments), 0, 0)
    for number in range(1, 6):
        if number == 3:
            before, sound = fingerprint(trainer), step._centred
            step._centred = mx.full(sound.shape, float("nan"))
        step(trainer.task.segments.targets[order[:4]], 0.0, number)
        if number == 3:
            step._centred = sound
    assert step.broken().item() == 3
    after = fingerprint(trainer)
    assert {name for name in before if after[name] != before[name]} <= {
        "sums.loss",
        "sums.cosine",
        "sums.windows",
        "sums.broken",
    }


def test_processes_that_share_nothing_are_told_so(tmp_path: Path, small: Corpus) -> None:
    trainer = new(tmp_path / "run", small, "regress")
    trainer.task.group = type("Pair", (), {"single": False, "size": 2})()  # type: ignore[assignment]
    assert headings(trainer, tmp_path)[-1] == "2 processes each compute every batch: one would do"
