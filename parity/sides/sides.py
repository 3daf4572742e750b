"""The three sides of a comparison: MLX and torch in the precision under test, and torch in float64, the
truth.

All three hold the same numbers: weights and inputs are rounded to the precision under test once, then widened
exactly.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from mlx_lvm.core.mlx import mx, tree_flatten, tree_unflatten
from mlx_lvm.models import ModelConfig, VectorModel, build
from mlx_lvm.parity.arbiter import SMALLEST_NORMAL, UNIT, NeighbourErrors, rms
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.setup import flushes_subnormals, require_evaluation
from mlx_lvm.parity.sides.trace import Outputs, ask
from mlx_lvm.parity.twins.base import Twin

Run = Callable[[Twin, torch.Tensor], Outputs]
MlxRun = Callable[[np.ndarray], Outputs]


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
            value = draw / np.sqrt(old.shape[-1]) if old.ndim > 1 else vector
            weights[name] = mx.array(value.astype(np.float32))
        return replace(self, weights=weights, parameters="randomised", seed=seed)

    def model(self, dtype: str = "float32") -> VectorModel:
        """The MLX model with these weights rounded to `dtype`, in evaluation mode."""
        model = build(self.config)
        rounded = [(name, value.astype(bridge.MLX[dtype])) for name, value in self.weights.items()]
        model.load_weights(rounded, strict=True)
        model.eval()
        return model

    def twin(self, dtype: str = "float32", held: str = "") -> Twin:
        """The torch twin with these weights rounded to `dtype` and held in `held` (default: the same)."""
        state = {**self.weights, **build(self.config).buffers()}
        rounded = {name: value.astype(bridge.MLX[dtype]) for name, value in state.items()}
        return bridge.twin(self.config, rounded, held or dtype)


class Sides:
    """Runs one subject on all three sides and hands everything back as float64 NumPy."""

    def __init__(self, subject: Subject, dtype: str = "float32", keep: bool = False) -> None:
        self.subject, self.dtype = subject, dtype
        # what torch said of a case, for comparisons that come again
        self.keep, self.kept = keep, dict[str, Any]()
        self.torch = subject.twin(dtype)
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
        """The same input on the three sides, rounded once; with zeros where the device flushes subnormals."""
        if flushes_subnormals(mx.default_device()):
            values = np.where(np.abs(values) < SMALLEST_NORMAL, np.float32(0), values)
        rounded = mx.array(values).astype(bridge.MLX[self.dtype])
        tensor = bridge.to_torch(rounded)
        return rounded, tensor, tensor.to(torch.float64)

    def mlx_forward(self, context: np.ndarray, compiled: bool = False) -> Outputs:
        x, _, _ = self.context(context)
        out = self._compiled(x) if compiled else ask(self.mlx, x)
        return {name: bridge.to_float64(value) for name, value in out.items()}

    @cached_property
    def _compiled(self) -> Callable[[mx.array], dict[str, mx.array]]:
        return mx.compile(partial(ask, self.mlx))

    def on_torch(self, run: Run, context: np.ndarray) -> tuple[Outputs, Outputs]:
        """What `run` finds on torch in the precision under test, and on the truth."""
        _, torch_x, truth_x = self.context(context)
        return run(self.torch, torch_x), run(self.truth, truth_x)

    def mlx_gradients(self, context: np.ndarray, cotangents: Cotangents, compiled: bool = False) -> Outputs:
        """d(sum raw A + sum unit B + sum ahead A, if there is one), by parameter name, and `input`."""
        x, _, _ = self.context(context)
        a, b = (mx.array(c).astype(x.dtype) for c in cotangents)
        model, weights = self.mlx, dict(tree_flatten(self.mlx.trainable_parameters()))

        def value(weights: dict[str, mx.array], x: mx.array) -> mx.array:
            model.update(tree_unflatten(list(weights.items())))
            out = ask(model, x)
            further = (out["ahead"] * a[:, None]).sum() if "ahead" in out else 0
            return (out["raw"] * a).sum() + (out["unit"] * b).sum() + further

        function: Callable = mx.grad(value, argnums=(0, 1))
        by_weight, by_input = (mx.compile(function) if compiled else function)(weights, x)
        model.update(tree_unflatten(list(weights.items())))
        return {name: bridge.to_float64(g) for name, g in {**by_weight, "input": by_input}.items()}

    def rounded(self, cotangents: Cotangents) -> list[torch.Tensor]:
        return [bridge.to_torch(mx.array(c).astype(bridge.MLX[self.dtype])) for c in cotangents]

    def neighbours(
        self, run: Run, mlx_run: MlxRun, context: np.ndarray, truth: Outputs, draws: int = 12
    ) -> dict[str, NeighbourErrors]:
        """What happens near a case to each output of `run`, in several draws.

        moved: every weight and input of the float64 twin off by up to sqrt(dim) u, the backward error of one
        product of `dim` terms. The errors: weights and inputs off by a few roundings, on all sides alike. A
        gradient that is one number cancels differently in each; the largest of twelve is not luck any more.
        Where an ordinary input has shown a fault already, nothing excuses another failure.
        """
        if self.parts_at:
            return dict.fromkeys(truth, NeighbourErrors())
        generator = torch.Generator().manual_seed(0)
        reach, few = float(np.sqrt(context.shape[-1])) * UNIT[self.dtype], 4 * UNIT[self.dtype]
        found = dict.fromkeys(truth, NeighbourErrors(0.0, 0.0, 0.0))
        for _ in range(draws):
            away = self._moved(run, context, truth, reach, generator)
            with self.shaken(few, generator) as (near, near_truth):
                shaken = shake(self.context(context)[2], few, generator).to(torch.float32).numpy()
                _, torch_x, truth_x = self.context(shaken)
                true, other, mine = run(near_truth, truth_x), run(near, torch_x), mlx_run(shaken)
            for name, old in found.items():
                error, mlx_error = _distance(other[name], true[name]), _distance(mine[name], true[name])
                found[name] = NeighbourErrors(
                    max(old.moved, away[name]), max(old.torch_error, error), max(old.mlx_error, mlx_error)
                )
        return found

    @contextmanager
    def shaken(self, unit: float, generator: torch.Generator) -> Iterator[tuple[Twin, Twin]]:
        """The torch and the float64 twin with every weight off by up to `unit` of itself; so are MLX's while
        it lasts, which are moved, not replaced, so that a fault in them stays.
        """
        factors = {
            name: shake(torch.ones(value.shape, dtype=torch.float64), unit, generator)
            for name, value in self.subject.weights.items()
        }
        kind = bridge.TORCH[self.dtype]

        def moved(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {
                name: (value.double() * factors[name]).to(kind) if name in factors else value.to(kind)
                for name, value in weights.items()
            }

        near = copy.deepcopy(self.torch)
        near.load_state_dict(moved(near.state_dict()))
        truth = copy.deepcopy(near).double()
        held = self.mlx.weights()
        shaken = moved({name: bridge.to_torch(value) for name, value in held.items()})
        self.mlx.load_weights([(name, bridge.to_mlx(value)) for name, value in shaken.items()])
        try:
            yield near, truth
        finally:
            self.mlx.load_weights(list(held.items()))

    def noise(self, run: Run, context: np.ndarray, truth: Outputs) -> dict[str, float]:
        """Rms change of each output of the float64 twin when everything moves by float64's own rounding."""
        return self._moved(run, context, truth, 1e-15, torch.Generator().manual_seed(0))

    def _moved(
        self, run: Run, context: np.ndarray, truth: Outputs, unit: float, generator: torch.Generator
    ) -> dict[str, float]:
        near = shaken_copy(self.truth, unit, generator)
        out = run(near, shake(self.context(context)[2], unit, generator))
        return {name: _distance(out[name], truth[name]) for name in truth}


