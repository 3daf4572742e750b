"""The three sides of a comparison: MLX and torch in the precision under test, and torch in float64, the truth.

All three hold the same numbers: weights and inputs are rounded to the precision under test once, then widened exactly.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from mlx_lvm.backend import mx, tree_flatten, tree_unflatten
from mlx_lvm.models import ModelConfig, VectorModel, build
from mlx_lvm.parity import bridge
from mlx_lvm.parity.arbiter import UNIT, Around, rms
from mlx_lvm.parity.base import Twin
from mlx_lvm.parity.setup import require_evaluation
from mlx_lvm.parity.trace import FIELDS

Outputs = dict[str, np.ndarray]
Run = Callable[[Twin, torch.Tensor], Outputs]


@dataclass(frozen=True)
class Subject:
    """What is under test: a config and its weights by torch name, float32."""

    name: str
    config: ModelConfig
    weights: Mapping[str, mx.array]
    parameters: str = "as-is"  # or "randomised"
    origin: str = "drawn by seed"
    seed: int = 0

    @classmethod
    def drawn(cls, config: ModelConfig, seed: int) -> Subject:
        """Fresh weights by seed."""
        mx.random.seed(seed)
        return cls(config.model_type, config, build(config).weights(), seed=seed)

    def randomised(self, seed: int) -> Subject:
        """Every parameter drawn anew: no bias is zero and no norm is one, so that a dropped term shows.

        Matrices N(0, 1/fan_in), biases N(0, 0.1^2), norm weights 1 + N(0, 0.3^2); each from (seed, its name).
        """
        weights = {}
        for name, old in self.weights.items():
            draw = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(old.shape)
            vector = 1 + 0.3 * draw if name.endswith(".weight") else 0.1 * draw
            weights[name] = mx.array((draw / np.sqrt(old.shape[-1]) if old.ndim > 1 else vector).astype(np.float32))
        return replace(self, weights=weights, parameters="randomised", seed=seed)

    def beside(self, unit: float, generator: torch.Generator) -> Subject:
        """The same with every weight off by up to `unit` of itself."""
        weights = {name: bridge.to_mlx(shake(bridge.to_torch(w).double(), unit, generator).float()) for name, w in self.weights.items()}
        return replace(self, weights=weights)

    def model(self, dtype: str = "float32") -> VectorModel:
        """The MLX model with these weights rounded to `dtype`, in evaluation mode."""
        model = build(self.config)
        model.load_weights([(name, value.astype(bridge.MLX[dtype])) for name, value in self.weights.items()], strict=True)
        model.eval()
        return model

    def twin(self, dtype: str = "float32", held: str = "") -> Twin:
        """The torch twin with these weights rounded to `dtype` and held in `held` (default: the same)."""
        rounded = {name: value.astype(bridge.MLX[dtype]) for name, value in {**self.weights, **build_buffers(self.config)}.items()}
        return bridge.twin(self.config, rounded, held or dtype)


def build_buffers(config: ModelConfig) -> dict[str, mx.array]:
    """The tables that a torch state dict holds beside the parameters."""
    return build(config).buffers()


class Sides:
    """Runs one subject on all three sides and hands everything back as float64 NumPy."""

    def __init__(self, subject: Subject, dtype: str = "float32") -> None:
        self.subject, self.dtype = subject, dtype
        self.torch = subject.twin(dtype)
        self._compiled: Any = None
        self.parts_at: str | None = None  # first place that parts on an ordinary input, once anything failed

    @cached_property
    def mlx(self) -> VectorModel:
        return self.subject.model(self.dtype)

    @cached_property
    def truth(self) -> Twin:
        return self.subject.twin(self.dtype, held="float64")

    def require_evaluation(self) -> None:
        require_evaluation(self.mlx.training, "MLX")
        require_evaluation(self.torch.training, "torch")

    def context(self, values: np.ndarray) -> tuple[mx.array, torch.Tensor, torch.Tensor]:
        """The same input on the three sides, rounded once."""
        rounded = mx.array(values).astype(bridge.MLX[self.dtype])
        tensor = bridge.to_torch(rounded)
        return rounded, tensor, tensor.to(torch.float64)

    def mlx_forward(self, context: np.ndarray, compiled: bool = False) -> Outputs:
        x, _, _ = self.context(context)
        if compiled and self._compiled is None:

            def outputs(x: mx.array) -> dict[str, mx.array]:
                return {k: v for k, v in self.mlx(x)._asdict().items() if v is not None}

            self._compiled = mx.compile(outputs)
        out = self._compiled(x) if compiled else self.mlx(x)._asdict()
        return {name: bridge.to_float64(value) for name, value in out.items() if value is not None}

    def torch_forward(self, context: np.ndarray) -> Outputs:
        return twin_outputs(self.torch, self.context(context)[1])

    def truth_forward(self, context: np.ndarray) -> Outputs:
        return twin_outputs(self.truth, self.context(context)[2])

    def mlx_gradients(self, context: np.ndarray, cotangents: Cotangents, compiled: bool = False) -> Outputs:
        """d(sum raw A + sum unit B) by parameter name, and `input`."""
        x, _, _ = self.context(context)
        a, b = (mx.array(c).astype(x.dtype) for c in cotangents)
        model, weights = self.mlx, dict(tree_flatten(self.mlx.trainable_parameters()))

        def value(weights: dict[str, mx.array], x: mx.array) -> mx.array:
            model.update(tree_unflatten(list(weights.items())))
            prediction = model(x)
            return (prediction.raw * a).sum() + (prediction.unit * b).sum()

        function: Callable = mx.grad(value, argnums=(0, 1))
        by_weight, by_input = (mx.compile(function) if compiled else function)(weights, x)
        model.update(tree_unflatten(list(weights.items())))
        return {**{name: bridge.to_float64(g) for name, g in by_weight.items()}, "input": bridge.to_float64(by_input)}

    def torch_gradients(self, context: np.ndarray, cotangents: Cotangents) -> Outputs:
        return twin_gradients(self.torch, self.context(context)[1], self.rounded(cotangents))

    def truth_gradients(self, context: np.ndarray, cotangents: Cotangents) -> Outputs:
        return twin_gradients(self.truth, self.context(context)[2], self.rounded(cotangents))

    def rounded(self, cotangents: Cotangents) -> list[torch.Tensor]:
        return [bridge.to_torch(mx.array(c).astype(bridge.MLX[self.dtype])) for c in cotangents]

    def around(self, run: Run, context: np.ndarray, truth: Outputs, draws: int = 4) -> dict[str, Around]:
        """What happens near a case to each output of `run`, in several draws.

        moved: every weight and input of the float64 twin off by up to sqrt(dim) u, the backward error of one product of
        `dim` terms. torch_error: weights and input off by a few roundings, on both torch sides alike.
        """
        generator = torch.Generator().manual_seed(0)
        reach = float(np.sqrt(context.shape[-1]))
        found = {name: Around(0.0, 0.0) for name in truth}
        for _ in range(draws):
            away = self._moved(run, context, truth, reach * UNIT[self.dtype], generator)
            near = Sides(self.subject.beside(4 * UNIT[self.dtype], generator), self.dtype)
            beside = bridge.to_float64(shake(self.context(context)[2], 4 * UNIT[self.dtype], generator)).astype(np.float32)
            _, torch_x, truth_x = self.context(beside)
            other, true = run(near.torch, torch_x), run(near.truth, truth_x)
            for name, (moved, error) in found.items():
                found[name] = Around(max(moved, away[name]), max(error, _distance(other[name], true[name])))
        return found

    def noise(self, run: Run, context: np.ndarray, truth: Outputs) -> dict[str, float]:
        """Rms change of each output of the float64 twin when everything moves by float64's own rounding."""
        return self._moved(run, context, truth, 1e-15, torch.Generator().manual_seed(0))

    def _moved(self, run: Run, context: np.ndarray, truth: Outputs, unit: float, generator: torch.Generator) -> dict[str, float]:
        shaken = self.subject.twin(self.dtype, held="float64")
        with torch.no_grad():
            for parameter in shaken.parameters():
                parameter.copy_(shake(parameter, unit, generator))
        out = run(shaken, shake(self.context(context)[2], unit, generator))
        return {name: _distance(out[name], truth[name]) for name in truth}


