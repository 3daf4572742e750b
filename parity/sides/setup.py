"""A set-up in which the verdict means something: float32 products, evaluation mode, torch's plain code."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Any

import numpy as np

from mlx_lvm.errors import SetupInvalid

TF32 = "MLX_ENABLE_TF32"
PROBE = 1 + 2.0**-12  # TF32 keeps 10 bits of the fraction and would round this to 1


def prepare() -> None:
    """Switch TF32 off. MLX reads the variable once, at its first product, so this comes before any."""
    if "mlx.core" not in sys.modules:
        os.environ[TF32] = "0"
    os.environ.setdefault(TF32, "0")


def require_valid() -> None:
    """Raises SetupInvalid where a side does not multiply matrices in float32; vectors would hide TF32."""
    import torch

    from mlx_lvm.core.mlx import mx

    # the fused inference kernel is another program than training's
    torch.backends.mha.set_fastpath_enabled(False)
    probe = np.eye(64, dtype=np.float32) * np.float32(PROBE)
    ones = np.ones((64, 64), dtype=np.float32)
    products = {
        "MLX": np.array(mx.array(probe) @ mx.array(ones)),
        "torch": (torch.from_numpy(probe) @ torch.from_numpy(ones)).numpy(),
    }
    for side, product in products.items():
        if not np.array_equal(product, ones * np.float32(PROBE)):
            raise SetupInvalid(
                f"{side} does not multiply in full float32 here: 1 + 2^-12 times 1 gave "
                f"{float(product[0, 0])!r}. TF32 is on; start again with {TF32}=0 in the environment."
            )


@lru_cache
def flushes_subnormals(device: Any) -> bool:
    """Whether `device`, the default one, takes subnormals for zero, as Metal does: one, doubled, is zero."""
    from mlx_lvm.core.mlx import mx

    subnormal = mx.array(1 << 10, mx.uint32).view(mx.float32)
    return bool((subnormal + subnormal).view(mx.uint32).item() == 0)


def require_evaluation(training: bool, side: str) -> None:
    """Raises SetupInvalid for a model in training mode: dropout would differ on the two sides."""
    if training:
        raise SetupInvalid(
            f"the {side} model is in training mode, where dropout makes every comparison worthless; call "
            ".eval() first"
        )
