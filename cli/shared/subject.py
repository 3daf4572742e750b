"""What commands are given: a model or a baseline by name, and a text in the place of a document."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from mlx_lvm.cli.shared.common import data_option
from mlx_lvm.predictors.baselines import NAMES

Subject = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Architecture, run folder, exported folder, .safetensors file, or a baseline: "
        f"{', '.join(NAMES)}.",
    ),
]
GivenText = Annotated[
    str | None,
    data_option(
        "--text",
        metavar="FILE|FOLDER|-",
        help="A document that is no part of the corpus (.txt, .md, .jsonl; - reads standard input): chunked "
        "and embedded as the corpus was.",
    ),
]
EncoderOf = Annotated[
    str | None,
    data_option(
        "--encoder", metavar="NAME|FOLDER", help="Encoder of a text. Default: the one the corpus names."
    ),
]


def extend(corpus: Any, text: str, encoder: str | None) -> Any:
    """The corpus with the documents of `text` after its own."""
    from mlx_lvm.data.ingest.outside import read_texts_from, with_documents
    from mlx_lvm.ranking.query import encoder_of

    documents = read_texts_from(text, sys.stdin.read() if text == "-" else None)
    return with_documents(corpus, documents, encoder_of(corpus, encoder, "--text"))
