"""How a fault is planted in the MLX side: a changed model, or other functions in the place of those it calls.

A fault lasts as long as its context manager is open, and names the place that the checks must blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject
from mlx_lvm.models import VectorModel, architecture
from mlx_lvm.parity.verdict import Check

Plant = Callable[[VectorModel], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """expect: beginnings of the places that may rightly be blamed. stage: `model` or `training`."""

    name: str
    model: str
    expect: tuple[str, ...]
    plant: Plant
    stage: str = "model"
    equivalent: str = ""  # why nothing can notice it; such a fault must go unnoticed


@dataclass(frozen=True)
class Outcome:
    """What became of one planted fault."""

    fault: Any
    failures: tuple[Check, ...]

    @property
    def caught(self) -> bool:
        return bool(self.failures)

    @property
    def place(self) -> str:
        """The first that parts from torch."""
        return self.failures[0].first_divergence if self.failures else ""

    @property
    def blamed(self) -> bool:
        return self.place.startswith(self.fault.expect)

    def to_dict(self) -> JsonObject:
        return {
            "fault": self.fault.name,
            "caught": self.caught,
            "blamed": self.blamed,
            "place": self.place,
            "expected": list(self.fault.expect),
        }


def config_of(model: str) -> Any:
    kind = architecture(model)
    return kind.config_class.from_dict(dict(kind.small))


def of(model: str) -> Callable[..., Fault]:
    """Makes the faults of one architecture: fault(name, place or places, plant, equivalent=...)."""

    def fault(name: str, expect: str | tuple[str, ...], plant: Plant, equivalent: str = "") -> Fault:
        places = (expect,) if isinstance(expect, str) else expect
        return Fault(f"{model}: {name}", model, places, plant, equivalent=equivalent)

    return fault


@contextmanager
def patch(target: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute, or the entry of a dict, replaced while it lasts."""
    entry = isinstance(target, dict) and name in target
    put: Callable[[str, Any], None] = target.__setitem__ if entry else partial(setattr, target)
    before = target[name] if entry else getattr(target, name)
    put(name, value)
    try:
        yield
    finally:
        put(name, before)


def replacing(target: Any, name: str, value: Any) -> Callable[[Any], AbstractContextManager[None]]:
    """A fault that lies in no model or encoder: an attribute, or an entry of a dict."""
    return lambda model: patch(target, name, value)


def method(module: str, name: str, function: Callable) -> Plant:
    """`function(self, original, *args)` in place of a submodule's method, or of the model's for ""."""

    @contextmanager
    def plant(model: VectorModel) -> Iterator[None]:
        target: Any = dict(model.named_modules())[module]
        kind = type(target)
        original = getattr(kind, name)
        own = {name: lambda self, *args: function(self, original, *args)}
        target.__class__ = type(kind.__name__, (kind,), own)
        try:
            yield
        finally:
            target.__class__ = kind

    return plant


def call(module: str, function: Callable) -> Plant:
    return method(module, "__call__", function)


REVERSED = call("", lambda self, original, x: original(self, x[:, ::-1]))  # the chunks, last first


def value(change: Callable[[dict[str, mx.array]], dict[str, mx.array]]) -> Plant:
    """Other weights in the MLX model than in the file."""

    @contextmanager
    def plant(model: VectorModel) -> Iterator[None]:
        before = model.weights()
        model.load_weights(list({**before, **change(before)}.items()))
        try:
            yield
        finally:
            model.load_weights(list(before.items()))

    return plant
