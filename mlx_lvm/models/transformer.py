"""Transformer decoder over the context, attending to itself and to its own embedded input, both causally.

m = W_in context + b_in + positions
x = m, then in every layer (norm after the sum):
    x = LayerNorm(x + self_attention(x))
    x = LayerNorm(x + attention(x, m))
    x = LayerNorm(x + W_2 relu(W_1 x))
raw = head(x_last),  unit = raw / |raw|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mlx_lvm.config import Options, Range, model_option
from mlx_lvm.core.activations import GELU
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.errors import Problems
from mlx_lvm.models.base import (
    MAX_CONTEXT,
    WIDTHS,
    ModelConfig,
    Prediction,
    Products,
    Shapes,
    VectorModel,
    count_layers,
    normalize,
)
from mlx_lvm.models.layers import Linear, MultiheadAttention, causal_mask


@dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    model_type: ClassVar[str] = "transformer"
    title: ClassVar[str] = "transformer"

    hidden_dim: int = model_option(512, "width of the layers", low=2, high=65536)
    layers: int = model_option(4, "decoder layers", low=1, high=64)
    heads: int = model_option(8, "attention heads; they share the width evenly", low=1, high=1024)
    ffn_dim: int = model_option(2048, "inner width of the feed-forward network", low=1, high=262144)
    dropout: float = model_option(
        0.1, "share zeroed while training, in attention and after every part", low=0, below=1
    )

    def check(self, problems: Problems) -> None:
        width = f"hidden_dim = {self.hidden_dim}"
        if self.hidden_dim % self.heads:
            problems.add(f"{width} does not divide into heads = {self.heads}; choose a multiple")
        if self.hidden_dim % 2:
            problems.add(f"{width} is odd; the positions need pairs of sine and cosine")


class PositionalEncoding(nn.Module):
    """Adds p[t, 2i] = sin(t / 10000^(2i/d)) and p[t, 2i+1] = cos(the same) to position t.

    The table `pe` [1, 100, d] is no parameter here (hence the underscore), but torch keeps it as a buffer.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        angle = np.arange(MAX_CONTEXT)[:, None] * 10000.0 ** (-np.arange(0, dim, 2) / dim)
        table = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(1, MAX_CONTEXT, dim)
        self._pe = mx.array(table.astype(np.float32))

    def __call__(self, x: mx.array) -> mx.array:
        return x + self._pe[:, : x.shape[1]].astype(x.dtype)


class DecoderLayer(nn.Module):
    """`torch.nn.TransformerDecoderLayer` with its defaults (norm after the sum, relu) and `batch_first`.

    Dropout on the attention weights, inside the feed-forward network and on what each of the parts adds.
    """

    def __init__(self, dim: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(dim, heads, dropout)
        self.multihead_attn = MultiheadAttention(dim, heads, dropout)
        self.linear1 = Linear(dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)
        self.linear2 = Linear(ffn_dim, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (nn.Dropout(dropout) for _ in range(3))

    def __call__(self, query: mx.array, x: mx.array, memory: mx.array, mask: mx.array | None) -> mx.array:
        """The positions `query` of x: [batch, queries, dim] -> the same. mask [queries, length] or None."""
        query = self.norm1(query + self.dropout1(self.self_attn(query, x, mask)))
        query = self.norm2(query + self.dropout2(self.multihead_attn(query, memory, mask)))
        return self.norm3(query + self.dropout3(self.linear2(self.dropout(nn.relu(self.linear1(query))))))


class Decoder(nn.Module):
    """Decoder layers without a final norm: [batch, length, dim] -> their last position, [batch, 1, dim].

    Every layer draws its own initial weights from the laws of torch's layer. (`torch.nn.TransformerDecoder`
    copies one layer, so that there all layers start equal: an accident of its constructor that we leave out.)
    """

    def __init__(self, layers: int, dim: int, heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.layers = [DecoderLayer(dim, heads, ffn_dim, dropout) for _ in range(layers)]

    def __call__(self, memory: mx.array) -> mx.array:
        x, mask = memory, causal_mask(memory.shape[1], memory.dtype)
        for layer in self.layers[:-1]:
            x = layer(x, x, memory, mask)
        # Nothing reads the other positions of the last layer, and the last one may look everywhere: no mask.
        return self.layers[-1](x[:, -1:], x, memory, None)


class Transformer(VectorModel):
    """Context [batch, length, dim] -> Prediction.

    17,867,520 parameters at the default sizes. Torch twin: `mlx_lvm.parity.twins.transformer.Transformer`.
    """

    config_class = TransformerConfig
    title = "Transformer decoder"
    recipes: ClassVar = {"transformer": {"lr": 3e-4, "dropout": 0.3}}
    presets = ("best", "seed")
    search: ClassVar = {"dropout": Range(0.0, 0.5), "hidden_dim": WIDTHS}
    small: ClassVar = {"dim": 48, "hidden_dim": 32, "layers": 2, "heads": 4, "ffn_dim": 64}
    not_in_shapes: ClassVar = {"heads": ("heads", "nhead", "num_heads", "n_heads")}

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        width = config.hidden_dim
        self.input_proj = Linear(config.dim, width)
        self.pos_encoder = PositionalEncoding(width)
        self.transformer_decoder = Decoder(config.layers, width, config.heads, config.ffn_dim, config.dropout)
        self.head = [Linear(width, width), GELU(), nn.LayerNorm(width), Linear(width, config.dim)]

    def __call__(self, context: mx.array) -> Prediction:
        self.check_context(context)
        raw = self.transformer_decoder(self.pos_encoder(self.input_proj(context))).squeeze(1)
        for layer in self.head:
            raw = layer(raw)
        return Prediction(raw, normalize(raw))

    def buffers(self) -> dict[str, mx.array]:
        return {"pos_encoder.pe": self.pos_encoder._pe}

    @classmethod
    def products(cls, config: Any, context: int) -> Products:
        """The last layer computes one position."""
        h, f, d = config.hidden_dim, config.ffn_dim, config.dim

        def layer(queries: int) -> float:
            projections = (2 * queries + 2 * context) * h * h  # query and output; key and value
            attention = projections + 2 * queries * context * h  # and scores and mixture
            return 2 * attention + 2 * queries * h * f

        first = context * d * h
        return Products(first + (config.layers - 1) * layer(context) + layer(1) + h * h + h * d, first)

    @classmethod
    def sizes_in(cls, shapes: Shapes) -> Options | None:
        layers = count_layers(shapes, r"transformer_decoder\.layers\.(\d{1,3})\.")
        match shapes:
            case {
                "input_proj.weight": (hidden, dim),
                "transformer_decoder.layers.0.linear1.weight": (ffn, _),
            }:
                return {"dim": dim, "hidden_dim": hidden, "layers": layers, "ffn_dim": ffn}
        return None
