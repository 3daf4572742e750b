"""The commands of `lvm data` that write a corpus: convert, synth, merge, subset, split."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from mlx_lvm.cli.corpora.embed import Licence, Overwrite, RateBar, ShardSize, Source, stored_dtype
from mlx_lvm.cli.shared.common import Json, Output
from mlx_lvm.config import parse_size
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.convert.convert import Columns, Target
from mlx_lvm.data.convert.convert import convert as convert_file
from mlx_lvm.data.ingest.choosing import assign_together, choose, parse_fractions, read_assignment
from mlx_lvm.data.ingest.synthetic import Process
from mlx_lvm.data.ingest.transform import merge as merge_corpora
from mlx_lvm.data.ingest.transform import resplit, synthesise
from mlx_lvm.data.ingest.transform import subset as take_subset
from mlx_lvm.data.splits import SPLITS, assign
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.reader import VECTOR_DTYPES, find_corpus, open_corpus
from mlx_lvm.errors import UsageError

CorpusArgument = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS", help="Shipped corpus by name (sotu, moby), a file, or a folder of shards."
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="CORPUS", help="Corpus to write.", rich_help_panel="Output")
]
Dtype = Annotated[
    str,
    typer.Option(
        "--dtype",
        metavar="i8|f16|bf16|f32",
        help="How vectors are stored. Default: as they are.",
        rich_help_panel="Output",
    ),
]
CONTEXT = 5  # of the windows that a summary counts


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
        typer.Option(
            "--ids",
            metavar="FILE",
            help="A document id a row (.npy, or text with a line each), where the file has none.",
            rich_help_panel="Data",
        ),
    ] = None,
    vector_column: Annotated[str, _column("the vectors")] = "",
    document_column: Annotated[str, _column("document ids")] = "",
    chunk_column: Annotated[str, _column("chunk numbers, the order in a document")] = "",
    text_column: Annotated[str, _column("chunk texts")] = "",
    title_column: Annotated[str, _column("document names")] = "",
    one_document: Annotated[
        bool,
        typer.Option(
            "--one-document", help="All rows are one document, as part of a merge.", rich_help_panel="Data"
        ),
    ] = False,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="CORPUS",
            help="Take the encoder card of this corpus: you vouch that one encoder made both.",
            rich_help_panel="Provenance",
        ),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder", metavar="NAME", help="What made the vectors; recorded.", rich_help_panel="Provenance"
        ),
    ] = "",
    source: Source = "",
    licence: Licence = "",
    dtype: Dtype = "",
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Another file to a corpus. Overlapping windows become the documents they were cut from, each vector
    once.

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
    target = Target(
        out,
        stored_dtype(dtype, VECTOR_DTYPES) if dtype else "",
        card,
        provenance,
        _size(shard_size),
        overwrite,
        one_document,
    )
    with RateBar(display, "converting", scale=1e6, unit="MB") as bar:
        report = convert_file(files, target, ids, bar, columns)
    written = _written(display, out)
    if report.kind == "windows":
        display.say(
            f"{report.windows_read:,} windows read: {report.repeated:,} repeat another, {report.alone:,} "
            f"overlap with no other{' and became documents of their own' if report.alone else ''}"
        )
    if report.columns:
        display.say("read " + ", ".join(f"{role} from '{name}'" for role, name in report.columns.items()))
    if report.unused:
        display.say(f"left out, as they have no role in a corpus: {', '.join(report.unused)}")
    for note in [f"left out: {reason}" for reason in report.left_out] + report.notes:
        display.say(f"warning: {note}", style="yellow")
    display.result({**asdict(report), **written})


def synth(
    out: Out,
    documents: Annotated[
        int, typer.Option("--documents", help="Documents to draw.", rich_help_panel="Process")
    ] = 1000,
    least: Annotated[
        int, typer.Option("--min-chunks", help="Chunks of the shortest document.", rich_help_panel="Process")
    ] = 20,
    most: Annotated[
        int, typer.Option("--max-chunks", help="Chunks of the longest.", rich_help_panel="Process")
    ] = 60,
    dim: Annotated[int, typer.Option("--dim", help="Width of the vectors.", rich_help_panel="Process")] = 64,
    topic: Annotated[
        float,
        typer.Option("--topic", help="Variance share of the document's topic.", rich_help_panel="Process"),
    ] = 0.25,
    drift: Annotated[
        float,
        typer.Option(
            "--drift",
            help="Variance share of the drifting topic; the rest is noise.",
            rich_help_panel="Process",
        ),
    ] = 0.45,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything.", rich_help_panel="Process")] = 0,
    context: Annotated[
        int,
        typer.Option(
            "--context",
            min=1,
            help="Chunks of the window the optimum is told for.",
            rich_help_panel="Process",
        ),
    ] = CONTEXT,
    dtype: Dtype = "f32",
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Draw a corpus whose best possible predictor is known: a linear-Gaussian topic process.

    No model that sees the window can have a smaller expected squared error than the one printed.

    Example:  lvm data synth --out synthetic.safetensors --documents 200 --dim 32
    """
    display = Output(json)
    process = Process(
        documents=documents, least=least, most=most, dim=dim, topic=topic, drift=drift, seed=seed
    )
    synthesise(
        process, out, stored_dtype(dtype, VECTOR_DTYPES), shard_bytes=_size(shard_size), overwrite=overwrite
    )
    written = _written(display, out)
    best = process.least_error(context)
    result = {**written, "context": context, "bayes_squared_error": best, **_optimum(out, process, context)}
    measured = f"{result['bayes_measured']:.6f} on {result['windows_measured']:,} windows of it"
    display.say(f"best possible with {context} chunks: squared error {best:.6f} expected, {measured}")
    display.say(
        f"cosine of that predictor {result['bayes_cosine']:.4f}, of the mean of the window "
        f"{result['mean_cosine']:.4f}"
    )
    display.result(result)


