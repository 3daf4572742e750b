"""`lvm parity encoder`: prove that a text encoder computes the same in MLX as transformers' own module."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.shared.common import Json, Output, output_option
from mlx_lvm.errors import CheckFailed, SetupInvalid

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def parity_encoder(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]", help="A sentence-transformers folder. Default: small random encoders alone."
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="float32|bfloat16|float16", help="Precision under test.")
    ] = "float32",
    seeds: Annotated[
        int, typer.Option(min=0, help="Small random encoders of each architecture, compared as well.")
    ] = 4,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Plant faults; all must be caught and blamed.")
    ] = False,
    out: Annotated[Path | None, output_option(metavar="DIR", help="Write parity.json.")] = None,
    json: Json = False,
) -> None:
    """Encode real and hostile texts in MLX and by transformers; a float64 run decides who is right.

    Compared are token ids, weights, relative positions, the embeddings, every layer by itself and with what
    it inherits, the pooled vector, and `encode` as it is used.

    Examples:  lvm parity encoder models/all-MiniLM-L6-v2 --self-test
               lvm parity encoder --seeds 10
    """
    from mlx_lvm.parity.sides.setup import prepare

    prepare()  # before MLX's first operation
    if find_spec("transformers") is None or find_spec("sentence_transformers") is None:
        raise SetupInvalid("parity of an encoder needs transformers: pip install 'mlx-lvm[embed-torch]'")
    from mlx_lvm.parity.encoders.run import run

    view = Output(json)
    with view.status() as progress:
        report = run(folder, dtype, seeds, self_test, progress)
    _show(report, view, out)


def _show(report: Any, view: Output, out: Path | None) -> None:
    from mlx_lvm.core.files.disk import write_json
    from mlx_lvm.parity.arbiter import LIMIT
    from mlx_lvm.parity.report.table import COLUMNS, describe, rows

    title = f"Parity with transformers, {report.dtype}"
    view.table(title, list(COLUMNS), [row.cells(LIMIT[report.dtype]) for row in rows(report.checks)])
    result = report.to_dict()
    if out is not None:
        write_json(out / "parity.json", result)
        view.say(f"Written: {out / 'parity.json'}")
    for check in report.failures[:10]:
        view.say(describe(check), style="red")
    missed = [outcome for outcome in report.outcomes if not (outcome.caught and outcome.blamed)]
    for outcome in missed:
        what = f"blamed on {outcome.place}" if outcome.caught else "not caught"
        view.say(f"planted in {outcome.encoder}: {outcome.fault.name}: {what}", style="red")
    compared = f"{len(report.checks):,} comparisons in {report.seconds:.1f} s"
    style = "green" if report.passed else "red"
    view.say(f"{compared}, {len(report.failures)} failed.", style=style)
    if report.outcomes:
        count = len(report.outcomes)
        view.say(f"{count - len(missed)} of {count} planted faults caught and blamed on their place.")
    view.result(result)
    if not report.passed:
        raise CheckFailed("the encoder does not compute what transformers computes")
