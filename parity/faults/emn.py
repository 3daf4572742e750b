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

    def with_mean(self: Any, original: Callable, z: mx.array, present: mx.array, mean: mx.array) -> Any:
        return original(self, z + mean, present, mean)

    def uncounted(self: Any, original: Callable, gram: mx.array, tokens: mx.array, count: mx.array) -> Any:
        return original(self, gram, tokens, 0 * count)

    def other_rows(self: Any, original: Callable, *given: mx.array) -> Any:
        corrections, scale = original(self, *given)
        return rolled(corrections), scale

    def rolled(x: mx.array) -> mx.array:
        return mx.concatenate([x[..., 1:], x[..., :1]], axis=-1)

    first = "expert.basis <-"
    short = features(lambda each, every, scale: (each, every * 0.999, scale))
    turned = features(lambda each, every, scale: (each, every[..., ::-1], scale))
    one_on = features(lambda each, every, scale: (rolled(each), every, scale))
    silent = method("expert", "__call__", lambda self, original, rows: 0 * original(self, rows))
    slow = kernels(lambda k: k * (mx.arange(20)[:, None] != 18))
    yield fault("ages counted from the first chunk", first, kernels(lambda k: k[:, ::-1]))
    yield fault("ages one too high", first, kernels(lambda k: mx.concatenate([k[:, 1:], k[:, :1]], axis=1)))
    yield fault("slowest average missing", first, slow)
    yield fault("chunks with the mean left in", first, method("", "rows", with_mean))
    yield fault("the expert left out", "every_in <-", silent)
    yield fault("lengths without the unit", "every_in <-", short)
    yield fault("pairs in another order", "every_in <-", turned)
    yield fault("references one row on", "each_in <-", one_on)
    yield fault("what was read not counted", "every_in <-", method("", "corrections", uncounted))
    yield fault("corrections of another row", ("residual", "raw"), method("", "corrections", other_rows))
    yield fault("corrections a tenth too large", ("residual", "raw"), lambda model: patch(emn, "STEP", 0.11))
