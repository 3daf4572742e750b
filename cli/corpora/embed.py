"""`lvm embed`: documents to a corpus."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlx_lvm.cli.shared.common import (
    Json,
    Output,
    chunks_option,
    encoder_option,
    output_option,
    provenance_option,
)
from mlx_lvm.config import parse_size
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.storage.writer import require_free
from mlx_lvm.errors import UsageError

app = typer.Typer(add_completion=False, rich_markup_mode="rich")

Dtype = Annotated[str, output_option("--dtype", metavar="i8|f16|f32", help="How vectors are stored.")]
Overwrite = Annotated[bool, output_option("--overwrite", help="Replace a corpus that is there.")]
ShardSize = Annotated[
    int | None,
    output_option(
        metavar="SIZE", parser=parse_size, help="Write a folder of files of about this size, such as 2G."
    ),
]
Source = Annotated[str, provenance_option("--source", help="Where the data come from; recorded.")]
Licence = Annotated[str, provenance_option("--licence", help="Their licence; recorded.")]


def stored_dtype(name: str, allowed: tuple[str, ...]) -> str:
    """The name of a dtype in a corpus. Raises UsageError for others."""
    if name.upper() not in allowed:
        raise UsageError(f"--dtype {name} is not one of {', '.join(allowed).lower()}")
    return name.upper()


class RateBar:
    """A bar with rate and time left on a terminal; nothing when piped."""

    def __init__(self, out: Output, what: str, scale: float = 1, unit: str = "") -> None:
        self.scale = scale
        self.progress = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} left"),
            TimeRemainingColumn(),
            console=out.notes,
            transient=True,
            disable=not out.notes.is_terminal,
        )
        self.unit = unit
        self.task = self.progress.add_task(what, total=None, rate="")

    def __enter__(self) -> RateBar:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def __call__(self, done: int, total: int) -> None:
        rate = f"{self.progress.tasks[self.task].speed or 0:,.0f} {self.unit}/s"
        done, total = int(done / self.scale), int(total / self.scale)
        self.progress.update(self.task, completed=done, total=total, rate=rate)


@app.command()
def embed(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Files (.txt, .md, .jsonl of id and text) or folders of them."
        ),
    ],
    out: Annotated[Path, output_option(metavar="CORPUS", help="Corpus to write: a .safetensors file.")],
    encoder: Annotated[
        str,
        encoder_option(
            metavar="NAME|FOLDER",
            help="Hub id or local folder of a sentence-transformers model. A small one: all-MiniLM-L6-v2.",
        ),
    ] = "sentence-transformers/all-mpnet-base-v2",
    revision: Annotated[str | None, encoder_option(help="Commit, branch or tag of the Hub.")] = None,
    engine: Annotated[
        str,
        encoder_option(
            metavar="mlx|torch",
            help="mlx runs BERT, MPNet and T5; torch what sentence-transformers runs (extra 'embed-torch').",
        ),
    ] = "mlx",
    precision: Annotated[
        str,
        encoder_option(
            metavar="float32|float16|bfloat16", help="What the encoder runs in; half is faster on a GPU."
        ),
    ] = "float32",
    device: Annotated[
        str | None,
        encoder_option(
            metavar="cpu|gpu|cuda|mps",
            help="cpu or gpu; with --engine torch cpu, cuda or mps. Default: the fastest there is.",
        ),
    ] = None,
    batch_size: Annotated[int | None, encoder_option(min=1, help="Most chunks encoded at a time.")] = None,
    chunk_min: Annotated[
        int, chunks_option(help="A chunk is closed once it has this many characters.")
    ] = 500,
    chunk_max: Annotated[
        int, chunks_option(help="A sentence that would take it past this many begins the next.")
    ] = 1000,
    sentences: Annotated[
        str,
        chunks_option(
            metavar="careful|simple", help="Rule that finds sentences; simple made the shipped corpora."
        ),
    ] = "careful",
    dtype: Dtype = "i8",
    text: Annotated[
        bool, output_option("--text/--no-text", help="Keep the chunks' text next to the vectors.")
    ] = True,
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    restart: Annotated[bool, output_option("--restart", help="Throw unfinished work away.")] = False,
    source: Source = "",
    licence: Licence = "",
    json: Json = False,
) -> None:
    """Split documents into chunks and embed them. A run that was stopped goes on when it is called again.

    Examples:  lvm embed notes/ --out notes.safetensors
               lvm embed notes/ --out notes.safetensors --encoder all-MiniLM-L6-v2
    """
    from mlx_lvm.data.ingest.embedding import EMBED_DTYPES, embed
    from mlx_lvm.data.ingest.encoder import load_encoder

    display = Output(json)
    kind, chunking = stored_dtype(dtype, EMBED_DTYPES), Chunking(chunk_min, chunk_max, sentences)
    require_free(out, overwrite)
    model = load_encoder(encoder, engine, device, batch_size, revision, precision)
    reads = f"{model.card.dim} dimensions, at most {model.card.max_tokens or '?'} tokens"
    display.say(f"encoder {model.card.model}: {reads}, on {model.device}")
    same, different = _compare(model.card)
    provenance = {key: value for key, value in (("source", source), ("licence", licence)) if value}
    try:
        with RateBar(display, "embedding", unit="chunks") as bar:
            done = embed(
                paths,
                out,
                model,
                chunking,
                kind,
                texts=text,
                provenance=provenance,
                shard_bytes=shard_size,
                overwrite=overwrite,
                restart=restart,
                progress=bar,
            )
    except KeyboardInterrupt:
        display.notes.print("stopped; the same command goes on from the last finished part")
        raise typer.Exit(130) from None
    holds = f"{done.documents:,} documents, {done.chunks:,} chunks of {done.dim} dimensions"
    display.say(f"{out}: {holds} in {done.seconds:.1f} s")
    if done.resumed:
        display.say(f"{done.resumed:,} chunks were embedded by an earlier run")
    if same:
        display.say(f"same vectors as {', '.join(same)}, by their probe sentences", style="dim")
    notes = []
    if different:
        others = "; ".join(f"{name} ({why})" for name, why in different.items())
        useless = "what was made for one is of no use with the other"
        notes.append(f"the same encoder by name, but other vectors; {useless}: {others}")
    if done.too_long:
        lost = f"{done.too_long:,} chunks are longer than the encoder reads; their ends are lost"
        notes.append(f"{lost}. A smaller --chunk-max fixes it")
    if done.blank:
        notes.append(f"{len(done.blank)} documents without text left out: {', '.join(done.blank[:5])}")
    if done.left_out:
        counts = [f"{count} {ending}" for ending, count in sorted(done.left_out.items())]
        notes.append(f"other files left out: {', '.join(counts)}")
    display.note(notes, "warning")
    about = {**model.card.to_dict(), "device": model.device, "engine": engine}
    spaces = {"same_space": same, "other_space": different}
    display.result({"path": str(out), **asdict(done), "encoder": about, **spaces})


def _compare(card: Any) -> tuple[list[str], dict[str, str]]:
    """The shipped corpora and models that claim this encoder, by whether they hold its vectors."""
    from mlx_lvm import weights
    from mlx_lvm.data.ingest.encoder import compare_spaces
    from mlx_lvm.data.storage.reader import find_corpus, open_corpus
    from mlx_lvm.hub.load import load_model

    cards = {name: open_corpus(find_corpus(name)).card for name in weights.corpora()}
    models = {name: load_model(name).card for name in weights.released()}
    return compare_spaces(card, cards | {name: found for name, found in models.items() if found is not None})
