"""Faults that any architecture may have: in its weights, linear layers, norms, GELUs and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from mlx_lvm.core.activations import GELU
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import architecture, build
from mlx_lvm.parity.faults.planting import Fault, Plant, call, config_of, patch, value


def nudges(model: str) -> Iterator[Fault]:
    """One element of one parameter, up by one unit in its last place."""
    for name in build(config_of(model)).weights():

        def change(weights: dict[str, mx.array], name: str = name) -> dict[str, mx.array]:
            flat = np.array(weights[name]).reshape(-1)
            flat[flat.size // 2] = np.nextafter(flat[flat.size // 2], np.float32(np.inf))
            return {name: mx.array(flat.reshape(weights[name].shape))}

        yield Fault(f"{model}: one bit of {name}", model, (name,), value(change))


def roundings(model: str) -> Iterator[Fault]:
    """All weights through a shorter format on the way in."""

    def tf32(x: mx.array) -> mx.array:
        return ((x.view(mx.uint32) + 0x1000) & 0xFFFFE000).view(mx.float32)

    formats: dict[str, Callable[[mx.array], mx.array]] = {
        "float16": lambda x: x.astype(mx.float16).astype(mx.float32),
        "bfloat16": lambda x: x.astype(mx.bfloat16).astype(mx.float32),
        "TF32": tf32,
    }
    first = sorted(build(config_of(model)).weights())[0]
    for name, rounded in formats.items():
        yield Fault(
            f"{model}: weights rounded to {name}", model, (first,),
            value(lambda weights, rounded=rounded: {key: rounded(v) for key, v in weights.items()}),
        )  # fmt: skip


def linear_faults(model: str) -> Iterator[Fault]:
    """Every linear layer without its bias, with it twice, and (where square) transposed."""

    def unbiased(self: Any, original: Callable, x: mx.array) -> mx.array:
        return x @ self.weight.T

    def twice(self: Any, original: Callable, x: mx.array) -> mx.array:
        return original(self, x) + self.bias

    def turned(self: Any, original: Callable, x: mx.array) -> mx.array:
        return x @ self.weight + (self.bias if "bias" in self else 0)

    for name, module in build(config_of(model)).named_modules():
        if isinstance(module, nn.Linear):
            # inside torch's attention, out_proj is no call of its own
            place = (name.removesuffix(".out_proj"),)
            if "bias" in module:
                yield Fault(f"{model}: {name} without bias", model, place, call(name, unbiased))
                yield Fault(f"{model}: {name} with its bias twice", model, place, call(name, twice))
            if module.weight.shape[0] == module.weight.shape[1]:
                yield Fault(f"{model}: {name} transposed", model, place, call(name, turned))


def norm_faults(model: str) -> Iterator[Fault]:
    """Every LayerNorm with another epsilon, without its bias, and with the sample variance."""

    def sample(self: Any, original: Callable, x: mx.array) -> mx.array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = mx.square(centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)
        return centred * mx.rsqrt(variance + self.eps) * self.weight + self.bias

    for name, module in build(config_of(model)).named_modules():
        if isinstance(module, nn.LayerNorm):
            for eps in (1e-6, 1e-12):
                yield Fault(f"{model}: {name} with epsilon {eps:g}", model, (name,), epsilon(name, eps))
            yield Fault(
                f"{model}: {name} without bias",
                model,
                (name,),
                call(name, lambda self, original, x: original(self, x) - self.bias),
            )
            yield Fault(f"{model}: {name} with the sample variance", model, (name,), call(name, sample))


def epsilon(name: str, eps: float) -> Plant:
    return lambda model: patch(dict(model.named_modules())[name], "eps", eps)


def output_faults(model: str, last: str, end: tuple[str, ...]) -> Iterator[Fault]:
    """The end that all models share: the layer `last`, if there is one, and the places `end` of the unit
    vector.
    """
    module = import_module(architecture(model).__module__)

    def normalised(name: str, function: Callable[[mx.array], mx.array]) -> Fault:
        return Fault(f"{model}: {name}", model, end, lambda _: patch(module, "normalize", function))

    yield normalised("not normalised", lambda x: x)
    yield normalised("normalised by the sum of magnitudes", lambda x: x / mx.abs(x).sum(-1, keepdims=True))
    yield normalised(
        "normalised with 1e-5 added to the norm",
        lambda x: x / (mx.linalg.norm(x, axis=-1, keepdims=True) + 1e-5),
    )
    if last:
        yield Fault(
            f"{model}: {last} multiplied in bfloat16", model, (last,),
            call(last, lambda self, original, x: original(self, x.astype(mx.bfloat16).astype(mx.float32))),
        )  # fmt: skip


def gelu_faults(model: str) -> Iterator[Fault]:
    """Every GELU by another function."""
    others = {"by tanh": nn.gelu_approx, "by sigmoid": nn.gelu_fast_approx, "as relu": nn.relu}
    for name, module in build(config_of(model)).named_modules():
        if isinstance(module, GELU):
            for how, other in others.items():
                change = call(name, lambda self, original, x, other=other: other(x))
                yield Fault(f"{model}: {name} {how}", model, (name,), change)
