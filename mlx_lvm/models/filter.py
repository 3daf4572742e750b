"""Lag filter: the baseline that weighs what was read by age alone, as a model that files and PyTorch hold.

raw_t = sum_k a_k x_{t-k} + b m + g mean(x)

The same scalars for every dimension; a lag that reaches before the first chunk takes that first chunk.
Nothing trains it: `mlx_lvm.predictors.lags` fits it by least squares. A row of zeros is no chunk, as for
RAMN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import Options, model_option
from mlx_lvm.core.mlx import mx
from mlx_lvm.models.base import MAX_CONTEXT, ModelConfig, Prediction, Shapes, VectorModel, is_chunk, normalize

GROUPS = 16  # of dimensions


@dataclass(frozen=True)
class FilterConfig(ModelConfig):
    model_type: ClassVar[str] = "filter"
    title: ClassVar[str] = "filter"

    lags: int = model_option(5, "last chunks that have a weight of their own", low=1, high=MAX_CONTEXT)
    centroid: bool = model_option(False, "whether the mean of everything read has a weight too")

    @property
    def history(self) -> int:
        return MAX_CONTEXT if self.centroid else self.lags


class Filter(VectorModel):
    """Context [batch, length, dim] -> Prediction; 774 parameters at the default sizes, 768 of them m.

    Unfitted it is the mean of the last chunks. Torch twin: `mlx_lvm.parity.twins.filter.Filter`.
    """

    config_class = FilterConfig
    title = "Lag filter"
    task = "fitted"
    small: ClassVar = {"dim": 48, "lags": 4, "centroid": True}

    config: FilterConfig

    def __init__(self, config: FilterConfig) -> None:
        super().__init__(config)
        self.lag_weights = mx.full((config.lags,), 1 / config.lags)
        self.mean = mx.zeros((config.dim,))
        self.mean_weight = mx.zeros((1,))
        if config.centroid:
            self.centroid_weight = mx.zeros((1,))

    def __call__(self, context: mx.array) -> Prediction:
        self.check_context(context)
        batch, length, dim = context.shape
        present = is_chunk(context)
        first = mx.argmax(present, axis=1, keepdims=True)
        rows = mx.stop_gradient(mx.maximum(length - 1 - mx.arange(self.config.lags), first))
        parts = [
            mx.take_along_axis(context, rows[..., None], axis=1),
            mx.broadcast_to(self.mean, (batch, 1, dim)),
        ]
        weights = [self.lag_weights, self.mean_weight]
        if self.config.centroid:
            shares = present / mx.maximum(present.sum(axis=1, keepdims=True), 1)
            parts.append(shares.astype(context.dtype)[:, None, :] @ context)
            weights.append(self.centroid_weight)
        # A product for each group of dimensions, so that the gradients of the scalars are products too, and
        # short ones: MLX's CPU and OpenBLAS add long sums one after the other.
        groups = math.gcd(dim, GROUPS)
        read = mx.unflatten(mx.concatenate(parts, axis=1), -1, (groups, -1)).swapaxes(1, 2)
        each = mx.broadcast_to(mx.concatenate(weights), (groups, 1, read.shape[2]))
        raw = mx.flatten(each @ read, 1)
        return Prediction(raw, normalize(raw))

    @classmethod
    def sizes_in(cls, shapes: Shapes) -> Options | None:
        match shapes:
            case {"lag_weights": (lags,), "mean": (dim,), "mean_weight": (1,)}:
                return {"dim": dim, "lags": lags, "centroid": "centroid_weight" in shapes}
        return None
