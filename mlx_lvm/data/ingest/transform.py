"""Corpora from corpora: merged, cut to some documents, or split otherwise. Vectors are copied as stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, compress, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.ingest.synthetic import Process
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.rows import to_float
from mlx_lvm.data.storage.writer import CorpusWriter, Writing
from mlx_lvm.errors import InvalidFile, Problems, UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack


def merge(
    corpora: Sequence[MappedCorpus],
    out: Path,
    dtype: str = "",
    *,
    prefix: bool = False,
    same_encoder: bool = False,
    **how: Unpack[Writing],
) -> None:
    """All documents of all corpora, in order. Encoders are compared by their cards; no name may come twice.

    prefix: put `<corpus>/` before every name. A recorded split is kept where every corpus has one.
    same_encoder: the caller vouches that one encoder made all, where their cards do not tell.

    Raises InvalidFile where encoders or names do not allow it, or a prefix would tear a document in two.
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
    documents = [(corpus, np.arange(len(corpus.names))) for corpus in corpora]
    _write(documents, out, dtype, names, **how)


def subset(
    corpus: MappedCorpus, documents: np.ndarray, out: Path, dtype: str = "", **how: Unpack[Writing]
) -> None:
    """Some documents of a corpus, in its order; also another dtype or shards. A recorded split is kept."""
    documents = np.unique(documents)
    if not len(documents):
        raise UsageError("no document chosen; a corpus needs one")
    _write([(corpus, documents)], out, dtype, **how)


def resplit(corpus: MappedCorpus, assigned: np.ndarray, out: Path, **how: Unpack[Writing]) -> None:
    """The same corpus with a split of its own: 0, 1, 2 for train, val, test, a document."""
    every = np.arange(len(corpus.names))
    _write([(replace(corpus, assigned=assigned), every)], out, "", **how)


def synthesise(process: Process, out: Path, dtype: str = "F32", **how: Unpack[Writing]) -> None:
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
        as_drawn=True,  # the least possible error is that of the process's own rows
        **how,
    ) as writer:
        row = 0
        for block in process.blocks():
            writer.put(row, block)
            row += len(block)
        writer.finish()


def _write(
    documents: list[tuple[MappedCorpus, np.ndarray]],
    out: Path,
    dtype: str,
    names: Sequence[str] | None = None,
    **how: Unpack[Writing],
) -> None:
    """Copies documents run by run, under their own names by default; rows of one dtype go byte for byte."""
    corpora = [corpus for corpus, _ in documents]
    if any(out.resolve() == corpus.path.resolve() for corpus in corpora):
        raise UsageError(f"{out}: is one of the corpora that are read; choose another name")
    first = corpora[0]
    dtype = dtype or first.dtype
    lengths = np.concatenate([corpus.lengths[chosen] for corpus, chosen in documents])
    splits = [corpus.assigned[chosen] for corpus, chosen in documents if corpus.assigned is not None]
    with CorpusWriter(
        out,
        np.concatenate([[0], np.cumsum(lengths)]),
        names or [corpus.names[d] for corpus, chosen in documents for d in chosen],
        next((corpus.card for corpus in corpora if corpus.card.probes is not None), first.card),
        {key: _joined([corpus.provenance.get(key, "") for corpus in corpora]) for key in first.provenance},
        dtype,
        assigned=np.concatenate(splits) if len(splits) == len(documents) else None,
        as_drawn=all(corpus.as_drawn for corpus in corpora),
        **how,
    ) as writer:
        row = 0
        for corpus, chosen in documents:
            for start, stop in _runs(corpus, chosen):
                for begin in range(start, stop, corpus.block_rows):
                    for rows in corpus.pieces(begin, min(begin + corpus.block_rows, stop)):
                        writer.put(row, rows if corpus.dtype == dtype else to_float(*rows))
                        row += len(rows.vectors)
        writer.finish(_texts(documents))


def _runs(corpus: MappedCorpus, documents: np.ndarray) -> Iterator[tuple[int, int]]:
    """Row ranges of documents in ascending order, neighbours joined."""
    edges = np.flatnonzero(np.diff(documents) != 1) + 1
    for run in np.split(documents, edges):
        yield int(corpus.offsets[run[0]]), int(corpus.offsets[run[-1] + 1])


def _texts(documents: list[tuple[MappedCorpus, np.ndarray]]) -> Iterator[str] | None:
    """The texts of the documents, in row order; None where a corpus has none."""
    found = [texts for corpus, _ in documents if (texts := corpus.texts()) is not None]
    if len(found) < len(documents):
        return None
    kept = [
        np.repeat(np.isin(np.arange(len(corpus.names)), chosen), corpus.lengths)
        for corpus, chosen in documents
    ]
    return compress(chain.from_iterable(found), np.concatenate(kept))


def _joined(values: list[str]) -> str:
    """Every value once, empty ones left out."""
    return "; ".join(dict.fromkeys(value for value in values if value))
