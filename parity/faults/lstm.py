"""Faults of the LSTM: gates swapped, weights transposed, states and biases in the wrong place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import layers
from mlx_lvm.parity.faults.planting import REVERSED, Fault, method, of, patch, replacing
from mlx_lvm.parity.faults.recurrent import last_step, permuted, recurrent, transposed


def faults() -> Iterator[Fault]:
    """Its own, and one change that nothing can notice."""

    fault = of("lstm")

    def changed(name: str, gate: str, change: Callable) -> Fault:
        """Other weights, as (w_ih, w_hh, b_ih, b_hh), than the layer's own."""
        return fault(name, f"lstm.l0.t0.{gate}", recurrent("lstm", change))

    yield changed("gates i and f swapped", "i", permuted((1, 0, 2, 3)))
    yield changed("gates g and o swapped", "g", permuted((0, 1, 3, 2)))
    yield changed("gates in the order f, i, o, g", "i", permuted((1, 0, 3, 2)))
    yield changed("input bias dropped", "i", lambda a, b, c, d: (a, b, 0 * c, d))
    yield changed("hidden bias dropped", "i", lambda a, b, c, d: (a, b, c, 0 * d))
    yield changed("input bias twice", "i", lambda a, b, c, d: (a, b, 2 * c, d))
    one = mx.repeat(mx.array([0.0, 1, 0, 0]), 32)
    yield changed("one added to the forget bias", "f", lambda a, b, c, d: (a, b, c + one, d))
    for gate, name in enumerate("ifgo"):
        turned = recurrent("lstm", transposed(1, gate, 4))
        yield fault(f"hidden weights of gate {name} transposed", f"lstm.l0.t1.{name}", turned)

    sigmoid, tanh = mx.sigmoid, mx.tanh

    def standard(cell: mx.array, i: mx.array, f: mx.array, g: mx.array) -> mx.array:
        return sigmoid(f) * cell + sigmoid(i) * tanh(g)

    def gated(o: mx.array, new: mx.array) -> mx.array:
        return sigmoid(o) * tanh(new)

    def cell(name: str, tap: str, new: Callable = standard, out: Callable = gated) -> Fault:
        """new(c, i, f, g) in place of the layer's new cell, or out(o, new cell) of its hidden state."""

        # taps are named by its parameters
        def lstm_cell(cell, i, f, g, o):  # type: ignore[no-untyped-def]
            after = new(cell, i, f, g)
            return out(o, after), after

        return fault(name, f"lstm.l0.{tap}", replacing(layers, "lstm_cell", lstm_cell))

    yield cell("no tanh on the cell", "t0.h", out=lambda o, new: sigmoid(o) * new)
    yield cell("candidate by sigmoid", "t0.c", lambda c, i, f, g: standard(c, i, f, 2 * g))
    yield cell("output gate by tanh", "t0.h", out=lambda o, new: tanh(o) * tanh(new))
    yield cell("coupled gates, f = 1 - i", "t1.c", lambda c, i, f, g: standard(c, i, -i, g))
    yield fault("the first step in place of the last", "lstm", last_step("lstm", 0))
    yield fault("the step before the last", "lstm", last_step("lstm", -2))
    yield fault("chunks in reverse", "lstm <-", REVERSED)
    skipped = method("lstm", "run", lambda self, original, x, *w: original(self, x, *w)[::-1])
    yield fault("one layer skipped", ("lstm.l0", "lstm"), skipped)
    dropout = "dropout does nothing in evaluation"
    yield fault("another dropout rate", (), lambda model: patch(model.lstm.dropout, "_p_1", 0.5), dropout)
