"""`lvm export`: a model as a Hub folder."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from mlx_lvm.cli.shared.common import Json, Model, Output, data_option, output_option

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Out = Annotated[Path | None, output_option("--out", help="Folder to write; needed without --push.")]
Push = Annotated[str | None, output_option("--push", metavar="USER/REPO", help="Upload it to the Hub.")]
Private = Annotated[bool, output_option("--private", help="A new repository is private.")]
Dtype = Annotated[
    str, output_option("--dtype", metavar="float32|float16|bfloat16", help="Type the weights are stored in.")
]
Overwrite = Annotated[bool, output_option("--overwrite", help="Replace a model that is there.")]
Corpus = Annotated[
    str | None,
    data_option("--corpus", "-c", metavar="NAME|FILE", help="Measure on this one, not the model's own."),
]
Context = Annotated[int, data_option("--context", min=1, max=100, help="Chunks that a baseline reads.")]
Bare = Annotated[bool, data_option("--no-measure", help="Write a card without numbers.")]


@app.command()
def export(
    model: Model,
    out: Out = None,
    push: Push = None,
    private: Private = False,
    dtype: Dtype = "float32",
    corpus: Corpus = None,
    no_measure: Bare = False,
    context: Context = 5,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write model.safetensors, config.json and a model card; PyTorch loads the file strictly, as it is.

    Every number on the card is measured during the export on test documents, and the parity report with it
    where torch is installed. A baseline that filters (lag-filter, lag-filter-centroid, shrunk-mean) is
    fitted first and written as a model like any other.

    Examples:  lvm export runs/amn-sotu-1 --out exported/amn
               lvm export lag-filter --corpus moby --out exported/lag-filter
               lvm export runs/amn-sotu-1 --push me/amn --private
    """
    from mlx_lvm.api.handing_over import export as write
    from mlx_lvm.errors import UsageError
    from mlx_lvm.hub.remote import push as upload

    if out is None and push is None:
        raise UsageError("nowhere to write: give --out FOLDER, --push user/repo, or both")
    if private and push is None:
        raise UsageError("--private: of a repository on the Hub; give --push user/repo with it")
    display = Output(json)
    with tempfile.TemporaryDirectory() as kept:
        folder = out or Path(kept)
        written = write(
            model,
            folder,
            dtype=dtype,
            corpus=corpus,
            measure=not no_measure,
            context=context,
            overwrite=overwrite,
            progress=display.notes.print,
        )
        size = f"{written['parameters']:,} parameters in {written['dtype']}"
        display.say(f"{written['path']}: {size}, sha256 {written['sha256']}")
        if "evaluation" in written:
            display.say(written["evaluation"]["verdict"]["sentence"])
        address = {}
        if push is not None:
            address = {"url": upload(folder, push, private=private)}
            display.say(f"Pushed: {address['url']}")
    display.result(address | {key: written[key] for key in ("path", "sha256", "dtype", "parameters")})