def shake(value: torch.Tensor, unit: float, generator: torch.Generator) -> torch.Tensor:
    """Every element off by up to `unit` of itself."""
    return value * (1 + unit * (2 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return rms((a - b)[both])


Cotangents = tuple[np.ndarray, np.ndarray]


def draw_cotangents(shape: tuple[int, ...], seed: int = 0) -> Cotangents:
    """Weights A, B of a scalar sum(raw A) + sum(unit B): a general direction, not the one that a loss happens to take."""
    draw = np.random.default_rng([seed, *shape])
    return draw.standard_normal(shape).astype(np.float32), draw.standard_normal(shape).astype(np.float32)


def twin_outputs(model: Twin, context: torch.Tensor) -> Outputs:
    with torch.no_grad():
        prediction = model(context)
    return {name: bridge.to_float64(getattr(prediction, name)) for name in FIELDS if getattr(prediction, name) is not None}


def twin_gradients(model: Twin, context: torch.Tensor, cotangents: list[torch.Tensor]) -> Outputs:
    """Gradients by parameter name, and `input`. A parameter that the output does not depend on has a gradient of zero."""
    x = context.clone().requires_grad_()
    names, parameters = zip(*model.named_parameters(), strict=True)
    prediction = model(x)
    found = torch.autograd.grad(
        [prediction.raw, prediction.unit], [*parameters, x], [c.to(x.dtype) for c in cotangents], allow_unused=True, materialize_grads=True
    )
    return {name: bridge.to_float64(g) for name, g in zip([*names, "input"], found, strict=True)}
