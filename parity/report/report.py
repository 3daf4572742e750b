"""What a parity run says: JSON for machines, a page of Markdown, and the set-up that it holds for."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections import Counter
from pathlib import Path

from mlx_lvm.core.files.disk import write_atomic, write_json
from mlx_lvm.core.linux_cpu import tuning
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.result import JsonObject, markdown_table
from mlx_lvm.parity.arbiter import LIMIT, UNIT
from mlx_lvm.parity.report.table import COLUMNS, describe, rows
from mlx_lvm.parity.run import Report

__all__ = ["COLUMNS", "describe", "markdown", "rows", "setting", "to_dict", "write"]


def setting(report: Report) -> JsonObject:
    """Versions, device and rule: what the verdict holds for."""
    versions = {name: importlib.metadata.version(name) for name in ("mlx-lvm", "mlx", "torch", "numpy")}
    plan = report.plan
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(mx.default_device()),
        "blas": tuning().blas.name,
        "tf32": os.environ.get("MLX_ENABLE_TF32", ""),
        "dtype": plan.dtype,
        "unit_roundoff": UNIT[plan.dtype],
        "largest_ratio": LIMIT[plan.dtype],
        "checks": list(plan.checks),
        "steps": plan.steps,
        "seed": plan.seed,
        "subjects": [
            {"name": s.name, "origin": s.origin, "config": s.config.to_dict()} for s in report.subjects
        ],
    }


def table_of(report: Report) -> list[str]:
    """Lines of Markdown."""
    limit = LIMIT[report.plan.dtype]
    return markdown_table(COLUMNS, (row.cells(limit) for row in rows(report.checks)), numbers=True)


def to_dict(report: Report) -> JsonObject:
    return {
        "passed": report.passed,
        "compared": len(report.checks),
        "failed": len(report.failures),
        "seconds": round(report.seconds, 2),
        "verdicts": dict(Counter(check.verdict for check in report.checks)),
        "setting": setting(report),
        "checks": [check.to_dict() for check in report.checks],
    }


def markdown(report: Report) -> str:
    """`parity.md`: what was compared, how it was judged, the table and the worst case."""
    about, limit = setting(report), LIMIT[report.plan.dtype]
    verdict = "passed" if report.passed else "FAILED"
    counts = Counter(check.verdict for check in report.checks).most_common()
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [
        "# Parity with PyTorch",
        "",
        f"**{verdict}**: {len(report.checks):,} comparisons in {report.seconds:.0f} s, "
        f"{len(report.failures)} failed.",
        "",
        f"{versions}; {about['machine']}, {about['device']}, BLAS {about['blas']}; {about['dtype']}.",
        "",
        "The truth is a float64 run of the PyTorch twin with the same weights and inputs, rounded to the "
        "precision under test.",
        f"A comparison passes where MLX's rms error is at most {limit:g} times the larger of PyTorch's own "
        "error and u rms(truth),",
        f"u = {about['unit_roundoff']:.1e}. Weights must agree to the bit.",
        "",
        *table_of(report),
        "",
        f"Verdicts: {', '.join(f'{count:,} {name}' for name, count in counts)}.",
        "",
    ]
    measured = [check for check in report.checks if check.verdict not in ("bitwise", "unobservable")]
    if measured:
        worst = max(measured, key=lambda check: (not check.passed, check.ratio))
        lines += [f"Worst case: `{describe(worst)}`.", ""]
    return "\n".join(lines)


def write(report: Report, folder: Path) -> list[Path]:
    """`parity.json` and `parity.md`. Raises IOFailed."""
    paths = [folder / "parity.json", folder / "parity.md"]
    write_json(paths[0], to_dict(report))
    write_atomic(paths[1], markdown(report).encode())
    return paths
