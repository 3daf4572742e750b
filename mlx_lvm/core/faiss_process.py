"""faiss in a process that loads nothing else: on macOS its OpenMP and PyTorch's end a process of both.

    python -m mlx_lvm.core.faiss_process build VECTORS.npy INDEX
    python -m mlx_lvm.core.faiss_process search INDEX QUERIES.npy COUNT ROWS.npy
    python -m mlx_lvm.core.faiss_process pairs VECTORS.npy BOUND PAIRS

VECTORS [N, dim] and QUERIES [n, dim] are float32 of unit length; ROWS [n, COUNT] int64, -1 where fewer were
found; PAIRS [M, 2] int64 without a header: rows a < b whose product is above BOUND.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 65_536  # chunks added together
PROBED = 8  # one cell in so many is searched, and at least so many
PER_CELL = 256  # rows of a cell of `pairs`, about
CELLS_COMPARED = 16  # that `pairs` compares a row with
TRAINED = 64  # rows a cell that its centre is found from, at most
QUERIES = 4096  # rows whose pairs are in memory together


def build(vectors: np.ndarray, path: str) -> None:
    """4 sqrt(N) cells, their centres from at most 64 evenly spaced chunks a cell: the same in every run."""
    import faiss

    count, dim = vectors.shape
    cells = max(1, min(round(4 * count**0.5), count // 39))
    index = faiss.index_factory(dim, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    taken = np.linspace(0, count - 1, min(count, 64 * cells)).round().astype(np.int64)
    index.train(np.ascontiguousarray(vectors[taken]))
    for low in range(0, count, BLOCK):
        index.add(np.ascontiguousarray(vectors[low : low + BLOCK]))
    faiss.write_index(index, path)


def search(path: str, queries: np.ndarray, count: int) -> np.ndarray:
    import faiss

    index: Any = faiss.read_index(path)  # an IVF index, whose fields the stubs of faiss do not know
    index.nprobe = max(PROBED, index.nlist // PROBED)
    return index.search(queries, count)[1]


def pairs(vectors: np.ndarray, bound: float, path: str) -> None:
    """Cells of about 256 rows; a row is compared with those of the 16 nearest cells."""
    import faiss

    cells = max(1, len(vectors) // PER_CELL)
    centres = faiss.IndexFlatIP(vectors.shape[1])
    index: Any = faiss.IndexIVFFlat(centres, vectors.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.max_points_per_centroid, index.cp.min_points_per_centroid = 0, TRAINED, 1
    index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // (cells * TRAINED))]))
    index.add(np.ascontiguousarray(vectors))
    index.nprobe = min(CELLS_COMPARED, cells)
    with Path(path).open("wb") as file:
        for start in range(0, len(vectors), QUERIES):
            queries = np.ascontiguousarray(vectors[start : start + QUERIES])
            limits, _, found = index.range_search(queries, bound)
            rows = np.repeat(np.arange(start, start + len(queries)), np.diff(limits.astype(np.int64)))
            later = found > rows
            file.write(np.stack([rows[later], found[later]], axis=1).astype(np.int64).tobytes())


def run(*arguments: object) -> None:
    """This file in a process of its own. Raises RuntimeError with the last line of what it says."""
    ran = subprocess.run(
        [sys.executable, "-m", __name__, *map(str, arguments)], capture_output=True, text=True
    )
    if ran.returncode:
        raise RuntimeError((ran.stderr.strip().splitlines() or [f"ended with {ran.returncode}"])[-1])


if __name__ == "__main__":
    kind, first, second, *rest = sys.argv[1:]
    if kind == "build":
        build(np.load(first, mmap_mode="r"), second)
    elif kind == "pairs":
        pairs(np.load(first, mmap_mode="r"), float(second), rest[0])
    else:
        np.save(rest[1], search(first, np.load(second), int(rest[0])))
