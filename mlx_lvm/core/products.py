"""Whether products of float32 are float32, or rounded to TF32: 10 bits of mantissa, faster on M5 and CUDA.

MLX rounds by default where the device can. Here it does not unless a run, an evaluation or a prediction asks
for it: figures are then those of every other device. MLX reads `MLX_ENABLE_TF32` once, at the process's first
product, so a process has one kind; `mlx_lvm.core.mlx` sets it to 0 where nobody has set it.
"""

from __future__ import annotations

import os

import numpy as np

from mlx_lvm.core.mlx import TF32, mx
from mlx_lvm.errors import SetupInvalid

PROBE = 1 + 2.0**-12  # TF32 would round this to 1


def tf32_active() -> bool:
    """Whether products round their inputs to 10 bits: measured, on matrices, because a vector hides it."""
    product = np.array(mx.full((64, 64), PROBE) @ mx.eye(64))
    return bool(np.abs(product - np.float32(PROBE)).max() > 2.0**-14)


def choose(precision: str) -> None:
    """From now on multiply in TF32 for precision "tf32", in full for any other.

    Raises SetupInvalid on a device without TF32, and in a process that has multiplied otherwise before.
    """
    wanted = precision == "tf32"
    os.environ[TF32] = str(int(wanted))
    if tf32_active() == wanted:
        return
    if wanted:
        raise SetupInvalid(
            f"--precision tf32: products stay float32 on {mx.default_device()} (an M5 and NVIDIA GPUs round; "
            "or this process has multiplied already, in which case start it with MLX_ENABLE_TF32=1). Omit "
            "the option."
        )
    raise SetupInvalid(
        f"--precision {precision}: this process multiplies in TF32 already; start it with MLX_ENABLE_TF32=0, "
        "or give --precision tf32"
    )
