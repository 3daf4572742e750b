"""Vectors with document ids and chunk numbers, or offsets, to a corpus: every row to its place in its
document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.data.convert import titles
from mlx_lvm.data.convert.conversion import (
    BLOCK_BYTES,
    Counter,
    Report,
    Target,
    codes_of,
    floats,
    require_floats,
)
from mlx_lvm.data.tables.base import Array, ArrayFile
from mlx_lvm.data.tables.columns import Columns, document_ids, flat, texts_of, whole_numbers
from mlx_lvm.errors import InvalidFile

ONE_DOCUMENT = (
    "which no split can divide. Pass --ids FILE with an id a row, name the column of ids with "
    "--document-column, or say --one-document"
)


@dataclass(frozen=True)
class Order:
    """rows: those of the file in document order, or None where they lie so; offsets [D + 1] and names [D] of
    the documents.
    """

    rows: np.ndarray | None
    offsets: np.ndarray
    names: list[str]


def convert_rows(
    file: ArrayFile,
    vectors: Array,
    ids: np.ndarray | None,
    columns: Columns,
    target: Target,
    report: Report,
    counter: Counter,
) -> None:
    """Write the corpus. Raises InvalidFile where rows have no documents, or ids, chunk numbers or vectors are
    unfit.
    """
    report.kind = "vectors"
    if not vectors.shape[0]:
        raise InvalidFile(f"{file.path}: no rows; a corpus needs one document at least")
    count, dim = vectors.shape
    require_floats(file, vectors)
    counter.expect(vectors)
    order = _order(file, count, ids, columns, target.one_document, report)
    texts = _texts(file, columns, count, order.rows, report)
    scales = file.arrays["scales"].whole() if vectors.dtype == np.int8 else None
    if scales is not None and scales.shape != (count,):
        raise InvalidFile(f"{file.path}: 'scales' {list(scales.shape)} for {count} vectors")
    places = None if order.rows is None else np.argsort(order.rows)
    with target.writer(order.offsets, order.names, dim, vectors.dtype) as writer:
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
    report.documents, report.vectors, report.dim = len(order.names), count, dim


def _order(
    file: ArrayFile, count: int, ids: np.ndarray | None, columns: Columns, one_document: bool, report: Report
) -> Order:
    given = titles.title_column(file, columns)
    if ids is None and not columns.documents:
        starts = columns.find(file, "offsets")
        if starts is not None:
            if file.parts:
                raise InvalidFile(
                    f"{file.path}: '{starts.name}' counts the rows of one file; convert each, then `lvm data "
                    "merge`"
                )
            bounds = whole_numbers(starts, file.path, starts.shape[0])
            if not len(bounds) or bounds[-1] != count:
                raise InvalidFile(
                    f"{file.path}: '{starts.name}' ends at {bounds[-1] if len(bounds) else 'nothing'}, there "
                    f"are {count:,} vectors; expected the first row of each document and the number of rows"
                )
            _used(report, "offsets", starts)
            return Order(None, bounds, titles.of_offsets(given, bounds, report))
    documents = None if ids is not None else columns.find(file, "documents")
    if documents is None and ids is None:
        if not one_document:
            raise InvalidFile(
                f"{file.path}: no document ids, so all rows would be one document, {ONE_DOCUMENT}"
            )
        return Order(None, np.array([0, count]), [file.path.stem])
    if documents is not None:
        ids = document_ids(flat(documents, file.path, count), f"{file.path}, '{documents.name}'")
        _used(report, "documents", documents)
    assert ids is not None
    if len(ids) != count:
        raise InvalidFile(f"{file.path}: {len(ids):,} document ids for {count:,} vectors")
    what = "--ids" if documents is None else f"'{documents.name}'"
    codes, labels = codes_of(ids)
    if len(labels) == 1 and count > 1 and not one_document:
        raise InvalidFile(f"{file.path}: {what} gives every row the document {labels[0]!r}, {ONE_DOCUMENT}")
    if len(labels) == count > 1:
        raise InvalidFile(
            f"{file.path}: {what} gives each of {count:,} rows a document of its own, so there is no window; "
            "it numbers rows. Name the column that tells documents apart with --document-column"
        )
    chunks = columns.find(file, "chunks")
    within = np.arange(count) if chunks is None else whole_numbers(chunks, file.path, count)
    order = np.lexsort((within, codes))
    if chunks is None:
        apart = int((np.diff(codes) != 0).sum()) + 1 - len(labels)
        if apart:
            report.notes.append(
                f"no chunk numbers, and rows of one document lie apart in {apart:,} places: their order in "
                "the file is taken for that of the text. --chunk-column names a column of chunk numbers"
            )
    else:
        _used(report, "chunks", chunks)
        _check_chunks(file, within, codes, ids, order, report)
    names = titles.of_ids(given, codes, labels, documents.name if documents is not None else "", report)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
    return Order(None if (order == np.arange(count)).all() else order, offsets, names)


def _check_chunks(
    file: ArrayFile, within: np.ndarray, codes: np.ndarray, ids: np.ndarray, order: np.ndarray, report: Report
) -> None:
    steps, same = np.diff(within[order]), np.diff(codes[order]) == 0
    repeated = np.flatnonzero(same & (steps == 0))
    if len(repeated):
        row = order[repeated[0] + 1]
        raise InvalidFile(
            f"{file.path}, row {row}: chunk {within[row]} of document {ids[row]} is there twice "
            f"({len(repeated):,} such rows)"
        )
    gaps = int((same & (steps > 1)).sum())
    if gaps:
        report.notes.append(
            f"{gaps:,} gaps in the chunk numbers: chunks on both sides of one become neighbours"
        )


def _used(report: Report, role: str, array: Array) -> None:
    report.columns[role] = array.name


def _texts(
    file: ArrayFile, columns: Columns, count: int, order: np.ndarray | None, report: Report
) -> list[str] | None:
    array = columns.find(file, "texts")
    if array is None or array.kind != "text" or array.shape != (count,):
        return None
    _used(report, "texts", array)
    texts = [text for block in array.blocks(8192) for text in texts_of(block, array.name)]
    return texts if order is None else [texts[k] for k in order]
