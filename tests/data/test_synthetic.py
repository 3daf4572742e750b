"""The process against what it says of itself, and its optimum against least squares and the lag filter."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlx_lvm.data.corpus import Corpus, load_corpus
from mlx_lvm.data.ingest.synthetic import MARK, Process
from mlx_lvm.data.ingest.transform import synthesise
from mlx_lvm.data.splits import split_corpus
from mlx_lvm.data.storage.reader import open_corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.errors import UsageError
from mlx_lvm.predictors.lags import fit_lag_filter

PROCESS = Process(documents=400, least=30, most=50, dim=12, seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("synthetic") / "s.safetensors"
    synthesise(PROCESS, path)
    return load_corpus(path)


def test_covariances_are_those_of_the_formula(corpus: Corpus) -> None:
    inside = PROCESS.unrotate(corpus.numpy().astype(np.float64) - PROCESS._fixed[0])
    topic, drift, noise, rho = PROCESS.spectrum
    starts = corpus.offsets[:-1]
    for lag in (0, 1, 4):
        pairs = np.concatenate(
            [np.arange(a + lag, b) for a, b in zip(starts, corpus.offsets[1:], strict=True)]
        )
        measured = (inside[pairs] * inside[pairs - lag]).mean(axis=0)
        expected = topic + drift * rho**lag + (noise if lag == 0 else 0)
        np.testing.assert_allclose(measured, expected, atol=0.12 * PROCESS.covariance(np.zeros(1, int)).max())
        assert measured.sum() == pytest.approx(expected.sum(), rel=0.05)
    assert PROCESS.covariance(np.zeros(1, int)).sum() == pytest.approx(1)


def test_rotation_is_orthogonal() -> None:
    square = PROCESS.rotate(np.eye(12))
    np.testing.assert_allclose(square @ square.T, np.eye(12), atol=1e-12)
    np.testing.assert_allclose(PROCESS.unrotate(square), np.eye(12), atol=1e-12)
    assert np.abs(square - np.eye(12)).max() > 0.3


def test_no_linear_predictor_does_better(corpus: Corpus) -> None:
    """Least squares over all windows, on other windows than it was fitted on, approaches the optimum from
    above.
    """
    split = split_corpus(corpus, 0)
    fit, held = windows(corpus, split.train, 5), windows(corpus, split.test, 5)
    x, y = np.array(held.contexts()), np.array(held.truth())
    best = ((PROCESS.predict(x) - y) ** 2).sum(axis=1)
    assert best.mean() == pytest.approx(PROCESS.least_error(5), abs=4 * best.std() / np.sqrt(len(best) / 5))
    a = np.concatenate([np.array(fit.contexts()).reshape(len(fit), -1), np.ones((len(fit), 1))], axis=1)
    weights, *_ = np.linalg.lstsq(a.astype(np.float64), np.array(fit.truth()), rcond=None)
    explicit = (
        (np.concatenate([x.reshape(len(x), -1), np.ones((len(x), 1))], axis=1) @ weights - y) ** 2
    ).sum(axis=1)
    assert best.mean() < explicit.mean() < 1.02 * best.mean()
    scalars = fit_lag_filter(corpus, split.train, 5)
    lag_filter = ((np.array(scalars.predict(held)) - y) ** 2).sum(axis=1)
    assert 1.001 * best.mean() < lag_filter.mean()


def test_the_corpus_names_its_process(corpus: Corpus) -> None:
    said = json.loads(corpus.provenance["source"].removeprefix(MARK))
    assert Process.from_dict(said) == PROCESS
    with pytest.raises(UsageError, match=r"topic \+ drift"):
        Process(topic=0.8, drift=0.5)


def test_shards_hold_the_same_rows(corpus: Corpus, tmp_path: Path) -> None:
    synthesise(PROCESS, tmp_path / "s", shard_bytes=100_000)
    mapped = open_corpus(tmp_path / "s")
    assert len(mapped.shards) > 5
    np.testing.assert_array_equal(mapped.read(0, len(mapped)), corpus.numpy())
