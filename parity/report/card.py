"""The parity section of a model card: what an export says about itself."""

from __future__ import annotations

from mlx_lvm.hub.load import Loaded
from mlx_lvm.parity.report.report import setting, table_of
from mlx_lvm.parity.run import Plan, run, subject_of


def parity_section(loaded: Loaded) -> str:
    """Markdown of the quick checks on a model's float32 weights; no timing, so that its bytes stay the same.

    `mlx_lvm.parity.sides.setup.prepare` must have been called before the model was loaded.
    """
    report = run([subject_of(loaded)], Plan())
    about = setting(report)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return "\n".join(
        [
            "## Parity with PyTorch",
            "",
            f"{'Passed' if report.passed else '**FAILED**'}: {len(report.checks):,} comparisons of MLX and "
            f"PyTorch on these weights, both against PyTorch in float64, {len(report.failures)} failed "
            f"({versions}; {about['machine']}, {about['device']}).",
            "",
            *table_of(report),
            "",
            "Measured with `lvm parity MODEL`.",
        ]
    )
