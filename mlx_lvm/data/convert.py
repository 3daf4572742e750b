"""Other people's files to a corpus: windows of contexts and targets, vectors with document ids, plain vectors.

Two passes over the file: the first reads digests or ids and decides where every row goes, the second writes. Memory
holds a block of rows, and per window C + 1 digests and places.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlx_lvm.data.arrays import Array, ArrayFile, open_arrays
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.duplicates import row_digests
from mlx_lvm.data.folding import destinations, fold
from mlx_lvm.data.mapped import to_float
from mlx_lvm.data.writer import CorpusWriter, require_free
from mlx_lvm.errors import InvalidFile, Problems

CONTEXTS = ("context_sequences", "contexts", "context", "X", "context_vectors")
TARGETS = ("target_vectors", "targets", "target", "y")
SETS = ("", "train_", "val_", "validation_", "test_")
VECTORS = ("vectors", "embeddings", "embedding", "vector")
DOCUMENTS = (
    "article_indices",
    "article_ids",
    "document_indices",
    "document_ids",
    "doc_ids",
    "article_id",
    "document_id",
    "doc_id",
    "document",
)
CHUNKS = ("chunk_indices", "chunk_index", "chunk_ids", "chunk_id", "chunk", "positions", "position")
OFFSETS = ("document_offsets", "offsets")
NAMES = ("document_names", "names", "titles")
TEXTS = ("texts", "text", "chunk_texts", "chunk_text")
BLOCK_BYTES = 48 << 20  # of rows in memory at a time

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass
class Report:
    """What became of a file. `repeated` windows equal an earlier one; `alone` ones overlap with no other."""

    kind: str = ""
    documents: int = 0
    vectors: int = 0
    dim: int = 0
    windows_read: int = 0
    repeated: int = 0
    alone: int = 0
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where and how a converted corpus is written. An empty dtype keeps the file's own precision."""

    path: Path
    dtype: str = ""
    card: EncoderCard | None = None
    provenance: dict[str, str] = field(default_factory=dict)
    shard_bytes: int | None = None
    overwrite: bool = False

    def writer(self, offsets: np.ndarray, names: list[str], dim: int, stored: np.dtype) -> CorpusWriter:
        card = self.card or EncoderCard(dim=dim)
        if card.dim != dim:
            raise InvalidFile(f"the encoder card is of {card.dim} dimensions, the vectors have {dim}")
        dtype = self.dtype or ("F16" if stored.itemsize == 2 and stored.kind == "f" else "F32")
        return CorpusWriter(self.path, offsets, names, card, self.provenance, dtype, shard_bytes=self.shard_bytes, overwrite=self.overwrite)


def convert(path: str | Path, target: Target, ids: str | Path | None = None, progress: Progress | None = None) -> Report:
    """Convert one file. `ids` is a file of one document id a row (.npy, or text with a line each) where the file has none.

    Raises InvalidFile where nothing in the file is known, or with every problem of its rows; then nothing is written.
    """
    require_free(target.path, target.overwrite)
    file = open_arrays(path)
    report = Report(left_out=file.left_out)
    counter = _Counter(progress, file)
    given = None if ids is None else _read_ids(Path(ids))
    vectors = _first(file, VECTORS)
    if vectors is not None and len(vectors.shape) == 2:
        _convert_rows(file, vectors, given, target, report, counter)
        return report
    pairs = _window_sets(file)
    if pairs:
        _convert_windows(file, pairs, given, target, report, counter)
        return report
    shown = ", ".join(f"{a.name} {a.dtype.name} {list(a.shape)}" for a in file.arrays.values()) or "no array"
    raise InvalidFile(
        f"{file.path}: holds {shown}{'; left out: ' + '; '.join(file.left_out) if file.left_out else ''}. Expected vectors [N, dim] named "
        f"{', '.join(VECTORS)}, or contexts [N, C, dim] ({', '.join(CONTEXTS)}) with targets [N, dim] ({', '.join(TARGETS)})."
    )


