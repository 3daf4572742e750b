"""T5's encoder, as `transformers.T5EncoderModel` computes it (Raffel et al. 2020): gtr-t5, sentence-t5.

    x = word;   x = x + O attention(norm(x));   x = x + Wo relu(Wi norm(x));   and norm(x) at the end

norm(x) = w x / sqrt(mean(x^2) + eps). No biases, no scale in the attention, and the first layer's table of
relative positions serves every layer. Version 1.1 has gelu(Wi_0 x) * (Wi_1 x) in place of relu.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from mlx_lvm.config import option
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.encoders.base import Block, EncoderConfig, TextModel, key_bias
from mlx_lvm.encoders.layers import ACTIVATIONS, Linear, RMSNorm, attend
from mlx_lvm.encoders.positions import position_bias

FEED_FORWARD = ("relu", "gated-gelu")


@dataclass(frozen=True)
class T5Config(EncoderConfig):
    title: ClassVar[str] = "T5"
    model_type: ClassVar[str] = "t5"

    vocab_size: int = option(32128, "tokens", low=1)
    d_model: int = option(512, "width of a token's vector", low=1)
    d_kv: int = option(64, "width of a head", low=1)
    d_ff: int = option(2048, "width inside the feed-forward network", low=1)
    num_layers: int = option(6, "layers", low=1)
    num_heads: int = option(8, "heads of the attention", low=1)
    relative_attention_num_buckets: int = option(32, "buckets of relative positions", low=4)
    relative_attention_max_distance: int = option(128, "distance from which on all share a bucket", low=2)
    layer_norm_epsilon: float = option(1e-6, "added to a mean square", low=0)
    feed_forward_proj: str = option("relu", "what the feed-forward network does", choices=FEED_FORWARD)

    @property
    def width(self) -> int:
        return self.d_model


class SelfAttention(nn.Module):
    def __init__(self, config: T5Config, has_table: bool) -> None:
        super().__init__()
        self.heads, inner = config.num_heads, config.num_heads * config.d_kv
        self.q = Linear(config.d_model, inner, bias=False)
        self.k = Linear(config.d_model, inner, bias=False)
        self.v = Linear(config.d_model, inner, bias=False)
        self.o = Linear(inner, config.d_model, bias=False)
        if has_table:
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_heads
            )

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        return self.o(attend(self.q(x), self.k(x), self.v(x), self.heads, 1.0, bias))


class LayerSelfAttention(nn.Module):
    def __init__(self, config: T5Config, has_table: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, has_table)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        return x + self.SelfAttention(self.layer_norm(x), bias)


class DenseReluDense(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.gated = config.feed_forward_proj == "gated-gelu"
        for name in ("wi_0", "wi_1") if self.gated else ("wi",):
            setattr(self, name, Linear(config.d_model, config.d_ff, bias=False))
        self.wo = Linear(config.d_ff, config.d_model, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        if self.gated:
            return self.wo(ACTIVATIONS["gelu_new"](self.wi_0(x)) * self.wi_1(x))
        return self.wo(ACTIVATIONS["relu"](self.wi(x)))


class LayerFF(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = DenseReluDense(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def __call__(self, x: mx.array) -> mx.array:
        return x + self.DenseReluDense(self.layer_norm(x))


class Layer(Block):
    """`layer.0` attends, `layer.1` is the feed-forward network."""

    def __init__(self, config: T5Config, has_table: bool) -> None:
        super().__init__()
        self.layer = [LayerSelfAttention(config, has_table), LayerFF(config)]

    def halves(self, x: mx.array, bias: mx.array) -> Iterator[mx.array]:
        x = self.layer[0](x, bias)
        yield x
        yield self.layer[1](x)


class Stack(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = [Layer(config, has_table=number == 0) for number in range(config.num_layers)]
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


class T5EncoderModel(TextModel):
    ignored = ("decoder.", "lm_head.", "encoder.embed_tokens.")  # the last is another name of `shared`

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        self.furthest = config.relative_attention_max_distance
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config)

    @property
    def blocks(self) -> Sequence[Layer]:
        return self.encoder.block

    def embed(self, ids: mx.array) -> mx.array:
        return self.shared(ids)

    def bias(self, mask: mx.array) -> mx.array:
        table = self.blocks[0].layer[0].SelfAttention.relative_attention_bias.weight
        return position_bias(table, mask.shape[1], self.furthest, key_bias(mask, table.dtype))

    def finish(self, x: mx.array) -> mx.array:
        return self.encoder.final_layer_norm(x)
