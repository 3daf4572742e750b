"""`lvm eval`: a model compared with every baseline, on documents it never saw, with a verdict in a
sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.shared.common import Corpus, Json, Output, Precision
from mlx_lvm.cli.shared.scores import show
from mlx_lvm.cli.shared.study import show_study
from mlx_lvm.cli.shared.subject import Subject, is_baseline
from mlx_lvm.cli.shared.text import EncoderOf, GivenText, extend
from mlx_lvm.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def evaluate(
    model: Subject,
    corpus: Corpus = "sotu",
    split: Annotated[
        str,
        typer.Option(
            "--split", metavar="train|val|test|all", help="Documents to score on.", rich_help_panel="Data"
        ),
    ] = "test",
    text: GivenText = None,
    encoder: EncoderOf = None,
    context: Annotated[
        int | None,
        typer.Option(
            "--context", min=1, help="Chunks read. Default: the model's own, else 5.", rich_help_panel="Data"
        ),
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option(
            "--split-seed",
            help="Of a baseline; a model keeps the split it was trained with.",
            rich_help_panel="Data",
        ),
    ] = None,
    max_windows: Annotated[
        int,
        typer.Option(
            "--max-windows",
            min=1,
            help="Score at most so many windows, evenly spaced.",
            rich_help_panel="Data",
        ),
    ] = 20_000,
    precision: Precision = "float32",
    every: Annotated[
        bool,
        typer.Option("--all", help="Show every baseline, control and figure.", rich_help_panel="Output"),
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="The table and the verdict alone.", rich_help_panel="Parts")
    ] = False,
    ood: Annotated[
        str | None,
        typer.Option(
            "--ood",
            metavar="NAME|FILE",
            help="Also on this corpus, both domains side by side.",
            rich_help_panel="Parts",
        ),
    ] = None,
    arrow: Annotated[
        bool,
        typer.Option(
            "--arrow-of-time",
            help="Train the same recipe forward and on reversed documents; compare.",
            rich_help_panel="Parts",
        ),
    ] = False,
    arrow_epochs: Annotated[
        int,
        typer.Option(
            "--arrow-epochs", min=1, help="Epochs of each of the two trainings.", rich_help_panel="Parts"
        ),
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for report.html and metrics.json.", rich_help_panel="Output"),
    ] = None,
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
    from mlx_lvm.core.files import write_json
    from mlx_lvm.data.ingest.outside import scored_alone
    from mlx_lvm.data.sampling import load_or_sample
    from mlx_lvm.evaluation.evaluate import examine
    from mlx_lvm.evaluation.report import plots
    from mlx_lvm.evaluation.study.arrow import arrow_of_time
    from mlx_lvm.evaluation.study.study import study
    from mlx_lvm.evaluation.transfer import out_of_domain
    from mlx_lvm.hub.load import Loaded, load_model

    display = Output(json)
    subject = model if is_baseline(model, precision) else load_model(model).compute_in(precision)
    if arrow and not isinstance(subject, Loaded):
        raise UsageError(f"--arrow-of-time trains a model by its recipe; {model} is a baseline and has none")
    with_report = out is not None and plots.available()
    if out is not None and not with_report:
        display.notes.print(
            "note: no report.html without matplotlib; install it: pip install 'mlx-lvm[report]'"
        )
    reads, seed = (subject.context, subject.split_seed) if isinstance(subject, Loaded) else (5, 0)
    reads, seed = context or reads, seed if split_seed is None else split_seed
    data, other = (
        load_or_sample(corpus, reads, seed),
        None if ood is None else load_or_sample(ood, reads, seed),
    )
    if text is not None:
        if split != "test":
            raise UsageError("--split and --text: a text is what is scored on")
        data = scored_alone(data, extend(data, text, encoder), seed)
    with display.notes.status("") as status:

        def progress(line: str) -> None:
            status.update(line)

        evaluation = examine(
            subject,
            data,
            split,
            context=context,
            split_seed=split_seed,
            max_windows=max_windows,
            progress=progress,
        )
        result = evaluation.result
        if not quick:
            result.update(study(evaluation, progress))
        if other is not None:
            result["ood"] = out_of_domain(evaluation, subject, other, max_windows, progress)
        if arrow and isinstance(subject, Loaded):
            result["arrow_of_time"] = arrow_of_time(
                subject, data, arrow_epochs, max_windows, progress=progress
            )
    show(display, result, every)
    show_study(display, result)
    if out is not None:
        write_json(out / "metrics.json", result)
        display.say(f"written: {out / 'metrics.json'}")
        if with_report:
            write_report(out / "report.html", result, subject)
            display.say(f"written: {out / 'report.html'}")
    display.result(result)


def write_report(path: Path, result: dict[str, Any], subject: Any) -> None:
    """report.html, with what the model's own files say of its origin."""
    import json
    import shlex
    import sys

    from mlx_lvm.core.files import write_atomic
    from mlx_lvm.evaluation.report.html import render
    from mlx_lvm.hub.load import Loaded
    from mlx_lvm.training.run import read_history, versions

    known: dict[str, str] = {}
    history: list[dict[str, Any]] = []
    if isinstance(subject, Loaded):
        history = read_history(subject.folder) if subject.folder is not None else []
        card = subject.card.to_dict() if subject.card is not None else {}
        known["encoder"] = (
            ", ".join(f"{key} {value}" for key, value in card.items() if value) or "not recorded"
        )
        known["model"] = (
            f"{subject.model.config.model_type}, {subject.model.parameter_count():,} parameters, "
            f"{subject.dtype}"
        )
        known["run"] = subject.folder.name if subject.folder is not None else subject.name
        known["training"] = json.dumps(subject.train, sort_keys=True) if subject.train else "not recorded"
    known["versions"] = ", ".join(f"{key} {value}" for key, value in versions().items())
    known["command"] = shlex.join(["lvm", *sys.argv[1:]])
    write_atomic(path, render(result, history, known).encode())
