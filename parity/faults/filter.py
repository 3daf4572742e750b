"""Faults of the lag filter: which chunks it reads, its mean and its centroid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mlx_lvm.core.mlx import mx
from mlx_lvm.models import Prediction
from mlx_lvm.models import filter as filter_module
from mlx_lvm.parity.faults.planting import Fault, Plant, call

END = ""  # without a layer


def faults() -> Iterator[Fault]:
    """Told by the output alone: a filter has no layers."""

    def forward(change: Callable[[Any, mx.array], mx.array]) -> Plant:
        def run(self: Any, original: Callable, context: mx.array) -> Prediction:
            raw = original(self, context).raw + change(self, context)
            return Prediction(raw, filter_module.normalize(raw))

        return call("", run)

    def rest(self: Any, context: mx.array, lagged: mx.array) -> mx.array:
        """What is missing from the lags' part when the chunks `lagged`, last first, stand in their place."""
        length, lags = context.shape[1], self.config.lags
        right = context[:, [max(length - 1 - lag, 0) for lag in range(lags)]]
        return self.lag_weights @ lagged - self.lag_weights @ right

    def lagged(self: Any, context: mx.array, shift: int) -> mx.array:
        return context[:, [max(context.shape[1] - 1 - lag - shift, 0) for lag in range(self.config.lags)]]

    for name, change in {
        "lags from the first chunk on": lambda self, x: rest(
            self, x, x[:, [min(k, x.shape[1] - 1) for k in range(self.config.lags)]]
        ),
        "lags one too many": lambda self, x: rest(self, x, lagged(self, x, 1)),
        "nothing where the first chunk is passed": lambda self, x: rest(
            self, x, lagged(self, x, 0) * (mx.arange(self.config.lags) < x.shape[1])[:, None]
        ),
        "mean taken with weight 1": lambda self, x: (1 - self.mean_weight) * self.mean,
        "no centroid": lambda self, x: -self.centroid_weight * x.mean(axis=1),
        "centroid of the chunks before the last": lambda self, x: (
            self.centroid_weight * (x[:, :-1].mean(axis=1) - x.mean(axis=1))
        ),
    }.items():
        yield Fault(f"filter: {name}", "filter", ("raw",), forward(change))
