"""A corpus: the chunk embeddings of documents, in reading order, in a safetensors file or a folder of shards.

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
from mlx_lvm.data.names import normal
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.data.storage.stream import to_device
from mlx_lvm.errors import InvalidFile, Problems, SetupInvalid, UsageError, nearest


@dataclass(frozen=True)
class Corpus:
    """Vectors of documents on the device, in the dtype they are stored in."""

    name: str
    vectors: mx.array  # [N, dim]
    scales: mx.array | None  # [N], with I8
    offsets: np.ndarray  # [D + 1] int64
    names: tuple[str, ...]  # of the D documents
    card: EncoderCard
    provenance: dict[str, str] = field(default_factory=dict)
    sha256: str = ""
    path: Path | None = None
    assigned: np.ndarray | None = None  # [D] 0, 1, 2 for train, val, test: the corpus's own split
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
        """Rows [...] as float32 vectors [..., dim]; with an MLX array inside a compiled function too."""
        if isinstance(rows, np.ndarray):
            rows = mx.array(rows.astype(np.int32))
        return gather(self.vectors, self.scales, rows)

    def numpy(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Float32 vectors of the rows, on the host."""
        return np.array(self.take(np.arange(len(self))[rows]))

    def document_of(self, rows: np.ndarray) -> np.ndarray:
        """Index of the document that each row belongs to."""
        return np.searchsorted(self.offsets, rows, side="right") - 1

    def document(self, name: str) -> int:
        """The number of the one of that name, in any normal form. Raises UsageError naming the nearest."""
        name = normal(name)
        if name not in self.names:
            known = nearest(name, list(self.names))[:500]
            raise UsageError(f"corpus {self.name}: no document '{name}'.{known}")
        return self.names.index(name)

    @cached_property
    def texts(self) -> list[str] | None:
        """The text of every chunk where the corpus has them next to it, else None."""
        found = None if self.path is None else open_corpus(self.path).texts()
        return None if found is None else list(found)


def gather(vectors: mx.array, scales: mx.array | None, rows: mx.array) -> mx.array:
    """Float32 vectors of `rows`; I8 is scaled after the gather, so that what lies in memory stays small."""
    taken = mx.take(vectors, rows, axis=0).astype(mx.float32)
    return taken if scales is None else taken * mx.take(scales, rows)[..., None]


def load_corpus(reference: str | Path) -> Corpus:
    """A shipped corpus by name, or a file or folder by path, checked and put on the device as it is stored.

    Raises InvalidFile with every problem, UsageError for an unknown name, SetupInvalid where it does not fit.
    """
    bound_cache()
    return to_memory(open_corpus(find_corpus(reference)))


def to_memory(mapped: MappedCorpus) -> Corpus:
    """All of an open corpus, its rows and checksums checked. Raises as `load_corpus`."""
    require_memory(mapped)
    Problems(f"corpus {mapped.path}", mapped.verify()).raise_if_any(InvalidFile)
    return on_device(mapped)


def on_device(mapped: MappedCorpus) -> Corpus:
    """All of a corpus as arrays, rows of unit length. Nothing is checked: see `load_corpus`."""
    parts = [to_device(*mapped.unit(shard.stored)) for shard in mapped.shards]
    scales = [part.scales for part in parts if part.scales is not None]
    return Corpus(
        name=mapped.name,
        vectors=mx.concatenate([part.vectors for part in parts]),
        scales=mx.concatenate(scales) if scales else None,
        offsets=mapped.offsets,
        names=mapped.names,
        card=mapped.card,
        provenance=mapped.provenance,
        sha256=mapped.sha256,
        path=mapped.path,
        assigned=mapped.assigned,
    )


def require_memory(mapped: MappedCorpus) -> None:
    """Raises SetupInvalid where the vectors are larger than memory, or than an array of the device may be."""
    memory, array = machine_memory(), largest_array()
    held = f"corpus {mapped.path}: {mapped.nbytes / 2**30:.1f} GiB of vectors"
    smaller = "a part with `lvm data subset`, or store it smaller with `lvm data subset --dtype i8`."
    if mapped.nbytes > memory:
        raise SetupInvalid(f"{held} do not fit in {memory / 2**30:.1f} GiB of memory. Take {smaller}")
    if mapped.nbytes > array:
        raise SetupInvalid(
            f"{held} are more than this device holds in one array, {array / 2**30:.1f} GiB. Train on it in "
            f"blocks with --memory {array >> 20}M, take {smaller}"
        )
