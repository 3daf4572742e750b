"""Taps: every named submodule's input and output in order, down to the gates of each recurrent step.

inherited error: the model runs freely, so a tap shows what arrived from everything before it;
own error:       every submodule is fed the float64 truth, rounded to the precision under test, whatever came
                 before it really gave. A tap then shows only what happened since the tap before it: `x <-`
                 what was done between submodules to make x's input, `x` what x did.

The first tap in order whose own error fails is the first place that creates error. Where none does, an
inherited error is also held against torch's on neighbouring inputs, as that of a prediction is: a residual of
two weights that nearly cancel is right or wrong by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn as torch_nn

from mlx_lvm.core.mlx import mx
from mlx_lvm.parity.arbiter import UNIT, NeighbourErrors, gamma, judge, once, rms, slack_of_sum
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.inputs import Case
from mlx_lvm.parity.sides.recurrence import steps_of
from mlx_lvm.parity.sides.sides import Outputs, Sides
from mlx_lvm.parity.sides.trace import FIELDS, INPUT, Trace, again, ask, mlx_trace, slack_of
from mlx_lvm.parity.verdict import Check, Compared, blamed, failed


def torch_trace(
    model: torch_nn.Module, context: torch.Tensor, forced: dict[str, np.ndarray] | None = None
) -> Trace:
    """A run of a twin with all taps."""
    trace = Trace(forced)
    with tapped(model, trace), torch.no_grad():
        prediction = ask(model, context)
    for name in FIELDS:
        value = getattr(prediction, name)
        if value is not None:
            trace.values[name] = bridge.to_float64(value)
    return replace(trace, values=_in_order(trace.values))


@contextmanager
def tapped(model: torch_nn.Module, trace: Trace) -> Iterator[None]:
    """The submodules of a torch module report to `trace` while it lasts, and go on with what it forces."""
    calls: dict[str, int] = {}
    containers = {name.rpartition(".")[0] for name, _ in model.named_modules() if name}

    def see(tap: str, value: torch.Tensor) -> torch.Tensor:
        other = trace.see(tap, bridge.to_float64(value))
        return value if other is None else torch.from_numpy(other).to(value.dtype)

    def before(name: str) -> Callable:
        def hook(module: torch_nn.Module, args: tuple) -> tuple:
            if again(calls, name):
                return args
            seen: dict[int, torch.Tensor] = {}  # one array given twice stays one array
            out = []
            for k, arg in enumerate(args):
                if id(arg) not in seen and isinstance(arg, torch.Tensor):
                    seen[id(arg)] = see(f"{name}{INPUT}{k or ''}", arg)
                out.append(seen.get(id(arg), arg))
            return tuple(out)

        return hook

    def after(name: str) -> Callable:
        def hook(module: torch_nn.Module, args: tuple, output: Any) -> Any:
            if calls[name] > 1:
                return output
            if isinstance(module, (torch_nn.LSTM, torch_nn.GRU)):
                steps_of(module, args[0], lambda tap, value: see(f"{name}.{tap}", value))
            if isinstance(output, tuple):
                return (see(name, output[0]), *output[1:])
            return see(name, output)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            attention = isinstance(module, torch_nn.MultiheadAttention)
            inside = any(
                name.startswith(f"{n}.")
                for n, m in model.named_modules()
                if isinstance(m, torch_nn.MultiheadAttention)
            )
            if not name or inside or (name in containers and not attention):
                continue
            stack.callback(module.register_forward_pre_hook(before(name)).remove)
            stack.callback(module.register_forward_hook(after(name)).remove)
        yield


def _in_order(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A prediction's parts come before their sum; AMN's baseline and attention before the network that reads
    them.
    """
    order = [name for name in values if name not in FIELDS]
    if "attention" in values:
        order.insert(next(k for k, name in enumerate(order) if name.startswith("residual_net")), "attention")
        order.insert(0, "baseline")
    last = [name for name in ("baseline", "residual", "raw", "unit") if name in values and name not in order]
    return {name: values[name] for name in [*order, *last]}


def taps_checks(sides: Sides, cases: Iterable[Case]) -> Iterator[Check]:
    """Own and inherited error of every tap of every case; each failure names the first place that parts."""
    sides.require_evaluation()
    for case in cases:
        found = tap_case(sides, case)
        yield from blamed(found, first_divergence(found), (sides.subject, case))


@dataclass(frozen=True)
class Reference:
    """What torch says of a case: what submodules are fed, and by kind of error the truth and torch's own
    values.
    """

    forced: dict[str, np.ndarray]
    truth: dict[str, dict[str, np.ndarray]]
    torch: dict[str, dict[str, np.ndarray]]


def reference(sides: Sides, case: Case) -> Reference:
    """Kept where `sides.keep` says so: planting a fault in MLX changes nothing here."""
    if case.name in sides.kept:
        return sides.kept[case.name]
    _, torch_x, truth_x = sides.context(case.context)
    free = torch_trace(sides.truth, truth_x).values
    forced = {tap: rounded(value, sides.dtype) for tap, value in free.items() if tap not in FIELDS}
    out = Reference(
        forced,
        {"own": torch_trace(sides.truth, truth_x, forced).values, "inherited": free},
        {
            "own": torch_trace(sides.torch, torch_x, forced).values,
            "inherited": torch_trace(sides.torch, torch_x).values,
        },
    )
    if sides.keep:
        sides.kept[case.name] = out
    return out


