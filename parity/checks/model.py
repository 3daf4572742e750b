"""The checks of one subject's forward pass and gradients. Each yields `Check`s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mlx_lvm.parity.arbiter import (
    GRADIENT_LIMIT,
    LARGEST,
    judge,
    judge_each,
    once,
    rms,
    slack_of_sum,
)
from mlx_lvm.parity.sides.gates import split_gates
from mlx_lvm.parity.sides.inputs import Case, random_case
from mlx_lvm.parity.sides.kinks import NULL, settle_kinks
from mlx_lvm.parity.sides.sides import Outputs, Sides, draw_cotangents, twin_gradients, twin_outputs
from mlx_lvm.parity.sides.taps import first_divergence, tap_case
from mlx_lvm.parity.twins.base import Twin
from mlx_lvm.parity.verdict import Check, Compared, blamed, failed, unobservable

HEADROOM = 16  # gradients this far below the largest number of a format may be summed over a batch in it


def forward_checks(
    sides: Sides, cases: Iterable[Case], modes: tuple[str, ...] = ("eager",)
) -> Iterator[Check]:
    """Every field of the prediction on every case."""
    sides.require_evaluation()
    subject = sides.subject
    for case in cases:
        with np.errstate(all="ignore"):
            torch_out, truth = sides.torch_forward(case.context), sides.truth_forward(case.context)
            near = partial(sides.neighbours, twin_outputs, sides.mlx_forward, case.context, truth)
            neighbours = once(near)
            for mode in modes:
                out = sides.mlx_forward(case.context, compiled=mode == "compiled")
                head = Compared(subject.name, "forward", subject.parameters, mode, case.name)
                values = (out, torch_out, truth)
                found = list(judge_each(head, *values, sides.dtype, neighbours, case.finite))
                if not all(check.passed for check in found):
                    found = blamed(found, blame(sides, case), (subject, case))
                yield from found


def blame(sides: Sides, case: Case) -> str:
    """The first place that parts: on an ordinary input where one shows it, else on the case that failed."""
    if sides.parts_at is None:
        sides.parts_at = first_divergence(tap_case(sides, random_case(case.context.shape[2], 3, 5, 0)))
    return sides.parts_at or first_divergence(tap_case(sides, case))


def gradient_checks(
    sides: Sides, cases: Iterable[Case], modes: tuple[str, ...] = ("eager",)
) -> Iterator[Check]:
    """The gradient of every parameter and of the input; stacked gates are judged one by one.

    Cases with NaN, Inf or overflow are left out: one bad window makes every gradient of its batch NaN.
    """
    sides.require_evaluation()
    for case in cases:
        if case.finite:
            with np.errstate(all="ignore"):
                yield from _gradient_case(sides, case, modes)


def _gradient_case(sides: Sides, case: Case, modes: tuple[str, ...]) -> Iterator[Check]:
    head = Compared(sides.subject.name, "gradients", sides.subject.parameters, case=case.name)
    cotangents = draw_cotangents((case.context.shape[0], case.context.shape[2]))
    torch_out = split_gates(sides.torch_gradients(case.context, cotangents))
    truth = split_gates(sides.truth_gradients(case.context, cotangents))

    def run(model: Twin, x: torch.Tensor) -> Outputs:
        return split_gates(twin_gradients(model, x, sides.rounded(cotangents)))

    def mlx_run(x: np.ndarray) -> Outputs:
        return split_gates(sides.mlx_gradients(x, cotangents))

    if any(np.abs(g).max(initial=0) > LARGEST[sides.dtype] / HEADROOM for g in truth.values()):
        # The gradient of normalising a vector of zeros is 1 / eps: float16 cannot hold it, nor sums of what
        # follows from it.
        what = head._replace(run="eager", value="all")
        yield unobservable(what, f"a gradient beyond the range of {sides.dtype}")
        return
    null = null_gradients(sides, case, truth, run)
    largest = max((rms(g) for name, g in truth.items() if name != "input"), default=0.0)
    denormal = bool(0 < np.abs(case.context).max() < np.finfo(np.float32).tiny)
    for mode in modes:
        out = split_gates(sides.mlx_gradients(case.context, cotangents, compiled=mode == "compiled"))
        head = head._replace(run=mode)
        if set(out) != set(truth):
            note = f"only one side has: {', '.join(sorted(set(out) ^ set(truth)))}"
            yield failed(head._replace(value="names"), note)

        def verdicts(
            truth: Outputs, note: str = "", out: Outputs = out, head: Compared = head
        ) -> list[Check]:
            neighbours = once(lambda: sides.neighbours(run, mlx_run, case.context, truth))
            found = []
            for name in truth.keys() & out.keys():
                # a BLAS may flush such inputs to zero, and nothing else is left of these
                if name in null and denormal:
                    null_note = "zero by mathematics, of denormal inputs"
                    found.append(unobservable(head._replace(value=name), null_note))
                    continue
                scale = largest if name in null else 0.0
                # that cancel in a number which is zero by mathematics
                terms = case.context.shape[0] * case.context.shape[2]
                options = {
                    "neighbours": neighbours(name),
                    "must_observe": True,
                    "scale": scale,
                    "slack": slack_of_sum(terms, sides.dtype) if scale and truth[name].size == 1 else 1.0,
                    "limit": GRADIENT_LIMIT[sides.dtype],
                }
                what, values = head._replace(value=name), (out[name], torch_out[name], truth[name])
                found.append(judge(what, *values, sides.dtype, **options))  # type: ignore[arg-type]
            return [replace(check, note=check.note or note) for check in found]

        checks = verdicts(truth)
        if not all(check.passed for check in checks):
            other, flipped = settle_kinks(sides, case, run, out, truth)
            if flipped:
                near = f"{flipped} relu units lie within rounding of their kink"
                checks = verdicts(other, f"{near}; the truth takes MLX's side there")
        order = list(truth)
        checks.sort(key=lambda check: order.index(check.what.value))
        failures = [check for check in checks if not check.passed]
        # in the forward pass, or else in the backward pass, which meets the last parameter first
        if failures:
            where = blame(sides, case) or f"gradient of {failures[-1].what.value}"
            checks = blamed(checks, where, (sides.subject, case))
        yield from checks


def null_gradients(sides: Sides, case: Case, truth: Outputs, run: Callable) -> set[str]:
    """Parameters whose gradient is zero by mathematics and rounding noise in float64.

    Noise is told from a small gradient by moving the inputs by 1e-15: noise changes altogether, a gradient
    does not. What is smaller than float64's rounding of the others is noise in any case: a saturated softmax
    leaves such rests.
    """
    sizes = {name: rms(value) for name, value in truth.items()}
    largest = max((size for size in sizes.values() if np.isfinite(size)), default=0.0)
    suspects = {name for name, size in sizes.items() if size <= NULL * largest}
    if not suspects or largest == 0.0:
        return set()
    moved = sides.noise(run, case.context, truth)
    rest = largest * 2.0**-53
    return {name for name in suspects if sizes[name] <= rest or moved[name] > 0.1 * sizes[name]}
