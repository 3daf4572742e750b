"""What conversions share: where a corpus goes, what is reported of it, and how arrays and document ids are looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.ingest.arrays import Array, ArrayFile
from mlx_lvm.data.names import normal
from mlx_lvm.data.storage.mapped import to_float
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.errors import InvalidFile

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
        return CorpusWriter(
            self.path,
            offsets,
            names,
            card,
            self.provenance,
            dtype,
            shard_bytes=self.shard_bytes,
            overwrite=self.overwrite,
        )


class Counter:
    """Bytes read so far, of the floats of both passes."""

    def __init__(self, progress: Progress | None, file: ArrayFile) -> None:
        self.progress, self.done = progress, 0
        self.total = sum(
            int(np.prod(a.shape)) * a.dtype.itemsize for a in file.arrays.values() if len(a.shape) > 1
        )

    def add(self, array: np.ndarray, passes: int = 1) -> None:
        self.done += array.nbytes // passes
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


def first_of(file: ArrayFile, names: tuple[str, ...]) -> Array | None:
    return next((file.arrays[name] for name in names if name in file.arrays), None)


def floats(array: Array, block: np.ndarray) -> np.ndarray:
    """A block as float32, whatever numbers it holds."""
    return to_float(block, None) if array.bfloat16 else block.astype(np.float32, copy=False)


def require_floats(file: ArrayFile, *arrays: Array) -> None:
    for array in arrays:
        known = (
            array.dtype.kind == "f" or array.bfloat16 or (array.dtype == np.int8 and "scales" in file.arrays)
        )
        if not known:
            raise InvalidFile(
                f"{file.path}: '{array.name}' holds {array.dtype.name}; expected floats, or int8 with 'scales'"
            )
        if 0 in array.shape:
            raise InvalidFile(f"{file.path}: '{array.name}' {list(array.shape)} is empty")


def codes_of(values: np.ndarray) -> tuple[np.ndarray, list]:
    """(number of its document for each row, ids of the documents), documents in order of their first row."""
    if values.dtype.kind in "OSU":
        values = np.array([normal(str(value)) for value in values.tolist()])
    labels, first, codes = np.unique(values, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[codes.reshape(-1)], [labels[k].item() for k in np.argsort(first)]


def names_of(labels: list, titles: list[str] | None = None) -> list[str]:
    """Document names from ids: text as it is, a number as the title of that place, else `document-<id>`."""
    if titles is not None and all(isinstance(k, int) and 0 <= k < len(titles) for k in labels):
        return [titles[k] for k in labels]
    return [label if isinstance(label, str) else f"document-{label}" for label in labels]
