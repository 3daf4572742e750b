"""Near pairs against all products, exact groups against comparison of all rows, leakage against a planted
copy.
"""

from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.quality import duplicates
from mlx_lvm.data.quality.audit import FEW_DOCUMENTS, check, find_duplicates
from mlx_lvm.data.quality.contexts import targets_in_context
from mlx_lvm.data.quality.description import describe, lag_profile
from mlx_lvm.data.quality.duplicates import exact_groups, near_pairs, row_digests
from mlx_lvm.data.splits import SPLITS, Split, split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.reader import find_corpus, open_corpus

from ..helpers import write_corpus


def corpus(path: Path, vectors: np.ndarray, lengths: list[int], dtype: str = "F32") -> MappedCorpus:
    names = [f"doc {k}" for k in range(len(lengths))]
    write_corpus(path, vectors, np.cumsum([0, *lengths]), names, EncoderCard(dim=vectors.shape[1]), {}, dtype)
    return open_corpus(path)


@pytest.mark.parametrize("dim", [8, 200])
def test_near_pairs_are_those_of_all_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int
) -> None:
    monkeypatch.setattr(duplicates, "BLOCK", 64)
    monkeypatch.setattr(duplicates, "MANY", 40)  # both ways to the products
    rng = np.random.default_rng(dim)
    centres = rng.standard_normal((60, dim))
    rows = (
        centres[rng.integers(0, 60, 300)] + rng.uniform(0.02, 0.3, (300, 1)) * rng.standard_normal((300, dim))
    ).astype(np.float32)
    rows *= rng.uniform(0.1, 10, (300, 1)).astype(np.float32)
    unit = rows.astype(np.float64) / np.linalg.norm(rows, axis=1, keepdims=True)
    products = unit @ unit.T
    for threshold in (0.9, 0.97):
        expected = {(a, b) for a, b in np.argwhere(products > threshold) if a < b}
        found = near_pairs(corpus(tmp_path / "x.safetensors", rows, [300]), threshold)
        assert {tuple(pair) for pair in found.rows.tolist()} == expected and found.total == len(expected) > 0
        np.testing.assert_allclose(found.cosines, products[found.rows[:, 0], found.rows[:, 1]], atol=1e-6)


def test_all_rows_alike(tmp_path: Path) -> None:
    rows = np.ones((1000, 5), np.float32) * np.arange(1, 1001, dtype=np.float32)[:, None]
    found = near_pairs(corpus(tmp_path / "x.safetensors", rows, [1000]))
    assert found.total == 1000 * 999 // 2 and len(found.rows) == duplicates.KEPT


def test_exact_groups_and_digests(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    rows[[7, 30]] = rows[2]
    rows[39] = rows[11]
    groups = exact_groups(corpus(tmp_path / "x.safetensors", rows, [40]))
    assert sorted(group.tolist() for group in groups) == [[2, 7, 30], [11, 39]]
    assert exact_groups(corpus(tmp_path / "y.safetensors", rows[:7], [7])) == []
    digests = row_digests(rows)
    equal = (rows[:, None] == rows[None]).all(axis=2)
    np.testing.assert_array_equal(digests[:, None] == digests[None], equal)


def duplicates_across(corpus: Corpus, split: Split) -> int:
    """How many vectors of val and test stand, to the bit, in train as well (or test in val)."""
    part = split.numbers()[corpus.document_of(np.arange(len(corpus)))]
    vectors = np.ascontiguousarray(corpus.numpy())
    _, inverse = np.unique(
        vectors.view(np.dtype((np.void, vectors.dtype.itemsize * vectors.shape[1]))).ravel(),
        return_inverse=True,
    )
    earliest = np.full(inverse.max() + 1, len(SPLITS), dtype=np.uint8)
    np.minimum.at(earliest, inverse, part)
    return int((part > earliest[inverse]).sum())


def test_shipped_duplicates(sotu: Corpus) -> None:
    """The four texts that stand twice, and one chunk of thanks that only its vector says is the same."""
    assert sotu.texts is not None
    mapped = open_corpus(find_corpus("sotu"))
    groups = {tuple(group.tolist()) for group in exact_groups(mapped)}
    same_text = {(5326, 5407), (5327, 5408), (5938, 8216), (9785, 9932)}
    assert same_text <= groups and all(sotu.texts[a] == sotu.texts[b] for a, b in same_text)
    found = find_duplicates(mapped, seed=0, near=False)
    assert found.near == -1 and found.leakage.exact == duplicates_across(sotu, split_corpus(sotu, 0))


def test_near_pairs_of_real_vectors() -> None:
    mapped = open_corpus(find_corpus("moby"))
    rows = mapped.read(0, len(mapped)).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = {(a, b) for a, b in np.argwhere(rows @ rows.T > 0.8) if a < b}
    assert {tuple(pair) for pair in near_pairs(mapped, 0.8).rows.tolist()} == expected and len(expected) > 10


@pytest.mark.slow
def test_the_approximate_search_against_the_exact_one() -> None:
    """On sotu it finds the same pairs; what it reports is never wrong, for the cosines are computed in
    full.
    """
    mapped = open_corpus(find_corpus("sotu"))
    exact = near_pairs(mapped, 0.85)
    alike = list(zip(exact.rows.tolist(), exact.cosines.tolist(), strict=True))
    for threshold, least in ((0.97, 15), (0.85, 1700)):
        found = near_pairs(mapped, threshold, approximate=True)
        expected = {(a, b): cosine for (a, b), cosine in alike if cosine > threshold}
        pairs = {(a, b): c for (a, b), c in zip(found.rows.tolist(), found.cosines.tolist(), strict=True)}
        assert len(expected) >= least and found.total == len(pairs) >= 0.99 * len(expected)
        assert all(expected[pair] == pytest.approx(cosine, abs=1e-5) for pair, cosine in pairs.items())


@pytest.mark.slow
def test_the_approximate_search_of_planted_copies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20_000, 48)).astype(np.float32)
    copies = rng.choice(20_000, 4000, replace=False).reshape(2, -1)
    rows[copies[1]] = rows[copies[0]] + 0.1 * rng.standard_normal((2000, 48)).astype(np.float32)
    mapped = corpus(tmp_path / "x.safetensors", rows, [100] * 200)
    exact, found = near_pairs(mapped), near_pairs(mapped, approximate=True)
    assert exact.total >= 2000
    assert 0.98 * exact.total <= found.total <= exact.total
    assert {tuple(pair) for pair in found.rows.tolist()} <= {tuple(pair) for pair in exact.rows.tolist()}


