"""`lvm eval`: a model beside every closed form, on documents it never saw, with a verdict in a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.common import Corpus, Json, Output
from mlx_lvm.evaluation.baselines import NAMES

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

COLUMNS = ("cosine", "95% interval", "to best closed form", "centred", "R@1", "R@5", "R@10", "MRR", "MRR centred", "MRR in doc", "margin")

Subject = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help=f"Architecture, run folder, exported folder, .safetensors file, or a closed form: {', '.join(NAMES)}."
    ),
]


@app.command()
def evaluate(
    model: Subject,
    corpus: Corpus = "sotu",
    split: Annotated[
        str, typer.Option("--split", metavar="train|val|test|all", help="Documents to score on.", rich_help_panel="Data")
    ] = "test",
    context: Annotated[
        int | None, typer.Option("--context", min=1, help="Chunks read. Default: the model's own, else 5.", rich_help_panel="Data")
    ] = None,
    split_seed: Annotated[
        int | None,
        typer.Option("--split-seed", help="Of a closed form; a model keeps the split it was trained with.", rich_help_panel="Data"),
    ] = None,
    max_windows: Annotated[
        int, typer.Option("--max-windows", min=1, help="Score at most so many windows, evenly spaced.", rich_help_panel="Data")
    ] = 20_000,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for metrics.json.", rich_help_panel="Output")] = None,
    json: Json = False,
) -> None:
    """Score a model, every closed form and the controls on held-out documents.

    Closed forms are fitted on the training documents and tuned on the validation documents of the corpus. Intervals are a
    paired bootstrap over documents. A claim is a difference to the best closed form.

    Examples:  lvm eval amn
               lvm eval runs/amn-sotu-1 --corpus moby --json
               lvm eval lag-filter
    """
    from mlx_lvm.data.corpus import load_corpus
    from mlx_lvm.evaluation.evaluate import evaluate as measure
    from mlx_lvm.files import write_json
    from mlx_lvm.hub import load_model

    display = Output(json)
    subject = model if model in NAMES and not Path(model).exists() else load_model(model)
    with display.notes.status("") as status:
        result = measure(
            subject,
            load_corpus(corpus),
            split,
            context=context,
            split_seed=split_seed,
            max_windows=max_windows,
            progress=lambda line: status.update(line),
        )
    show(display, result)
    if out is not None:
        write_json(out / "metrics.json", result)
        display.say(f"written: {out / 'metrics.json'}")
    display.result(result)


def show(display: Output, result: dict[str, Any]) -> None:
    """The table, what the pool is, the verdict and the notes."""
    metrics = result["metrics"]
    pool = result["retrieval"]["split"]
    display.table(
        f"{result['model']} on {result['corpus']}, {result['split']}: {result['windows']:,} windows of {result['context']} "
        f"in {result['documents']} documents",
        [result["split"], *COLUMNS],
        [[name, *_row(entry)] for name, entry in metrics.items()],
        bold=list(metrics).index(result["model"]),
    )
    chance = pool["chance"]
    display.say(
        f"retrieval among {pool['pool']:,.0f} chunks (context out): chance R@1 {chance['recall_at_1']:.4f}, "
        f"R@10 {chance['recall_at_10']:.4f}, MRR {chance['mrr']:.4f}; "
        f"in a document among {result['retrieval']['document']['pool']:.0f}: MRR {result['retrieval']['document']['chance']['mrr']:.4f}"
    )
    display.say("margin = cos(prediction, truth) - cos(prediction, last chunk); below zero is arithmetic for a good prediction, no defect")
    verdict = result["verdict"]
    style = {"better": "bold green", "worse": "bold red"}.get(verdict["outcome"], "bold yellow")
    display.say(verdict["sentence"], style=style)
    for metric in ("centred_cosine", "centred.mrr", "mean"):
        if metric in verdict:
            display.say(verdict[metric]["sentence"])
    for note in result["notes"]:
        display.say(f"note: {note}", style="yellow")


def _row(entry: dict[str, Any]) -> list[str]:
    low, high = entry["cosine_ci"]
    against = entry["versus_best"].get("cosine")
    return [
        f"{entry['cosine']:.4f}",
        "-" if low is None else f"{low:.4f} {high:.4f}",
        "best" if against is None else "" if entry["kind"] == "control" else _difference(against),
        f"{entry['centred_cosine']:.4f}",
        *(f"{entry[f'recall_at_{cut}']:.3f}" for cut in (1, 5, 10)),
        f"{entry['mrr']:.4f}",
        f"{entry['centred']['mrr']:.4f}",
        f"{entry['in_document']['mrr']:.4f}",
        f"{entry['margin']:+.3f}",
    ]


def _difference(against: dict[str, Any]) -> str:
    low, high = against["ci"]
    return f"{against['difference']:+.4f}" + ("" if low is None else f" [{low:+.4f} {high:+.4f}]")
