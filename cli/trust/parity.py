"""`lvm parity`: prove that MLX and PyTorch compute the same from one file."""

from __future__ import annotations

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
    str, typer.Option(metavar="FILE", help="Compare these weights; the same as naming them as MODEL.")
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
    with view.status() as progress:
        report = run(subjects, plan, progress)
    _show(report, view, out)


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
    ordered = sorted(result["verdicts"].items(), key=lambda item: -item[1])
    verdicts = ", ".join(f"{count:,} {name}" for name, count in ordered)
    compared = f"{result['compared']:,} comparisons in {report.seconds:.1f} s"
    view.say(f"{compared}: {verdicts}.", style="green" if report.passed else "red")
    view.result(result)
    if not report.passed:
        raise failed("comparisons", report.failures, result["compared"])


def failed(what: str, failures: list[Any], compared: int) -> CheckFailed:
    """The error that shows the first ten."""
    from mlx_lvm.parity.report.table import describe

    lines = [f"{len(failures):,} of {compared:,} {what} failed"]
    lines += [f"  - {describe(check)}" for check in failures[:10]]
    lines += [f"  ... and {len(failures) - 10:,} more"] if len(failures) > 10 else []
    return CheckFailed("\n".join(lines))


def _verify_goldens(path: Path, view: Output) -> None:
    from mlx_lvm.parity.arbiter import LIMIT
    from mlx_lvm.parity.checks.goldens import verify_goldens
    from mlx_lvm.parity.report.table import COLUMNS, rows
    from mlx_lvm.parity.verdict import verdict_of

    checks, about = verify_goldens(path)
    passed, failures = verdict_of(checks), [check for check in checks if not check.passed]
    cells = [row.cells(LIMIT[about["dtype"]]) for row in rows(checks)]
    view.table(f"Goldens of {about['name']}, {about['dtype']}", list(COLUMNS), cells)
    counted = f"{len(checks):,} recorded values, {len(failures):,} failed"
    view.say(f"{counted}. Recorded with {about['versions']}.", style="green" if passed else "red")
    view.result({"passed": passed, "goldens": str(path), "checks": [check.to_dict() for check in checks]})
    if not passed:
        raise failed("goldens", failures, len(checks))


def _write_goldens(subjects: list[Any], plan: Any, path: Path, view: Output) -> None:
    from mlx_lvm.parity.checks.goldens import write_goldens
    from mlx_lvm.parity.run import golden_cases

    if len(subjects) != 1:
        raise UsageError("--write-goldens records one model; name it in place of 'all'")
    count = write_goldens(path, subjects[0], golden_cases(subjects[0]), plan.dtype)
    size = f"{count:,} arrays, {path.stat().st_size / 1e6:.1f} MB"
    view.say(f"{path}: {size}. Verify anywhere: lvm parity --goldens {path}", style="green")
    view.result({"passed": True, "goldens": str(path), "arrays": count})


def _self_test(view: Output, out: str) -> None:
    from mlx_lvm.core.files.disk import write_json
    from mlx_lvm.parity.selftest import self_test, summary

    with view.status() as progress:
        outcomes = self_test(progress=progress)
    counts = summary(outcomes)
    groups: dict[str, list[Any]] = {}
    for outcome in outcomes:
        fault = outcome.fault
        groups.setdefault(fault.model if fault.stage == "model" else "training", []).append(outcome)
    table = [[name, *map(str, summary(mine).values())] for name, mine in groups.items()]
    columns = ["where", "planted", "caught", "blamed rightly", "equivalent", "silent on those"]
    view.table("Planted faults", columns, table)
    for outcome in outcomes:
        if not outcome.right:
            what = "noticed although equivalent" if outcome.caught else "NOT CAUGHT"
            view.say(f"! {outcome.fault.name}: {what}", style="red")
        elif outcome.caught and not outcome.blamed:
            expected = ", ".join(outcome.fault.expect)
            view.say(f"  {outcome.fault.name}: blamed on {outcome.place}, expected {expected}")
    passed = all(outcome.right for outcome in outcomes) and counts["blamed"] >= 0.95 * counts["planted"]
    caught = f"{counts['caught']} of {counts['planted']} caught"
    style = "green" if passed else "red"
    view.say(f"{caught}, {counts['blamed']} blamed on the right place.", style=style)
    mutants = {**counts, "faults": [outcome.to_dict() for outcome in outcomes]}
    result = {"passed": passed, "checks": [], "mutants": mutants}
    if out:
        write_json(Path(out) / "selftest.json", result)
    view.result(result)
    if not passed:
        raise CheckFailed(f"{counts['planted'] - counts['caught']} planted faults were not caught")
