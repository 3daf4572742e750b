"""Layers of a transformer encoder, with torch's parameters."""

from __future__ import annotations

from collections.abc import Callable

from mlx_lvm.core.activations import scalar_library, tanh
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.encoders import kernels


class LayerNorm(nn.LayerNorm):
    def __call__(self, x: mx.array) -> mx.array:
        if scalar_library(x):
            return kernels.layer_norm(x, self.weight, self.bias, self.eps)
        return super().__call__(x)


class RMSNorm(nn.RMSNorm):
    def __call__(self, x: mx.array) -> mx.array:
        return kernels.rms_norm(x, self.weight, self.eps) if scalar_library(x) else super().__call__(x)


class Linear(nn.Module):
    """x W^T + b, as `torch.nn.Linear`. It starts at zero: weights come from a file."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = mx.zeros((outputs, inputs))
        if bias:
            self.bias = mx.zeros((outputs,))

    def __call__(self, x: mx.array) -> mx.array:
        if "bias" not in self:
            return x @ self.weight.T
        if scalar_library(x):  # there addmm copies the bias into every row first, number by number
            return x @ self.weight.T + self.bias
        return mx.addmm(self.bias, x, self.weight.T)

    def _extra_repr(self) -> str:
        return f"inputs={self.weight.shape[1]}, outputs={self.weight.shape[0]}, bias={'bias' in self}"


def attend(q: mx.array, k: mx.array, v: mx.array, heads: int, scale: float, bias: mx.array) -> mx.array:
    """softmax(scale q k^T + bias) v in each of `heads` heads, of q, k, v and to [batch, length, width].

    bias broadcasts to [batch, heads, length, length].
    """
    q, k, v = (mx.unflatten(x, -1, (heads, -1)).swapaxes(1, 2) for x in (q, k, v))
    if scalar_library(q):
        mixed = kernels.attention(q, k, v, scale, bias)
    else:
        mixed = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=bias)
    return mixed.swapaxes(1, 2).flatten(2)


def gelu(x: mx.array) -> mx.array:
    """x Phi(x), exact, as `torch.nn.GELU()`."""
    return kernels.gelu(x) if scalar_library(x) else nn.gelu(x)


def gelu_tanh(x: mx.array) -> mx.array:
    """GELU by its tanh approximation (`gelu_new` and `gelu_pytorch_tanh` of transformers)."""
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": gelu,
    "relu": nn.relu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
}
