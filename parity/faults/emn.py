"""Faults of EMN alone: its rows, its features, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import emn
from mlx_lvm.models.emn_geometry import invariants
from mlx_lvm.parity.faults.planting import Fault, Plant, method, of, patch

END = "each_out"


def faults() -> Iterator[Fault]:
    """Of head predict with an expert, which holds all but the whitened half of head rank."""

    fault = of("emn")

    def kernels(change: Callable[[mx.array], mx.array]) -> Plant:
        return lambda model: patch(model, "_kernels", change(model["_kernels"]))

    def features(change: Callable[..., Any]) -> Plant:
        def changed(*given: mx.array) -> Any:
            return change(*invariants(*given))

        return lambda model: patch(emn, "invariants", changed)

    first = "expert.basis <-"
    yield fault("ages counted from the first chunk", first, kernels(lambda k: k[:, ::-1]))
    yield fault("ages one too high", first, kernels(lambda k: mx.concatenate([k[:, 1:], k[:, :1]], axis=1)))
    yield fault("slowest average missing", first, kernels(lambda k: k * (mx.arange(20)[:, None] != 18)))
    yield fault("chunks with the mean left in", first, method(
        "", "rows", lambda self, original, z, present, mean: original(self, z + mean, present, mean)
    ))  # fmt: skip
    yield fault("the expert left out", "every_in <-", method(
        "expert", "__call__", lambda self, original, rows: 0 * original(self, rows)
    ))  # fmt: skip
    yield fault(
        "lengths without the unit",
        "every_in <-",
        features(lambda each, every, scale: (each, every * 0.999, scale)),
    )
    yield fault(
        "pairs in another order",
        "every_in <-",
        features(lambda each, every, scale: (each, every[..., ::-1], scale)),
    )
    yield fault("references one row on", "each_in <-", features(
        lambda each, every, scale: (mx.concatenate([each[..., 1:], each[..., :1]], axis=-1), every, scale)
    ))  # fmt: skip
    yield fault("what was read not counted", "every_in <-", method(
        "", "corrections", lambda self, original, gram, tokens, count: original(self, gram, tokens, 0 * count)
    ))  # fmt: skip
    yield fault("corrections of another row", ("residual", "raw"), method(
        "", "corrections", lambda self, original, *given: _rolled(*original(self, *given))
    ))  # fmt: skip
    yield fault("corrections a tenth too large", ("residual", "raw"), lambda model: patch(emn, "STEP", 0.11))


def _rolled(corrections: mx.array, scale: mx.array) -> tuple[mx.array, mx.array]:
    return mx.concatenate([corrections[..., 1:], corrections[..., :1]], axis=-1), scale
