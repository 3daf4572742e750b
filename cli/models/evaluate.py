"""`lvm eval`: a model compared with every baseline, on documents it never saw, with a verdict in words."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mlx_lvm.cli.shared.common import (
    Corpus,
    Json,
    MaxWindows,
    Output,
    Precision,
    Split,
    data_option,
    output_option,
    parts_option,
)
from mlx_lvm.cli.shared.study import show, show_study
from mlx_lvm.cli.shared.subject import EncoderOf, GivenText, Subject, extend
from mlx_lvm.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def evaluate(
    model: Subject,
    corpus: Corpus = "",
    split: Split = "test",
    text: GivenText = None,
    encoder: EncoderOf = None,
    context: Annotated[
        int | None, data_option(min=1, help="Chunks read. Default: the model's own, else 5.")
    ] = None,
    split_seed: Annotated[
        int | None, data_option(help="Of a baseline; a model keeps the split it was trained with.")
    ] = None,
    max_windows: MaxWindows = 20_000,
    precision: Precision = "float32",
    every: Annotated[bool, output_option("--all", help="Show every baseline, control and figure.")] = False,
    quick: Annotated[bool, parts_option("--quick", help="The table and the verdict alone.")] = False,
    ood: Annotated[
        str | None, parts_option(metavar="NAME|FILE", help="Also on this corpus, both domains side by side.")
    ] = None,
    arrow: Annotated[
        bool,
        parts_option(
            "--arrow-of-time", help="Train the same recipe forward and on reversed documents; compare."
        ),
    ] = False,
    arrow_epochs: Annotated[int, parts_option(min=1, help="Epochs of each of the two trainings.")] = 5,
    out: Annotated[Path | None, output_option(help="Folder for report.html and metrics.json.")] = None,
    json: Json = False,
) -> None:
    """Score a model, every baseline and the controls on held-out documents.

    Baselines are fitted on the training documents and tuned on the validation documents of the corpus.
    Intervals are a paired bootstrap over documents. A claim is a difference to the best baseline. Then a
    closer look: direction, rollout, ablations, difficulty, attention, and the chunks where the model gains
    and loses most.

    Examples:  lvm eval amn --out report
               lvm eval runs/amn-sotu-1 --ood moby --json
               lvm eval lag-filter --quick
               lvm eval amn --text my-speeches/ --quick
    """
    from mlx_lvm.api.corpus import Corpus as Held
    from mlx_lvm.api.judging import evaluate as measure
    from mlx_lvm.api.judging import in_memory
    from mlx_lvm.api.serving import default_corpus, reading
    from mlx_lvm.data.ingest.outside import scored_alone
    from mlx_lvm.evaluation.report import drawing

    display = Output(json)
    with_report = out is not None and drawing.available()
    if out is not None and not with_report:
        remedy = "install it: pip install 'mlx-lvm[report]'"
        display.notes.print(f"note: no report.html without matplotlib; {remedy}")
    data: str | Held | None = corpus or None
    if text is not None:
        if split != "test":
            raise UsageError("--split and --text: a text is what is scored on")
        reads, seed = reading(model, context, split_seed)
        held = in_memory(corpus or default_corpus(model), reads, seed)
        data = Held(scored_alone(held, extend(held, text, encoder), seed))
    with display.status() as progress:
        report = measure(
            model,
            data,
            split,
            context=context,
            split_seed=split_seed,
            max_windows=max_windows,
            closer=not quick,
            ood=ood,
            arrow_epochs=arrow_epochs if arrow else 0,
            precision=precision,
            progress=progress,
        )
    show(display, report.evaluation, every)
    show_study(display, report.findings)
    if out is not None:
        report.save(out, shlex.join(["lvm", *sys.argv[1:]]))
        for name in ("metrics.json", *(["report.html"] if with_report else [])):
            display.say(f"written: {out / name}")
    display.result(report.to_dict())
