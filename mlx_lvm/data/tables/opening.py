"""Opening other people's files by their ending: one, or several, or a folder of them, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mlx_lvm.core.files.safetensors import DTYPES, open_safetensors
from mlx_lvm.data.tables.base import Array, ArrayFile, read_rows, reading
from mlx_lvm.data.tables.numpy_files import open_npy, open_npz
from mlx_lvm.data.tables.parquet import open_parquet
from mlx_lvm.errors import InvalidFile


def open_arrays(path: str | Path) -> ArrayFile:
    """By its ending: .npz, .npy, .safetensors, .parquet.

    Raises InvalidFile for another or a damaged file, IOFailed for one that cannot be read, SetupInvalid for
    Parquet without pyarrow.
    """
    path = Path(path)
    if path.suffix.lower() not in READERS:
        raise InvalidFile(f"{path}: ending '{path.suffix}' is not one of {', '.join(READERS)}")
    if not path.is_file():
        raise InvalidFile(f"{path}: {'no regular file' if path.exists() else 'no such file'}")
    with reading(path):
        return READERS[path.suffix.lower()](path)


def open_table(paths: Sequence[str | Path]) -> ArrayFile:
    """One file as it is; several, or the files of a folder in the order of their names, one below the other.

    Raises InvalidFile as `open_arrays`, and where the files do not hold the same arrays.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        files += _files_of(path) if path.is_dir() else [path]
    opened = [open_arrays(path) for path in files]
    return opened[0] if len(opened) == 1 else _joined(opened, Path(paths[0]))


def _files_of(folder: Path) -> list[Path]:
    """The files of one known ending in a folder and those below it."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in READERS and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]  # fmt: skip
    endings = sorted({path.suffix.lower() for path in found})
    if not found:
        raise InvalidFile(f"{folder}: no file that ends in {', '.join(READERS)}")
    if len(endings) > 1:
        raise InvalidFile(
            f"{folder}: files of several kinds ({', '.join(endings)}); name those that are one table"
        )
    return found


def _joined(files: list[ArrayFile], path: Path) -> ArrayFile:
    unread = {name: reason for file in files for name, reason in file.unread.items()}
    arrays = {}
    for name, first in files[0].arrays.items():
        parts = [file.arrays[name] for file in files if name in file.arrays]
        if len(parts) < len(files):
            lacking = next(file for file in files if name not in file.arrays)
            unread[name] = f"not in {lacking.path.name}"
        elif len({part.rank for part in parts}) > 1 or len({part.kind == "text" for part in parts}) > 1:
            unread[name] = "of another kind in one file than in another"
        else:
            arrays[name] = _stacked(name, first, parts, files)
    later = (name for file in files[1:] for name in file.arrays if name not in files[0].arrays)
    unread |= dict.fromkeys(later, f"not in {files[0].path.name}")
    return ArrayFile(path, arrays, unread, tuple(files))


def _stacked(name: str, first: Array, parts: list[Array], files: list[ArrayFile]) -> Array:
    def measure() -> tuple[int, ...]:
        sides = first.shape[1:]
        for part, file in zip(parts, files, strict=True):
            if part.shape[1:] != sides and part.shape[0]:
                other = f"{list(first.shape)} in {files[0].path.name}"
                raise InvalidFile(f"{file.path}: '{name}' is {list(part.shape)}, {other}")
        return (sum(part.shape[0] for part in parts), *sides)

    def blocks(rows: int) -> Iterator[np.ndarray]:
        for part in parts:
            if part.shape[0]:
                yield from part.blocks(rows)

    dtype = first.dtype if first.dtype.kind in "OUS" else np.result_type(*(part.dtype for part in parts))
    if len({part.bfloat16 for part in parts}) > 1:
        raise InvalidFile(f"{files[0].path}: '{name}' is bfloat16 in one file and not in another")
    return Array(name, first.rank, dtype, measure, blocks, first.bfloat16)


def _open_safetensors(path: Path) -> ArrayFile:
    file = open_safetensors(path, lenient=True)
    arrays = {}
    for name, info in file.tensors.items():
        kind = np.dtype(DTYPES[info.dtype][1])
        blocks = partial(_rows_at, path, info.start, info.shape, kind)
        arrays[name] = Array.known(name, info.shape, kind, blocks, info.dtype == "BF16")
    return ArrayFile(path, arrays, dict(file.unread))


def _rows_at(
    path: Path, start: int, shape: tuple[int, ...], kind: np.dtype, rows: int
) -> Iterator[np.ndarray]:
    with reading(path), open(path, "rb") as data:
        data.seek(start)
        yield from read_rows(data, shape, kind, rows, str(path))


READERS: dict[str, Callable[[Path], ArrayFile]] = {
    ".npz": open_npz,
    ".npy": open_npy,
    ".safetensors": _open_safetensors,
    ".parquet": open_parquet,
    ".pq": open_parquet,
}
