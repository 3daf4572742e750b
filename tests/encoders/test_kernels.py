"""The CPU's GELU and softmax against float64, where values are ordinary and where they are not."""

from functools import partial

import numpy as np
import pytest
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.encoders import kernels

GELU_RMS = 1.25e-7  # over -9..9: between torch's own with AVX2, 0.9e-7, and with AVX-512, 1.4e-7


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_gelu_errs_no_more_than_torch() -> None:
    """Held to fixed figures: torch's own differ from one processor to another."""
    x = np.linspace(-9, 9, 200_001).astype(np.float32)
    truth = torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()
    ours = np.array(kernels.gelu(mx.array(x))) - truth
    assert rms(ours) < GELU_RMS and np.abs(ours).max() <= 2.0**-20  # which is one digit of 8 to 16


def test_gelu_of_extremes() -> None:
    x = np.tile(np.array([0, 1e-30, -1e-30, 1e4, -1e4, 3e38, -3e38, 5.6, -5.6], np.float32), 200)
    truth = np.where(x > 0, x, 0) + np.where(np.abs(x) < 1, x * 0.5 - np.where(x > 0, x, 0), 0)
    found = np.array(kernels.gelu(mx.array(x)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=2e-6)


def test_exponential_below_zero() -> None:
    x = -np.geomspace(1e-8, -kernels.SHUT, 20_000).astype(np.float32)
    truth = np.exp(x.astype(np.float64))
    found = np.array(kernels.exp_below_zero(mx.array(x)))
    assert (np.abs(found - truth) <= (4 - 2 * x) * 2.0**-24 * truth).all()
    for shut in (-mx.inf, -3e38, 1.001 * kernels.SHUT):
        assert not np.array(kernels.exp_below_zero(mx.full((2000,), shut))).any()


def test_attention_looks_past_what_is_shut() -> None:
    draw = np.random.default_rng(0)
    q, k, v = draw.standard_normal((3, 2, 3, 40, 8))
    bias = draw.standard_normal((1, 3, 40, 40)) + np.where(np.arange(40) < 30, 0, -np.inf)
    scores = q @ k.swapaxes(-1, -2) * 0.3 + bias
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    truth = (weights / weights.sum(-1, keepdims=True)) @ v
    v[:, :, 30:] = 1e30  # must not be seen
    found = kernels.attention(*(mx.array(x.astype(np.float32)) for x in (q, k, v)), 0.3, mx.array(bias))
    np.testing.assert_allclose(np.array(found), truth, atol=5e-6)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_norms_err_no_more_than_their_inputs(offset: float) -> None:
    draw = np.random.default_rng(0)
    x = (draw.standard_normal((50, 384)) + offset).astype(np.float32)
    w, b = draw.standard_normal((2, 384)).astype(np.float32)
    layer = partial(torch.nn.functional.layer_norm, normalized_shape=(384,), eps=1e-12)
    truth = layer(
        *(torch.from_numpy(a).double() for a in (x,)),
        weight=torch.from_numpy(w).double(),
        bias=torch.from_numpy(b).double(),
    ).numpy()
    ours = np.array(kernels.layer_norm(mx.array(x), mx.array(w), mx.array(b), 1e-12))
    assert rms(ours - truth) < (1 + offset) * 2.0**-23  # what the inputs themselves are rounded to
    wide = x.astype(np.float64)
    truth = wide / np.sqrt(np.square(wide).mean(-1, keepdims=True) + 1e-6) * w
    np.testing.assert_allclose(np.array(kernels.rms_norm(mx.array(x), mx.array(w), 1e-6)), truth, rtol=5e-7)
