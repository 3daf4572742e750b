"""The CPU's GELU and softmax against float64, where values are ordinary and where they are not."""

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.encoders import kernels


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_gelu_errs_no_more_than_torch() -> None:
    x = np.linspace(-9, 9, 200_001).astype(np.float32)
    truth = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    ours = np.array(kernels.gelu(mx.array(x))) - truth
    theirs = torch.nn.functional.gelu(torch.from_numpy(x)).numpy() - truth
    assert rms(ours) < 1.2 * rms(theirs) and np.abs(ours).max() < 1.5 * np.abs(theirs).max()


def test_gelu_of_extremes() -> None:
    x = np.tile(np.array([0, 1e-30, -1e-30, 1e4, -1e4, 3e38, -3e38, 5.6, -5.6], np.float32), 200)
    truth = np.where(x > 0, x, 0) + np.where(np.abs(x) < 1, x * 0.5 - np.where(x > 0, x, 0), 0)
    found = np.array(kernels.gelu(mx.array(x)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=2e-6)


def test_exponential_below_zero() -> None:
    x = -np.geomspace(1e-8, 87, 20_000).astype(np.float32)
    found = np.array(kernels.exp_below_zero(mx.array(x)))
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=1.5e-7)
    shut = kernels.exp_below_zero(mx.full((2000,), -mx.inf))
    assert not np.array(shut).any()


def test_attention_looks_past_what_is_shut() -> None:
    draw = np.random.default_rng(0)
    scores, values = draw.standard_normal((2, 3, 16, 40)) * 20, draw.standard_normal((2, 3, 40, 8))
    scores[:, :, :, 30:] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    truth = (weights / weights.sum(-1, keepdims=True)) @ values
    values[:, :, 30:] = 1e30  # must not be seen
    found = np.array(
        kernels.attention(mx.array(scores.astype(np.float32)), mx.array(values.astype(np.float32)))
    )
    np.testing.assert_allclose(found, truth, atol=3e-6)
