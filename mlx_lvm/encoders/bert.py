"""BERT, as `transformers.BertModel` computes it (Devlin et al. 2019): all-MiniLM, bge, e5, gte.

x = LayerNorm(word + position + type 0);   x = LayerNorm(x + attention(x));   x = LayerNorm(x + W2 gelu(W1 x))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mlx_lvm.config import option
from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.encoders.base import Block, EncoderConfig, TextModel
from mlx_lvm.encoders.layers import ACTIVATIONS, LayerNorm, Linear, attend
from mlx_lvm.errors import Problems


@dataclass(frozen=True)
class LayersConfig(EncoderConfig):
    """What BERT and the encoders with its layers are made of."""

    vocab_size: int = option(30522, "tokens", low=2)
    hidden_size: int = option(768, "width of a token's vector", low=1)
    num_hidden_layers: int = option(12, "layers", low=1)
    num_attention_heads: int = option(12, "heads of the attention", low=1)
    intermediate_size: int = option(3072, "width inside the feed-forward network", low=1)
    hidden_act: str = option("gelu", "its activation", choices=tuple(ACTIVATIONS))
    max_position_embeddings: int = option(512, "rows of the table of positions", low=3)
    layer_norm_eps: float = option(1e-12, "added to a variance", low=0)

    def check(self, problems: Problems) -> None:
        if self.hidden_size % self.num_attention_heads:
            problems.add(
                f"hidden_size = {self.hidden_size} does not divide into {self.num_attention_heads} heads"
            )

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def scale(self) -> float:
        """Of the attention's scores."""
        return (self.hidden_size // self.num_attention_heads) ** -0.5


@dataclass(frozen=True)
class BertConfig(LayersConfig):
    title: ClassVar[str] = "BERT"
    model_type: ClassVar[str] = "bert"
    fixed: ClassVar[dict[str, tuple[Any, ...]]] = {
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
    }

    type_vocab_size: int = option(2, "kinds of segments", low=1)

    @property
    def positions(self) -> int | None:
        return self.max_position_embeddings


class Embeddings(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, ids: mx.array) -> mx.array:
        places = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + self.token_type_embeddings.weight[0] + places)


class SelfAttention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.heads, self.scale = config.num_attention_heads, config.scale
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        return attend(self.query(x), self.key(x), self.value(x), self.heads, self.scale, bias)


class Residual(nn.Module):
    """LayerNorm(x + W y + b)."""

    def __init__(self, inputs: int, config: LayersConfig) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, y: mx.array, x: mx.array) -> mx.array:
        return self.LayerNorm(self.dense(y) + x)


class Attention(nn.Module):
    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = Residual(config.hidden_size, config)

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        return self.output(self.self(x, bias), x)


class Intermediate(nn.Module):
    def __init__(self, config: LayersConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)
        self.activation = config.hidden_act

    def __call__(self, x: mx.array) -> mx.array:
        return ACTIVATIONS[self.activation](self.dense(x))


class Layer(Block):
    """`attention(x, bias)` is the architecture's own, with its residual and norm."""

    def __init__(self, config: LayersConfig, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention
        self.intermediate = Intermediate(config)
        self.output = Residual(config.intermediate_size, config)

    def halves(self, x: mx.array, bias: mx.array) -> Iterator[mx.array]:
        x = self.attention(x, bias)
        yield x
        yield self.output(self.intermediate(x), x)


class Stack(nn.Module):
    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layer = layers


class LayeredModel(TextModel):
    """An embedding, and a stack of these layers."""

    @property
    def blocks(self) -> Sequence[Layer]:
        return self.encoder.layer

    def embed(self, ids: mx.array) -> mx.array:
        return self.embeddings(ids)


class BertModel(LayeredModel):
    """Every text is one segment, of type 0. The pooler is left out: no sentence vector reads it."""

    ignored = ("pooler.", "cls.", "embeddings.position_ids", "embeddings.token_type_ids")
    prefix = "bert."

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Stack([Layer(config, Attention(config)) for _ in range(config.num_hidden_layers)])
