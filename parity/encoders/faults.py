"""Faults of encoders, each a mistake that somebody makes: planted in our side, caught by the checks, blamed
on its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from mlx_lvm.core.mlx import mx, nn
from mlx_lvm.encoders import bert, layers, mpnet, pooling, positions, t5
from mlx_lvm.encoders.encoder import TextEncoder
from mlx_lvm.encoders.layers import ACTIVATIONS, Linear

ALL = ("bert", "mpnet", "t5")
_places, _buckets = mpnet.places, positions.buckets
FIRST = ("encoder.layer.0", "encoder.block.0")
MODULES: dict[str, Any] = {"bert": bert, "mpnet": mpnet, "t5": t5}


@dataclass(frozen=True)
class Fault:
    """`plant(encoder)` is a context in which it holds. `expect`: beginnings of the place to be blamed."""

    name: str
    plant: Callable[[TextEncoder], AbstractContextManager[None]]
    expect: tuple[str, ...]
    kinds: tuple[str, ...] = ALL
    where: Callable[[TextEncoder], bool] = lambda encoder: True

    def fits(self, encoder: TextEncoder) -> bool:
        """Whether the encoder has what the fault spoils."""
        return encoder.model.config.model_type in self.kinds and self.where(encoder)


@contextmanager
def put(owner: Any, name: str, value: Any) -> Iterator[None]:
    """An attribute, or the entry of a dict, replaced while it lasts."""
    if isinstance(owner, dict) and name in owner:
        before, owner[name] = owner[name], value
        try:
            yield
        finally:
            owner[name] = before
        return
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def epsilon(encoder: TextEncoder) -> AbstractContextManager[None]:
    """1e-5 where the file says less, and 1e-12 where it says 1e-5."""
    for module in encoder.model.modules():
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            module.eps = 1e-12 if module.eps > 2e-6 else 1e-5
    return put(encoder, "batch_size", encoder.batch_size)


def attention(change: Callable[..., mx.array]) -> Callable[[TextEncoder], AbstractContextManager[None]]:
    """`attend` of the encoder's architecture replaced by change(attend, q, k, v, heads, scale, bias)."""

    def plant(encoder: TextEncoder) -> AbstractContextManager[None]:
        owner, original = MODULES[encoder.model.config.model_type], layers.attend
        return put(owner, "attend", lambda *given: change(original, *given))

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


def of_mask(change: Callable[[mx.array], mx.array]) -> Callable[[TextEncoder], AbstractContextManager[None]]:
    """What is added to the scores, changed."""

    def plant(encoder: TextEncoder) -> AbstractContextManager[None]:
        original = encoder.model.bias
        return put(encoder.model, "bias", lambda mask: change(original(mask)))

    return plant


def bias_in_the_first_layer_only(encoder: TextEncoder) -> AbstractContextManager[None]:
    kind = type(encoder.model.blocks[0])

    class Alone(kind):  # type: ignore[misc, valid-type]
        def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
            return super().__call__(x, mx.where(bias == -mx.inf, bias, mx.zeros_like(bias)))

    for block in encoder.model.blocks[1:]:
        block.__class__ = Alone
    return put(encoder, "batch_size", encoder.batch_size)


def embedding(
    change: Callable[..., mx.array], owner: Any
) -> Callable[[TextEncoder], AbstractContextManager[None]]:
    return lambda encoder: put(owner.Embeddings, "__call__", change)


def bert_from_one(self: Any, ids: mx.array) -> mx.array:
    """Positions counted from 1."""
    places = mx.arange(ids.shape[1]) + 1
    rows = self.position_embeddings(mx.minimum(places, self.position_embeddings.weight.shape[0] - 1))
    return self.LayerNorm(self.word_embeddings(ids) + self.token_type_embeddings.weight[0] + rows)


def bert_without_type(self: Any, ids: mx.array) -> mx.array:
    rows = self.position_embeddings.weight[: ids.shape[1]]
    return self.LayerNorm(self.word_embeddings(ids) + rows)


def subtracting_norm(encoder: TextEncoder) -> AbstractContextManager[None]:
    """The mean taken off, as BERT's norm does."""
    rms = layers.RMSNorm.__call__

    def norm(self: Any, x: mx.array) -> mx.array:
        return rms(self, x - x.mean(axis=-1, keepdims=True))

    return put(layers.RMSNorm, "__call__", norm)


def residual_after_norm(self: Any, x: mx.array) -> mx.array:
    x = self.layer_norm(x)
    return x + self.DenseReluDense(x)


def special_left_out(encoder: TextEncoder) -> AbstractContextManager[None]:
    tokens, ends = encoder.tokens, encoder.tokens.special

    def ids(texts: Any) -> list[list[int]]:
        before = 1 if ends > 1 else 0
        return [row[before:-1] or row for row in type(tokens).ids(tokens, texts)]

    return put(tokens, "ids", ids)