def _optimum(path: Path, process: Process, context: int, most: int = 20_000) -> dict[str, Any]:
    """The Bayes predictor and the mean of the window, measured on windows of the first documents."""
    corpus = open_corpus(path)
    kept = max(1, int(np.searchsorted(corpus.offsets, most, side="right")) - 1)
    rows = corpus.read(0, int(corpus.offsets[kept]))
    targets = np.concatenate(
        [
            np.arange(a + context, b)
            for a, b in zip(corpus.offsets[:kept], corpus.offsets[1 : kept + 1], strict=True)
        ]
    )
    if not len(targets):
        raise UsageError(
            f"no window of {context} + 1 chunks in documents of {process.least} to {process.most}"
        )
    contexts, truth = rows[targets[:, None] + np.arange(-context, 0)], rows[targets]
    best, mean = process.predict(contexts), contexts.mean(axis=1)

    def cosine(a):  # type: ignore[no-untyped-def]
        return float(
            (
                np.einsum("ij,ij->i", a, truth) / np.linalg.norm(a, axis=1) / np.linalg.norm(truth, axis=1)
            ).mean()
        )

    return {
        "bayes_measured": float(((best - truth) ** 2).sum(axis=1).mean()),
        "bayes_cosine": cosine(best),
        "mean_cosine": cosine(mean),
        "windows_measured": len(targets),
    }


