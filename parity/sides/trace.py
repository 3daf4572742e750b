"""A run of the MLX model with everything seen on the way; needs no torch.

Values come back as float64 NumPy in torch's layout, by the names that `taps` gives them.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import Prediction
from mlx_lvm.models import layers as mlx_layers
from mlx_lvm.parity.arbiter import slack_of_norm

Outputs = dict[str, np.ndarray]
FIELDS = Prediction._fields
INPUT = " <-"  # marks what a submodule was given


def float64(value: mx.array) -> np.ndarray:
    """Exactly the same numbers as NumPy float64."""
    return np.array(value.astype(mx.float32)).astype(np.float64)


def ask(model: Any, context: Any) -> dict[str, Any]:
    """The prediction of either side's model, its fields that are there by name. A model that takes queries
    gets the oldest chunk as its query in every other window, the first included: a query brings terms in and
    leaves others out.
    """
    query = []
    if model.takes_queries:
        every_other = (1.0 - np.arange(context.shape[0]) % 2)[:, None].astype(np.float32)
        mask = (
            mx.array(every_other).astype(context.dtype)
            if isinstance(context, mx.array)
            else context.new_tensor(every_other)
        )
        query = [context[:, 0] * mask]
    found = model(context, *query)._asdict()
    return {name: value for name, value in found.items() if value is not None}


def slack_of(model: Any, tap: str, dtype: str) -> float:
    """Besides torch's error at a tap: more than one rounding where MLX's CPU sums a row in order."""
    module = dict(model.named_modules()).get(tap)
    return slack_of_norm(module.weight.size, dtype) if isinstance(module, nn.LayerNorm) else 1.0


def same_places(value: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Of torch's value what MLX made too: it may make the last position alone."""
    return value[:, -mine.shape[1] :] if mine.ndim == 3 else value


@dataclass
class Trace:
    """Values by tap in the order they arose; with `forced`, a run goes on with those in their place."""

    forced: Outputs | None = None
    values: Outputs = field(default_factory=dict)
    shapes: dict[str, str] = field(default_factory=dict)  # taps whose shape does not fit the truth
    calls: Counter[str] = field(default_factory=Counter)

    def again(self, name: str) -> bool:
        """Count a call; True for all but the first, which alone is tapped: sides may differ in how many."""
        self.calls[name] += 1
        return self.calls[name] > 1

    def see(self, tap: str, value: np.ndarray) -> np.ndarray | None:
        """Record; return what to go on with instead, if anything."""
        if tap not in self.values:
            self.values[tap] = value
        return None if self.forced is None else self.forced.get(tap)


def mlx_trace(model: Any, context: mx.array, like: Outputs, forced: Outputs | None = None) -> Trace:
    """A run of the MLX model with the taps that `like`, a trace of torch, has; values in torch's layout."""
    trace = Trace(forced)
    with mlx_tapped(model, trace, like) as (see, running), watched_cells(see, running, like):
        prediction = ask(model, context)
    trace.values |= {name: float64(value) for name, value in prediction.items()}
    return trace


@contextmanager
def mlx_tapped(
    model: Any, trace: Trace, like: Outputs, rename: Callable[[str], str] = lambda name: name
) -> Iterator[tuple[Callable[[str, Any], Any], list[str]]]:
    """The submodules of an MLX module report to `trace` while it lasts, as far as `like` has their taps, and
    go on with what it forces. Yields what reports a tap, and the names of the submodules being run.
    """
    running: list[str] = []

    def see(tap: str, value: Any) -> Any:
        if tap not in like or not isinstance(value, mx.array):
            return value
        found = float64(value)
        turns = turns_of(found.shape, like[tap].shape)
        if turns is None:
            trace.shapes[tap] = f"MLX {found.shape}, torch {like[tap].shape}"
            return value
        to_mlx, to_torch = turns
        other = trace.see(tap, to_torch(found))
        return value if other is None else mx.array(to_mlx(other).astype(np.float32)).astype(value.dtype)

    def call(name: str, original: Callable, module: Any, args: tuple) -> Any:
        name = rename(name)
        if trace.again(name):
            return original(module, *args)
        seen: dict[int, Any] = {}  # one array given twice stays one array
        for k, arg in enumerate(args):
            if id(arg) not in seen:
                seen[id(arg)] = see(f"{name}{INPUT}{k or ''}", arg)
        running.append(name)
        try:
            output = original(module, *(seen[id(arg)] for arg in args))
        finally:
            running.pop()
        if not isinstance(output, tuple):
            return see(name, output)
        first = see(name, output[0])
        return output if first is output[0] else (first, *output[1:])  # a model's in a model is a Prediction

    with watched(model, call):
        yield see, running


@contextmanager
def watched(model: Any, call: Callable) -> Iterator[None]:
    """Every named submodule's call goes through `call(name, original, module, args)` while it lasts."""
    before = [(name, module, type(module)) for name, module in model.named_modules() if name]

    def watching(name: str, kind: type) -> type:
        def run(self: Any, *args: Any, **named: Any) -> Any:
            return call(name, partial(kind.__call__, **named), self, args)

        return type(kind.__name__, (kind,), {"__call__": run})

    try:
        for name, module, kind in before:
            if callable(module):
                module.__class__ = watching(name, kind)
        yield
    finally:
        for _, module, kind in before:
            module.__class__ = kind


@contextmanager
def watched_cells(see: Callable, running: list[str], like: Outputs) -> Iterator[None]:
    """Cells of recurrent layers report their gates, <module>.l<layer>.t<step>.<gate>, while it lasts."""
    lstm_cell, gru_cell = mlx_layers.lstm_cell, mlx_layers.gru_cell
    calls = Counter[str]()

    def place() -> str:
        name = running[-1]
        layer, step = divmod(calls[name], like[name].shape[1])
        calls[name] += 1
        return f"{name}.l{layer}.t{step}"

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


Turn = Callable[[np.ndarray], np.ndarray]


def turns_of(mlx: tuple[int, ...], torch_shape: tuple[int, ...]) -> tuple[Turn, Turn] | None:
    """From torch's [batch, length, ...] to MLX's layout and back: alike, steps first, or the last position
    alone; None where none fits. A case for taps has a batch that is not its length: steps first then shows.
    """
    if mlx == torch_shape:
        return lambda x: x, lambda x: x
    if len(mlx) == len(torch_shape) == 3:
        if mlx == (torch_shape[1], torch_shape[0], torch_shape[2]):
            return lambda x: np.ascontiguousarray(x.swapaxes(0, 1)), lambda x: x.swapaxes(0, 1)
        if mlx == (torch_shape[0], 1, torch_shape[2]):
            return lambda x: np.ascontiguousarray(x[:, -1:]), lambda x: x
    return None
