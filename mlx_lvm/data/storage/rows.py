"""Rows in the form a corpus stores them in: to floats and back, of unit length, fit for float32 arithmetic.

Models, baselines and figures take rows to be unit vectors: a raw mean is taken off unit vectors, and
penalties depend on scale. So rows become so where a corpus is written, and where one is opened whose rows are
not. Rows that are of unit length to the precision they are stored in stay as they are, bit for bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mlx_lvm.core.arrays import blocks
from mlx_lvm.core.files.safetensors import DTYPES, SafeFile

TOGETHER = 4096  # rows that are floats at once, so that memory does not grow with what is read
SHOWN = 5  # rows named in a message; the others are counted
SMALL, LARGE = 1e-24, 1e30  # squared norms outside are zero or infinite to float32 arithmetic further on
# How far from 1 the length of a unit row may be once stored, by NumPy's name of what its bytes are read as;
# float32 holds what was float16 or I8 before.
ROUNDED = {"float32": 2e-3, "float16": 2e-3, "uint16": 1e-2, "int8": 5e-3}


class Stored(NamedTuple):
    """Rows as a corpus stores them: vectors [n, dim], BF16 as the uint16 of its bits; scales [n] with I8."""

    vectors: np.ndarray
    scales: np.ndarray | None = None

    @classmethod
    def read(cls, file: SafeFile) -> Stored:
        """All rows that a file holds, mapped."""
        return cls(file.numpy("vectors"), file.numpy("scales") if "scales" in file.tensors else None)

    def part(self, rows: slice | np.ndarray) -> Stored:
        return Stored(self.vectors[rows], None if self.scales is None else self.scales[rows])


def quantise(vectors: np.ndarray) -> Stored:
    """Row-wise symmetric I8 of vectors [n, dim], with scale = max|v| / 127."""
    scales = (np.maximum(vectors.max(axis=1), -vectors.min(axis=1)) / 127).astype(np.float32)
    scaled = vectors / np.maximum(scales, np.finfo(np.float32).tiny)[:, None]
    return Stored(np.rint(scaled, out=scaled).astype(np.int8), scales)


def to_stored(vectors: np.ndarray, dtype: str) -> Stored:
    """Float32 rows in the form a corpus of that dtype stores them in."""
    if dtype == "I8":
        return quantise(vectors)
    if dtype == "BF16":  # to nearest, ties to even
        bits = vectors.view(np.uint32)
        return Stored(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))
    with np.errstate(over="ignore"):  # a value past float16's range is found by the row check
        return Stored(vectors.astype(DTYPES[dtype][1], copy=False))


def to_float(vectors: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
    """Stored rows as float32: I8 is scaled, BF16 (as uint16) widened."""
    if vectors.dtype == np.uint16:
        return (vectors.astype(np.uint32) << 16).view(np.float32)
    out = np.asarray(vectors).astype(np.float32, copy=False)
    return out if scales is None else out * scales[:, None]


def squared_lengths(vectors: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
    """Of stored rows, [n] float64; NaN or infinite where the row is."""
    squares = np.empty(len(vectors))
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in blocks(len(vectors), TOGETHER):
            held = to_float(vectors[rows])
            squares[rows] = np.einsum("ij,ij->i", held, held)
        return squares if scales is None else squares * scales.astype(np.float64) ** 2


def off_unit(squares: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Rows [m] of squared lengths [n] that are sound and not of unit length to their dtype's precision."""
    with np.errstate(invalid="ignore"):
        sound = (squares > SMALL) & (squares < LARGE)
        return np.flatnonzero(sound & (np.abs(np.sqrt(squares) - 1) > ROUNDED[dtype.name]))


def unit_rows(rows: Stored) -> tuple[Stored, int]:
    """Rows of unit length, and how many had to be changed; the same object where none had to. I8 rows keep
    their numbers and change their scales. Unfit rows (see `RowCheck`) stay what they are.
    """
    vectors, scales = rows
    squares = squared_lengths(vectors, scales)
    odd = off_unit(squares, vectors.dtype)
    if not len(odd):
        return rows, 0
    lengths = np.sqrt(squares[odd]).astype(np.float32)
    if scales is not None:
        scales = scales.copy()
        scales[odd] /= lengths
        return Stored(vectors, scales), len(odd)
    dtype = {"float32": "F32", "float16": "F16", "uint16": "BF16"}[vectors.dtype.name]
    vectors = np.array(vectors)
    for part in blocks(len(odd), TOGETHER):
        changed = to_float(vectors[odd[part]]) / lengths[part, None]
        vectors[odd[part]] = to_stored(changed, dtype).vectors
    return Stored(vectors), len(odd)


def across(edges: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
    """Rows start:stop of what is cut at `edges` [n + 1]: a piece's number, its own rows, which of ours."""
    number, at = bisect_right(edges, start) - 1, start
    while at < stop:
        first, end = edges[number], min(stop, edges[number + 1])
        yield number, slice(at - first, end - first), slice(at - start, end - start)
        at, number = end, number + 1


def row_in_words(row: int, offsets: np.ndarray, names: Sequence[str]) -> str:
    """A row with its document, of those that end at `offsets` [D + 1], and its chunk."""
    document = int(np.searchsorted(offsets, row, side="right")) - 1
    return f"row {row} (document '{names[document]}', chunk {row - offsets[document]})"


class RowCheck:
    """Finite, non-zero, and of a length that float32 can square, row by row."""

    def __init__(self, where: Callable[[int], str] = "row {}".format) -> None:
        self.where = where
        self.bad: dict[str, list[np.ndarray]] = {}
        self.off_unit, self.shortest, self.longest = 0, np.inf, 0.0  # sound rows not of unit length; lengths

    def add(self, start: int, vectors: np.ndarray, scales: np.ndarray | None) -> None:
        squares = squared_lengths(vectors, scales)
        if scales is not None:
            squares[~(scales > 0)] = np.nan  # a negative scale has a square like any other
        odd = off_unit(squares, vectors.dtype)
        if len(odd):
            self.off_unit += len(odd)
            self.shortest = min(self.shortest, float(np.sqrt(squares[odd].min())))
            self.longest = max(self.longest, float(np.sqrt(squares[odd].max())))
        unfit = np.flatnonzero(~((squares > SMALL) & (squares < LARGE)))
        if not len(unfit):
            return
        with np.errstate(invalid="ignore"):  # signalling NaNs
            held = to_float(vectors[unfit])
            finite, zero = np.isfinite(held).all(axis=1), ~held.any(axis=1)
        good = np.ones(len(unfit), dtype=bool)
        if scales is not None:
            good = np.isfinite(scales[unfit]) & (scales[unfit] > 0)
        for what, those in (
            ("its scale is not a positive number", ~good),
            ("NaN or Inf", ~finite),
            ("all zero, which has no direction. Was the chunk empty?", zero),
            ("too long or too short for float32 arithmetic", finite & ~zero & good),
        ):
            if those.any():
                self.bad.setdefault(what, []).append(start + unfit[those])

    def problems(self) -> list[str]:
        out = []
        for what, parts in self.bad.items():
            rows = np.concatenate(parts)
            out += [f"{self.where(int(row))}: {what}" for row in rows[:SHOWN]]
            if len(rows) > SHOWN:
                out.append(f"... and {len(rows) - SHOWN:,} more rows: {what}")
        return out
