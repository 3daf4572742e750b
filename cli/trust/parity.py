"""`lvm parity`: prove that MLX and PyTorch compute the same from one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.shared.common import Json, Output, output_option
from mlx_lvm.errors import CheckFailed, SetupInvalid, UsageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Model = Annotated[
    str,
    typer.Argument(
        help="Architecture (released weights, or drawn by seed), all, run folder, exported folder or "
        ".safetensors file."
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        "--weights", metavar="FILE", help="Compare these weights; the same as naming them as MODEL."
    ),
]
Check = Annotated[
    str,
    typer.Option(
        "--check",
        metavar="weights|forward|taps|gradients|training|all",
        help="What to compare; several with commas.",
    ),
]
Panel = "Goldens and faults"


@app.command()
def parity(
    model: Model = "amn",
    weights: Weights = "",
    check: Check = "",
    steps: Annotated[int, typer.Option(help="Full training steps to compare.")] = 3,
    dtype: Annotated[
        str, typer.Option(metavar="float32|bfloat16|float16", help="Precision under test.")
    ] = "float32",
    seed: Annotated[int, typer.Option(help="Seed of drawn weights and random inputs.")] = 0,
    goldens: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="Verify against recorded goldens; needs no torch.", rich_help_panel=Panel
        ),
    ] = "",
    write_goldens: Annotated[
        str, typer.Option(metavar="FILE", help="Record goldens of the float64 run.", rich_help_panel=Panel)
    ] = "",
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test", help="Plant faults; all must be caught and blamed.", rich_help_panel=Panel
        ),
    ] = False,
    out: Annotated[
        str, output_option(metavar="DIR", help="Write parity.json and parity.md, and a bundle of a failure.")
    ] = "",
    json: Json = False,
) -> None:
    """Compute one set of weights in MLX and in PyTorch; a float64 run of PyTorch decides who is right.

    Without --check: weights, forward and gradients of the released AMN, in seconds. With it, everything that
    the check has.

    Examples:  lvm parity
               lvm parity all --check all --out parity-report
               lvm parity runs/amn-sotu-1 --check taps --dtype bfloat16
    """
    from mlx_lvm.parity.sides.setup import prepare

    prepare()  # before MLX's first operation
    view = Output(json)
    if goldens:
        _verify_goldens(Path(goldens), view)
        return
    if find_spec("torch") is None:
        raise SetupInvalid(
            "parity needs PyTorch: pip install 'mlx-lvm[parity]'. Without it, --goldens FILE verifies "
            "against recorded goldens."
        )
    from mlx_lvm.parity.run import QUICK, Plan, find_subjects, parse_checks, run

    plan = Plan(parse_checks(check) if check else QUICK, dtype, steps=steps, seed=seed, thorough=bool(check))
    if self_test:
        _self_test(view, out)
        return
    subjects = find_subjects(weights or model, seed)
    if write_goldens:
        _write_goldens(subjects, plan, Path(write_goldens), view)
        return
    with _status(view) as progress:
        report = run(subjects, plan, progress)
    _show(report, view, out)


@contextmanager
def _status(view: Output) -> Iterator[Callable[[str], None]]:
    """Says what is being compared, on a terminal."""
    if not view.notes.is_terminal:
        yield lambda text: None
        return
    with view.status() as progress:
        yield progress


def _show(report: Any, view: Output, out: str) -> None:
    from mlx_lvm.parity.report import report as reports

    limit = reports.LIMIT[report.plan.dtype]
    title = f"Parity with PyTorch, {report.plan.dtype}"
    view.table(title, list(reports.COLUMNS), [row.cells(limit) for row in reports.rows(report.checks)])
    result = reports.to_dict(report)
    if out:
        result["files"] = [str(path) for path in reports.write(report, Path(out))]
        if report.failures:
            from mlx_lvm.parity.report.bundle import write_bundle

            result["bundle"] = str(write_bundle(report, Path(out) / "failure"))
            view.say(f"The first failure, reproducible alone: {result['bundle']}")
        view.say(f"Written: {', '.join(result['files'])}")
    verdicts = ", ".join(
        f"{count:,} {name}" for name, count in sorted(result["verdicts"].items(), key=lambda item: -item[1])
    )
    view.say(
        f"{result['compared']:,} comparisons in {report.seconds:.1f} s: {verdicts}.",
        style="green" if report.passed else "red",
    )
    view.result(result)
    if not report.passed:
        shown = [f"  - {reports.describe(check)}" for check in report.failures[:10]]
        more = [f"  ... and {len(report.failures) - 10:,} more"] if len(report.failures) > 10 else []
        raise CheckFailed(
            "\n".join(
                [f"{len(report.failures):,} of {result['compared']:,} comparisons failed", *shown, *more]
            )
        )


def _verify_goldens(path: Path, view: Output) -> None:
    from mlx_lvm.parity.arbiter import LIMIT
    from mlx_lvm.parity.checks.goldens import verify_goldens
    from mlx_lvm.parity.report.table import COLUMNS, describe, rows
    from mlx_lvm.parity.verdict import verdict_of

    checks, about = verify_goldens(path)
    passed, failures = verdict_of(checks), [check for check in checks if not check.passed]
    view.table(
        f"Goldens of {about['name']}, {about['dtype']}",
        list(COLUMNS),
        [row.cells(LIMIT[about["dtype"]]) for row in rows(checks)],
    )
    view.say(
        f"{len(checks):,} recorded values, {len(failures):,} failed. Recorded with {about['versions']}.",
        style="green" if passed else "red",
    )
    view.result({"passed": passed, "goldens": str(path), "checks": [check.to_dict() for check in checks]})
    if not passed:
        raise CheckFailed(
            "\n".join(
                [
                    f"{len(failures):,} of {len(checks):,} goldens failed",
                    *(f"  - {describe(c)}" for c in failures[:10]),
                ]
            )
        )


def _write_goldens(subjects: list[Any], plan: Any, path: Path, view: Output) -> None:
    from mlx_lvm.parity.checks.goldens import write_goldens
    from mlx_lvm.parity.run import golden_cases

    if len(subjects) != 1:
        raise UsageError("--write-goldens records one model; name it in place of 'all'")
    count = write_goldens(path, subjects[0], golden_cases(subjects[0]), plan.dtype)
    view.say(
        f"{path}: {count:,} arrays, {path.stat().st_size / 1e6:.1f} MB. Verify anywhere: lvm parity "
        f"--goldens {path}",
        style="green",
    )
    view.result({"passed": True, "goldens": str(path), "arrays": count})


def _self_test(view: Output, out: str) -> None:
    from mlx_lvm.core.files.disk import write_json
    from mlx_lvm.parity.selftest import self_test, summary

    with _status(view) as progress:
        outcomes = self_test(progress=progress)
    counts = summary(outcomes)
    models = list(dict.fromkeys(o.fault.model if o.fault.stage == "model" else "training" for o in outcomes))
    table = []
    for name in models:
        mine = summary(
            [o for o in outcomes if (o.fault.model if o.fault.stage == "model" else "training") == name]
        )
        table.append(
            [name, *(str(mine[key]) for key in ("planted", "caught", "blamed", "equivalent", "silent"))]
        )
    view.table(
        "Planted faults",
        ["where", "planted", "caught", "blamed rightly", "equivalent", "silent on those"],
        table,
    )
    for outcome in outcomes:
        if not outcome.right:
            view.say(
                f"! {outcome.fault.name}: "
                f"{'noticed although equivalent' if outcome.caught else 'NOT CAUGHT'}",
                style="red",
            )
        elif outcome.caught and not outcome.blamed:
            view.say(
                f"  {outcome.fault.name}: blamed on {outcome.place}, expected "
                f"{', '.join(outcome.fault.expect)}"
            )
    passed = all(outcome.right for outcome in outcomes) and counts["blamed"] >= 0.95 * counts["planted"]
    view.say(
        f"{counts['caught']} of {counts['planted']} caught, {counts['blamed']} blamed on the right place.",
        style="green" if passed else "red",
    )
    result = {
        "passed": passed,
        "checks": [],
        "mutants": {**counts, "faults": [outcome.to_dict() for outcome in outcomes]},
    }
    if out:
        write_json(Path(out) / "selftest.json", result)
    view.result(result)
    if not passed:
        raise CheckFailed(f"{counts['planted'] - counts['caught']} planted faults were not caught")
