"""Vectors with document ids and chunk numbers, or offsets, to a corpus: every row to its place in its document."""

from __future__ import annotations

import numpy as np

from mlx_lvm.data.ingest.arrays import Array, ArrayFile
from mlx_lvm.data.ingest.conversion import (
    BLOCK_BYTES,
    DOCUMENTS,
    Counter,
    Report,
    Target,
    codes_of,
    first_of,
    floats,
    names_of,
    require_floats,
)
from mlx_lvm.errors import InvalidFile

CHUNKS = ("chunk_indices", "chunk_index", "chunk_ids", "chunk_id", "chunk", "positions", "position")
OFFSETS = ("document_offsets", "offsets")
NAMES = ("document_names", "names", "titles")
TEXTS = ("texts", "text", "chunk_texts", "chunk_text")


def convert_rows(
    file: ArrayFile, vectors: Array, ids: np.ndarray | None, target: Target, report: Report, counter: Counter
) -> None:
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
            rows = floats(vectors, block)
            rows = rows if scales is None else rows * scales[start : start + len(rows), None]
            if places is None:
                writer.put(start, rows)
            else:
                writer.put_rows(places[start : start + len(rows)], rows)
            start += len(rows)
            counter.add(block)
        writer.finish(texts)
    report.documents, report.vectors, report.dim = len(names), count, dim


def _order(
    file: ArrayFile, count: int, ids: np.ndarray | None, report: Report
) -> tuple[np.ndarray | None, np.ndarray, list[str]]:
    """(rows in document order or None where they are so already, offsets, names)."""
    offsets, documents = first_of(file, OFFSETS), first_of(file, DOCUMENTS)
    given = first_of(file, NAMES)
    titles = (
        None
        if given is None or given.dtype.kind not in "UO"
        else [str(name) for name in given.whole().reshape(-1)]
    )
    if offsets is not None and ids is None:
        bounds = offsets.whole().reshape(-1).astype(np.int64)
        names = titles if titles is not None else [f"document-{k:06d}" for k in range(len(bounds) - 1)]
        return None, bounds, names
    own = None if documents is None else documents.whole().reshape(-1)
    values = own if ids is None else ids
    if values is None:
        report.notes.append(
            "no document ids: all rows are one document, which no split can divide. Pass --ids FILE with an id a row"
        )
        return None, np.array([0, count]), [file.path.stem]
    if len(values) != count:
        raise InvalidFile(f"{file.path}: {len(values):,} document ids for {count:,} vectors")
    codes, labels = codes_of(values)
    chunks = first_of(file, CHUNKS)
    within: np.ndarray = np.arange(count) if chunks is None else chunks.whole().reshape(-1)
    if len(within) != count or within.dtype.kind not in "iu":
        raise InvalidFile(
            f"{file.path}: '{chunks.name if chunks else ''}' must be a whole number for each of {count:,} vectors"
        )
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
            report.notes.append(
                f"{gaps:,} gaps in the chunk numbers: chunks on both sides of one become neighbours"
            )
    names = names_of(labels, titles)
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
    return None if (order == np.arange(count)).all() else order, starts, names


def _texts(file: ArrayFile, count: int, order: np.ndarray | None, report: Report) -> list[str] | None:
    array = first_of(file, TEXTS)
    if array is None or array.dtype.kind not in "UO" or array.shape != (count,):
        return None
    texts = (
        [str(text) for text in array.whole()]
        if array.dtype.kind == "U"
        else [str(t) for block in array.blocks(8192) for t in block]
    )
    return texts if order is None else [texts[k] for k in order]
