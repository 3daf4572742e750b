"""Torch twin of the GRU: residual blocks of `torch.nn.GRU` and LayerNorm."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mlx_lvm.parity.twins.base import Prediction, Twin, normalize


class GRUBlock(nn.Module):
    """LayerNorm(x + GRU(x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.gru(x)[0])


class GRU(Twin):
    """raw = output_proj(last step of the blocks over input_proj(x)). No dropout."""

    model_type: ClassVar[str] = "gru"
    defaults: ClassVar = {"dim": 768, "hidden_dim": 512, "layers": 4}

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        size = self.config
        self.input_proj = nn.Linear(size.dim, size.hidden_dim)
        self.blocks = nn.ModuleList(GRUBlock(size.hidden_dim) for _ in range(size.layers))
        self.output_proj = nn.Linear(size.hidden_dim, size.dim)

    def forward(self, context: Tensor) -> Prediction:
        hidden = self.input_proj(context)
        for block in self.blocks:
            hidden = block(hidden)
        raw = self.output_proj(hidden[:, -1])
        return Prediction(raw, normalize(raw, dim=-1))
