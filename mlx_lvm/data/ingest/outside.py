"""Documents that are no part of a corpus, read in its space: chunked by its rule, embedded with its encoder.

What comes back is a corpus in memory with those documents last. Nothing is written, and the corpus's own
documents keep their numbers, their vectors and their sides of the split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlx_lvm.core.files.safetensors import NAMES
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.ingest.documents import MAX_DOCUMENT, list_documents, read_documents
from mlx_lvm.data.ingest.encoder import Encoder
from mlx_lvm.data.splits import SPLITS, split_corpus
from mlx_lvm.data.storage.rows import to_stored
from mlx_lvm.data.storage.stream import to_device
from mlx_lvm.errors import InvalidFile

RULE = re.compile(r"(careful|simple) sentences, packed greedily into chunks of (\d+) to (\d+) characters")
UNUSED = len(SPLITS)  # the part of documents that nothing is fitted or scored on


def read_texts_from(source: str, stream_text: str | None = None) -> list[tuple[str, str]]:
    """(name, text) of the documents in a file or folder; of `stream_text` alone, as `text`, where given.

    Raises InvalidFile where there is no text.
    """
    path = Path(source)
    if stream_text is not None:
        found = [("text", stream_text)]
    elif path.is_file() and not path.suffix:
        found = [(path.name, path.read_bytes()[:MAX_DOCUMENT].decode("utf-8", "replace"))]
    else:
        found = list(read_documents(list_documents([path]).files))
    kept = [(name, text) for name, text in found if text.strip()]
    if not kept:
        raise InvalidFile(f"--text {source}: no text in it")
    return kept


def chunking_of(corpus: Corpus) -> Chunking:
    """The rule that the corpus says it was chunked by, else the default one."""
    found = RULE.match(corpus.provenance.get("chunking", ""))
    return Chunking(int(found[2]), int(found[3]), found[1]) if found else Chunking()


def with_documents(corpus: Corpus, documents: Sequence[tuple[str, str]], encoder: Encoder) -> Corpus:
    """The corpus with these (name, text) after its own documents, marked where it has one of that name.

    Raises InvalidFile where a document is blank, or where the encoder's vectors are not the corpus's.
    """
    encoder.card.require_same(corpus.card, f"a text, on corpus {corpus.name}")
    rule = chunking_of(corpus)
    chunks = [rule.chunks(text) for _, text in documents]
    for (name, _), found in zip(documents, chunks, strict=True):
        if not found:
            raise InvalidFile(f"document '{name}': no text in it")
    flat = [chunk for found in chunks for chunk in found]
    added = to_device(*to_stored(encoder.encode(flat), NAMES[corpus.vectors.dtype]))
    scales = [part for part in (corpus.scales, added.scales) if part is not None]
    extended = replace(
        corpus,
        vectors=mx.concatenate([corpus.vectors, added.vectors]),
        scales=mx.concatenate(scales) if scales else None,
        offsets=np.concatenate([corpus.offsets, corpus.offsets[-1] + np.cumsum([*map(len, chunks)])]),
        names=(*corpus.names, *(f"{n} (text)" if n in corpus.names else n for n, _ in documents)),
    )
    return _with_texts(extended, None if corpus.texts is None else [*corpus.texts, *flat])


def scored_alone(corpus: Corpus, extended: Corpus, seed: int) -> Corpus:
    """The extended corpus with the added documents as its test part, training and validation as they were."""
    parts = split_corpus(corpus, seed)
    assigned = np.full(len(extended.names), UNUSED, np.uint8)
    assigned[parts.train], assigned[parts.val] = 0, 1
    assigned[len(corpus.names) :] = SPLITS.index("test")
    return _with_texts(replace(extended, assigned=assigned), extended.texts)


def _with_texts(corpus: Corpus, texts: list[str] | None) -> Corpus:
    """These in the place of the property that reads the file."""
    corpus.__dict__["texts"] = texts
    return corpus
