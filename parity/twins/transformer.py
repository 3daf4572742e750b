"""Torch twin of the transformer: `torch.nn.TransformerDecoder` whose memory is its own embedded input."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from mlx_lvm.parity.twins.base import Prediction, Twin, causal_mask, normalize

POSITIONS = 100


class PositionalEncoding(nn.Module):
    """x + pe[:, :length]; pe[p, 2i] = sin(p / 10000^(2i/d)), pe[p, 2i + 1] its cos (Vaswani 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        place = torch.arange(POSITIONS, dtype=torch.float64)[:, None]
        rate = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10000.0) / width))
        table = torch.zeros(1, POSITIONS, width, dtype=torch.float64)
        table[0, :, 0::2] = torch.sin(place * rate)
        table[0, :, 1::2] = torch.cos(place * rate)[:, : width // 2]
        self.register_buffer("pe", table.to(torch.get_default_dtype()))
        self.pe: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


class Transformer(Twin):
    """raw = head(TransformerDecoder(e, memory=e)[:, -1]), e = input_proj(x) + positions; masked causally."""

    model_type: ClassVar[str] = "transformer"
    defaults: ClassVar = {
        "dim": 768,
        "hidden_dim": 512,
        "layers": 4,
        "heads": 8,
        "ffn_dim": 2048,
        "dropout": 0.1,
    }

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        size = self.config
        self.input_proj = nn.Linear(size.dim, size.hidden_dim)
        self.pos_encoder = PositionalEncoding(size.hidden_dim)
        sizes = (size.hidden_dim, size.heads, size.ffn_dim, size.dropout)
        layer = nn.TransformerDecoderLayer(*sizes, batch_first=True)
        self.transformer_decoder = nn.TransformerDecoder(layer, num_layers=size.layers)
        self.head = nn.Sequential(
            nn.Linear(size.hidden_dim, size.hidden_dim),
            nn.GELU(),
            nn.LayerNorm(size.hidden_dim),
            nn.Linear(size.hidden_dim, size.dim),
        )

    def forward(self, context: Tensor) -> Prediction:
        embedded = self.pos_encoder(self.input_proj(context))
        mask = causal_mask(context.shape[1], embedded)
        hidden = self.transformer_decoder(embedded, embedded, tgt_mask=mask, memory_mask=mask)
        raw = self.head(hidden[:, -1])
        return Prediction(raw, normalize(raw, dim=-1))
