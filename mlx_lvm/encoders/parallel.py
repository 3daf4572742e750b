"""Batches side by side on a CPU.

A stream of MLX's CPU is one thread: products use every core, through the BLAS, and all else one. Where there
are many batches, a stream for each core with a BLAS of one thread keeps all of them busy throughout; for one
batch the BLAS keeps its threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from mlx_lvm.core.mlx import mx
from mlx_lvm.core.threads import blas_threads


@contextmanager
def lanes(batches: int) -> Iterator[list[mx.Stream]]:
    """Streams for so many batches: on a CPU one for each thread of its BLAS, where that can be told; else the
    default one.
    """
    threads = blas_threads() if mx.default_device() == mx.Device(mx.cpu) else None
    count = min(batches, threads or 1)
    if count < 2:
        yield [mx.default_stream(mx.default_device())]
        return
    blas_threads(1)
    try:
        yield [_stream(number) for number in range(count)]
    finally:
        blas_threads(threads)


@cache
def _stream(number: int) -> mx.Stream:
    """Made once: a stream and its thread stay until the process ends."""
    return mx.new_stream(mx.Device(mx.cpu))
