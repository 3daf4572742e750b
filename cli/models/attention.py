"""`lvm attention`: what a model looks at in its context, as a heat map on the terminal or as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from mlx_lvm.cli.shared.common import Corpus, Json, Model, Output, data_option, output_option
from mlx_lvm.cli.shared.subject import EncoderOf, GivenText, extend
from mlx_lvm.core.result import JsonObject

if TYPE_CHECKING:
    from mlx_lvm.evaluation.study.attention import Attention

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

SHADES = " .:-=+*#%@"  # for output without colour, light to dark


@app.command()
def attention(
    model: Model,
    corpus: Corpus = "",
    document: Annotated[
        str | None, data_option("--document", "-d", metavar="NAME", help="One document, window by window.")
    ] = None,
    text: GivenText = None,
    encoder: EncoderOf = None,
    split: Annotated[
        str, data_option(metavar="train|val|test|all", help="Documents, where none is named.")
    ] = "test",
    out: Annotated[
        Path | None, output_option(metavar="F.png", help="Write a picture (.png or .svg).")
    ] = None,
    json: Json = False,
) -> None:
    """Show AMN's attention weights by position, the size of its residual, where it leaves the mean.

    Examples:  lvm attention amn
               lvm attention amn --document 1941_franklin_d_roosevelt_d --out attention.png
               lvm attention amn --text draft.md
    """
    import numpy as np

    from mlx_lvm.core.stats import DocumentBootstrap
    from mlx_lvm.data.corpus import load_corpus
    from mlx_lvm.data.splits import split_corpus
    from mlx_lvm.data.windows import windows
    from mlx_lvm.errors import UsageError
    from mlx_lvm.evaluation.evaluate import space_warnings, subject_of
    from mlx_lvm.evaluation.study.attention import attention as measure
    from mlx_lvm.evaluation.study.attention import look
    from mlx_lvm.hub.load import corpus_of, load_model

    if out is not None and out.suffix not in (".png", ".svg"):
        raise UsageError(f"--out {out}: a picture ends in .png or .svg")
    display = Output(json)
    loaded = load_model(model)
    data = load_corpus(corpus or corpus_of(loaded))
    name, _, notes = subject_of(loaded, data, None)
    if text is not None:
        if document is not None:
            raise UsageError("--document and --text: name one document")
        data = extend(data, text, encoder)
        document = data.names[-1]
    if document is None:
        chosen = split_corpus(data, loaded.split_seed).part(split)
    else:
        chosen = np.array([data.document(document)])
    found = windows(data, chosen, loaded.context, document or f"{split} documents")
    measured = measure(loaded.model, found, DocumentBootstrap(found.documents))
    warnings = space_warnings(loaded, data)
    result: JsonObject = {
        "model": name,
        "corpus": data.name,
        "split": None if document else split,
        "documents": len(np.unique(found.documents)),
        "windows": len(found),
        **measured.to_dict(),
        "warnings": warnings,
        "notes": notes,
    }
    rows = [one.by_position for one in measured.by_shift]
    labels = [f"shift {one.low:.2f} to {one.high:.2f}" for one in measured.by_shift]
    if document is not None:
        result["document"] = document
        seen = look(loaded.model, found)
        result["weights"] = seen.weights.tolist()
        result["chunks"] = (found.targets - found.starts).tolist()
        rows, labels = result["weights"], [f"chunk {chunk}" for chunk in result["chunks"]]
    display.warn(warnings)
    display.say(f"{name} on {data.name}: {len(found):,} windows in {result['documents']} documents")
    show(display, measured, rows, labels)
    display.note(notes)
    if out is not None:
        from mlx_lvm.evaluation.report.heat_map import save_heat_map

        save_heat_map(out, rows, labels, measured.positions, f"{name}: attention, {document or data.name}")
        display.say(f"written: {out}")
    display.result(result)


def show(display: Output, found: Attention, rows: list[list[float]], labels: list[str]) -> None:
    """rows: the weights of each place of the context, a row for each of the labels."""
    from mlx_lvm.cli.shared.study import say_attention

    width = max(map(len, labels), default=0)
    display.say(f"{'':{width}}  " + "".join(f"{place:>7}" for place in found.positions), style="bold")
    top = max(2 / len(found.positions), max(map(max, rows)))  # an even spread is the middle of the scale
    for label, row in zip(labels, rows, strict=True):
        line = Text(f"{label:{width}}  ")
        for value in row:
            share = value / top
            mark = "" if display.terminal else SHADES[round(share * (len(SHADES) - 1))]
            ink = "black" if share > 0.55 else "white"
            line.append(
                f"{value:>6.3f}{mark or ' '}",
                style=f"{ink} on rgb({40 + int(215 * share)},{44 + int(150 * share)},{82 - int(20 * share)})",
            )
        display.console.print(line)
    say_attention(display, found)
    for one in found.departures:
        text = (one.label.text or "")[:90]
        display.say(f"  {one.departure:.4f}  {one.label.document} chunk {one.label.chunk}  {text}")
