"""Approximate search with faiss, for corpora in which even one product with every chunk is too slow.

An inverted file of cells: built once for a corpus, kept in the user's cache under the digest of the vectors,
and read from there. It proposes; who asks ranks what it proposes exactly. faiss runs in a process of its own:
on macOS it and PyTorch bring an OpenMP each, and a process with both ends.
"""

from __future__ import annotations

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mlx_lvm.core import faiss_process
from mlx_lvm.core.arrays import blocks
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import IOFailed, SetupInvalid
from mlx_lvm.models.base import normalize

BLOCK = 65_536  # chunks handed over together


def shortlist(corpus: Corpus, query: np.ndarray, count: int) -> np.ndarray:
    """Rows of about the `count` chunks with the highest inner product with `query` [dim], best first, int64.

    Raises SetupInvalid without faiss, IOFailed where its index can be neither read nor kept.
    """
    return shortlists(corpus, query[None], count)[0]


def shortlists(corpus: Corpus, queries: np.ndarray, count: int) -> list[np.ndarray]:
    """`shortlist` of every query of [n, dim], with one start of faiss."""
    if find_spec("faiss") is None:
        needs = "an approximate search needs faiss: pip install 'mlx-lvm[faiss]'"
        raise SetupInvalid(f"{needs}. Without --approximate it is exact.")
    kept = cache_folder() / f"{corpus.sha256}.faiss" if corpus.sha256 else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            index = kept or Path(folder) / "index"
            if not index.exists():
                _build(corpus, index)
            asked, found = Path(folder) / "queries.npy", Path(folder) / "rows.npy"
            np.save(asked, np.ascontiguousarray(queries, dtype=np.float32))
            faiss_process.run("search", index, asked, min(count, len(corpus)), found)
            return [rows[rows >= 0] for rows in np.load(found)]
    except (OSError, RuntimeError) as error:
        raise IOFailed(
            f"{kept}: the index of corpus {corpus.name} can be neither read nor kept ({error})"
        ) from error


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-lvm"


def _build(corpus: Corpus, index: Path) -> None:
    """The index of a corpus as a file that is whole or absent; its vectors lie next to it meanwhile."""
    index.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=index.parent) as folder:
        vectors = Path(folder) / "vectors.npy"
        shape = (len(corpus), corpus.dim)
        written = np.lib.format.open_memmap(vectors, mode="w+", dtype=np.float32, shape=shape)
        for block in blocks(len(corpus), BLOCK):
            rows = np.arange(block.start, block.stop, dtype=np.int32)
            written[block] = np.array(normalize(corpus.take(rows)))
        written.flush()
        del written
        faiss_process.run("build", vectors, Path(folder) / "index")
        os.replace(Path(folder) / "index", index)
