"""What EMN reads before every target of a document, for 32 targets in one go; see `training.ramn.documents`
for segments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from mlx_lvm.core.arrays import blocks, in_blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.models.emn_geometry import CENTRE, TOKENS, kernels
from mlx_lvm.training.ramn.documents import (
    MAX_CONTEXT,
    ROWS,
    TARGETS,
    Segments,
    centred_rows,
    segments,
    take_segments,
    take_targets,
)

BLOCK = 8  # segments read together
ROWS_BLOCK = 8192  # chunks that are moved together


@dataclass(frozen=True, eq=False)
class Reading:
    """Documents made ready: their segments, every chunk less the mean [rows, dim], the mean [dim], and what
    an expert that was fitted without the chunk's document says of it, less the mean [rows, dim]; zeros where
    there is no expert.

    means [documents, dim], owner [rows]: what the chunks of each document are less instead, and the document
    of each row, where every document has a mean of its own; see `apart`.
    """

    parts: Segments
    centred: mx.array
    mean: mx.array
    expert: mx.array
    means: mx.array | None = None
    owner: mx.array | None = None

    @property
    def arrays(self) -> dict[str, mx.array]:
        arrays = {"centred": self.centred, "mean": self.mean, "expert": self.expert}
        if self.means is not None and self.owner is not None:
            arrays |= {"means": self.means, "owner": self.owner}
        return arrays


def reading(corpus: Corpus, documents: np.ndarray, context: int, mean: np.ndarray) -> Reading:
    """The documents with no expert yet. Raises InvalidFile where none has `context` + 1 chunks."""
    parts = segments(corpus, documents, context)
    return Reading(parts, centred_rows(parts, mean), mx.array(mean), mx.zeros((1, corpus.dim)))


def apart(read: Reading) -> Reading:
    """The same documents, each less the mean of the others' targets, as a document that comes later will be
    less the mean of these.

    A mean that holds the document lies nearer to it than to one that it has not seen: by a fifth of the way
    of five documents. Filters and extents fitted there stay too near to the mean. Of a single document it is
    the mean of all.
    """
    parts = read.parts
    first = np.flatnonzero(np.diff(parts.corpus.document_of(parts.rows), prepend=-1))
    lengths = np.diff(first, append=len(parts.rows))
    owner = np.repeat(np.arange(len(first)), lengths)
    place = np.arange(len(owner)) - first[owner]
    total = np.zeros((len(lengths), len(read.mean)))
    for block in blocks(len(owner), ROWS_BLOCK):
        targets = np.array(read.centred[block]) * (place[block] >= parts.context)[:, None]
        begins = np.flatnonzero(np.diff(owner[block], prepend=-1))
        total[owner[block][begins]] += np.add.reduceat(targets, begins, dtype=np.float64)
    counts = np.maximum(lengths - parts.context, 0)
    others = counts.sum() - counts
    # All targets less the mean of all sum to zero.
    shift = np.where(others[:, None] > 0, total / np.maximum(others, 1)[:, None], 0).astype(np.float32)
    moved, own = mx.array(shift), mx.array(owner.astype(np.int32))
    centred = in_blocks(
        len(owner), ROWS_BLOCK, lambda block: read.centred[block] + mx.take(moved, own[block], axis=0)
    )
    return replace(read, centred=centred, means=read.mean - moved, owner=own)


@dataclass(frozen=True)
class Batch:
    """Of segments [batch, 32 targets]: the 20 rows read before each target [..., 20, dim], the mean [..., 1,
    dim], the expert's row [..., 1, dim], how many of the last 16 chunks and of all there are [...], the
    target less the mean [..., dim], whether it is there [...]; z [batch, 132, dim], present [batch, 132] and
    number [batch, 132] of the chunks themselves.
    """

    read: mx.array
    mean: mx.array
    expert: mx.array
    tokens: mx.array
    count: mx.array
    truth: mx.array
    valid: mx.array
    z: mx.array
    present: mx.array
    number: mx.array

    @property
    def rows(self) -> mx.array:
        """[batch, 32, 22, dim]."""
        return mx.concatenate([self.read, self.mean, self.expert], axis=-2)


def take_batch(arrays: dict[str, mx.array], table: mx.array) -> Batch:
    """arrays as `Reading.arrays`; table [batch, 3] as `Segments.table` gives it."""
    batch = take_segments(arrays["centred"], table)
    weights = mx.array(_causal())
    there = mx.unflatten(batch.present @ weights.T, 1, (-1, TARGETS))
    read = mx.unflatten(weights @ batch.z, 1, (-1, TARGETS)) / mx.maximum(there, 1e-6)[..., None]
    there = there.swapaxes(1, 2)
    mean = arrays["mean"]
    if "means" in arrays:
        mean = mx.take(arrays["means"], mx.take(arrays["owner"], table[:, 0]), axis=0)[:, None, None]
    mean = mx.broadcast_to(mean, (*there.shape[:2], 1, mean.shape[-1]))
    if arrays["expert"].shape[0] > 1:
        expert, _ = take_targets(arrays["expert"], table)
    else:
        expert = mx.zeros_like(batch.truth)
    return Batch(
        read.swapaxes(1, 2),
        mean,
        expert[..., None, :],
        there[..., :TOKENS].sum(axis=-1),
        there[..., CENTRE],
        batch.truth,
        batch.valid,
        batch.z,
        batch.present,
        batch.rows,
    )


def document_of(read: Reading) -> np.ndarray:
    """The document of every window, in the order of `Segments.blocks`."""
    parts = read.parts
    return np.repeat(parts.corpus.document_of(parts.rows[parts.starts]), parts.counts)


@cache
def _causal() -> np.ndarray:
    """The kernels as seen from each of 32 targets, [20 * 32, 132]: zero for the target itself and what
    follows.
    """
    own = kernels()
    out = np.zeros((len(own), TARGETS, ROWS), np.float32)
    for place in range(TARGETS):
        out[:, place, place : place + MAX_CONTEXT] = own[:, ::-1]
    return out.reshape(-1, ROWS)
