"""Conformal sets over documents: a hand-worked case, the promise kept on exchangeable documents, and broken
without its correction.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.stats import conformal_thresholds


def test_by_hand() -> None:
    """Three documents weigh 1/4 each: of four, two and one windows, so 1/16, 1/8 and 1/4 a window; a last 1/4
    is infinite.
    """
    scores = np.array([1.0, 3, 5, 7, 2, 6, 4])
    documents = np.array([8, 8, 8, 8, 2, 2, 5])
    # Weight up to 1: 1/16, 2: 3/16, 3: 4/16, 4: 8/16, 5: 9/16, 6: 11/16, 7: 12/16.
    found = conformal_thresholds(
        scores, documents, (1 / 16, 0.1, 3 / 16, 0.3, 0.5, 0.51, 0.6, 0.7, 0.75, 0.76)
    )
    assert_allclose(found, [1, 2, 2, 4, 4, 5, 6, 7, 7, np.inf])


def test_too_few_documents_promise_nothing() -> None:
    scores = np.arange(80.0)
    assert conformal_thresholds(scores, np.repeat(np.arange(8), 10), (0.9,)) == [np.inf]
    assert np.isfinite(conformal_thresholds(np.arange(90.0), np.repeat(np.arange(9), 10), (0.9,))[0])


def documents_of(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents of different lengths whose windows have much in common."""
    lengths = generator.integers(1, 30, count)
    level = np.repeat(generator.normal(0, 1, count), lengths)
    return level + generator.normal(0, 0.5, len(level)), np.repeat(np.arange(count), lengths)


@pytest.mark.slow
@pytest.mark.parametrize("count", [9, 12, 23])
def test_the_promise_is_kept_and_needs_its_correction(count: int) -> None:
    """A window of a new document lies under the threshold at least as often as promised, over 4,000 draws of
    everything.
    """
    generator, draws, coverage = np.random.default_rng(count), 4000, 0.9
    held, naive, over_windows = 0, 0, 0
    for _ in range(draws):
        scores, documents = documents_of(generator, count)
        new, _ = documents_of(generator, 1)
        one = generator.choice(new)
        held += one <= conformal_thresholds(scores, documents, (coverage,))[0]
        naive += (
            one <= conformal_thresholds(scores, documents, (coverage * count / (count + 1),))[0]
        )  # each document weighs 1 / D
        over_windows += one <= np.quantile(scores, coverage)
    bound = coverage - 3 * np.sqrt(coverage * (1 - coverage) / draws)
    assert held / draws > bound
    assert held / draws < coverage + 1 / (count + 1) + 0.03  # and no more than the correction costs
    if count < 20:  # the correction is small for many documents
        assert naive / draws < bound and over_windows / draws < bound
