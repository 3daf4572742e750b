"""What the commands of `lvm data` that write a corpus share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mlx_lvm.cli.corpora.embed import stored_dtype
from mlx_lvm.cli.shared.common import Output, output_option
from mlx_lvm.core.result import JsonObject
from mlx_lvm.data.storage.reader import VECTOR_DTYPES, open_corpus

CorpusArgument = Annotated[
    str,
    typer.Argument(
        metavar="CORPUS", help="Shipped corpus by name (sotu, moby), a file, or a folder of shards."
    ),
]
Out = Annotated[Path, output_option("--out", metavar="CORPUS", help="Corpus to write.")]
Dtype = Annotated[
    str,
    output_option("--dtype", metavar="i8|f16|bf16|f32", help="How vectors are stored. Default: as they are."),
]
CONTEXT = 5  # of the windows that a summary counts


def stored_kind(dtype: str) -> str:
    return stored_dtype(dtype, VECTOR_DTYPES) if dtype else ""


def windows_of(lengths: np.ndarray) -> int:
    return int(np.maximum(lengths - CONTEXT, 0).sum())


def written(display: Output, path: Path) -> JsonObject:
    """Says what was written, by opening it."""
    corpus = open_corpus(path)
    shards = f" in {len(corpus.shards)} shards" if len(corpus.shards) > 1 else ""
    holds = f"{len(corpus.names):,} documents, {len(corpus):,} vectors of {corpus.dim} dimensions"
    display.say(f"{path}: {holds}, {corpus.dtype}{shards}")
    if corpus.made_unit:
        display.say(f"{corpus.made_unit:,} vectors were not of unit length and were made so")
    return {
        "path": str(path),
        "documents": len(corpus.names),
        "vectors": len(corpus),
        "dim": corpus.dim,
        "windows": windows_of(corpus.lengths),
        "dtype": corpus.dtype,
        "shards": len(corpus.shards),
        "sha256": corpus.sha256,
        "problems": [],
    }
