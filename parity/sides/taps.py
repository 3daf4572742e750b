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
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn as torch_nn

from mlx_lvm.core.mlx import mx
from mlx_lvm.parity.arbiter import UNIT, NeighbourErrors, gamma, judge, once, rms, slack_of_sum
from mlx_lvm.parity.sides import bridge
from mlx_lvm.parity.sides.inputs import Case
from mlx_lvm.parity.sides.recurrence import steps_of
from mlx_lvm.parity.sides.sides import Sides
from mlx_lvm.parity.sides.trace import FIELDS, INPUT, Outputs, Trace, ask, mlx_trace, same_places, slack_of
from mlx_lvm.parity.verdict import MLX_INACCURATE, Check, Compared, blamed, failed, first_divergence


def torch_trace(model: torch_nn.Module, context: torch.Tensor, forced: Outputs | None = None) -> Trace:
    """A run of a twin with all taps."""
    trace = Trace(forced)
    with tapped(model, trace), torch.no_grad():
        prediction = ask(model, context)
    trace.values |= {name: bridge.to_float64(value) for name, value in prediction.items()}
    return replace(trace, values=_in_order(trace.values))


@contextmanager
def tapped(model: torch_nn.Module, trace: Trace) -> Iterator[None]:
    """The submodules of a torch module report to `trace` while it lasts, and go on with what it forces."""
    containers = {name.rpartition(".")[0] for name, _ in model.named_modules() if name}
    attentions = {n for n, m in model.named_modules() if isinstance(m, torch_nn.MultiheadAttention)}
    inside = tuple(f"{name}." for name in attentions)

    def see(tap: str, value: torch.Tensor) -> torch.Tensor:
        other = trace.see(tap, bridge.to_float64(value))
        return value if other is None else torch.from_numpy(other).to(value.dtype)

    def before(name: str) -> Callable:
        def hook(module: torch_nn.Module, args: tuple) -> tuple:
            if trace.again(name):
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
            if trace.calls[name] > 1:
                return output
            if isinstance(module, (torch_nn.LSTM, torch_nn.GRU)):
                steps_of(module, args[0], lambda tap, value: see(f"{name}.{tap}", value))
            if isinstance(output, tuple):
                return (see(name, output[0]), *output[1:])
            return see(name, output)

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if not name or name.startswith(inside) or name in containers - attentions:
                continue
            stack.callback(module.register_forward_pre_hook(before(name)).remove)
            stack.callback(module.register_forward_hook(after(name)).remove)
        yield


def _in_order(values: Outputs) -> Outputs:
    """A prediction's parts before their sum; AMN's baseline and attention before the network they go into."""
    order = [name for name in values if name not in FIELDS]
    if "attention" in values:
        order.insert(next(k for k, name in enumerate(order) if name.startswith("residual_net")), "attention")
        order.insert(0, "baseline")
    last = ("baseline", "residual", "raw", "unit", "ahead")
    return {name: values[name] for name in dict.fromkeys([*order, *last]) if name in values}


def taps_checks(sides: Sides, cases: Iterable[Case]) -> Iterator[Check]:
    """Own and inherited error of every tap of every case; each failure names the first place that parts."""
    sides.require_evaluation()
    for case in cases:
        found = tap_case(sides, case)
        yield from blamed(found, first_divergence(found), (sides.subject, case))


class Reference(NamedTuple):
    """What torch says of a case, of one kind of error."""

    kind: str  # own or inherited
    forced: Outputs | None  # what the submodules are fed
    truth: Outputs
    torch: Outputs


def references(sides: Sides, case: Case) -> list[Reference]:
    """Own, then inherited. Kept where `sides.keep` says so: a fault planted in MLX changes nothing here."""
    if case.name in sides.kept:
        return sides.kept[case.name]
    _, torch_x, truth_x = sides.context(case.context)
    free = torch_trace(sides.truth, truth_x).values
    forced = {tap: rounded(value, sides.dtype) for tap, value in free.items() if tap not in FIELDS}
    own = torch_trace(sides.truth, truth_x, forced).values
    out = [
        Reference("own", forced, own, torch_trace(sides.torch, torch_x, forced).values),
        Reference("inherited", None, free, torch_trace(sides.torch, torch_x).values),
    ]
    if sides.keep:
        sides.kept[case.name] = out
    return out


