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
from mlx_lvm.parity.verdict import Check, Compared, exact, failed


def weights_checks(sides: Sides) -> Iterator[Check]:
    """Names, shapes, dtype and every bit, on both sides after loading; bits survive the way there and
    back.
    """
    subject, dtype = sides.subject, sides.dtype
    head = Compared(subject.name, "weights", subject.parameters, "loaded")
    model, twin = sides.mlx, sides.torch
    held = dict(twin.named_parameters())
    mine = model.weights()
    buffers = model.buffers()
    missing, extra = sorted(set(held) - set(mine)), sorted(set(mine) - set(held))
    yield exact(
        head._replace(value="names"),
        not missing and not extra,
        f"MLX lacks {missing}, torch lacks {extra}" if missing or extra else "",
        compared=len(held),
    )
    expected = set(held) | set(buffers)
    state = set(twin.state_dict())
    yield exact(
        head._replace(value="state-dict"),
        state == expected,
        f"differ: {sorted(state ^ expected)}" if state != expected else "",
        compared=len(state),
    )
    count = sum(p.numel() for p in held.values())
    yield exact(
        head._replace(value="count"),
        count == model.parameter_count(),
        f"{count:,} parameters in torch, {model.parameter_count():,} in MLX",
    )
    for name in sorted(set(held) & set(mine)):
        yield same_bits(
            head._replace(value=name), mine[name], held[name], subject.weights[name].astype(bridge.MLX[dtype])
        )
    for name, value in buffers.items():
        yield from buffer_checks(head._replace(value=name), value, subject)


def same_bits(what: Compared, mlx: mx.array, tensor: torch.Tensor, source: mx.array) -> Check:
    """One parameter: MLX, torch and the file hold the same shape, dtype and bits, and a round trip changes
    none.
    """
    if (
        tuple(mlx.shape) != tuple(tensor.shape)
        or bridge.TORCH[str(mlx.dtype).removeprefix("mlx.core.")] != tensor.dtype
    ):
        return failed(
            what, f"MLX {mlx.shape} {mlx.dtype}, torch {tuple(tensor.shape)} {tensor.dtype}", what.value
        )
    bits = [
        _bits(value) for value in (mlx, bridge.to_mlx(tensor), source, bridge.to_mlx(bridge.to_torch(mlx)))
    ]
    differ = [int((other != bits[0]).sum()) for other in bits[1:]]
    note = f"{max(differ)} of {bits[0].size} elements differ in their bits" if any(differ) else ""
    return exact(what, not any(differ), note, "" if not any(differ) else what.value, compared=bits[0].size)


def _bits(value: mx.array) -> np.ndarray:
    return np.array(value.view({2: mx.uint16, 4: mx.uint32}[value.dtype.size]))


def buffer_checks(what: Compared, value: mx.array, subject: Subject) -> Iterator[Check]:
    """A table that both sides compute: MLX's against the twin's own, which is made in float64 and rounded
    once.

    A float32 angle of up to 100 is off by 100 u or so, and so is its sine.
    """
    name = what.value
    own = dict(twin_class(subject.config.model_type)(subject.config).named_buffers())
    if name not in own or tuple(own[name].shape) != tuple(value.shape):
        yield failed(what, f"torch has no table '{name}' of shape {tuple(value.shape)}", name)
        return
    error = float(np.abs(bridge.to_float64(value) - bridge.to_float64(own[name])).max())
    bound = 4 * value.shape[1] * UNIT["float32"]
    passed = error <= bound
    yield Check(
        what,
        "equivalent" if passed else "MLX inaccurate",
        passed,
        error / bound,
        error,
        0.0,
        error,
        bound,
        value.size,
        first_divergence="" if passed else name,
    )
