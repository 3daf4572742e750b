"""The commands of `lvm data` that write a corpus from others: merge, subset, split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mlx_lvm.cli.corpora.embed import Overwrite, ShardSize
from mlx_lvm.cli.corpora.writing import CorpusArgument, Dtype, Out, stored_kind, windows_of, written
from mlx_lvm.cli.shared.common import Json, Output, data_option
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.ingest.choosing import assign_together, choose, parse_fractions, read_assignment
from mlx_lvm.data.ingest.transform import merge as merge_corpora
from mlx_lvm.data.ingest.transform import resplit
from mlx_lvm.data.ingest.transform import subset as take_subset
from mlx_lvm.data.splits import SPLITS, assign
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.errors import UsageError


def merge(
    corpora: Annotated[list[str], typer.Argument(metavar="CORPUS CORPUS...", help="Corpora of one encoder.")],
    out: Out,
    prefix: Annotated[
        bool, data_option("--prefix", help="Put the corpus's name before every document's.")
    ] = False,
    same_encoder: Annotated[
        bool,
        data_option(
            "--same-encoder", help="One encoder made all, though their cards do not tell: you vouch for it."
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
    how: JsonObject = {"prefix": prefix, "same_encoder": same_encoder}
    merge_corpora(opened, out, stored_kind(dtype), **how, shard_bytes=shard_size, overwrite=overwrite)
    display.result(written(display, out))


def subset(
    corpus: CorpusArgument,
    out: Out,
    documents: Annotated[
        list[str] | None,
        data_option(
            "--documents", "-d", metavar="PATTERN", help="Names to take, with * and ?; may be given again."
        ),
    ] = None,
    names: Annotated[Path | None, data_option(metavar="FILE", help="Names to take, a line each.")] = None,
    least: Annotated[int, data_option("--min-chunks", help="Leave shorter documents out.")] = 0,
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
    chosen = choose(mapped, documents or [], names, least)
    take_subset(mapped, chosen, out, stored_kind(dtype), shard_bytes=shard_size, overwrite=overwrite)
    display.result(written(display, out))


def split(
    corpus: CorpusArgument,
    out: Out,
    seed: Annotated[int, data_option(help="Seed of the split by name.")] = 0,
    fractions: Annotated[
        str, data_option(metavar="TRAIN,VAL,TEST", help="Shares of documents.")
    ] = "0.8,0.1,0.1",
    assignment: Annotated[
        Path | None,
        data_option("--assign", metavar="FILE", help="JSON {name: part} or lines of name, tab, part."),
    ] = None,
    together: Annotated[
        bool,
        data_option("--together", help="Keep documents that share chunks (cosine above 0.97) in one part."),
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
    resplit(mapped, parts, out, shard_bytes=shard_size, overwrite=overwrite)
    made = written(display, out)
    lengths = {name: mapped.lengths[parts == k] for k, name in enumerate(SPLITS)}
    rows = [[name, f"{len(n):,}", f"{n.sum():,}", f"{windows_of(n):,}"] for name, n in lengths.items()]
    display.table("", ["", "documents", "vectors", "windows"], rows)
    counts = {name: {"documents": len(n), "windows": windows_of(n)} for name, n in lengths.items()}
    display.result({**made, "splits": counts})
