"""`check`: any MLX module against any torch module with the same weights, from the same inputs.

The judge is that of the whole package: a float64 copy of the torch module is the truth, and MLX may err 8
times as much as torch does in float32. Compared are the weights to the bit, every submodule that both sides
have, given the truth and with what it inherits, the outputs, and the gradients of all parameters and inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from mlx_lvm.core.mlx import mx, nn, tree_flatten, tree_unflatten
from mlx_lvm.parity.arbiter import NeighbourErrors, judge, judge_each, rms
from mlx_lvm.parity.report.port import PortReport, first_place
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.setup import require_valid
from mlx_lvm.parity.sides.sides import shake, shaken_copy
from mlx_lvm.parity.sides.taps import tapped
from mlx_lvm.parity.sides.trace import Outputs, Trace, float64, mlx_tapped
from mlx_lvm.parity.verdict import Check, Compared, exact, failed

Names = Callable[[str], str]
DRAWS = 3  # neighbouring inputs on which torch's usual error is measured


def check(
    mlx_module: nn.Module,
    torch_module: torch.nn.Module,
    inputs: Any,
    names: Mapping[str, str] | Names | None = None,
) -> PortReport:
    """Compare a port with its original.

    inputs: an array or a tuple of them, NumPy, MLX or torch, given to both sides in order; floating ones
            become float32.
    names:  torch's name for a name of MLX, of a module or a parameter. A mapping holds for what lies below a
            name too: {"attn.wq": "attention.query"}; a function gets MLX's whole name. What is not named is
            called alike.

    >>> print(check(port, original, x, {"w1": "gate_proj"}))  # doctest: +SKIP

    Both modules hold their weights already. They run in evaluation mode, and are left as they were.
    Raises SetupInvalid where products are not full float32 here (TF32).
    """
    require_valid()
    given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    with evaluating(mlx_module, torch_module):
        port = Port(mlx_module, torch_module, [_numpy(value) for value in given], renaming(names))
        found = [*port.weights(), *port.taps(), *port.outputs(), *port.gradients()]
    return PortReport(found, first_place(found))


def renaming(names: Mapping[str, str] | Names | None) -> Names:
    """MLX's name to torch's; of a mapping the longest beginning counts."""
    if callable(names):
        return names
    known = sorted((names or {}).items(), key=lambda pair: -len(pair[0]))

    def rename(name: str) -> str:
        for old, new in known:
            if name == old or name.startswith(f"{old}."):
                return new + name[len(old) :]
        return name

    return rename


@contextmanager
def evaluating(mlx_module: nn.Module, torch_module: torch.nn.Module) -> Iterator[None]:
    """Both in evaluation mode while it lasts."""
    before = mlx_module.training, torch_module.training
    mlx_module.eval()
    torch_module.eval()
    try:
        yield
    finally:
        mlx_module.train(before[0])
        torch_module.train(before[1])


class Port:
    """One pair of modules and the inputs that they are compared on."""

    def __init__(
        self, mlx_module: nn.Module, torch_module: torch.nn.Module, inputs: list[np.ndarray], rename: Names
    ) -> None:
        self.mlx, self.torch, self.inputs, self.rename = mlx_module, torch_module, inputs, rename
        self.truth = copy.deepcopy(torch_module).double()

    def weights(self) -> Iterator[Check]:
        """Every parameter to the bit."""
        mine = {self.rename(name): float64(value) for name, value in leaves(self.mlx.parameters())}
        theirs = {name: bridge.to_float64(value) for name, value in self.torch.named_parameters()}
        only = sorted(set(mine) - set(theirs)), sorted(set(theirs) - set(mine))
        if any(only):
            note = f"only MLX has {only[0]}, only torch {only[1]}: say which is which with names="
            yield failed(Compared(stage="weights", value="names"), note, compared=len(theirs))
        for name in (name for name in theirs if name in mine):
            like = as_laid(theirs[name], mine[name].shape)
            same = like is not None and np.array_equal(mine[name], like)
            note = "" if same else f"MLX {mine[name].shape}, torch {theirs[name].shape}: other numbers"
            yield exact(Compared(stage="weights", value=name), same, note, name, mine[name].size)

    def taps(self) -> Iterator[Check]:
        """Every submodule that both sides have: given the truth (own), and with what it inherits."""
        free = self.torch_taps(self.truth)
        forced = {tap: value.astype(np.float32).astype(np.float64) for tap, value in free.items()}
        for stage, force in (("own", forced), ("inherited", None)):
            truth = self.torch_taps(self.truth, force) if force else free
            other, mine = self.torch_taps(self.torch, force), self.mlx_taps(free, force)
            for tap, value in truth.items():
                if tap in mine.shapes:
                    yield failed(Compared(stage=stage, value=tap), f"shapes differ: {mine.shapes[tap]}")
                elif tap in mine.values:
                    what = Compared(stage=stage, value=tap)
                    yield judge(what, mine.values[tap], other[tap], value, "float32")

    def torch_taps(self, model: torch.nn.Module, forced: Outputs | None = None) -> Outputs:
        trace = Trace(forced)
        with tapped(model, trace), torch.no_grad():
            model(*self.tensors(model))
        return trace.values

    def mlx_taps(self, like: Outputs, forced: Outputs | None = None) -> Trace:
        trace = Trace(forced)
        with mlx_tapped(self.mlx, trace, like, self.rename):
            mx.eval(list(named(self.mlx(*map(mx.array, self.inputs))).values()))
        return trace

    def tensors(self, model: torch.nn.Module) -> list[torch.Tensor]:
        """The inputs as the model's precision wants them."""
        kind = next((p.dtype for p in model.parameters()), torch.float32)
        given = [torch.from_numpy(value) for value in self.inputs]
        return [value.to(kind) if value.is_floating_point() else value for value in given]

    def outputs(self) -> Iterator[Check]:
        mine = {name: float64(value) for name, value in self.mlx_outputs.items()}
        torch_out, truth = (forward(model, self.tensors(model)) for model in (self.torch, self.truth))
        near = partial(partial, self.neighbours, forward)
        yield from judge_each(Compared(stage="outputs"), mine, torch_out, truth, "float32", near)

    @cached_property
    def mlx_outputs(self) -> dict[str, mx.array]:
        return named(self.mlx(*map(mx.array, self.inputs)))

    def gradients(self) -> Iterator[Check]:
        """Of a sum of the outputs with random weights, by every parameter and every floating input."""
        draw = np.random.default_rng(0)
        pulls = {k: draw.standard_normal(v.shape).astype(np.float32) for k, v in self.mlx_outputs.items()}
        run = partial(torch_gradients, pulls)
        other, truth = (run(model, self.tensors(model)) for model in (self.torch, self.truth))
        largest = max((rms(value) for value in truth.values()), default=0.0)
        mine = self.mlx_gradients(pulls)
        for name in (name for name in truth if name in mine):
            true, value = as_laid(truth[name], mine[name].shape), as_laid(other[name], mine[name].shape)
            what = Compared(stage="gradients", value=name)
            if true is None or value is None:
                yield failed(what, f"MLX {mine[name].shape}, torch {truth[name].shape}")
                continue
            null = rms(true) <= 2.0**-43 * largest  # zero by mathematics: a bias that softmax ignores
            near = partial(self.neighbours, run, name)
            scale = largest if null else 0.0
            yield judge(what, mine[name], value, true, "float32", neighbours=near, scale=scale)

    def mlx_gradients(self, pulls: Outputs) -> Outputs:
        weights = dict(leaves(self.mlx.trainable_parameters()))
        places = [k for k, value in enumerate(self.inputs) if value.dtype == np.float32]

        def value(weights: dict[str, mx.array], floating: list[mx.array]) -> mx.array:
            self.mlx.update(tree_unflatten(list(weights.items())))
            given = [mx.array(x) for x in self.inputs]
            for k, x in zip(places, floating, strict=True):
                given[k] = x
            out = named(self.mlx(*given))
            return mx.stack([(out[name] * mx.array(pulls[name])).sum() for name in out]).sum()

        floating = [mx.array(self.inputs[k]) for k in places]
        by_weight, by_input = mx.grad(value, argnums=(0, 1))(weights, floating)
        self.mlx.update(tree_unflatten(list(weights.items())))
        found = {self.rename(name): float64(g) for name, g in by_weight.items()}
        return {**found, **{f"input.{k}": float64(g) for k, g in zip(places, by_input, strict=True)}}

    def neighbours(self, run: Callable[..., Outputs], name: str) -> NeighbourErrors:
        """What torch errs on neighbouring weights and inputs."""
        unit, error = 4 * 2.0**-24, 0.0
        for draw in range(DRAWS):
            generator = torch.Generator().manual_seed(draw)
            near = shaken_copy(self.torch, unit, generator)
            given = [
                shake(x.double(), unit, generator).float() if x.is_floating_point() else x
                for x in self.tensors(near)
            ]
            true = copy.deepcopy(near).double()
            wide = [x.double() if x.is_floating_point() else x for x in given]
            error = max(error, rms(run(near, given)[name] - run(true, wide)[name]))
        return NeighbourErrors(0.0, error)


