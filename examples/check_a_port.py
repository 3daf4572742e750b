"""Compare a port to MLX with its original in PyTorch, and find where it went wrong.

The port is a gated feed-forward block whose layers have other names in MLX, with one fault: GELU where torch
has SiLU.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import torch

from mlx_lvm.parity import check


class Original(torch.nn.Module):
    def __init__(self, dim: int = 32, hidden: int = 64) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(dim)
        self.gate_proj, self.up_proj = torch.nn.Linear(dim, hidden), torch.nn.Linear(dim, hidden)
        self.down_proj = torch.nn.Linear(hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        return x + self.down_proj(torch.nn.functional.silu(self.gate_proj(y)) * self.up_proj(y))


class Port(nn.Module):
    def __init__(self, dim: int = 32, hidden: int = 64, activation=nn.gelu) -> None:  # the fault
        super().__init__()
        self.activation = activation
        self.norm = nn.LayerNorm(dim)
        self.w1, self.w3 = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.w2 = nn.Linear(hidden, dim)

    def __call__(self, x: mx.array) -> mx.array:
        y = self.norm(x)
        return x + self.w2(self.activation(self.w1(y)) * self.w3(y))


NAMES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}  # MLX's name: torch's


def ported(original: torch.nn.Module, port: nn.Module) -> nn.Module:
    """The port with the original's weights."""
    back = {new: old for old, new in NAMES.items()}
    for name, value in original.state_dict().items():
        layer, _, last = name.partition(".")
        port.update({back.get(layer, layer): {last: mx.array(value.numpy())}})
    return port


if __name__ == "__main__":
    torch.manual_seed(0)
    original = Original()
    inputs = np.random.default_rng(0).standard_normal((2, 5, 32)).astype(np.float32)
    for activation in (nn.gelu, nn.silu):
        report = check(ported(original, Port(activation=activation)), original, inputs, NAMES)
        print(f"{activation.__name__}: {'passed' if report.passed else 'failed'}\n{report}\n")
