"""What conversions share: where a corpus goes, what is reported of it, how arrays and ids are looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.storage.rows import to_float
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.data.tables.base import Array, ArrayFile
from mlx_lvm.data.tables.columns import Columns
from mlx_lvm.errors import InvalidFile

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
    unused: list[str] = field(default_factory=list)  # columns that have no role in a corpus
    columns: dict[str, str] = field(default_factory=dict)  # the column that each role was read from
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
    one_document: bool = False  # that all rows are one document is meant

    def writer(self, offsets: np.ndarray, names: list[str], dim: int, stored: np.dtype) -> CorpusWriter:
        card = self.card or EncoderCard(dim=dim)
        card = card if card.dim else replace(card, dim=dim)
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


@dataclass
class Conversion:
    """A conversion under way. ids [rows]: the caller's, if any. done, total: bytes read, of all passes."""

    file: ArrayFile
    columns: Columns
    target: Target
    ids: np.ndarray | None
    report: Report
    progress: Progress | None
    done: int = 0
    total: int = 0

    def require_floats(self, *arrays: Array) -> None:
        for array in arrays:
            what = f"{self.file.path}: '{array.name}'"
            scaled = array.dtype == np.int8 and "scales" in self.file.arrays
            if not (array.dtype.kind == "f" or array.bfloat16 or scaled):
                raise InvalidFile(f"{what} holds {array.kind}; expected floats, or int8 with 'scales'")
            if 0 in array.shape:
                raise InvalidFile(f"{what} {list(array.shape)} is empty")

    def expect(self, *arrays: Array) -> None:
        self.total += sum(int(np.prod(array.shape)) * array.dtype.itemsize for array in arrays)

    def read(self, *blocks: np.ndarray, passes: int = 1) -> None:
        """Tells of blocks that were read, of arrays that are read so many times."""
        self.done += sum(block.nbytes // passes for block in blocks)
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)


def floats(array: Array, block: np.ndarray) -> np.ndarray:
    """A block as float32, whatever numbers it holds."""
    return to_float(block) if array.bfloat16 else block.astype(np.float32, copy=False)


def codes_of(ids: np.ndarray) -> tuple[np.ndarray, list[int | str]]:
    """(number of its document for each row, ids of the documents), documents in order of their first row."""
    labels, first, codes = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))
    return rank[codes.reshape(-1)], [labels[k].item() for k in np.argsort(first)]


def names_of(labels: list[int | str]) -> list[str]:
    """Document names from ids: text as it is, a number as `document-<number>`."""
    return [label if isinstance(label, str) else f"document-{label}" for label in labels]
