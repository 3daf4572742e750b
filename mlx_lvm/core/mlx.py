"""The one place that imports MLX."""

from __future__ import annotations

import os

from mlx_lvm.errors import SetupInvalid

TF32 = "MLX_ENABLE_TF32"
os.environ.setdefault(TF32, "0")  # before MLX's first product; see `mlx_lvm.core.products`

try:
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
    from mlx.utils import tree_flatten, tree_map, tree_unflatten
except ImportError as error:
    raise SetupInvalid(
        f"MLX has no backend here ({error}). On Linux install one: pip install 'mlx-lvm[cpu]', or [cuda12] "
        "or [cuda13] for an NVIDIA GPU."
    ) from error

__all__ = ["TF32", "mx", "nn", "optim", "tree_flatten", "tree_map", "tree_unflatten"]
