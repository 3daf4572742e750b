"""Bootstrap against a plain resampling of documents, its coverage, and Holm's adjustment by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.stats import Difference, DocumentBootstrap, holm, intervals


def made(seed: int, documents: int = 30, effect: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(documents [n], figures [n]) with as much spread between documents as within them."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(3, 30, documents)
    return np.repeat(np.arange(documents) * 7, sizes), effect + np.repeat(
        generator.normal(0, 1, documents), sizes
    ) + generator.normal(0, 1, sizes.sum())


def test_means_against_plain_resampling() -> None:
    """The same draws, each resample written out as the windows of its documents."""
    documents, figures = made(0, documents=8)
    bootstrap = DocumentBootstrap(documents, resamples=50, seed=3)
    draws = np.random.default_rng(3).multinomial(8, np.full(8, 1 / 8), size=50)
    names = np.unique(documents)
    plain = [
        np.concatenate([np.tile(figures[documents == names[d]], times) for d, times in enumerate(row)]).mean()
        for row in draws
    ]
    assert_allclose(bootstrap.means(figures[:, None])[:, 0], plain, rtol=1e-12)
    assert bootstrap.count == 8


def test_interval_has_the_spread_of_documents_not_of_windows() -> None:
    documents, figures = made(1, documents=200)
    found = DocumentBootstrap(documents, 4000).interval(figures)
    sums, sizes = (
        np.array([f(figures[documents == d]) for d in np.unique(documents)]) for f in (np.sum, len)
    )
    # Standard error of a ratio of sums over documents (linearised).
    error = np.sqrt(((sums - figures.mean() * sizes) ** 2).sum()) / sizes.sum()
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.06)
    naive = figures.std() / np.sqrt(len(figures))
    assert (found.high - found.low) / 2 > 2 * 1.96 * naive


def test_coverage() -> None:
    """95% intervals of 30 documents hold the true mean in about 95 of 100 worlds (percentile intervals: a
    little less).
    """
    inside = 0
    for seed in range(300):
        documents, figures = made(seed)
        found = DocumentBootstrap(documents, 400).interval(figures)
        inside += found.low <= 0 <= found.high
    assert 0.89 <= inside / 300 <= 0.98


def test_differences_are_paired_and_the_seed_decides() -> None:
    documents, figures = made(2)
    bootstrap = DocumentBootstrap(documents, 500)
    both = bootstrap.means(np.stack([figures, figures + 0.01], axis=1))
    assert_allclose(both[:, 1] - both[:, 0], 0.01, rtol=1e-9)
    [found] = intervals(np.array([0.01]), (both[:, 1] - both[:, 0])[:, None], 30)
    assert found.low == pytest.approx(0.01) and found.p == pytest.approx(2 / 501)
    assert_allclose(DocumentBootstrap(documents, 500).means(figures[:, None]), both[:, :1], rtol=1e-9)
    assert abs(DocumentBootstrap(documents, 500, seed=1).means(figures[:, None]) - both[:, :1]).max() > 1e-3


def test_p_value_of_no_effect_is_not_small_and_one_document_says_nothing() -> None:
    documents, figures = made(4)
    found = DocumentBootstrap(documents, 1000).interval(figures - figures.mean())
    assert found.p > 0.5
    alone = DocumentBootstrap(np.zeros(5, int)).interval(np.arange(5.0))
    assert (alone.value, alone.low, alone.high, alone.p) == (2.0, -np.inf, np.inf, 1.0)


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert_allclose([adjusted[name] for name in "abcd"], [0.03, 0.06, 0.06, 0.02])
    assert holm({"a": 0.9, "b": 0.6}) == {"a": 1.0, "b": 1.0}


def test_a_difference_is_paired_and_says_on_which_side_of_zero_it_lies() -> None:
    documents, figures = made(5)
    noise = np.random.default_rng(6).normal(0, 0.1, len(figures))
    better = DocumentBootstrap(documents, 500).difference(figures + 0.2 + noise, "last", figures)
    assert (better.baseline, better.outcome) == ("last", "better")
    assert better.value == pytest.approx(0.2 + noise.mean()) and better.low > 0.1
    assert better.to_dict() == {
        **{"closed_form": "last", "difference": better.value},
        **{"ci": [better.low, better.high], "p": better.p},
    }
    assert Difference(-0.2, -0.3, -0.1, 0.01, "last").outcome == "worse"
    assert Difference(0.1, -0.1, 0.3, 0.4, "last").outcome == "not distinguishable"
    assert Difference(0.1, -np.inf, np.inf, 1.0, "last").outcome == "not distinguishable"
