"""The coefficients in `mlx_lvm/core/activations.py`, fitted here in float64; how far off the functions are in
float32, and how fast.

Lawson's method: least squares on Chebyshev nodes, the weights raised where the error is large until the
largest relative error is about as small as it can be.

    python benchmarks/functions.py        (needs scipy for erfcx)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import erfcx, expit, ndtr

from mlx_lvm.core.linux_cpu import tune

tune()

from mlx_lvm.bench.workers import fastest
from mlx_lvm.core import activations as functions
from mlx_lvm.core.mlx import mx, nn

NODES, ROUNDS = 4000, 60
TIMED = 2**17  # numbers


def mills(x: np.ndarray) -> np.ndarray:
    """(1 - Phi(x)) / exp(-x^2 / 2)."""
    return erfcx(x / np.sqrt(2)) / 2


def exp_rest(r: np.ndarray) -> np.ndarray:
    """(exp(r) - 1 - r) / r^2."""
    near = np.abs(r) < 1e-3
    safe = np.where(near, 1.0, r)
    return np.where(near, 0.5 + r / 6, (np.expm1(safe) - safe) / safe**2)


def fit(
    f: Callable[[np.ndarray], np.ndarray],
    low: float,
    high: float,
    above: int,
    below: int,
    size: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """P [above + 1] and Q [below + 1] with Q(0) = 1 on [low, high], of least largest error against
    size(x).
    """
    x = (low + high) / 2 - (high - low) / 2 * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    scale = max(abs(low), abs(high))
    t, y = x / scale, f(x)
    importance, denominator = np.ones_like(x), np.ones_like(x)
    for _ in range(ROUNDS):
        columns = np.hstack(
            [t[:, None] ** np.arange(above + 1), -y[:, None] * t[:, None] ** np.arange(1, below + 1)]
        )
        weight = np.sqrt(importance) / (size(x) * denominator)
        solution = np.linalg.lstsq(columns * weight[:, None], y * weight, rcond=None)[0]
        p, q = solution[: above + 1], np.concatenate([[1.0], solution[above + 1 :]])
        denominator = np.polynomial.polynomial.polyval(t, q)
        error = np.abs(np.polynomial.polynomial.polyval(t, p) / denominator - y) / size(x)
        importance *= np.sqrt(error / error.max()) + 1e-3
        importance /= importance.mean()
    print(f"# off by {error.max():.1e} of its size at most")
    return p / scale ** np.arange(above + 1), q / scale ** np.arange(below + 1)


def shown(coefficients: np.ndarray) -> str:
    return "(" + ", ".join(f"{c:.9g}" for c in coefficients) + ")"


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    half = np.log(2) / 2 * 1.001
    p, _ = fit(exp_rest, -half, half, 4, 0, lambda r: np.exp(r) / np.maximum(r * r, 1e-6))
    print(f"EXP = {shown(p)}")
    p, q = fit(mills, 0.0, functions.REACH, 4, 5, mills)
    print(f"MILLS = {shown(p)}, {shown(q)}")

    x = np.linspace(-12, 12, 2_000_001).astype(np.float32)
    wide = x.astype(np.float64)
    for name, function, truth, size in (
        ("tanh", functions.tanh, np.tanh(wide), np.abs(np.tanh(wide)) + 1e-300),
        ("sigmoid", functions.sigmoid, expit(wide), expit(wide)),
        ("gelu", functions.gelu, wide * ndtr(wide), np.maximum(np.abs(wide), 1)),
    ):
        off = np.abs(np.array(function(mx.array(x))) - truth) / size
        print(
            f"{name}: off by {off.max():.1e} at most, {off.mean():.1e} in the middle; half a unit in the "
            "last place is 6e-8 or less"
        )

    x = mx.random.normal((TIMED,))
    mx.eval(x)
    for name, ours, theirs in (
        ("tanh", functions.tanh, mx.tanh),
        ("sigmoid", functions.sigmoid, mx.sigmoid),
        ("gelu", functions.gelu, nn.gelu),
    ):
        found = []
        for run in (mx.compile(ours), mx.compile(theirs)):
            mx.eval(run(x))
            found.append(fastest(lambda run=run: mx.eval(run(x))) / TIMED * 1e9)  # type: ignore[misc]
        print(f"{name}: {found[0]:.2f} ns a number, MLX's own {found[1]:.2f}")


if __name__ == "__main__":
    main()
