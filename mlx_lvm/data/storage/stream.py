"""Vectors from the disk into arrays of our own: rows where they are wanted, looked at, ahead of their use.

A map of a file that is cut off under the reader's eyes ends the process; a read that comes up short is an
error that can be told. So blocks are read, not mapped, and what is resident counts against the process alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from mlx_lvm.core.files.disk import read_at
from mlx_lvm.core.files.safetensors import DTYPES
from mlx_lvm.core.mlx import mx
from mlx_lvm.data.storage.mapped import MappedCorpus, Shard
from mlx_lvm.data.storage.rows import RowCheck, Stored
from mlx_lvm.errors import InvalidFile, IOFailed, Problems

CHECKED = 8192  # rows looked at together

T = TypeVar("T")
Key = tuple[int, int]  # what is loaded ahead: an epoch and a block of it


@dataclass(frozen=True)
class Rows:
    """Stored rows on the device: vectors [n, dim], scales [n] or None. What a training step gathers from."""

    vectors: mx.array
    scales: mx.array | None


class RowReader:
    """Reads rows of a corpus and refuses unfit ones. Raises IOFailed where a file went or changed since."""

    def __init__(self, corpus: MappedCorpus) -> None:
        self.corpus = corpus
        try:
            self.known = {shard.path: _identity(shard.path) for shard in corpus.shards}
        except OSError as error:
            raise IOFailed(f"{error.filename}: cannot be read ({error.strerror})") from error

    def buffers(self, rows: int) -> Stored:
        """Zeroed arrays for so many rows."""
        vectors = np.zeros((rows, self.corpus.dim), DTYPES[self.corpus.dtype][1])
        return Stored(vectors, np.zeros(rows, np.float32) if self.corpus.dtype == "I8" else None)

    def fill(
        self,
        starts: np.ndarray,
        stops: np.ndarray,
        places: np.ndarray,
        vectors: np.ndarray,
        scales: np.ndarray | None,
    ) -> None:
        """Rows starts[i] .. stops[i], of unit length, to places[i] of the arrays; others keep what they hold.

        Raises InvalidFile naming file and row where one is NaN, Inf, zero or without a scale.
        """
        opened: dict[Path, int] = {}
        try:
            for start, stop, place in zip(starts.tolist(), stops.tolist(), places.tolist(), strict=True):
                for shard, own, here in self.corpus.parts(start, stop):
                    if shard.path not in opened:
                        opened[shard.path] = self._open(shard.path)
                    into = slice(place + here.start, place + here.stop)
                    self._read(opened[shard.path], shard, "vectors", own.start, vectors[into])
                    if scales is not None:
                        self._read(opened[shard.path], shard, "scales", own.start, scales[into])
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
        self._check(starts, stops, places, Stored(vectors, scales))

    def _open(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            what = f"gone or unreadable while vectors are read from it ({error.strerror})"
            raise IOFailed(f"{path}: {what}; put it back and go on") from None
        if _identity(descriptor) != self.known[path]:
            os.close(descriptor)
            what = "was replaced or changed while vectors are read from it"
            raise IOFailed(f"{path}: {what}; put the old one back and go on")
        return descriptor

    def _read(self, descriptor: int, shard: Shard, name: str, row: int, into: np.ndarray) -> None:
        width = into.nbytes // len(into)
        try:
            got = read_at(descriptor, into, shard.file.tensors[name].start + row * width)
        except OSError as error:
            where = self.corpus.where(shard.first_row + row)
            raise IOFailed(f"{shard.path}: cannot be read at {where} ({error.strerror})") from error
        if got < into.nbytes:
            raise IOFailed(
                f"{shard.path}: ends before {self.corpus.where(shard.first_row + row + got // width)}; "
                "it was cut off while vectors are read from it"
            )

    def _check(self, starts: np.ndarray, stops: np.ndarray, places: np.ndarray, held: Stored) -> None:
        """Places ascend, so rows that follow one another in the arrays are looked at together."""

        def where(place: int) -> str:
            run = int(np.searchsorted(places, place, side="right")) - 1
            row = int(starts[run]) + place - int(places[run])
            shard, *_ = next(self.corpus.parts(row, row + 1))
            return f"{shard.path}, {self.corpus.where(row)}"

        check = RowCheck(where)
        ends = places + stops - starts
        joined = np.flatnonzero(np.append(places[1:] != ends[:-1], True))
        first = 0
        for last in joined:
            for low in range(int(places[first]), int(ends[last]), CHECKED):
                rows = slice(low, min(low + CHECKED, int(ends[last])))
                part = held.part(rows)
                check.add(low, *part)
                unit = self.corpus.unit(part)
                if unit is not part:
                    held.vectors[rows] = unit.vectors
                    if held.scales is not None:
                        held.scales[rows] = unit.scales
            first = last + 1
        Problems(f"corpus {self.corpus.name}", check.problems()).raise_if_any(InvalidFile)


def to_device(vectors: np.ndarray, scales: np.ndarray | None) -> Rows:
    """Copies; the arrays may be filled anew afterwards."""

    def put(values: np.ndarray) -> mx.array:
        return mx.array(np.require(values, requirements=["C", "A"]))  # older writers began at any byte

    data = put(vectors)
    held = data.view(mx.bfloat16) if vectors.dtype == np.uint16 else data
    return Rows(held, None if scales is None else put(scales))


class Prefetcher(Generic[T]):
    """Calls `load` for one key ahead, in a thread, while the caller works with what it took before.

    One call runs at a time, none while `take` hands its result to `use`: `load` may fill the same memory.
    """

    def __init__(self, load: Callable[[Key], T]) -> None:
        self.load = load
        self.pool = ThreadPoolExecutor(1, "read-ahead")
        self.pending: tuple[Key, Future[T]] | None = None

    def take(self, key: Key, following: Key | None, use: Callable[[T], Rows]) -> tuple[T, Rows]:
        """(what `load` gave for the key, what `use` made of it); `following` is begun. Raises as `load`."""
        if self.pending is None or self.pending[0] != key:
            self.drop()
            self.pending = key, self.pool.submit(self.load, key)
        loaded = self.pending[1].result()
        self.pending = None
        used = use(loaded)
        if following is not None:
            self.pending = following, self.pool.submit(self.load, following)
        return loaded, used

    def drop(self) -> None:
        """Waits for what was begun in vain."""
        if self.pending is not None:
            with suppress(Exception):
                self.pending[1].result()
            self.pending = None

    def close(self) -> None:
        self.drop()
        self.pool.shutdown()


def _identity(file: Path | int) -> tuple[int, int, int, int]:
    state = os.stat(file)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
