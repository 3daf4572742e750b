"""Other people's files to a corpus: windows of contexts and targets, vectors with document ids, plain vectors.

Two passes over the file: the first reads digests or ids and decides where every row goes, the second writes. Memory
holds a block of rows, and per window C + 1 digests and places.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mlx_lvm.data.ingest.arrays import open_arrays
from mlx_lvm.data.ingest.conversion import Counter, Progress, Report, Target, first_of
from mlx_lvm.data.ingest.convert_rows import convert_rows
from mlx_lvm.data.ingest.convert_windows import CONTEXTS, TARGETS, convert_windows, window_sets
from mlx_lvm.data.storage.writer import require_free
from mlx_lvm.errors import InvalidFile

VECTORS = ("vectors", "embeddings", "embedding", "vector")

__all__ = ["Report", "Target", "convert"]


def convert(
    path: str | Path, target: Target, ids: str | Path | None = None, progress: Progress | None = None
) -> Report:
    """Convert one file. `ids` is a file of one document id a row (.npy, or text with a line each) where the file has none.

    Raises InvalidFile where nothing in the file is known, or with every problem of its rows; then nothing is written.
    """
    require_free(target.path, target.overwrite)
    file = open_arrays(path)
    report = Report(left_out=file.left_out)
    counter = Counter(progress, file)
    given = None if ids is None else _read_ids(Path(ids))
    vectors = first_of(file, VECTORS)
    if vectors is not None and len(vectors.shape) == 2:
        convert_rows(file, vectors, given, target, report, counter)
        return report
    pairs = window_sets(file)
    if pairs:
        convert_windows(file, pairs, given, target, report, counter)
        return report
    shown = ", ".join(f"{a.name} {a.dtype.name} {list(a.shape)}" for a in file.arrays.values()) or "no array"
    raise InvalidFile(
        f"{file.path}: holds {shown}{'; left out: ' + '; '.join(file.left_out) if file.left_out else ''}. Expected vectors [N, dim] named "
        f"{', '.join(VECTORS)}, or contexts [N, C, dim] ({', '.join(CONTEXTS)}) with targets [N, dim] ({', '.join(TARGETS)})."
    )


def _read_ids(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return open_arrays(path).arrays["vectors"].whole().reshape(-1)
    try:
        return np.array(path.read_text("utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise InvalidFile(f"{path}: ids cannot be read ({error})") from None
