"""`lvm compare`: a leaderboard of models on the same documents, compared with the baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_lvm.cli.shared.common import Corpus, Json, Markdown, MaxWindows, Output, Split

if TYPE_CHECKING:
    from mlx_lvm.evaluation.leaderboard import Leaderboard

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def compare(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN|MODEL]...",
            help="Runs, exported folders, .safetensors files or architectures. Default: every run under "
            "runs/.",
        ),
    ] = None,
    corpus: Corpus = "",
    split: Split = "test",
    max_windows: MaxWindows = 20_000,
    as_markdown: Markdown = False,
    json: Json = False,
) -> None:
    """Rank models by cosine on held-out documents: gain over the best baseline, retrieval, time, latency.

    p-values are corrected over the models by Holm's procedure. Without --corpus it is the one the first model
    was trained on.

    Examples:  lvm compare
               lvm compare runs/amn-sotu-1 runs/gru-sotu-1 amn --markdown
    """
    from mlx_lvm.api.judging import compare as measure
    from mlx_lvm.evaluation.leaderboard import runs_under

    display = Output(json)
    with display.status() as progress:
        found = measure(
            *(models or runs_under(Path("runs"))),
            corpus=corpus or None,
            split=split,
            max_windows=max_windows,
            progress=progress,
        )
    if as_markdown:
        display.say(found.markdown())
    else:
        show(display, found.leaderboard)
    display.result(found.to_dict())


def show(display: Output, result: Leaderboard) -> None:
    """The leaderboard, the best baselines under it, and what was scored."""
    from mlx_lvm.evaluation.leaderboard import COLUMNS

    display.warn(result.warnings)
    display.table("", COLUMNS, result.table)
    display.say(result.sentence)
    display.note(result.notes)
