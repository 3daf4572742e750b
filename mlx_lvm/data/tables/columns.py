"""What a column is for: found by the names that data sets give it, or by the name that the caller gives.

A column with a role that cannot be read is an error, never left out in silence: without its document ids a
table is one document. What has no role is not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.data.names import normal
from mlx_lvm.data.tables.base import Array, ArrayFile
from mlx_lvm.errors import InvalidFile, UsageError, nearest

# Names of public data sets and of other tools, in the order in which they are looked for; capitals and
# underscores do not count, so `docId` is `doc_id`.
KNOWN = {
    "vectors": (
        "vectors", "embeddings", "embedding", "vector", "emb", "embs", "dense_vector", "text_embedding",
    ),
    "documents": (
        "article_indices", "article_ids", "document_indices", "document_ids", "doc_ids", "article_id",
        "document_id", "doc_id", "doc_idx", "doc_index", "doc", "document", "wiki_id", "page_id", "book_id",
        "paper_id", "file_id", "file_name", "source_id", "url",
    ),
    "chunks": (
        "chunk_indices", "chunk_index", "chunk_ids", "chunk_id", "chunk_idx", "chunk_number", "chunk_no",
        "chunk", "paragraph_id", "paragraph_ids", "paragraph_index", "para_id", "sentence_id", "section_id",
        "positions", "position",
    ),
    "offsets": ("document_offsets", "doc_offsets", "offsets"),
    "titles": ("document_names", "document_titles", "names", "titles", "title", "name"),
    "texts": ("texts", "text", "chunk_texts", "chunk_text", "content", "passage"),
    "contexts": ("context_sequences", "contexts", "context", "X", "context_vectors"),
    "targets": ("target_vectors", "targets", "target", "y"),
    "scales": ("scales",),
}  # fmt: skip
OPTIONS = {
    "vectors": "--vector-column",
    "documents": "--document-column",
    "chunks": "--chunk-column",
    "texts": "--text-column",
    "titles": "--title-column",
}
OPTIONAL = ("texts", "titles")  # a corpus is right without them
LARGEST = np.iinfo(np.int64).max
INDICES = ("indices", "index", "idx")  # a column of such a name counts from 0 into a list of documents


@dataclass(frozen=True)
class Columns:
    """Names that the caller gives for roles; an empty one is looked for by the known names."""

    vectors: str = ""
    documents: str = ""
    chunks: str = ""
    texts: str = ""
    titles: str = ""

    def find(self, file: ArrayFile, role: str, prefix: str = "") -> Array | None:
        """The array that has the role, or None. Raises UsageError where the caller's name is not there,
        InvalidFile where it is there and cannot be read.
        """
        given = getattr(self, role, "")
        if given:
            if given in file.arrays:
                return file.arrays[given]
            if given in file.unread:
                raise InvalidFile(f"{file.path}: '{given}' cannot be read: {file.unread[given]}")
            known = sorted({*file.arrays, *file.unread})
            raise UsageError(
                f"{OPTIONS[role]} {given}: {file.path} has no such column.{nearest(given, known)}"
            )
        for name in KNOWN[role]:
            wanted = _plain(prefix + name)
            for own in file.arrays:
                if _plain(own) == wanted:
                    return file.arrays[own]
            lost = next((own for own in file.unread if _plain(own) == wanted), None)
            if lost is not None and role not in OPTIONAL:
                instead = f", or name another column with {OPTIONS[role]}" if role in OPTIONS else ""
                raise InvalidFile(
                    f"{file.path}: '{lost}' cannot be read: {file.unread[lost]}. "
                    f"Store it as plain numbers or text{instead}"
                )
        return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def counts_documents(name: str) -> bool:
    """Whether a column of document numbers says by its name that they count from 0."""
    return name.lower().endswith(INDICES)


def whole_numbers(array: Array, path: object, count: int) -> np.ndarray:
    """Whole numbers, also stored as floats or as text, [count] int64. Raises InvalidFile naming the row."""
    values, what = flat(array, path, count), f"{path}, '{array.name}'"
    if values.dtype.kind not in "OUS":
        return _whole(values, what)
    try:
        return np.array([int(text) for text in _all_texts(values, what)], np.int64)
    except ValueError as error:
        raise InvalidFile(f"{what}: must be a whole number for each of {count:,} rows ({error})") from None


def _whole(values: np.ndarray, what: str) -> np.ndarray:
    if values.dtype.kind == "f":
        fit = np.isfinite(values) & (np.floor(values) == values) & (np.abs(values.astype(np.float64)) < 2**53)
        if not fit.all():
            row = int(np.flatnonzero(~fit)[0])
            said = "no value" if np.isnan(values[row]) else f"{values[row]} is not a whole number"
            raise InvalidFile(f"{what}, row {row}: {said} ({int((~fit).sum()):,} such rows)")
    elif values.dtype.kind not in "iu":
        raise InvalidFile(f"{what}: holds {values.dtype.name}, expected whole numbers")
    if values.dtype.kind == "u" and values.max(initial=0) > LARGEST:
        raise InvalidFile(f"{what}: {int(values.max())} is larger than 2^63")
    return values.astype(np.int64)


def document_ids(values: np.ndarray, what: str) -> np.ndarray:
    """Ids [n] as int64, or as text in normal form C. Floats must be whole, bytes are text or hexadecimals.

    Raises InvalidFile naming the first row without a value.
    """
    if values.dtype.kind == "O" and all(type(value) in (int, float) for value in values.tolist()):
        values = np.array(values.tolist())
    if values.dtype.kind == "u" and values.max(initial=0) > LARGEST:
        return values.astype(str)  # a hash of 64 bits is a name, not a number
    if values.dtype.kind in "fiub":
        return _whole(values, what)
    texts = _all_texts(values, what)
    return np.array([*texts, ""], dtype=object)[:-1].astype(str) if texts else np.zeros(0, "U1")


def texts_of(values: np.ndarray) -> list[str]:
    """Texts as they are, blank ones too."""
    return [_decoded(value) for value in values.tolist()]


def _all_texts(values: np.ndarray, what: str) -> list[str]:
    texts = [_decoded(v) if v is not None and v == v else "" for v in values.tolist()]
    for row, text in enumerate(texts):
        if not text.strip():
            raise InvalidFile(f"{what}, row {row}: no value")
    return [normal(text) for text in texts]


def _decoded(value: object) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex()


def flat(array: Array, path: object, count: int) -> np.ndarray:
    """One value a row, [count]. Raises InvalidFile where there are more, fewer, or several in one row."""
    values = array.whole()
    if values.size != len(values):
        raise InvalidFile(
            f"{path}: '{array.name}' {list(values.shape)} holds several values a row; expected one"
        )
    if len(values) != count:
        raise InvalidFile(f"{path}: {len(values):,} values of '{array.name}' for {count:,} rows")
    return values.reshape(-1)
