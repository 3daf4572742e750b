"""Batches side by side on a CPU.

A stream of MLX's CPU is one thread: products use every core, through the BLAS, and all else one. With many
batches, a stream for each core and a BLAS of one thread keep all busy; for one the BLAS keeps its threads.

MLX's evaluation stops its caller once about a hundred operations wait, of all streams together. So a batch is
handed over in pieces, and every stream gets its next in turn: whole batches would run one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from mlx_lvm.core.activations import on_cpu
from mlx_lvm.core.mlx import mx
from mlx_lvm.core.threads import blas_threads


@contextmanager
def lanes(batches: int) -> Iterator[list[mx.Stream]]:
    """Streams for so many batches: one for each thread of a CPU's BLAS that tells them; else the default."""
    threads = cores()
    count = min(batches, threads)
    if count < 2:
        yield [mx.default_stream(mx.default_device())]
        return
    blas_threads(1)
    try:
        yield [_stream(number) for number in range(count)]
    finally:
        blas_threads(threads)


def cores() -> int:
    """How many batches can run side by side: 1 where that cannot be told, and on a GPU."""
    return (blas_threads() if on_cpu() else None) or 1


def by_turns(jobs: Sequence[Iterator[mx.array]], streams: Sequence[mx.Stream]) -> list[mx.array]:
    """The last array of each job, under way. A job gives an array at a time, each started on its stream."""
    last: dict[int, mx.array] = {}
    running = dict(enumerate(zip(jobs, streams, strict=False)))
    while running:
        for number, (job, stream) in list(running.items()):
            with mx.stream(stream):
                made = next(job, None)
                if made is None:
                    del running[number]
                else:
                    mx.async_eval(made)
                    last[number] = made
    return [last[number] for number in range(len(jobs))]


@cache
def _stream(number: int) -> mx.Stream:
    """Made once: a stream and its thread stay until the process ends."""
    return mx.new_stream(mx.Device(mx.cpu))
