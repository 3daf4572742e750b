"""`lvm import`: weights from PyTorch become a model of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.shared.common import Json, Output
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import needing
from mlx_lvm.models import architectures

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

File = Annotated[
    Path,
    typer.Argument(
        help="A .pt, .pth, .bin or .safetensors file (a state dict or a checkpoint), or a folder of the Hub."
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--model", metavar="|".join(architectures()), help="Where names and shapes fit several."),
]
Heads = Annotated[
    int | None, typer.Option("--heads", min=1, help="Attention heads of a transformer, which no shape tells.")
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write, in the layout of an export.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")]


@app.command("import")
def import_(
    file: File,
    out: Out,
    model: Name = None,
    heads: Heads = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Read a torch state dict or checkpoint, infer architecture and sizes, and write a model folder.

    Nothing in the file is executed. What does not fit is listed, all of it, and nothing is written then.

    Example:  lvm import best_amn.pt --out models/amn
    """
    from mlx_lvm.core.files.disk import sha256
    from mlx_lvm.core.files.safetensors import open_safetensors
    from mlx_lvm.hub.export import require_free, write_model
    from mlx_lvm.hub.folders import described, weight_files
    from mlx_lvm.hub.importing import to_model
    from mlx_lvm.hub.load import load_weights_file

    display = Output(json)
    require_free(out, overwrite)
    files = weight_files(file) if file.is_dir() else [file]
    if files[0].suffix == ".safetensors" and "mlx_lvm" in open_safetensors(files[0]).metadata:
        loaded = load_weights_file(files[0])  # one of ours: it says itself where it comes from
    else:
        state: JsonObject = {}
        said = described(file) if file.is_dir() else {}
        for part in files:
            plain = part.suffix == ".safetensors"
            tensors, rest = (open_safetensors(part).arrays(), {}) if plain else _read_torch(part)
            state.update(tensors)
            said.update(rest)
        loaded = to_model(state, said, model, {} if heads is None else {"heads": heads}, str(file))
        loaded.imported.update(file=files[0].name, sha256=sha256(files[0].read_bytes()))
    count = write_model(loaded, out, dtype=loaded.dtype).parameters
    kind, config = loaded.model.config.model_type, loaded.model.config.to_dict()
    display.say(f"{out}: {kind}, {count:,} parameters, {config}")
    display.note(loaded.notes)
    display.say(f"next: lvm parity {out}   lvm eval {out} --corpus NAME|FILE")
    display.result({"path": str(out), "model": kind, "parameters": count, "config": config})


def _read_torch(file: Path) -> tuple[Any, Any]:
    with needing("parity", f"{file}: reading torch files needs torch"):
        from mlx_lvm.parity.checkpoint import read_checkpoint
    return read_checkpoint(file)
