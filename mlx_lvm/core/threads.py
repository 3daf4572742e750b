"""How many threads the CPU's BLAS multiplies with, where it can be asked: MKL and OpenBLAS."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from mlx_lvm.core.linux_cpu import tuning

# (what says how many threads, what sets them) of each BLAS that can be told
FUNCTIONS = (
    ("openblas_get_num_threads", "openblas_set_num_threads"),
    ("MKL_Get_Max_Threads", "MKL_Set_Num_Threads"),
)


def blas_threads(count: int | None = None) -> int | None:
    """Threads of MLX's BLAS, None where it cannot be told; `count`, if given, is then set for the process."""
    functions = _functions()
    if functions is None:
        return None
    before = int(functions[0]())
    if count is not None:
        functions[1](count)
    return before


@cache
def _functions() -> tuple[Any, Any] | None:
    path = tuning().blas.path
    if not path:
        return None
    library = ctypes.CDLL(path)
    for names in FUNCTIONS:
        if all(hasattr(library, name) for name in names):
            get, put = (getattr(library, name) for name in names)
            put.argtypes, put.restype = [ctypes.c_int], None
            return get, put
    return None
