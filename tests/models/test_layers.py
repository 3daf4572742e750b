"""Attention's two products by the BLAS and without it: the same numbers, forward and backward."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mlx_lvm.core.blas import Blas
from mlx_lvm.core.linux_cpu import Tuning
from mlx_lvm.core.mlx import mx
from mlx_lvm.models import layers


@pytest.mark.parametrize("queries", [1, 5])
@pytest.mark.parametrize("by_hand", [True, False])
def test_products_are_those_of_float64(monkeypatch: pytest.MonkeyPatch, by_hand: bool, queries: int) -> None:
    monkeypatch.setattr(layers, "prefer_broadcast", lambda left, right: by_hand)
    rng = np.random.default_rng(queries)
    q, k, v = (rng.standard_normal((3, 2, n, 8)) for n in (queries, 5, 5))
    given = [mx.array(x.astype(np.float32)) for x in (q, k, v)]
    scores = q @ k.swapaxes(-1, -2)
    assert_allclose(np.array(layers.similarity(*given[:2])), scores, atol=1e-5)
    assert_allclose(np.array(layers.mixture(layers.similarity(*given[:2]), given[2])), scores @ v, atol=1e-4)
    slopes = mx.grad(lambda q, k, v: layers.mixture(layers.similarity(q, k), v).sum(), argnums=(0, 1, 2))(
        *given
    )
    ones = np.ones((3, 2, queries, 8))
    of_scores = ones @ v.swapaxes(-1, -2)
    for found, truth in zip(
        slopes, (of_scores @ k, of_scores.swapaxes(-1, -2) @ q, scores.swapaxes(-1, -2) @ ones), strict=True
    ):
        assert_allclose(np.array(found), truth, atol=1e-4)


def test_only_mkl_is_spared_small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = mx.zeros((2, 5, 8)), mx.zeros((2, 7, 8))
    monkeypatch.setattr(layers, "on_cpu", lambda: True)
    for name, spared in (
        ("mkl", True),
        ("libmkl_rt.so.3", True),
        ("openblas", False),
        ("mlx", False),
        ("accelerate", False),
    ):
        monkeypatch.setattr(layers, "tuning", lambda name=name: Tuning(Blas(name)))
        assert layers.prefer_broadcast(few, few) == spared and not layers.prefer_broadcast(few, many)