def leaves(tree: Any) -> list[tuple[str, mx.array]]:
    found: Any = tree_flatten(tree)
    return list(found)


def named(out: Any) -> dict[str, Any]:
    """The arrays of an output by name: `output`, or the names or numbers of a mapping or a tuple."""
    if isinstance(out, Mapping):
        pairs = list(out.items())
    elif isinstance(out, (tuple, list)):
        pairs = list(zip(getattr(out, "_fields", map(str, range(len(out)))), out, strict=True))
    else:
        pairs = [("output", out)]
    return {str(name): value for name, value in pairs if isinstance(value, (mx.array, torch.Tensor))}


def forward(model: torch.nn.Module, given: list[torch.Tensor]) -> Outputs:
    with torch.no_grad():
        return {name: bridge.to_float64(value) for name, value in named(model(*given)).items()}


def torch_gradients(pulls: Outputs, model: torch.nn.Module, given: list[torch.Tensor]) -> Outputs:
    inputs = [x.clone().requires_grad_() if x.is_floating_point() else x for x in given]
    by = {f"input.{k}": x for k, x in enumerate(inputs) if x.requires_grad}
    by = {**{name: p for name, p in model.named_parameters() if p.requires_grad}, **by}
    out = named(model(*inputs))
    total = torch.stack([(out[n] * torch.from_numpy(pulls[n])).sum() for n in out if n in pulls]).sum()
    found = torch.autograd.grad(total, list(by.values()), allow_unused=True, materialize_grads=True)
    return {name: bridge.to_float64(g) for name, g in zip(by, found, strict=True)}


def as_laid(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """In MLX's layout, which has channels last in convolutions; None where it does not fit."""
    if value.shape == shape:
        return value
    turned = np.moveaxis(value, 1, -1) if value.ndim > 2 else value
    return turned if turned.shape == shape else None


def _numpy(value: Any) -> np.ndarray:
    out = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.array(value)
    return out.astype(np.float32) if out.dtype.kind == "f" else out
