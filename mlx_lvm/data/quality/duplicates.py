"""Exact and near duplicates among the rows of a corpus, found exactly, or through faiss where that is slow.

Near means cosine above a threshold. With K principal coordinates p of a row and the length r of the rest,

    cos(a, b) = p_a . p_b + (rest of a) . (rest of b) <= p_a . p_b + r_a r_b

and pairs below the threshold by this bound need no product over all dimensions: K + 1 of them instead. What
passes is computed in full. Products run on the device in blocks, so memory is bounded for any number of rows.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mlx_lvm.core import faiss_process
from mlx_lvm.core.arrays import blocks
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.storage.mapped import MappedCorpus
from mlx_lvm.errors import SetupInvalid

NEAR = 0.97  # cosine above which two chunks count as one
COORDINATES = 64
BLOCK = 4096  # rows of a block of products
SAMPLE = 4096  # rows that the principal directions are taken from
MANY = 100_000  # likely pairs of a block above which all its products are cheaper
KEPT = 100_000  # pairs returned; all are counted
TOGETHER = 1 << 20  # pairs that faiss proposes, handed over together
SLACK = 1e-3  # what float32 (and TF32 in the device's products) may take from the bound


@dataclass(frozen=True)
class Pairs:
    """rows [n, 2] with the earlier row first, cosines [n], and how many there are in all, kept or not."""

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
    digests = np.concatenate(
        [
            row_digests(rows.vectors)
            for block in blocks(len(corpus), corpus.block_rows)
            for rows in corpus.pieces(block.start, block.stop)
        ]
    )
    order = np.argsort(digests, kind="stable")
    edges = np.flatnonzero(np.diff(digests[order]) != 0) + 1
    bounds = np.concatenate([[0], edges, [len(order)]])
    several = np.flatnonzero(np.diff(bounds) > 1)
    return [order[bounds[k] : bounds[k + 1]] for k in several]


def group_pairs(groups: list[np.ndarray]) -> np.ndarray:
    """The first row of each group with every other, [n, 2]."""
    pairs = [np.stack([np.full(len(group) - 1, group[0]), group[1:]], axis=1) for group in groups]
    return np.concatenate([np.zeros((0, 2), np.int64), *pairs])


def near_pairs(corpus: MappedCorpus, threshold: float = NEAR, approximate: bool = False) -> Pairs:
    """Every pair of rows with a cosine above `threshold`: n^2 (K + 1) flops for n rows.

    `approximate` has faiss propose them, which misses a few: see `likely_pairs`. Raises SetupInvalid without.
    """
    short = _shortened(corpus, principal_axes(corpus))
    rows, cosines, total = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)], 0
    for a, b, found in (_proposed if approximate else _searched)(corpus, short, threshold):
        room = max(0, KEPT - total)
        total += len(a)
        rows.append(np.stack([a, b], axis=1)[:room])
        cosines.append(found[:room])
    return Pairs(np.concatenate(rows), np.concatenate(cosines), total)


Triples = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows a < b and their cosines


def _searched(corpus: MappedCorpus, short: np.ndarray, threshold: float) -> Iterator[Triples]:
    for i in range(0, len(corpus), BLOCK):
        left = mx.array(short[i : i + BLOCK])
        for j in range(i, len(corpus), BLOCK):
            bound = np.array(left @ mx.array(short[j : j + BLOCK]).T, copy=False)
            if bound.max() > threshold - SLACK:  # looked at on the host: MLX reduces slowly on CPU
                yield _near(corpus, i, j, bound > threshold - SLACK, threshold)


def _proposed(corpus: MappedCorpus, short: np.ndarray, threshold: float) -> Iterator[Triples]:
    for a, b in likely_pairs(short, threshold - SLACK):
        cosines = _cosines(corpus, a, b)
        near = cosines > threshold
        yield a[near], b[near], cosines[near]


def require_faiss() -> None:
    """Raises SetupInvalid with the remedy where faiss is not installed."""
    try:
        there = find_spec("faiss") is not None
    except ValueError:  # a module that says nothing of where it comes from
        there = False
    if not there:
        raise SetupInvalid(
            "the approximate search needs faiss: pip install 'mlx-lvm[faiss]'; --near searches without it"
        )


def likely_pairs(short: np.ndarray, bound: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs a < b of rows of short [n, K] whose product is above `bound`, most of them, some at a time.

    faiss, in a process of its own, sorts rows into cells around centres and compares a row with those of the
    nearest cells only: a pair is missed only where its rows lie in cells far apart.
    """
    require_faiss()
    with tempfile.TemporaryDirectory() as folder:
        rows, found = Path(folder) / "rows.npy", Path(folder) / "pairs"
        np.save(rows, np.ascontiguousarray(short, dtype=np.float32))
        faiss_process.run("pairs", rows, repr(float(bound)), found)
        for block in blocks(found.stat().st_size // 16, TOGETHER):
            count = 2 * (block.stop - block.start)
            pairs = np.fromfile(found, np.int64, count, offset=16 * block.start).reshape(-1, 2)
            yield pairs[:, 0], pairs[:, 1]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]


def sample_rows(corpus: MappedCorpus) -> np.ndarray:
    """Unit vectors of at most SAMPLE rows, spread evenly through the corpus."""
    step = max(1, -(-len(corpus) // SAMPLE))
    return unit(corpus.take(np.arange(0, len(corpus), step)))


def principal_axes(corpus: MappedCorpus) -> np.ndarray:
    """Orthonormal directions [dim, K] that hold most of the rows' length (around zero, not around the mean).

    By subspace iteration: any orthonormal K are right for the bound, these make it tight.
    """
    rows = mx.array(sample_rows(corpus))
    gram = np.array(rows.T @ rows)
    shape = corpus.dim, min(COORDINATES, corpus.dim)
    axes = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for _ in range(4):
        axes, _ = np.linalg.qr(gram @ axes)
    return axes


def _shortened(corpus: MappedCorpus, axes: np.ndarray) -> np.ndarray:
    """(p, r) of every row, [n, K + 1]."""
    out = np.empty((len(corpus), axes.shape[1] + 1), np.float32)
    for block in blocks(len(corpus), corpus.block_rows):
        p = unit(corpus.read(block.start, block.stop)) @ axes
        out[block, :-1] = p
        out[block, -1] = np.sqrt(np.maximum(0, 1 - np.einsum("ij,ij->i", p, p)))
    return out


def _near(corpus: MappedCorpus, i: int, j: int, likely: np.ndarray, threshold: float) -> Triples:
    """Rows a < b of a block that are near, and their cosines; where many are likely, from one product."""
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
    out = np.empty(len(a), np.float32)
    for part in blocks(len(a), block):
        out[part] = np.einsum("ij,ij->i", unit(corpus.take(a[part])), unit(corpus.take(b[part])))
    return out


def lagged_blocks(corpus: MappedCorpus, lags: int) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """Block by block through a corpus: a first row, unit vectors from it on, and for each lag 1 .. `lags` the
    places among them of the block's rows that have one so far before them in their document.
    """
    for block in blocks(len(corpus), corpus.block_rows):
        low = max(0, block.start - lags)
        rows, documents = unit(corpus.read(low, block.stop)), corpus.document_of(np.arange(low, block.stop))
        later = [np.arange(max(block.start - low, lag), len(rows)) for lag in range(1, lags + 1)]
        yield low, rows, [k[documents[k] == documents[k - lag]] for lag, k in enumerate(later, 1)]
