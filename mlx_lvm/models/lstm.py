"""Long short-term memory: the context read in order, the last state projected back to an embedding.

h = LSTM(x)                          stacked layers, dropout between them
raw = W h_last + b,  unit = raw / |raw|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_lvm.config import Options, Range, model_option
from mlx_lvm.core.mlx import mx
from mlx_lvm.models import layers
from mlx_lvm.models.base import (
    WIDTHS,
    ModelConfig,
    Prediction,
    Products,
    Shapes,
    VectorModel,
    count_layers,
    normalize,
)


@dataclass(frozen=True)
class LSTMConfig(ModelConfig):
    model_type: ClassVar[str] = "lstm"
    title: ClassVar[str] = "lstm"

    hidden_dim: int = model_option(512, "width of the state", low=1, high=65536)
    layers: int = model_option(2, "stacked layers", low=1, high=64)
    dropout: float = model_option(
        0.2, "share of the state zeroed between layers while training", low=0, below=1
    )


class LSTM(VectorModel):
    """Context [batch, length, dim] -> Prediction.

    5,120,768 parameters at the default sizes. Torch twin: `mlx_lvm.parity.twins.lstm.LSTM`.
    """

    config_class = LSTMConfig
    title = "LSTM"
    presets = ("best", "seed")
    search: ClassVar = {"dropout": Range(0.0, 0.5), "hidden_dim": WIDTHS}
    small: ClassVar = {"dim": 48, "hidden_dim": 32, "layers": 2}

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

    @classmethod
    def products(cls, config: Any, context: int) -> Products:
        """The first state of every layer is zero, and costs nothing."""
        h = config.hidden_dim
        first, recurrent = context * config.dim * 4 * h, (context - 1) * 4 * h * h
        others = (config.layers - 1) * (context * 4 * h * h + recurrent)
        return Products(first + recurrent + others + h * config.dim, first)

    @classmethod
    def sizes_in(cls, shapes: Shapes) -> Options | None:
        match shapes:
            case {"lstm.weight_ih_l0": (gates, dim)}:
                layers = count_layers(shapes, r"lstm\.weight_ih_l(\d{1,3})$")
                return {"dim": dim, "hidden_dim": gates // 4, "layers": layers}
        return None
