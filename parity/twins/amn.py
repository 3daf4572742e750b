"""Torch twin of the attention mixture network.

b = mean(x);  w = softmax((W_q b) . (W_k x_i) / sqrt(a));  raw = b + residual_net([b, sum_i w_i x_i])
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mlx_lvm.parity.twins.base import Prediction, Twin, normalize


class AMN(Twin):
    """Attention as DESIGN has it: every context vector is projected, nothing is reordered."""

    model_type: ClassVar[str] = "amn"
    defaults: ClassVar = {"dim": 768, "attention_dim": 256, "hidden_dim": 512}

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        dim, attention, hidden = self.config.dim, self.config.attention_dim, self.config.hidden_dim
        self.context_encoder = nn.Linear(dim, attention)
        self.query_encoder = nn.Linear(dim, attention)
        self.residual_net = nn.Sequential(
            nn.Linear(2 * dim, hidden),
            nn.GELU(),
            nn.LayerNorm(hidden),
            nn.Linear(hidden, hidden // 2),
            nn.GELU(),
            nn.LayerNorm(hidden // 2),
            nn.Linear(hidden // 2, dim),
        )

    def forward(self, context: Tensor) -> Prediction:
        baseline = context.mean(dim=1)
        query = self.query_encoder(baseline)
        keys = self.context_encoder(context)
        scores = torch.einsum("ba,bla->bl", query, keys) / math.sqrt(self.config.attention_dim)
        attention = torch.softmax(scores, dim=-1)
        weighted = torch.einsum("bl,bld->bd", attention, context)
        residual = self.residual_net(torch.cat([baseline, weighted], dim=-1))
        raw = baseline + residual
        return Prediction(raw, normalize(raw, dim=-1), attention, baseline, residual)
