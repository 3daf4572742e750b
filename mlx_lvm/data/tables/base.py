"""An array of somebody's file that is read in blocks of rows, whatever the file's format.

Nothing is unpickled, and nothing is allocated on a file's word alone: what a header declares is held against
the bytes that are there. An array is opened anew for each pass, which needs memory for one block only.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO

import numpy as np

from mlx_lvm.errors import InvalidFile, IOFailed

MAX_SMALL = 1 << 30  # bytes of an array that is read whole: ids, offsets, names
BLOCK = 65_536  # rows read together where an array is read whole
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)


@dataclass(frozen=True)
class Array:
    """`blocks(rows)` begins at the first row each time; a block holds its values until the next is asked for.
    `measure` gives the shape, which for lists takes a look at the first row. Text is of dtype object.
    """

    name: str
    rank: int
    dtype: np.dtype
    measure: Callable[[], tuple[int, ...]]
    blocks: Callable[[int], Iterator[np.ndarray]]
    bfloat16: bool = False  # dtype is the uint16 of its bits then

    @classmethod
    def known(
        cls,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        blocks: Callable[[int], Iterator[np.ndarray]],
        bfloat16: bool = False,
    ) -> Array:
        """An array whose shape a header told."""
        return cls(name, len(shape), dtype, lambda: shape, blocks, bfloat16)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return self.measure()

    @property
    def kind(self) -> str:
        """What it holds, in words."""
        return "bfloat16" if self.bfloat16 else "text" if self.dtype.kind in "OUS" else self.dtype.name

    def whole(self) -> np.ndarray:
        """All of it. Raises InvalidFile where it is too large for what is read whole."""
        if int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize > MAX_SMALL:
            raise InvalidFile(f"array '{self.name}' {list(self.shape)} is larger than {MAX_SMALL:,} bytes")
        parts = [block.copy() for block in self.blocks(BLOCK)]
        return np.concatenate(parts) if parts else np.zeros(self.shape, self.dtype)


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a file, or of several that are one table, by name; and why others cannot be read."""

    path: Path
    arrays: dict[str, Array]
    unread: dict[str, str] = field(default_factory=dict)
    parts: tuple[ArrayFile, ...] = ()  # the files, where they are several


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what readers of damaged files raise into InvalidFile, and the system's refusals into IOFailed."""
    try:
        yield
    except DAMAGED as error:
        raise InvalidFile(
            f"{path}: damaged, cut off, encrypted or packed in a way not known here ({error})"
        ) from None
    except OSError as error:
        if error.errno is None:  # pyarrow's word for a damaged file
            said = str(error).strip()[:200]
            raise InvalidFile(f"{path}: damaged, or not what its ending says ({said})") from None
        raise IOFailed(f"{path}: cannot be read ({error.strerror or error})") from error


def read_rows(
    file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype, rows: int, what: str
) -> Iterator[np.ndarray]:
    """Blocks of the array that begins where the file stands. Raises InvalidFile where the file ends early."""
    count = shape[0] if shape else 1
    width = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    # filled anew for each block: fresh pages cost as much as the reading
    whole = np.empty(min(rows, count) * width, np.uint8)
    for start in range(0, count, rows):
        part = min(rows, count - start)
        data = whole[: part * width]
        position = 0
        while position < len(data):
            got = file.readinto(data.data[position:])  # type: ignore[attr-defined]
            if not got:
                row = start + position // max(1, width)
                raise InvalidFile(f"{what}: ends at row {row:,} of {count:,}: cut off")
            position += got
        yield data.view(dtype).reshape(part, *shape[1:])
