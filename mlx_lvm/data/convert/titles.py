"""Names of documents from a column of titles: one a document, one a row, or one for each of a longer list.

Which of them it is, its length says and what it holds; never its name. Else ids name the documents.
"""

from __future__ import annotations

import numpy as np

from mlx_lvm.data.convert.conversion import Report, names_of
from mlx_lvm.data.names import normal
from mlx_lvm.data.tables.base import Array, ArrayFile
from mlx_lvm.data.tables.columns import Columns, counts_documents, texts_of


def title_column(file: ArrayFile, columns: Columns) -> Array | None:
    """The column of titles, where it is of text and one value a row."""
    found = columns.find(file, "titles")
    return found if found is not None and found.kind == "text" and found.rank == 1 else None


def of_offsets(titles: Array | None, offsets: np.ndarray, report: Report) -> list[str]:
    """Names of documents that row offsets [D + 1] give. The writer refuses titles of another length."""
    documents = len(offsets) - 1
    if titles is not None:
        given = _texts(titles)
        if len(given) == documents or len(given) != offsets[-1]:
            report.columns["titles"] = titles.name
            return given
        codes = np.repeat(np.arange(documents), np.maximum(np.diff(offsets), 0))
        named = _one_each(given, codes, documents)
        if named is not None:
            report.columns["titles"] = titles.name
            return named
        report.notes.append(f"'{titles.name}' has a title a row, not one a document: documents are numbered")
    return [f"document-{k:06d}" for k in range(documents)]


def of_ids(
    titles: Array | None, codes: np.ndarray, labels: list[int | str], column: str, report: Report
) -> list[str]:
    """Names of documents that ids give: codes [N] of the rows, labels [D] the ids, `column` their name."""
    if titles is None or any(isinstance(label, str) for label in labels):
        return names_of(labels)  # ids of text are names already
    given = _texts(titles)
    why = f"{len(given):,} titles are neither one for each of {len(labels):,} documents nor one for each row"
    if len(given) == len(codes):
        named = _one_each(given, codes, len(labels))
        why = "documents have rows of several titles, or share one"
    else:
        numbers = np.array(labels, dtype=np.int64)
        complete = len(given) == len(labels) and sorted(labels) == list(range(len(labels)))
        indexed = counts_documents(column) and numbers.min() >= 0 and numbers.max() < len(given)
        named = [given[k] for k in numbers] if complete or indexed else None
        if named is not None and len(set(named)) < len(named):
            named, why = None, "several documents have one title"
    if named is None:
        what = f"does not name the documents ({why}): they have the names of their ids"
        report.notes.append(f"'{titles.name}' {what}")
        return names_of(labels)
    report.columns["titles"] = titles.name
    return named


def _texts(titles: Array) -> list[str]:
    return [normal(text) for text in texts_of(titles.whole().reshape(-1))]


def _one_each(given: list[str], codes: np.ndarray, documents: int) -> list[str] | None:
    """The title of each document, where all of its rows have one and no other document has it."""
    _, first = np.unique(codes, return_index=True)
    if len(first) < documents:
        return None
    named = [given[k] for k in first]
    alike = all(text == named[code] for text, code in zip(given, codes.tolist(), strict=True))
    return named if alike and len(set(named)) == len(named) and all(named) else None
