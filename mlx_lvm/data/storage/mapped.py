"""A corpus on disk, mapped: opening reads headers, offsets and names; vectors are read when asked for.

A corpus is one safetensors file (`corpus.py` says what it holds) or a folder of such files, its shards, under
an index:

    corpus.json   {"format", "format_version", "shards": [{"file", "documents", "vectors", "sha256"}, ...]}

Every shard is a corpus of its own with whole documents; rows and documents are counted through them in order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from mlx_lvm.core.arrays import blocks
from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.files.safetensors import SafeFile
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.storage.rows import RowCheck, Stored, across, row_in_words, to_float, unit_rows
from mlx_lvm.data.storage.texts import read_texts, texts_file
from mlx_lvm.errors import Problems

# What a file says of its rows: how many were not of unit length and had to be made so, or that they are as a
# process drew them. The number has one width, so that the header can be laid out before rows come.
UNIT, AS_DRAWN = "unit length, {:012d} made so", "as drawn"
MADE_UNIT = re.compile(r"unit length, (\d{12}) made so")
BLOCK_BYTES = 32 << 20  # float32 bytes looked at together where a whole corpus is read


@dataclass(frozen=True)
class Shard:
    """One file of a corpus: rows first_row .. first_row + rows of it."""

    path: Path
    file: SafeFile
    offsets: np.ndarray
    names: list[str]
    first_row: int

    @property
    def rows(self) -> int:
        return self.file.tensors["vectors"].shape[0]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @cached_property
    def stored(self) -> Stored:
        return Stored.read(self.file)


@dataclass(frozen=True)
class MappedCorpus:
    """Offsets [D + 1], names and card of all shards; `assigned` [D] 0, 1, 2 for train, val, test, or None."""

    name: str
    path: Path
    shards: tuple[Shard, ...]
    offsets: np.ndarray
    names: tuple[str, ...]
    card: EncoderCard
    provenance: dict[str, str]
    assigned: np.ndarray | None
    as_drawn: bool = False  # rows keep the lengths they were written with: those of a synthetic process

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @property
    def dim(self) -> int:
        return self.shards[0].file.tensors["vectors"].shape[1]

    @property
    def dtype(self) -> str:
        return self.shards[0].file.tensors["vectors"].dtype

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        """Bytes of vectors and scales as stored."""
        infos = [shard.file.tensors.get(name) for shard in self.shards for name in ("vectors", "scales")]
        return sum(info.end - info.start for info in infos if info)

    @property
    def block_rows(self) -> int:
        return max(1, BLOCK_BYTES // (4 * self.dim))

    def document_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def where(self, row: int) -> str:
        """A row in words: with its document and chunk."""
        return row_in_words(row, self.offsets, self.names)

    @cached_property
    def _edges(self) -> list[int]:
        return [*(shard.first_row for shard in self.shards), len(self)]

    def parts(self, start: int, stop: int) -> Iterator[tuple[Shard, slice, slice]]:
        """The shards that hold rows start:stop, each with its own rows and which of these they are."""
        return ((self.shards[number], own, here) for number, own, here in across(self._edges, start, stop))

    def pieces(self, start: int, stop: int) -> Iterator[Stored]:
        """Rows start:stop in the stored form and of unit length, shard by shard."""
        return (self.unit(shard.stored.part(own)) for shard, own, _ in self.parts(start, stop))

    def unit(self, rows: Stored) -> Stored:
        """Rows made of unit length where they are not; the same object where they are."""
        return rows if self.as_drawn else unit_rows(rows)[0]

    @property
    def made_unit(self) -> int:
        """Rows that had to be made of unit length when the corpus was written."""
        told = [MADE_UNIT.fullmatch(shard.file.metadata.get("rows", "")) for shard in self.shards]
        return sum(int(match[1]) for match in told if match)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start:stop as float32 [n, dim]."""
        parts = [to_float(*rows) for rows in self.pieces(start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Any rows as float32 [n, dim]."""
        out = np.empty((len(rows), self.dim), np.float32)
        for shard in self.shards:
            here = np.flatnonzero((rows >= shard.first_row) & (rows < shard.first_row + shard.rows))
            if len(here):
                out[here] = to_float(*self.unit(shard.stored.part(rows[here] - shard.first_row)))
        return out

    def texts(self) -> Iterator[str] | None:
        """The text of every chunk in row order, read as it is asked for; None where a shard has none.

        Raises InvalidFile where they are not those of the corpus.
        """
        found = [(file, shard) for shard in self.shards if (file := texts_file(shard.path))]
        if len(found) < len(self.shards):
            return None
        return chain.from_iterable(read_texts(file, shard.names, shard.lengths) for file, shard in found)

    @cached_property
    def sha256(self) -> str:
        """Of all shards' digests: of vectors, as recorded, and of the rest, as names decide the split."""
        digests = [
            (shard.file.metadata.get("sha256") or sha256(shard.stored.vectors)) + rest_digest(shard.file)
            for shard in self.shards
        ]
        return sha256("".join(digests).encode())

    def verify(self, check: RowCheck | None = None) -> list[str]:
        """Reads everything once: what is wrong with rows, scales and checksums, in words.

        `check` looks at the rows, where the caller wants what else it found.
        """
        problems = Problems(str(self.path))
        check = check or RowCheck(self.where)
        with ThreadPoolExecutor(1) as pool:
            for shard in self.shards:
                digest = pool.submit(sha256, shard.stored.vectors)
                for block in blocks(shard.rows, self.block_rows):
                    check.add(shard.first_row + block.start, *shard.stored.part(block))
                recorded = shard.file.metadata.get("sha256")
                if recorded is not None and recorded != digest.result():
                    problems.add(
                        f"{shard.path.name}: the vectors do not have the sha256 recorded with them: damaged. "
                        "Fetch the file again."
                    )
        return problems.found + check.problems()


def rest_digest(file: SafeFile) -> str:
    """sha256 of all tensors but the vectors, by name: of what decides documents, split and scale."""
    digest = hashlib.sha256()
    for name in sorted(set(file.tensors) - {"vectors"}):
        digest.update(np.ascontiguousarray(file.numpy(name)).data)
    return digest.hexdigest()
