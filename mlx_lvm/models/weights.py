"""Weights put into a model: every name, shape, dtype and value is checked before the first one changes."""

from __future__ import annotations

from mlx_lvm.core.arrays import not_finite
from mlx_lvm.core.mlx import mx
from mlx_lvm.errors import InvalidFile, Problems, nearest
from mlx_lvm.models.base import VectorModel

DTYPES = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def set_weights(model: VectorModel, weights: dict[str, mx.array], what: str) -> None:
    """Load strictly: every name and shape must fit, every value be finite; all that does not is listed."""
    problems = Problems(f"{what} as {model.config.model_type}")
    expected = model.weights()
    for name in sorted(set(expected) - set(weights)):
        problems.add(f"tensor '{name}' is missing")
    for name in sorted(set(weights) - set(expected)):
        problems.add(f"tensor '{name}' is not part of the model.{nearest(name, list(expected))[:120]}")
    for name in sorted(set(weights) & set(expected)):
        value, shape = weights[name], list(expected[name].shape)
        if list(value.shape) != shape:
            problems.add(f"tensor '{name}' has shape {list(value.shape)}, expected {shape}")
        elif value.dtype not in DTYPES.values():
            problems.add(f"tensor '{name}' is {value.dtype}; expected float32, float16 or bfloat16")
    for name in not_finite({name: weights[name] for name in sorted(set(weights) & set(expected))}):
        problems.add(f"tensor '{name}' holds NaN or Inf")
    problems.raise_if_any(InvalidFile)
    model.load_weights([(name, value.astype(mx.float32)) for name, value in weights.items()], strict=True)
    model.eval()
