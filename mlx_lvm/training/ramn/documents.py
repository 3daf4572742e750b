"""Training on documents: all positions of a segment in one causal pass, no chunk gathered for each window.

A segment is up to 32 consecutive targets of one document with the (at most 100) chunks before each of them:
132 rows are gathered for 32 predictions. What lies before the document's first chunk is zero, and no chunk.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mlx_lvm.core.arrays import blocks, evenly_spaced, in_blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.data.windows import windows
from mlx_lvm.models.base import MAX_CONTEXT
from mlx_lvm.models.ramn import RECENT_KEPT
from mlx_lvm.models.ramn_filters import age_kernels

TARGETS = 32
ROWS = MAX_CONTEXT + TARGETS
BLOCK = 8192
QUERY_SPAN = 5  # chunks after the target that a query is drawn from


@dataclass(frozen=True)
class Segments:
    """Segments of some documents, whose chunks are laid end to end: targets [n] int32, the first target of
    each; starts [n] and ends [n] of its document; rows: the corpus row of each chunk.
    """

    corpus: Corpus
    context: int
    targets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    rows: np.ndarray
    windows: int
    skipped: int  # documents too short for one window

    def __len__(self) -> int:
        return len(self.targets)

    def blocks(self, size: int = 16) -> list[np.ndarray]:
        """Indices of the segments, `size` together."""
        return [np.arange(block.start, block.stop) for block in blocks(len(self), size)]

    def some(self, most: int) -> Segments:
        """So many of them, evenly spaced, or all."""
        keep = evenly_spaced(len(self), most)
        targets, starts, ends = self.targets[keep], self.starts[keep], self.ends[keep]
        found = replace(self, targets=targets, starts=starts, ends=ends)
        return replace(found, windows=int(found.counts.sum()))

    @property
    def counts(self) -> np.ndarray:
        """Targets of each segment."""
        return np.minimum(self.ends - self.targets, TARGETS)

    @cached_property
    def _place(self) -> dict[int, int]:
        return {int(row): number for number, row in enumerate(self.targets)}

    def table(self, targets: np.ndarray) -> np.ndarray:
        """[n, 3] int32: first target, first row and end of the document, of segments with these targets."""
        index = [self._place[int(row)] for row in targets]
        return np.stack([self.targets[index], self.starts[index], self.ends[index]], axis=1).astype(np.int32)

    def target_rows(self, targets: np.ndarray) -> np.ndarray:
        """The corpus row of every target of the segments with these first targets."""
        table = self.table(targets)
        return np.concatenate([self.rows[first : min(first + TARGETS, end)] for first, _, end in table])


def segments(corpus: Corpus, documents: np.ndarray, context: int) -> Segments:
    """Every position with `context` chunks before it is a target of one. Raises InvalidFile without any."""
    found = windows(corpus, documents, context, "training documents")
    lengths = corpus.lengths[documents]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    firsts = [np.arange(a + context, b, TARGETS) for a, b in zip(starts, ends, strict=True)]
    counts = [len(first) for first in firsts]
    rows = np.concatenate([np.arange(corpus.offsets[d], corpus.offsets[d + 1]) for d in documents])
    targets = np.concatenate(firsts).astype(np.int32)
    starts, ends = np.repeat(starts, counts), np.repeat(ends, counts)
    return Segments(corpus, context, targets, starts, ends, rows, len(found), found.skipped)


@dataclass(frozen=True)
class Batch:
    """Segments on the device: z [batch, 132, dim] zero where there is no chunk, present [batch, 132], valid
    [batch, 32] (whether a target is there), rows [batch, 132], table as `Segments.table` gives it.
    """

    z: mx.array
    present: mx.array
    valid: mx.array
    rows: mx.array
    table: mx.array

    @property
    def truth(self) -> mx.array:
        """The targets, [batch, 32, dim]."""
        return self.z[:, MAX_CONTEXT:]


def take_segments(centred: mx.array, table: mx.array) -> Batch:
    """centred [n, dim]: every chunk less the mean. table [batch, 3] as `Segments.table` gives it."""
    rows = table[:, :1] + mx.arange(-MAX_CONTEXT, TARGETS)
    inside = (rows >= table[:, 1:2]) & (rows < table[:, 2:])
    present = inside.astype(mx.float32)
    z = mx.take(centred, mx.maximum(mx.minimum(rows, centred.shape[0] - 1), 0), axis=0) * present[..., None]
    return Batch(z, present, inside[:, MAX_CONTEXT:], rows, table)


def take_targets(rows: mx.array, table: mx.array, ahead: int = 0) -> tuple[mx.array, mx.array]:
    """(chunks `ahead` after each target [batch, 32, dim], zero where none is; whether one is [batch, 32]).

    rows [n, dim]: of every chunk. table as `Segments.table` gives it.
    """
    index = table[:, :1] + ahead + mx.arange(TARGETS)
    there = index < table[:, 2:]
    return mx.take(rows, mx.minimum(index, rows.shape[0] - 1), axis=0) * there[..., None], there


def take_queries(rows: mx.array, table: mx.array, draws: mx.array) -> tuple[mx.array, mx.array]:
    """(the query or zero [batch, 32, dim]; its place after the target, 1 to 5, or 0 for none [batch, 32]).

    It is one of the 5 chunks after the target, or of those there are; draws [batch, 32] in [0, 1) say which.
    """
    targets = table[:, :1] + mx.arange(TARGETS)
    left = mx.minimum(table[:, 2:] - 1 - targets, QUERY_SPAN)
    place = mx.where(left > 0, 1 + (draws * mx.maximum(left, 1)).astype(mx.int32), 0)
    query = mx.take(rows, mx.minimum(targets + place, rows.shape[0] - 1), axis=0)
    return query * (place > 0)[..., None], place


def causal_kernels() -> mx.array:
    """The age kernels as seen from each target, [mixtures * 32, 132]: zero for itself and what follows."""
    kernels = age_kernels()
    out = np.zeros((len(kernels), TARGETS, ROWS), np.float32)
    for place in range(TARGETS):
        out[:, place, place : place + MAX_CONTEXT] = kernels[:, ::-1]
    return mx.array(out.reshape(-1, ROWS))


def mixtures_of(batch: Batch, kernels: mx.array) -> mx.array:
    """The mixtures before every target, [batch, 32, mixtures, dim]; in the basis where z is."""
    total = mx.maximum(batch.present @ kernels.T, 1e-6)
    out = (kernels @ batch.z) / total[..., None]
    return mx.unflatten(out, 1, (-1, TARGETS)).swapaxes(1, 2)


def counts_of(batch: Batch) -> mx.array:
    """Chunks read before every target, at most 100, [batch, 32]."""
    before = mx.arange(MAX_CONTEXT)[None, :] + mx.arange(TARGETS)[:, None]
    return mx.take(batch.present, before, axis=1).sum(axis=-1)


def old_mask() -> mx.array:
    """[32, 132]: 1 for what is read more than 5 and at most 100 chunks before each target."""
    age = MAX_CONTEXT + np.arange(TARGETS)[:, None] - np.arange(ROWS)
    return mx.array(((age > RECENT_KEPT) & (age <= MAX_CONTEXT)).astype(np.float32))


def centred_rows(segments: Segments, mean: np.ndarray, basis: mx.array | None = None) -> mx.array:
    """Every chunk of the documents less the mean, in the basis [directions, dim] if any: [n, dim] float32."""

    def centred(block: slice) -> mx.array:
        x = segments.corpus.take(segments.rows[block]) - mx.array(mean)
        return x if basis is None else x @ basis.T

    return in_blocks(len(segments.rows), BLOCK, centred)
