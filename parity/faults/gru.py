"""Faults of the GRU: gates, the place of its reset gate, residuals and norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import layers
from mlx_lvm.parity.faults.planting import REVERSED, Fault, Plant, call, method, of, replacing
from mlx_lvm.parity.faults.recurrent import last_step, permuted, recurrent, transposed


def faults() -> Iterator[Fault]:
    """Its own."""
    fault, first = of("gru"), "blocks.0.gru"

    def inside(name: str, tap: str, plant: Plant) -> Fault:
        return fault(name, f"{first}.l0.{tap}", plant)

    yield inside("gates r and z swapped", "t0.r", recurrent(first, permuted((1, 0, 2))))
    yield inside("gates z and n swapped", "t0.z", recurrent(first, permuted((0, 2, 1))))
    yield inside("input bias dropped", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, 0 * c, d)))
    yield inside("hidden bias dropped", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, c, 0 * d)))
    yield inside("hidden bias twice", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, c, 2 * d)))
    for gate, (name, hidden) in enumerate((("r", "r"), ("z", "z"), ("n", "n_hidden"))):
        for weights, tap in (("hidden", f"t1.{hidden}"), ("input", f"t0.{name}")):
            turned = transposed(int(weights == "hidden"), gate, 3)
            yield inside(f"{weights} weights of gate {name} transposed", tap, recurrent(first, turned))

    sigmoid, tanh = mx.sigmoid, mx.tanh

    def cell(name: str, function: Callable[..., mx.array]) -> Fault:
        # taps are named by its parameters
        def gru_cell(hidden, r, z, n, r_hidden, z_hidden, n_hidden):  # type: ignore[no-untyped-def]
            return function(hidden, sigmoid(r + r_hidden), sigmoid(z + z_hidden), n, n_hidden)

        return inside(name, "t0.h", replacing(layers, "gru_cell", gru_cell))

    yield cell("candidate without the reset gate", lambda h, r, z, n, m: (1 - z) * tanh(n + m) + z * h)
    yield cell("reset gate on the whole candidate", lambda h, r, z, n, m: (1 - z) * tanh(r * (n + m)) + z * h)
    yield cell("update gate inverted", lambda h, r, z, n, m: z * tanh(n + r * m) + (1 - z) * h)
    yield cell("candidate by sigmoid", lambda h, r, z, n, m: (1 - z) * sigmoid(n + r * m) + z * h)

    def reset_first(self: Any, original: Callable, x: mx.array, *weights: mx.array) -> mx.array:
        """The other GRU of the literature: W_hn (r h) in place of r (W_hn h + b_hn)."""
        w_ih, w_hh, b_ih, b_hh = weights
        hidden, steps = mx.zeros((x.shape[1], w_hh.shape[1])), []
        for t in range(x.shape[0]):
            given = mx.split(x[t] @ w_ih.T + b_ih, 3, axis=-1)
            w, b = mx.split(w_hh, 3), mx.split(b_hh, 3)
            r_h, z_h = hidden @ w[0].T + b[0], hidden @ w[1].T + b[1]
            n_h = (sigmoid(given[0] + r_h) * hidden) @ w[2].T + b[2]
            hidden = layers.gru_cell(hidden, *given, r_h, z_h, n_h)
            steps.append(hidden)
        return mx.stack(steps)

    def block(name: str, expect: str | tuple[str, ...], run: Callable[[Any, mx.array], mx.array]) -> Fault:
        return fault(name, expect, call("blocks.0", lambda self, original, x: run(self, x)))

    yield inside("reset gate before the product", "t1.n_hidden", method(first, "run", reset_first))
    yield block("no residual", "blocks.0.norm <-", lambda s, x: s.norm(s.gru(x)))
    before = ("blocks.0.norm <-", "blocks.1.gru <-")
    yield block("norm before the residual", before, lambda s, x: x + s.norm(s.gru(x)))
    yield block("norm of the input", "blocks.0.gru <-", lambda s, x: x + s.gru(s.norm(x)))
    ends = ("blocks.1", "output_proj <-")
    yield fault("the first step in place of the last", ends, last_step("blocks.1", 0))
    yield fault("chunks in reverse", "input_proj <-", REVERSED)
