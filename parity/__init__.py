"""Parity: one safetensors file computed in MLX and in PyTorch, with a float64 run of PyTorch as the arbiter.

Torch twins of the models live one in a file, `twins/<type>.py`, with the names and order of `mlx_lvm.models`.
Importing this package loads neither torch nor MLX; `setup.prepare` must run before MLX's first operation.
"""
