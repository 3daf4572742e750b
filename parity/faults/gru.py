"""Faults of the GRU: gates, the place of its reset gate, residuals and norms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import layers
from mlx_lvm.parity.faults.planting import Fault, Plant, call, layer_function, method
from mlx_lvm.parity.faults.recurrent import last_step, permuted, recurrent, transposed


def faults() -> Iterator[Fault]:
    """Its own."""
    first = "blocks.0.gru"

    def fault(name: str, tap: str, plant: Plant) -> Fault:
        return Fault(f"gru: {name}", "gru", (f"{first}.l0.{tap}",), plant)

    yield fault("gates r and z swapped", "t0.r", recurrent(first, permuted((1, 0, 2))))
    yield fault("gates z and n swapped", "t0.z", recurrent(first, permuted((0, 2, 1))))
    yield fault("input bias dropped", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, 0 * c, d)))
    yield fault("hidden bias dropped", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, c, 0 * d)))
    yield fault("hidden bias twice", "t0.r", recurrent(first, lambda a, b, c, d: (a, b, c, 2 * d)))
    for gate, (name, hidden) in enumerate((("r", "r"), ("z", "z"), ("n", "n_hidden"))):
        yield fault(
            f"hidden weights of gate {name} transposed",
            f"t1.{hidden}",
            recurrent(first, transposed(1, gate, 3)),
        )
        yield fault(
            f"input weights of gate {name} transposed", f"t0.{name}", recurrent(first, transposed(0, gate, 3))
        )

    def with_cell(function: Callable) -> Plant:
        def gru_cell(
            hidden: mx.array,
            r: mx.array,
            z: mx.array,
            n: mx.array,
            r_hidden: mx.array,
            z_hidden: mx.array,
            n_hidden: mx.array,
        ) -> mx.array:
            return function(hidden, mx.sigmoid(r + r_hidden), mx.sigmoid(z + z_hidden), n, n_hidden)

        return layer_function("gru_cell", gru_cell)

    yield fault(
        "candidate without the reset gate",
        "t0.h",
        with_cell(lambda h, r, z, n, m: (1 - z) * mx.tanh(n + m) + z * h),
    )
    yield fault(
        "reset gate on the whole candidate",
        "t0.h",
        with_cell(lambda h, r, z, n, m: (1 - z) * mx.tanh(r * (n + m)) + z * h),
    )
    yield fault(
        "update gate inverted", "t0.h", with_cell(lambda h, r, z, n, m: z * mx.tanh(n + r * m) + (1 - z) * h)
    )
    yield fault(
        "candidate by sigmoid",
        "t0.h",
        with_cell(lambda h, r, z, n, m: (1 - z) * mx.sigmoid(n + r * m) + z * h),
    )

    def reset_first(
        self: Any,
        original: Callable,
        x: mx.array,
        w_ih: mx.array,
        w_hh: mx.array,
        b_ih: mx.array,
        b_hh: mx.array,
    ) -> mx.array:
        """The other GRU of the literature: W_hn (r h) in place of r (W_hn h + b_hn)."""
        hidden, steps = mx.zeros((x.shape[1], w_hh.shape[1])), []
        for t in range(x.shape[0]):
            given = mx.split(x[t] @ w_ih.T + b_ih, 3, axis=-1)
            w, b = mx.split(w_hh, 3), mx.split(b_hh, 3)
            r_h, z_h = hidden @ w[0].T + b[0], hidden @ w[1].T + b[1]
            n_h = (mx.sigmoid(given[0] + r_h) * hidden) @ w[2].T + b[2]
            hidden = layers.gru_cell(hidden, *given, r_h, z_h, n_h)
            steps.append(hidden)
        return mx.stack(steps)

    yield fault("reset gate before the product", "t1.n_hidden", method(first, "run", reset_first))
    yield Fault(
        "gru: no residual",
        "gru",
        ("blocks.0.norm <-",),
        call("blocks.0", lambda self, original, x: self.norm(self.gru(x))),
    )
    yield Fault("gru: norm before the residual", "gru", ("blocks.0.norm <-", "blocks.1.gru <-"), call(
        "blocks.0", lambda self, original, x: x + self.norm(self.gru(x))
    ))  # fmt: skip
    yield Fault(
        "gru: norm of the input",
        "gru",
        ("blocks.0.gru <-",),
        call("blocks.0", lambda self, original, x: x + self.gru(self.norm(x))),
    )
    yield Fault(
        "gru: the first step in place of the last",
        "gru",
        ("blocks.1", "output_proj <-"),
        last_step("blocks.1", 0),
    )
    yield Fault(
        "gru: chunks in reverse",
        "gru",
        ("input_proj <-",),
        call("", lambda self, original, x: original(self, x[:, ::-1])),
    )