def merge(
    corpora: Annotated[list[str], typer.Argument(metavar="CORPUS CORPUS...", help="Corpora of one encoder.")],
    out: Out,
    prefix: Annotated[
        bool,
        typer.Option(
            "--prefix", help="Put the corpus's name before every document's.", rich_help_panel="Data"
        ),
    ] = False,
    same_encoder: Annotated[
        bool,
        typer.Option(
            "--same-encoder",
            help="One encoder made all, though their cards do not tell: you vouch for it.",
            rich_help_panel="Data",
        ),
    ] = False,
    dtype: Dtype = "",
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """All documents of several corpora in one. Refused where their encoders differ, or may differ.

    Example:  lvm data merge sotu moby --out both.safetensors
    """
    if len(corpora) < 2:
        raise UsageError("merge needs two corpora or more")
    display = Output(json)
    opened = [open_corpus(find_corpus(corpus)) for corpus in corpora]
    merge_corpora(
        opened,
        out,
        _kind(dtype),
        prefix=prefix,
        same_encoder=same_encoder,
        shard_bytes=_size(shard_size),
        overwrite=overwrite,
    )
    display.result(_written(display, out))


def subset(
    corpus: CorpusArgument,
    out: Out,
    documents: Annotated[
        list[str] | None,
        typer.Option(
            "--documents",
            "-d",
            metavar="PATTERN",
            help="Names to take, with * and ?; may be given again.",
            rich_help_panel="Data",
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option("--names", metavar="FILE", help="Names to take, a line each.", rich_help_panel="Data"),
    ] = None,
    least: Annotated[
        int, typer.Option("--min-chunks", help="Leave shorter documents out.", rich_help_panel="Data")
    ] = 0,
    dtype: Dtype = "",
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Some documents of a corpus, by name; or all of them in another dtype or in shards.

    Example:  lvm data subset sotu --documents '19*' --out twentieth.safetensors
    """
    display = Output(json)
    mapped = open_corpus(find_corpus(corpus))
    take_subset(
        mapped,
        choose(mapped, documents or [], names, least),
        out,
        _kind(dtype),
        shard_bytes=_size(shard_size),
        overwrite=overwrite,
    )
    display.result(_written(display, out))


def split(
    corpus: CorpusArgument,
    out: Out,
    seed: Annotated[
        int, typer.Option("--seed", help="Seed of the split by name.", rich_help_panel="Data")
    ] = 0,
    fractions: Annotated[
        str,
        typer.Option(
            "--fractions", metavar="TRAIN,VAL,TEST", help="Shares of documents.", rich_help_panel="Data"
        ),
    ] = "0.8,0.1,0.1",
    assignment: Annotated[
        Path | None,
        typer.Option(
            "--assign",
            metavar="FILE",
            help="JSON {name: part} or lines of name, tab, part.",
            rich_help_panel="Data",
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Keep documents that share chunks (cosine above 0.97) in one part.",
            rich_help_panel="Data",
        ),
    ] = False,
    shard_size: ShardSize = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """The same corpus with a split of its own, which every command uses then, whatever the seed.

    Example:  lvm data split sotu --together --out sotu-clean.safetensors
    """
    display = Output(json)
    if assignment is not None and together:
        raise UsageError("--assign and --together: the file says where each document goes")
    mapped = open_corpus(find_corpus(corpus))
    shares = parse_fractions(fractions)
    if assignment is not None:
        parts = read_assignment(assignment, mapped)
    else:
        parts = assign_together(mapped, seed, shares) if together else assign(mapped.names, seed, shares)
    resplit(mapped, parts, out, shard_bytes=_size(shard_size), overwrite=overwrite)
    written = _written(display, out)
    rows = [
        [
            name,
            f"{(parts == k).sum():,}",
            f"{mapped.lengths[parts == k].sum():,}",
            f"{_windows(mapped.lengths[parts == k]):,}",
        ]
        for k, name in enumerate(SPLITS)
    ]
    display.table("", ["", "documents", "vectors", "windows"], rows)
    counts = {
        name: {"documents": int((parts == k).sum()), "windows": _windows(mapped.lengths[parts == k])}
        for k, name in enumerate(SPLITS)
    }
    display.result({**written, "splits": counts})


def _kind(dtype: str) -> str:
    return stored_dtype(dtype, VECTOR_DTYPES) if dtype else ""


def _size(text: str | None) -> int | None:
    return None if text is None else parse_size(text)


def _windows(lengths: np.ndarray) -> int:
    return int(np.maximum(lengths - CONTEXT, 0).sum())


def _written(display: Output, path: Path) -> dict[str, Any]:
    """Says what was written, by opening it."""
    corpus: MappedCorpus = open_corpus(path)
    windows = _windows(corpus.lengths)
    shards = f" in {len(corpus.shards)} shards" if len(corpus.shards) > 1 else ""
    display.say(
        f"{path}: {len(corpus.names):,} documents, {len(corpus):,} vectors of {corpus.dim} dimensions, "
        f"{corpus.dtype}{shards}"
    )
    if corpus.made_unit:
        display.say(f"{corpus.made_unit:,} vectors were not of unit length and were made so")
    return {
        "path": str(path),
        "documents": len(corpus.names),
        "vectors": len(corpus),
        "dim": corpus.dim,
        "windows": windows,
        "dtype": corpus.dtype,
        "shards": len(corpus.shards),
        "sha256": corpus.sha256,
        "problems": [],
    }
