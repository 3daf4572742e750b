"""What Metal and macOS do otherwise, done on Linux: a process after `install()` meets the refusals and
roundings of a Mac.

numbers   subnormal numbers are zero in MLX's threads (and in no other: NumPy and torch stay as they are on a
          Mac's CPU)
device    the default device is a GPU for all who ask, and the branches a GPU takes are taken; arrays of
          float64 and mx.linalg
          without a CPU stream are refused
products  rounded to TF32's ten bits, as on an M5, where MLX_ENABLE_TF32 is not 0 at the first product
files     F_FULLFSYNC is refused, as on SMB, NTFS and FUSE; a read or write of more than LARGEST bytes in one
          call is refused;
          256 files may be open
process   os.fork is forbidden once MLX is loaded
names     `test_strict` gives files decomposed names (NFD), as Finder and HFS+ do; nothing is patched for that

`python tests/strict/lvm.py train amn` runs a command so. For the tests: PYTHONPATH=tests/strict python -m
pytest -p mac ...
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LARGEST = 2**31 - 1  # bytes of one read or write
OPEN_FILES = 256
FULL, BARRIER = 51, 85  # F_FULLFSYNC and F_BARRIERFSYNC in Darwin's <sys/fcntl.h>
# of fenv_t: where the control word of the vector unit lies, and its bits for flushing results and inputs
FLUSH = {
    "x86_64": (28, 1 << 15 | 1 << 6),
    "aarch64": (0, 1 << 24),
}
ON_GPU_TOO = ("norm", "cross")  # of mx.linalg
MEMORY, BUFFER = 16 << 30, 9 << 30  # of a GPU


def install(largest: int = LARGEST) -> None:
    """Before mlx.core is imported by anything. largest: bytes of one transfer of a buffer, smaller where data
    are small.
    """
    assert "mlx.core" not in sys.modules, "the emulation must come before MLX"
    refuse_files(largest)
    forbid_fork()
    few_files()
    from mlx_lvm.core.linux_cpu import tune

    tune()  # opens the BLAS, whose threads must flush too
    import mlx_lvm.core.mlx

    with flushing():
        mx = mlx_lvm.core.mlx.mx
        mx.eval(
            (mx.ones((512, 512)) * 1e-3).sum() + 1
        )  # starts the thread of MLX's stream; no product, which would settle TF32
    round_products(mx)
    be_a_gpu(mx)


def few_files() -> None:
    """OPEN_FILES files may be open, until somebody asks for more."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@contextmanager
def flushing() -> Iterator[None]:
    """This thread, and every one it starts, takes subnormal numbers for zero while it lasts."""
    place, bits = FLUSH[platform.machine()]
    libm = ctypes.CDLL("libm.so.6")
    before, now = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
    libm.fegetenv(before)
    libm.fegetenv(now)
    word = ctypes.c_uint32.from_buffer(now, place)
    word.value |= bits
    libm.fesetenv(now)
    try:
        yield
    finally:
        libm.fesetenv(before)


def round_products(mx: Any) -> None:
    """Both inputs of a float32 product keep ten bits, where TF32 was on at the first product; gradients pass
    unrounded.
    """
    on: list[bool] = []

    def rounded(x: Any) -> Any:
        if not on:
            on.append(os.environ.get("MLX_ENABLE_TF32", "1") != "0")
        if not on[0] or not isinstance(x, mx.array) or x.dtype != mx.float32:
            return x
        bits = x.view(mx.uint32) + 0xFFF + ((x.view(mx.uint32) >> 13) & 1)
        return x + mx.stop_gradient((bits & 0xFFFFE000).view(mx.float32) - x)

    def both(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda a, b, *rest, **named: function(rounded(a), rounded(b), *rest, **named)

    mx.array.__matmul__ = both(mx.array.__matmul__)
    mx.matmul = both(mx.matmul)
    addmm = mx.addmm
    mx.addmm = lambda c, a, b, *rest, **named: addmm(c, rounded(a), rounded(b), *rest, **named)


def be_a_gpu(mx: Any) -> None:
    """Who asks for the device hears of a GPU; what a GPU refuses is refused unless the CPU was chosen."""
    gpu, cpu = mx.Device(mx.gpu), mx.Device(mx.cpu)
    chosen = [gpu]
    set_device, stream_of, available, info = (
        mx.set_default_device, mx.default_stream, mx.is_available, mx.device_info,
    )  # fmt: skip

    def choose(device: Any) -> None:
        chosen[0] = mx.Device(device) if not isinstance(device, mx.Device) else device
        set_device(cpu)

    mx.set_default_device = choose
    mx.default_device = lambda: chosen[0]
    mx.default_stream = lambda device: stream_of(cpu if device in (gpu, mx.gpu) else device)
    mx.is_available = lambda device: True if device in (gpu, mx.gpu) else available(device)
    mx.device_info = lambda *device: info() | {
        "device_name": "emulated", "memory_size": MEMORY, "max_buffer_length": BUFFER,
    }  # fmt: skip

    def refuse(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if named.get("stream") is None and chosen[0] == gpu:
                raise ValueError(
                    f"[{name}] This op is not yet supported on the GPU. Explicitly pass a CPU stream to run "
                    "it."
                )
            return function(*arguments, **named)

        return call

    for name in dir(mx.linalg):
        if not name.startswith("_") and name not in ON_GPU_TOO:
            setattr(mx.linalg, name, refuse(f"linalg::{name}", getattr(mx.linalg, name)))

    def no_float64(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            types = [a for a in (*arguments[1:], named.get("dtype")) if isinstance(a, mx.Dtype)]
            if chosen[0] == gpu and named.get("stream") is None and mx.float64 in types:
                raise ValueError("float64 is not supported on the GPU")
            return function(*arguments, **named)

        return call

    mx.array.astype = no_float64(mx.array.astype)
    for name in ("zeros", "ones", "full", "asarray"):
        setattr(mx, name, no_float64(getattr(mx, name)))


def refuse_files(largest: int) -> None:
    """F_FULLFSYNC raises ENOTSUP; more than `largest` bytes in one call raise EINVAL."""
    control = fcntl.fcntl

    def refuse(descriptor: Any, command: int, *rest: Any) -> Any:
        if command in (FULL, BARRIER):
            raise OSError(errno.ENOTSUP, "Operation not supported")
        return control(descriptor, command, *rest)

    fcntl.F_FULLFSYNC, fcntl.fcntl = FULL, refuse  # type: ignore[attr-defined,assignment]

    def bounded(name: str, size: Callable[..., int], largest: int = largest) -> None:
        real = getattr(os, name)

        def call(descriptor: int, what: Any, *rest: Any) -> Any:
            if size(what) > largest:
                raise OSError(errno.EINVAL, "Invalid argument")
            return real(descriptor, what, *rest)

        setattr(os, name, call)

    def bytes_of(data: Any) -> int:
        return memoryview(data).nbytes

    for name in ("pwrite", "write"):
        bounded(name, bytes_of)
    for name in ("pread", "read"):
        bounded(name, int, LARGEST)  # blocks of a constant size, which does not scale with the data
    for name in ("preadv", "readv", "pwritev", "writev"):
        bounded(name, lambda buffers: sum(map(bytes_of, buffers)))


def forbid_fork() -> None:
    """MLX's Metal objects do not live on in a fork: the child hangs or dies."""

    def fork() -> int:
        if "mlx.core" in sys.modules:
            raise RuntimeError("os.fork in a process that has loaded MLX: on macOS the child hangs or dies")
        return real()

    real = os.fork
    os.fork = fork


def pytest_configure(config: object) -> None:
    """As a plugin of pytest."""
    install()
