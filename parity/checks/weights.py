"""The checks of a subject's weights: names, shapes, dtype, bits, and the tables that both sides compute."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from mlx_lvm.core.mlx import mx
from mlx_lvm.parity.arbiter import UNIT
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.sides import Sides, Subject
from mlx_lvm.parity.twins import twin_class
from mlx_lvm.parity.verdict import EQUIVALENT, MLX_INACCURATE, Check, Compared, exact, failed


def weights_checks(sides: Sides) -> Iterator[Check]:
    """Names, shapes, dtype and every bit, on both sides after loading; bits survive the way to and fro."""
    subject, model, twin = sides.subject, sides.mlx, sides.torch
    head = Compared(subject.name, "weights", subject.parameters, "loaded")
    held, state = dict(twin.named_parameters()), set(twin.state_dict())
    mine, buffers = model.weights(), model.buffers()
    missing, extra = sorted(set(held) - set(mine)), sorted(set(mine) - set(held))
    note = f"MLX lacks {missing}, torch lacks {extra}" if missing or extra else ""
    yield exact(head._replace(value="names"), not note, note, compared=len(held))
    differ = sorted(state ^ {*held, *buffers})
    note = f"differ: {differ}" if differ else ""
    yield exact(head._replace(value="state-dict"), not note, note, compared=len(state))
    count, own = sum(p.numel() for p in held.values()), model.parameter_count()
    note = f"{count:,} parameters in torch, {own:,} in MLX"
    yield exact(head._replace(value="count"), count == own, note)
    for name in sorted(set(held) & set(mine)):
        source = subject.weights[name].astype(bridge.MLX[sides.dtype])
        yield same_bits(head._replace(value=name), mine[name], held[name], source)
    for name, value in buffers.items():
        yield buffer_check(head._replace(value=name), value, subject)


def same_bits(what: Compared, mlx: mx.array, tensor: torch.Tensor, source: mx.array) -> Check:
    """One parameter: MLX, torch and the file have the same shape, dtype and bits; a round trip keeps them."""
    kind = bridge.TORCH[str(mlx.dtype).removeprefix("mlx.core.")]
    if tuple(mlx.shape) != tuple(tensor.shape) or kind != tensor.dtype:
        note = f"MLX {mlx.shape} {mlx.dtype}, torch {tuple(tensor.shape)} {tensor.dtype}"
        return failed(what, note, what.value)
    mine = _bits(mlx)
    others = (bridge.to_mlx(tensor), source, bridge.to_mlx(bridge.to_torch(mlx)))
    differ = max(int((_bits(other) != mine).sum()) for other in others)
    note = f"{differ} of {mine.size} elements differ in their bits" if differ else ""
    return exact(what, not differ, note, what.value, compared=mine.size)


def _bits(value: mx.array) -> np.ndarray:
    return np.array(value.view({2: mx.uint16, 4: mx.uint32}[value.dtype.size]))


def buffer_check(what: Compared, value: mx.array, subject: Subject) -> Check:
    """A table that both sides compute: MLX's against the twin's own, made in float64 and rounded once.

    A float32 angle of up to 100 is off by 100 u or so, and so is its sine.
    """
    name = what.value
    own = dict(twin_class(subject.config.model_type)(subject.config).named_buffers()).get(name)
    if own is None or tuple(own.shape) != tuple(value.shape):
        return failed(what, f"torch has no table '{name}' of shape {tuple(value.shape)}", name)
    error = float(np.abs(bridge.to_float64(value) - bridge.to_float64(own)).max())
    bound = 4 * value.shape[1] * UNIT["float32"]
    passed = error <= bound
    verdict, where = (EQUIVALENT, "") if passed else (MLX_INACCURATE, name)
    errors = (error / bound, error, 0.0, error, bound)
    return Check(what, verdict, passed, *errors, value.size, first_divergence=where)
