"""What `lvm doctor` finds: each check with its finding, its value and, where something is missing, what mends it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlx_lvm import __version__
from mlx_lvm.core.mlx import BLAS, COMPILER, FREED_IS_KEPT, KEPT, KERNELS_ARE_WIDE, TF32, mkl_holds_back, mx
from mlx_lvm.core.products import tf32_active

SLOW_BLAS = 20.0  # GFLOP/s per core pair below which a Linux CPU runs a reference BLAS
SIDE = 1024
WIDE = b"avx512f"  # in the names of a kernel that `compiler/g++` made for x86-64


@dataclass(frozen=True)
class Check:
    name: str
    finding: str
    value: Any = None
    remedy: str = ""


def examine() -> list[Check]:
    """Every check in the order of reading; takes about a second."""
    return [*_versions(), _device(), _memory(), *_allocator(), _blas(), _tf32(), *_compiler(), *_extras()]


def matmul_speed(seconds: float = 0.3) -> float:
    """Float32 GFLOP/s of [1024, 1024] matrix products on the default device."""
    a, b = mx.random.normal((SIDE, SIDE)), mx.random.normal((SIDE, SIDE))
    mx.eval(a @ b)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        mx.eval(a @ b)
        count += 1
    return 2 * SIDE**3 * count / (time.perf_counter() - start) / 1e9


def _versions() -> list[Check]:
    found = {"mlx-lvm": __version__, "python": platform.python_version()}
    for package in ("mlx", "numpy", "safetensors", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    text = ", ".join(f"{name} {number}" for name, number in found.items())
    return [Check("versions", text, found), Check("system", platform.platform())]


def _device() -> Check:
    device = mx.default_device()
    info = dict(mx.device_info())
    name = str(
        info.get("device_name") or info.get("architecture") or platform.processor() or platform.machine()
    )
    return Check(
        "device",
        f"{device} {name}, {os.cpu_count()} cores",
        {"device": str(device), **{k: str(v) for k, v in info.items()}},
    )


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Check("memory", f"{total / 2**30:.1f} GiB", total)


def _allocator() -> list[Check]:
    """Where MLX's results come from on a Linux CPU."""
    if sys.platform != "linux" or mx.default_device() != mx.Device(mx.cpu):
        return []
    finding = (
        f"up to {KEPT >> 20:,} MB are kept for the next result" if FREED_IS_KEPT else "given back at once"
    )
    remedy = (
        ""
        if FREED_IS_KEPT
        else "large results come fresh from the kernel, page by page: unset MALLOC_TRIM_THRESHOLD_, or use glibc"
    )
    return [Check("freed memory", finding, FREED_IS_KEPT, remedy)]


def _blas() -> Check:
    speed = matmul_speed()
    finding = f"{BLAS.name}{' (' + BLAS.path + ')' if BLAS.path else ''}, {speed:,.0f} GFLOP/s" + (
        f"; {BLAS.note}" if BLAS.note and not BLAS.path else ""
    )
    slow = sys.platform == "linux" and not BLAS.path and speed < SLOW_BLAS
    remedy = (
        "MLX runs on its reference BLAS, many times slower than this machine: pip install 'mlx-lvm[cpu]'"
        if slow
        else ""
    )
    if BLAS.name == "mkl" and mkl_holds_back():
        remedy = "MKL does not use this processor's AVX-512, OpenBLAS does: pip install cmeel-openblas (its system library: libgfortran5)"
    return Check("blas", finding, {"name": BLAS.name, "path": BLAS.path, "gflops": speed}, remedy)


def _tf32() -> Check:
    active = tf32_active()
    finding = "on: matrix products keep 10 bits of mantissa" if active else "off: matrix products are float32"
    remedy = (
        f"figures differ from those of other machines: unset {TF32}; --precision tf32 asks for it"
        if active
        else ""
    )
    return Check("tf32", finding, active, remedy)


def _compiler() -> list[Check]:
    """MLX fuses kernels on a Linux CPU by calling g++, and keeps them; Metal and CUDA bring their own compiler."""
    if sys.platform != "linux":
        return [Check("compiler", "the platform's own")]
    path = shutil.which(
        "g++", path=os.pathsep.join(folder for folder in os.get_exec_path() if folder != COMPILER)
    )
    if path is None:
        return [Check("compiler", "none", None, "mx.compile needs one on Linux CPU: apt-get install g++")]
    compiler = Check(
        "compiler",
        f"{path}, {'as wide as the processor' if KERNELS_ARE_WIDE else 'as MLX asks for it'}",
        path,
    )
    store = Path(tempfile.gettempdir()) / "mlx" / version("mlx") / "cpu"
    kernels = [file.read_bytes() for file in store.glob("*.so")]
    if not kernels or not KERNELS_ARE_WIDE or platform.machine() != "x86_64":
        return [compiler]
    narrow = sum(WIDE not in kernel for kernel in kernels)
    remedy = (
        f"slower ones, from before or from another program; rm -r {store} has them made anew"
        if narrow
        else ""
    )
    return [
        compiler,
        Check(
            "kernels",
            f"{len(kernels) - narrow} wide, {narrow} narrow",
            {"kernels": len(kernels), "narrow": narrow},
            remedy,
        ),
    ]


def _extras() -> list[Check]:
    extras = {
        "parity": ("torch",),
        "embed": ("sentence_transformers",),
        "decode": ("vec2text",),
        "report": ("matplotlib",),
        "tune": ("optuna",),
    }
    out = []
    for extra, modules in extras.items():
        missing = [module for module in modules if not _installed(module)]
        finding = f"not installed; pip install 'mlx-lvm[{extra}]' adds it" if missing else "installed"
        out.append(Check(f"extra {extra}", finding, not missing))
    return out


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