def shake(value: torch.Tensor, unit: float, generator: torch.Generator) -> torch.Tensor:
    """Every element off by up to `unit` of itself."""
    return value * (1 + unit * (2 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1))


def shaken_copy(model: Any, unit: float, generator: torch.Generator) -> Any:
    """The torch module with every parameter off by up to `unit` of itself."""
    near = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in near.parameters():
            parameter.copy_(shake(parameter.double(), unit, generator))
    return near


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return rms((a - b)[both])


Cotangents = tuple[np.ndarray, np.ndarray]


def draw_cotangents(shape: tuple[int, ...], seed: int = 0) -> Cotangents:
    """Weights A, B of a scalar sum(raw A) + sum(unit B): a general direction, not that of some loss."""
    draw = np.random.default_rng([seed, *shape])
    return draw.standard_normal(shape).astype(np.float32), draw.standard_normal(shape).astype(np.float32)


def twin_outputs(model: Twin, context: torch.Tensor) -> Outputs:
    with torch.no_grad():
        return {name: bridge.to_float64(value) for name, value in ask(model, context).items()}


def twin_gradients(model: Twin, context: torch.Tensor, cotangents: list[torch.Tensor]) -> Outputs:
    """Gradients by parameter name, and `input`; of zero where the output does not depend on a parameter."""
    x = context.clone().requires_grad_()
    by = {**dict(model.named_parameters()), "input": x}
    out = ask(model, x)
    a, b = (c.to(x.dtype) for c in cotangents)
    weights = {"raw": a, "unit": b}
    if "ahead" in out:
        weights["ahead"] = a[:, None].expand_as(out["ahead"])
    outputs = [out[name] for name in weights]
    found = torch.autograd.grad(
        outputs, list(by.values()), list(weights.values()), allow_unused=True, materialize_grads=True
    )
    return {name: bridge.to_float64(g) for name, g in zip(by, found, strict=True)}
