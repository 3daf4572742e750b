"""A corpus: the chunk embeddings of documents, in reading order, in one safetensors file or a folder of
shards.

    vectors           [N, dim]  F32, F16, BF16, or I8 (then vector = i8 * scale)
    scales            [N]       F32, with I8 only
    document_offsets  [D + 1]   I64; document d is rows offsets[d]:offsets[d + 1]
    document_names    [bytes]   U8, a JSON list of D names
    document_split    [D]       U8, optional: 0, 1, 2 for train, val, test, the corpus's own split
    probes            [16, dim] F32, optional: the encoder's vectors of the probe sentences

Metadata: format, encoder card, chunking rule, source, licence, sha256 of the vectors and of the rest. Chunk
texts lie next to it in `<name>.chunks.jsonl` or `.jsonl.gz` (document, chunk, text).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.card import EncoderCard
from mlx_lvm.data.memory import bound_cache, largest_array, machine_memory
from mlx_lvm.data.names import find_name
from mlx_lvm.data.storage.mapped import MappedCorpus, Shard
from mlx_lvm.data.storage.reader import check_documents, find_corpus, open_corpus
from mlx_lvm.data.storage.rows import RowCheck, quantise
from mlx_lvm.data.storage.stream import to_device
from mlx_lvm.data.storage.texts import read_texts, texts_file
from mlx_lvm.data.storage.writer import CorpusWriter
from mlx_lvm.errors import InvalidFile, Problems, SetupInvalid

__all__ = [
    "Corpus",
    "all_texts",
    "find_corpus",
    "gather",
    "load_corpus",
    "on_device",
    "quantise",
    "require_memory",
    "to_memory",
    "write_corpus",
]


@dataclass(frozen=True)
class Corpus:
    """Vectors of documents on the device, in the dtype they are stored in.

    vectors [N, dim], scales [N] or None, offsets [D + 1] int64, names: D document names.
    """

    name: str
    vectors: mx.array
    scales: mx.array | None
    offsets: np.ndarray
    names: tuple[str, ...]
    card: EncoderCard
    provenance: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    path: Path | None = None
    # [D] 0, 1, 2 for train, val, test, where the corpus brings its own split
    assigned: np.ndarray | None = None
    sampled: str = ""  # what this is a part of, in words, where the whole did not fit in memory

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    @property
    def lengths(self) -> np.ndarray:
        """Chunks of each document, [D]."""
        return np.diff(self.offsets)

    def take(self, rows: mx.array | np.ndarray) -> mx.array:
        """Rows of any shape [...] as float32 vectors [..., dim]; with an MLX array, inside a compiled
        function too.
        """
        if isinstance(rows, np.ndarray):
            rows = mx.array(rows.astype(np.int32))
        return gather(self.vectors, self.scales, rows)

    def numpy(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Float32 vectors of the rows, on the host."""
        index = mx.array(np.arange(len(self), dtype=np.int32)[rows])
        return np.array(self.take(index))

    def document_of(self, rows: np.ndarray) -> np.ndarray:
        """Index of the document that each row belongs to."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def document(self, name: str) -> int:
        """Raises UsageError naming the nearest document where there is none of that name."""
        return find_name(name, self.names, f"corpus {self.name}")

    @cached_property
    def texts(self) -> list[str] | None:
        """The text of every chunk where the corpus has them next to it, else None."""
        return None if self.path is None else all_texts(open_corpus(self.path))


def gather(vectors: mx.array, scales: mx.array | None, rows: mx.array) -> mx.array:
    """Float32 vectors of `rows`; I8 is scaled after the gather, so that what lies in memory stays small."""
    taken = mx.take(vectors, rows, axis=0).astype(mx.float32)
    return taken if scales is None else taken * mx.take(scales, rows)[..., None]


def write_corpus(
    path: str | Path,
    vectors: np.ndarray,
    offsets: np.ndarray,
    names: list[str],
    card: EncoderCard,
    provenance: dict[str, str],
    dtype: str = "I8",
) -> None:
    """Write a corpus from float vectors [N, dim]. Validates first: raises InvalidFile and leaves nothing
    behind.

    For vectors that are not all in memory see `writer.CorpusWriter`.
    """
    vectors, offsets = np.asarray(vectors), np.asarray(offsets, dtype=np.int64)
    problems = Problems(f"corpus {path}")
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise InvalidFile(f"corpus {path}: vectors {list(vectors.shape)}; expected [N, dim], not empty")
    if card.dim != vectors.shape[1]:
        problems.add(f"vectors of {vectors.shape[1]} dimensions under an encoder card that says {card.dim}")
    rows = RowCheck()
    rows.add(0, np.asarray(vectors, dtype=np.float32), None)
    problems.found += rows.problems()
    check_documents(offsets, names, len(vectors), problems)
    problems.raise_if_any(InvalidFile)
    with CorpusWriter(path, offsets, names, card, provenance, dtype, overwrite=True) as writer:
        writer.put(0, vectors)
        writer.finish()


def load_corpus(reference: str | Path) -> Corpus:
    """A shipped corpus by name, or a file or folder by path, checked and put on the device in the dtype it is
    stored in.

    Raises InvalidFile with every problem found, UsageError for no such name, SetupInvalid where it does not
    fit in memory.
    """
    bound_cache()
    return to_memory(open_corpus(find_corpus(reference)))


def to_memory(mapped: MappedCorpus) -> Corpus:
    """All of an open corpus, its rows and checksums checked. Raises as `load_corpus`."""
    require_memory(mapped)
    problems = Problems(f"corpus {mapped.path}")
    problems.found += mapped.verify()
    problems.raise_if_any(InvalidFile)
    return on_device(mapped)


def on_device(mapped: MappedCorpus) -> Corpus:
    """All of a corpus as arrays, rows of unit length. Nothing is checked: see `load_corpus`."""
    parts = [_shard_on_device(mapped, shard) for shard in mapped.shards]
    vectors = [part for part, _ in parts]
    scales = [part for _, part in parts if part is not None]
    return Corpus(
        name=mapped.name,
        vectors=vectors[0] if len(vectors) == 1 else mx.concatenate(vectors),
        scales=None if not scales else scales[0] if len(scales) == 1 else mx.concatenate(scales),
        offsets=mapped.offsets,
        names=mapped.names,
        card=mapped.card,
        provenance=mapped.provenance,
        sha256=mapped.sha256,
        path=mapped.path,
        assigned=mapped.assigned,
    )


def _shard_on_device(mapped: MappedCorpus, shard: Shard) -> tuple[mx.array, mx.array | None]:
    """(vectors, scales): as they lie in the file, copied on the host first only where rows are not of unit
    length.
    """
    vectors, scales = shard.vectors, shard.scales
    for start in range(0, shard.rows, mapped.block_rows):
        block = slice(start, start + mapped.block_rows)
        held = shard.vectors[block], None if shard.scales is None else shard.scales[block]
        unit = mapped.unit(*held)
        if unit[0] is not held[0]:
            vectors = np.array(vectors) if vectors is shard.vectors else vectors
            vectors[block] = unit[0]
        if scales is not None and unit[1] is not held[1]:
            scales = np.array(scales) if scales is shard.scales else scales
            scales[block] = unit[1]
    rows = shard.file.array("vectors") if vectors is shard.vectors else to_device(vectors, None).vectors
    return rows, None if scales is None else mx.array(np.require(scales, requirements=["C", "A"]))


def require_memory(mapped: MappedCorpus) -> None:
    """Raises SetupInvalid where the vectors, as stored, are larger than the machine's memory or than one
    array of its device.
    """
    memory = machine_memory()
    if mapped.nbytes > memory:
        raise SetupInvalid(
            f"corpus {mapped.path}: {mapped.nbytes / 2**30:.1f} GiB of vectors do not fit in "
            f"{memory / 2**30:.1f} GiB of memory. Take a part with `lvm data subset`, or store it smaller "
            "with `lvm data subset --dtype i8`."
        )
    if mapped.nbytes > largest_array():
        raise SetupInvalid(
            f"corpus {mapped.path}: {mapped.nbytes / 2**30:.1f} GiB of vectors are more than this device "
            f"holds in one array, {largest_array() / 2**30:.1f} GiB. Train on it in blocks with --memory "
            f"{largest_array() >> 20}M, take a part with `lvm data subset`, or store it smaller with `lvm "
            "data subset --dtype i8`."
        )


def all_texts(mapped: MappedCorpus) -> list[str] | None:
    """The text of every chunk, in row order; None where a shard has none. Raises InvalidFile where they do
    not fit the corpus.
    """
    out: list[str] = []
    for shard in mapped.shards:
        path = texts_file(shard.path)
        if path is None:
            return None
        out += read_texts(path, shard.names, np.diff(shard.offsets))
    return out
