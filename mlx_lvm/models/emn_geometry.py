"""EMN's rows, and the features that no rotation and no unit of length changes."""

from __future__ import annotations

from functools import cache

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.models.base import MAX_CONTEXT

TOKENS = 16  # last chunks with a weight of their own
DECAYS = (0.5, 0.8, 0.93)
CENTRE, MEAN, EXPERT = TOKENS + len(DECAYS), TOKENS + len(DECAYS) + 1, TOKENS + len(DECAYS) + 2
ROWS = EXPERT + 1
REFERENCES = (0, 1, 2, 3, *range(TOKENS, ROWS))  # rows that every row is compared with
PAIRED = (*range(8), *range(TOKENS, ROWS))  # rows whose every pair is a feature
TINY = 1e-6  # length, as a share of the largest number, below which a row is none
SMALLEST = 1e-30


@cache
def kernels() -> np.ndarray:
    """Weight of a chunk of age 1 .. 100 in the first 20 rows, float32 [20, 100], not yet made to sum to 1."""
    age = np.arange(1, MAX_CONTEXT + 1)
    rows = [age == token for token in range(1, TOKENS + 1)] + [decay ** (age - 1.0) for decay in DECAYS]
    return np.stack([*rows, np.ones(MAX_CONTEXT)]).astype(np.float32)


@cache
def pair_places() -> np.ndarray:
    """Places of the pairs of PAIRED rows in a flat [ROWS * ROWS] matrix."""
    places = [a * ROWS + b for k, a in enumerate(PAIRED) for b in PAIRED[k + 1 :]]
    return np.array(places, dtype=np.int32)


@cache
def every_places() -> np.ndarray:
    """The pairs' places, then those of the PAIRED rows' lengths that follow the matrix."""
    return np.concatenate([pair_places(), ROWS * ROWS + np.array(PAIRED, dtype=np.int32)])


def invariants(gram: mx.array, tokens: mx.array, count: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """(features of each row [..., 22, 12], of all together [..., 108], length of the chunks [..., 1]).

    gram [..., 22, 22]: inner products of the rows. tokens, count [...]: chunks of the last 16, and of all.
    """
    # Constants are arrays of their own: `mx.eye` would be made anew, in eight operations, at every call.
    square = mx.maximum((gram * mx.array(np.eye(ROWS, dtype=np.float32))).sum(axis=-1), TINY * TINY)
    size = mx.sqrt(square)
    cosine = gram / (size[..., :, None] * size[..., None, :])
    there = mx.maximum(tokens, 1)[..., None]
    scale = mx.sqrt(square[..., :TOKENS].sum(axis=-1, keepdims=True) / there)
    length = (size / (size + scale) - 0.5) * (square > TINY * TINY)
    heard = cosine[..., :TOKENS].sum(axis=-1) / there
    references = mx.take(cosine, mx.array(np.array(REFERENCES)), axis=-1)
    each = mx.concatenate([references, length[..., None], heard[..., None]], axis=-1)
    n = mx.maximum(count, 1)[..., None]
    chosen = mx.concatenate([mx.flatten(cosine, -2), length], axis=-1)
    pairs_and_lengths = mx.take(chosen, mx.array(every_places()), axis=-1)
    every = mx.concatenate([pairs_and_lengths, mx.log(n) / 4, mx.exp(n / mx.array([-6.0, -30.0]))], axis=-1)
    return each, every, scale


def widened(x: mx.array) -> mx.array:
    """Half precision as float32, where sums of many chunks and squares have room; anything else as it is."""
    return x.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else x


def products_of(rows: mx.array) -> tuple[mx.array, mx.array]:
    """(inner products [..., 22, 22] of rows [..., 22, dim] over their largest number, the rows so divided).

    No square overflows or vanishes so, whatever unit the chunks are in.
    """
    largest = mx.stop_gradient(mx.maximum(mx.abs(rows).max(axis=(-2, -1), keepdims=True), SMALLEST))
    relative = rows / largest
    return relative @ relative.swapaxes(-1, -2), relative