def test_a_copied_document_is_leakage(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((60 * 8, 16)).astype(np.float32)
    mapped = corpus(tmp_path / "x.safetensors", rows, [8] * 60)
    clean, found = check(mapped, 5, 0)
    assert clean.problems == [] and found is not None and found.leakage.share == 0
    split = split_corpus(mapped, 0)
    train, test = int(split.train[0]), int(split.test[0])
    held_out = 8 * (len(split.val) + len(split.test))
    rows[8 * test : 8 * test + 8] = rows[8 * train : 8 * train + 8]
    rows[8 * test + 1] += 1e-4  # near, not exact
    findings, found = check(corpus(tmp_path / "x.safetensors", rows, [8] * 60), 5, 0)
    assert found is not None and (found.leakage.exact, found.leakage.near, found.leakage.held_out) == (
        7,
        8,
        held_out,
    )
    assert found.exact == 7 and found.near == 8 and found.near_within == 0
    told = "\n".join(findings.problems)
    assert f"'doc {test}' (test): 8 of 8 chunks" in told and f"8 of {held_out} held-out chunks" in told
    assert (
        f"row {8 * test} (document 'doc {test}', chunk 0) of test is row {8 * train} (document 'doc "
        f"{train}', chunk 0) of train" in told
    )


def test_a_held_out_part_of_few_documents_is_told(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    made = corpus(tmp_path / "x.safetensors", rows, [10] * 40)
    for seed in range(3):
        held = split_corpus(made, seed)
        told = [line for line in check(made, 5, seed)[0].warnings if "say little" in line]
        few = [name for name in SPLITS[1:] if 0 < len(held.part(name)) < FEW_DOCUMENTS]
        assert [line.split(" in ")[1].split(":")[0] for line in told] == few
        assert all(
            line.startswith(f"{len(held.part(name))} doc") for line, name in zip(told, few, strict=True)
        )
    assert few, "this would test nothing"


def test_lag_profile_and_description_by_hand(tmp_path: Path) -> None:
    angles = np.deg2rad([0, 30, 60, 90, 45, 45])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [2], [3], [4], [5], [6]])
    mapped = corpus(tmp_path / "x.safetensors", rows.astype(np.float32), [4, 2])
    profile = lag_profile(mapped)
    cos = lambda degrees: np.cos(np.deg2rad(degrees))  # noqa: E731
    expected = [(3 * cos(30) + 1) / 4, cos(60), cos(90)]
    np.testing.assert_allclose([value for value in profile if value is not None], expected, atol=1e-6)
    assert profile[3:] == [None] * 7
    found = describe(mapped, 2, 0)
    assert (found.documents, found.vectors, found.windows, found.too_short) == (2, 6, 2, 1)
    unit = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    covariance = np.cov(unit.T, bias=True)
    assert found.anisotropy["mean_norm"] == pytest.approx(np.linalg.norm(unit.mean(axis=0)), abs=1e-6)
    assert found.anisotropy["first_1"] == pytest.approx(
        np.linalg.eigvalsh(covariance)[-1] / np.trace(covariance), abs=1e-6
    )


@pytest.mark.parametrize(("every", "problem"), [(4, True), (200, False)])
def test_a_target_that_stands_in_its_own_context(tmp_path: Path, every: int, problem: bool) -> None:
    """Copies `distance` chunks apart count where the window reaches that far, and not across documents."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((600, 16)).astype(np.float32)
    copies = np.arange(10, 600, every)
    rows[copies] = 3 * rows[copies - 2]
    offsets = np.arange(0, 601, 30)
    path = tmp_path / "c.safetensors"
    write_corpus(path, rows, offsets, [f"d{k}" for k in range(20)], EncoderCard(dim=16), {}, "F32")
    corpus = open_corpus(path)
    expected = []
    for document in range(20):
        for target in range(30 * document + 5, 30 * document + 30):
            context = rows[target - 5 : target]
            cosines = context @ rows[target] / np.linalg.norm(context, axis=1) / np.linalg.norm(rows[target])
            if cosines.max() > 0.9999:
                expected.append(target)
    assert targets_in_context(corpus, 5).tolist() == expected and expected
    assert targets_in_context(corpus, 1).tolist() == []
    found, _ = check(corpus, 5, 0, max_leakage=0.1)
    told = [t for t in (found.problems if problem else found.warnings) if "in their own context" in t]
    assert len(told) == 1 and f"{len(expected)} of 500 windows" in told[0]
