"""A part of a corpus too large for memory: some documents of each split, on the device, to judge models on.

Documents are drawn by a fixed seed, so every run on the corpus takes the same ones. A document longer than
what is taken in all gives its beginning. Who reports figures from such a part says so: `Corpus.sampled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlx_lvm.data.corpus import Corpus, to_memory
from mlx_lvm.data.memory import bound_cache, largest_array, roomy
from mlx_lvm.data.splits import SPLITS, Split, split_corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.data.storage.reader import find_corpus, open_corpus
from mlx_lvm.data.storage.stream import RowReader, to_device
from mlx_lvm.data.windows import no_window

WINDOWS = {"train": 20_000, "val": 5_000, "test": 5_000}  # at most: what an evaluation takes grows with them
SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}  # of the memory that a sample may take
SAMPLE = 4  # a sample takes this part of the memory that a corpus may
SEED = 0


@dataclass(frozen=True)
class Sampled:
    """Documents taken from a corpus, under their own names."""

    corpus: Corpus
    taken: dict[str, np.ndarray]  # their indices in the whole, by part
    whole: Split


def load_or_sample(
    reference: str | Path, context: int = 5, seed: int = 0, memory: int | None = None
) -> Corpus:
    """As `load_corpus`, or `sample_documents` where a corpus is larger than `memory` (half the machine's)."""
    bound_cache(memory)
    mapped = open_corpus(find_corpus(reference))
    allowed = roomy() if memory is None else min(memory, largest_array())
    if mapped.nbytes <= allowed:
        return to_memory(mapped)
    return sample_documents(mapped, context, seed, allowed // SAMPLE).corpus


def sample_documents(
    corpus: MappedCorpus, context: int, seed: int, memory: int, parts: tuple[str, ...] = SPLITS
) -> Sampled:
    """Documents of the named parts, at most WINDOWS of each and `memory` bytes in all, read and checked.

    `seed` is the split's. Raises InvalidFile for a part without windows or an unfit row, IOFailed where
    reading fails.
    """
    split, row_bytes = split_corpus(corpus, seed), max(1, corpus.nbytes // len(corpus))
    taken, lengths = {}, {}
    for name in parts:
        most = max(1, min(WINDOWS[name], int(SHARES[name] * memory) // row_bytes))
        taken[name], lengths[name] = _draw(corpus, split.part(name), context, most, name)
    documents = np.concatenate(list(taken.values()))
    order = np.argsort(documents)
    documents, counts = documents[order], np.concatenate(list(lengths.values()))[order]
    starts, offsets = corpus.offsets[:-1][documents], np.concatenate([[0], np.cumsum(counts)])
    reader = RowReader(corpus)
    vectors, scales = reader.buffers(int(offsets[-1]))
    reader.fill(starts, starts + counts, offsets[:-1], vectors, scales)
    rows = to_device(vectors, scales)
    told = [f"{len(taken[name]):,} of {len(split.part(name)):,} {name} documents" for name in parts]
    made = Corpus(
        name=corpus.name,
        vectors=rows.vectors,
        scales=rows.scales,
        offsets=offsets,
        names=tuple(corpus.names[d] for d in documents),
        card=corpus.card,
        provenance=corpus.provenance,
        sha256=corpus.sha256,
        assigned=None if corpus.assigned is None else corpus.assigned[documents],
        sampled=f"{', '.join(told)} ({len(vectors):,} vectors)",
    )
    return Sampled(made, taken, split)


def _draw(
    corpus: MappedCorpus, documents: np.ndarray, context: int, most: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """(documents in ascending order, rows to take of each): drawn until they have `most` windows."""
    long = documents[corpus.lengths[documents] > context]
    if not len(long):
        raise no_window(corpus, name, context, documents)
    drawn = np.random.Generator(np.random.PCG64(SEED)).permutation(long)
    ends = np.cumsum(corpus.lengths[drawn] - context)
    kept = np.sort(drawn[: max(1, int(np.searchsorted(ends, most, side="right")))])
    return kept, np.minimum(corpus.lengths[kept], most + context)
