"""The parity section of a model card: what an export says about itself."""

from __future__ import annotations

from mlx_lvm.parity.report import COLUMNS, rows, setting
from mlx_lvm.parity.run import Plan, find_subjects, run
from mlx_lvm.parity.setup import prepare


def parity_section(reference: str) -> str:
    """Markdown of the quick checks on a model's float32 weights. Holds no timing, so that a card has the same bytes again."""
    prepare()
    report = run(find_subjects(reference), Plan())
    about, limit = setting(report), setting(report)["largest_ratio"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return "\n".join(
        [
            "## Parity with PyTorch",
            "",
            f"{'Passed' if report.passed else '**FAILED**'}: {len(report.checks):,} comparisons of MLX and PyTorch on these weights, "
            f"both against PyTorch in float64, {len(report.failures)} failed ({versions}; {about['machine']}, {about['device']}).",
            "",
            "| " + " | ".join(COLUMNS) + " |",
            "|---|" + "---:|" * (len(COLUMNS) - 1),
            *("| " + " | ".join(row.cells(limit)) + " |" for row in rows(report.checks)),
            "",
            "Measured with `lvm parity MODEL`.",
        ]
    )
