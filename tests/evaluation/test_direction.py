"""The offset curve against a loop, and the identity r1 / c on a process whose conditional mean is known."""

import numpy as np
import pytest

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.stats import DocumentBootstrap
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.evaluation.study.direction import direction, explain
from mlx_lvm.metrics import figures
from mlx_lvm.metrics.figures import LAST, OFFSETS, TARGET, offset_cosines
from mlx_lvm.predictors.base import predict_all
from mlx_lvm.predictors.controls import Oracle

from ..helpers import make_corpus

TEST = np.array([4, 7, 9, 13])


def test_offsets_against_a_loop(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "BLOCK", 7)
    found = windows(uneven, TEST, 3)
    predicted = np.random.default_rng(0).standard_normal((len(found), uneven.dim)).astype(np.float32)
    values = offset_cosines(mx.array(predicted), found)
    x = uneven.numpy().astype(np.float64)
    for i, (t, start, d) in enumerate(zip(found.targets, found.starts, found.documents, strict=True)):
        for k, o in enumerate(OFFSETS):
            if start <= t + o < uneven.offsets[d + 1]:
                y = x[t + o]
                assert values[i, k] == pytest.approx(
                    predicted[i] @ y / np.linalg.norm(predicted[i]) / np.linalg.norm(y), abs=2e-6
                )
            else:
                assert np.isnan(values[i, k])


def test_the_oracle_peaks_at_the_target(uneven: Corpus) -> None:
    found = windows(uneven, TEST, 5)
    values = offset_cosines(predict_all(Oracle(), found), found)
    result = direction({"oracle": values}, values[:, LAST], DocumentBootstrap(found.documents, 100))
    assert result.curves["oracle"].peak == 0
    assert result.curves["oracle"].values[TARGET] == pytest.approx(1, abs=1e-6)
    assert result.windows == sum(
        t + 4 < uneven.offsets[d + 1] for t, d in zip(found.targets, found.documents, strict=True)
    )
    assert result.r1 == pytest.approx(values[:, LAST].mean())


def test_the_conditional_mean_leans_on_the_last_chunk_as_the_identity_says() -> None:
    """x_t = a x_{t-1} + sqrt(1 - a^2) noise in many dimensions: unit vectors up to rounding, E[x_t | past] =
    a x_{t-1}. Then r1 = a, c = a and cos(p, last) = 1 = r1 / c: a perfect predictor whose margin is negative.
    """
    generator, a = np.random.default_rng(1), 0.6
    dim, length = 2048, 400
    rows = [generator.standard_normal(dim) / np.sqrt(dim)]
    for _ in range(length - 1):
        rows.append(a * rows[-1] + np.sqrt(1 - a * a) * generator.standard_normal(dim) / np.sqrt(dim))
    corpus = make_corpus(np.array(rows), [length])
    found = windows(corpus, np.array([0]), 5)
    truth, conditional = (
        offset_cosines(found.truth(), found),
        offset_cosines(a * found.contexts()[:, -1], found),
    )
    every = DocumentBootstrap(found.documents, 50)
    one = direction({"p": conditional, "oracle": truth}, truth[:, LAST], every).identity["p"]
    assert one.cosine == pytest.approx(a, abs=0.01)
    assert one.r1_over_c == pytest.approx(1, abs=1e-6) and one.to_last == pytest.approx(1, abs=1e-6)
    assert one.margin == pytest.approx(a - 1, abs=0.01) and one.margin == pytest.approx(
        one.margin_of_conditional_mean, abs=1e-6
    )


def test_the_sentence_has_the_numbers(uneven: Corpus) -> None:
    found = windows(uneven, TEST, 5)
    truth = offset_cosines(found.truth(), found)
    result = direction({"oracle": truth}, truth[:, LAST], DocumentBootstrap(found.documents, 50))
    assert f"r1 = {truth[:, LAST].mean():.4f}" in explain(result, "oracle")
    assert f"sqrt(r1) = {np.sqrt(truth[:, LAST].mean()):.4f}" in explain(result, "oracle")
    assert "oracle leans on the last chunk about as much as such a mean would" in explain(
        result, "oracle"
    )  # r1 / 1 = r1


def test_documents_too_short_for_the_curve(uneven: Corpus) -> None:
    found = windows(uneven, np.array([3]), 5)  # one window at the end of its document
    truth = offset_cosines(found.truth(), found)
    result = direction({"oracle": truth}, truth[:, LAST], DocumentBootstrap(found.documents, 50))
    assert result.windows == 0 and result.curves == {}
    assert explain(result, "oracle") == "No window has chunks at every offset."
