"""Cosines of a prediction with the chunks around its target, which tell what it leans on."""

from __future__ import annotations

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.metrics.figures import cosines

OFFSETS = tuple(range(-5, 5))  # chunks after the target; -1 is the last of the context
TARGET, LAST = OFFSETS.index(0), OFFSETS.index(-1)
BLOCK = 1024  # windows together; bounds memory


def offset_cosines(predicted: mx.array, windows: Windows) -> np.ndarray:
    """cos(p_t, x_{t+o}) [n, 10], NaN where the document has no chunk there; `predicted` [n, dim] raw or
    unit.
    """
    ends = windows.corpus.offsets[1:][windows.documents]
    parts = []
    for block in windows.blocks(BLOCK):
        rows = windows.targets[block][:, None] + np.array(OFFSETS)
        there = (rows >= windows.starts[block][:, None]) & (rows < ends[block][:, None])
        near = windows.corpus.take(np.clip(rows, 0, len(windows.corpus) - 1))
        found = np.array(cosines(predicted[block][:, None], near), dtype=np.float64)
        parts.append(np.where(there, found, np.nan))
    return np.concatenate(parts)