def tap_case(sides: Sides, case: Case) -> list[Check]:
    mlx_x, known = sides.context(case.context)[0], references(sides, case)
    free = known[-1].truth
    head = Compared(sides.subject.name, "taps", sides.subject.parameters, case=case.name)
    found: list[Check] = []
    for kind, forced, truth, other in known:
        trace = mlx_trace(sides.mlx, mlx_x, free, forced)
        if forced:
            trace.values.update(alone(sides, trace, forced))
        whole = not forced and all(check.passed for check in found)
        near = once(partial(lucky, sides, case, trace)) if whole else None
        for tap in truth:
            what = head._replace(run=kind, value=tap)
            if tap in trace.shapes:
                found.append(failed(what, f"shapes differ: {trace.shapes[tap]}"))
            elif tap in trace.values:
                mine = trace.values[tap]
                theirs, target = same_places(other[tap], mine), same_places(truth[tap], mine)
                terms = slack_of_terms(sides, tap, forced or free, target)
                slack = max(slack_of(sides.mlx, tap, sides.dtype), terms)
                asked = near(tap) if near else None
                check = judge(what, mine, theirs, target, sides.dtype, slack=slack, neighbours=asked)
                found.append(within_bound(check, sides, tap, mine, target, forced) if forced else check)
    return found


def lucky(sides: Sides, case: Case, trace: Trace) -> dict[str, NeighbourErrors]:
    """Torch's largest error at each tap of `trace` on neighbouring inputs. How far the truth moves there
    excuses nothing: a tap may be far off where its prediction is not.
    """

    def run(model: torch_nn.Module, x: torch.Tensor) -> Outputs:
        values = torch_trace(model, x).values
        return {tap: same_places(values[tap], mine) for tap, mine in trace.values.items()}

    def mlx_run(x: np.ndarray) -> Outputs:
        return mlx_trace(sides.mlx, sides.context(x)[0], truth).values

    truth = run(sides.truth, sides.context(case.context)[2])
    near = sides.neighbours(run, mlx_run, case.context, truth)
    return {tap: NeighbourErrors(torch_error=errors.torch_error) for tap, errors in near.items()}


def rounded(value: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to `dtype` once, then widened back to float64."""
    return torch.from_numpy(np.ascontiguousarray(value)).to(bridge.TORCH[dtype]).to(torch.float64).numpy()


def alone(sides: Sides, trace: Trace, forced: Outputs) -> Outputs:
    """What MLX's forward folds into another product (AMN's context_encoder), called on the truth alone."""
    out = {}
    for name, module in sides.mlx.named_modules():
        given = forced.get(f"{name}{INPUT}")
        if name in forced and name not in trace.values and given is not None and "weight" in module:
            x = mx.array(given.astype(np.float32)).astype(bridge.MLX[sides.dtype])
            out[name] = bridge.to_float64(module(x))
    return out


def sum_of_terms(
    layer: torch_nn.Linear, x: np.ndarray, size: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Of every output of a linear layer the sum of the sizes of its terms, its bias among them."""
    out = size(x) @ size(layer.weight.detach().numpy()).T
    return out if layer.bias is None else out + size(layer.bias.detach().numpy())


def slack_of_terms(sides: Sides, tap: str, given: Outputs, truth: np.ndarray) -> float:
    """Of a linear layer: the random walk of its sum's roundings, or where its terms nearly cancel one
    rounding of every term.

    How a BLAS adds decides what it errs: one accumulator for a whole row is off by 6 u over 768 inputs
    (OpenBLAS), sixteen by 1 u (MKL), and both are right. A bug shows in gamma_n, see `within_bound`, and in
    what the layer gives on.
    """
    layer, x = dict(sides.truth.named_modules()).get(tap), given.get(f"{tap}{INPUT}")
    size = rms(truth)
    if not isinstance(layer, torch_nn.Linear) or x is None or not np.isfinite(x).all() or not size:
        return 1.0
    terms = rms(np.sqrt(sum_of_terms(layer, same_places(x, truth), np.square)))
    return max(slack_of_sum(layer.in_features, sides.dtype), terms / size)


def within_bound(
    check: Check, sides: Sides, tap: str, mlx: np.ndarray, truth: np.ndarray, forced: Outputs
) -> Check:
    """A linear layer errs by at most gamma_(n+1) (|W| |x| + |b|) in every element: more is a bug."""
    layer = dict(sides.truth.named_modules()).get(tap)
    if not isinstance(layer, torch_nn.Linear):
        return check
    factor = gamma(layer.in_features + 1, UNIT[sides.dtype])
    if not np.isfinite(factor):  # so wide a sum has no bound in so short a format
        return check
    sizes = sum_of_terms(layer, same_places(forced[f"{tap}{INPUT}"], mlx), np.abs)
    excess = np.abs(mlx - truth) - factor * sizes
    if (excess > 0).any():
        note = f"outside the bound gamma_n (|W||x| + |b|) by {excess.max():.1e}: a bug"
        return replace(check, verdict=MLX_INACCURATE, passed=False, note=note)
    return replace(check, bound=min(check.bound, factor * rms(sizes)))
