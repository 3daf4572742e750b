"""Exact and near duplicates among the rows of a corpus, found exactly, or through faiss where that would take
too long.

Near means cosine above a threshold. Rows are split into K principal coordinates p and the length r of the
rest, so that

    cos(a, b) = p_a . p_b + (rest of a) . (rest of b) <= p_a . p_b + r_a r_b

and pairs below the threshold by this bound need no product over all dimensions: K + 1 of them instead. What
passes is computed in full. Products run on the device in blocks, so memory is bounded whatever the number of
rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.quality.likely import likely_pairs
from mlx_lvm.data.storage.mapped import MappedCorpus

NEAR = 0.97  # cosine above which two chunks count as one
COORDINATES = 64
BLOCK = 4096  # rows of a block of products
SAMPLE = 4096  # rows that the principal directions are taken from
MANY = 100_000  # likely pairs of a block above which all its products are cheaper
KEPT = 100_000  # pairs returned; all are counted
SLACK = 1e-3  # what float32 (and TF32 in the device's products) may take from the bound


@dataclass(frozen=True)
class Pairs:
    """rows [n, 2] with the earlier row first, cosines [n], and the number of all pairs where there are more
    than are kept.
    """

    rows: np.ndarray
    cosines: np.ndarray
    total: int


def row_digests(rows: np.ndarray) -> np.ndarray:
    """A 64-bit digest of each row's bytes, [n] uint64: equal rows have equal digests."""
    rows = np.ascontiguousarray(rows)
    width = rows.nbytes // max(1, len(rows))
    raw = rows.reshape(-1).data.cast("B") if rows.size else memoryview(b"")
    digests = b"".join(
        hashlib.blake2b(raw[k : k + width], digest_size=8).digest() for k in range(0, len(raw), width or 1)
    )
    return np.frombuffer(digests, np.uint64)


def exact_groups(corpus: MappedCorpus) -> list[np.ndarray]:
    """Rows of one and the same stored vector, in groups of two and more."""
    parts = []
    for start in range(0, len(corpus), corpus.block_rows):
        parts += [
            row_digests(vectors)
            for vectors, _ in corpus.pieces(start, min(start + corpus.block_rows, len(corpus)))
        ]
    digests = np.concatenate(parts)
    order = np.argsort(digests, kind="stable")
    edges = np.flatnonzero(np.diff(digests[order]) != 0) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(order)]])
    return (
        [order[a:b] for a, b in zip(starts, ends, strict=True) if b - a > 1]
        if len(starts) < len(order)
        else []
    )


def near_pairs(corpus: MappedCorpus, threshold: float = NEAR, approximate: bool = False) -> Pairs:
    """Every pair of rows with a cosine above `threshold`: n^2 (K + 1) flops for n rows, all dimensions for
    few.

    `approximate` has faiss propose the pairs, which misses a few: see `approximate.py`. Raises SetupInvalid
    without it.
    """
    short = _shortened(corpus, principal_axes(corpus))
    rows, cosines, total, kept = [], [], 0, 0
    for a, b, found in (_proposed if approximate else _searched)(corpus, short, threshold):
        total += len(a)
        if len(a) and kept < KEPT:
            rows.append(np.stack([a, b], axis=1)[: KEPT - kept])
            cosines.append(found[: KEPT - kept])
            kept += len(cosines[-1])
    if not rows:
        return Pairs(np.zeros((0, 2), np.int64), np.zeros(0, np.float32), 0)
    return Pairs(np.concatenate(rows), np.concatenate(cosines), total)


Found = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]  # rows a < b and their cosines, some at a time


def _searched(corpus: MappedCorpus, short: np.ndarray, threshold: float) -> Found:
    for i in range(0, len(corpus), BLOCK):
        left = mx.array(short[i : i + BLOCK])
        for j in range(i, len(corpus), BLOCK):
            bound = np.array(left @ mx.array(short[j : j + BLOCK]).T, copy=False)
            if bound.max() > threshold - SLACK:  # looked at on the host: MLX reduces slowly on CPU
                yield _near(corpus, i, j, bound > threshold - SLACK, threshold)


def _proposed(corpus: MappedCorpus, short: np.ndarray, threshold: float) -> Found:
    for a, b in likely_pairs(short, threshold - SLACK):
        cosines = _cosines(corpus, a, b)
        near = cosines > threshold
        yield a[near], b[near], cosines[near]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]


def sample_rows(corpus: MappedCorpus, count: int = SAMPLE) -> np.ndarray:
    """Unit vectors of rows spread evenly through the corpus."""
    step = max(1, -(-len(corpus) // count))
    return unit(corpus.take(np.arange(0, len(corpus), step)))


def principal_axes(corpus: MappedCorpus) -> np.ndarray:
    """Orthonormal directions [dim, K] that hold most of the rows' length (around zero, not around the mean).

    By subspace iteration: any orthonormal K are right for the bound, these make it tight.
    """
    rows = mx.array(sample_rows(corpus))
    gram = np.array(rows.T @ rows)
    axes = (
        np.random.default_rng(0)
        .standard_normal((corpus.dim, min(COORDINATES, corpus.dim)))
        .astype(np.float32)
    )
    for _ in range(4):
        axes, _ = np.linalg.qr(gram @ axes)
    return axes


def _shortened(corpus: MappedCorpus, axes: np.ndarray) -> np.ndarray:
    """(p, r) of every row, [n, K + 1]."""
    out = np.empty((len(corpus), axes.shape[1] + 1), np.float32)
    for start, block in corpus.blocks():
        rows = unit(block)
        p = rows @ axes
        out[start : start + len(p), :-1] = p
        out[start : start + len(p), -1] = np.sqrt(np.maximum(0, 1 - np.einsum("ij,ij->i", p, p)))
    return out


def _near(
    corpus: MappedCorpus, i: int, j: int, likely: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows a < b of a block that are near, and their cosines; where many are likely, from one product of
    all.
    """
    if np.count_nonzero(likely) > MANY:
        rows, columns = (mx.array(unit(corpus.read(k, min(k + BLOCK, len(corpus))))) for k in (i, j))
        products = np.array(rows @ columns.T, copy=False)
        a, b = np.nonzero(products > threshold)
        cosines = products[a, b]
    else:
        a, b = np.nonzero(likely)
        cosines = _cosines(corpus, a + i, b + j)
    near = (cosines > threshold) & (b + j > a + i)
    return a[near] + i, b[near] + j, cosines[near]


def _cosines(corpus: MappedCorpus, a: np.ndarray, b: np.ndarray, block: int = 16_384) -> np.ndarray:
    """Cosines of pairs of rows, in full and in float32."""
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(a), block):
        left, right = unit(corpus.take(a[start : start + block])), unit(corpus.take(b[start : start + block]))
        parts.append(np.einsum("ij,ij->i", left, right))
    return np.concatenate(parts)
