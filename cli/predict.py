"""`lvm predict`: the next chunk of a document, as the chunks nearest to the predicted vector."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mlx_lvm.cli.common import Corpus, Json, Output
from mlx_lvm.cli.evaluate import Subject, load_subject

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def predict(
    model: Subject,
    document: Annotated[
        str,
        typer.Option("--document", "-d", metavar="NAME", help="Document of the corpus, by name or number.", rich_help_panel="Data"),
    ],
    corpus: Corpus = "sotu",
    at: Annotated[
        int | None,
        typer.Option("--at", min=0, help="Chunk to predict, from 0. Default: the one after the last.", rich_help_panel="Data"),
    ] = None,
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=1000, help="Predict so many chunks, each from the ones predicted before.")
    ] = 1,
    top: Annotated[int, typer.Option("--top", min=1, help="Show so many nearest chunks.")] = 5,
    json: Json = False,
) -> None:
    """Predict the vector of a document's next chunk and show the chunks of the corpus nearest to it.

    The chunks that the model has just read are left out. Where the document goes on, the true chunk is shown with its rank.

    Examples:  lvm predict amn --document 1961_john_f_kennedy_d --at 20
               lvm predict amn --document 2021_joseph_r_biden_d --steps 5 --top 3
    """
    from mlx_lvm.data.corpus import load_corpus
    from mlx_lvm.evaluation.predict import predict as measure

    display = Output(json)
    data = load_corpus(corpus)
    number = int(document) if document.isdigit() and document not in data.names and int(document) < len(data.names) else None
    chosen = data.document(document) if number is None else number
    predictor, context = load_subject(model, data)
    result = measure(predictor, data, chosen, at, context, steps, top)
    show(display, result)
    display.result(result)


def show(display: Output, result: dict[str, Any]) -> None:
    document = result["document"]
    display.say(f"{result['model']} on {result['corpus']}: {document}, chunk {result['at']} from the {len(result['context'])} before it")
    if "text" in result["context"][-1]:
        display.say(f"last read: {result['context'][-1]['text']}", style="dim")
    for step in result["steps"]:
        rows = [_row(f"{place}", one) for place, one in enumerate(step["nearest"], 1)]
        if "truth" in step:
            rows.append(_row(f"truth, rank {step['truth']['rank']:,}", step["truth"]))
        display.say()
        title = f"step {step['step']}: nearest of {result['candidates']:,} chunks to the prediction"
        display.table(title, ["", "chunk", "text", "cosine"], rows, bold=len(rows) - 1 if "truth" in step else None, left=3)


def _row(place: str, one: dict[str, Any]) -> list[str]:
    return [place, f"{one['document']}, {one['chunk']}", one.get("text", "")[:90], f"{one['score']:.4f}"]