def tap_case(sides: Sides, case: Case) -> list[Check]:
    mlx_x, known = sides.context(case.context)[0], reference(sides, case)
    head = Compared(sides.subject.name, "taps", sides.subject.parameters, case=case.name)
    found: list[Check] = []
    for kind, force in (("own", known.forced), ("inherited", None)):
        truth, other = known.truth[kind], known.torch[kind]
        trace = mlx_trace(sides.mlx, mlx_x, known.truth["inherited"], force)
        if force:
            trace.values.update(alone(sides, trace, force))
        whole = not force and all(check.passed for check in found)
        near = once(partial(lucky, sides, case, trace)) if whole else None
        for tap in truth:
            what = head._replace(run=kind, value=tap)
            if tap in trace.shapes:
                found.append(failed(what, f"shapes differ: {trace.shapes[tap]}"))
            elif tap in trace.values:
                mine = trace.values[tap]
                theirs, target = same_places(other[tap], mine), same_places(truth[tap], mine)
                given = force or known.truth["inherited"]
                slack = max(slack_of(sides.mlx, tap, sides.dtype), slack_of_terms(sides, tap, given, target))
                asked = near(tap) if near else None
                check = judge(what, mine, theirs, target, sides.dtype, slack=slack, neighbours=asked)
                found.append(within_bound(check, sides, tap, mine, target, force) if force else check)
    return found


def same_places(value: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Of torch's value what MLX made too: it may make the last position alone."""
    return value[:, -mine.shape[1] :] if mine.ndim == 3 else value


def lucky(sides: Sides, case: Case, trace: Trace) -> dict[str, NeighbourErrors]:
    """Torch's largest error at each tap of `trace` on neighbouring inputs. How far the truth moves there
    excuses nothing: a tap may be far off where its prediction is not.
    """

    def run(model: torch_nn.Module, x: torch.Tensor) -> Outputs:
        values = torch_trace(model, x).values
        return {tap: same_places(values[tap], mine) for tap, mine in trace.values.items()}

    truth = run(sides.truth, sides.context(case.context)[2])
    near = sides.neighbours(
        run, lambda x: mlx_trace(sides.mlx, sides.context(x)[0], truth).values, case.context, truth
    )
    return {tap: NeighbourErrors(torch_error=errors.torch_error) for tap, errors in near.items()}


def rounded(value: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to `dtype` once, then widened back to float64."""
    return torch.from_numpy(np.ascontiguousarray(value)).to(bridge.TORCH[dtype]).to(torch.float64).numpy()


def alone(sides: Sides, trace: Trace, forced: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Submodules that MLX's forward folds into another product, called on the truth by themselves (AMN's
    context_encoder).
    """
    out = {}
    for name, module in sides.mlx.named_modules():
        given = forced.get(f"{name}{INPUT}")
        if name in forced and name not in trace.values and given is not None and "weight" in module:
            x = mx.array(given.astype(np.float32)).astype(bridge.MLX[sides.dtype])
            out[name] = bridge.to_float64(module(x))
    return out


def slack_of_terms(sides: Sides, tap: str, given: dict[str, np.ndarray], truth: np.ndarray) -> float:
    """Of a linear layer: the random walk of its sum's roundings, or where its terms nearly cancel one
    rounding of every term.

    How a BLAS adds decides what it errs: one accumulator for a whole row is off by 6 u over 768 inputs
    (OpenBLAS), sixteen by 1 u (MKL), and both are right. A bug shows in gamma_n, see `within_bound`, and in
    what the layer gives on.
    """
    layer, x = dict(sides.truth.named_modules()).get(tap), given.get(f"{tap}{INPUT}")
    if not isinstance(layer, torch_nn.Linear) or x is None or not np.isfinite(x).all():
        return 1.0
    if truth.ndim == 3:
        x = x[:, -truth.shape[1] :]
    squares = np.square(x) @ np.square(layer.weight.detach().numpy()).T
    squares = squares + (0 if layer.bias is None else np.square(layer.bias.detach().numpy()))
    size = rms(truth)
    return max(slack_of_sum(layer.in_features, sides.dtype), rms(np.sqrt(squares)) / size) if size else 1.0


def within_bound(
    check: Check, sides: Sides, tap: str, mlx: np.ndarray, truth: np.ndarray, forced: dict[str, np.ndarray]
) -> Check:
    """A linear layer's error is at most gamma_(n+1) (|W| |x| + |b|), element by element, in whatever order it
    sums. More is a bug.
    """
    layer = dict(sides.truth.named_modules()).get(tap)
    if not isinstance(layer, torch_nn.Linear):
        return check
    factor = gamma(layer.in_features + 1, UNIT[sides.dtype])
    if not np.isfinite(factor):  # so wide a sum has no bound in so short a format
        return check
    x = np.abs(forced[f"{tap}{INPUT}"])
    if mlx.ndim == 3:
        x = x[:, -mlx.shape[1] :]
    sizes = x @ np.abs(layer.weight.detach().numpy()).T + (
        0 if layer.bias is None else np.abs(layer.bias.detach().numpy())
    )
    excess = np.abs(mlx - truth) - factor * sizes
    if (excess > 0).any():
        return replace(
            check,
            verdict="MLX inaccurate",
            passed=False,
            note=f"outside the bound gamma_n (|W||x| + |b|) by {excess.max():.1e}: a bug",
        )
    return replace(check, bound=min(check.bound, factor * rms(sizes)))


def first_divergence(checks: list[Check]) -> str:
    """The first failing tap by own error; by inherited error where no own error fails; empty where nothing
    does.
    """
    for kind in ("own", "inherited"):
        for check in checks:
            if not check.passed and check.what.run == kind:
                return check.what.value
    return ""
