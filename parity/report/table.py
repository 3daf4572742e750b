"""Checks for people: one row a group, and a failure in one line. Needs neither torch nor MLX."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from mlx_lvm.parity.verdict import Check

COLUMNS = (
    *("model / check / parameters / run", "passed", "bitwise", "worst ratio", "allowed", "largest error"),
    *("MLX rms", "torch rms", "verdict"),
)


@dataclass(frozen=True)
class Row:
    """One group of comparisons, by its worst."""

    name: str
    checks: list[Check]

    @property
    def worst(self) -> Check:
        failures = [check for check in self.checks if not check.passed]
        return max(
            failures or [c for c in self.checks if c.verdict != "unobservable"] or self.checks,
            key=lambda check: check.ratio,
        )

    def cells(self, limit: float) -> list[str]:
        counts = Counter(check.verdict for check in self.checks)
        passed = sum(check.passed for check in self.checks)
        worst = self.worst
        verdict = "equivalent" if passed == len(self.checks) else worst.verdict
        if counts["bitwise"] == len(self.checks):
            numbers, verdict = ["0"] * 5, "bitwise"
        else:
            usual = [c.max_abs_error for c in self.checks if not c.what.case.startswith("adversarial-")]
            errors = (max(filter(math.isfinite, usual), default=0.0), worst.mlx_error, worst.torch_error)
            numbers = [f"{worst.ratio:.2f}", f"{worst.limit or limit:g}", *(f"{e:.1e}" for e in errors)]
        return [self.name, f"{passed}/{len(self.checks)}", str(counts["bitwise"]), *numbers, verdict]


def rows(checks: list[Check]) -> list[Row]:
    """One row a model, check, parameters and way of running, in order."""
    groups: dict[str, list[Check]] = {}
    for check in checks:
        groups.setdefault(check.group, []).append(check)
    return [Row(name, checks) for name, checks in groups.items()]


def describe(check: Check) -> str:
    """A failed check in one line."""
    where = f"; first parts at {check.first_divergence}" if check.first_divergence else ""
    note = f"; {check.note}" if check.note else ""
    return (
        f"{check.name}: {check.verdict}, ratio {check.ratio:.3g} (MLX {check.mlx_error:.2e}, torch "
        f"{check.torch_error:.2e}){where}{note}"
    )
