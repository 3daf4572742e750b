"""Retrieval against a plain search, hand-worked cases and exact enumeration."""

from collections import Counter
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.metrics import retrieval
from mlx_lvm.metrics.chance import chance, chance_of, ties
from mlx_lvm.metrics.retrieval import (
    Pairs,
    Pool,
    build_pool,
    contrastive_accuracy,
    rank_figures,
    ranks,
)
from mlx_lvm.predictors.base import document_rows, predict_all
from mlx_lvm.predictors.baselines import ContextMean, Last
from mlx_lvm.predictors.controls import Oracle, RandomVector

from ..helpers import make_corpus

DOCUMENTS = np.array([0, 2, 5, 9, 13])


def plain_ranks(
    corpus: Corpus, predicted: np.ndarray, rows: np.ndarray, centre: np.ndarray, own_document: bool
) -> np.ndarray:
    """Ranks by a loop over windows and candidates."""
    x = corpus.numpy().astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = windows(corpus, DOCUMENTS, 3)
    out = []
    for i, t in enumerate(found.targets):
        query = predicted[i] / np.linalg.norm(predicted[i]) - centre
        context = set(range(t - 3, t))
        document = corpus.document_of(np.array([t]))[0]
        pool = [
            r
            for r in rows
            if r not in context and (not own_document or corpus.document_of(np.array([r]))[0] == document)
        ]
        score = {
            r: query @ (x[r] - centre) / np.linalg.norm(query) / np.linalg.norm(x[r] - centre) for r in pool
        }
        hits = {r for r in pool if r == t or x[r] @ x[t] > 0.97}
        best = max(score[r] for r in hits)
        out.append(1 + sum(score[r] > best for r in pool if r not in hits))
    return np.array(out, dtype=float)


@pytest.fixture(scope="module")
def copied(uneven: Corpus) -> Corpus:
    """Some chunks stand again, exactly or nearly, in the same and in other documents."""
    x = uneven.numpy()
    noise = (
        np.random.default_rng(5).standard_normal(x.shape).astype(np.float32)
        * np.linalg.norm(x, axis=1, keepdims=True)
        * 0.02
    )
    offsets = uneven.offsets
    for here, there, near in ((0, 2, False), (2, 5, True), (5, 5, True), (9, 0, False)):
        a, b = offsets[here] + 6, offsets[there] + 3
        x[b] = x[a] + noise[a] * near
    x[offsets[2] + 9] = x[offsets[2] + 8]  # a near-duplicate that is context of the window it would help
    return make_corpus(x, list(uneven.lengths))


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [(8192, 1024), (5, 4)])
@pytest.mark.parametrize("fraction", [0.0, 0.6])
@pytest.mark.parametrize("own_document", [False, True])
def test_against_a_plain_search(
    copied: Corpus,
    blocks: tuple[int, int],
    fraction: float,
    own_document: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieval, "CANDIDATES", blocks[0])
    monkeypatch.setattr(retrieval, "QUERIES", blocks[1])
    found, rows = windows(copied, DOCUMENTS, 3), document_rows(copied.offsets, DOCUMENTS)
    mean = copied.numpy(rows).mean(axis=0)
    pool = build_pool(found, rows)
    if own_document:
        pool = pool.in_document()
    assert (pool.hit_counts() > 1).sum() >= (1 if own_document else 5)
    for predictor in (ContextMean(), Last(), RandomVector()):
        predicted = predict_all(predictor, found)
        expected = plain_ranks(
            copied,
            np.array(predicted, dtype=np.float64),
            rows,
            fraction * mean.astype(np.float64),
            own_document,
        )
        assert_allclose(ranks(pool, predicted, mean, fraction), expected, atol=0, err_msg=predictor.name)
    assert_allclose(ranks(pool, predict_all(Oracle(), found), mean, fraction), 1)


def test_hits_are_the_truth_and_its_near_duplicates(copied: Corpus) -> None:
    found, rows = windows(copied, DOCUMENTS, 3), document_rows(copied.offsets, DOCUMENTS)
    x = copied.numpy().astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    near = (x[found.targets] @ x[rows].T > 0.97) & ~(
        (rows < found.targets[:, None]) & (rows >= found.targets[:, None] - 3)
    )
    own = copied.document_of(rows) == found.documents[:, None]
    assert near.sum(axis=1).max() > 1 and (near & own).sum() < near.sum()
    pool = build_pool(found, rows)
    assert_allclose(pool.hit_counts(), near.sum(axis=1))
    assert_allclose(pool.in_document().hit_counts(), (near & own).sum(axis=1))


def test_pool_sizes_and_context(uneven: Corpus) -> None:
    found, rows = windows(uneven, DOCUMENTS, 3), document_rows(uneven.offsets, DOCUMENTS)
    pool = build_pool(found, rows)
    assert_allclose(pool.sizes, len(rows) - 3)
    assert_allclose(pool.in_document().sizes, uneven.lengths[found.documents] - 3)
    targets_only = build_pool(found, found.targets.astype(np.int64))
    inside = [sum(t - k in set(found.targets) for k in (1, 2, 3)) for t in found.targets]
    assert_allclose(targets_only.sizes, len(found) - np.array(inside))


