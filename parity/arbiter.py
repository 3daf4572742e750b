"""The verdict on one comparison: MLX and torch in one precision against torch in float64.

eM, eT: rms errors of MLX and of torch against the float64 truth, u: unit roundoff of the precision under
test.

    pass if  eM / max(eT, u rms(truth)) <= 8 in float32, 2 in bfloat16 and float16

A fixed tolerance would be too tight for an ill-conditioned input and too loose for the rest; torch's own
error is the measure of what the arithmetic can do. But where a value hangs on a few rounded numbers (a
gradient that is one number, or one that came through the five weights of a softmax) that error is a single
draw: by chance it is a fifth of what torch errs on the next input, and the ratio says more of torch's luck
than of MLX. So a ratio above half the limit is taken once more with eT the largest of torch's errors here and
on neighbouring inputs. It excuses no fault: MLX's error is the one of this input, the limit stays, and where
an ordinary input has shown a fault no neighbours are asked. Measured, it leaves ratios of 5 and less.

Below the smallest normal number 2^-126 nothing is observable: Metal, and a CPU told so, take such numbers for
zero. An error is measured against that number where everything else is smaller. Only NumPy is needed here, so
that goldens verify without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from mlx_lvm.parity import verdict as verdicts
from mlx_lvm.parity.verdict import Check, Compared, failed, unobservable

UNIT = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}  # unit roundoff
# of float32 and bfloat16; float16 has a smaller range, whose subnormals every device keeps
SMALLEST_NORMAL = 2.0**-126
LARGEST = {"float32": 3.4e38, "bfloat16": 3.38e38, "float16": 65504.0}  # finite numbers of each dtype
# largest ratio of an honest port; measured 3.6 and 1.2
LIMIT = {"float32": 8.0, "bfloat16": 2.0, "float16": 2.0}
# Backward, torch's half-precision kernels hold float32 inside and MLX composes rounded operations: up to 3.4
# measured.
GRADIENT_LIMIT = {"float32": 8.0, "bfloat16": 5.0, "float16": 5.0}
ILL = 64.0  # roundings of its size by which the truth must move before conditioning may explain an error
GROSS = 4096.0  # units of roundoff above which torch itself counts as inaccurate


def rms(values: np.ndarray) -> float:
    """Root mean square, safe from overflow and underflow of the squares."""
    if values.size == 0:
        return 0.0
    largest = float(np.abs(values).max())
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean(np.square(values / largest))))


class NeighbourErrors(NamedTuple):
    """moved: rms change of the truth under the backward error of one product. The errors: the largest on
    neighbouring inputs.

    A few numbers that one rounding decides may be right by luck on one side, or wrong by bad luck on the
    other; neighbours have no luck in common, and a fault they all have.
    """

    moved: float = 0.0
    torch_error: float = 0.0
    mlx_error: float = math.inf


Ask = Callable[[], NeighbourErrors]


def once(measure: Callable[[], dict[str, NeighbourErrors]]) -> Callable[[str], Ask]:
    """For each value of a case what `measure` found of it; it runs once, when the first value asks."""
    found = cache(measure)
    return lambda name: lambda: found()[name]


def judge(
    what: Compared,
    mlx: np.ndarray,
    torch: np.ndarray,
    truth: np.ndarray,
    dtype: str,
    *,
    neighbours: Ask | None = None,
    must_observe: bool = False,
    scale: float = 0.0,
    slack: float = 1.0,
    limit: float = 0.0,
) -> Check:
    """Compare float64 copies of MLX's and torch's values of `dtype` with the truth.

    neighbours:   errors on neighbouring inputs, asked for only where the ratio is above half of the limit
    must_observe: a finite truth must be finite on both sides, and there must be one
    scale:        magnitude of the terms that cancelled in a value that is zero by mathematics or in float64;
                  0 for any other value
    slack:        roundings of the truth's size that are always allowed for, times the limit; see
                  `slack_of_sum`, `slack_of_norm`
    limit:        largest ratio that passes, where it is not LIMIT[dtype]
    """
    if mlx.shape != truth.shape or torch.shape != truth.shape:
        return failed(what, f"shapes differ: MLX {mlx.shape}, torch {torch.shape}, truth {truth.shape}")
    if truth.size == 0:
        return failed(what, "nothing was compared", verdict=verdicts.SETUP_INVALID)
    unit, limit = UNIT[dtype], limit or LIMIT[dtype]
    known, there = np.isfinite(truth), np.isfinite(torch)
    if not must_observe and _lost(torch, truth):
        return unobservable(what, f"beyond the range of {dtype}: torch itself loses the value")
    # torch lost what MLX did not: float16 divides 0 by 0 in `F.normalize`
    kept = known & ~there & np.isfinite(mlx)
    if kept.any() and np.array_equal(np.isfinite(mlx), known):
        error, reference = rms((mlx - truth)[known]), unit * rms(truth[known]) * slack
        verdict = verdicts.TORCH_INACCURATE if error <= limit * reference else verdicts.MLX_INACCURATE
        ratio = error / reference if reference else (0.0 if error == 0 else math.inf)
        largest, count = float(np.abs(mlx - truth)[known].max()), int(known.sum())
        errors = (ratio, error, math.inf, largest, limit * reference)
        return Check(what, verdict, verdict in verdicts.PASSING, *errors, count, limit)
    wrong = int(((np.isfinite(mlx) != there) | (there & ~known) | (must_observe & known & ~there)).sum())
    if wrong:
        note = f"{wrong} of {truth.size} values are not finite on every side"
        return failed(what, note, compared=truth.size)
    both = there & known
    if not both.any():
        if must_observe:
            return failed(what, "no finite value to compare", verdict=verdicts.SETUP_INVALID)
        return unobservable(what, "not finite, on all sides alike")
    m, t, true = mlx[both], torch[both], truth[both]
    error, torch_error, size = rms(m - true), rms(t - true), max(rms(true), scale)
    reference = max(torch_error, unit * size * slack, SMALLEST_NORMAL)
    near, luck = NeighbourErrors(), ""
    if neighbours is not None and error > limit / 2 * reference:
        near = neighbours()
        if near.torch_error > reference:
            luck = "torch is luckier here than on neighbouring inputs" if error > limit * reference else ""
            reference = near.torch_error
    ratio, largest = error / reference, float(np.abs(m - true).max())

    def check(verdict: str, reference: float = reference, note: str = luck) -> Check:
        errors = (error / reference, error, torch_error, largest, limit * reference)
        return Check(what, verdict, verdict in verdicts.PASSING, *errors, m.size, limit, note=note)

    if np.array_equal(m, t):
        return check(verdicts.BITWISE)
    if scale:
        verdict = verdicts.UNOBSERVABLE if ratio <= limit else verdicts.MLX_INACCURATE
        return check(verdict, note="zero by mathematics, or below what float64 resolves")
    if size < SMALLEST_NORMAL and ratio <= limit:
        note = "below the smallest normal number, where a device may take every number for zero"
        return check(verdicts.UNOBSERVABLE, note=note)
    if ratio <= limit:
        if torch_error <= GROSS * unit * size:
            return check(verdicts.EQUIVALENT)
        return check(verdicts.TORCH_INACCURATE if torch_error > 8 * error else verdicts.BOTH)
    moved, usual, mlx_usual = near
    if error <= 2 * limit * usual and mlx_usual <= limit * usual:
        return check(verdicts.EQUIVALENT, error / limit, "MLX is unluckier here than on neighbouring inputs")
    if moved > ILL * unit * size and error <= limit * max(moved, reference):
        note = f"the backward error of one product moves the truth by {moved:.1e}"
        return check(verdicts.ILL_CONDITIONED, max(moved, reference), note)
    return check(verdicts.MLX_INACCURATE)


def judge_each(
    head: Compared,
    mlx: Mapping[str, np.ndarray],
    torch: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
    dtype: str,
    neighbours: Callable[[str], Ask] | None = None,
    must_observe: bool = False,
) -> Iterator[Check]:
    """Every value by its name, and one failure for names that only one side has."""
    if set(mlx) != set(truth):
        note = f"only one side has: {', '.join(sorted(set(mlx) ^ set(truth)))}"
        yield failed(head._replace(value="names"), note)
    for name in (name for name in truth if name in mlx):
        values, what = (mlx[name], torch[name], truth[name]), head._replace(value=name)
        near = neighbours(name) if neighbours else None
        yield judge(what, *values, dtype, neighbours=near, must_observe=must_observe)


def _lost(torch: np.ndarray, truth: np.ndarray) -> bool:
    """Torch overflowed: most of what is finite in truth is not in torch, or is wrong in its first digit."""
    known = np.isfinite(truth)
    there = known & np.isfinite(torch)
    return bool(known.any()) and (
        2 * there.sum() < known.sum() or rms(torch[there] - truth[there]) > 0.5 * rms(truth[there])
    )


def slack_of_sum(terms: int, dtype: str = "float32") -> float:
    """A single number that sums so many terms: torch's error may be zero by luck, so sqrt(terms) u is
    allowed, the random walk of rounding (Higham & Mary 2019).
    """
    return max(1.0, math.sqrt(terms) / LIMIT[dtype])


def slack_of_norm(width: int, dtype: str = "float32") -> float:
    """A LayerNorm over `width` elements. MLX's CPU adds a row in order, so its error grows with the row.

    Measured on skewed rows: 8, 13 and 50 u at widths 256, 512 and 2048; torch stays at 1.
    """
    return max(1.0, width / 64) if dtype == "float32" else 1.0


def gamma(terms: int, unit: float) -> float:
    """gamma_n = n u / (1 - n u), which bounds a sum of n products in any order (Higham 2002, 3.1), or inf."""
    product = terms * unit
    return product / (1 - product) if product < 1 else math.inf
