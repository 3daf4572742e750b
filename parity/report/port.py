"""What `mlx_lvm.parity.check` found of a port: a table, and the first place that creates error."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from mlx_lvm.core.result import JsonObject
from mlx_lvm.parity.verdict import Check, verdict_of

STAGES = ("weights", "own", "inherited", "outputs", "gradients")


@dataclass(frozen=True)
class PortReport:
    """What `check` found: every comparison, and the first place that creates error."""

    checks: list[Check]
    first: str  # by torch's name; empty where all passed

    @property
    def passed(self) -> bool:
        return verdict_of(self.checks)

    def of(self, stage: str) -> list[Check]:
        """The comparisons of one of STAGES."""
        return [check for check in self.checks if check.what.stage == stage]

    def to_dict(self) -> JsonObject:
        """For JSON."""
        return {
            "passed": self.passed,
            "first": self.first,
            "verdicts": dict(Counter(check.verdict for check in self.checks)),
            "checks": [check.to_dict() for check in self.checks],
        }

    def __str__(self) -> str:
        lines = [f"{'compared':<12}{'passed':>12}  {'worst ratio':>11}  where"]
        for stage in STAGES:
            found = self.of(stage)
            if found:
                worst = max(found, key=lambda check: (not check.passed, check.ratio))
                passed = f"{sum(check.passed for check in found)}/{len(found)}"
                where = worst.what.value + (f": {worst.note}" if worst.note else "")
                lines.append(f"{stage:<12}{passed:>12}  {worst.ratio:>11.3g}  {where}")
        return "\n".join([*lines, f"first parts at: {self.first}" if self.first else "equivalent"])


def first_place(checks: list[Check]) -> str:
    """The first failure of the first stage that fails; of gradients the last, which backward meets first."""
    for stage in STAGES:
        failures = [c.what.value for c in checks if not c.passed and c.what.stage == stage]
        if failures:
            return failures[-1 if stage == "gradients" else 0]
    return ""
