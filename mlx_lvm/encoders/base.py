"""What architectures share: a config out of `config.json`; a model as embedding, blocks and a last step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from mlx_lvm.config import Config
from mlx_lvm.core.mlx import mx, nn, tree_flatten
from mlx_lvm.core.result import JsonObject
from mlx_lvm.errors import InvalidFile, UsageError

C = TypeVar("C", bound="EncoderConfig")

OTHER_ENGINE = "--engine torch runs it through sentence-transformers"


@dataclass(frozen=True)
class EncoderConfig(Config):
    """Sizes of an encoder by their names in its `config.json`; absent ones have transformers' defaults."""

    model_type: ClassVar[str] = ""
    fixed: ClassVar[dict[str, tuple[Any, ...]]] = {}  # key -> the values that the code stands for

    @classmethod
    def read(cls: type[C], values: JsonObject, where: str) -> C:
        """Raises InvalidFile for a value out of range and for a variant we do not compute."""
        for key, allowed in cls.fixed.items():
            if key in values and values[key] not in allowed:
                expected = " or ".join(repr(value) for value in allowed)
                raise InvalidFile(
                    f"{where}: {key} = {values[key]!r}; {cls.title} here has {expected}. {OTHER_ENGINE}."
                )
        try:
            return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        except UsageError as error:
            raise InvalidFile(f"{where}: {error}") from None

    @property
    def width(self) -> int:
        """Numbers in a token's vector."""
        raise NotImplementedError

    @property
    def positions(self) -> int | None:
        """The longest text in tokens; None where nothing but memory bounds it."""
        return None


class Block(nn.Module):
    """A layer: attention, then the feed-forward network, (x [batch, length, width], bias) -> x."""

    def halves(self, x: mx.array, bias: mx.array) -> Iterator[mx.array]:
        """What attention makes, and what the layer makes."""
        raise NotImplementedError

    def __call__(self, x: mx.array, bias: mx.array) -> mx.array:
        *_, x = self.halves(x, bias)
        return x


class TextModel(nn.Module):
    """A transformer encoder: token ids [batch, length] int32 and mask [batch, length] (1 for a token, 0 for
    padding) to hidden states [batch, length, width].

    It is cut where a comparison looks: `embed`, each of `blocks`, then `finish`. Padding changes nothing.
    """

    ignored: ClassVar[tuple[str, ...]] = ()  # beginnings of names in a file that no text vector depends on
    prefix: ClassVar[str] = ""  # of every name, in a file that was saved with a head

    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        x, bias = self.embed(ids), self.bias(mask)
        for block in self.blocks:
            x = block(x, bias)
        return self.finish(x)

    @property
    def blocks(self) -> Sequence[Block]:
        """The layers, first to last."""
        raise NotImplementedError

    def embed(self, ids: mx.array) -> mx.array:
        raise NotImplementedError

    def bias(self, mask: mx.array) -> mx.array:
        """Added to the attention's scores: broadcasts to [batch, heads, length, length], -inf at padding."""
        return key_bias(mask, self.dtype)

    def finish(self, x: mx.array) -> mx.array:
        return x

    def weights(self) -> dict[str, mx.array]:
        """Every parameter by its torch name."""
        return dict(tree_flatten(self.parameters()))

    @property
    def dtype(self) -> mx.Dtype:
        return next(iter(self.weights().values())).dtype


def key_bias(mask: mx.array, dtype: mx.Dtype) -> mx.array:
    """[batch, length] -> [batch, 1, 1, length]: 0 for a token, -inf for padding, which nothing looks at."""
    return mx.where(mask[:, None, None, :] > 0, 0.0, -mx.inf).astype(dtype)
