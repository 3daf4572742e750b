"""Faults that any architecture may have: in its weights, linear layers, norms, GELUs and its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models import amn as amn_module
from mlx_lvm.models import build
from mlx_lvm.models import emn as emn_module
from mlx_lvm.models import filter as filter_module
from mlx_lvm.models import gru as gru_module
from mlx_lvm.models import lstm as lstm_module
from mlx_lvm.models import ramn as ramn_module
from mlx_lvm.models import transformer as transformer_module
from mlx_lvm.parity.faults.planting import Fault, Plant, call, config_of, patch, value

MODULES = {
    "amn": amn_module,
    "lstm": lstm_module,
    "gru": gru_module,
    "transformer": transformer_module,
    "ramn": ramn_module,
    "emn": emn_module,
    "filter": filter_module,
}


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
            place = (
                name.removesuffix(".out_proj"),
            )  # inside torch's attention, out_proj is no call of its own
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


def output_faults(model: str) -> Iterator[Fault]:
    """The end that all models share."""

    def normalised(function: Callable[[mx.array], mx.array]) -> Plant:
        return lambda _: patch(MODULES[model], "normalize", function)

    end = ("unit", "baseline") if model == "ramn" else ("unit",)  # which blends unit vectors before
    yield Fault(f"{model}: not normalised", model, end, normalised(lambda x: x))
    yield Fault(
        f"{model}: normalised by the sum of magnitudes",
        model,
        end,
        normalised(lambda x: x / mx.abs(x).sum(-1, keepdims=True)),
    )
    yield Fault(
        f"{model}: normalised with 1e-5 added to the norm", model, end,
        normalised(lambda x: x / (mx.linalg.norm(x, axis=-1, keepdims=True) + 1e-5)),
    )  # fmt: skip
    if model == "filter":  # ends without a layer
        return
    end = {"amn": "residual_net.6", "transformer": "head.3", "ramn": "net.7", "emn": "each_out"}.get(
        model, "output_proj"
    )
    yield Fault(
        f"{model}: {end} multiplied in bfloat16", model, (end,),
        call(end, lambda self, original, x: original(self, x.astype(mx.bfloat16).astype(mx.float32))),
    )  # fmt: skip


def gelu_faults() -> Iterator[Fault]:
    for model, names in {
        "amn": ("residual_net.1", "residual_net.4"),
        "transformer": ("head.1",),
        "ramn": ("net.2", "net.5"),
    }.items():
        for name in names:
            yield Fault(
                f"{model}: {name} by tanh",
                model,
                (name,),
                call(name, lambda self, original, x: nn.gelu_approx(x)),
            )
            yield Fault(
                f"{model}: {name} by sigmoid",
                model,
                (name,),
                call(name, lambda self, original, x: nn.gelu_fast_approx(x)),
            )
            yield Fault(
                f"{model}: {name} as relu", model, (name,), call(name, lambda self, original, x: nn.relu(x))
            )
