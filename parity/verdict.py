"""One comparison with its verdict, and the verdict on all of them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

BITWISE = "bitwise"
EQUIVALENT = "equivalent"
MLX_INACCURATE = "MLX inaccurate"
TORCH_INACCURATE = "torch inaccurate"
BOTH = "both inaccurate"
ILL_CONDITIONED = "ill-conditioned"
UNOBSERVABLE = "unobservable"
SETUP_INVALID = "setup invalid"
PASSING = (BITWISE, EQUIVALENT, TORCH_INACCURATE, BOTH, ILL_CONDITIONED, UNOBSERVABLE)


@dataclass(frozen=True)
class Check:
    """One comparison and its verdict. Errors are rms over the elements compared, `max_abs_error` is MLX's
    largest.

    `bound` is the error that was allowed, `ratio` = mlx_error / max(torch_error, u rms(truth)).
    """

    name: str
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
    source: Any = field(
        default=None, repr=False, compare=False
    )  # (subject, case) of a failure, from which a bundle is made

    @property
    def group(self) -> str:
        """`model/check/parameters/execution`: what a table shows in one row; seeds of the small models count
        as one.
        """
        return re.sub(r"-small\d+/", "-small/", "/".join(self.name.split("/")[:4]))

    def to_dict(self) -> dict[str, Any]:
        """For JSON, which knows no infinity: a number that is not finite is None."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "source"}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def failed(name: str, note: str, where: str = "", verdict: str = MLX_INACCURATE, compared: int = 0) -> Check:
    """A check that fails for a reason that is no number."""
    return Check(
        name,
        verdict,
        False,
        math.inf,
        math.inf,
        0.0,
        math.inf,
        0.0,
        compared,
        first_divergence=where,
        note=note,
    )


def exact(name: str, same: bool, note: str = "", where: str = "", compared: int = 1) -> Check:
    """A check that allows no difference at all."""
    return (
        Check(name, BITWISE, True, compared=compared, note=note)
        if same
        else failed(name, note, where, compared=compared)
    )


def verdict_of(checks: list[Check]) -> bool:
    """All passed, and at least one of them compared something."""
    return (
        bool(checks)
        and all(check.passed for check in checks)
        and any(c.compared and c.verdict != UNOBSERVABLE for c in checks)
    )
