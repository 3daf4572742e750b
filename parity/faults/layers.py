"""Faults that any architecture may have: in its weights, linear layers, norms, GELUs and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from mlx_lvm.core.activations import GELU
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import architecture, build
from mlx_lvm.parity.faults.planting import Fault, Plant, call, config_of, of, patch, replacing, value

Make = Callable[..., Fault]  # see `planting.of`


def usual_faults(model: str) -> Iterator[Fault]:
    """In weights, linear layers, norms and GELUs."""
    fault, network = of(model), build(config_of(model))
    layers = network.named_modules()
    yield from nudges(fault, network.weights())
    yield from roundings(fault, min(network.weights()))
    for kind, faults in ((nn.Linear, linear_faults), (nn.LayerNorm, norm_faults), (GELU, gelu_faults)):
        for name, layer in layers:
            if isinstance(layer, kind):
                yield from faults(fault, name, layer)


def nudges(fault: Make, weights: Iterable[str]) -> Iterator[Fault]:
    """One element of one parameter, up by one unit in its last place."""
    for name in weights:

        def change(weights: dict[str, mx.array], name: str = name) -> dict[str, mx.array]:
            flat = np.array(weights[name]).reshape(-1)
            flat[flat.size // 2] = np.nextafter(flat[flat.size // 2], np.float32(np.inf))
            return {name: mx.array(flat.reshape(weights[name].shape))}

        yield fault(f"one bit of {name}", name, value(change))


def roundings(fault: Make, first: str) -> Iterator[Fault]:
    """All weights through a shorter format on the way in; `first` of them is looked at first."""

    def through(dtype: mx.Dtype) -> Callable[[mx.array], mx.array]:
        return lambda x: x.astype(dtype).astype(mx.float32)

    def tf32(x: mx.array) -> mx.array:
        return ((x.view(mx.uint32) + 0x1000) & 0xFFFFE000).view(mx.float32)

    formats = {"float16": through(mx.float16), "bfloat16": through(mx.bfloat16), "TF32": tf32}
    for name, rounded in formats.items():
        change = value(lambda weights, rounded=rounded: {key: rounded(v) for key, v in weights.items()})
        yield fault(f"weights rounded to {name}", first, change)


def linear_faults(fault: Make, name: str, layer: nn.Linear) -> Iterator[Fault]:
    """Without its bias, with it twice, and (where square) transposed."""

    def unbiased(self: Any, original: Callable, x: mx.array) -> mx.array:
        return x @ self.weight.T

    def twice(self: Any, original: Callable, x: mx.array) -> mx.array:
        return original(self, x) + self.bias

    def turned(self: Any, original: Callable, x: mx.array) -> mx.array:
        return x @ self.weight + (self.bias if "bias" in self else 0)

    # inside torch's attention, out_proj is no call of its own
    place = name.removesuffix(".out_proj")
    if "bias" in layer:
        yield fault(f"{name} without bias", place, call(name, unbiased))
        yield fault(f"{name} with its bias twice", place, call(name, twice))
    if layer.weight.shape[0] == layer.weight.shape[1]:
        yield fault(f"{name} transposed", place, call(name, turned))


def norm_faults(fault: Make, name: str, layer: nn.LayerNorm) -> Iterator[Fault]:
    """With another epsilon, without its bias, and with the sample variance."""

    def sample(self: Any, original: Callable, x: mx.array) -> mx.array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = mx.square(centred).sum(axis=-1, keepdims=True) / (x.shape[-1] - 1)
        return centred * mx.rsqrt(variance + self.eps) * self.weight + self.bias

    for eps in (1e-6, 1e-12):
        yield fault(f"{name} with epsilon {eps:g}", name, epsilon(name, eps))
    plain = call(name, lambda self, original, x: original(self, x) - self.bias)
    yield fault(f"{name} without bias", name, plain)
    yield fault(f"{name} with the sample variance", name, call(name, sample))


def gelu_faults(fault: Make, name: str, layer: GELU) -> Iterator[Fault]:
    """By another function."""
    others = {"by tanh": nn.gelu_approx, "by sigmoid": nn.gelu_fast_approx, "as relu": nn.relu}
    for how, other in others.items():
        yield fault(f"{name} {how}", name, call(name, lambda self, original, x, other=other: other(x)))


def epsilon(name: str, eps: float) -> Plant:
    return lambda model: patch(dict(model.named_modules())[name], "eps", eps)


def output_faults(model: str, last: str, end: tuple[str, ...]) -> Iterator[Fault]:
    """The end that all models share: the layer `last`, if there is one, and the places `end` of the unit."""
    fault = of(model)
    module = import_module(architecture(model).__module__)

    def normalised(name: str, function: Callable[[mx.array], mx.array]) -> Fault:
        return fault(name, end, replacing(module, "normalize", function))

    def padded(x: mx.array) -> mx.array:
        return x / (mx.linalg.norm(x, axis=-1, keepdims=True) + 1e-5)

    def rounded(self: Any, original: Callable, x: mx.array) -> mx.array:
        return original(self, x.astype(mx.bfloat16).astype(mx.float32))

    yield normalised("not normalised", lambda x: x)
    yield normalised("normalised by the sum of magnitudes", lambda x: x / mx.abs(x).sum(-1, keepdims=True))
    yield normalised("normalised with 1e-5 added to the norm", padded)
    if last:
        yield fault(f"{last} multiplied in bfloat16", last, call(last, rounded))
