"""What a reader asks for besides the document: a text, a vector of their own, or a chunk of the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.names import normal
from mlx_lvm.errors import InvalidFile, UsageError

if TYPE_CHECKING:
    from mlx_lvm.data.ingest.encoder import Encoder


@dataclass(frozen=True, eq=False)
class Query:
    """vector [dim] float32; text: as it was given; row: of the corpus, where it is a chunk of it."""

    vector: np.ndarray
    text: str
    row: int | None = None


def read_query(text: str, corpus: Corpus, encoder: str | None = None) -> Query:
    """A `.npy` file holds a vector of the corpus's space; `DOCUMENT:CHUNK` is a chunk of the corpus; anything
    else is a text, embedded with the corpus's own encoder or the one named, which must give the same probe
    vectors.

    Raises UsageError for a blank text or a chunk that is not there, InvalidFile for a file that holds no such
    vector or for another encoder, SetupInvalid where the encoder cannot be loaded.
    """
    if not text.strip():
        raise UsageError("--query is blank")
    if text.endswith(".npy"):
        return Query(_vector(Path(text), corpus.dim), text)
    document, _, chunk = normal(text).rpartition(":")
    if document in corpus.names and chunk.isdecimal():
        number = corpus.names.index(document)
        if int(chunk) >= corpus.lengths[number]:
            raise UsageError(
                f"--query {text}: document '{document}' has chunks 0 to {corpus.lengths[number] - 1}"
            )
        row = int(corpus.offsets[number]) + int(chunk)
        return Query(corpus.numpy(np.array([row]))[0], text, row)
    return Query(encoder_of(corpus, encoder, "--query").encode([text])[0], text)


def encoder_of(corpus: Corpus, encoder: str | None, what: str) -> Encoder:
    """The corpus's own encoder or the one named, in MLX.

    Raises UsageError where the corpus names none, InvalidFile where its vectors are not the corpus's.
    """
    from mlx_lvm.data.ingest.encoder import load_encoder

    name = encoder or corpus.card.model
    if not name:
        raise UsageError(
            f"corpus {corpus.name} does not say which encoder made its vectors; name it with --encoder"
        )
    found = load_encoder(name)
    found.card.require_same(corpus.card, f"{what} embedded with {name}, on corpus {corpus.name}")
    return found


def _vector(path: Path, dim: int) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InvalidFile(f"--query {path}: no .npy file that can be read ({error})") from None
    if values.dtype.kind != "f" or values.size != dim or values.ndim > 2:
        raise InvalidFile(
            f"--query {path}: {values.dtype} {list(values.shape)}; expected one vector of {dim} "
            "floating-point numbers"
        )
    vector = values.reshape(dim).astype(np.float32)
    if not np.isfinite(vector).all() or not vector.any():
        raise InvalidFile(f"--query {path}: the vector is zero or not finite")
    return vector
