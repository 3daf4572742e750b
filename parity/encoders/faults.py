"""Faults of encoders, each a mistake that somebody makes, to be caught and blamed on its place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.encoders import bert, layers, mpnet, pooling, positions, t5
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.encoders.layers import ACTIVATIONS, Linear
from mlx_lvm.parity.faults.planting import patch, replacing

Plant = Callable[[TextEncoder], AbstractContextManager[None]]
ALL = ("bert", "mpnet", "t5")
_places, _buckets, _rms = mpnet.places, positions.buckets, layers.RMSNorm.__call__
FIRST = ("encoder.layer.0", "encoder.block.0")
MODULES: dict[str, Any] = {"bert": bert, "mpnet": mpnet, "t5": t5}


@dataclass(frozen=True)
class Fault:
    """`plant(encoder)` is a context in which it holds. `expect`: beginnings of the place to be blamed."""

    name: str
    plant: Plant
    expect: tuple[str, ...]
    kinds: tuple[str, ...] = ALL
    where: Callable[[TextEncoder], bool] = lambda encoder: True

    def fits(self, encoder: TextEncoder) -> bool:
        """Whether the encoder has what the fault spoils."""
        return encoder.model.config.model_type in self.kinds and self.where(encoder)


def epsilon(encoder: TextEncoder) -> AbstractContextManager[None]:
    """1e-5 where the file says less, and 1e-12 where it says 1e-5."""
    for module in encoder.model.modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            module.eps = 1e-12 if module.eps > 2e-6 else 1e-5
    return nullcontext()


def attention(change: Callable[..., mx.array]) -> Plant:
    """`attend` of the encoder's architecture replaced by change(attend, q, k, v, heads, scale, bias)."""

    def plant(encoder: TextEncoder) -> AbstractContextManager[None]:
        owner, original = MODULES[encoder.model.config.model_type], layers.attend
        return patch(owner, "attend", lambda *given: change(original, *given))

    return plant


