"""Torch twin of the lag filter, lag by lag as the formula reads.

raw = sum_k a_k x_{t-k} + b m + g mean(x);  a lag before the first chunk takes the first;  unit = raw / |raw|
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mlx_lvm.parity.twins.base import Prediction, Twin, is_chunk, normalize


class Filter(Twin):
    """Contexts may begin with rows of zeros, which are no chunks."""

    model_type: ClassVar[str] = "filter"
    defaults: ClassVar = {"dim": 768, "lags": 5, "centroid": False}

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        self.lag_weights = nn.Parameter(torch.zeros(self.config.lags))
        self.mean = nn.Parameter(torch.zeros(self.config.dim))
        self.mean_weight = nn.Parameter(torch.zeros(1))
        if self.config.centroid:
            self.centroid_weight = nn.Parameter(torch.zeros(1))

    def forward(self, context: Tensor) -> Prediction:
        batch, length, _ = context.shape
        present = is_chunk(context)
        first = torch.where(present.any(dim=1), present.int().argmax(dim=1), 0)
        raw = (self.mean_weight * self.mean).expand(batch, -1)
        for lag in range(self.config.lags):
            row = torch.maximum(torch.full_like(first, length - 1 - lag), first)
            raw = raw + self.lag_weights[lag] * context[torch.arange(batch), row]
        if self.config.centroid:
            total = torch.where(present[..., None], context, torch.zeros_like(context)).sum(dim=1)
            raw = raw + self.centroid_weight * total / present.sum(dim=1, keepdim=True).clamp(min=1)
        return Prediction(raw, normalize(raw, dim=-1))
