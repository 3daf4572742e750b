"""Long short-term memory: the context read in order, the last state projected back to an embedding.

h = LSTM(x)                          stacked layers, dropout between them
raw = W h_last + b,  unit = raw / |raw|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import option
from mlx_lvm.core.mlx import mx
from mlx_lvm.models import layers
from mlx_lvm.models.base import ModelConfig, Prediction, VectorModel, normalize


@dataclass(frozen=True)
class LSTMConfig(ModelConfig):
    model_type: ClassVar[str] = "lstm"
    title: ClassVar[str] = "lstm"

    hidden_dim: int = option(512, "width of the state", low=1, high=65536, group="Model")
    layers: int = option(2, "stacked layers", low=1, high=64, group="Model")
    dropout: float = option(
        0.2, "share of the state zeroed between layers while training", low=0, below=1, group="Model"
    )


class LSTM(VectorModel):
    """Context [batch, length, dim] -> Prediction.

    5,120,768 parameters at the default sizes. Torch twin: `mlx_lvm.parity.twins.lstm.LSTM`.
    """

    config: LSTMConfig

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.lstm = layers.LSTM(config.dim, config.hidden_dim, config.layers, config.dropout)
        self.output_proj = layers.Linear(config.hidden_dim, config.dim)

    def __call__(self, context: mx.array) -> Prediction:
        self.check_context(context)
        hidden = self.lstm(context.swapaxes(0, 1))
        raw = self.output_proj(hidden[-1])
        return Prediction(raw, normalize(raw))
