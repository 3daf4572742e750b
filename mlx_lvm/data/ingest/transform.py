"""Corpora from corpora: merged, cut to some documents, or with another split. Vectors are copied as they are
stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.ingest.synthetic import Process
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.texts import read_texts, texts_file
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.errors import InvalidFile, Problems, UsageError


def merge(
    corpora: Sequence[MappedCorpus],
    out: Path,
    dtype: str = "",
    *,
    prefix: bool = False,
    same_encoder: bool = False,
    shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """All documents of all corpora, in order. Encoders are compared by their cards; a name may stand in one
    corpus only.

    prefix: put `<corpus>/` before every name. A recorded split is kept where every corpus has one.
    same_encoder: the caller vouches that one encoder made all, where their cards do not tell. Raises
    InvalidFile where encoders or names do not allow it, or where a prefix would tear a document that lies in
    two of them.
    """
    first = corpora[0]
    problems = Problems("merge")
    for other in corpora[1:]:
        for difference in other.card.differences(first.card):
            problems.add(f"{other.path} is of another encoder than {first.path}: {difference}")
        unknown = "" if same_encoder or problems.found else first.card.unknown(other.card)
        if unknown:
            problems.add(
                f"whether one encoder made {first.path} and {other.path} is not known ({unknown}). "
                "--same-encoder vouches for it"
            )
    for one, other in pairwise(corpora):
        if prefix and one.names[-1] == other.names[0] and min(len(one.names), len(other.names)) > 1:
            problems.add(
                f"'{other.names[0]}' ends {one.path} and begins {other.path}: one document in two parts, "
                "which --prefix would give two names and perhaps two splits. "
                "`lvm data convert FILE FILE ...` joins parts of one data set"
            )
    problems.raise_if_any(InvalidFile)
    names = [f"{corpus.name}/{name}" if prefix else name for corpus in corpora for name in corpus.names]
    if len(set(names)) < len(names):
        raise InvalidFile(
            f"merge: {len(names) - len(set(names)):,} names of documents stand in several corpora. Parts of "
            "one data set: `lvm data convert FILE FILE ...` joins them. Different documents: --prefix puts "
            "the corpus before each name"
        )
    kept = (
        None
        if any(corpus.assigned is None for corpus in corpora)
        else np.concatenate([corpus.assigned for corpus in corpora])
    )
    card = next((corpus.card for corpus in corpora if corpus.card.probes is not None), first.card)
    documents = [(corpus, np.arange(len(corpus.names))) for corpus in corpora]
    provenance = {
        key: _joined([corpus.provenance.get(key, "") for corpus in corpora]) for key in first.provenance
    }
    _write(documents, names, card, provenance, out, dtype or first.dtype, kept, shard_bytes, overwrite)


def subset(
    corpus: MappedCorpus,
    documents: np.ndarray,
    out: Path,
    dtype: str = "",
    *,
    shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """Some documents of a corpus, in its order; also another dtype or shards. A recorded split is kept."""
    documents = np.unique(documents)
    if not len(documents):
        raise UsageError("no document chosen; a corpus needs one")
    names = [corpus.names[d] for d in documents]
    kept = None if corpus.assigned is None else corpus.assigned[documents]
    _write(
        [(corpus, documents)],
        names,
        corpus.card,
        corpus.provenance,
        out,
        dtype or corpus.dtype,
        kept,
        shard_bytes,
        overwrite,
    )


def resplit(
    corpus: MappedCorpus,
    assigned: np.ndarray,
    out: Path,
    *,
    shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """The same corpus with a split of its own: 0, 1, 2 for train, val, test, a document."""
    every = np.arange(len(corpus.names))
    _write(
        [(corpus, every)],
        list(corpus.names),
        corpus.card,
        corpus.provenance,
        out,
        corpus.dtype,
        assigned,
        shard_bytes,
        overwrite,
    )


def synthesise(
    process: Process,
    out: Path,
    dtype: str = "F32",
    *,
    shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """Draw a corpus from a process (see `synthetic`), a block of documents in memory at a time."""
    card = EncoderCard(
        model="synthetic",
        pooling="none",
        dense="none",
        normalised="none",
        prompt="none",
        dtype="float32",
        dim=process.dim,
    )
    provenance = {"source": process.source, "licence": "CC0-1.0", "chunking": "none"}
    offsets = np.concatenate([[0], np.cumsum(process.lengths)])
    with CorpusWriter(
        out,
        offsets,
        process.names(),
        card,
        provenance,
        dtype,
        shard_bytes=shard_bytes,
        overwrite=overwrite,
        as_drawn=True,  # the least possible error is that of the process's own rows
    ) as writer:
        row = 0
        for block in process.blocks():
            writer.put(row, block)
            row += len(block)
        writer.finish()


def _write(
    documents: list[tuple[MappedCorpus, np.ndarray]],
    names: list[str],
    card: EncoderCard,
    provenance: dict[str, str],
    out: Path,
    dtype: str,
    assigned: np.ndarray | None,
    shard_bytes: int | None,
    overwrite: bool,
) -> None:
    """Copies documents run by run; rows of the same dtype go over byte for byte."""
    if any(out.resolve() == corpus.path.resolve() for corpus, _ in documents):
        raise UsageError(f"{out}: is one of the corpora that are read; choose another name")
    offsets = np.concatenate(
        [[0], np.cumsum(np.concatenate([corpus.lengths[chosen] for corpus, chosen in documents]))]
    )
    with CorpusWriter(
        out,
        offsets,
        names,
        card,
        provenance,
        dtype,
        assigned=assigned,
        shard_bytes=shard_bytes,
        overwrite=overwrite,
        as_drawn=all(corpus.as_drawn for corpus, _ in documents),
    ) as writer:
        row = 0
        for corpus, chosen in documents:
            for start, stop in _runs(corpus, chosen):
                for begin in range(start, stop, corpus.block_rows):
                    end = min(begin + corpus.block_rows, stop)
                    if corpus.dtype == dtype:
                        for vectors, scales in corpus.pieces(begin, end):
                            writer.put_stored(row, vectors, scales)
                            row += len(vectors)
                    else:
                        writer.put(row, corpus.read(begin, end))
                        row += end - begin
        texts = all(texts_file(shard.path) for corpus, _ in documents for shard in corpus.shards)
        writer.finish(_texts(documents) if texts else None)


def _runs(corpus: MappedCorpus, documents: np.ndarray) -> Iterator[tuple[int, int]]:
    """Row ranges of documents in ascending order, neighbours joined."""
    edges = np.flatnonzero(np.diff(documents) != 1) + 1
    for run in np.split(documents, edges):
        yield int(corpus.offsets[run[0]]), int(corpus.offsets[run[-1] + 1])


def _texts(documents: list[tuple[MappedCorpus, np.ndarray]]) -> Iterator[str]:
    for corpus, chosen in documents:
        kept = np.zeros(len(corpus.names), dtype=bool)
        kept[chosen] = True
        row_kept, row = np.repeat(kept, corpus.lengths), 0
        for shard in corpus.shards:
            path = texts_file(shard.path)
            assert path is not None
            for text in read_texts(path, shard.names, np.diff(shard.offsets)):
                if row_kept[row]:
                    yield text
                row += 1


def _joined(values: list[str]) -> str:
    """One value where all agree, else all of them."""
    return (
        values[0] if len(set(values)) == 1 else "; ".join(dict.fromkeys(value for value in values if value))
    )
