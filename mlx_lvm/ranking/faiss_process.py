"""faiss in a process that loads nothing else: on macOS its OpenMP and PyTorch's end a process that holds both.

    python -m mlx_lvm.ranking.faiss_process build VECTORS.npy INDEX
    python -m mlx_lvm.ranking.faiss_process search INDEX QUERIES.npy COUNT ROWS.npy

VECTORS [N, dim] and QUERIES [n, dim] are float32 of unit length; ROWS [n, COUNT] int64, -1 where fewer were found.
"""

import sys
from typing import Any

import numpy as np

BLOCK = 65_536  # chunks added together
PROBED = 8  # one cell in so many is searched, and at least so many


def build(vectors: np.ndarray, path: str) -> None:
    """4 sqrt(N) cells, their centres from at most 64 evenly spaced chunks a cell. No random choice that another run makes otherwise."""
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
    rows: np.ndarray = index.search(queries, count)[1]
    return rows


if __name__ == "__main__":
    kind, first, second, *rest = sys.argv[1:]
    if kind == "build":
        build(np.load(first, mmap_mode="r"), second)
    else:
        np.save(rest[1], search(first, np.load(second), int(rest[0])))
