"""`.npz` and `.npy`: headers by NumPy, members by zipfile, their sizes held against what is there."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from mlx_lvm.core.arrays import blocks
from mlx_lvm.data.tables.base import Array, ArrayFile, read_rows, reading
from mlx_lvm.errors import InvalidFile

READ_HEADER = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
RATIO, RATIO_FROM = 100, 256 << 20  # vectors do not pack a hundredfold; ids do, but they are small


class Header(NamedTuple):
    """start: first byte of the data; by_columns: Fortran order, the first side running fastest."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    by_columns: bool


def open_npy(path: Path) -> ArrayFile:
    with open(path, "rb") as file:
        header = _header(file, path.stat().st_size, str(path))
    if isinstance(header, str):
        raise InvalidFile(f"{path}: {header}")

    def blocks(rows: int) -> Iterator[np.ndarray]:
        with reading(path), open(path, "rb") as file:
            file.seek(header.start)
            yield from _read(file, header, rows, str(path))

    return ArrayFile(path, {"vectors": Array.known("vectors", header.shape, header.dtype, blocks)})


def open_npz(path: Path) -> ArrayFile:
    arrays: dict[str, Array] = {}
    unread: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        counted = Counter(member.filename for member in members)
        if twice := sorted(name for name, count in counted.items() if count > 1):
            raise InvalidFile(f"{path}: members of one name: {', '.join(twice[:5])}")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if name == member.filename:
                unread[name] = "not an array"
                continue
            if member.file_size > RATIO_FROM and member.file_size > RATIO * max(1, member.compress_size):
                raise InvalidFile(
                    f"{path}: array '{name}' unpacks {member.compress_size:,} bytes to {member.file_size:,}: "
                    "a zip bomb"
                )
            with archive.open(member) as file:
                header = _header(file, member.file_size, f"{path}, array '{name}'")
            if isinstance(header, str):
                unread[name] = header
            else:
                arrays[name] = Array.known(name, header.shape, header.dtype, _member(path, member, header))
    return ArrayFile(path, arrays, unread)


def _member(path: Path, member: zipfile.ZipInfo, header: Header) -> Callable[[int], Iterator[np.ndarray]]:
    def blocks(rows: int) -> Iterator[np.ndarray]:
        with reading(path), zipfile.ZipFile(path) as archive, archive.open(member) as file:
            file.read(header.start)
            yield from _read(file, header, rows, f"{path}, array '{member.filename}'")

    return blocks


def _read(file: IO[bytes], header: Header, rows: int, what: str) -> Iterator[np.ndarray]:
    """Blocks of rows. Where columns lie one after the other the whole array is read first."""
    shape, dtype = header.shape, header.dtype
    if not header.by_columns:
        yield from read_rows(file, shape, dtype, rows, what)
        return
    columns = [block.copy() for block in read_rows(file, shape[::-1], dtype, max(1, shape[-1]), what)]
    whole = np.concatenate(columns).T if columns else np.zeros(shape, dtype)
    for part in blocks(shape[0], rows):
        yield np.ascontiguousarray(whole[part])


def _header(file: IO[bytes], size: int, what: str) -> Header | str:
    """The header, or why the array is left out. Raises InvalidFile for a damaged one, or another size."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in READ_HEADER:
            return f"NumPy format {version[0]}.{version[1]}, which structures alone need"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python 2, whose headers are read all the same
            shape, by_columns, dtype = READ_HEADER[version](file)
    except OSError:
        raise
    except Exception as error:  # NumPy's parser lets through what its tokenizer raises, and that grows
        said = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise InvalidFile(f"{what}: not a NumPy array, or damaged ({said})") from None
    if dtype.hasobject:
        return "Python objects, which are pickled and never read"
    if dtype.names is not None or dtype.kind not in "biufSU" or (dtype.kind == "f" and dtype.itemsize > 8):
        return f"type {dtype.str!r} is not one of numbers or text"
    if any(not isinstance(side, int) or side < 0 for side in shape):
        raise InvalidFile(f"{what}: not a NumPy array, or damaged (shape {str(shape)[:60]})")
    start, needed = file.tell(), dtype.itemsize * math.prod(shape)
    if needed != size - start:
        raise InvalidFile(
            f"{what}: shape {list(shape)} of {dtype.str} needs {needed:,} bytes, {size - start:,} are there: "
            "cut off or damaged"
        )
    return Header(tuple(shape), dtype, start, by_columns and sum(side > 1 for side in shape) > 1)