class _Counter:
    """Bytes read so far, of the floats of both passes."""

    def __init__(self, progress: Progress | None, file: ArrayFile) -> None:
        self.progress, self.done = progress, 0
        self.total = sum(int(np.prod(a.shape)) * a.dtype.itemsize for a in file.arrays.values() if len(a.shape) > 1)

    def add(self, array: np.ndarray, passes: int = 1) -> None:
        self.done += array.nbytes // passes
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


def _first(file: ArrayFile, names: tuple[str, ...]) -> Array | None:
    return next((file.arrays[name] for name in names if name in file.arrays), None)


def _floats(array: Array, block: np.ndarray) -> np.ndarray:
    """A block as float32, whatever numbers it holds."""
    return to_float(block, None) if array.bfloat16 else block.astype(np.float32, copy=False)


def _read_ids(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return open_arrays(path).arrays["vectors"].whole().reshape(-1)
    try:
        return np.array(path.read_text("utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise InvalidFile(f"{path}: ids cannot be read ({error})") from None


# Rows with document ids


def _convert_rows(file: ArrayFile, vectors: Array, ids: np.ndarray | None, target: Target, report: Report, counter: _Counter) -> None:
    report.kind = "vectors"
    count, dim = vectors.shape
    require_floats(file, vectors)
    order, offsets, names = _order(file, count, ids, report)
    texts = _texts(file, count, order, report)
    scales = file.arrays["scales"].whole() if vectors.dtype == np.int8 else None
    if scales is not None and scales.shape != (count,):
        raise InvalidFile(f"{file.path}: 'scales' {list(scales.shape)} for {count} vectors")
    places = None if order is None else np.argsort(order)
    with target.writer(offsets, names, dim, vectors.dtype) as writer:
        start = 0
        for block in vectors.blocks(max(1, BLOCK_BYTES // max(1, 4 * dim))):
            rows = _floats(vectors, block)
            rows = rows if scales is None else rows * scales[start : start + len(rows), None]
            if places is None:
                writer.put(start, rows)
            else:
                writer.put_rows(places[start : start + len(rows)], rows)
            start += len(rows)
            counter.add(block)
        writer.finish(texts)
    report.documents, report.vectors, report.dim = len(names), count, dim


def require_floats(file: ArrayFile, *arrays: Array) -> None:
    for array in arrays:
        known = array.dtype.kind == "f" or array.bfloat16 or (array.dtype == np.int8 and "scales" in file.arrays)
        if not known:
            raise InvalidFile(f"{file.path}: '{array.name}' holds {array.dtype.name}; expected floats, or int8 with 'scales'")
        if 0 in array.shape:
            raise InvalidFile(f"{file.path}: '{array.name}' {list(array.shape)} is empty")


def _order(file: ArrayFile, count: int, ids: np.ndarray | None, report: Report) -> tuple[np.ndarray | None, np.ndarray, list[str]]:
    """(rows in document order or None where they are so already, offsets, names)."""
    offsets, documents = _first(file, OFFSETS), _first(file, DOCUMENTS)
    given = _first(file, NAMES)
    titles = None if given is None or given.dtype.kind not in "UO" else [str(name) for name in given.whole().reshape(-1)]
    if offsets is not None and ids is None:
        bounds = offsets.whole().reshape(-1).astype(np.int64)
        names = titles if titles is not None else [f"document-{k:06d}" for k in range(len(bounds) - 1)]
        return None, bounds, names
    own = None if documents is None else documents.whole().reshape(-1)
    values = own if ids is None else ids
    if values is None:
        report.notes.append("no document ids: all rows are one document, which no split can divide. Pass --ids FILE with an id a row")
        return None, np.array([0, count]), [file.path.stem]
    if len(values) != count:
        raise InvalidFile(f"{file.path}: {len(values):,} document ids for {count:,} vectors")
    codes, labels = _codes(values)
    chunks = _first(file, CHUNKS)
    within: np.ndarray = np.arange(count) if chunks is None else chunks.whole().reshape(-1)
    if len(within) != count or within.dtype.kind not in "iu":
        raise InvalidFile(f"{file.path}: '{chunks.name if chunks else ''}' must be a whole number for each of {count:,} vectors")
    order = np.lexsort((within, codes))
    if chunks is not None:
        steps, same = np.diff(within[order].astype(np.int64)), np.diff(codes[order]) == 0
        repeated = np.flatnonzero(same & (steps == 0))
        if len(repeated):
            row = order[repeated[0] + 1]
            raise InvalidFile(
                f"{file.path}, row {row}: chunk {within[row]} of document {values[row]} is there twice ({len(repeated):,} such rows)"
            )
        gaps = int((same & (steps > 1)).sum())
        if gaps:
            report.notes.append(f"{gaps:,} gaps in the chunk numbers: chunks on both sides of one become neighbours")
    names = _names(labels, titles)
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
    return None if (order == np.arange(count)).all() else order, starts, names


def _codes(values: np.ndarray) -> tuple[np.ndarray, list]:
    """(number of its document for each row, ids of the documents), documents in order of their first row."""
    values = values.astype(str) if values.dtype.kind in "OS" else values
    labels, first, codes = np.unique(values, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[codes.reshape(-1)], [labels[k].item() for k in np.argsort(first)]


def _names(labels: list, titles: list[str] | None = None) -> list[str]:
    """Document names from ids: text as it is, a number as the title of that place, else `document-<id>`."""
    if titles is not None and all(isinstance(k, int) and 0 <= k < len(titles) for k in labels):
        return [titles[k] for k in labels]
    return [label if isinstance(label, str) else f"document-{label}" for label in labels]


def _texts(file: ArrayFile, count: int, order: np.ndarray | None, report: Report) -> list[str] | None:
    array = _first(file, TEXTS)
    if array is None or array.dtype.kind not in "UO" or array.shape != (count,):
        return None
    texts = [str(text) for text in array.whole()] if array.dtype.kind == "U" else [str(t) for block in array.blocks(8192) for t in block]
    return texts if order is None else [texts[k] for k in order]


# Windows


def _window_sets(file: ArrayFile) -> list[tuple[Array, Array, Array | None]]:
    """(contexts, targets, ids) of every set of windows in the file."""
    found = []
    for prefix in SETS:
        contexts, targets, ids = (_first(file, tuple(prefix + name for name in names)) for names in (CONTEXTS, TARGETS, DOCUMENTS))
        if contexts is not None and targets is not None:
            found.append((contexts, targets, ids))
    return found


def _check_windows(file: ArrayFile, pairs: list[tuple[Array, Array, Array | None]]) -> None:
    problems = Problems(str(file.path))
    for contexts, targets, ids in pairs:
        shapes = f"{contexts.name} {list(contexts.shape)}, {targets.name} {list(targets.shape)}"
        flat = targets.shape[:1] + targets.shape[2:] if len(targets.shape) == 3 and targets.shape[1] == 1 else targets.shape
        if len(contexts.shape) != 3 or flat != (contexts.shape[0], contexts.shape[2]):
            problems.add(f"{shapes}: expected contexts [N, C, dim] and targets [N, dim]")
        elif contexts.shape[1:] != pairs[0][0].shape[1:]:
            problems.add(f"{shapes}: another window than {pairs[0][0].name} {list(pairs[0][0].shape)}")
        if ids is not None and ids.shape[:1] != contexts.shape[:1]:
            problems.add(f"{ids.name} {list(ids.shape)}: expected one id for each of {contexts.shape[0]} windows")
    problems.raise_if_any(InvalidFile)
    for contexts, targets, _ in pairs:
        require_floats(file, contexts, targets)


def _convert_windows(
    file: ArrayFile,
    pairs: list[tuple[Array, Array, Array | None]],
    ids: np.ndarray | None,
    target: Target,
    report: Report,
    counter: _Counter,
) -> None:
    _check_windows(file, pairs)
    report.kind = "windows"
    report.windows_read = count = sum(contexts.shape[0] for contexts, _, _ in pairs)
    _, context, dim = pairs[0][0].shape
    if ids is None and all(own is not None for _, _, own in pairs):
        ids = np.concatenate([own.whole().reshape(-1) for _, _, own in pairs if own is not None])
    if ids is not None and len(ids) != count:
        raise InvalidFile(f"{file.path}: {len(ids):,} document ids for {count:,} windows")
    codes: np.ndarray | None = None
    labels: list = []
    if ids is not None:
        codes, labels = _codes(ids)
    with ThreadPoolExecutor(2) as pool:
        digests = np.concatenate([_window_digests(contexts, targets, pool, counter) for contexts, targets, _ in pairs])
    folded = fold(digests, codes)
    order = sorted(
        range(len(folded.chains)), key=lambda k: (0 if codes is None else int(codes[folded.chains[k][0]]), int(folded.chains[k][0]))
    )
    names = [f"document-{k:06d}" for k in range(len(order))] if codes is None else _chain_names(codes, _names(labels), folded.chains, order)
    offsets = np.concatenate([[0], np.cumsum(folded.lengths[order])])
    places = destinations(folded, order, context + 1)
    with target.writer(offsets, names, dim, pairs[0][0].dtype) as writer:
        start = 0
        for contexts, targets, _ in pairs:
            rows = _block_rows(contexts)
            for left, right in zip(contexts.blocks(rows), targets.blocks(rows), strict=True):
                here = places[start : start + len(left)]
                for position in range(context):
                    new = np.flatnonzero(here[:, position] >= 0)
                    if len(new):
                        writer.put_rows(here[new, position], _floats(contexts, left[new, position]))
                new = np.flatnonzero(here[:, context] >= 0)
                if len(new):
                    writer.put_rows(here[new, context], _floats(targets, right.reshape(len(right), dim)[new]))
                start += len(left)
                counter.add(left, 2)
                counter.add(right, 2)
        writer.finish()
    report.documents, report.vectors, report.dim = len(names), int(offsets[-1]), dim
    report.repeated, report.alone = folded.repeated, folded.alone
    if codes is not None and len(names) > len(labels):
        report.notes.append(
            f"{len(labels):,} documents have gaps between their windows and became {len(names):,} parts, which stay in one split"
        )


def _block_rows(contexts: Array) -> int:
    return max(1, BLOCK_BYTES // (4 * contexts.shape[1] * contexts.shape[2]))


def _window_digests(contexts: Array, targets: Array, pool: ThreadPoolExecutor, counter: _Counter) -> np.ndarray:
    """Digests [n, C + 1] of the float32 rows of each window, its target last."""
    count, context, dim = contexts.shape
    out = np.empty((count, context + 1), np.uint64)
    rows, start = _block_rows(contexts), 0
    for left, right in zip(contexts.blocks(rows), targets.blocks(rows), strict=True):
        stop, half = start + len(left), len(left) // 2
        parts = [pool.submit(row_digests, _floats(contexts, part).reshape(-1, dim)) for part in (left[:half], left[half:]) if len(part)]
        out[start:stop, context] = row_digests(_floats(targets, right).reshape(-1, dim))
        out[start:stop, :context] = np.concatenate([part.result() for part in parts]).reshape(-1, context)
        start = stop
        counter.add(left, 2)
        counter.add(right, 2)
    return out


def _chain_names(codes: np.ndarray, names: list[str], chains: list[np.ndarray], order: list[int]) -> list[str]:
    """The document's name for its only chain, `<name>#part-<k>` for each of several."""
    of = [int(codes[chains[k][0]]) for k in order]
    several = np.bincount(of) > 1
    seen: dict[int, int] = {}
    out = []
    for code in of:
        part = seen.get(code, 0)
        seen[code] = part + 1
        out.append(f"{names[code]}#part-{part}" if several[code] else names[code])
    return out
