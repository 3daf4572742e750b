"""The checks of one subject's forward pass and gradients. Each yields `Check`s."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch

from mlx_lvm.parity.arbiter import GRADIENT_LIMIT, LARGEST, judge, judge_each, once, rms, slack_of_sum
from mlx_lvm.parity.sides.gates import split_gates
from mlx_lvm.parity.sides.inputs import Case, random_case
from mlx_lvm.parity.sides.kinks import NULL, settle_kinks
from mlx_lvm.parity.sides.sides import Sides, draw_cotangents, twin_gradients, twin_outputs
from mlx_lvm.parity.sides.taps import tap_case
from mlx_lvm.parity.sides.trace import Outputs
from mlx_lvm.parity.twins.base import Twin
from mlx_lvm.parity.verdict import Check, Compared, blamed, failed, first_divergence, unobservable

HEADROOM = 16  # gradients this far below the largest number of a format may be summed over a batch in it


def forward_checks(
    sides: Sides, cases: Iterable[Case], modes: tuple[str, ...] = ("eager",)
) -> Iterator[Check]:
    """Every field of the prediction on every case."""
    sides.require_evaluation()
    subject = sides.subject
    for case in cases:
        with np.errstate(all="ignore"):
            torch_out, truth = sides.on_torch(twin_outputs, case.context)
            near = once(partial(sides.neighbours, twin_outputs, sides.mlx_forward, case.context, truth))
            for mode in modes:
                out = sides.mlx_forward(case.context, compiled=mode == "compiled")
                head = Compared(subject.name, "forward", subject.parameters, mode, case.name)
                found = list(judge_each(head, out, torch_out, truth, sides.dtype, near, case.finite))
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
                yield from Gradients(sides, case).checks(modes)


class Gradients:
    """The gradients of one case: torch's, the truth, and MLX's to be judged."""

    def __init__(self, sides: Sides, case: Case) -> None:
        self.sides, self.case = sides, case
        batch, _, dim = case.context.shape
        self.terms = batch * dim  # that cancel in a number which is zero by mathematics
        self.cotangents = draw_cotangents((batch, dim))
        self.torch, self.truth = sides.on_torch(self.run, case.context)
        sizes = [rms(value) for name, value in self.truth.items() if name != "input"]
        self.largest = max(sizes, default=0.0)

    def run(self, model: Twin, x: torch.Tensor) -> Outputs:
        return split_gates(twin_gradients(model, x, self.sides.rounded(self.cotangents)))

    def mlx_run(self, context: np.ndarray, compiled: bool = False) -> Outputs:
        return split_gates(self.sides.mlx_gradients(context, self.cotangents, compiled))

    def checks(self, modes: tuple[str, ...]) -> Iterator[Check]:
        sides, case, truth = self.sides, self.case, self.truth
        head = Compared(sides.subject.name, "gradients", sides.subject.parameters, case=case.name)
        if any(np.abs(g).max(initial=0) > LARGEST[sides.dtype] / HEADROOM for g in truth.values()):
            # The gradient of normalising a vector of zeros is 1 / eps: float16 cannot hold it, nor sums of
            # what follows from it.
            what = head._replace(run="eager", value="all")
            yield unobservable(what, f"a gradient beyond the range of {sides.dtype}")
            return
        for mode in modes:
            out, head = self.mlx_run(case.context, mode == "compiled"), head._replace(run=mode)
            if set(out) != set(truth):
                note = f"only one side has: {', '.join(sorted(set(out) ^ set(truth)))}"
                yield failed(head._replace(value="names"), note)
            checks = self.judged(head, out, truth)
            if not all(check.passed for check in checks):
                other, flipped = settle_kinks(sides, case, self.run, out, truth)
                if flipped:
                    near = f"{flipped} relu units lie within rounding of their kink"
                    checks = self.judged(head, out, other, f"{near}; the truth takes MLX's side there")
            failures = [check for check in checks if not check.passed]
            # in the forward pass, or else in the backward pass, which meets the last parameter first
            if failures:
                where = blame(sides, case) or f"gradient of {failures[-1].what.value}"
                checks = blamed(checks, where, (sides.subject, case))
            yield from checks

    def judged(self, head: Compared, out: Outputs, truth: Outputs, note: str = "") -> list[Check]:
        """Every gradient; `note` stands with those that have none of their own."""
        near = once(partial(self.sides.neighbours, self.run, self.mlx_run, self.case.context, truth))
        denormal = bool(0 < np.abs(self.case.context).max() < np.finfo(np.float32).tiny)
        dtype, found = self.sides.dtype, []
        judged = partial(judge, dtype=dtype, must_observe=True, limit=GRADIENT_LIMIT[dtype])
        for name in (name for name in truth if name in out):
            what, zero = head._replace(value=name), name in self.null
            if zero and denormal:  # a BLAS may flush such inputs to zero, and nothing else is left of these
                found.append(unobservable(what, "zero by mathematics, of denormal inputs"))
                continue
            scale = self.largest if zero else 0.0
            slack = slack_of_sum(self.terms, dtype) if scale and truth[name].size == 1 else 1.0
            values = (out[name], self.torch[name], truth[name])
            found.append(judged(what, *values, neighbours=near(name), scale=scale, slack=slack))
        return [replace(check, note=check.note or note) for check in found]

    @cached_property
    def null(self) -> set[str]:
        """Parameters whose gradient is zero by mathematics and rounding noise in float64.

        Noise is told from a small gradient by moving the inputs by 1e-15: noise changes altogether, a
        gradient does not. What is smaller than float64's rounding of the others is noise in any case: a
        saturated softmax leaves such rests.
        """
        sizes = {name: rms(value) for name, value in self.truth.items()}
        largest = max((size for size in sizes.values() if np.isfinite(size)), default=0.0)
        suspects = {name for name, size in sizes.items() if size <= NULL * largest}
        if not suspects or largest == 0.0:
            return set()
        moved = self.sides.noise(self.run, self.case.context, self.truth)
        rest = largest * 2.0**-53
        return {name for name in suspects if sizes[name] <= rest or moved[name] > 0.1 * sizes[name]}
