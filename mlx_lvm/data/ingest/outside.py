"""Documents that are no part of a corpus, read in its space: chunked by its rule, embedded with its encoder,
put after its own.

What comes back is a corpus in memory with those documents last. Nothing is written, and the corpus's own
documents keep their numbers, their vectors and their sides of the split.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus, quantise
from mlx_lvm.data.ingest.chunking import Chunking
from mlx_lvm.data.ingest.documents import MAX_DOCUMENT, TEXT, list_documents, read_documents
from mlx_lvm.data.ingest.encoder import Encoder
from mlx_lvm.data.splits import SPLITS, split_corpus
from mlx_lvm.errors import InvalidFile

RULE = re.compile(r"(careful|simple) sentences, packed greedily into chunks of (\d+) to (\d+) characters")
UNUSED = len(SPLITS)  # the part of documents that nothing is fitted or scored on


def read_texts_from(source: str, stream_text: str | None = None) -> list[tuple[str, str]]:
    """(name, text) of the documents in a file or folder; of `stream_text` alone, named `text`, where it is
    given.

    Raises InvalidFile where there is no text.
    """
    if stream_text is not None:
        found = [("text", stream_text)]
    else:
        path = Path(source)
        if path.is_file() and path.suffix.lower() not in TEXT and not path.suffix:
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
    """The corpus with these (name, text) after its own documents. A name that it has gets a mark, so that
    none is mistaken.

    Raises InvalidFile where a document is blank, or where the encoder's vectors are not the corpus's.
    """
    encoder.card.require_same(corpus.card, f"a text, on corpus {corpus.name}")
    rule = chunking_of(corpus)
    chunks = [rule.chunks(text) for _, text in documents]
    for (name, _), found in zip(documents, chunks, strict=True):
        if not found:
            raise InvalidFile(f"document '{name}': no text in it")
    flat = [chunk for found in chunks for chunk in found]
    extended = _appended(corpus, encoder.encode(flat), [len(found) for found in chunks])
    names = (*corpus.names, *(_free(name, corpus.names) for name, _ in documents))
    extended = replace(extended, names=names)
    if corpus.texts is not None:
        # in the place of the property that reads the file
        extended.__dict__["texts"] = [*corpus.texts, *flat]
    return extended


def scored_alone(corpus: Corpus, extended: Corpus, seed: int) -> Corpus:
    """The extended corpus with the added documents as its test part, and training and validation as they
    were.
    """
    parts = split_corpus(corpus, seed)
    assigned = np.full(len(extended.names), UNUSED, np.uint8)
    assigned[parts.train], assigned[parts.val] = 0, 1
    assigned[len(corpus.names) :] = SPLITS.index("test")
    return _keeping_texts(extended, replace(extended, assigned=assigned))


def _appended(corpus: Corpus, vectors: np.ndarray, lengths: list[int]) -> Corpus:
    offsets = np.concatenate([corpus.offsets, corpus.offsets[-1] + np.cumsum(lengths)])
    if corpus.scales is None:
        added = mx.array(vectors).astype(corpus.vectors.dtype)
        return replace(corpus, vectors=mx.concatenate([corpus.vectors, added]), offsets=offsets)
    stored, scales = quantise(vectors)
    return replace(
        corpus,
        vectors=mx.concatenate([corpus.vectors, mx.array(stored)]),
        scales=mx.concatenate([corpus.scales, mx.array(scales)]),
        offsets=offsets,
    )


def _keeping_texts(before: Corpus, after: Corpus) -> Corpus:
    if before.texts is not None:
        after.__dict__["texts"] = before.texts
    return after


def _free(name: str, taken: Sequence[str]) -> str:
    return f"{name} (text)" if name in taken else name
