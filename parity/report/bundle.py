"""What a failure leaves behind: the one input that shows it, the weights and the truth, to run it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from mlx_lvm.core.files.disk import write_json
from mlx_lvm.parity.checks.goldens import write_goldens
from mlx_lvm.parity.checks.model import forward_checks
from mlx_lvm.parity.report.report import describe, setting
from mlx_lvm.parity.run import Report
from mlx_lvm.parity.sides.inputs import Case
from mlx_lvm.parity.sides.sides import Sides, Subject
from mlx_lvm.parity.verdict import Check

GOLDENS = "failure.safetensors"


def write_bundle(report: Report, folder: Path) -> Path:
    """`failure.json`: the first failure and the set-up; `failure.safetensors`: goldens of its least input."""
    check = next((c for c in report.failures if c.source is not None), report.failures[0])
    about = {"failure": describe(check), "check": check.to_dict(), "setting": setting(report)}
    if check.source is not None:
        subject, case = check.source
        case = smallest(subject, case, report.plan.dtype, check)
        write_goldens(folder / GOLDENS, subject, [case], report.plan.dtype)
        about["reproduce"] = f"lvm parity --goldens {GOLDENS}"
        about["context"] = list(case.context.shape)
    write_json(folder / "failure.json", about)
    return folder


def smallest(subject: Subject, case: Case, dtype: str, check: Check) -> Case:
    """One window of the batch where one alone fails too; else the whole batch."""
    sides = Sides(subject, dtype)
    for row in range(min(len(case.context), 8)):
        window = np.ascontiguousarray(case.context[row : row + 1])
        alone = replace(case, context=window, name=f"{case.name}-window{row}")
        if any(not c.passed for c in forward_checks(sides, [alone])):
            return alone
    return case
