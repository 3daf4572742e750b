"""Torch twin of the LSTM: `torch.nn.LSTM`, its last step projected back to the width of the embeddings."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from mlx_lvm.parity.twins.base import Prediction, Twin, normalize


class LSTM(Twin):
    """raw = output_proj(LSTM(x)[:, -1]). Dropout lies between the recurrent layers, where torch puts it."""

    model_type: ClassVar[str] = "lstm"
    defaults: ClassVar = {"dim": 768, "hidden_dim": 512, "layers": 2, "dropout": 0.2}

    def __init__(self, config: object = None) -> None:
        super().__init__(config)
        size = self.config
        dropout = size.dropout if size.layers > 1 else 0.0  # torch warns of dropout that has no place
        self.lstm = nn.LSTM(
            size.dim, size.hidden_dim, num_layers=size.layers, dropout=dropout, batch_first=True
        )
        self.output_proj = nn.Linear(size.hidden_dim, size.dim)

    def forward(self, context: Tensor) -> Prediction:
        hidden, _ = self.lstm(context)
        raw = self.output_proj(hidden[:, -1])
        return Prediction(raw, normalize(raw, dim=-1))
