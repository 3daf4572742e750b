"""`lvm data convert`: other people's files to a corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mlx_lvm.cli.corpora.embed import Licence, Overwrite, RateBar, ShardSize, Source
from mlx_lvm.cli.corpora.writing import Dtype, Out, stored_kind, written
from mlx_lvm.cli.shared.common import Json, Output, data_option, provenance_option
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.convert.conversion import Target
from mlx_lvm.data.convert.convert import convert as convert_file
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.data.tables.columns import Columns
from mlx_lvm.errors import UsageError


def _column(what: str) -> Any:
    """The option that names a column whose own name is not known."""
    return typer.Option(metavar="NAME", help=f"Column of {what}.", rich_help_panel="Columns")


def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE|FOLDER...",
            help=".npz, .npy, .parquet or .safetensors of vectors or windows; several, or a folder of them, "
            "are one table.",
        ),
    ],
    out: Out,
    ids: Annotated[
        Path | None,
        data_option(
            metavar="FILE",
            help="A document id a row (.npy, or text with a line each), where the file has none.",
        ),
    ] = None,
    vector_column: Annotated[str, _column("the vectors")] = "",
    document_column: Annotated[str, _column("document ids")] = "",
    chunk_column: Annotated[str, _column("chunk numbers, the order in a document")] = "",
    text_column: Annotated[str, _column("chunk texts")] = "",
    title_column: Annotated[str, _column("document names")] = "",
    one_document: Annotated[
        bool, data_option("--one-document", help="All rows are one document, as part of a merge.")
    ] = False,
    like: Annotated[
        str | None,
        provenance_option(
            metavar="CORPUS",
            help="Take the encoder card of this corpus: you vouch that one encoder made both.",
        ),
    ] = None,
    encoder: Annotated[str, provenance_option(metavar="NAME", help="What made the vectors; recorded.")] = "",
    source: Source = "",
    licence: Licence = "",
    dtype: Dtype = "",
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Another file to a corpus. Overlapping windows become the documents they were cut from.

    Known are windows (contexts [N, C, dim] and targets [N, dim], article ids where there are any) and vectors
    [N, dim] with document ids and chunk numbers, or offsets. Columns of other names are given with
    --document-column and the like. Nothing is unpickled.

    Example:  lvm data convert sequences.npz --out mine.safetensors
    """
    if like is not None and encoder:
        raise UsageError("--like and --encoder: the card comes from one of them")
    display = Output(json)
    card = None if like is None else open_corpus(find_corpus(like)).card
    if encoder:
        card = EncoderCard(model=encoder)
    provenance = {"source": source or files[0].name, "licence": licence}
    columns = Columns(vector_column, document_column, chunk_column, text_column, title_column)
    kind = stored_kind(dtype)
    target = Target(out, kind, card, provenance, shard_size, overwrite, one_document)
    with RateBar(display, "converting", scale=1e6, unit="MB") as bar:
        report = convert_file(files, target, ids, bar, columns)
    made = written(display, out)
    if report.kind == "windows":
        display.say(
            f"{report.windows_read:,} windows read: {report.repeated:,} repeat another, {report.alone:,} "
            f"overlap with no other{' and became documents of their own' if report.alone else ''}"
        )
    if report.columns:
        display.say("read " + ", ".join(f"{role} from '{name}'" for role, name in report.columns.items()))
    if report.unused:
        display.say(f"left out, as they have no role in a corpus: {', '.join(report.unused)}")
    display.note([f"left out: {reason}" for reason in report.left_out] + report.notes, "warning")
    display.result({**asdict(report), **made})
