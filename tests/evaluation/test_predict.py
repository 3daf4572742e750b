"""The next chunk: neighbours, truth and rank against plain NumPy."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import UsageError
from mlx_lvm.evaluation import predict as predicting
from mlx_lvm.evaluation.baselines import ContextMean, fit_lag_filter
from mlx_lvm.evaluation.predict import predict


def test_neighbours_and_truth(uneven: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predicting, "BLOCK", 50)
    x = uneven.numpy().astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    start = int(uneven.offsets[5])
    result = predict(ContextMean(), uneven, 5, 9, context=4, top=3)
    raw = uneven.numpy(np.arange(start + 5, start + 9)).astype(np.float64).mean(axis=0)
    scores = x @ raw / np.linalg.norm(raw)
    assert_allclose(result["steps"][0]["vector"], raw / np.linalg.norm(raw), atol=1e-6)
    scores[start + 5 : start + 9] = -2
    order = np.argsort(-scores)
    found = result["steps"][0]["nearest"]
    assert_allclose([one["score"] for one in found], scores[order[:3]], atol=1e-6)
    documents = uneven.document_of(order[:3])
    assert [(one["document"], one["chunk"]) for one in found] == [
        (uneven.names[d], int(row - uneven.offsets[d])) for d, row in zip(documents, order[:3], strict=True)
    ]
    truth = result["steps"][0]["truth"]
    assert (truth["chunk"], truth["rank"]) == (9, int((scores > scores[start + 9]).sum()) + 1)
    assert result["candidates"] == len(uneven) - 4 and [one["chunk"] for one in result["context"]] == [5, 6, 7, 8]


def test_behind_the_last_chunk_there_is_no_truth(uneven: Corpus) -> None:
    fitted = fit_lag_filter(uneven, np.array([0, 2, 10]), 5)
    result = predict(fitted, uneven, 7, None, 5, steps=3)
    assert result["at"] == 23 and [("truth" in step, len(step["nearest"])) for step in result["steps"]] == [(False, 5)] * 3
    nearly = predict(fitted, uneven, 7, 21, 5, steps=3)
    assert ["truth" in step for step in nearly["steps"]] == [True, True, False]


def test_what_cannot_be_predicted(uneven: Corpus) -> None:
    with pytest.raises(UsageError, match="--at 3: document 'document 5' has 40 chunks; chunks 5 to 40"):
        predict(ContextMean(), uneven, 5, 3, 5)
    with pytest.raises(UsageError, match="--at 41"):
        predict(ContextMean(), uneven, 5, 41, 5)
    with pytest.raises(UsageError, match="'document 1' has 4 chunks; a context of 5"):
        predict(ContextMean(), uneven, 1, None, 5)
