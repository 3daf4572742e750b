"""Vectors with document ids and chunk numbers, or offsets, to a corpus: rows to places in documents."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.data.convert import titles
from mlx_lvm.data.convert.conversion import BLOCK_BYTES, Conversion, codes_of, floats
from mlx_lvm.data.tables.base import Array
from mlx_lvm.data.tables.columns import document_ids, flat, texts_of, whole_numbers
from mlx_lvm.errors import InvalidFile

ONE_DOCUMENT = (
    "which no split can divide. Pass --ids FILE with an id a row, name the column of ids with "
    "--document-column, or say --one-document"
)


@dataclass(frozen=True)
class Order:
    """rows: those of the file by document, None if they lie so; offsets [D + 1] and names of documents."""

    rows: np.ndarray | None
    offsets: np.ndarray
    names: list[str]


def convert_rows(job: Conversion, vectors: Array) -> None:
    """Write the corpus. Raises InvalidFile without documents, and for unfit ids, chunk numbers or vectors."""
    file, report = job.file, job.report
    report.kind = "vectors"
    if not vectors.shape[0]:
        raise InvalidFile(f"{file.path}: no rows; a corpus needs one document at least")
    count, dim = vectors.shape
    job.require_floats(vectors)
    job.expect(vectors)
    order = _order(job, count)
    texts = _texts(job, count, order.rows)
    scales = file.arrays["scales"].whole() if vectors.dtype == np.int8 else None
    if scales is not None and scales.shape != (count,):
        raise InvalidFile(f"{file.path}: 'scales' {list(scales.shape)} for {count} vectors")
    places = None if order.rows is None else np.argsort(order.rows)
    with job.target.writer(order.offsets, order.names, dim, vectors.dtype) as writer:
        start = 0
        for block in vectors.blocks(max(1, BLOCK_BYTES // max(1, 4 * dim))):
            rows = floats(vectors, block)
            rows = rows if scales is None else rows * scales[start : start + len(rows), None]
            if places is None:
                writer.put(start, rows)
            else:
                writer.put_rows(places[start : start + len(rows)], rows)
            start += len(rows)
            job.read(block)
        writer.finish(texts)
    report.documents, report.vectors, report.dim = len(order.names), count, dim


def _order(job: Conversion, count: int) -> Order:
    file, columns, report, ids = job.file, job.columns, job.report, job.ids
    given = titles.title_column(file, columns)
    if ids is None and not columns.documents:
        starts = columns.find(file, "offsets")
        if starts is not None:
            bounds = _bounds(job, starts, count)
            return Order(None, bounds, titles.of_offsets(given, bounds, report))
    documents = None if ids is not None else columns.find(file, "documents")
    if documents is not None:
        ids = document_ids(flat(documents, file.path, count), f"{file.path}, '{documents.name}'")
        report.columns["documents"] = documents.name
    if ids is None:
        if not job.target.one_document:
            raise InvalidFile(
                f"{file.path}: no document ids, so all rows would be one document, {ONE_DOCUMENT}"
            )
        return Order(None, np.array([0, count]), [file.path.stem])
    if len(ids) != count:
        raise InvalidFile(f"{file.path}: {len(ids):,} document ids for {count:,} vectors")
    what = "--ids" if documents is None else f"'{documents.name}'"
    codes, labels = codes_of(ids)
    if len(labels) == 1 and count > 1 and not job.target.one_document:
        raise InvalidFile(f"{file.path}: {what} gives every row the document {labels[0]!r}, {ONE_DOCUMENT}")
    if len(labels) == count > 1:
        raise InvalidFile(
            f"{file.path}: {what} gives each of {count:,} rows a document of its own, so there is no window; "
            "it numbers rows. Name the column that tells documents apart with --document-column"
        )
    order = _in_documents(job, codes, ids, len(labels))
    names = titles.of_ids(given, codes, labels, documents.name if documents is not None else "", report)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
    return Order(None if (order == np.arange(count)).all() else order, offsets, names)


def _bounds(job: Conversion, starts: Array, count: int) -> np.ndarray:
    """Row offsets [D + 1] of the documents."""
    path = job.file.path
    if job.file.parts:
        raise InvalidFile(
            f"{path}: '{starts.name}' counts the rows of one file; convert each, then `lvm data merge`"
        )
    bounds = whole_numbers(starts, path, starts.shape[0])
    if not len(bounds) or bounds[-1] != count:
        raise InvalidFile(
            f"{path}: '{starts.name}' ends at {bounds[-1] if len(bounds) else 'nothing'}, there are "
            f"{count:,} vectors; expected the first row of each document and the number of rows"
        )
    job.report.columns["offsets"] = starts.name
    return bounds


def _in_documents(job: Conversion, codes: np.ndarray, ids: np.ndarray, documents: int) -> np.ndarray:
    """Rows of the file by document, and in it by chunk number or as they stand in the file."""
    chunks = job.columns.find(job.file, "chunks")
    if chunks is None:
        apart = int((np.diff(codes) != 0).sum()) + 1 - documents
        if apart:
            job.report.notes.append(
                f"no chunk numbers, and rows of one document lie apart in {apart:,} places: their order in "
                "the file is taken for that of the text. --chunk-column names a column of chunk numbers"
            )
        return np.argsort(codes, kind="stable")
    within = whole_numbers(chunks, job.file.path, len(codes))
    order = np.lexsort((within, codes))
    job.report.columns["chunks"] = chunks.name
    steps, same = np.diff(within[order]), np.diff(codes[order]) == 0
    repeated = np.flatnonzero(same & (steps == 0))
    if len(repeated):
        row = order[repeated[0] + 1]
        raise InvalidFile(
            f"{job.file.path}, row {row}: chunk {within[row]} of document {ids[row]} is there twice "
            f"({len(repeated):,} such rows)"
        )
    gaps = int((same & (steps > 1)).sum())
    if gaps:
        what = "gaps in the chunk numbers: chunks on both sides of one become neighbours"
        job.report.notes.append(f"{gaps:,} {what}")
    return order


def _texts(job: Conversion, count: int, order: np.ndarray | None) -> list[str] | None:
    array = job.columns.find(job.file, "texts")
    if array is None or array.kind != "text" or array.shape != (count,):
        return None
    job.report.columns["texts"] = array.name
    texts = [text for block in array.blocks(8192) for text in texts_of(block)]
    return texts if order is None else [texts[k] for k in order]