def without_bias(self: Any, x: mx.array) -> mx.array:
    return x @ self.weight.T


def activation(encoder: TextEncoder) -> str:
    config: Any = encoder.model.config
    if config.model_type == "t5":
        return "gelu_new" if config.feed_forward_proj != "relu" else "relu"
    return str(config.hidden_act)


def has_far_positions(encoder: TextEncoder) -> bool:
    """Whether halving the last distance moves a bucket within the texts that it reads."""
    return encoder.tokens.longest > 16


def mean(encoder: TextEncoder) -> bool:
    return "mean" in encoder.pooling.modes


def counted_padding(encoder: TextEncoder) -> AbstractContextManager[None]:
    class Everything(pooling.Pooling):
        def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
            return super().__call__(x, mx.ones_like(mask))

    return put(encoder, "pooling", Everything(encoder.pooling.modes, encoder.pooling.include_prompt))


PARTS = ("embeddings", "encoder.embed_tokens")
FAULTS: tuple[Fault, ...] = (
    Fault("another epsilon in the norms", epsilon, ("embeddings", "encoder.block.0")),
    Fault(
        "GELU by its tanh approximation",
        lambda e: put(ACTIVATIONS, "gelu", layers.gelu_tanh),
        FIRST,
        where=lambda e: activation(e) == "gelu",
    ),
    Fault(
        "GELU exact where the file says tanh",
        lambda e: put(ACTIVATIONS, "gelu_new", layers.gelu),
        FIRST,
        where=lambda e: activation(e) == "gelu_new",
    ),
    Fault("padding is looked at", of_mask(lambda bias: mx.maximum(bias, -50.0) * (bias > -49)), FIRST),
    Fault("padding is looked at a little", of_mask(lambda bias: mx.maximum(bias, -4.0)), FIRST),
    Fault("attention with the wrong scale", attention(other_scale), FIRST),
    Fault("heads interleaved", attention(heads_interleaved), FIRST),
    Fault(
        "a Linear's bias left out", lambda e: put(Linear, "__call__", without_bias), FIRST, ("bert", "mpnet")
    ),
    Fault("positions counted from one", embedding(bert_from_one, bert), ("embeddings",), ("bert",)),
    Fault("the segment's embedding left out", embedding(bert_without_type, bert), ("embeddings",), ("bert",)),
    Fault(
        "positions one too early",
        lambda e: put(mpnet, "places", lambda ids: _places(ids) - (ids != mpnet.PADDING)),
        ("embeddings",),
        ("mpnet",),
    ),
    Fault(
        "a padding token in the text takes a position",
        lambda e: put(mpnet, "places", lambda ids: mx.broadcast_to(mx.arange(ids.shape[1]) + 2, ids.shape)),
        ("embeddings",),
        ("mpnet",),
    ),
    Fault(
        "relative positions the wrong way round",
        lambda e: put(positions, "buckets", lambda *given: _buckets(*given).T.copy()),
        ("positions",),
        ("mpnet", "t5"),
    ),
    Fault(
        "the last bucket begins at half the distance",
        lambda e: put(
            positions, "buckets", lambda length, count, furthest: _buckets(length, count, furthest // 2)
        ),
        ("positions",),
        ("mpnet", "t5"),
        has_far_positions,
    ),
    Fault(
        "relative positions in the first layer only",
        bias_in_the_first_layer_only,
        ("encoder.layer.1", "encoder.block.1"),
        ("mpnet", "t5"),
    ),
    Fault("a norm that takes the mean off", subtracting_norm, ("encoder.block.0",), ("t5",)),
    Fault(
        "the residual taken after the norm",
        lambda e: put(t5.LayerFF, "__call__", residual_after_norm),
        ("encoder.block.0",),
        ("t5",),
    ),
    Fault(
        "the last norm left out",
        lambda e: put(e.model, "finish", lambda x: x),
        ("encoder.final_layer_norm",),
        ("t5",),
    ),
    Fault("the mean taken over padding too", counted_padding, ("pooling",), where=mean),
    Fault(
        "the mean for the first token",
        lambda e: put(e, "pooling", pooling.Pooling(("mean",))),
        ("pooling",),
        where=lambda e: e.pooling.modes == ("cls",),
    ),
    Fault(
        "the dense layer left out",
        lambda e: put(e, "denses", ()),
        ("2.dense",),
        where=lambda e: bool(e.denses),
    ),
    Fault(
        "the dense layer's activation left out",
        lambda e: put(e.denses[0], "activation", "Identity"),
        ("2.dense",),
        where=lambda e: bool(e.denses) and e.denses[0].activation != "Identity",
    ),
    Fault("texts cut one token early", lambda e: put(e.tokens, "longest", e.tokens.longest - 1), ("tokens",)),
    Fault("special tokens left out", special_left_out, ("tokens",)),
)
