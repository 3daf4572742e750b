"""A model among others that reads its own number of chunks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlx_lvm.core.mlx import mx
from mlx_lvm.data.windows import Windows
from mlx_lvm.predictors.base import ALL, Index, Predictor


@dataclass(frozen=True)
class OwnContext:
    """A model that reads its own number of chunks, whatever the windows hold."""

    inner: Predictor
    context: int

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def history(self) -> int | None:
        return self.inner.history

    def predict(self, windows: Windows, index: Index = ALL) -> mx.array:
        return self.inner.predict(replace(windows, context=self.context), index)
