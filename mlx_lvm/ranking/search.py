"""Approximate search with faiss, for corpora in which even one product with every chunk is too slow.

An inverted file of cells: built once for a corpus, kept in the user's cache under the digest of the vectors,
and read from there. It proposes; who asks ranks what it proposes exactly.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mlx_lvm.core.arrays import evenly_spaced
from mlx_lvm.data.corpus import Corpus
from mlx_lvm.errors import IOFailed, SetupInvalid
from mlx_lvm.models.base import normalize

BLOCK = 65_536  # chunks added together
PROBED = 8  # one cell in so many is searched, and at least so many


def shortlist(corpus: Corpus, query: np.ndarray, count: int) -> np.ndarray:
    """Rows of about the `count` chunks with the highest inner product with `query` [dim], best first, int64.

    Raises SetupInvalid without faiss, IOFailed where its index can be neither read nor kept.
    """
    index = _index(corpus)
    index.nprobe = max(PROBED, index.nlist // PROBED)
    _, rows = index.search(np.ascontiguousarray(query[None], dtype=np.float32), min(count, len(corpus)))
    return rows[0][rows[0] >= 0]


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlx-lvm"


def _index(corpus: Corpus) -> Any:
    try:
        import faiss
    except ImportError:
        raise SetupInvalid(
            "an approximate search needs faiss: pip install 'mlx-lvm[faiss]'. Without --approximate it is exact."
        ) from None
    kept = cache_folder() / f"{corpus.sha256}.faiss" if corpus.sha256 else None
    try:
        if kept is not None and kept.exists():
            return faiss.read_index(str(kept))
        index = _build(faiss, corpus)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=kept.parent)
            os.close(handle)
            faiss.write_index(index, name)
            os.replace(name, kept)
    except (OSError, RuntimeError) as error:
        raise IOFailed(
            f"{kept}: the index of corpus {corpus.name} can be neither read nor kept ({error})"
        ) from error
    return index


def _build(faiss: Any, corpus: Corpus) -> Any:
    """4 sqrt(N) cells, their centres from at most 64 evenly spaced chunks a cell. No random choice that
    another run makes otherwise.
    """
    cells = max(1, min(round(4 * len(corpus) ** 0.5), len(corpus) // 39))
    index = faiss.index_factory(corpus.dim, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    taken = evenly_spaced(len(corpus), 64 * cells)
    index.train(_units(corpus, taken))
    for low in range(0, len(corpus), BLOCK):
        index.add(_units(corpus, np.arange(low, min(low + BLOCK, len(corpus)), dtype=np.int32)))
    return index


def _units(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.array(normalize(corpus.take(rows))))