def test_ties_count_half() -> None:
    """Document of 6 orthogonal chunks, context 1, target row 1: a query equally near to rows 1, 2, 3, 4 and
    to the context.
    """
    corpus = make_corpus(np.eye(6), [6])
    found = windows(corpus, np.array([0]), 1)
    pool = build_pool(found, np.arange(6))
    query = np.zeros((5, 6), dtype=np.float32)
    query[0, :5] = 1
    assert ranks(pool, mx.array(query))[0] == 1 + 3 / 2
    # A query of zeros ties with all four others: the middle of five.
    assert_allclose(ranks(pool, mx.array(query))[1:], 3)
    figures = rank_figures(np.array([1, 2.5, 3, 3, 3]), pool)
    assert_allclose(figures.recall_at_1, [1, 0, 0, 0, 0])
    assert_allclose(figures.recall_at_5, 1)
    assert_allclose(figures.mrr, [1, 1 / 2.5, 1 / 3, 1 / 3, 1 / 3])


def test_context_is_out_of_the_pool() -> None:
    """Directions at 0, 29, 53 and 90 degrees; the last chunk predicts what is nearest to it, which is never
    itself.
    """
    corpus = make_corpus(np.array([[1, 0.0], [0.9, 0.5], [0.6, 0.8], [0, 1]]), [4])
    found = windows(corpus, np.array([0]), 1)
    assert_allclose(ranks(build_pool(found, np.arange(4)), predict_all(Last(), found)), [1, 1, 2])


def test_chance_against_enumeration(uneven: Corpus) -> None:
    """Every order of a pool of 6 with 1 and with 2 hits."""
    found = windows(uneven, np.array([6]), 3)
    for hits in (1, 2):
        places = [min(order.index(h) for h in range(hits)) + 1 for order in permutations(range(6))]
        pairs = Pairs(np.repeat(np.arange(2), hits), np.tile(np.arange(hits), 2))
        pool = Pool(found, np.arange(6), pairs, Pairs(np.zeros(0, int), np.zeros(0, int)), np.array([6, 6]))
        found_chance = chance(pool)
        assert found_chance.mrr == pytest.approx(np.mean([1 / p for p in places]))
        assert found_chance.mrr_variance == pytest.approx(np.var([1 / p for p in places]))
        assert found_chance.recall_at_1 == pytest.approx(hits / 6)
        assert found_chance.recall_at_5 == pytest.approx(np.mean([p <= 5 for p in places]))
        assert found_chance.recall_at_10 == pytest.approx(1)


def test_copies_are_one_draw(uneven: Corpus) -> None:
    """Every order of the distinct vectors of a document: the truth twice, another five times, three alone."""
    letters = "abctdddbddeft"  # the context a, b, c; then the truth t; later copies
    x = np.random.default_rng(3).standard_normal((26, 12))
    corpus = make_corpus(x[[ord(letter) - 97 for letter in letters]], [len(letters)])
    found = windows(corpus, np.array([0]), 3)
    for pool in (build_pool(found, np.arange(len(letters))), build_pool(found, np.arange(13)).in_document()):
        for window, (hits, groups) in enumerate(ties(pool)):
            target = int(found.targets[window])
            others = Counter(
                letter
                for row, letter in enumerate(letters)
                if letter != letters[target] and not target - 3 <= row < target
            )
            assert hits == 1 and Counter(dict(groups)) == Counter(others.values()), letters[target]
        first = next(iter(ties(pool)))
        assert first == (1, ((1, 3), (5, 1)))  # b again, e, f, and d five times
        # All windows alike: what is enumerated for the first holds for the pool cut to it.
        alone = replace(
            pool,
            windows=replace(
                found, targets=found.targets[:1], starts=found.starts[:1], documents=found.documents[:1]
            ),
            hits=pool.hits.where(pool.hits.window == 0),
            context=pool.context.where(pool.context.window == 0),
            sizes=pool.sizes[:1],
        )
        sizes = {"t": 0, "b": 1, "e": 1, "f": 1, "d": 5}
        ranks_ = [
            1 + sum(sizes[letter] for letter in order[: order.index("t")]) for order in permutations("tbefd")
        ]
        expected = chance(alone)
        assert expected.mrr == pytest.approx(np.mean([1 / rank for rank in ranks_]), rel=1e-9)
        assert expected.mrr_variance == pytest.approx(np.var([1 / rank for rank in ranks_]), rel=1e-9)
        for cut, share in ((1, expected.recall_at_1), (5, expected.recall_at_5), (10, expected.recall_at_10)):
            assert share == pytest.approx(np.mean([rank <= cut for rank in ranks_]), rel=1e-9)


def test_chance_of_a_large_pool() -> None:
    """Of a million candidates, where no order can be enumerated: uniform ranks, so H_n / n and k / n."""
    n = 10**6
    at_1, at_5, at_10, mrr, _ = chance_of(1, {1: n - 1})
    assert mrr == pytest.approx((np.log(n) + 0.5772156649 + 0.5 / n) / n, rel=1e-6)
    assert [at_1, at_5, at_10] == pytest.approx([1 / n, 5 / n, 10 / n], rel=1e-3)


def test_contrastive_accuracy_against_enumeration(uneven: Corpus) -> None:
    """Rank 3 among 7 others in a fixed pool of 4: the share of the 35 triples without the two better ones is
    10/35.
    """
    found = windows(uneven, np.array([6]), 3)
    pool = Pool(
        found,
        np.arange(8),
        Pairs(np.arange(2), np.zeros(2, int)),
        Pairs(np.zeros(0, int), np.zeros(0, int)),
        np.array([8, 8]),
    )
    drawn = [not {0, 1} & set(triple) for triple in combinations(range(7), 3)]
    assert_allclose(contrastive_accuracy(np.array([3.0, 1.0]), pool, 4), [np.mean(drawn), 1])
    assert_allclose(
        contrastive_accuracy(np.array([3.0, 1.0]), pool, 100), [0, 1]
    )  # the pool is smaller: every other is drawn
