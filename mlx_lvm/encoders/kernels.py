"""GELU, attention and norms forward, for many float32 on a CPU, in as few passes over memory as MLX allows.

MLX's own take one exponential or error function after the other from the C library. `core.activations` has
functions that are right to their last digit where a gate is shut and that can be differentiated; an encoder
is not trained here, and torch's GELU, x (1 + erf(x / sqrt(2))) / 2 in float32, is not right to the last digit
there either. So Phi(x) - 1/2 is one ratio of polynomials: two passes in place of seven. Its error is that of
torch's own (rms 1.1e-7 over -9..9, torch's 1.4e-7).
"""

from __future__ import annotations

import math

from mlx_lvm.core.activations import kernel_boundary, polynomial
from mlx_lvm.core.mlx import mx

# (Phi(x) - 1/2) / x as a ratio of polynomials in x^2 for |x| <= EDGE, where Phi is 1 to float32's last digit;
# relative error 2e-9.
OVER = (
    0.398942281,
    0.0327350399,
    0.00479806714,
    0.000169915334,
    8.35924333e-06,
    5.13753785e-08,
    -7.19140792e-11,
)
UNDER = (1.0, 0.248721282, 0.0284803918, 0.00193096712, 8.15514004e-05, 1.96194608e-06)
EDGE = 5.5
SHUT = -84.5  # its exponential, and that of all below it, is zero here
# 2^f for |f| <= 1/2, to a relative 2e-9: interpolated at Chebyshev's points
EXP2 = (1.0, 0.6931472067, 0.2402265092, 0.05550327227, 0.009618056678, 0.001340042818, 0.0001546144472)


@mx.compile
def gelu(x: mx.array) -> mx.array:
    """x Phi(x), float32. Past -EDGE it is 0."""
    inside = mx.square(mx.clip(x, -EDGE, EDGE))
    ratio = kernel_boundary(polynomial(OVER, inside) / polynomial(UNDER, inside))
    # These constants lie past the edge so far that Phi is exactly 0 there. They must differ from those before
    # the cut: one used on both sides of it makes a strided kernel.
    return mx.maximum(x, -5.500001) * (mx.clip(x, -5.5000005, 5.5000005) * ratio + 0.5)


@mx.compile
def exp_below_zero(x: mx.array) -> mx.array:
    """exp(x) for x <= 0, float32, to a relative (4 + 2 |x|) 2^-24: 2^n 2^f, n whole. exp(-inf) is exactly 0.

    One kernel: no bits are looked at as a number, which MLX does not fuse, and it is 11 operations deep.
    Halves are multiplied to 2^-n by shifts, of at most 30 places.
    """
    y = mx.maximum(x, SHUT) * math.log2(math.e)
    n = mx.round(y)
    places = mx.negative(n).astype(mx.int32)
    quarter, rest = (mx.left_shift(1, p).astype(mx.float32) for p in (places >> 2, places & 3))
    # between two constants: a choice of what must be computed would branch
    here = mx.where(x < SHUT, 0.0, 1.0)
    return polynomial(EXP2, y - n) * here / (mx.square(mx.square(quarter)) * rest)


def attention(q: mx.array, k: mx.array, v: mx.array, scale: float, bias: mx.array) -> mx.array:
    """softmax(scale q k^T + bias) v: q, k, v [batch, heads, length, d]. Every row has a finite score.

    A key's scores lie in a row: MLX reduces along columns with vectors, along a row number by number.
    """
    scores = k @ (q if scale == 1 else q * scale).swapaxes(-1, -2) + bias.swapaxes(-1, -2)
    weights = exp_below_zero(scores - scores.max(axis=-2, keepdims=True))
    return (weights.swapaxes(-1, -2) @ v) / weights.sum(axis=-2, keepdims=True).swapaxes(-1, -2)


def layer_norm(x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
    """(x - mean) / sqrt(variance + eps) weight + bias over the last axis."""
    centred = x - mean(x)
    return centred * mx.rsqrt(mean(mx.square(centred)) + eps) * weight + bias


def rms_norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    """x / sqrt(mean of squares + eps) weight over the last axis."""
    return x * mx.rsqrt(mean(mx.square(x)) + eps) * weight


def mean(x: mx.array) -> mx.array:
    """Over the last axis, which stays. The BLAS adds with vectors; MLX adds one number after the other."""
    return x @ mx.ones((x.shape[-1], 1)) / x.shape[-1]
