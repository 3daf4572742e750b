"""Recurrent and attention layers with torch's names, layouts, biases, initial laws and places of dropout.

`mlx.nn` has layers of these names, but its LSTM and GRU fuse torch's two bias vectors and are one layer deep,
and its MultiHeadAttention splits the input projection and has no dropout: neither can hold torch's weights as
they are.
"""

from __future__ import annotations

import math
from typing import Any

from mlx_lvm.core.activations import on_cpu, sigmoid, tanh
from mlx_lvm.core.linux_cpu import tuning
from mlx_lvm.core.mlx import mx, nn


def affine(x: mx.array, weight: mx.array, offset: mx.array) -> mx.array:
    """x W^T + offset: x [..., dim], weight [units, dim], offset [units] or of the result's shape.

    MLX would take the weight's gradient as the transpose of x^T g, and whatever reads it next (the norm,
    AdamW) would walk through it across its rows: four times the time of a step's update on a CPU. Here it is
    g^T x, row by row.
    """
    result: mx.array = _affine(x, weight, offset)
    return result


def _affine_gradients(
    primals: tuple[mx.array, mx.array, mx.array], gradient: mx.array, result: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    x, weight, offset = primals
    rows = gradient.reshape(-1, weight.shape[0])
    of_offset = gradient if offset.shape == gradient.shape else rows.sum(axis=0)
    return gradient @ weight, rows.T @ x.reshape(-1, weight.shape[1]), of_offset


_affine: Any = mx.custom_function(lambda x, weight, offset: mx.addmm(offset, x, weight.T))
_affine.vjp(_affine_gradients)


class Linear(nn.Linear):
    """x W^T + b with torch's initial law, as `torch.nn.Linear`; `bias=False` leaves b out."""

    def __call__(self, x: mx.array) -> mx.array:
        return affine(x, self.weight, self.bias) if "bias" in self else x @ self.weight.T


class Recurrent(nn.Module):
    """What LSTM and GRU share: parameters `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`,
    `weight_ih_l1`, ...

    Every weight and bias starts uniform in +-1/sqrt(hidden), as in torch. Dropout falls between layers, never
    on the last. Shapes follow torch's default, steps first: [length, batch, dim] -> [length, batch, hidden].
    """

    gates = 0  # blocks of `hidden` rows in each weight
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")

    def __init__(self, dim: int, hidden_dim: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden_dim, self.layers = hidden_dim, layers
        self.dropout = nn.Dropout(dropout)
        bound, rows = 1 / math.sqrt(hidden_dim), self.gates * hidden_dim
        for layer in range(layers):
            shapes = ((rows, hidden_dim if layer else dim), (rows, hidden_dim), (rows,), (rows,))
            for name, shape in zip(self.names, shapes, strict=True):
                self[f"{name}_l{layer}"] = mx.random.uniform(-bound, bound, shape)

    def __call__(self, x: mx.array) -> mx.array:
        for layer in range(self.layers):
            weights = [self[f"{name}_l{layer}"] for name in self.names]
            x = self.run(self.dropout(x) if layer else x, *weights)
        return x

    def run(
        self, x: mx.array, weight_ih: mx.array, weight_hh: mx.array, bias_ih: mx.array, bias_hh: mx.array
    ) -> mx.array:
        """One layer over all steps."""
        raise NotImplementedError

    def _extra_repr(self) -> str:
        return f"dim={self['weight_ih_l0'].shape[1]}, hidden_dim={self.hidden_dim}, layers={self.layers}"


class LSTM(Recurrent):
    """Long short-term memory, as `torch.nn.LSTM`.

    i, f, g, o = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
    c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
    h_t = sigmoid(o) tanh(c_t)
    """

    gates = 4

    def run(
        self, x: mx.array, weight_ih: mx.array, weight_hh: mx.array, bias_ih: mx.array, bias_hh: mx.array
    ) -> mx.array:
        cell = mx.zeros((x.shape[1], self.hidden_dim), x.dtype)
        steps: list[mx.array] = []
        for gates in by_step(affine(x, weight_ih, bias_ih + bias_hh)):
            gates = affine(steps[-1], weight_hh, gates) if steps else gates
            hidden, cell = lstm_cell(cell, *mx.split(gates, 4, axis=-1))
            steps.append(hidden)
        return mx.stack(steps)


class GRU(Recurrent):
    """Gated recurrent unit, as `torch.nn.GRU`: the reset gate scales what W_hh made of the state, its bias
    included.

    r = sigmoid(W_ir x_t + b_ir + W_hr h_{t-1} + b_hr),  z likewise
    n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn))
    h_t = (1 - z) n + z h_{t-1}
    """

    gates = 3

    def run(
        self, x: mx.array, weight_ih: mx.array, weight_hh: mx.array, bias_ih: mx.array, bias_hh: mx.array
    ) -> mx.array:
        hidden = mx.zeros((x.shape[1], self.hidden_dim), x.dtype)
        steps: list[mx.array] = []
        for gates in by_step(affine(x, weight_ih, bias_ih)):
            from_hidden = affine(hidden, weight_hh, bias_hh) if steps else bias_hh[None]
            hidden = gru_cell(hidden, *mx.split(gates, 3, axis=-1), *mx.split(from_hidden, 3, axis=-1))
            steps.append(hidden)
        return mx.stack(steps)


def by_step(x: mx.array) -> list[mx.array]:
    """[length, ...] as its steps. A split's gradient is one concatenation; that of indexing, padded sums."""
    return [step.squeeze(0) for step in mx.split(x, x.shape[0])]


@mx.compile
def lstm_cell(
    cell: mx.array, i: mx.array, f: mx.array, g: mx.array, o: mx.array
) -> tuple[mx.array, mx.array]:
    """The cell and four gates before their functions, each [batch, hidden] -> the next hidden and cell."""
    cell = sigmoid(f) * cell + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(cell), cell


@mx.compile
def gru_cell(
    hidden: mx.array,
    r: mx.array,
    z: mx.array,
    n: mx.array,
    r_hidden: mx.array,
    z_hidden: mx.array,
    n_hidden: mx.array,
) -> mx.array:
    """The state, and what W_ih and what W_hh give for each gate, all [batch, hidden] -> the next state."""
    z = sigmoid(z + z_hidden)
    n = tanh(n + sigmoid(r + r_hidden) * n_hidden)
    return (1 - z) * n + z * hidden


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention over `heads` heads, as `torch.nn.MultiheadAttention` with `batch_first`.

    head_h = dropout(softmax(q_h k_h^T / sqrt(d / heads) + mask)) v_h
    out = W_out [head_1, ..., head_n] + b_out

    q, k and v are the three blocks of rows of `in_proj_weight` [3 d, d]. It starts Xavier uniform as one
    matrix, within +-sqrt(6 / 4d); both biases start at zero and `out_proj.weight` by Linear's law.
    Shapes: query [batch, queries, d], memory [batch, keys, d] -> [batch, queries, d]; mask [queries, keys] is
    added.
    """

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        bound = math.sqrt(6 / (dim + 3 * dim))
        self.in_proj_weight = mx.random.uniform(-bound, bound, (3 * dim, dim))
        self.in_proj_bias = mx.zeros((3 * dim,))
        self.out_proj = Linear(dim, dim)
        self.out_proj.bias = mx.zeros((dim,))
        self.dropout = nn.Dropout(dropout)

    def __call__(self, query: mx.array, memory: mx.array, mask: mx.array | None = None) -> mx.array:
        q, k, v = (self.split_heads(x) for x in self.project(query, memory))
        scores = similarity(q * self.scale, k)
        attention = mx.softmax(scores if mask is None else scores + mask, axis=-1, precise=True)
        heads = mixture(self.dropout(attention), v)
        return self.out_proj(heads.swapaxes(1, 2).flatten(2))

    def project(self, query: mx.array, memory: mx.array) -> tuple[mx.array, ...]:
        """q, k and v with as few products of matrices as the inputs allow: one where both are one array."""
        weight, bias = self.in_proj_weight, self.in_proj_bias
        if query is memory:
            return tuple(mx.split(affine(query, weight, bias), 3, axis=-1))
        (w_q, w_kv), (b_q, b_kv) = mx.split(weight, [weight.shape[1]]), mx.split(bias, [weight.shape[1]])
        return (affine(query, w_q, b_q), *mx.split(affine(memory, w_kv, b_kv), 2, axis=-1))

    def split_heads(self, x: mx.array) -> mx.array:
        """[batch, length, d] -> [batch, heads, length, d / heads]."""
        return mx.unflatten(x, -1, (self.heads, -1)).swapaxes(1, 2)

    def _extra_repr(self) -> str:
        return f"dim={self.in_proj_weight.shape[1]}, heads={self.heads}"


def similarity(q: mx.array, k: mx.array) -> mx.array:
    """q k^T of every head: [..., queries, d], [..., keys, d] -> [..., queries, keys]."""
    if prefer_broadcast(q, k):
        return (q[..., :, None, :] * k[..., None, :, :]).sum(-1)
    return q @ k.swapaxes(-1, -2)


def mixture(attention: mx.array, v: mx.array) -> mx.array:
    """The values weighted by the attention: [..., queries, keys], [..., keys, d] -> [..., queries, d]."""
    if prefer_broadcast(attention, v):
        return (attention[..., None] * v[..., None, :, :]).sum(-2)
    return attention @ v


def prefer_broadcast(left: mx.array, right: mx.array) -> bool:
    """Whether one broadcast product beats a call of the CPU's BLAS for every head of every window.

    MKL wakes its threads for every few rows: at a context of 5 and a batch of 32 this makes the forward pass
    of the default transformer eight times as fast. Over more rows the product costs more than it saves.
    OpenBLAS multiplies small matrices on one thread, a tenth faster than this is; Metal and CUDA multiply all
    heads in one kernel.
    """
    return (
        "mkl" in tuning().blas.name
        and left.shape[-2] * right.shape[-2] <= 32
        and left.dtype == mx.float32
        and on_cpu()
    )


def causal_mask(length: int, dtype: mx.Dtype = mx.float32) -> mx.array:
    """[length, length]: 0 where a position may look (itself and before), -inf after it."""
    return mx.triu(mx.full((length, length), -mx.inf, dtype), k=1)
