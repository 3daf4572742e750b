"""Windows as indices: a window reads rows target-context .. target-1 of a document and predicts target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mlx_lvm.core.arrays import blocks, ranges
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.errors import InvalidFile


@dataclass(frozen=True)
class Windows:
    """Windows of some documents. targets [n] int32 rows, starts [n] their documents' first, documents [n]."""

    corpus: Corpus
    context: int
    targets: np.ndarray
    starts: np.ndarray
    documents: np.ndarray
    skipped: int  # documents too short for one window

    def __len__(self) -> int:
        return len(self.targets)

    def rows(self, targets: mx.array) -> mx.array:
        """Rows [..., context] of the context of each target, oldest first."""
        return context_rows(targets, self.context)

    def contexts(self, index: slice | np.ndarray = slice(None)) -> mx.array:
        """Contexts [n, context, dim] of the chosen windows, float32."""
        return self.corpus.take(self.rows(mx.array(self.targets[index])))

    def truth(self, index: slice | np.ndarray = slice(None)) -> mx.array:
        """Targets [n, dim] of the chosen windows, float32."""
        return self.corpus.take(self.targets[index])

    def select(self, index: slice | np.ndarray) -> Windows:
        """The chosen windows alone: a slice, indices, or a mask [n]."""
        return replace(
            self, targets=self.targets[index], starts=self.starts[index], documents=self.documents[index]
        )

    def with_chunks_after(self, count: int) -> Windows:
        """The windows whose document has `count` chunks from the target on."""
        return self.select(self.targets + count <= self.corpus.offsets[1:][self.documents])

    def blocks(self, size: int = 1024) -> Iterator[slice]:
        """All windows, in slices of at most `size`."""
        return blocks(len(self), size)


def context_rows(targets: mx.array, context: int) -> mx.array:
    return targets[..., None] + mx.arange(-context, 0, dtype=targets.dtype)


def windows(corpus: Corpus, documents: np.ndarray, context: int, what: str = "") -> Windows:
    """Raises InvalidFile where no document is long enough."""
    documents = np.asarray(documents, dtype=np.int64)
    starts, counts = corpus.offsets[:-1][documents], np.maximum(corpus.lengths[documents] - context, 0)
    if counts.sum() == 0:
        raise no_window(corpus, what, context, documents)
    which = np.repeat(np.arange(len(documents)), counts)
    return Windows(
        corpus,
        context,
        targets=ranges(starts + context, counts).astype(np.int32),
        starts=starts[which].astype(np.int32),
        documents=documents[which],
        skipped=int((counts == 0).sum()),
    )


def no_window(corpus: Corpus | MappedCorpus, what: str, context: int, documents: np.ndarray) -> InvalidFile:
    """The error that none of the documents is long enough."""
    longest = int(corpus.lengths[documents].max(initial=0))
    return InvalidFile(
        f"corpus {corpus.name}{', ' + what if what else ''}: no window of {context} + 1 chunks in "
        f"{len(documents)} documents (the longest has {longest} chunks). Use a shorter --context, more "
        "documents or another --split-seed."
    )
