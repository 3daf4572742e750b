"""GELU and softmax forward, for many float32 on a CPU, in as few passes over memory as MLX's compiler allows.

MLX's own take one exponential or error function after the other from the C library. `core.activations` has
functions that are right to their last digit where a gate is shut and that can be differentiated; an encoder
is not trained here, and torch's GELU, x (1 + erf(x / sqrt(2))) / 2 in float32, is not right to the last digit
there either. So Phi(x) - 1/2 is one ratio of polynomials: two passes in place of seven. Its error is that of
torch's own (rms 1.1e-7 over -9..9, torch's 1.4e-7).
"""

from __future__ import annotations

import math

from mlx_lvm.core.activations import EXP, LOG2_HIGH, LOG2_LOW, apart, polynomial
from mlx_lvm.core.mlx import mx

# (Phi(x) - 1/2) / x as a ratio of polynomials in x^2 for |x| <= EDGE, where Phi is 1 to float32's last digit;
# relative error 2e-9.
OVER = (
    0.39894228116937736,
    0.03273503986944771,
    0.00479806713618667,
    0.00016991533394917696,
    8.359243334603954e-06,
    5.1375378476849006e-08,
    -7.191407919231972e-11,
)
UNDER = (
    1.0,
    0.24872128162942864,
    0.028480391791423924,
    0.0019309671228370363,
    8.155140035314097e-05,
    1.9619460791637473e-06,
)
EDGE = 5.5
SHUT = -88.0  # its exponential, and that of all below it, is zero here


@mx.compile
def gelu(x: mx.array) -> mx.array:
    """x Phi(x), float32. Past -EDGE it is 0."""
    inside = mx.square(mx.clip(x, -EDGE, EDGE))
    ratio = apart(polynomial(OVER, inside) / polynomial(UNDER, inside))
    # These constants lie past the edge so far that Phi is exactly 0 there. They must differ from those before
    # the cut: one used on both sides of it makes a strided kernel.
    return mx.maximum(x, -5.500001) * (mx.clip(x, -5.5000005, 5.5000005) * ratio + 0.5)


@mx.compile
def exp_below_zero(x: mx.array) -> mx.array:
    """exp(x) for x <= 0, float32, to a relative 1e-7: 2^n exp(r), with n whole. exp(-inf) is exactly 0."""
    inside = mx.maximum(x, SHUT)
    n = mx.round(inside * math.log2(math.e))
    r = apart((inside - n * LOG2_HIGH) - n * LOG2_LOW)
    again = mx.round(mx.maximum(x, SHUT) * math.log2(math.e))  # cheaper than a pass that stores n
    power = mx.view(apart((again.astype(mx.int32) + 127) << 23), mx.float32)  # bits of 2^n
    return apart((polynomial(EXP, r) * (r * r) + (r + 1)) * power)


def attention(scores: mx.array, values: mx.array) -> mx.array:
    """softmax(scores) @ values: [..., queries, keys], [..., keys, d] -> [..., queries, d]. A row of scores
    has a finite one.
    """
    weights = exp_below_zero(scores - scores.max(axis=-1, keepdims=True))
    return (weights @ values) / weights.sum(axis=-1, keepdims=True)
