"""What `lvm doctor` finds: checks with a finding, a value and, where something is missing, a remedy."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mlx_lvm import __version__
from mlx_lvm.core.blas import FORTRAN, mkl_holds_back
from mlx_lvm.core.kernel_store import Store
from mlx_lvm.core.linux_cpu import COMPILER, tuning
from mlx_lvm.core.mac_cpu import REMEDY, has_tools
from mlx_lvm.core.mlx import TF32, mx
from mlx_lvm.core.products import tf32_active
from mlx_lvm.errors import SetupInvalid

SLOW_BLAS = 20.0  # GFLOP/s per core pair below which a Linux CPU runs a reference BLAS
SIDE = 1024
EXTRAS = {  # of pyproject.toml, with the modules that each promises
    "parity": ("torch",),
    "hub": ("huggingface_hub",),
    "embed": ("tokenizers", "huggingface_hub"),
    "embed-torch": ("tokenizers", "huggingface_hub", "torch", "sentence_transformers"),
    "decode": ("vec2text", "transformers", "sentence_transformers"),
    "parquet": ("pyarrow",),
    "faiss": ("faiss",),
    "report": ("matplotlib",),
    "tune": ("optuna", "matplotlib"),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
}


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
    info = {key: str(value) for key, value in mx.device_info().items()}
    known = (info.get("device_name"), info.get("architecture"), platform.processor(), platform.machine())
    name = next(filter(None, known), "")
    finding = f"{device} {name}, {os.cpu_count()} cores"
    return Check("device", finding, {"device": str(device), **info})


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Check("memory", f"{total / 2**30:.1f} GiB", total)


def _allocator() -> list[Check]:
    """Where MLX's results come from on a Linux CPU."""
    if sys.platform != "linux" or mx.default_device() != mx.Device(mx.cpu):
        return []
    kept = tuning().kept
    if kept:
        return [Check("freed memory", f"up to {kept >> 20:,} MB are kept for the next result", kept)]
    remedy = (
        "large results come fresh from the kernel, page by page: unset MALLOC_TRIM_THRESHOLD_, or use glibc"
    )
    return [Check("freed memory", "given back at once", kept, remedy)]


def _blas() -> Check:
    speed, blas = matmul_speed(), tuning().blas
    finding = f"{blas.name}{' (' + blas.path + ')' if blas.path else ''}, {speed:,.0f} GFLOP/s"
    if blas.note:
        finding += f"; {blas.note}"
    remedy = ""
    if sys.platform == "linux" and not blas.path and speed < SLOW_BLAS:
        remedy = (
            "MLX runs on its reference BLAS, many times slower than this machine: pip install 'mlx-lvm[cpu]'"
        )
    if blas.name == "mkl" and mkl_holds_back() and "openblas" not in blas.note:
        remedy = "MKL does not use this processor's AVX-512, OpenBLAS does: pip install cmeel-openblas"
    if FORTRAN in blas.note:
        remedy = "OpenBLAS lacks a library of the system: apt-get install libgfortran5"
    return Check("blas", finding, {"name": blas.name, "path": blas.path, "gflops": speed}, remedy)


def _tf32() -> Check:
    if not tf32_active():
        return Check("tf32", "off: matrix products are float32", False)
    remedy = f"figures differ from those of other machines: unset {TF32}; --precision tf32 asks for it"
    return Check("tf32", "on: matrix products keep 10 bits of mantissa", True, remedy)


def _compiler() -> list[Check]:
    """MLX fuses kernels on a CPU by calling g++; Metal and CUDA bring their own compiler."""
    if sys.platform != "linux":
        remedy = "" if has_tools() else f"only --device cpu needs one: {REMEDY}"
        finding = f"the platform's own; for the CPU {'none' if remedy else 'g++'}"
        return [Check("compiler", finding, None, remedy)]
    folders = (folder for folder in os.get_exec_path() if folder != COMPILER)
    path = shutil.which("g++", path=os.pathsep.join(folders))
    if path is None:
        return [Check("compiler", "none", None, "mx.compile needs one on Linux CPU: apt-get install g++")]
    wide = "as wide as the processor" if tuning().wide else "as MLX asks for it"
    return [Check("compiler", f"{path}, {wide}", path), *_kernels(tuning().kernels)]


def _kernels(store: Store) -> list[Check]:
    """Where MLX keeps what g++ made, and how much of it there is."""
    if not store.folder:
        finding = "none are compiled" if store.note else "in the temporary directory"
        shared = "call mlx_lvm.core.linux_cpu.tune() first, or all users of this machine share a folder"
        return [Check("kernels", finding, None, store.note or shared)]
    sizes = [file.stat().st_size for file in Path(store.folder).rglob("*.so")]
    finding = f"{len(sizes)} in {store.folder}, {sum(sizes) / 1e6:.1f} MB, of this user alone"
    return [Check("kernels", finding, {"folder": store.folder, "kernels": len(sizes)})]


def _extras() -> list[Check]:
    """What each extra that adds a command or an option brings; `cpu` and CUDA stand under device and BLAS."""
    out = []
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if not _installed(module)]
        lacks = "not installed" if len(missing) == len(modules) else f"lacks {', '.join(missing)}"
        finding = f"{lacks}; pip install 'mlx-lvm[{extra}]' adds it" if missing else "installed"
        if extra == "decode" and not missing:
            finding = _decode()
        out.append(Check(f"extra {extra}", finding, finding == "installed"))
    return out


def _decode() -> str:
    """The one extra that can be installed and of no use: beside transformers that are too new."""
    from mlx_lvm.ranking.decode import require_extra

    try:
        require_extra()
    except SetupInvalid as error:
        return str(error)
    return "installed"


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None
