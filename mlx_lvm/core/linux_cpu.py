"""What MLX's Linux CPU wheel lacks, by one call: a fast BLAS, memory that is kept, wide kernels in a store.

A program calls `tune()` once, before anything imports MLX; `lvm` does so for every command:

    from mlx_lvm.core.linux_cpu import tune; tune()

Importing the library changes nothing of the process. `tune()` sets environment variables (PATH, TMPDIR,
MLX_DISABLE_COMPILE and those of BLAS threads), glibc's malloc, and the linker's scope; nothing on macOS.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass

from mlx_lvm.core.blas import Blas, open_blas, vectors
from mlx_lvm.core.kernel_store import Store, keep_kernels_in, open_store
from mlx_lvm.core.memory import host_memory

TRIM, MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
KEPT = 1 << 30  # bytes of freed memory that are kept for the next array
MAPPED = 256 << 20  # bytes from which on an array is mapped on its own
COMPILER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "compiler")
OFF = ("off", "0", "none")
NOT_OURS = Store()  # MLX's own folder below the temporary directory


@dataclass(frozen=True)
class Tuning:
    """What runs MLX here.

    kept: bytes of freed memory that glibc keeps for the next array; 0 where it gives them back at once.
    wide: whether kernels are compiled for the processor's whole vectors.
    """

    blas: Blas
    kept: int = 0
    wide: bool = False
    kernels: Store = NOT_OURS


UNTUNED = {
    "darwin": Tuning(Blas("accelerate", note="the platform's own")),
    "linux": Tuning(Blas("mlx", note="MLX's own, as tune() was not called")),
}
_tuning: Tuning | None = None


def tuning() -> Tuning:
    """What `tune` did, or how things are without it."""
    return _tuning or UNTUNED.get(sys.platform, Tuning(Blas("mlx")))


def tune() -> Tuning:
    """Everything at once, once a process. Never fails: what cannot be had is said in the notes."""
    global _tuning
    if _tuning is None and sys.platform == "linux":
        wide = compile_wide()
        _tuning = Tuning(open_blas(), keep_freed_memory(), wide, keep_kernels(vectors() if wide else "plain"))
    return tuning()


def keep_freed_memory() -> int:
    """Lets glibc keep what is freed, and says how many bytes. A setting of the user's own is left alone.

    MLX's CPU asks malloc for every result. By default an array of some megabytes comes fresh from the kernel
    each time, and each of its pages costs a fault and a clearing: more than what is computed in it. A small
    machine keeps a quarter of its memory.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")):
        return 0
    kept = min(KEPT, host_memory() // 4)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return kept if mallopt is not None and mallopt(TRIM, kept) and mallopt(MMAP, min(MAPPED, kept)) else 0


def compile_wide() -> bool:
    """Has the kernels that MLX fuses on a CPU compiled by `compiler/g++`, and says whether they are.

    It makes the same numbers to the bit with wider vectors. `MLX_LVM_KERNELS=off` switches this off.
    """
    if os.environ.get("MLX_LVM_KERNELS", "").lower() in OFF:
        return False
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if COMPILER not in folders and os.access(os.path.join(COMPILER, "g++"), os.X_OK):
        folders = [COMPILER, *folders]
        os.environ["PATH"] = os.pathsep.join(folders)
    return COMPILER in folders


def keep_kernels(kind: str) -> Store:
    """A private store for compiled kernels. Without one MLX compiles nothing: slower, the same results."""
    store = open_store(kind)
    if store.folder:
        keep_kernels_in(store.folder)
    else:
        os.environ["MLX_DISABLE_COMPILE"] = "1"
        if "mlx.core" in sys.modules:
            sys.modules["mlx.core"].disable_compile()
    return store
