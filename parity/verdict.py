"""One comparison with its verdict, and the verdict on all of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from mlx_lvm.core.result import JsonObject

BITWISE = "bitwise"
EQUIVALENT = "equivalent"
MLX_INACCURATE = "MLX inaccurate"
TORCH_INACCURATE = "torch inaccurate"
BOTH = "both inaccurate"
ILL_CONDITIONED = "ill-conditioned"
UNOBSERVABLE = "unobservable"
SETUP_INVALID = "setup invalid"
PASSING = (BITWISE, EQUIVALENT, TORCH_INACCURATE, BOTH, ILL_CONDITIONED, UNOBSERVABLE)


class Compared(NamedTuple):
    """What a check compared, from the model to the value; empty where there is nothing to tell apart.

    `str` gives `model/stage/parameters/run/case/value`, as reports and files hold it.
    """

    model: str = ""
    stage: str = ""  # weights, taps, forward, gradients, training
    parameters: str = ""  # where they come from
    run: str = ""  # eager or compiled, own or inherited error, the number of steps
    case: str = ""  # the input, or the part of a training
    value: str = ""  # a tensor, a tap, a field of the prediction

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


@dataclass(frozen=True)
class Check:
    """One comparison and its verdict. Errors are rms over the elements compared, `max_abs_error` MLX's
    largest; `bound` is the error that was allowed, `ratio` = mlx_error / max(torch_error, u rms(truth)).
    """

    what: Compared
    verdict: str
    passed: bool
    ratio: float = 0.0
    mlx_error: float = 0.0
    torch_error: float = 0.0
    max_abs_error: float = 0.0
    bound: float = 0.0
    compared: int = 0
    limit: float = 0.0  # largest ratio that passes
    first_divergence: str = ""
    note: str = ""
    # (subject, case) of a failure, from which a bundle is made
    source: Any = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """`what` as text."""
        return str(self.what)

    @property
    def group(self) -> str:
        """`model/stage/parameters/run`, a row of a table; seeds of the small models count as one."""
        model = re.sub(r"-small\d+$", "-small", self.what.model)
        return str(self.what._replace(model=model, case="", value=""))

    def to_dict(self) -> JsonObject:
        """For JSON, which knows no infinity: a number that is not finite is None."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("what", "source")}
        values = {"name": self.name, **found}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def failed(
    what: Compared, note: str, where: str = "", verdict: str = MLX_INACCURATE, compared: int = 0
) -> Check:
    """A check that fails for a reason that is no number."""
    errors = (math.inf, math.inf, 0.0, math.inf, 0.0)
    return Check(what, verdict, False, *errors, compared, first_divergence=where, note=note)


def unobservable(what: Compared, note: str) -> Check:
    """A check that passes because nothing is there to be seen, for a reason."""
    return Check(what, UNOBSERVABLE, True, note=note)


def exact(what: Compared, same: bool, note: str = "", where: str = "", compared: int = 1) -> Check:
    """A check that allows no difference at all."""
    if same:
        return Check(what, BITWISE, True, compared=compared, note=note)
    return failed(what, note, where, compared=compared)


def blamed(checks: Iterable[Check], where: str, source: Any = None) -> list[Check]:
    """The failures among them with the first place that parts, and what a bundle is made from."""
    return [c if c.passed else replace(c, first_divergence=where, source=source) for c in checks]


def first_divergence(checks: Iterable[Check]) -> str:
    """The first place that parts, by what it does alone, else by what it inherits; empty where none does."""
    failures = [check for check in checks if not check.passed]
    for how in ("exact", "own", "inherited", "compiled"):
        for check in failures:
            if check.what.run == how:
                return check.first_divergence or check.what.value
    return ""


def verdict_of(checks: list[Check]) -> bool:
    """All passed, and at least one of them compared something."""
    compared = any(check.compared and check.verdict != UNOBSERVABLE for check in checks)
    return compared and all(check.passed for check in checks)
