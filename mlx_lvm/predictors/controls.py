"""Predictors that test the metrics and bound what is possible. No claims: two of them read the answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import ALL, Index, ReadsContext


@dataclass(frozen=True)
class Oracle(ReadsContext):
    """The truth itself: perfect in every metric, or the metric is wrong."""

    name: str = "oracle"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return windows.truth(index)


@dataclass(frozen=True)
class BestInSpan(ReadsContext):
    """The truth projected onto the span of its context: no mixture of the context has a higher cosine."""

    name: str = "best-in-span"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        context, truth = windows.contexts(index), windows.truth(index)
        gram = np.array(context @ context.swapaxes(1, 2), dtype=np.float64)
        inner = np.array((context @ truth[:, :, None]).squeeze(-1), dtype=np.float64)
        size = gram.shape[1]
        # Repeated chunks would make it singular.
        gram += 1e-6 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / size * np.eye(size)
        weights = np.linalg.solve(gram, inner[:, :, None])
        return (mx.array(weights.astype(np.float32)).swapaxes(1, 2) @ context).squeeze(1)


@dataclass(frozen=True)
class RandomVector(ReadsContext):
    """A direction drawn from (seed, target row): at chance in every metric, or the metric is wrong."""

    seed: int = 0
    name: str = "random"

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        dim = windows.corpus.dim
        draws = [
            np.random.default_rng((self.seed, int(row))).standard_normal(dim, dtype=np.float32)
            for row in windows.targets[index]
        ]
        return mx.array(np.stack(draws))
