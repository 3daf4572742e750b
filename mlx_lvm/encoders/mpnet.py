"""MPNet, as `transformers.MPNetModel` computes it (Song et al. 2020): all-mpnet-base-v2.

BERT's layers, but positions are counted from 2 on over what is no padding, there are no segments, and every
layer's attention adds one and the same bias by relative position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_lvm.config import option
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.encoders import bert
from mlx_lvm.encoders.base import key_bias
from mlx_lvm.encoders.bert import Layer, LayeredModel, LayersConfig
from mlx_lvm.encoders.layers import LayerNorm, Linear, attend
from mlx_lvm.encoders.positions import position_bias

PADDING = 1  # token id that has no position of its own; transformers fixes it, whatever `pad_token_id` says
FURTHEST = 128  # distance from which on all share a bucket


@dataclass(frozen=True)
class MPNetConfig(LayersConfig):
    title: ClassVar[str] = "MPNet"
    model_type: ClassVar[str] = "mpnet"
    # transformers counts into 32 buckets whatever the table's length is
    fixed: ClassVar[dict[str, tuple[Any, ...]]] = {"relative_attention_num_buckets": (32,)}

    vocab_size: int = option(30527, "tokens", low=2)
    relative_attention_num_buckets: int = option(32, "buckets of relative positions", low=4)

    @property
    def positions(self) -> int | None:
        return self.max_position_embeddings - PADDING - 1


class Embeddings(nn.Module):
    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, ids: mx.array) -> mx.array:
        return self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(places(ids)))


def places(ids: mx.array) -> mx.array:
    """1, 2, ... after PADDING over what is no padding, which a padding token named in a text is too."""
    counted = (ids != PADDING).astype(mx.int32)
    return mx.cumsum(counted, axis=1) * counted + PADDING


class SelfAttention(nn.Module):
    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.heads, self.scale = config.num_attention_heads, config.scale
        self.q = Linear(config.hidden_size, config.hidden_size)
        self.k = Linear(config.hidden_size, config.hidden_size)
        self.v = Linear(config.hidden_size, config.hidden_size)
        self.o = Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        return self.o(attend(self.q(x), self.k(x), self.v(x), self.heads, self.scale, bias))


class Attention(nn.Module):
    def __init__(self, config: MPNetConfig) -> None:
        super().__init__()
        self.attn = SelfAttention(config)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        return self.LayerNorm(self.attn(x, bias) + x)


class Stack(bert.Stack):
    """Its table of relative positions serves every layer."""

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__([Layer(config, Attention(config)) for _ in range(config.num_hidden_layers)])
        buckets = config.relative_attention_num_buckets
        self.relative_attention_bias = nn.Embedding(buckets, config.num_attention_heads)


class MPNetModel(LayeredModel):
    ignored = ("pooler.", "lm_head.", "embeddings.position_ids")
    prefix = "mpnet."

    def __init__(self, config: MPNetConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Stack(config)

    def bias(self, mask: mx.array) -> mx.array:
        table = self.encoder.relative_attention_bias.weight
        return position_bias(table, mask.shape[1], FURTHEST, key_bias(mask, table.dtype))
