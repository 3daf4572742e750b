"""Attention mixture network (AMN): a learned correction of the context's mean.

b = mean(x)                                     the baseline
w = softmax(W_k x . W_q b / sqrt(a))            attention over the context
r = residual_net([b, sum_i w_i x_i])            the correction
raw = b + r,  unit = raw / |raw|
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_lvm.config import Options, model_option
from mlx_lvm.core.activations import GELU
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.models.base import WIDTHS, ModelConfig, Prediction, Products, Shapes, VectorModel, normalize
from mlx_lvm.models.layers import Linear, mixture, similarity


@dataclass(frozen=True)
class AMNConfig(ModelConfig):
    model_type: ClassVar[str] = "amn"
    title: ClassVar[str] = "amn"

    attention_dim: int = model_option(256, "width of query and key", low=1, high=16384)
    hidden_dim: int = model_option(
        512, "first width of the residual network; the second is half of it", low=2, high=65536
    )


class AMN(VectorModel):
    """Context [batch, length, dim] -> Prediction with attention [batch, length], baseline and residual
    [batch, dim].

    1,510,912 parameters at the default sizes. Torch twin: `mlx_lvm.parity.twins.amn.AMN`.
    """

    config_class = AMNConfig
    title = "Attention mixture network"
    # It starts at the mean of its context and leaves it too fast at the default learning rate.
    recipes: ClassVar = {"amn": {"lr": 3e-5}}
    presets = ("best", "seed")
    search: ClassVar = {"hidden_dim": WIDTHS}
    small: ClassVar = {"dim": 48, "attention_dim": 24, "hidden_dim": 32}

    config: AMNConfig

    def __init__(self, config: AMNConfig) -> None:
        super().__init__(config)
        half = config.hidden_dim // 2
        self.context_encoder = Linear(config.dim, config.attention_dim)
        self.query_encoder = Linear(config.dim, config.attention_dim)
        self.residual_net = [
            Linear(2 * config.dim, config.hidden_dim),
            GELU(),
            nn.LayerNorm(config.hidden_dim),
            Linear(config.hidden_dim, half),
            GELU(),
            nn.LayerNorm(half),
            Linear(half, config.dim),
        ]

    def __call__(self, context: mx.array) -> Prediction:
        self.check_context(context)
        baseline = context.mean(axis=1)
        attention = self.attend(context, baseline)
        weighted = mixture(attention[:, None, :], context).squeeze(1)
        residual = mx.concatenate([baseline, weighted], axis=-1)
        for layer in self.residual_net:
            residual = layer(residual)
        raw = baseline + residual
        return Prediction(raw, normalize(raw), attention, baseline, residual)

    @classmethod
    def products(cls, config: Any, context: int) -> Products:
        """Scores and mixture cost 2 length dim: the context is never projected."""
        d, a, h = config.dim, config.attention_dim, config.hidden_dim
        return Products(2 * d * a + 2 * context * d + 2 * d * h + h * (h // 2) + (h // 2) * d, d * a)

    @classmethod
    def sizes_in(cls, shapes: Shapes) -> Options | None:
        match shapes:
            case {"context_encoder.weight": (attention, dim), "residual_net.0.weight": (hidden, _)}:
                return {"dim": dim, "attention_dim": attention, "hidden_dim": hidden}
        return None

    def start_at_baseline(self) -> None:
        """The residual network's last layer becomes zero: the model begins as the mean of its context."""
        last = self.residual_net[-1]
        last.weight, last.bias = mx.zeros_like(last.weight), mx.zeros_like(last.bias)

    def attend(self, context: mx.array, baseline: mx.array) -> mx.array:
        """softmax(q . k_i / sqrt(a)) as [batch, length].

        q . (W_k x_i + b_k) = x_i . (W_k^T q) + const, and softmax ignores the constant: the context itself is
        never projected, a third of the model's work, and `context_encoder.bias` has no influence and a
        gradient of zero.
        """
        query = self.query_encoder(baseline) @ self.context_encoder.weight
        scores = similarity(query[:, None, :], context).squeeze(1)
        return mx.softmax(scores / math.sqrt(self.config.attention_dim), axis=-1, precise=True)
