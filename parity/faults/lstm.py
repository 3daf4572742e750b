"""Faults of the LSTM: gates swapped, weights transposed, states and biases in the wrong place."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mlx_lvm.core.mlx import mx
from mlx_lvm.parity.faults.planting import Fault, Plant, call, layer_function, method, patch
from mlx_lvm.parity.faults.recurrent import last_step, permuted, recurrent, transposed


def faults() -> Iterator[Fault]:
    """Its own, and one change that nothing can notice."""

    def fault(name: str, gates: str, plant: Plant) -> Fault:
        return Fault(f"lstm: {name}", "lstm", tuple(f"lstm.l0.t0.{gate}" for gate in gates), plant)

    yield fault("gates i and f swapped", "i", recurrent("lstm", permuted((1, 0, 2, 3))))
    yield fault("gates g and o swapped", "g", recurrent("lstm", permuted((0, 1, 3, 2))))
    yield fault("gates in the order i, f, o, g", "g", recurrent("lstm", permuted((0, 1, 3, 2))))
    yield fault("gates in the order f, i, o, g", "i", recurrent("lstm", permuted((1, 0, 3, 2))))
    yield fault("input bias dropped", "i", recurrent("lstm", lambda a, b, c, d: (a, b, 0 * c, d)))
    yield fault("hidden bias dropped", "i", recurrent("lstm", lambda a, b, c, d: (a, b, c, 0 * d)))
    yield fault("input bias twice", "i", recurrent("lstm", lambda a, b, c, d: (a, b, 2 * c, d)))
    yield fault(
        "one added to the forget bias",
        "f",
        recurrent("lstm", lambda a, b, c, d: (a, b, c + mx.repeat(mx.array([0.0, 1, 0, 0]), 32), d)),
    )
    for gate, name in enumerate("ifgo"):
        yield Fault(
            f"lstm: hidden weights of gate {name} transposed",
            "lstm",
            (f"lstm.l0.t1.{name}",),
            recurrent("lstm", transposed(1, gate, 4)),
        )

    def with_cell(function: Callable) -> Plant:
        def lstm_cell(
            cell: mx.array, i: mx.array, f: mx.array, g: mx.array, o: mx.array
        ) -> tuple[mx.array, mx.array]:
            return function(cell, i, f, g, o)

        return layer_function("lstm_cell", lstm_cell)

    sigmoid, tanh = mx.sigmoid, mx.tanh

    def standard(cell: mx.array, i: mx.array, f: mx.array, g: mx.array) -> mx.array:
        return sigmoid(f) * cell + sigmoid(i) * tanh(g)

    yield fault(
        "no tanh on the cell",
        "h",
        with_cell(lambda c, i, f, g, o: (sigmoid(o) * (n := standard(c, i, f, g)), n)),
    )
    yield fault(
        "candidate by sigmoid",
        "c",
        with_cell(lambda c, i, f, g, o: (sigmoid(o) * tanh(n := standard(c, i, f, 2 * g)), n)),
    )
    yield fault(
        "output gate by tanh",
        "h",
        with_cell(lambda c, i, f, g, o: (tanh(o) * tanh(n := standard(c, i, f, g)), n)),
    )
    yield Fault(
        "lstm: coupled gates, f = 1 - i",
        "lstm",
        ("lstm.l0.t1.c",),
        with_cell(lambda c, i, f, g, o: (sigmoid(o) * tanh(n := standard(c, i, -i, g)), n)),
    )
    yield Fault("lstm: the first step in place of the last", "lstm", ("lstm",), last_step("lstm", 0))
    yield Fault("lstm: the step before the last", "lstm", ("lstm",), last_step("lstm", -2))
    yield Fault(
        "lstm: chunks in reverse",
        "lstm",
        ("lstm <-",),
        call("", lambda self, original, x: original(self, x[:, ::-1])),
    )
    yield Fault(
        "lstm: one layer skipped",
        "lstm",
        ("lstm.l0", "lstm"),
        method("lstm", "run", lambda self, original, x, *w: original(self, x, *w)[::-1]),
    )
    yield Fault(
        "lstm: another dropout rate",
        "lstm",
        (),
        lambda model: patch(model.lstm.dropout, "_p_1", 0.5),
        equivalent="dropout does nothing in evaluation",
    )
