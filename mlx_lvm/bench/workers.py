"""A program under test in a process of its own, which answers by turns: what a side is asked, and what it
must have.

Every turn begins with a call that is not counted, and a call ends when its result is there. Imports neither
framework: a side is named by module.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from mlx_lvm.core.linux_cpu import tune
from mlx_lvm.core.result import Result
from mlx_lvm.errors import LvmError

LONG = 0.2  # seconds; a call this long needs no other before it to warm caches
INPUTS = 8  # different inputs that the calls of a program go round
# in the shared folder
WEIGHTS, CONFIG, VECTORS, TARGETS = "weights.safetensors", "config.json", "vectors.npy", "targets.npy"


@dataclass(frozen=True)
class Options:
    """What both sides are told. folder: where the MLX side leaves weights and vectors for the other."""

    model: str
    folder: str
    corpus: str = "sotu"
    context: int = 5
    device: str = ""  # for MLX cpu, gpu, or empty for its default; for the other side what MLX then runs on
    threads: int = 0  # of a CPU; 0 takes all cores
    dtype: str = "float32"  # of the forward pass; bfloat16 also of the backward pass, over float32 weights
    tf32: bool = False
    seed: int = 0

    @property
    def cores(self) -> int:
        return self.threads or os.cpu_count() or 1


@dataclass(frozen=True)
class Cell:
    """One thing to time. how: eager or compiled."""

    task: str
    batch: int
    how: str = "compiled"


@dataclass(frozen=True)
class About(Result):
    """What a side runs on: device (cpu, metal, mps, cuda), its name, a CPU's threads, version, MLX's BLAS."""

    device: str
    name: str
    threads: int
    version: str
    blas: str | None = None


class Side(Protocol):
    """A program under test, in its own process. Its constructor takes Options."""

    def about(self) -> About:
        """What it runs on."""

    def peaks(self) -> dict[str, float]:
        """flops and bytes per second that this machine was seen to reach."""

    def call(self, cell: Cell) -> Callable[[], None]:
        """What to time; returns when the result is there."""

    def memory(self) -> dict[str, int]:
        """Peak bytes so far: `resident` of the process, `device` where the framework counts them."""


def end_with(parent: int) -> None:
    """Ends this process once its parent is gone, whom a side that is timed would outlive by minutes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def serve(connection: Any, module: str, name: str, options: Options) -> None:
    """The loop of a side's process: methods by name until None comes."""
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    calls: dict[Cell, Callable[[], None]] = {}
    if module.startswith("mlx_lvm.bench."):  # MLX's side; the other finds the process as its own users do
        tune()
    try:
        side = getattr(import_module(module), name)(options)
    except Exception as error:
        connection.send((False, error if isinstance(error, LvmError) else traceback.format_exc()))
        return
    connection.send((True, None))

    def prepare(cell: Cell) -> None:
        calls[cell] = side.call(cell)
        for _ in range(2):
            calls[cell]()

    own: dict[str, Callable[..., Any]] = {
        "prepare": prepare,
        "turn": lambda cell, seconds: turn(calls[cell], seconds),
        "forget": calls.clear,
    }
    while (message := connection.recv()) is not None:
        method, *arguments = message
        try:
            connection.send((True, (own.get(method) or getattr(side, method))(*arguments)))
        except Exception as error:
            connection.send((False, error if isinstance(error, LvmError) else traceback.format_exc()))


def turn(call: Callable[[], None], seconds: float) -> list[float]:
    """Seconds of each call made within `seconds`, at least one; short ones after one that is not counted."""
    began = time.perf_counter()
    call()
    first = time.perf_counter() - began
    times = [first] if first >= LONG else []
    end = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end and first < LONG):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


def fastest(call: Callable[[], object], seconds: float = 0.3) -> float:
    """Seconds of the fastest call within `seconds`, for a machine's peaks."""
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


Prepared = Callable[[int], Callable[[], object]]  # a size: what to call at that size


def peaks(multiply: Prepared, copy: Prepared, on_cpu: bool) -> dict[str, float]:
    """FLOPs and bytes per second of the fastest product and copy over several sizes; caches count, so that
    nothing beats the roofline. multiply(side), copy(elements): the call to time, on a CPU or not.
    """
    sides = (1024, 2048) if on_cpu else (1024, 2048, 4096, 8192)
    sizes = [megabytes * 2**18 for megabytes in (1, 4, 16, 256)]
    flops = max(2 * side**3 / fastest(multiply(side)) for side in sides)
    return {"flops": flops, "bytes": max(2 * 4 * size / fastest(copy(size)) for size in sizes)}


def resident() -> int:
    """The most bytes that this process had in memory."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class Failed(LvmError):
    """A side could not do what it was asked: the last line of its `traceback`."""

    def __init__(self, text: str) -> None:
        super().__init__(text.strip().splitlines()[-1])
        self.traceback = text


class Worker:
    """A side in its own process; `ask(method, ...)` waits. Raises the side's LvmErrors, or Failed."""

    def __init__(self, module: str, name: str, options: Options) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, module, name, options), daemon=True)
        with environment(options):
            self.process.start()
        theirs.close()
        self._answer()

    def ask(self, method: str, *arguments: Any) -> Any:
        self.connection.send((method, *arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            good, answer = self.connection.recv()
        except EOFError:
            raise Failed("the process ended") from None
        if not good:
            raise answer if isinstance(answer, LvmError) else Failed(answer)
        return answer

    def close(self) -> None:
        if self.process.is_alive():
            self.connection.send(None)
        self.process.join(10)


@contextmanager
def environment(options: Options) -> Iterator[None]:
    """What libraries read at load: threads, TF32, and that idle OpenMP threads give up their core."""
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    wanted = dict.fromkeys(pools, str(options.cores)) | {"KMP_BLOCKTIME": "1"}
    wanted["MLX_ENABLE_TF32"] = str(int(options.tf32))
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]
        os.environ.update({name: value for name, value in before.items() if value is not None})
