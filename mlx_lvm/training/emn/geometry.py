"""Windows as the inner products of their rows: all that head predict learns from, 2 KB each whatever the
width.

So one array holds windows of any encoders, an epoch over them takes a second, and batches mix documents
freely.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.emn_geometry import MEAN
from mlx_lvm.training.emn.reading import BLOCK, Reading, take_batch
from mlx_lvm.training.emn.statistics import Statistics, fold_of

MAX_WINDOWS = 200_000  # of all corpora, evenly spaced where there are more: 450 MB


@dataclass(frozen=True, eq=False)
class Geometry:
    """gram [n, 22, 22]: products of the rows; cross [n, 22]: of the rows with the target less the mean;
    square [n]: of that with itself; tokens, count [n]: chunks of the last 16 and of all; source [n]: which
    corpus; filters [sources, 22]: see `Statistics`.
    """

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    tokens: np.ndarray
    count: np.ndarray
    source: np.ndarray
    filters: np.ndarray

    def __len__(self) -> int:
        return len(self.square)

    @property
    def arrays(self) -> dict[str, mx.array]:
        """On the device, `filters` by the name `filter`."""
        names = ("gram", "cross", "square", "tokens", "count", "source")
        return {**{name: mx.array(getattr(self, name)) for name in names}, "filter": mx.array(self.filters)}

    @property
    def targets(self) -> np.ndarray:
        """Windows by number, as a batch names them."""
        return np.arange(len(self), dtype=np.int32)

    def table(self, targets: np.ndarray) -> np.ndarray:
        return targets

    def count_of(self, table: np.ndarray) -> int:
        return len(table)


def geometry_of(
    read: Reading, found: Statistics, limit: int = MAX_WINDOWS, left_out: bool = False
) -> Geometry:
    """Every window that was read, or `limit` of them, evenly spaced; `left_out`: each with the filter of the
    documents of other folds, its fold as source.
    """
    keep = np.zeros(read.parts.windows, bool)
    keep[np.linspace(0, len(keep) - 1, min(limit, len(keep))).round().astype(np.int64)] = True
    parts: list[tuple[np.ndarray, ...]] = []
    seen = 0
    for index in read.parts.blocks(BLOCK):
        batch = take_batch(read.arrays, mx.array(read.parts.table(read.parts.targets[index])))
        valid = np.array(batch.valid)
        chosen = valid.copy()
        chosen[valid] = keep[seen : seen + valid.sum()]
        seen += int(valid.sum())
        rows = batch.rows
        values = (
            rows @ rows.swapaxes(-1, -2),
            (rows @ batch.truth[..., None]).squeeze(-1),
            mx.square(batch.truth).sum(axis=-1),
            batch.tokens,
            batch.count,
        )
        parts.append(tuple(np.array(value)[chosen] for value in values))
    gram, cross, square, tokens, count = (np.concatenate(part) for part in zip(*parts, strict=True))
    source, filters = np.zeros(len(square), np.int32), found.filter[None]
    if left_out and found.left_out is not None:
        source, filters = (
            np.repeat(fold_of(read.parts), read.parts.counts)[keep].astype(np.int32),
            found.left_out,
        )
    # Cosines know no unit of length; that of the targets keeps every product near 1.
    unit = np.float32(1 / max(float((square + 2 * cross[:, MEAN] + gram[:, MEAN, MEAN]).mean()), 1e-30))
    return Geometry(
        gram * unit, cross * unit, square * unit, tokens, count, source, filters.astype(np.float32)
    )


def joined(parts: Sequence[Geometry]) -> Geometry:
    """Windows of several corpora as one material."""
    first = np.cumsum([0, *(len(part.filters) for part in parts)])
    names = ("gram", "cross", "square", "tokens", "count")
    values = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    source = np.concatenate([part.source + begin for part, begin in zip(parts, first[:-1], strict=True)])
    filters = np.concatenate([part.filters for part in parts])
    return Geometry(**values, source=source.astype(np.int32), filters=filters)
