"""Parity: one safetensors file computed in MLX and in PyTorch, with a float64 run of PyTorch as the arbiter.

`check(mlx_module, torch_module, inputs, names=None)` compares any port with its original; see
`mlx_lvm.parity.port`. Torch twins of the models live one in a file, `twins/<type>.py`, with the names and
order of `mlx_lvm.models`. Importing this package loads neither torch nor MLX; `setup.prepare` must run before
MLX's first operation.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_lvm.parity.port import PortReport, check

__all__ = ["PortReport", "check"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.port"), name)
