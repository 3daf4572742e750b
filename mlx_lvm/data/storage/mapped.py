"""A corpus on disk, mapped: opening reads headers, offsets and names; vectors are read where they are asked
for.

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
from pathlib import Path

import numpy as np

from mlx_lvm.core.files.disk import sha256
from mlx_lvm.core.files.safetensors import SafeFile
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.storage.rows import RowCheck, to_float, unit_rows
from mlx_lvm.errors import Problems

# What a file says of its rows: how many were not of unit length and had to be made so, or that they are as a
# process drew them. The number has one width, so that the header can be laid out before rows come.
UNIT, AS_DRAWN = "unit length, {:012d} made so", "as drawn"
MADE_UNIT = re.compile(r"unit length, (\d{12}) made so")
BLOCK_BYTES = 32 << 20  # float32 bytes looked at together where a whole corpus is read


@dataclass(frozen=True)
class Shard:
    """One file of a corpus: rows first_row .. first_row + rows of it, documents first_document ..
    likewise.
    """

    path: Path
    file: SafeFile
    offsets: np.ndarray
    names: list[str]
    first_row: int
    first_document: int

    @property
    def rows(self) -> int:
        return self.file.tensors["vectors"].shape[0]

    @cached_property
    def vectors(self) -> np.ndarray:
        """As stored, [rows, dim]; BF16 as the uint16 of its bits."""
        return self.file.numpy("vectors")

    @cached_property
    def scales(self) -> np.ndarray | None:
        return self.file.numpy("scales") if "scales" in self.file.tensors else None


@dataclass(frozen=True)
class MappedCorpus:
    """Offsets [D + 1], names and card of all shards together; `assigned` [D] is 0, 1, 2 for train, val, test,
    or None.
    """

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
        infos = [
            info
            for shard in self.shards
            for name, info in shard.file.tensors.items()
            if name in ("vectors", "scales")
        ]
        return sum(info.end - info.start for info in infos)

    @property
    def block_rows(self) -> int:
        return max(1, BLOCK_BYTES // (4 * self.dim))

    def document_of(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def where(self, row: int) -> str:
        """A row in words: with its document and chunk."""
        document = int(self.document_of(np.array(row)))
        return f"row {row} (document '{self.names[document]}', chunk {row - self.offsets[document]})"

    def pieces(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Rows start:stop in the stored form and of unit length, (vectors, scales), shard by shard."""
        for shard in self.shards:
            a, b = max(start - shard.first_row, 0), min(stop - shard.first_row, shard.rows)
            if a < b:
                yield self.unit(shard.vectors[a:b], None if shard.scales is None else shard.scales[a:b])

    def unit(self, vectors: np.ndarray, scales: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows as stored, made of unit length where they are not; the same arrays where they are."""
        return (vectors, scales) if self.as_drawn else unit_rows(vectors, scales)[:2]

    @property
    def made_unit(self) -> int:
        """Rows that had to be made of unit length when the corpus was written."""
        told = [MADE_UNIT.fullmatch(shard.file.metadata.get("rows", "")) for shard in self.shards]
        return sum(int(match[1]) for match in told if match)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start:stop as float32 [n, dim]."""
        parts = [to_float(vectors, scales) for vectors, scales in self.pieces(start, stop)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Any rows as float32 [n, dim]."""
        out = np.empty((len(rows), self.dim), np.float32)
        for shard in self.shards:
            here = np.flatnonzero((rows >= shard.first_row) & (rows < shard.first_row + shard.rows))
            if len(here):
                local = rows[here] - shard.first_row
                scales = None if shard.scales is None else shard.scales[local]
                out[here] = to_float(*self.unit(shard.vectors[local], scales))
        return out

    def blocks(self, size: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float32 rows) through the whole corpus."""
        step = size or self.block_rows
        for start in range(0, len(self), step):
            yield start, self.read(start, min(start + step, len(self)))

    @cached_property
    def sha256(self) -> str:
        """Of all shards' digests, as recorded: of their vectors and of the rest, since the names decide the
        split.
        """
        digests = [
            (shard.file.metadata.get("sha256") or sha256(shard.vectors)) + rest_digest(shard.file)
            for shard in self.shards
        ]
        return sha256("".join(digests).encode())

    def verify(self, check: RowCheck | None = None) -> list[str]:
        """Reads everything once: what is wrong with rows, scales and checksums, in words; empty where nothing
        is.

        `check` looks at the rows, where the caller wants what else it found.
        """
        problems = Problems(str(self.path))
        check = check or RowCheck(self.where)
        with ThreadPoolExecutor(1) as pool:
            for shard in self.shards:
                digest = pool.submit(sha256, shard.vectors)
                for start in range(0, shard.rows, self.block_rows):
                    scales = None if shard.scales is None else shard.scales[start : start + self.block_rows]
                    check.add(shard.first_row + start, shard.vectors[start : start + self.block_rows], scales)
                recorded = shard.file.metadata.get("sha256")
                if recorded is not None and recorded != digest.result():
                    problems.add(
                        f"{shard.path.name}: the vectors do not have the sha256 recorded with them: damaged. "
                        "Fetch the file again."
                    )
        return problems.found + check.problems()


def rest_digest(file: SafeFile) -> str:
    """sha256 of every tensor but the vectors, in the order of their names: what decides documents, split and
    scale.
    """
    digest = hashlib.sha256()
    for name in sorted(set(file.tensors) - {"vectors"}):
        digest.update(np.ascontiguousarray(file.numpy(name)).data)
    return digest.hexdigest()
