"""Corpora from corpora: merged, cut to some documents, or with another split. Vectors are copied as they are stored."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.ingest.synthetic import Process
from mlx_lvm.data.names import normal
from mlx_lvm.data.quality.duplicates import NEAR, exact_groups, near_pairs
from mlx_lvm.data.splits import PART, SPLITS, assign
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.texts import read_texts, texts_file
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.errors import InvalidFile, Problems, UsageError, nearest


def merge(
    corpora: Sequence[MappedCorpus],
    out: Path,
    dtype: str = "",
    *,
    prefix: bool = False,
    shard_bytes: int | None = None,
    overwrite: bool = False,
) -> None:
    """All documents of all corpora, in order. Encoders are compared by their cards; a name may stand in one corpus only.

    prefix: put `<corpus>/` before every name. A recorded split is kept where every corpus has one.
    Raises InvalidFile where encoders or names do not allow it.
    """
    first = corpora[0]
    problems = Problems("merge")
    for other in corpora[1:]:
        for difference in other.card.differences(first.card):
            problems.add(f"{other.path} is of another encoder than {first.path}: {difference}")
    problems.raise_if_any(InvalidFile)
    names = [f"{corpus.name}/{name}" if prefix else name for corpus in corpora for name in corpus.names]
    if len(set(names)) < len(names):
        raise InvalidFile(
            "merge: documents of one name in two corpora; --prefix puts the corpus before each name"
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
        out, offsets, process.names(), card, provenance, dtype, shard_bytes=shard_bytes, overwrite=overwrite
    ) as writer:
        row = 0
        for block in process.blocks():
            writer.put(row, block)
            row += len(block)
        writer.finish()


def choose(
    corpus: MappedCorpus, patterns: Sequence[str], names_file: Path | None = None, least: int = 0
) -> np.ndarray:
    """Documents whose names match any pattern (`*`, `?`, `[...]`) or stand in a file, a name a line, and have `least` chunks.

    Raises UsageError naming the patterns that match nothing and the names that are not there.
    """
    chosen = np.zeros(len(corpus.names), dtype=bool)
    problems = Problems(f"subset of {corpus.name}")
    for pattern in patterns:
        pattern = normal(pattern)
        found = np.array([name == pattern for name in corpus.names])
        if not found.any():  # a name with brackets in it is no pattern
            found = np.array([fnmatch.fnmatchcase(name, pattern) for name in corpus.names])
        if not found.any():
            problems.add(f"no document matches '{pattern}'.{nearest(pattern, list(corpus.names))[:200]}")
        chosen |= found
    place = {name: number for number, name in enumerate(corpus.names)}
    for name in [] if names_file is None else map(normal, _lines(names_file)):
        if name in place:
            chosen[place[name]] = True
        else:
            problems.add(f"{names_file}: no document '{name}'.{nearest(name, list(corpus.names))[:200]}")
    problems.raise_if_any(UsageError)
    if not patterns and names_file is None:
        chosen[:] = True
    return np.flatnonzero(chosen & (corpus.lengths >= least))


def read_assignment(path: Path, corpus: MappedCorpus) -> np.ndarray:
    """0, 1, 2 a document from a file: JSON {name: "train" | "val" | "test"}, or lines of name, tab, part.

    Raises InvalidFile with every document that is missing, unknown, or of an unknown part.
    """
    text = "\n".join(_lines(path))
    try:
        values = (
            json.loads(text)
            if path.suffix == ".json"
            else dict(line.rsplit("\t", 1) for line in text.splitlines() if line.strip())
        )
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise InvalidFile(
            f"{path}: neither JSON of names and parts nor lines of name, tab, part ({error})"
        ) from None
    values = {normal(name): part for name, part in values.items()}
    problems, known = Problems(str(path)), set(corpus.names)
    for name in sorted(known - set(values)):
        problems.add(f"document '{name}' has no part")
    for name, part in values.items():
        if name not in known:
            problems.add(f"no document '{name}' in {corpus.name}")
        elif part not in SPLITS:
            problems.add(f"document '{name}': part {str(part)[:40]!r} is not one of {', '.join(SPLITS)}")
    problems.raise_if_any(InvalidFile)
    return np.array([SPLITS.index(values[name]) for name in corpus.names], dtype=np.uint8)


def assign_together(
    corpus: MappedCorpus, seed: int, fractions: Sequence[float], threshold: float = NEAR
) -> np.ndarray:
    """As `splits.assign`, with documents that share a chunk, exactly or nearly, in one part: that of the first name among them."""
    leader = list(range(len(corpus.names)))

    def find(document: int) -> int:
        while leader[document] != document:
            leader[document] = leader[leader[document]]
            document = leader[document]
        return document

    pairs = [
        np.stack([np.full(len(group) - 1, group[0]), group[1:]], axis=1) for group in exact_groups(corpus)
    ]
    near = near_pairs(corpus, threshold)
    if near.total > len(near.rows):
        raise InvalidFile(
            f"{corpus.path}: {near.total:,} near pairs are too many to keep together; most chunks repeat others"
        )
    for a, b in corpus.document_of(np.concatenate([*pairs, near.rows])).tolist():
        leader[find(a)] = find(b)
    groups: dict[int, list[str]] = {}
    for document, name in enumerate(corpus.names):
        groups.setdefault(find(document), []).append(PART.sub("", name))
    return assign([min(groups[find(document)]) for document in range(len(corpus.names))], seed, fractions)


def parse_fractions(text: str) -> tuple[float, float, float]:
    """'0.8,0.1,0.1' for train, val and test. Raises UsageError where they are not three shares that make 1."""
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) != 3 or not all(0 <= part <= 1 for part in parts) or abs(sum(parts) - 1) > 1e-6:
        raise UsageError(f"--fractions {text}: expected three shares that make 1, as 0.8,0.1,0.1")
    return parts[0], parts[1], parts[2]


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


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > 1 << 28:
            raise InvalidFile(f"{path}: too large for a list of documents")
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"{path}: cannot be read ({error})") from None
