"""The figures published with the vectors of `sotu`, measured by others on another split, to three
decimals.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import Windows, windows
from mlx_lvm.metrics.figures import window_figures
from mlx_lvm.metrics.retrieval import Pool, build_pool, rank_figures, ranks
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.baselines import ContextMean, DocumentSoFar, Last, Recency
from mlx_lvm.predictors.lags import filter_sums
from mlx_lvm.predictors.ridge import ridge_system

# cosine, centred cosine, R@1, R@5, MRR
PUBLISHED = {
    "last": (0.5956, 0.4231, 0.138, 0.310, 0.2239),
    "mean": (0.6254, 0.4033, 0.042, 0.150, 0.1034),
    "recency": (0.6465, 0.4431, 0.078, 0.222, 0.1552),
    "document-so-far": (0.5843, 0.2478, 0.004, 0.022, 0.0189),
    "lag-filter": (0.6681, 0.4239, 0.066, 0.193, 0.1348),
    "lag-filter-centroid": (0.6713, 0.4307, 0.062, 0.187, 0.1306),
    "ridge": (0.6765, 0.4366, 0.031, 0.105, 0.0773),
}


@pytest.fixture(scope="module")
def split(sotu: Corpus) -> tuple[np.ndarray, Windows, Pool]:
    order = np.random.RandomState(1).permutation(len(sotu.names))
    test, train = windows(sotu, np.sort(order[:46]), 5), order[69:]
    assert (len(windows(sotu, train, 5)), len(windows(sotu, order[46:69], 5)), len(test)) == (
        11399,
        1733,
        3298,
    )
    return np.sort(train), test, build_pool(test, test.targets.astype(np.int64))


@pytest.mark.slow
def test_published_figures(sotu: Corpus, split: tuple[np.ndarray, Windows, Pool]) -> None:
    train, test, pool = split
    sums = filter_sums(sotu, train, 12, 5)
    filters = [sums.filter(5), sums.filter(12, centroid=True)]
    ridge = ridge_system(sotu, train, 5, 5).solve(30.0)
    forms = [Last(), ContextMean(), Recency(0.7), DocumentSoFar(), *filters, ridge]
    assert [form.name for form in forms] == [*PUBLISHED]
    mean = sotu.numpy(windows(sotu, train, 5).targets).mean(axis=0)
    for form in forms:
        predicted, name = predict_all(form, test), form.name
        figures = {
            **vars(window_figures(predicted, test, mean)),
            **vars(rank_figures(ranks(pool, predicted), pool)),
        }
        measured = [
            figures[key].mean() for key in ("cosine", "centred_cosine", "recall_at_1", "recall_at_5", "mrr")
        ]
        # Theirs are float16 vectors, ours I8: some of 3,298 windows change their rank by one.
        assert_allclose(measured, PUBLISHED[name], atol=1.6e-3, err_msg=name)
        assert_allclose(measured[:2], PUBLISHED[name][:2], atol=5e-4, err_msg=name)


def test_published_retrieval_of_the_centred_last_chunk(
    sotu: Corpus, split: tuple[np.ndarray, Windows, Pool]
) -> None:
    """Centring takes the last chunk from MRR 0.224 to 0.235. That was 0.6 of the mean and inner products,
    under which the truth itself may lose to another chunk; with cosines, under which it cannot, the whole
    mean does the same.
    """
    train, test, pool = split
    mean = sotu.numpy(windows(sotu, train, 5).targets).mean(axis=0)
    assert (1 / ranks(pool, predict_all(Last(), test), mean, 1.0)).mean() == pytest.approx(0.235, abs=1.5e-3)
