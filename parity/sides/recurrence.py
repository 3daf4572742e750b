"""`torch.nn.LSTM` and `GRU` step by step, in torch's documented equations, to see their gates."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Tap = Callable[[str, Tensor], Tensor]


def steps_of(module: nn.LSTM | nn.GRU, x: Tensor, tap: Tap) -> Tensor:
    """Run a batch-first module over x [batch, length, dim], passing every gate before its function through
    `tap`.

    Taps: l<layer>.t<step>.<gate>; what `tap` returns goes on. The result is the module's output where tap
    returns its argument.
    """
    run: Callable[..., Tensor] = _lstm if isinstance(module, nn.LSTM) else _gru
    for layer, weights in enumerate(module.all_weights):  # of each w_ih, w_hh, b_ih, b_hh
        x = run(x, *weights, lambda at, value, layer=layer: tap(f"l{layer}.{at}", value))
    return x


def _lstm(x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, tap: Tap) -> Tensor:
    hidden = cell = x.new_zeros(x.shape[0], w_hh.shape[1])
    steps = []
    for t in range(x.shape[1]):
        gates = x[:, t] @ w_ih.T + b_ih + hidden @ w_hh.T + b_hh
        parts = zip("ifgo", gates.chunk(4, dim=-1), strict=True)
        i, f, g, o = (tap(f"t{t}.{name}", gate) for name, gate in parts)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        cell, hidden = tap(f"t{t}.c", cell), tap(f"t{t}.h", hidden)
        steps.append(hidden)
    return torch.stack(steps, dim=1)


def _gru(x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, tap: Tap) -> Tensor:
    hidden = x.new_zeros(x.shape[0], w_hh.shape[1])
    steps = []
    for t in range(x.shape[1]):
        given = (x[:, t] @ w_ih.T + b_ih).chunk(3, dim=-1)
        kept = (hidden @ w_hh.T + b_hh).chunk(3, dim=-1)
        r, z = tap(f"t{t}.r", given[0] + kept[0]), tap(f"t{t}.z", given[1] + kept[1])
        n, n_hidden = tap(f"t{t}.n", given[2]), tap(f"t{t}.n_hidden", kept[2])
        new = torch.tanh(n + torch.sigmoid(r) * n_hidden)
        update = torch.sigmoid(z)
        hidden = tap(f"t{t}.h", (1 - update) * new + update * hidden)
        steps.append(hidden)
    return torch.stack(steps, dim=1)
