"""Relative positions in buckets, as T5 has them (Raffel et al. 2020, and the code of Mesh TensorFlow).

Half of the buckets are for keys behind the query. Of each half, the first half holds one distance each, and
the rest are spaced evenly in the distance's logarithm up to `furthest`, from where on all share the last.
"""

from __future__ import annotations

import math

import numpy as np

from mlx_lvm.core.activations import on_cpu
from mlx_lvm.core.mlx import mx


def buckets(length: int, count: int, furthest: int) -> np.ndarray:
    """The bucket of every query and key: int32 [length, length], row the query, column the key."""
    place = np.arange(length, dtype=np.int32)
    offset = place[None, :] - place[:, None]
    half = count // 2
    single = half // 2  # distances that have a bucket each
    distance = np.abs(offset)
    # float32 throughout, as torch computes it: a distance on the edge must fall to the same side
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / np.float32(single))
    share = ratio / np.float32(math.log(furthest / single))
    far = single + (share * np.float32(half - single)).astype(np.int32)
    return np.where(distance < single, distance, np.minimum(far, half - 1)) + np.where(offset > 0, half, 0)


def position_bias(table: mx.array, length: int, furthest: int, keys: mx.array) -> mx.array:
    """Added to scores, [batch, heads, length, length]: of a table [buckets, heads], and of `key_bias`."""
    rows = buckets(length, table.shape[0], furthest).astype(np.int32)
    if on_cpu():  # a key's in a row, as `kernels.attention` reads it
        here = mx.contiguous(table.T[:, mx.array(rows.T)])[None] + keys.swapaxes(-1, -2)
        return here.swapaxes(-1, -2)
    return mx.contiguous(table.T[:, mx.array(rows)])[None] + keys
