"""Gated recurrent units in residual blocks: each reads the context in order and is normalised after.

x = W_in context + b_in
x = LayerNorm(x + GRU(x))            in every block
raw = W_out x_last + b_out,  unit = raw / |raw|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_lvm.config import Options, model_option
from mlx_lvm.core.mlx import mx, nn
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
class GRUConfig(ModelConfig):
    model_type: ClassVar[str] = "gru"
    title: ClassVar[str] = "gru"

    hidden_dim: int = model_option(512, "width of the state", low=1, high=65536)
    layers: int = model_option(4, "residual blocks", low=1, high=64)


class GRUBlock(nn.Module):
    """LayerNorm(x + GRU(x)), [length, batch, hidden] -> the same."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.gru = layers.GRU(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)

    def __call__(self, x: mx.array) -> mx.array:
        return self.norm(x + self.gru(x))


class GRU(VectorModel):
    """Context [batch, length, dim] -> Prediction.

    7,095,552 parameters at the default sizes. Torch twin: `mlx_lvm.parity.twins.gru.GRU`.
    """

    config_class = GRUConfig
    title = "GRU"
    recipes: ClassVar = {"gru": {"lr": 1e-4}}
    presets = ("best", "seed")
    search: ClassVar = {"hidden_dim": WIDTHS}
    small: ClassVar = {"dim": 48, "hidden_dim": 32, "layers": 2}

    config: GRUConfig

    def __init__(self, config: GRUConfig) -> None:
        super().__init__(config)
        self.input_proj = layers.Linear(config.dim, config.hidden_dim)
        self.blocks = [GRUBlock(config.hidden_dim) for _ in range(config.layers)]
        self.output_proj = layers.Linear(config.hidden_dim, config.dim)

    def __call__(self, context: mx.array) -> Prediction:
        self.check_context(context)
        x = self.input_proj(context.swapaxes(0, 1))
        for block in self.blocks:
            x = block(x)
        raw = self.output_proj(x[-1])
        return Prediction(raw, normalize(raw))

    @classmethod
    def products(cls, config: Any, context: int) -> Products:
        """The first state of every block is zero, and costs nothing."""
        h = config.hidden_dim
        first = context * config.dim * h
        return Products(first + config.layers * (2 * context - 1) * 3 * h * h + h * config.dim, first)

    @classmethod
    def sizes_in(cls, shapes: Shapes) -> Options | None:
        layers = count_layers(shapes, r"blocks\.(\d{1,3})\.gru\.")
        match shapes:
            case {"input_proj.weight": (hidden, dim)} if layers:
                return {"dim": dim, "hidden_dim": hidden, "layers": layers}
        return None
