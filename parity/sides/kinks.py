"""Where a relu's input is zero to within rounding: there the gradient jumps, and correct sides may differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch

from mlx_lvm.parity.arbiter import UNIT, rms
from mlx_lvm.parity.sides.inputs import Case
from mlx_lvm.parity.sides.sides import Sides, twin_outputs
from mlx_lvm.parity.sides.trace import Outputs
from mlx_lvm.parity.twins.base import Twin

NULL = 1e-6  # a float64 gradient this small next to the others may be zero by mathematics


def settle_kinks(
    sides: Sides, case: Case, run: Callable, out: Outputs, truth: Outputs
) -> tuple[Outputs, int]:
    """The truth with the sign of some relu inputs flipped that are zero to within rounding, and how many.

    There the gradient jumps and both sides are right. Only units within 16 roundings of zero qualify, and a
    flip is kept only where it at least halves the distance to MLX: a fault elsewhere cannot hide behind it.
    """
    x = sides.context(case.context)[2]
    candidates = near_kinks(sides.truth, x, 16 * UNIT[sides.dtype])
    flips: list[tuple[str, int]] = []
    best, distance = truth, _distance(out, truth)
    for candidate in candidates[:8]:
        with flipped(sides.truth, [*flips, candidate]):
            tried = run(sides.truth, x)
        if _distance(out, tried) < distance / 2:
            flips, best, distance = [*flips, candidate], tried, _distance(out, tried)
    return best, len(flips)


def _distance(out: Outputs, truth: Outputs) -> float:
    sizes = {name: rms(value) for name, value in truth.items()}
    seen = [name for name in truth if name in out and sizes[name] > NULL * max(sizes.values())]
    return sum(rms(out[name] - truth[name]) for name in seen)


def near_kinks(model: Twin, x: torch.Tensor, margin: float) -> list[tuple[str, int]]:
    """(layer, flat index) of relu inputs below `margin` times the layer's rms, nearest to zero first."""
    found: list[tuple[float, str, int]] = []

    def look(name: str, output: torch.Tensor) -> None:
        sizes = output.detach().abs().flatten() / output.detach().square().mean().sqrt()
        found.extend((float(sizes[i]), name, int(i)) for i in torch.nonzero(sizes < margin).flatten())

    with hooked(model, lambda name: name.endswith("linear1"), look):
        twin_outputs(model, x)
    return [(name, index) for _, name, index in sorted(found)]


def flipped(model: Twin, units: list[tuple[str, int]]) -> AbstractContextManager[None]:
    """While it lasts, the named relu inputs have the other sign."""

    def flip(name: str, output: torch.Tensor) -> torch.Tensor:
        sign = torch.ones(output.numel(), dtype=output.dtype)
        sign[[index for layer, index in units if layer == name]] = -1
        return output + output.detach() * (sign.view(output.shape) - 1)

    layers = {name for name, _ in units}
    return hooked(model, lambda name: name in layers, flip)


@contextmanager
def hooked(model: Twin, chosen: Callable[[str], bool], look: Callable) -> Iterator[None]:
    """While it lasts, look(name, output) sees the chosen submodules' output; what it returns goes on."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if chosen(name):
                hook = module.register_forward_hook(lambda _, given, output, name=name: look(name, output))
                stack.callback(hook.remove)
        yield
