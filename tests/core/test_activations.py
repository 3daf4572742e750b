"""The elementary functions that models use on a CPU, against float64."""

from __future__ import annotations

from collections.abc import Callable
from math import erf

import numpy as np
import pytest

from mlx_lvm.core import activations as functions
from mlx_lvm.core.activations import MANY
from mlx_lvm.core.mlx import mx, nn

ERF = np.vectorize(erf)
Function = Callable[[mx.array], mx.array]


def normal_cdf(x: np.ndarray) -> np.ndarray:
    return (1 + ERF(x / np.sqrt(2))) / 2


def logistic(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1 + e)


EXACT = {
    "tanh": (functions.tanh, np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (functions.sigmoid, logistic, lambda x: logistic(x) * logistic(-x)),
    "gelu": (
        functions.gelu,
        lambda x: x * normal_cdf(x),
        lambda x: normal_cdf(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi),
    ),
}
GRID = np.concatenate(
    [np.linspace(-12, 12, 4001), np.linspace(-0.01, 0.01, 401), np.geomspace(1e-30, 1, 200)]
).astype(np.float32)


@pytest.fixture(autouse=True)
def on_cpu() -> object:
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("compiled", [False, True])
def test_value_and_slope_are_those_of_float64(name: str, compiled: bool) -> None:
    function, value, slope = EXACT[name]
    ours: Function = mx.compile(function) if compiled else function
    gradient = mx.grad(lambda x: ours(x).sum())
    x = GRID.astype(np.float64)
    scale = np.maximum(np.abs(x), 1) if name == "gelu" else 1.0
    assert np.max(np.abs(np.array(ours(mx.array(GRID))) - value(x)) / scale) < 2e-7
    assert np.max(np.abs(np.array(gradient(mx.array(GRID))) - slope(x))) < 3e-7


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_digits_are_kept_near_zero(name: str) -> None:
    """A gate that is nearly shut, and a tanh of something small, are right to their own last digits."""
    function, value, _ = EXACT[name]
    x = -np.geomspace(1e-30, 80, 3000).astype(np.float32)
    truth = value(x.astype(np.float64))
    assert np.max(np.abs(np.array(function(mx.array(x))) / truth - 1)) < 4e-7


@pytest.mark.parametrize(
    ("function", "low", "high"), [(functions.tanh, -1.0, 1.0), (functions.sigmoid, 0.0, 1.0)]
)
def test_far_out_the_limits_are_reached_to_the_bit(function: Function, low: float, high: float) -> None:
    far = np.array([100.0, 1e4, 3e38, np.inf] * MANY, np.float32)
    assert set(np.array(function(mx.array(far)))) == {high}
    assert set(np.array(function(mx.array(-far)))) == {low}
    for sign in (1, -1):
        assert set(np.array(mx.grad(lambda x: function(x).sum())(mx.array(sign * far)))) == {0.0}


def test_gelu_far_out() -> None:
    far = np.array([20.0, 1e4, 1e30] * MANY, np.float32)
    assert np.array(functions.gelu(mx.array(far))).tolist() == far.tolist()
    assert set(np.array(functions.gelu(mx.array(-far)))) == {0.0}


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_the_slope_keeps_digits_where_the_value_is_rounded_to_one(name: str) -> None:
    """y (1 - y) would keep none there."""
    function = EXACT[name][0]
    x = np.linspace(5, 8, 5000)
    found = np.array(mx.grad(lambda x: function(x).sum())(mx.array(x.astype(np.float32))))
    wide = x.astype(np.float32).astype(np.float64)
    exact = logistic(wide) * logistic(-wide) if name == "sigmoid" else 1 / np.cosh(wide) ** 2
    assert np.max(np.abs(found / exact - 1)) < 2e-6


@pytest.mark.parametrize("function", [functions.tanh, functions.sigmoid, functions.gelu])
def test_nan_stays(function: Function) -> None:
    found = np.array(function(mx.array([1.0, np.nan, 2.0] * MANY)))
    assert np.isnan(found).tolist() == [False, True, False] * MANY


@pytest.mark.parametrize("name", EXACT)
def test_strided_input_gives_the_same(name: str) -> None:
    function = EXACT[name][0]
    wide = mx.array(np.random.default_rng(0).standard_normal((MANY // 16 + 1, 64)).astype(np.float32))
    assert mx.array_equal(function(mx.split(wide, 4, axis=-1)[2]), function(wide)[:, 32:48])


@pytest.mark.parametrize("name", EXACT)
def test_few_numbers_are_mlx_own(name: str) -> None:
    few = mx.array(GRID[:100])
    theirs = {"tanh": mx.tanh, "sigmoid": mx.sigmoid, "gelu": nn.gelu}[name]
    assert mx.array_equal(EXACT[name][0](few), theirs(few))
    many = mx.array(GRID)
    assert not mx.array_equal(EXACT[name][0](many), theirs(many)), "this would test nothing"


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_is_mlx_own(dtype: mx.Dtype) -> None:
    x = mx.array(GRID).astype(dtype)
    for ours, theirs in (
        (functions.tanh, mx.tanh),
        (functions.sigmoid, mx.sigmoid),
        (functions.gelu, nn.gelu),
    ):
        assert mx.array_equal(ours(x), theirs(x)) and ours(x).dtype == dtype
