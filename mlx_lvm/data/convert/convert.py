"""Other people's files to a corpus: windows of contexts and targets, vectors with ids, plain vectors.

Two passes over the file: the first reads digests or ids and decides where every row goes, the second writes.
Memory holds a block of rows, and per window C + 1 digests and places.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlx_lvm.data.convert.conversion import Conversion, Progress, Report, Target
from mlx_lvm.data.convert.rows import convert_rows
from mlx_lvm.data.convert.windows import convert_windows, window_sets
from mlx_lvm.data.ingest.lists import read_lines
from mlx_lvm.data.storage.writer import require_free
from mlx_lvm.data.tables.base import ArrayFile
from mlx_lvm.data.tables.columns import KNOWN, Columns, document_ids
from mlx_lvm.data.tables.opening import open_arrays, open_table
from mlx_lvm.errors import InvalidFile


def convert(
    paths: str | Path | Sequence[str | Path],
    target: Target,
    ids: str | Path | None = None,
    progress: Progress | None = None,
    columns: Columns | None = None,
) -> Report:
    """Convert one file, or several and the files of folders as one table. `ids` is a file of one document id
    a row (.npy, or text with a line each) where the file has none; `columns` names those of unknown names.

    Raises InvalidFile, and writes nothing, where nothing is known or rows are unfit, with every problem.
    """
    require_free(target.path, target.overwrite)
    columns = columns or Columns()
    file = open_table([paths] if isinstance(paths, (str, Path)) else paths)
    report = Report(left_out=[f"{name}: {reason}" for name, reason in file.unread.items()])
    given = None if ids is None else _read_ids(Path(ids))
    job = Conversion(file, columns, target, given, report, progress)
    vectors = columns.find(file, "vectors")
    if vectors is not None and vectors.rank == 2:
        report.columns["vectors"] = vectors.name
        convert_rows(job, vectors)
    elif pairs := window_sets(file, columns):
        convert_windows(job, pairs)
    else:
        lost = [one for one in file.arrays.values() if one.kind == "text" and one.name in KNOWN["vectors"]]
        hint = f"'{lost[0].name}' is text: parse it into lists of numbers first. " if lost else ""
        raise InvalidFile(f"{file.path}: holds {_shown(file)}. {hint}{EXPECTED}")
    used = {*report.columns.values(), "scales"}
    report.unused = [] if report.kind == "windows" else sorted(set(file.arrays) - used)
    return report


SHOWN = 12  # columns that a message names
EXPECTED = (
    f"Expected vectors [N, dim] named {', '.join(KNOWN['vectors'])} or by --vector-column, or contexts [N, "
    f"C, dim] ({', '.join(KNOWN['contexts'])}) with targets [N, dim] ({', '.join(KNOWN['targets'])})."
)


def _shown(file: ArrayFile) -> str:
    arrays = file.arrays.values()
    held = [f"{array.name} {array.kind}{' in rows of numbers' * (array.rank == 2)}" for array in arrays]
    if len(held) > SHOWN:
        held = [*held[:SHOWN], f"... and {len(held) - SHOWN} more"]
    left = [f"{name}: {reason}" for name, reason in list(file.unread.items())[:SHOWN]]
    return (", ".join(held) or "no array") + (f"; left out: {'; '.join(left)}" if left else "")


def _read_ids(path: Path) -> np.ndarray:
    what = f"{path}: document ids"
    if path.suffix == ".npy":
        return document_ids(open_arrays(path).arrays["vectors"].whole().reshape(-1), what)
    return document_ids(np.array([*read_lines(path), None], dtype=object)[:-1], what)
