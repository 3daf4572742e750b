"""A run of the MLX model with everything seen on the way; needs no torch.

Values come back as float64 NumPy in torch's layout, by the names that `taps` gives them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import layers as mlx_layers
from mlx_lvm.parity.arbiter import slack_of_norm

FIELDS = ("raw", "unit", "attention", "baseline", "residual", "ahead")
INPUT = " <-"  # marks what a submodule was given


def float64(value: mx.array) -> np.ndarray:
    """Exactly the same numbers as NumPy float64."""
    return np.array(value.astype(mx.float32)).astype(np.float64)


def ask(model: Any, context: Any) -> Any:
    """The prediction of either side's model. One that takes queries gets the oldest chunk as its query in
    every other window, the first included: a query brings terms in and leaves others out.
    """
    if not model.takes_queries:
        return model(context)
    every_other = (1.0 - np.arange(context.shape[0]) % 2)[:, None].astype(np.float32)
    mask = (
        mx.array(every_other).astype(context.dtype)
        if isinstance(context, mx.array)
        else context.new_tensor(every_other)
    )
    return model(context, context[:, 0] * mask)


def slack_of(model: Any, tap: str, dtype: str) -> float:
    """What is allowed besides torch's error at a tap: more than one rounding where MLX's CPU sums a row in
    order.
    """
    module = dict(model.named_modules()).get(tap)
    return slack_of_norm(module.weight.size, dtype) if isinstance(module, nn.LayerNorm) else 1.0


def again(calls: dict[str, int], name: str) -> bool:
    """Count a call; True for all but the first, which alone is tapped: the two sides need not call a
    submodule equally often.
    """
    calls[name] = calls.get(name, 0) + 1
    return calls[name] > 1


@dataclass
class Trace:
    """Values by tap in the order they arose. With `forced`, each is replaced by the given one after it was
    recorded.
    """

    forced: dict[str, np.ndarray] | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)  # taps whose shape does not fit the truth

    def see(self, tap: str, value: np.ndarray) -> np.ndarray | None:
        """Record; return what to go on with instead, if anything."""
        if tap not in self.values:
            self.values[tap] = value
        return None if self.forced is None else self.forced.get(tap)


def mlx_trace(
    model: Any, context: mx.array, like: dict[str, np.ndarray], forced: dict[str, np.ndarray] | None = None
) -> Trace:
    """A run of the MLX model with the taps that `like`, a trace of torch, has; values in torch's layout."""
    trace = Trace(forced)
    calls: dict[str, int] = {}
    running: list[str] = []  # names of the recurrent modules being run, for their gates

    def see(tap: str, value: mx.array) -> mx.array:
        if tap not in like:
            return value
        found = float64(value)
        layout = layout_of(found.shape, like[tap].shape)
        if layout is None:
            trace.shapes[tap] = f"MLX {found.shape}, torch {like[tap].shape}"
            return value
        other = trace.see(tap, layout.back(found))
        return (
            value if other is None else mx.array(layout.there(other).astype(np.float32)).astype(value.dtype)
        )

    def call(name: str, original: Callable, module: Any, args: tuple) -> Any:
        if again(calls, name):
            return original(module, *args)
        seen: dict[int, mx.array] = {}
        given: list[Any] = []
        for k, arg in enumerate(args):
            if isinstance(arg, mx.array) and id(arg) not in seen:
                seen[id(arg)] = see(f"{name}{INPUT}{k or ''}", arg)
            given.append(seen.get(id(arg), arg))
        running.append(name)
        try:
            output = original(module, *given)
        finally:
            running.pop()
        return see(name, output)

    with (
        watched(model, call),
        watched_cells(lambda tap, value: see(f"{running[-1]}.{tap}", value), lambda: running[-1], like),
    ):
        prediction = ask(model, context)
    for name in FIELDS:
        value = getattr(prediction, name)
        if value is not None:
            trace.values[name] = float64(value)
    return trace


@contextmanager
def watched(model: Any, call: Callable) -> Iterator[None]:
    """Every named submodule's call goes through `call(name, original, module, args)` while it lasts."""
    before = [(module, type(module)) for name, module in model.named_modules() if name]

    def watching(name: str, kind: type) -> type:
        return type(
            kind.__name__,
            (kind,),
            {
                "__call__": lambda self, *args, **named: call(
                    name, partial(kind.__call__, **named), self, args
                )
            },
        )

    try:
        for name, module in model.named_modules():
            if name and callable(module):
                module.__class__ = watching(name, type(module))
        yield
    finally:
        for module, kind in before:
            module.__class__ = kind


@contextmanager
def watched_cells(see: Callable, module: Callable[[], str], like: dict[str, np.ndarray]) -> Iterator[None]:
    """The cells of the recurrent layers report their gates, named l<layer>.t<step>.<gate>, while it lasts."""
    lstm_cell, gru_cell = mlx_layers.lstm_cell, mlx_layers.gru_cell
    calls: dict[str, int] = {}

    def place() -> str:
        name = module()
        number = calls[name] = calls.get(name, -1) + 1
        steps = like[name].shape[1]
        return f"l{number // steps}.t{number % steps}"

    def lstm(*args: mx.array) -> tuple[mx.array, mx.array]:
        at, named = place(), _by_name(lstm_cell, args)
        for gate in "ifgo":
            named[gate] = see(f"{at}.{gate}", named[gate])
        hidden, after = lstm_cell(*named.values())
        after = see(f"{at}.c", after)
        return see(f"{at}.h", hidden), after

    def gru(*args: mx.array) -> mx.array:
        at, named = place(), _by_name(gru_cell, args)
        zero = mx.zeros_like(named["r"])
        for gate in "rz":
            named[gate] = see(f"{at}.{gate}", named[gate] + named[f"{gate}_hidden"])
            named[f"{gate}_hidden"] = zero
        for gate in ("n", "n_hidden"):
            named[gate] = see(f"{at}.{gate}", named[gate] + zero)
        return see(f"{at}.h", gru_cell(*named.values()))

    mlx_layers.lstm_cell, mlx_layers.gru_cell = lstm, gru
    try:
        yield
    finally:
        mlx_layers.lstm_cell, mlx_layers.gru_cell = lstm_cell, gru_cell


def _by_name(cell: Callable, args: tuple[mx.array, ...]) -> dict[str, mx.array]:
    """Arguments by the names that the cell's signature gives them."""
    return dict(zip(inspect.signature(cell).parameters, args, strict=True))


@dataclass(frozen=True)
class Layout:
    """How an MLX array lies against torch's [batch, length, ...]: as it is, steps first, or the last position
    alone.
    """

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]


def layout_of(mlx: tuple[int, ...], torch_shape: tuple[int, ...]) -> Layout | None:
    """None where neither fits. A case for taps has a batch that is not its length, so that steps first
    shows.
    """
    if mlx == torch_shape:
        return Layout(lambda x: x, lambda x: x)
    if len(mlx) == len(torch_shape) == 3:
        if mlx == (torch_shape[1], torch_shape[0], torch_shape[2]):
            return Layout(lambda x: np.ascontiguousarray(x.swapaxes(0, 1)), lambda x: x.swapaxes(0, 1))
        if mlx == (torch_shape[0], 1, torch_shape[2]):
            return Layout(lambda x: np.ascontiguousarray(x[:, -1:]), lambda x: x)
    return None