def other_scale(attend: Callable, q: Any, k: Any, v: Any, heads: int, scale: float, bias: Any) -> mx.array:
    """1 for d^-1/2 and the other way round."""
    return attend(q, k, v, heads, (q.shape[-1] // heads) ** -0.5 if scale == 1 else 1.0, bias)


def heads_interleaved(
    attend: Callable, q: Any, k: Any, v: Any, heads: int, scale: float, bias: Any
) -> mx.array:
    """Neighbouring numbers to different heads."""

    def turned(x: mx.array, rows: int) -> mx.array:
        return mx.unflatten(x, -1, (rows, -1)).swapaxes(-1, -2).flatten(-2)

    q, k, v = (turned(x, x.shape[-1] // heads) for x in (q, k, v))
    return turned(attend(q, k, v, heads, scale, bias), heads)


def of_mask(change: Callable[[mx.array], mx.array]) -> Plant:
    """What is added to the scores, changed."""

    def plant(encoder: TextEncoder) -> AbstractContextManager[None]:
        original = encoder.model.bias
        return patch(encoder.model, "bias", lambda mask: change(original(mask)))

    return plant


def bias_in_the_first_layer_only(encoder: TextEncoder) -> AbstractContextManager[None]:
    kind = type(encoder.model.blocks[0])

    class Alone(kind):  # type: ignore[misc, valid-type]
        def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
            return super().__call__(x, mx.where(bias == -mx.inf, bias, mx.zeros_like(bias)))

    for block in encoder.model.blocks[1:]:
        block.__class__ = Alone
    return nullcontext()


def bert_from_one(self: Any, ids: mx.array) -> mx.array:
    """Positions counted from 1."""
    places = mx.arange(ids.shape[1]) + 1
    rows = self.position_embeddings(mx.minimum(places, self.position_embeddings.weight.shape[0] - 1))
    return self.LayerNorm(self.word_embeddings(ids) + self.token_type_embeddings.weight[0] + rows)


def bert_without_type(self: Any, ids: mx.array) -> mx.array:
    rows = self.position_embeddings.weight[: ids.shape[1]]
    return self.LayerNorm(self.word_embeddings(ids) + rows)


def subtracting_norm(self: Any, x: mx.array) -> mx.array:
    """The mean taken off, as BERT's norm does."""
    return _rms(self, x - x.mean(axis=-1, keepdims=True))


def residual_after_norm(self: Any, x: mx.array) -> mx.array:
    x = self.layer_norm(x)
    return x + self.DenseReluDense(x)


def special_left_out(encoder: TextEncoder) -> AbstractContextManager[None]:
    tokens, ends = encoder.tokens, encoder.tokens.special

    def ids(texts: Any) -> list[list[int]]:
        before = 1 if ends > 1 else 0
        return [row[before:-1] or row for row in type(tokens).ids(tokens, texts)]

    return patch(tokens, "ids", ids)


def padding_counted(ids: mx.array) -> mx.array:
    return mx.broadcast_to(mx.arange(ids.shape[1]) + 2, ids.shape)


def gelu(name: str) -> Callable[[TextEncoder], bool]:
    """Whether it is the encoder's activation."""

    def where(encoder: TextEncoder) -> bool:
        config: Any = encoder.model.config
        if config.model_type == "t5":
            return name == "gelu_new" and config.feed_forward_proj != "relu"
        return bool(config.hidden_act == name)

    return where


def reads_far(encoder: TextEncoder) -> bool:
    """Whether halving the last distance moves a bucket within the texts that it reads."""
    return encoder.tokens.longest > 16


def counted_padding(encoder: TextEncoder) -> AbstractContextManager[None]:
    class Everything(pooling.Pooling):
        def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
            return super().__call__(x, mx.ones_like(mask))

    return patch(encoder, "pooling", Everything(encoder.pooling.modes, encoder.pooling.include_prompt))


def mean_of_all(encoder: TextEncoder) -> AbstractContextManager[None]:
    return patch(encoder, "pooling", pooling.Pooling(("mean",)))


def no_activation(encoder: TextEncoder) -> AbstractContextManager[None]:
    return patch(encoder.denses[0], "activation", "Identity")


def has_active_dense(encoder: TextEncoder) -> bool:
    return bool(encoder.denses) and encoder.denses[0].activation != "Identity"


def half_as_far(length: int, count: int, furthest: int) -> Any:
    return _buckets(length, count, furthest // 2)


def acts(name: str, other: Callable) -> Plant:
    return replacing(ACTIVATIONS, name, other)


def calls(owner: Any, other: Callable) -> Plant:
    return replacing(owner, "__call__", other)


def places(other: Callable[[mx.array], mx.array]) -> Plant:
    return replacing(mpnet, "places", other)


def buckets(other: Callable[[int, int, int], Any]) -> Plant:
    return replacing(positions, "buckets", other)


EMBEDDED, BLOCK, POSITIONS = ("embeddings",), ("encoder.block.0",), ("positions",)
LAYER1, NORM = ("encoder.layer.1", "encoder.block.1"), ("encoder.final_layer_norm",)
POOLED, DENSE, TOKENS = ("pooling",), ("2.dense",), ("tokens",)
BERT, MPNET, T5, RELATIVE = ("bert",), ("mpnet",), ("t5",), ("mpnet", "t5")
FAULTS: tuple[Fault, ...] = (
    Fault("another epsilon in the norms", epsilon, EMBEDDED + BLOCK),
    Fault("GELU by its tanh approximation", acts("gelu", layers.gelu_tanh), FIRST, ALL, gelu("gelu")),
    Fault("GELU exact where the file says tanh", acts("gelu_new", layers.gelu), FIRST, ALL, gelu("gelu_new")),
    Fault("padding is looked at", of_mask(lambda bias: mx.maximum(bias, -50.0) * (bias > -49)), FIRST),
    Fault("padding is looked at a little", of_mask(lambda bias: mx.maximum(bias, -4.0)), FIRST),
    Fault("attention with the wrong scale", attention(other_scale), FIRST),
    Fault("heads interleaved", attention(heads_interleaved), FIRST),
    Fault("a Linear's bias left out", calls(Linear, lambda self, x: x @ self.weight.T), FIRST, BERT + MPNET),
    Fault("positions counted from one", calls(bert.Embeddings, bert_from_one), EMBEDDED, BERT),
    Fault("the segment's embedding left out", calls(bert.Embeddings, bert_without_type), EMBEDDED, BERT),
    Fault("positions one too early", places(lambda x: _places(x) - (x != mpnet.PADDING)), EMBEDDED, MPNET),
    Fault("a padding token in the text takes a position", places(padding_counted), EMBEDDED, MPNET),
    Fault("relative positions the wrong way round", buckets(lambda *x: _buckets(*x).T), POSITIONS, RELATIVE),
    Fault(
        "the last bucket begins at half the distance", buckets(half_as_far), POSITIONS, RELATIVE, reads_far
    ),
    Fault("relative positions in the first layer only", bias_in_the_first_layer_only, LAYER1, RELATIVE),
    Fault("a norm that takes the mean off", calls(layers.RMSNorm, subtracting_norm), BLOCK, T5),
    Fault("the residual taken after the norm", calls(t5.LayerFF, residual_after_norm), BLOCK, T5),
    Fault("the last norm left out", lambda e: patch(e.model, "finish", lambda x: x), NORM, T5),
    Fault(
        "the mean taken over padding too", counted_padding, POOLED, ALL, lambda e: "mean" in e.pooling.modes
    ),
    Fault("the mean for the first token", mean_of_all, POOLED, ALL, lambda e: e.pooling.modes == ("cls",)),
    Fault("the dense layer left out", lambda e: patch(e, "denses", ()), DENSE, ALL, lambda e: bool(e.denses)),
    Fault("the dense layer's activation left out", no_activation, DENSE, ALL, has_active_dense),
    Fault("texts cut one token early", lambda e: patch(e.tokens, "longest", e.tokens.longest - 1), TOKENS),
    Fault("special tokens left out", special_left_out, TOKENS),
)
