"""What faults of recurrent models change: the weights of a layer, and the step read as the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.parity.faults.planting import Plant, call, method


def recurrent(module: str, change: Callable) -> Plant:
    """`change(w_ih, w_hh, b_ih, b_hh)` before each layer runs."""
    return method(module, "run", lambda self, original, x, *weights: original(self, x, *change(*weights)))


def permuted(order: tuple[int, ...]) -> Callable:
    def change(*weights: mx.array) -> list[mx.array]:
        return [mx.concatenate([mx.split(w, len(order))[k] for k in order]) for w in weights]

    return change


def transposed(which: int, gate: int, gates: int) -> Callable:
    def change(*weights: mx.array) -> list[mx.array]:
        blocks = mx.split(weights[which], gates)
        blocks[gate] = blocks[gate].T
        return [mx.concatenate(blocks) if k == which else w for k, w in enumerate(weights)]

    return change


def last_step(module: str, step: int) -> Plant:
    """The layer's output turned so that the model reads another step as the last."""

    def turned(self: Any, original: Callable, x: mx.array) -> mx.array:
        out = original(self, x)
        return mx.roll(out, -1 - step, axis=0) if step else out[::-1]

    return call(module, turned)
