"""sigmoid, tanh and GELU: MLX's own, but on a Linux CPU, where MLX calls the C library number by number.

There, for many float32, they are made of one exponential, and that of polynomials, which a compiler turns
into vector instructions: a tenth of the time. Value and slope are right to their own last digits, also where
a gate is shut, and nothing differentiates a polynomial. `python benchmarks/functions.py` fits coefficients.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mlx_lvm.core.mlx import mx, nn


def tanh(x: mx.array) -> mx.array:
    return fast_tanh(x) if scalar_library(x) else mx.tanh(x)


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + exp(-x))."""
    return fast_sigmoid(x) if scalar_library(x) else mx.sigmoid(x)


def gelu(x: mx.array) -> mx.array:
    """x Phi(x) = x (1 + erf(x / sqrt(2))) / 2, exact, as `torch.nn.GELU()` (Hendrycks & Gimpel 2016)."""
    return fast_gelu(x) if scalar_library(x) else nn.gelu(x)


class GELU(nn.Module):
    """`gelu` as a layer."""

    def __call__(self, x: mx.array) -> mx.array:
        return gelu(x)


LINUX = sys.platform == "linux"  # MLX's kernels for a Mac's CPU compute these functions on vectors
# Numbers from which on a dozen vectorised kernels beat one call of the C library for each. Alone they do from
# 1,024 on, among the operations of a small model, which Python's thread hands over, from twice as many.
MANY = 2048


def on_cpu() -> bool:
    return mx.default_device() == mx.Device(mx.cpu)


def scalar_library(x: mx.array) -> bool:
    """Whether MLX would compute functions of `x` number by number, and that costs more than our kernels."""
    return LINUX and x.dtype == mx.float32 and x.size >= MANY and on_cpu()


def kernel_boundary(x: mx.array) -> mx.array:
    """`x`; on a Linux CPU computed in a kernel that ends with it.

    Left to itself, MLX cuts where an expression is deep, and a constant that is used on both sides of a cut
    makes the later kernel a strided one, four times as slow. So functions here say where their kernels end.
    """
    return mx.contiguous(x) if LINUX and on_cpu() else x


def polynomial(coefficients: Sequence[float], x: mx.array) -> mx.array:
    """Of these coefficients, from the constant upwards; pairwise (Estrin), less deep than Horner's way."""
    terms: list[Any] = list(coefficients)
    while len(terms) > 1:
        pairs = [high * x + low for low, high in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
        x = x * x
    return terms[0]


# (exp(r) - 1 - r) / r^2 for r within half of log(2) about zero, and (1 - Phi(x)) / exp(-x^2 / 2) for 0 <= x
# <= 13.3 as a ratio.
EXP = (0.499999934, 0.166665201, 0.0416683944, 0.00836878122, 0.00138144591)
MILLS = (
    (0.5, 0.435673977, 0.181297202, 0.0399808337, 0.00401966348),
    (1.0, 1.66923287, 1.19444541, 0.46435501, 0.100224472, 0.0100756589),
)
# log(2) in two parts; whole multiples of the first are exact
LOG2_HIGH, LOG2_LOW = (0.693359375, -2.12194440e-4)
TO_WHOLE = 1.5 * 2.0**23  # added to a small float32, it leaves the nearest whole number in the last bits
BIAS = 127 << 23  # float32 holds 2^n as the bits (n + 127) << 23
LOWEST = -88.0  # whose exponential is below the smallest normal number, and zero here
REACH = 13.3
DENSITY = 1 / math.sqrt(2 * math.pi)


def exp_in_parts(x: mx.array) -> tuple[mx.array, mx.array]:
    """2^n and 2^n (exp(r) - 1), whose sum is exp(x), for x <= 0: n whole, r within half of log(2) about 0."""
    x = kernel_boundary(mx.maximum(x, LOWEST))
    raised = kernel_boundary(x * math.log2(math.e) + TO_WHOLE)
    power = mx.view(kernel_boundary((mx.view(raised, mx.int32) << 23) + BIAS), mx.float32)
    n = raised - TO_WHOLE
    r = kernel_boundary((x - n * LOG2_HIGH) - n * LOG2_LOW)
    return power, power * (polynomial(EXP, r) * (r * r) + r)


def with_slope(function: Callable[[mx.array], tuple[mx.array, mx.array]]) -> Callable[[mx.array], mx.array]:
    """Of a function that gives its value and its derivative, the value, differentiated by that derivative."""
    both: Any = mx.custom_function(function)
    both.vjp(lambda x, cotangents, outputs: cotangents[0] * outputs[1])

    return lambda x: both(kernel_boundary(x))[0]


@with_slope
def fast_tanh(x: mx.array) -> tuple[mx.array, mx.array]:
    power, rest = exp_in_parts(mx.abs(x) * -2)
    # exp(-2 |x|), and that minus 1: each to its last digits
    e, less = kernel_boundary(power + rest), kernel_boundary((power - 1) + rest)
    return mx.where(x < 0, less, -less) / (1 + e), e * 4 / mx.square(1 + e)


@with_slope
def fast_sigmoid(x: mx.array) -> tuple[mx.array, mx.array]:
    power, rest = exp_in_parts(-mx.abs(x))
    e = kernel_boundary(power + rest)
    return mx.where(x < 0, e, 1.0) / (1 + e), e / mx.square(1 + e)


@with_slope
def fast_gelu(x: mx.array) -> tuple[mx.array, mx.array]:
    size = kernel_boundary(mx.minimum(mx.abs(x), REACH))
    power, rest = exp_in_parts(size * size * -0.5)
    e = kernel_boundary(power + rest)
    tail = kernel_boundary(polynomial(MILLS[0], size) / polynomial(MILLS[1], size) * e)  # Phi(-|x|)
    # choosing between two numbers that must be computed would branch
    phi = kernel_boundary(mx.abs(mx.where(x < 0, 0.0, 1.0) - tail))
    return x * phi, phi + x * e * DENSITY
