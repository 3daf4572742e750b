"""`lvm export`: a model as a Hub folder."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.shared.common import Json, Model, Output

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Out = Annotated[Path, typer.Option("--out", help="Folder to write.", rich_help_panel="Output")]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="float32|float16|bfloat16",
        help="Type the weights are stored in.",
        rich_help_panel="Output",
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a model that is there.", rich_help_panel="Output")
]
Corpus = Annotated[
    str | None,
    typer.Option(
        "--corpus",
        "-c",
        metavar="NAME|FILE",
        help="Measure on this one, not the model's own.",
        rich_help_panel="Data",
    ),
]
Context = Annotated[
    int,
    typer.Option(
        "--context", min=1, max=100, help="Chunks that a closed form reads.", rich_help_panel="Data"
    ),
]
Bare = Annotated[
    bool, typer.Option("--no-measure", help="Write a card without numbers.", rich_help_panel="Data")
]


@app.command()
def export(
    model: Model,
    out: Out,
    dtype: Dtype = "float32",
    corpus: Corpus = None,
    no_measure: Bare = False,
    context: Context = 5,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write model.safetensors, config.json and a model card; PyTorch loads the file strictly, as it is.

    Every number on the card is measured during the export on test documents, and the parity report with it
    where torch is installed. A closed form that filters (lag-filter, lag-filter-centroid, shrunk-mean) is
    fitted first and written as a model like any other.

    Examples:  lvm export runs/amn-sotu-1 --out exported/amn
               lvm export lag-filter --corpus moby --out exported/lag-filter
    """
    section = None if no_measure else _parity()
    from mlx_lvm.evaluation.export import export as write
    from mlx_lvm.hub.export import fit_filter, require_free
    from mlx_lvm.hub.load import load_model
    from mlx_lvm.predictors.baselines import NAMES

    display = Output(json)
    require_free(out, overwrite)
    closed_form = model in NAMES and not Path(model).exists()
    loaded = fit_filter(model, corpus or "sotu", context) if closed_form else load_model(model)
    parity = section(loaded) if section else None
    progress = lambda line: display.notes.print(line)  # noqa: E731
    written = write(
        loaded,
        out,
        dtype=dtype,
        overwrite=overwrite,
        corpus=corpus,
        measure=not no_measure,
        parity=parity,
        progress=progress,
    )
    display.say(
        f"{written['path']}: {written['parameters']:,} parameters in {written['dtype']}, sha256 "
        f"{written['sha256']}"
    )
    if "evaluation" in written:
        display.say(written["evaluation"]["verdict"]["sentence"])
    display.result({key: written[key] for key in ("path", "sha256", "dtype", "parameters")})


def _parity() -> Any:
    """The function that writes a card's parity section, with TF32 off from MLX's first operation; None
    without torch.
    """
    if find_spec("torch") is None:
        return None
    from mlx_lvm.parity.sides.setup import prepare

    prepare()
    from mlx_lvm.parity.report.card import parity_section

    return parity_section
