"""`lvm bench encoder`: a text encoder timed in MLX and by sentence-transformers, in turn on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mlx_lvm.cli.shared.common import Json, Output
from mlx_lvm.errors import UsageError

if TYPE_CHECKING:
    from mlx_lvm.bench.encoder import EncoderTime

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def bench_encoder(
    encoder: Annotated[
        str, typer.Argument(metavar="[NAME|FOLDER]", help="Hub id or local folder.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    against: Annotated[
        str, typer.Option(metavar="torch|none", help="Whose times stand alongside MLX's.")
    ] = "torch",
    batches: Annotated[str, typer.Option(help="Texts in a call, with commas.")] = "1,64",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of a text.")] = 130,
    precision: Annotated[
        str, typer.Option(metavar="float32|float16|bfloat16", help="Of MLX's side.")
    ] = "float32",
    seconds: Annotated[float, typer.Option(min=0, help="Time of each side in each row.")] = 5.0,
    device: Annotated[
        str | None, typer.Option(metavar="cpu|gpu", help="Default: the fastest there is.")
    ] = None,
    json: Json = False,
) -> None:
    """Time an encoder on texts of one length, calls of both sides in turn.

    Example:  lvm bench encoder models/all-MiniLM-L6-v2
    """
    from mlx_lvm.bench.encoder import kernels_per_layer, measure
    from mlx_lvm.core.linux_cpu import tuning
    from mlx_lvm.core.threads import blas_threads
    from mlx_lvm.data.ingest.encoder import MLXEncoder

    if against not in ("torch", "none"):
        raise UsageError(f"--against {against}: expected torch or none")
    try:
        sizes = [int(size) for size in batches.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise UsageError(f"--batches {batches}: expected whole numbers from 1 on, with commas")
    view = Output(json)
    ours = MLXEncoder(encoder, device, max(sizes), dtype=precision)
    other = None
    if against == "torch":
        from mlx_lvm.data.ingest.torch_encoder import SentenceEncoder

        places = {"cpu": "cpu", "gpu": None}
        other = SentenceEncoder(encoder, places[ours.device], max(sizes))
        ours.card.require_same(other.card, f"encoder {encoder}")
    theirs = other.encode if other else None
    with view.notes.status("timing"):
        rows = [measure(ours.text, theirs, size, tokens, seconds) for size in sizes]
    about = {
        "encoder": ours.card.model,
        "device": ours.device,
        "torch_device": other.device if other else None,
        "precision": precision,
        "blas": tuning().blas.name,
        "threads": blas_threads(),
        "kernels_per_layer": kernels_per_layer(ours.text, tokens),
    }
    title = f"{ours.card.model}, {tokens} tokens, {precision}, on {ours.device}"
    columns = ["texts", "mlx ms", "mlx texts/s", "torch ms", "torch texts/s", "mlx/torch"]
    view.table(title, columns, [cells(row) for row in rows])
    kernels = f"{about['kernels_per_layer']} kernels a layer"
    view.say(f"{kernels}; mlx/torch: texts a second, above 1 MLX is faster")
    view.result({**about, "rows": [row.to_dict() for row in rows]})


def cells(row: EncoderTime) -> list[str]:
    times = (row.mlx_ms, row.mlx_rate, row.torch_ms, row.torch_rate)
    ratio = "-" if row.ratio is None else f"{row.ratio:,.2f}"
    return [str(row.batch), *("-" if value is None else f"{value:,.1f}" for value in times), ratio]
