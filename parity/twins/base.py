"""What the torch twins share: their prediction, their sizes and torch's own normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mlx_lvm.config import Options
from mlx_lvm.errors import UsageError, nearest

UNUSED = {"model_type", "residual_init"}  # entries of a config that do not change what a model computes

__all__ = ["Prediction", "Twin", "is_chunk", "normalize"]


class Prediction(NamedTuple):
    """The fields of `mlx_lvm.models.Prediction`, as torch tensors."""

    raw: Tensor
    unit: Tensor
    attention: Tensor | None = None
    baseline: Tensor | None = None
    residual: Tensor | None = None
    ahead: Tensor | None = None


class Twin(nn.Module):
    """A model in plain torch: [batch, length, dim] -> Prediction. Its state dict is that of a released file.

    `config` is the config of the MLX model, its dict, or None for the default sizes.
    """

    model_type: ClassVar[str] = ""
    defaults: ClassVar[Options] = {}

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.config = sizes(config, self.defaults)

    @property
    def takes_queries(self) -> bool:
        """Whether `forward` has a second argument, a query [batch, dim]."""
        return False

    def forward(self, context: Tensor) -> Prediction:
        raise NotImplementedError  # every architecture defines its own


def sizes(config: Any, defaults: Options) -> SimpleNamespace:
    """The sizes a twin needs, of a config object or a dict. Raises UsageError for a key it does not know."""
    if isinstance(config, Mapping):
        for key in config:
            if key not in defaults and key not in UNUSED:
                raise UsageError(f"torch twin: unknown key '{key}'.{nearest(str(key), list(defaults))}")
        values = {**defaults, **{key: config[key] for key in defaults if key in config}}
    else:
        values = {key: getattr(config, key, default) for key, default in defaults.items()}
    return SimpleNamespace(**values)


def is_chunk(x: Tensor) -> Tensor:
    """[..., dim] -> bool [...]: false where all elements are zero or, as Metal takes for zero, subnormal."""
    return ~(x.abs() < torch.finfo(torch.float32).tiny).all(dim=-1)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """[length, length]: 0 where position i sees position j <= i, else -inf (torch's additive convention)."""
    return torch.full((length, length), float("-inf"), dtype=like.dtype, device=like.device).triu(1)
