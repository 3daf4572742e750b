"""AdamW and gradient clipping with torch's arithmetic.

`mlx.optimizers.AdamW` computes the bias corrections 1 - beta^t in float32, which at the first steps is wrong
by 5e-5, many times the rounding error of a weight. Here they come from the host in float64, as in torch, and
enter the compiled step as an array, so that a changed learning rate does not trace it again.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

from mlx_lvm.core.activations import kernel_boundary
from mlx_lvm.core.mlx import mx, tree_flatten, tree_map

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # torch's defaults
CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_
COLUMNS = 64  # in which what is left of the squares is added
# coefficients with which `adamw` returns what it was given, to the bit
NO_OP = (1.0, 0.0, 1.0, 0.0, 1.0, 0.0)


class Moments(TypedDict):
    """Of the gradient and of its square: trees of arrays like the parameters."""

    first: Any
    second: Any


def zero_moments(parameters: Any) -> Moments:
    return {"first": tree_map(mx.zeros_like, parameters), "second": tree_map(mx.zeros_like, parameters)}


def coefficients(lr: float, weight_decay: float, step: int) -> mx.array:
    """[1 - lr wd, lr / (1 - b1^t), sqrt(1 - b2^t), 1 - b1, b2, 1 - b2] of step t = 1, 2, ... as float32."""
    held = 1 - lr * weight_decay, lr / (1 - BETA1**step), math.sqrt(1 - BETA2**step)
    return mx.array([*held, 1 - BETA1, BETA2, 1 - BETA2], dtype=mx.float32)


def skip_if_nonfinite(ok: mx.array, gradients: Any, coefs: Any) -> tuple[Any, Any]:
    """Gradients and coefficients where `ok` [] is true; else those with which `adamw` changes nothing.

    The selection fuses into AdamW's kernel. One on what AdamW returns would not: a third of AMN's step.
    """
    chosen = tree_map(lambda g: mx.where(ok, g, 0.0), gradients)
    return chosen, tree_map(lambda c: mx.where(ok, c, mx.array(NO_OP)), coefs)


def adamw(parameters: Any, gradients: Any, moments: Moments, coefs: mx.array) -> tuple[Any, Moments]:
    """One step of decoupled-weight-decay Adam (Loshchilov & Hutter 2019), as `torch.optim.AdamW`.

    m = m + (1 - b1)(g - m);  v = b2 v + (1 - b2) g^2
    p = (1 - lr wd) p - (lr / c1) m / (sqrt(v) / sqrt(c2) + eps)
    """
    # Scalars must have no axis: MLX's CPU takes its slow strided kernel for arrays of shape [1].
    decay, size, root, new1, old2, new2 = (kernel_boundary(c.squeeze()) for c in mx.split(coefs, len(NO_OP)))
    first = tree_map(lambda m, g: m + new1 * (g - m), moments["first"], gradients)
    second = tree_map(lambda v, g: old2 * v + new2 * (g * g), moments["second"], gradients)
    updated = tree_map(
        lambda p, m, v: p * decay - (size * m) / (mx.sqrt(v) / root + EPS), parameters, first, second
    )
    return updated, {"first": first, "second": second}


def gradient_norm(gradients: Any) -> mx.array:
    """The Euclidean norm of all gradients together.

    Column by column, because MLX's CPU adds a whole array one number after the other: off by 3e-4 for 786,000
    squares, by 1e-7 in columns. Rows would do, but there it waits for every sum before it adds the next
    number: three times the time.
    """
    named: Any = tree_flatten(gradients)
    leaves = [leaf for _, leaf in named]
    vectors = mx.concatenate([leaf.reshape(-1) for leaf in leaves if leaf.ndim < 2] or [mx.zeros(0)])
    matrices = [mx.square(leaf).sum(axis=0).reshape(-1) for leaf in leaves if leaf.ndim > 1]
    squares = [mx.square(vectors), *matrices]
    missing = -sum(part.size for part in squares) % COLUMNS
    return mx.sqrt(mx.concatenate([*squares, mx.zeros(missing)]).reshape(-1, COLUMNS).sum(axis=0).sum())


def clip_gradients(gradients: Any, norm: mx.array, largest: float) -> Any:
    """Scale by min(1, largest / (norm + 1e-6)), as `torch.nn.utils.clip_grad_norm_`."""
    # One number, not one for every weight.
    scale = kernel_boundary(mx.minimum(largest / (norm + CLIP_EPS), 1.0))
    return tree_map(lambda g: g * scale, gradients)
