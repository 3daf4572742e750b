"""The one place that imports MLX, after giving it what its Linux wheel lacks: a fast BLAS, memory that it keeps, wide kernels.

The Linux CPU wheel of MLX links the reference BLAS, tens of times slower than the machine. The dynamic linker takes
the first `cblas_*` it finds in the global scope, so a better library opened before MLX wins. macOS needs nothing.

`MLX_LVM_BLAS=off` switches this off, `MLX_LVM_BLAS=/path/to/lib.so` names the library to open.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import glob
import os
import sys
import sysconfig
from dataclasses import dataclass

from mlx_lvm.errors import SetupInvalid


@dataclass(frozen=True)
class Blas:
    """Which BLAS serves MLX: a short name, the file opened (empty for MLX's own), and why."""

    name: str
    path: str = ""
    note: str = ""


def candidates() -> list[tuple[str, str]]:
    """(name, path) of the libraries worth opening, best first: MKL and OpenBLAS from pip, then the system's.

    OpenBLAS comes first where `mkl_holds_back`, and MKL elsewhere.
    """
    roots = dict.fromkeys([sys.prefix, sys.exec_prefix, os.path.expanduser("~/.local")])
    found = [
        ("mkl", path)
        for root in roots
        for path in sorted(glob.glob(os.path.join(root, "lib", "libmkl_rt.so*")))
    ]
    wheel = os.path.join(sysconfig.get_path("platlib"), "cmeel.prefix", "lib", "libopenblas.so.0")
    found += [("openblas", wheel)] if os.path.exists(wheel) else []
    for name in ("mkl_rt", "openblas", "blis"):
        path = ctypes.util.find_library(name)
        if path:
            found.append((name.replace("mkl_rt", "mkl"), path))
    return sorted(found, key=lambda pair: pair[0] != "openblas") if mkl_holds_back() else found


def mkl_holds_back() -> bool:
    """Whether this is a processor with AVX-512 that is not Intel's: MKL multiplies without it there, at half of OpenBLAS's speed."""
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read(20_000)
    except OSError:
        return False
    return "GenuineIntel" not in text and " avx512f " in text


def open_blas() -> Blas:
    """Open the best CBLAS into the global scope. Never fails: without one, MLX keeps its own."""
    wish = os.environ.get("MLX_LVM_BLAS", "")
    if wish.lower() in ("off", "0", "none"):
        return Blas("mlx", note="switched off by MLX_LVM_BLAS")
    if sys.platform != "linux":
        return Blas("accelerate" if sys.platform == "darwin" else "mlx", note="the platform's own")
    if "mlx.core" in sys.modules:
        return Blas("mlx", note="mlx was imported before mlx_lvm; import mlx_lvm.core.mlx first")
    # A BLAS thread that waits for the next product by spinning takes the core from the thread that prepares it.
    os.environ.setdefault(
        "OPENBLAS_THREAD_TIMEOUT", "17"
    )  # 2^17 cycles, tens of microseconds, in place of 2^26
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # MKL: no milliseconds in place of 200
    notes = []
    for name, path in [(os.path.basename(wish), wish)] if wish else candidates():
        try:
            library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
            library.cblas_sgemm  # noqa: B018 (a BLAS without the C interface would change nothing)
        except (OSError, AttributeError) as error:
            notes.append(f"{path}: {error}")
            continue
        return Blas(name, path)
    return Blas(
        "mlx",
        note="; ".join(notes)
        or "none found; `pip install mkl cmeel-openblas` makes training many times faster",
    )


TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT, MAPPED = (
    1 << 30,
    256 << 20,
)  # bytes: freed memory kept for the next array; an array so large is mapped on its own


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, and say whether it does. A setting of the user's own is left alone.

    MLX's CPU asks malloc for every result. By default an array of some megabytes comes fresh from the kernel each time, and
    each of its pages costs a fault and a clearing: more than what is computed in it.
    """
    if sys.platform != "linux" or any(
        name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
    ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(TRIM, KEPT) and mallopt(MMAP, MAPPED))


TF32 = "MLX_ENABLE_TF32"
COMPILER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compiler")


def compile_wide() -> bool:
    """Have the kernels that MLX fuses on a CPU compiled by `compiler/g++`, and say whether they are.

    It makes the same numbers to the bit with wider vectors. `MLX_LVM_KERNELS=off` switches this off. Kernels that MLX has kept
    from before stay as they are.
    """
    if sys.platform != "linux" or os.environ.get("MLX_LVM_KERNELS", "").lower() in ("off", "0", "none"):
        return False
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if COMPILER not in folders and os.access(os.path.join(COMPILER, "g++"), os.X_OK):
        folders = [COMPILER, *folders]
        os.environ["PATH"] = os.pathsep.join(folders)
    return COMPILER in folders


BLAS = open_blas()
FREED_IS_KEPT = keep_freed_memory()
KERNELS_ARE_WIDE = compile_wide()
os.environ.setdefault(TF32, "0")  # before MLX's first product; see `mlx_lvm.core.products`

try:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
    from mlx.utils import tree_flatten, tree_map, tree_unflatten
except ImportError as error:
    raise SetupInvalid(
        f"MLX has no backend here ({error}). On Linux install one: pip install 'mlx-lvm[cpu]', or [cuda12] or [cuda13] for an NVIDIA GPU."
    ) from error

__all__ = [
    "BLAS",
    "FREED_IS_KEPT",
    "KERNELS_ARE_WIDE",
    "TF32",
    "Blas",
    "mx",
    "nn",
    "optim",
    "tree_flatten",
    "tree_map",
    "tree_unflatten",
]
