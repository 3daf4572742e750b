"""`lvm doctor`: what runs here, how fast it multiplies, and the command that fixes what is missing."""

from __future__ import annotations

import typer

from mlx_lvm.cli.shared.common import Json, Output

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def doctor(json: Json = False) -> None:
    """Versions, device, memory, BLAS and its measured speed, TF32, compiler; how to fix what is missing.

    Example:  lvm doctor
    """
    from mlx_lvm.bench.doctor import examine

    out = Output(json)
    found = examine()
    out.table("", ["check", "finding"], [[check.name, check.finding] for check in found], left=2)
    remedies = [check for check in found if check.remedy]
    for check in remedies:
        out.say(f"! {check.name}: {check.remedy}", style="yellow")
    if not remedies:
        out.say("Nothing is missing.", style="green")
    keys = ("finding", "value", "remedy")
    checks = {check.name: {key: getattr(check, key) for key in keys} for check in found}
    out.result({"checks": checks})
