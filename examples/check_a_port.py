"""Compare a port to MLX with its original in PyTorch, and find where it went wrong: a gated feed-forward
block whose layers have other names in MLX, with one fault, GELU where torch has SiLU.
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
        self.w1, self.w2, self.w3 = nn.Linear(dim, hidden), nn.Linear(hidden, dim), nn.Linear(dim, hidden)

    def __call__(self, x: mx.array) -> mx.array:
        y = self.norm(x)
        return x + self.w2(self.activation(self.w1(y)) * self.w3(y))


NAMES = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}  # MLX's name: torch's


def ported(original: torch.nn.Module, port: nn.Module) -> nn.Module:
    weights = {name: mx.array(value.numpy()) for name, value in original.state_dict().items()}
    for ours, theirs in NAMES.items():
        weights = {name.replace(theirs, ours): value for name, value in weights.items()}
    return port.load_weights(list(weights.items()))


if __name__ == "__main__":
    torch.manual_seed(0)
    original = Original()
    inputs = np.random.default_rng(0).standard_normal((2, 5, 32)).astype(np.float32)
    for activation in (nn.gelu, nn.silu):
        report = check(ported(original, Port(activation=activation)), original, inputs, NAMES)
        print(f"{activation.__name__}: {'passed' if report.passed else 'failed'}\n{report}\n")
