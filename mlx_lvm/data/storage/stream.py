"""Vectors from the disk into arrays of our own: rows where they are wanted, looked at as they come, ahead of
their use.

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
from mlx_lvm.data.storage.rows import RowCheck
from mlx_lvm.errors import InvalidFile, IOFailed, Problems

CHECKED = 8192  # rows looked at together

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Stored rows on the device: vectors [n, dim], scales [n] or None. What a training step gathers from."""

    vectors: mx.array
    scales: mx.array | None


class RowReader:
    """Reads rows of a corpus and refuses unfit ones. Raises IOFailed where a file went or changed since this
    was made.
    """

    def __init__(self, corpus: MappedCorpus) -> None:
        self.corpus = corpus
        self.width = DTYPES[corpus.dtype][0] * corpus.dim
        self.known = {shard.path: _state(shard.path) for shard in corpus.shards}
        self.firsts = np.array([shard.first_row for shard in corpus.shards])

    def buffers(self, rows: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Zeroed arrays for so many rows, in the stored dtype (BF16 as uint16)."""
        vectors = np.zeros((rows, self.corpus.dim), DTYPES[self.corpus.dtype][1])
        return vectors, np.zeros(rows, np.float32) if self.corpus.dtype == "I8" else None

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
                number = int(np.searchsorted(self.firsts, start, side="right")) - 1
                while start < stop:
                    shard = self.corpus.shards[number]
                    end = min(stop, shard.first_row + shard.rows)
                    if shard.path not in opened:
                        opened[shard.path] = self._open(shard.path)
                    self._read(
                        opened[shard.path],
                        shard,
                        "vectors",
                        self.width,
                        start,
                        vectors[place : place + end - start],
                    )
                    if scales is not None:
                        self._read(
                            opened[shard.path], shard, "scales", 4, start, scales[place : place + end - start]
                        )
                    start, place, number = end, place + end - start, number + 1
        finally:
            for descriptor in opened.values():
                os.close(descriptor)
        self._check(starts, stops, places, vectors, scales)

    def _open(self, path: Path) -> int:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise IOFailed(
                f"{path}: gone or unreadable while vectors are read from it ({error.strerror}); put it back "
                "and go on"
            ) from None
        if _identity(os.fstat(descriptor)) != self.known[path]:
            os.close(descriptor)
            raise IOFailed(
                f"{path}: was replaced or changed while vectors are read from it; put the old one back and "
                "go on"
            )
        return descriptor

    def _read(self, descriptor: int, shard: Shard, name: str, width: int, row: int, into: np.ndarray) -> None:
        try:
            got = read_at(descriptor, into, shard.file.tensors[name].start + (row - shard.first_row) * width)
        except OSError as error:
            raise IOFailed(
                f"{shard.path}: cannot be read at {self.corpus.where(row)} ({error.strerror})"
            ) from error
        if got < into.nbytes:
            raise IOFailed(
                f"{shard.path}: ends before {self.corpus.where(row + got // width)}; "
                "it was cut off while vectors are read from it"
            )

    def _check(
        self,
        starts: np.ndarray,
        stops: np.ndarray,
        places: np.ndarray,
        vectors: np.ndarray,
        scales: np.ndarray | None,
    ) -> None:
        """Places ascend, so rows that follow one another in the arrays are looked at together."""

        def where(place: int) -> str:
            run = int(np.searchsorted(places, place, side="right")) - 1
            row = int(starts[run]) + place - int(places[run])
            return (
                f"{self.corpus.shards[int(np.searchsorted(self.firsts, row, side='right')) - 1].path}, "
                f"{self.corpus.where(row)}"
            )

        check = RowCheck(where)
        ends = places + stops - starts
        joined = np.flatnonzero(np.append(places[1:] != ends[:-1], True))
        first = 0
        for last in joined:
            for low in range(int(places[first]), int(ends[last]), CHECKED):
                part = slice(low, min(low + CHECKED, int(ends[last])))
                held = vectors[part], None if scales is None else scales[part]
                check.add(low, *held)
                unit = self.corpus.unit(*held)
                if unit[0] is not held[0]:
                    vectors[part] = unit[0]
                if scales is not None and unit[1] is not held[1]:
                    scales[part] = unit[1]
            first = last + 1
        problems = Problems(f"corpus {self.corpus.name}")
        problems.found += check.problems()
        problems.raise_if_any(InvalidFile)


def to_device(vectors: np.ndarray, scales: np.ndarray | None) -> Rows:
    """Copies; the arrays may be filled anew afterwards."""
    data = mx.array(vectors)
    return Rows(
        data.view(mx.bfloat16) if vectors.dtype == np.uint16 else data,
        None if scales is None else mx.array(scales),
    )


class Prefetcher(Generic[T]):
    """Calls `load` for one key ahead, in a thread, while the caller works with what it took before.

    One call runs at a time, and none while `take` hands its result to `use`: `load` may fill the same memory
    each time.
    """

    def __init__(self, load: Callable[[tuple[int, int]], T]) -> None:
        self.load = load
        self.pool = ThreadPoolExecutor(1, "read-ahead")
        self.pending: tuple[tuple[int, int], Future[T]] | None = None

    def take(
        self, key: tuple[int, int], following: tuple[int, int] | None, use: Callable[[T], Rows]
    ) -> tuple[T, Rows]:
        """(what `load` gave for the key, what `use` made of it); `following` is begun then. Raises what
        `load` raises.
        """
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


def _state(path: Path) -> tuple[int, int, int, int]:
    try:
        return _identity(path.stat())
    except OSError as error:
        raise IOFailed(f"{path}: cannot be read ({error.strerror})") from error


def _identity(state: os.stat_result) -> tuple[int, int, int, int]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns
